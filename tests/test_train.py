"""Training from end to end: what a run leaves behind, resumes from, and refuses."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path

import lightning
import matplotlib.image
import pandas as pd
import pytest
import torch
from conftest import Compose

from sparse_lightning.errors import CheckpointError, DataError, DivergenceError, SettingError
from sparse_lightning.model import SparseAutoencoder
from sparse_lightning.train import _accelerator, start, train


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


def test_what_a_run_leaves_behind(compose_small: Compose, tmp_path: Path):
    config = compose_small("model=vdl", "trainer.max_epochs=3", "logger=[csv,tensorboard]")
    final = train(config)
    run = tmp_path / "run"
    stored = json.loads((run / "metrics.json").read_text())
    assert stored == final
    metrics = ("psnr", "zeros", "energy", "reconstruction", "dead_units", "code_std")
    assert {f"{phase}/{m}" for phase in ("val", "test") for m in metrics} <= set(stored)
    assert all(math.isfinite(value) for value in stored.values())
    assert stored["epochs"] == 3
    assert stored["seconds"] > 0

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


def test_figures_at_the_start_every_k_epochs_and_at_the_end(
    compose: Compose, mnist_root: Path, tmp_path: Path
):
    config = compose(
        "model=sdl_nl",
        "trainer=cpu",
        "trainer.enable_progress_bar=false",
        "trainer.max_epochs=3",
        "logger=none",
        "hidden_dim=48",
        "solver.max_iterations=10",
        f"data.root={mnist_root}",
        "data.num_train=100",
        "data.num_val=100",
        "data.num_test=100",
        "callbacks.figures.every_epochs=2",
    )
    train(config)
    found = {path.name for path in (tmp_path / "run" / "figures").iterdir()}
    names = ("atoms", "atoms_one_scale", "encoder_filters", "reconstructions", "codes")
    stages = ("", "_epoch_0000", "_epoch_0002", "_epoch_0003")
    assert found == {f"{name}{stage}.png" for name in names for stage in stages}
    picture = matplotlib.image.imread(tmp_path / "run" / "figures" / "atoms.png")
    assert picture.std() > 0.05


@pytest.mark.parametrize("family", ["vdl_nl", "do"])
def test_interrupted_and_resumed_equals_uninterrupted(family, compose_small: Compose, tmp_path):
    """Bit for bit, learning-rate decay and shuffling included."""
    settings = (f"model={family}", "model.optimizer.decoder_decay_epochs=1", "data.num_train=230")
    whole = compose_small(*settings, "trainer.max_epochs=4", run_dir=tmp_path / "whole")
    parts = compose_small(*settings, "trainer.max_epochs=4", run_dir=tmp_path / "parts")
    train(whole)

    interrupt_at = StopAfter(epochs=2)
    with pytest.raises(Interrupted):
        train_with(parts, interrupt_at)
    parts.resume = True
    resumed = train(parts)

    expected = weights_of(tmp_path / "whole" / "checkpoints" / "last.ckpt")
    found = weights_of(tmp_path / "parts" / "checkpoints" / "last.ckpt")
    assert expected.keys() == found.keys()
    for name, weight in expected.items():
        assert torch.equal(weight, found[name]), name
    first, second = (
        pd.read_csv(tmp_path / run / "metrics.csv").drop(columns="seconds")
        for run in ("whole", "parts")
    )
    pd.testing.assert_frame_equal(first, second)
    assert resumed["epochs"] == 4


@pytest.mark.parametrize(("epochs", "hint"), [(0, "starts afresh"), (1, "resume=true goes on")])
def test_an_interruption_says_how_to_go_on(compose_small: Compose, tmp_path, capsys, epochs, hint):
    config = compose_small("model=sdl")
    with pytest.raises(SystemExit):
        train_with(config, StopAfter(epochs, KeyboardInterrupt), start)
    assert hint in capsys.readouterr().err


def epochs_kept(run: Path) -> dict[str, int]:
    return {
        path.stem: torch.load(path, weights_only=True)["epoch"]
        for path in (run / "checkpoints").iterdir()
    }


def test_the_last_epoch_is_kept_whether_or_not_it_is_the_best(compose_small: Compose, tmp_path):
    # By the highest energy the first epoch is the best and stays it.
    train(compose_small("model=sdl", "callbacks.checkpoint.mode=max", "trainer.max_epochs=3"))
    assert epochs_kept(tmp_path / "run") == {"best": 0, "last": 2}


def test_a_moved_run_goes_on_and_keeps_its_best_model(compose_small: Compose, tmp_path: Path):
    settings = ("model=sdl", "callbacks.checkpoint.mode=max")
    train(compose_small(*settings, "trainer.max_epochs=2", run_dir=tmp_path / "here"))
    (tmp_path / "here").rename(tmp_path / "there")
    config = compose_small(
        *settings, "resume=true", "trainer.max_epochs=3", run_dir=tmp_path / "there"
    )
    train(config)
    assert epochs_kept(tmp_path / "there") == {"best": 0, "last": 2}
    assert not (tmp_path / "here").exists()
    # With nothing left to train its model is tested all the same.
    (tmp_path / "there").rename(tmp_path / "elsewhere")
    config.run_dir = str(tmp_path / "elsewhere")
    train(config)


def test_a_run_goes_on_with_its_own_numbers(compose_small: Compose, tmp_path: Path):
    run = tmp_path / "run"
    train(compose_small("model=sdl", "trainer.max_epochs=1"))
    for changed, part in (
        ("model.energy.sparsity_weight=0.1", "energy"),
        ("model.constraint.norm=2", "constraint"),
        ("model.optimizer.decoder_learning_rate=0.5", "optimizer"),
    ):
        told = f"has another model.{part} than .*, not .*another folder"
        with pytest.raises(CheckpointError, match=told):
            train(compose_small("model=sdl", "resume=true", changed))
    last = run / "checkpoints" / "last.ckpt"
    with pytest.raises(SettingError, match="holds an earlier run"):
        train(compose_small("model=sdl", f"ckpt_path={last}"))
    other = {"run_dir": tmp_path / "other"}
    with pytest.raises(SettingError, match="has 1 epochs behind it, which leaves none"):
        train(compose_small("model=sdl", f"ckpt_path={last}", "trainer.max_epochs=1", **other))
    final = train(
        compose_small("model=sdl", f"ckpt_path={last}", "model.energy.sparsity_weight=0.1", **other)
    )
    assert final["epochs"] == 1


def test_an_interrupted_run_goes_on_though_it_began_from_another(compose_small: Compose, tmp_path):
    one, other = ({"run_dir": tmp_path / name} for name in ("one", "other"))
    train(compose_small("model=sdl", "trainer.max_epochs=1", **one))
    # Of higher energy than the run that it starts from, whose best model it must forget.
    config = compose_small(
        "model=sdl", f"ckpt_path={tmp_path / 'one' / 'checkpoints' / 'last.ckpt'}",
        "model.energy.sparsity_weight=0.5", "trainer.max_epochs=4", **other,
    )  # fmt: skip
    with pytest.raises(Interrupted):
        train_with(config, StopAfter(epochs=2))
    assert epochs_kept(tmp_path / "other")["last"] == 1
    config.resume = True
    final = train(config)
    table = pd.read_csv(tmp_path / "other" / "metrics.csv").set_index("epoch")
    assert table.index.to_list() == [1, 2, 3]
    kept = epochs_kept(tmp_path / "other")
    assert kept == {"best": table["val/energy"].idxmin(), "last": 3}
    assert final["val/energy"] == table["val/energy"].min()


def test_results_are_of_the_model_that_was_kept(compose_small: Compose, tmp_path: Path):
    settings = ("model=sdl", "callbacks.checkpoint.mode=max")
    final = train(compose_small(*settings, "trainer.max_epochs=2"))
    first = pd.read_csv(tmp_path / "run" / "metrics.csv").set_index("epoch").loc[0]
    assert final["val/energy"] == pytest.approx(first["val/energy"])
    # While more is trained, the old results are not those of the run.
    config = compose_small(*settings, "trainer.max_epochs=4", "resume=true")
    with pytest.raises(Interrupted):
        train_with(config, StopAfter(epochs=3))
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_a_limit_of_steps_cannot_be_resumed(compose_small: Compose):
    train(compose_small("model=sdl", "trainer.max_epochs=1"))
    with pytest.raises(SettingError, match=r"trainer\.max_steps=9 and a checkpoint"):
        train(compose_small("model=sdl", "resume=true", "trainer.max_steps=9"))


def test_patience_is_that_of_the_settings(compose_small: Compose):
    settings = (
        "model=sdl", "callbacks=early_stopping", "+callbacks.early_stopping.min_delta=100.0",
        "trainer.max_epochs=10",
    )  # fmt: skip
    train(compose_small(*settings, "callbacks.early_stopping.patience=1"))
    final = train(compose_small(*settings, "callbacks.early_stopping.patience=3", "resume=true"))
    assert final["epochs"] == 4


def test_an_accelerator_without_float64_is_not_chosen(compose, monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert _accelerator(compose("trainer.accelerator=auto")) == "cpu"
    for asked in ("mps", "gpu"):
        with pytest.raises(SettingError, match=f"trainer.accelerator={asked} has no float64"):
            _accelerator(compose(f"trainer.accelerator={asked}"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for asked in ("auto", "gpu"):
        assert _accelerator(compose(f"trainer.accelerator={asked}")) == asked


class Interrupted(Exception):
    """Stands for a power cut in the middle of an epoch."""


class StopAfter(lightning.Callback):
    def __init__(self, epochs: int, error: type[BaseException] = Interrupted) -> None:
        self.epochs, self.error = epochs, error

    def on_train_batch_end(self, trainer, *args) -> None:
        if trainer.current_epoch == self.epochs and args[-1] == 1:
            raise self.error


def train_with(config, callback: lightning.Callback, train=train) -> None:
    """Train with one callback more than the configuration has."""
    original = lightning.Trainer.__init__

    def extended(self, *args, callbacks=(), **kwargs):
        original(self, *args, callbacks=[*callbacks, callback], **kwargs)

    patch = pytest.MonkeyPatch()
    with patch.context() as context:
        context.setattr(lightning.Trainer, "__init__", extended)
        train(config)


def test_earlier_run_is_not_overwritten(compose_small: Compose):
    config = compose_small("model=sdl", "trainer.max_epochs=1")
    train(config)
    with pytest.raises(SettingError, match="holds an earlier run: add resume=true"):
        train(config)


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
    assert all(math.isfinite(value) for value in final.values())


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
    from sparse_lightning.solvers import FISTA

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
    assert train(config)["epochs"] == 1
    torch.use_deterministic_algorithms(False)


def test_a_run_without_a_whole_epoch_says_so(compose_small: Compose):
    with pytest.raises(SettingError, match=r"before an epoch was validated.*Allow more"):
        train(compose_small("trainer.max_time={seconds:0}"))


def test_early_stopping(compose_small: Compose):
    config = compose_small(
        "model=sdl",
        "callbacks=early_stopping",
        "callbacks.early_stopping.patience=1",
        "+callbacks.early_stopping.min_delta=100.0",
        "trainer.max_epochs=10",
    )
    assert train(config)["epochs"] == 2


def test_divergence_keeps_the_last_good_checkpoint(compose_small: Compose, tmp_path: Path):
    run = tmp_path / "run"
    train(compose_small("model=vdl", "trainer.max_epochs=1"))
    before = weights_of(run / "checkpoints" / "last.ckpt")
    config = compose_small("model=vdl", "step_size=5000", "resume=true")
    with pytest.raises(
        DivergenceError, match=r"at epoch 1, batch 0: solver\.step_size=5000 is too large"
    ):
        train(config)
    after = weights_of(run / "checkpoints" / "last.ckpt")
    assert all(torch.equal(before[name], after[name]) for name in before)


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


def test_checkpoints_of_others_are_refused(compose_small: Compose, tmp_path: Path):
    train(compose_small("model=sdl", "trainer.max_epochs=1", run_dir=tmp_path / "sdl"))
    checkpoint = tmp_path / "sdl" / "checkpoints" / "last.ckpt"
    with pytest.raises(CheckpointError, match=r"is of family sdl, not vdl: set model=sdl"):
        train(compose_small("model=vdl", f"ckpt_path={checkpoint}", run_dir=tmp_path / "a"))
    told = r"has another model.decoder than the settings \(code_dim 128, not 64\)"
    with pytest.raises(CheckpointError, match=told):
        train(compose_small("model=sdl", "code_dim=64", f"ckpt_path={checkpoint}"))
    for content in (b"not a checkpoint", checkpoint.read_bytes()[:2000]):
        bad = tmp_path / "bad.ckpt"
        bad.write_bytes(content)
        with pytest.raises(CheckpointError, match="is not a checkpoint of sparse_lightning"):
            SparseAutoencoder.load_from_checkpoint(bad)
    torch.save({"state_dict": {}}, bad)
    with pytest.raises(CheckpointError, match="is not a checkpoint of sparse_lightning"):
        SparseAutoencoder.load_from_checkpoint(bad)


def test_checkpoint_that_would_run_code_is_refused(tmp_path: Path):
    marker, path = tmp_path / "ran", tmp_path / "evil.ckpt"

    class Evil:
        def __reduce__(self):
            return (marker.write_text, ("gotcha",))

    torch.save({"hyper_parameters": {"family": Evil()}}, path)
    with pytest.raises(CheckpointError, match="is not a checkpoint"):
        SparseAutoencoder.load_from_checkpoint(path)
    assert not marker.exists()
