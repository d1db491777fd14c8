"""Training from end to end: what a run leaves behind, and what it refuses."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import Compose
from interruptions import weights_of

from sparse_lightning.errors import CheckpointError, DataError, SettingError
from sparse_lightning.experiments.runs import Run, State
from sparse_lightning.model import SparseAutoencoder
from sparse_lightning.solvers import FISTA
from sparse_lightning.train import train
from sparse_lightning.training.code_identity import code_identity, commit_of

SHORT = (
    "trainer=cpu",
    "trainer.enable_progress_bar=false",
    "trainer.max_epochs=1",
    "logger=none",
    "data.batch_size=20",
    "solver.max_iterations=5",
    "~callbacks.figures",
)


def test_what_a_run_leaves_behind(compose_small: Compose, tmp_path: Path):
    config = compose_small("model=vdl", "trainer.max_epochs=3", "logger=[csv,tensorboard]")
    final = train(config)
    run = tmp_path / "run"
    stored = json.loads((run / "metrics.json").read_text())
    assert stored == final
    metrics = ("psnr", "zeros", "energy", "reconstruction", "dead_units", "code_std")
    assert {f"{phase}/{m}" for phase in ("val", "test") for m in metrics} <= set(stored)
    about = {name: stored.pop(name) for name in ("version", "commit")}
    assert len(stored.pop("data_fingerprint")) == 20
    assert all(math.isfinite(value) for value in stored.values())
    assert (stored["epochs"], stored["max_epochs"]) == (3, 3)
    assert stored["seconds"] > 0
    assert stored["cpu_seconds"] > 0
    assert about == code_identity()

    table = pd.read_csv(run / "metrics.csv")
    assert table["epoch"].tolist() == [0, 1, 2]
    terms = ("energy", "reconstruction", "sparsity", "variance", "encoder")
    for phase in ("train", "val"):
        for metric in (*terms, "psnr", "zeros", "dead_units", "code_l1", "code_std"):
            assert table[f"{phase}/{metric}"].notna().all(), metric
        total = sum(table[f"{phase}/{term}"] for term in terms[1:])
        assert table[f"{phase}/energy"].to_list() == pytest.approx(total.to_list(), rel=1e-5)
    assert table["train/iterations"].between(1, 30).all()
    assert table["train/column_norm"].gt(0).all()
    assert stored["val/energy"] == table["val/energy"].min()

    assert (run / "csv" / "version_0" / "metrics.csv").exists()
    assert list((run / "tensorboard").glob("events*"))
    best = SparseAutoencoder.load_from_checkpoint(run / "checkpoints" / "best.ckpt")
    assert best.family == "vdl"
    assert (run / "checkpoints" / "last.ckpt").exists()


def test_two_states_of_changed_files_are_two(tmp_path: Path):
    def git(*words: str) -> None:
        author = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", *author, *words], cwd=tmp_path, check=True, capture_output=True)

    assert commit_of(tmp_path) is None
    (tmp_path / "code.py").write_text("x = 1")
    git("init")
    git("add", ".")
    git("commit", "-m", "one")
    states = [commit_of(tmp_path)]
    for text in ("x = 2", "x = 3"):
        (tmp_path / "code.py").write_text(text)
        states.append(commit_of(tmp_path))
    assert len(set(states)) == 3
    assert len(states[0]) == 40
    assert all(state.startswith(f"{states[0]}-dirty-") for state in states[1:])


def test_same_seed_same_weights_other_seed_other_weights(compose_small: Compose, tmp_path: Path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(
            compose_small(
                "model=sdl", f"seed={seed}", "trainer.max_epochs=1", run_dir=tmp_path / name
            )
        )
    a, b, c = (weights_of(tmp_path / n / "checkpoints" / "last.ckpt") for n in "abc")
    assert torch.equal(a["decoder.weight"], b["decoder.weight"])
    assert not torch.equal(a["decoder.weight"], c["decoder.weight"])


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
@pytest.mark.parametrize("family", ["vdl_nl", "do"])
def test_precisions(precision, family, compose_small: Compose):
    final = train(
        compose_small(f"model={family}", f"trainer.precision={precision}", "trainer.max_epochs=1")
    )
    numbers = [value for value in final.values() if isinstance(value, int | float)]
    assert len(numbers) > 20
    assert all(map(math.isfinite, numbers))


def test_gradients_are_clipped_in_mixed_precision(compose_small: Compose):
    """Which Lightning refuses with an optimizer that undoes the scaling of losses itself."""
    settings = ("trainer.precision=bf16-mixed", "trainer.max_epochs=1")
    config = compose_small("model=vdl", *settings, "+trainer.gradient_clip_val=1e-12")
    # Nothing is learned from gradients that are far below Adam's epsilon.
    config.run_dir += "clipped"
    clipped = train(config)
    config = compose_small("model=vdl", *settings)
    assert clipped["test/psnr"] < train(config)["test/psnr"]


def test_inference_runs_in_float32_whatever_training_does(compose_small: Compose, monkeypatch):
    seen = set()
    original = FISTA.__call__

    def spy(self, objective, initial):
        seen.add((initial.dtype, objective.gradient(initial).dtype))
        return original(self, objective, initial)

    monkeypatch.setattr(FISTA, "__call__", spy)
    for precision in ("bf16-mixed", "bf16-true"):
        config = compose_small("model=vdl_nl", f"trainer.precision={precision}", "resume=true")
        config.run_dir += precision
        config.trainer.max_epochs = 1
        train(config)
    assert seen == {(torch.float32, torch.float32)}


def test_debug_trainer_and_determinism(compose_small: Compose):
    config = compose_small("model=vdl", "trainer=debug", "trainer.max_epochs=1")
    assert config.trainer.deterministic
    try:
        assert train(config)["epochs"] == 1
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_run_without_a_whole_epoch_says_so(compose_small: Compose):
    with pytest.raises(SettingError, match=r"before an epoch was validated.*Allow more"):
        train(compose_small("trainer.max_time={seconds:0}"))


@pytest.mark.filterwarnings("ignore:.*could not find the monitored key")
@pytest.mark.filterwarnings("ignore:target_zeros=0.6 was not reached")
def test_results_are_shown_beside_those_of_half_the_epochs(
    compose_small: Compose, tmp_path: Path, capsys
):
    """By which a reader sees whether the training was long enough."""
    config = compose_small("model=sdl", "trainer.max_epochs=4")
    train(config)
    shown = capsys.readouterr().out
    assert "validation, epoch 2" in shown
    rows = pd.read_csv(Path(config.run_dir) / "metrics.csv")
    (line,) = (line for line in shown.splitlines() if " energy " in line)
    assert f"{rows['val/energy'][1]:.4f}" in line
    assert f"{rows['val/energy'][3]:.4f}" in line
    sparse = "trainer.max_epochs=6", "trainer.check_val_every_n_epoch=2"
    train(compose_small("model=sdl", *sparse, run_dir=tmp_path / "sparse"))
    assert "validation, epoch 2" in capsys.readouterr().out
    # Nothing of λ that were on the way.
    target = "target_zeros=0.6", "trainer.max_epochs=6"
    train(compose_small("model=sdl", *target, run_dir=tmp_path / "target"))
    train(compose_small("model=sdl", "trainer.max_epochs=1", run_dir=tmp_path / "short"))
    assert "validation, epoch" not in capsys.readouterr().out


def test_weight_so_large_that_all_codes_are_zero_is_a_warning(compose_small: Compose):
    config = compose_small("model=do", "model.energy.sparsity_weight=50", "trainer.max_epochs=1")
    with pytest.warns(UserWarning, match=r"sparsity_weight=50 is too large"):
        train(config)


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        (["data.num_train=201"], SettingError, r"data\.num_train=201 with data\.batch_size=50"),
        (["data.batch_size=1"], SettingError, "a batch of 1 sample"),
        (["model.decoder.input_dim=100"], SettingError, r"input_dim=784"),
        (["model.energy.sparsity_weight=-1"], SettingError, r"sparsity_weight=-1 must be"),
        (["model.energy.variance_weight=inf"], SettingError, r"variance_weight=inf must be"),
        (["model.energy.sparsity_weight=abc"], SettingError, r"sparsity_weight=abc must be"),
        (["solver.step_size=0"], SettingError, r"solver\.step_size=0"),
        (["model.encoder=null"], SettingError, r"encoder_weight=5.0 needs an encoder"),
        (["ckpt_path=/nowhere/last.ckpt"], CheckpointError, "no checkpoint at /nowhere"),
        (["sparsity_level=9"], SettingError, "sparsity_level=9 must be between 0 and 5"),
    ],
)
def test_bad_settings_are_refused_before_training(overrides, error, message, compose_small):
    config = compose_small("model=vdl", *overrides)
    with pytest.raises(Exception) as caught:  # noqa: PT011 - Hydra wraps what parts raise
        train(config)
    causes, cause = [], caught.value
    while cause is not None:
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__
    matching = [c for c in causes if isinstance(c, error)]
    assert matching, causes
    assert re.search(message, str(matching[0]))


def test_a_refused_run_has_failed_until_it_is_mended(compose: Compose, tmp_path: Path):
    def attempt(rows: np.ndarray) -> None:
        np.save(tmp_path / "x.npy", rows)
        train(compose("data=arrays", f"data.path={tmp_path / 'x.npy'}", "model=sdl", *SHORT))

    run, rows = Run(tmp_path / "run"), np.random.default_rng(0).normal(size=(100, 4))
    with pytest.raises(DataError, match="NaN"):
        attempt(np.where(rows == rows[3, 2], np.nan, rows))
    assert run.state is State.FAILED
    assert re.match(r"DataError: data\.path=.* the first in row 3, column 2", run.reason)
    attempt(rows)
    assert (run.state, run.failure) == (State.FINISHED, None)
    # A run that does not even begin leaves what is there as it is.
    with pytest.raises(SettingError, match="holds an earlier run"):
        attempt(rows)
    assert (run.state, run.failure) == (State.FINISHED, None)


def test_run_folder_that_cannot_be_written(compose_small: Compose, tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingError, match=r"hydra\.run\.dir=.*cannot be written"):
        train(compose_small("model=sdl", run_dir=tmp_path / "file" / "run"))


def test_damaged_data_are_refused(compose_small: Compose, mnist_root: Path, tmp_path: Path):
    root = tmp_path / "data"
    shutil.copytree(mnist_root / "MNIST", root / "MNIST")
    labels = root / "MNIST" / "raw" / "train-labels-idx1-ubyte"
    labels.write_bytes(labels.read_bytes()[:1000])
    with pytest.raises(DataError, match="truncated or altered"):
        train(compose_small("model=sdl", f"data.root={root}"))
