"""Jobs side by side take different devices, on a machine that is said to have some."""

from __future__ import annotations

import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from sparse_lightning.errors import SettingError
from sparse_lightning.experiments import devices
from sparse_lightning.experiments.devices import own_device, place, require_places, shared_devices
from sparse_lightning.experiments.jobs import run_once
from sparse_lightning.experiments.runs import Run
from sparse_lightning.training.preparation import usable_devices

TWO = {0: "first", 1: "second"}


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine's places that nobody has."""
    monkeypatch.setattr(devices.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(devices, "POLL", 0.01)
    return tmp_path


def settings(**sweep: object):
    common = {"threads": None, "jobs_per_device": None, "devices": None, "device": None}
    trainer = {"accelerator": "auto", "strategy": "auto", "devices": 1, "num_nodes": 1}
    return OmegaConf.create(
        {"sweep": common | sweep, "trainer": trainer | {"max_epochs": 1}, "seed": 1}
    )


class Gpu:
    def __init__(self, index: int) -> None:
        self.uuid = f"GPU-{index}"


@pytest.fixture
def four_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "get_device_properties", Gpu)


@pytest.mark.parametrize("limit", [None, 3])
def test_jobs_spread_evenly(limit: int | None):
    with ExitStack() as jobs:
        taken = [jobs.enter_context(place(TWO, limit)) for _ in range(6)]
    assert taken == [0, 1, 0, 1, 0, 1]


def test_a_place_that_comes_free_is_taken_next():
    with place(TWO, None), ExitStack() as second:
        assert second.enter_context(place(TWO, None)) == 1
        with place(TWO, None) as third:
            assert third == 0
            second.close()
            with place(TWO, None) as fourth:
                assert fourth == 1


def test_who_finds_no_place_waits_for_one():
    found = []

    def work() -> None:
        with place(TWO, 1) as index:
            found.append(index)

    with place(TWO, 1), ExitStack() as second:
        second.enter_context(place(TWO, 1))
        waiting = threading.Thread(target=work)
        waiting.start()
        waiting.join(0.1)
        assert found == []
        second.close()
        waiting.join(10)
    assert found == [1]


def test_a_process_that_dies_leaves_its_place():
    held = devices.places_folder() / "first.0.lock"
    program = (
        "import sys; from filelock import FileLock; "
        "lock = FileLock(sys.argv[1]); lock.acquire(); print(1, flush=True); input()"
    )
    words = [sys.executable, "-c", program, str(held)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"1\n"
        with place(TWO, None) as index:
            assert index == 1
        process.kill()
    with place(TWO, None) as index:
        assert index == 0


@pytest.mark.parametrize(
    ("sweep", "asked", "expected"),
    [
        ({}, 1, {0: "GPU-0", 1: "GPU-1", 2: "GPU-2", 3: "GPU-3"}),
        ({"devices": [1, 3]}, 1, {1: "GPU-1", 3: "GPU-3"}),
        ({}, [2], {2: "GPU-2"}),
    ],
)
@pytest.mark.usefixtures("four_gpus")
def test_jobs_share_the_gpus_that_there_are(sweep, asked, expected):
    config = settings(**sweep)
    config.trainer.devices = asked
    assert shared_devices(config) == expected
    config.trainer.accelerator = "cpu"
    assert shared_devices(config) == {index: str(index) for index in sweep.get("devices", ())}


@pytest.mark.usefixtures("four_gpus")
def test_a_job_trains_on_the_device_that_it_has_a_place_on(tmp_path: Path):
    def job(name: str) -> list[int]:
        config = settings(jobs_per_device=1)
        config.run_dir = str(tmp_path / name)

        def train(config):
            assert Run(tmp_path / name).config.sweep.device == config.sweep.device
            # Another job, while this one trains.
            others = [] if name == "four" else job({"one": "two", "two": "four"}[name])
            return {"devices": [*usable_devices(config), *others]}

        return run_once(train, config)["devices"]

    assert job("one") == [0, 1, 2]


def test_what_trains_alone_or_on_a_cpu_keeps_its_devices():
    assert usable_devices(settings()) == 1
    config = settings(devices=[0, 1])
    with own_device(config) as index:
        config.sweep.device = index
        config.trainer.accelerator = "cpu"
        assert (index, usable_devices(config)) == (0, 1)
    with own_device(settings()) as index:
        assert torch.cuda.is_available() or index is None


@pytest.mark.usefixtures("four_gpus")
def test_mistakes_are_told_by_name():
    with pytest.raises(SettingError, match=r"sweep\.jobs_per_device=0 must be a whole number"):
        require_places(settings(jobs_per_device=0))
    for wrong in ("all", [], [0.5], [-1]):
        with pytest.raises(SettingError, match=r"sweep\.devices=.* must be a list of whole"):
            require_places(settings(devices=wrong))
    with pytest.raises(SettingError, match=r"devices=\[0, 4\] names device 4.*sees 4"):
        shared_devices(settings(devices=[0, 4]))
