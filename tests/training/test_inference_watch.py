"""The watch over inference: what a strain is, and that it is told once in a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import lightning
import pandas as pd
import pytest
import torch
from conftest import Compose
from hydra.utils import instantiate
from test_divergence import trainings_with

from sparse_lightning.errors import SettingError
from sparse_lightning.train import train
from sparse_lightning.training.inference_watch import InferenceWatch


def watch() -> InferenceWatch:
    return InferenceWatch(least_converged=0.99, growth=2, from_iterations=30, settling_epochs=1)


def told(*epochs: tuple[float, float]) -> list[tuple[int, str]]:
    """Epoch and kind of what is told of (iterations, share converged), after a first epoch."""
    watching = watch()
    # The best possible, and not to be compared with.
    assert watching.strains(1.0, 1.0) == {}
    return [
        (epoch, kind) for epoch, effort in enumerate(epochs) for kind in watching.strains(*effort)
    ]


QUIET = {
    "healthy": [(3.24, 1.0), (2.96, 0.99996), (2.92, 0.9998), (2.94, 0.9995)],
    "all iterations from the first epoch": [(200, 0), (200, 0), (200, 0)],
    "nearly all iterations, never converged": [(190, 0.4), (197, 0.2), (150, 0.7), (199, 0.1)],
    "still settling": [(31, 1), (45, 1), (60, 1)],
    # Epochs 10, 50, 100, 150 and 200 with λ = 0.01.
    "VDL-NL": [(2.6, 1), (3.4, 1), (9.3, 1), (14.6, 1), (16.4, 1)],
    "ever better": [(100, 0.5), (60, 0.98), (40, 0.991), (38, 0.999)],
    "twice as many and no more": [(20, 1), (40, 1), (40, 1)],
    # As measured, from the second epoch on: 1,500 digits, 192 hidden units, 12 epochs.
    "SDL-NL": [(118.7, 0.975), (97.1, 0.996), (76.6, 1), (66.1, 1), (57.0, 0.996), (55.5, 0.999)],
    "DO": [(186.4, 0.737), (183.4, 0.943), (189.7, 0.784), (192.7, 0.317), (191.8, 0.325)],
    "DO-NL": [(98.5, 0.979), (115.1, 0.976), (94.8, 0.974), (79.4, 0.997), (65.7, 0.999)],
}


@pytest.mark.parametrize("epochs", QUIET.values(), ids=QUIET)
def test_nothing_is_said_of(epochs):
    assert told(*epochs) == []


def test_iterations_that_more_than_double():
    assert told((2.6, 1), (2.4, 1), (4.7, 1), (31, 1), (42, 1)) == [(3, "iterations")]
    # Compared with the best epoch, not with the first or the last.
    assert told((60, 1), (18, 1), (30, 1), (37, 1)) == [(3, "iterations")]


def test_samples_that_no_longer_converge():
    assert told((3, 0.5), (3, 0.99), (3, 0.989), (3, 0.85)) == [(2, "converged")]
    assert told((3, 1), (3, 0.9), (3, 1), (3, 0.9)) == [(1, "converged")]
    # As measured of a decoder that nothing holds.
    none_nl = [(112.2, 0.988), (90.2, 0.999), (61.3, 0.998), (66.6, 0.963), (79.0, 0.856)]
    assert told(*none_nl) == [(3, "converged")]


def test_both_are_told_each_once():
    epochs = [(2.6, 1), (31, 0.995), (39, 0.98), (72, 0.85)]
    assert told(*epochs) == [(1, "iterations"), (2, "converged")]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("least_converged", 1.5),
        ("least_converged", 0),
        ("growth", 0),
        ("from_iterations", -1),
        ("settling_epochs", -1),
    ],
)
def test_bad_settings(name, value):
    good = {"least_converged": 0.99, "growth": 2, "from_iterations": 30, "settling_epochs": 1}
    with pytest.raises(SettingError, match=rf"callbacks\.inference_watch\.{name}={value}"):
        InferenceWatch(**good | {name: value})


def test_the_configuration_holds_the_rule(compose: Compose):
    watching = instantiate(compose("model=sdl").callbacks.inference_watch)
    assert vars(watching) == vars(watch())


class NeverDone(lightning.Callback):
    """From some epoch on no sample converges."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_epoch_start(self, trainer, model) -> None:
        if trainer.current_epoch >= self.epoch:
            model.solver = replace(model.solver, tolerance=0.0)


SETTINGS = ("model=vdl_nl", "solver.max_iterations=100", "solver.tolerance=0.1")


def test_a_training_is_warned_once_also_where_it_goes_on(compose_small: Compose, tmp_path: Path):
    config = compose_small(*SETTINGS, "trainer.max_epochs=4")
    with trainings_with(NeverDone(epoch=2)), pytest.warns(UserWarning, match="strains") as warned:
        train(config)
    table = pd.read_csv(tmp_path / "run" / "metrics.csv")
    assert table["train/converged"].tolist() == [1, 1, 0, 0]
    assert table["train/iterations"].tolist()[2:] == [100, 100]
    texts = [str(warning.message) for warning in warned]
    fewest = table["train/iterations"][1]
    assert [text.split(". ")[0] for text in texts] == [
        "Inference strains: train/converged fell to 0.000 from 1.000 in epoch 2",
        f"Inference strains: train/iterations rose to 100.0 from {fewest:.1f} in epoch 2",
    ]
    assert all("Remedy: solver=adaptive, or more than" in text for text in texts)
    state = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    kept = state["callbacks"]["InferenceWatch"]
    assert kept["told"] == ["converged", "iterations"]
    assert kept["fewest_iterations"] == pytest.approx(fewest)

    # Warnings are errors in these tests: nothing is told again.
    with trainings_with(NeverDone(epoch=2)):
        train(compose_small(*SETTINGS, "trainer.max_epochs=5", "resume=true"))


def test_what_was_seen_before_an_interruption_counts(compose_small: Compose):
    train(compose_small(*SETTINGS, "trainer.max_epochs=2"))
    with trainings_with(NeverDone(epoch=2)), pytest.warns(UserWarning, match="in epoch 2") as told:
        train(compose_small(*SETTINGS, "trainer.max_epochs=3", "resume=true"))
    assert len(told) == 2


def test_another_solver_is_watched_anew(compose_small: Compose):
    train(compose_small(*SETTINGS, "trainer.max_epochs=2"))
    # From its own first epoch this one takes all iterations, which is by design.
    other = (*SETTINGS, "solver.tolerance=0", "trainer.max_epochs=4", "resume=force")
    train(compose_small(*other))


def test_iterations_are_in_the_progress_bar(compose_small: Compose):
    class Bar(lightning.Callback):
        def on_train_end(self, trainer, model) -> None:
            self.shown = dict(trainer.progress_bar_metrics)

    with trainings_with(bar := Bar()):
        train(compose_small("model=sdl", "trainer.max_epochs=1"))
    assert {"train/iterations", "train/converged", "val/energy"} <= bar.shown.keys()
    assert "train/energy" not in bar.shown


def test_codes_that_are_zeros_alone_are_told_once(compose_small: Compose):
    """Of inference, where an encoder that has hardly learned has others."""
    settings = ("model=sdl", "model.energy.sparsity_weight=50")
    with pytest.warns(UserWarning, match="zeros alone") as seen:
        train(compose_small(*settings, "trainer.max_epochs=2"))
    about = [str(one.message) for one in seen if "zeros alone" in str(one.message)]
    assert len(about) == 1
    assert "epoch 0" in about[0]
    assert "sparsity_weight=50 is too large" in about[0]


@pytest.mark.filterwarnings("ignore:target_zeros=0.5 was not reached")
def test_zeros_are_not_told_while_a_search_may_mend_them(compose_small: Compose, tmp_path: Path):
    settings = ("model=sdl", "model.energy.sparsity_weight=50", "target_zeros=0.5")
    with pytest.warns(UserWarning, match="zeros alone .* of epoch 6,"):
        train(compose_small(*settings, "trainer.max_epochs=9"))
    zeros = pd.read_csv(tmp_path / "run" / "metrics.csv")["train/zeros"]
    assert (zeros == 1).all()
