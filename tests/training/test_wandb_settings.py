"""W&B never costs a training: what it cannot take or do is told before, or is a warning."""

from __future__ import annotations

import http.server
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pandas as pd
import pytest
import wandb
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from omegaconf import OmegaConf

from sparse_lightning.config import wandb_mode
from sparse_lightning.errors import SettingError
from sparse_lightning.experiments import wandb_summary
from sparse_lightning.training import wandb_settings
from sparse_lightning.training.loggers import TolerantWandbLogger, wandb_finished, wandb_logger

KEY = "1" * 40


@pytest.fixture(autouse=True)
def no_account(monkeypatch, tmp_path: Path):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("WANDB_MODE", "ofline", "WANDB_MODE=ofline must be one of online, offline, disabled"),
        ("WANDB_MODE", "", "WANDB_MODE= must be one of"),
        ("WANDB_BASE_URL", "my-server", "WANDB_BASE_URL=my-server"),
        ("WANDB_INIT_TIMEOUT", "soon", "WANDB_INIT_TIMEOUT=soon"),
        ("WANDB_PROJECT", "a/b", "project"),
    ],
)
def test_wrong_variables_are_told_before_training(monkeypatch, tmp_path, variable, value, expected):
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingError, match=expected):
        wandb_mode()
    with pytest.raises(SettingError, match=expected):
        wandb_logger(tmp_path, project="mine")


def test_wrong_settings_are_told_before_training(tmp_path: Path):
    with pytest.raises(SettingError, match=r"logger\.wandb\.mode=on must be one of"):
        wandb_logger(tmp_path, project="mine", mode="on")
    with pytest.raises(SettingError, match=r"logger\.wandb\.project=a/b is none that W&B takes"):
        wandb_logger(tmp_path, project="a/b")


@pytest.mark.parametrize("length", [1, 64, 65, 129, 250])
def test_names_of_any_length_are_taken(length):
    name = "n" * length
    given = wandb_settings.arguments(tags=[name, "", name, 7], group=name, name=name)
    wandb.Settings(run_tags=given["tags"], run_group=given["group"], run_name=given["name"])
    assert len(given["tags"]) == 2
    assert len(given["group"]) <= 128
    # Long names that end differently stay different.
    assert wandb_settings.cut(f"{name}a", 64) != wandb_settings.cut(f"{name}b", 64)


RUN = """
import sys, wandb
from sparse_lightning.training import wandb_settings
with wandb.init(**wandb_settings.arguments(project="mine", dir=sys.argv[1])) as run:
    run.log({"loss": 0.5})
"""


@pytest.mark.parametrize(("environment", "long"), [({}, False), ({"WANDB_QUIET": "false"}, True)])
def test_w_and_b_does_not_hide_the_table_at_the_end(tmp_path: Path, environment, long):
    own = {name: text for name, text in os.environ.items() if name != "WANDB_SILENT"}
    command = [sys.executable, "-c", RUN, str(tmp_path)]
    told = subprocess.run(
        command, env=own | environment, capture_output=True, text=True, check=True
    )
    assert ("Run summary" in told.stderr) == long


class Beginnings:
    """Stands for ``wandb.init``: fails in some modes, and remembers which were tried."""

    def __init__(self, *failing: str) -> None:
        self.failing, self.tried = failing, []

    def __call__(self, mode: str) -> str:
        self.tried.append(mode)
        if mode in self.failing:
            raise wandb.errors.CommError(f"no luck {mode}\nand details")
        return mode


def test_what_fails_is_begun_in_a_humbler_mode(monkeypatch):
    monkeypatch.setattr(wandb_settings, "_obstacle", lambda: None)
    with pytest.warns(UserWarning, match=r"W&B fails online \(no luck online\).*logged offline"):
        assert wandb_settings.begin(Beginnings("online"), None) == "offline"
    begun = Beginnings("online", "offline")
    with pytest.warns(UserWarning, match=r"W&B fails (online|offline)"):
        assert wandb_settings.begin(begun, "online") == "disabled"
    assert begun.tried == ["online", "offline", "disabled"]
    assert wandb_settings.begin(begun := Beginnings(), "offline") == "offline"
    assert begun.tried == ["offline"]


def test_online_is_not_tried_without_a_key_or_an_answer(monkeypatch):
    with pytest.warns(UserWarning, match="no API key"):
        assert wandb_settings.begin(begun := Beginnings(), "online") == "offline"
    assert begun.tried == ["offline"]
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{deaf.getsockname()[1]}")
        with pytest.warns(UserWarning, match=r"cannot be reached \(.*refused.*logged offline"):
            assert wandb_settings.begin(begun := Beginnings(), "online") == "offline"
    assert begun.tried == ["offline"]


def test_a_key_is_found_where_w_and_b_finds_it(monkeypatch, tmp_path: Path):
    machine = "machine 127.0.0.1:8080 login user password " + KEY
    (tmp_path / "netrc").write_text(machine)
    assert not wandb_settings.has_api_key()
    # As ``wandb login --host`` leaves it.
    (tmp_path / "config").mkdir()
    file = tmp_path / "config" / "settings"
    file.write_text("[default]\nbase_url = http://127.0.0.1:8080\n")
    assert wandb_settings.has_api_key()
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9090")
    assert not wandb_settings.has_api_key()
    for content in ("base_url = a", "[default]\nbase_url = nowhere", "\0"):
        file.write_text(content)
        assert wandb_settings.environment().base_url == "http://127.0.0.1:9090"
    monkeypatch.setenv("WANDB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    assert wandb_settings.has_api_key()


class Refusing(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(403)

    def log_message(self, *arguments: object) -> None:
        pass


def test_a_server_that_refuses_has_answered(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with http.server.HTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_port}")
        assert wandb_settings.begin(Beginnings(), "online") == "online"
        server.shutdown()


def test_other_processes_than_the_first_ask_nothing_of_w_and_b(monkeypatch, tmp_path: Path):
    monkeypatch.setattr(wandb_settings, "begin", None)
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    TolerantWandbLogger(save_dir=tmp_path).experiment.log({})


def test_a_run_that_was_begun_before_is_left_open(tmp_path: Path):
    given = {"mode": "offline", "dir": tmp_path}
    with wandb.init(**given) as own:
        with wandb_finished():
            pass
        assert wandb.run is own
    with wandb_finished():
        wandb.init(**given)
    assert wandb.run is None


def test_what_w_and_b_raises_during_training_is_one_warning(tmp_path: Path):
    logger = TolerantWandbLogger(save_dir=tmp_path, mode="offline", project="mine")

    class Broken:
        def log(self, *arguments: object, **settings: object) -> None:
            raise BrokenPipeError("its process is gone")

    logger._experiment = Broken()
    with pytest.warns(UserWarning, match=r"BrokenPipeError: its process is gone.*gaps"):
        logger.log_metrics({"a": 1.0}, 1)
    # Further warnings would be errors here.
    logger.log_metrics({"a": 2.0}, 2)


def test_a_sweep_that_w_and_b_cannot_record_keeps_its_tables(monkeypatch, tmp_path: Path):
    given = []

    def fails(**settings):
        given.append(settings)
        raise OSError("no room")

    monkeypatch.setattr(wandb, "init", fails)
    monkeypatch.setattr(wandb_settings, "begin", lambda init, mode: init(mode))
    folder = tmp_path / ("s" * 65)
    folder.mkdir()
    config = OmegaConf.create({"logger": {"wandb": {"project": "mine", "mode": "offline"}}})
    with pytest.warns(UserWarning, match="no room"):
        wandb_summary.log(config, folder, pd.DataFrame(), pd.DataFrame())
    assert [len(tag) for tag in given[0]["tags"]] == [64]
