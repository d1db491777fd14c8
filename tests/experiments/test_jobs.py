"""A job is done once, whoever is asked to do it and however often."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import Compose
from filelock import Timeout
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf

from sparse_lightning.errors import DataError, SettingError, SweepError
from sparse_lightning.experiments.jobs import OUTPUT_FILE, require_one_device, run_once
from sparse_lightning.experiments.locks import held
from sparse_lightning.experiments.runs import RESULTS_FILE, Run, State, record_settings
from sparse_lightning.files import write_json


@pytest.fixture
def config(tmp_path: Path) -> DictConfig:
    return OmegaConf.create(
        {
            "run_dir": str(tmp_path / "job"),
            "resume": False,
            "sweep": {"threads": None},
            "trainer": {
                "strategy": "auto",
                "devices": 1,
                "num_nodes": 1,
                "enable_progress_bar": True,
            },
        }
    )


class Training:
    """Stands for training: counts its calls, and leaves results unless told to fail."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.configs = error, []

    def __call__(self, config: DictConfig) -> dict[str, float]:
        self.configs.append(config.copy())
        print("training")
        if self.error is not None:
            raise self.error
        write_json(Path(config.run_dir) / RESULTS_FILE, {"test/psnr": 1.0})
        return {"test/psnr": 1.0}


def test_a_job_is_done_when_its_results_cover_the_epochs_asked_for(config):
    training, run = Training(), Run(Path(config.run_dir))
    run.folder.mkdir()
    config.trainer.max_epochs = 5
    write_json(run.folder / RESULTS_FILE, {"epochs": 5, "max_epochs": 5})
    assert run_once(training, config) == run.results
    config.trainer.max_epochs = 3
    assert run_once(training, config) == run.results
    assert not training.configs
    config.trainer.max_epochs = 10
    run_once(training, config)
    assert len(training.configs) == 1


def test_results_from_before_learn_how_many_epochs_were_asked_for(config):
    run = Run(Path(config.run_dir))
    run.folder.mkdir()
    config.trainer.max_epochs = 50
    record_settings(config, run.folder)
    write_json(run.folder / RESULTS_FILE, {"epochs": 50})
    config.trainer.max_epochs = 100
    record_settings(config, run.folder)
    assert run.results == {"epochs": 50, "max_epochs": 50}
    assert not run.covers(100)


def test_an_earlier_run_that_stopped_by_itself_is_done(config):
    run = Run(Path(config.run_dir))
    run.folder.mkdir()
    config.trainer.max_epochs = 50
    record_settings(config, run.folder)
    write_json(run.folder / RESULTS_FILE, {"epochs": 20})
    assert run.covers(50)
    assert run.covers(100)


def test_a_finished_job_is_left_as_it_is(config, capsys):
    training, run = Training(), Run(Path(config.run_dir))
    assert run.state is State.WAITING
    assert run_once(training, config) == {"test/psnr": 1.0}
    assert run.state is State.FINISHED
    assert run_once(training, config) == {"test/psnr": 1.0}
    assert len(training.configs) == 1
    assert capsys.readouterr().out == ""
    assert "training\n" in (run.folder / OUTPUT_FILE).read_text()


def test_a_failed_job_tells_the_sentence_behind_what_it_was_raised_from(config):
    sentence = SettingError("λ=-1 is less than 0.")
    try:
        raise InstantiationException("Error in call to target") from sentence
    except InstantiationException as error:
        failing = Training(error)
    run = Run(Path(config.run_dir))
    with pytest.raises(SweepError, match=r"^job: λ=-1 is less than 0\.$"):
        run_once(failing, config)
    assert (run.failure["error"], run.failure["message"]) == (
        "SettingError",
        "λ=-1 is less than 0.",
    )


def test_a_failed_job_says_why_and_is_tried_again(config):
    run = Run(Path(config.run_dir))
    with pytest.raises(SweepError, match=r"^job: no such photograph$"):
        run_once(Training(DataError("no such photograph")), config)
    assert run.state is State.FAILED
    assert run.failure["error"] == "DataError"
    assert run.failure["message"] == "no such photograph"
    assert "Training" in run.failure["traceback"] or "__call__" in run.failure["traceback"]
    run_once(Training(), config)
    assert run.state is State.FINISHED
    assert run.failure is None


def test_a_job_with_a_checkpoint_is_resumed(config):
    training = Training(ValueError("stop"))
    for expected in (False, True):
        with pytest.raises(SweepError):
            run_once(training, config)
        assert training.configs[-1].resume is expected
        (Path(config.run_dir) / "checkpoints").mkdir(exist_ok=True)
        (Path(config.run_dir) / "checkpoints" / "last.ckpt").touch()


def test_a_job_goes_on_by_force_where_that_is_asked_for(config):
    config.resume = "force"
    last = Run(Path(config.run_dir)).last_checkpoint
    last.parent.mkdir(parents=True)
    last.touch()
    training = Training()
    run_once(training, config)
    assert training.configs[-1].resume == "force"


def test_an_interrupted_job_is_not_taken_for_a_failed_one(config):
    training, run = Training(), Run(Path(config.run_dir))
    training.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        run_once(training, config)
    assert run.state is State.INTERRUPTED


def test_a_job_that_another_has_is_left_to_it(config):
    training, run = Training(), Run(Path(config.run_dir))
    run.folder.mkdir()
    with held(run.folder):
        assert run.state is State.RUNNING
        assert run_once(training, config) is None
    assert training.configs == []
    assert run_once(training, config) is not None


HOLD = """
import sys, time
from pathlib import Path
from sparse_lightning.experiments.locks import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_killed_process_holds_no_lock(config):
    run = Run(Path(config.run_dir))
    record_settings(config, run.folder)
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run.folder)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert process.stdout.readline() == "held\n"
    assert run.state is State.RUNNING
    with pytest.raises(Timeout), held(run.folder):
        pass
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert run.state is State.INTERRUPTED
    run_once(Training(), config)
    assert run.state is State.FINISHED


def test_threads_are_limited_where_asked(config):
    threads = []

    def train(config: DictConfig) -> dict[str, float]:
        threads.append(torch.get_num_threads())
        return {}

    before = torch.get_num_threads()
    config.sweep.threads = 1
    try:
        run_once(train, config)
    finally:
        torch.set_num_threads(before)
    assert threads == [1]


@pytest.mark.parametrize(
    "overrides",
    [
        ["trainer.devices=2"], ["trainer.devices=[0,1]"], ["trainer.devices=auto"],
        ["trainer.devices=-1"], ["trainer.strategy=ddp"], ["trainer.num_nodes=2"],
    ],
)  # fmt: skip
def test_several_devices_are_refused(overrides, compose: Compose):
    require_one_device(compose("model=sdl"))
    require_one_device(compose("model=sdl", "trainer.devices=[1]"))
    with pytest.raises(SettingError, match="leave trainer=ddp out"):
        require_one_device(compose("model=sdl", *overrides))
