"""A training that was interrupted inside an epoch goes on there, as if nothing had happened."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import lightning
import numpy as np
import pytest
import torch
from conftest import Compose
from interruptions import Interrupted, StopAfter, assert_equal_runs, table_of, train_with
from torch.utils.data import DataLoader

from sparse_lightning.checkpoint_format import epochs_behind, is_inside_epoch, read_checkpoint
from sparse_lightning.data.batch import TensorSlices, slice_loader
from sparse_lightning.data.mnist import MNIST
from sparse_lightning.errors import CheckpointError, SettingError
from sparse_lightning.metrics import CodeStatistics
from sparse_lightning.train import start, train
from sparse_lightning.training.checkpoints import RunCheckpoint
from sparse_lightning.training.epoch_in_progress import (
    add_metric_states,
    metric_states,
    random_states,
    set_random_states,
)

REPOSITORY = Path(__file__).parents[2]
ALWAYS = "callbacks.last.every_minutes=1e-9"
# Five batches in an epoch, the last of them smaller.
SMALL = ("code_dim=16", "hidden_dim=24", "solver.max_iterations=8")
SETTINGS = (*SMALL, "data.num_train=230", "data.num_val=50", "trainer.max_epochs=3")


class Noise(lightning.Callback):
    """Weights that depend on every random number drawn so far."""

    def on_train_batch_end(self, trainer, model, *args) -> None:
        with torch.no_grad():
            for weight in model.parameters():
                noise = torch.randn_like(weight) + np.random.standard_normal() + random.random()
                weight.add_(1e-4 * noise)


class NoisyUntil(Noise):
    """Noise, and an error at the end of a batch of an epoch."""

    def __init__(self, epoch: int, batch: int) -> None:
        self.end = (epoch, batch)

    def on_train_batch_end(self, trainer, model, outputs, batch, batch_idx) -> None:
        super().on_train_batch_end(trainer, model)
        if (trainer.current_epoch, batch_idx) == self.end:
            raise Interrupted


def command(folder: Path, mnist_root: Path, settings: Sequence[str]) -> list[str]:
    """A training in two processes that saves after every batch."""
    return [
        *(sys.executable, "-m", "sparse_lightning.train", "logger=none", *SETTINGS, *settings),
        *("data.num_test=50", "data.batch_size=46", "trainer=ddp", "trainer.accelerator=cpu"),
        *("trainer.devices=2", "trainer.enable_progress_bar=false", "~callbacks.figures", ALWAYS),
        *(f"data.root={mnist_root}", f"hydra.run.dir={folder}", "resume=true"),
    ]


def has_come_to(epoch: int, run: Path) -> bool:
    """Whether a run has saved inside an epoch from this one on."""
    path = run / "checkpoints" / "last.ckpt"
    return (
        path.exists() and is_inside_epoch(kept := read_checkpoint(path)) and kept["epoch"] >= epoch
    )


def run_in_two_processes(words: Sequence[str], until: Callable[[], bool] = lambda: False) -> int:
    """Exit code of a training, which is killed once something holds."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(words, cwd=REPOSITORY, env=environment, start_new_session=True)
    while process.poll() is None and not until():
        time.sleep(0.02)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait(timeout=60)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [("model=vdl",), ("model=sdl", "callbacks=revive", "model.energy.sparsity_weight=0.1")],
    ids=["hinge", "revive"],
)
def test_two_processes_that_were_killed_go_on_inside_the_epoch(
    settings, mnist_root: Path, tmp_path: Path
):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    begun, resumed = (command(folder, mnist_root, settings) for folder in (whole, parts))
    assert run_in_two_processes(begun) == 0
    assert run_in_two_processes(resumed, lambda: has_come_to(1, parts)) != 0
    assert run_in_two_processes(resumed) == 0
    assert_equal_runs(whole, parts)


@pytest.mark.parametrize(
    ("settings", "end"),
    [
        pytest.param(
            ("model=vdl_nl", "model.optimizer.decoder_decay_epochs=1"), (1, 3), id="hidden layer"
        ),
        # Before there is any best model.
        pytest.param(
            ("model=do", "trainer.accumulate_grad_batches=2"),
            (0, 3),
            id="first epoch",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ("model=sdl", "trainer.val_check_interval=0.4"),
            (2, 2),
            id="validations inside",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_an_epoch_goes_on_where_it_was_interrupted(settings, end, compose_small, tmp_path: Path):
    """The same weights and the same rows, bit for bit, whoever draws random numbers."""
    whole, parts = (
        compose_small(*SETTINGS, *settings, ALWAYS, run_dir=tmp_path / name)
        for name in ("whole", "parts")
    )
    train_with(whole, Noise())
    with pytest.raises(Interrupted):
        train_with(parts, NoisyUntil(*end))
    kept = read_checkpoint(tmp_path / "parts" / "checkpoints" / "last.ckpt")
    assert is_inside_epoch(kept)
    assert epochs_behind(kept) == end[0]
    parts.resume = True
    train_with(parts, Noise())
    assert_equal_runs(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.slow
def test_what_is_trained_is_the_same_however_often_it_is_saved(compose_small: Compose, tmp_path):
    for name, settings in (("often", [ALWAYS]), ("seldom", [])):
        config = compose_small("model=sdl", *SETTINGS, *settings, run_dir=tmp_path / name)
        train_with(config, Noise())
    assert_equal_runs(tmp_path / "often", tmp_path / "seldom")


def test_the_time_of_an_interrupted_epoch_counts(compose_small: Compose, tmp_path, monkeypatch):
    config = compose_small("model=sdl", *SMALL, "trainer.max_epochs=1", ALWAYS)
    with pytest.raises(Interrupted):
        train_with(config, StopAfter(epochs=0))
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    contents = torch.load(path, weights_only=True)
    contents["epoch_in_progress"][0]["spent"] = (3000.0, 2000.0)
    torch.save(contents, path)
    config.resume = True
    train(config)
    row = table_of(tmp_path / "run").iloc[0]
    assert 3000 < row["seconds"] < 3600
    assert 2000 < row["cpu_seconds"] < 2600


def test_another_run_does_not_begin_inside_an_epoch(compose_small: Compose, tmp_path: Path):
    with pytest.raises(Interrupted):
        train_with(compose_small("model=sdl", ALWAYS), StopAfter(epochs=1))
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    other = compose_small("model=sdl", f"ckpt_path={last}", run_dir=tmp_path / "other")
    with pytest.raises(CheckpointError, match=r"saved inside epoch 1.*or start.*init_from"):
        train(other)
    forced = compose_small("model=sdl", "resume=force", "data.batch_size=25", "data.num_val=50")
    with pytest.raises(SettingError, match=r"data\.batch_size=25 cuts an epoch into 8.*of 4:"):
        train(forced)


class Plain(MNIST):
    """Data whose order cannot be gone on with."""

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.splits["train"], 50, shuffle=True, collate_fn=lambda batch: batch)


def test_data_that_cannot_go_on_inside_an_epoch_are_refused_by_name(compose_small, tmp_path):
    config = compose_small("model=sdl", "callbacks.last.every_minutes=10")
    config.data._target_ = f"{__name__}.Plain"
    with pytest.raises(SettingError, match=r"every_minutes=10.*that of Plain has no state_dict"):
        train(config)
    with pytest.raises(SettingError, match=r"callbacks\.last\.every_minutes=0 must be .* above 0"):
        RunCheckpoint(tmp_path, every_minutes=0)
    with pytest.raises(SettingError, match=r"set callbacks\.last\.every_minutes"):
        RunCheckpoint(tmp_path, every_minutes=1, monitor="val/energy")


class Terminate(lightning.Callback):
    """SIGTERM while a batch is trained, or behind the last callback that sees it."""

    def __init__(self, is_behind: bool) -> None:
        self.is_behind = is_behind

    def on_train_batch_start(self, trainer, model, batch, batch_idx) -> None:
        if (trainer.current_epoch, batch_idx) != (1, 2):
            return
        if self.is_behind:
            model.on_train_batch_end = lambda *args: signal.raise_signal(signal.SIGTERM)
        else:
            signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize("is_behind", [False, True])
def test_sigterm_saves_inside_the_epoch(
    is_behind: bool, compose_small: Compose, tmp_path: Path, capsys
):
    whole, parts = (
        compose_small("model=sdl", *SETTINGS, run_dir=tmp_path / name)
        for name in ("whole", "parts")
    )
    train(whole)
    with pytest.raises(SystemExit) as stopped:
        train_with(parts, Terminate(is_behind), start)
    assert stopped.value.code == 143
    assert "Interrupted. This goes on inside epoch 1:\n" in capsys.readouterr().err
    parts.resume = True
    train(parts)
    assert_equal_runs(tmp_path / "whole", tmp_path / "parts")


def numbered(size: int) -> TensorSlices:
    rows = torch.arange(size, dtype=torch.float32)[:, None]
    return TensorSlices(rows, torch.ones(()), torch.zeros(()))


@pytest.mark.parametrize("rank", [0, 1])
def test_a_loader_goes_on_with_the_batches_that_are_left(rank: int):
    loaders = [slice_loader(numbered(46), 10, 3, False, rank, 2) for _ in range(2)]
    for loader in loaders:
        loader.sampler.set_epoch(7)
    whole = [batch.inputs for batch in loaders[0]]
    batches = iter(loaders[0])
    taken = [next(batches).inputs for _ in range(3)]
    loaders[1].load_state_dict(loaders[0].state_dict())
    rest = [batch.inputs for batch in loaders[1]]
    assert len(rest) == 2
    assert all(map(torch.equal, taken + rest, whole))
    # Only once.
    assert all(map(torch.equal, (batch.inputs for batch in loaders[1]), whole))


def test_a_loader_draws_nothing_from_the_common_generator():
    before = torch.get_rng_state()
    assert len(list(slice_loader(numbered(20), 10, 3))) == 2
    assert torch.equal(before, torch.get_rng_state())


def test_generators_go_on():
    states = random_states(torch.device("cpu"))

    def drawn() -> list:
        return [random.random(), np.random.standard_normal(), torch.randn(3).tolist()]

    first = drawn()
    assert first != drawn()
    set_random_states(states, torch.device("cpu"))
    assert drawn() == first


def test_metrics_go_on_with_those_of_other_processes():
    """Sums of two processes, gone on with by one."""

    def updated(*batches: torch.Tensor) -> torch.nn.ModuleDict:
        meters = torch.nn.ModuleDict({"codes": CodeStatistics(3), "unused": CodeStatistics(3)})
        for batch in batches:
            meters["codes"].update(batch)
        return meters

    batches = torch.rand(3, 4, 3).round(decimals=1) * (torch.rand(3, 4, 3) > 0.5)
    parts = [metric_states(updated(batch)) for batch in batches[:2]]
    assert parts[0].keys() == {"codes"}
    found = updated()
    for part in parts:
        add_metric_states(found, part)
    found["codes"].update(batches[2])
    whole = updated(*batches)["codes"]
    assert found["codes"].update_count == 3
    for name, value in whole.compute().items():
        torch.testing.assert_close(found["codes"].compute()[name], value, rtol=1e-14, atol=0)
    assert torch.equal(found["codes"].largest, whole.largest)
