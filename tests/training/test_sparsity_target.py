"""Training finds λ for a share of zeros, freezes it, and goes on with it after an interruption."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import Compose
from interruptions import Interrupted, StopAfter, train_with, weights_of
from omegaconf import OmegaConf

from sparse_lightning.config import CONFIG_DIR
from sparse_lightning.errors import SettingError
from sparse_lightning.experiments.runs import Run
from sparse_lightning.train import train
from sparse_lightning.training.sparsity_target import Search, SparsityController, search_epochs


def controller(target: float) -> SparsityController:
    """The rule with the numbers of ``conf/``."""
    settings = OmegaConf.load(CONFIG_DIR / "callbacks" / "default.yaml").sparsity_target
    numbers = {
        name: settings[name] for name in settings if name not in ("_target_", "target_zeros")
    }
    return SparsityController(target, **numbers)


def test_the_rule_is_the_formula():
    rule = SparsityController(
        0.9, gain=0.5, damping=0.25, tracking=0.1, largest_step=2, largest_change=3
    )
    first = rule.advance(Search.at(0.01), zeros=0.87, training_zeros=0.87)
    assert first.weight == pytest.approx(0.01 * 1.3**0.5)
    second = rule.advance(first, zeros=0.91, training_zeros=0.91)
    drift = 0.1 * math.log(0.9)
    step = (0.5 * math.log(0.9) + 0.25 * math.log(0.9 / 1.3)) / 2 + drift
    assert second.weight == pytest.approx(first.weight * math.exp(step))
    assert (second.turns, second.drift) == (1, pytest.approx(drift))
    # Within what counts as reached a change of sign is no overshoot.
    third = rule.advance(second, zeros=0.89, training_zeros=0.89)
    assert (third.turns, third.drift) == (1, pytest.approx(drift + 0.1 * math.log(1.1)))
    # By no more than its limits, also where no code is active.
    assert rule.advance(Search.at(0.01), 1.0, 1.0).weight == pytest.approx(0.005)
    far = Search.at(0.01)
    for _ in range(4):
        far = rule.advance(far, 0.0, 0.0)
    assert far.weight == pytest.approx(0.03)


@pytest.mark.parametrize("drift", [0.1, 0.25, 0.5])
@pytest.mark.parametrize("slope", [0.45, 0.8, 1.4, 4.0])
@pytest.mark.parametrize("response", [0.25, 0.6, 1.0])
def test_it_reaches_the_target_of_codes_that_follow_slowly_or_at_once(slope, response, drift):
    """log(active share) goes towards c − slope log λ − drift log t, by ``response`` an epoch."""
    search, error = Search.at(0.01), 1.2
    rule, weight = controller(0.9), 0.01
    for epoch in range(1, 31):
        wanted = 0.8 - slope * math.log(weight / 0.01) - drift * math.log(epoch)
        error += response * (wanted - error)
        if epoch <= search_epochs(30):
            zeros = 1 - min(0.1 * math.exp(error), 1)
            search = rule.advance(search, zeros, zeros)
            weight = search.weight
    assert 1 / 1.25 < math.exp(error) < 1.25


@pytest.mark.parametrize("slope", [0.8, 1.4])
@pytest.mark.parametrize("response", [0.03, 0.1])
def test_codes_that_a_slow_encoder_learns_from_do_not_die(slope, response):
    """Inference follows λ at once, and its active share is never far below the one asked for."""
    search, rule = Search.at(0.01), controller(0.9)
    encoder = math.log(4)
    for epoch in range(100):
        inference = math.log(2) - slope * math.log(search.weight / 0.01)
        encoder += response * (inference - encoder)
        if epoch < search_epochs(100):
            zeros = 1 - 0.1 * math.exp(encoder)
            search = rule.advance(search, zeros, 1 - min(0.1 * math.exp(inference), 1))
        assert inference > math.log(0.4)
    assert 1 / 1.25 < math.exp(encoder) < 1.25
    # While λ is held nothing adds up by which it would grow afterwards.
    held = rule.advance(search, 0.89, 0.93)
    assert (held.weight, held.drift) == (search.weight, search.drift)
    assert rule.advance(search, 0.91, 0.93).drift < search.drift
    # As long as the encoder's own codes are denser, λ grows where training's are dense as well.
    assert rule.advance(search, 0.5, 0.5).weight > search.weight
    assert rule.advance(search, 0.5, 0.93).weight == search.weight
    assert rule.advance(search, 0.95, 0.99).weight < search.weight


SETTINGS = ("model=sdl", "target_zeros=0.9", "trainer.max_epochs=6")


@pytest.mark.filterwarnings("ignore:target_zeros=0.9 was not reached")
def test_lambda_is_frozen_kept_and_resumed_bit_for_bit(compose_small: Compose, tmp_path: Path):
    whole = compose_small(*SETTINGS, run_dir=tmp_path / "whole")
    parts = compose_small(*SETTINGS, run_dir=tmp_path / "parts")
    final = train(whole)
    with pytest.raises(Interrupted):
        train_with(parts, StopAfter(epochs=3))
    parts.resume = True
    train(parts)

    one, other = (
        pd.read_csv(tmp_path / run / "metrics.csv").drop(columns=["seconds", "cpu_seconds"])
        for run in ("whole", "parts")
    )
    pd.testing.assert_frame_equal(one, other)
    used = one["val/sparsity_weight"]
    assert used[:4].nunique() == 4
    assert used[0] == pytest.approx(whole.model.energy.sparsity_weight)
    assert used[4:].nunique() == 1
    assert used[4] != used[3]
    # The best model is one of the last third, and has the λ of that.
    for name in ("best", "last"):
        path = tmp_path / "whole" / "checkpoints" / f"{name}.ckpt"
        assert torch.load(path, weights_only=True)["epoch"] >= 4
        first, second = weights_of(path), weights_of(tmp_path / "parts/checkpoints" / path.name)
        assert all(torch.equal(first[key], second[key]) for key in first)
    found = Run(tmp_path / "parts").model().energy.sparsity_weight
    assert found == used.iloc[-1] == final["val/sparsity_weight"]
    # More epochs would have meant a longer search.
    with pytest.raises(SettingError, match=r"trainer\.max_epochs=9 \(was 6\)"):
        train(compose_small(*SETTINGS[:2], "trainer.max_epochs=9", "resume=true",
                            run_dir=tmp_path / "whole"))  # fmt: skip


def test_a_target_that_is_not_reached_is_told(compose_small: Compose):
    with pytest.warns(
        UserWarning,
        match=r"target_zeros=0\.05 was not reached: the codes have 0\.\d.* and training's codes 0\."
        r".*model\.optimizer\.encoder_learning_rate",
    ):
        train(compose_small("model=sdl", "target_zeros=0.05", "trainer.max_epochs=3"))


def test_a_target_that_was_never_compared_is_told(compose_small: Compose):
    settings = ("trainer.max_epochs=3", "trainer.check_val_every_n_epoch=3")
    with pytest.warns(UserWarning, match=r"target_zeros=0\.9 was never compared .* λ is still 0\."):
        train(compose_small("model=sdl", "target_zeros=0.9", *settings))


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["target_zeros=0.9", "trainer.max_epochs=2"], "max_epochs=2 to at least 3"),
        (["target_zeros=0.9", "model.energy.sparsity_weight=0"], "cannot start from .*weight=0"),
        (["target_zeros=0.9", "model=topk"], "largest components set model.encoder.k in place"),
        (["target_zeros=0.9", "~callbacks.sparsity_target"], "needs callbacks.sparsity_target"),
        (["target_zeros=0.9", "trainer.limit_val_batches=0"], "leaves none"),
        (["target_zeros=nine"], "target_zeros=nine must be a number"),
    ],
)
def test_what_cannot_work_is_refused(overrides, told, compose_small: Compose):
    with pytest.raises(SettingError, match=told):
        train(compose_small("model=sdl", *overrides))


def test_a_share_is_between_0_and_1():
    with pytest.raises(SettingError, match=r"target_zeros=90 must lie between 0 and 1"):
        controller(90)


def test_a_level_picks_a_target_where_there_is_no_grid(compose: Compose, tmp_path: Path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.yaml").write_text("_target_: mine.Data\nroot: x")
    outside = (f"hydra.searchpath=[file://{tmp_path}]", "data=mine", "model=vdl")
    targets = list(compose().zeros_targets)
    assert (targets[0], targets[-1]) == (0.6, 0.97)
    # Neighbours differ by less than a factor 2 in the active share.
    assert all((1 - one) / (1 - two) < 2 for one, two in pairwise(targets))
    for level, target in enumerate(targets):
        config = compose(*outside, f"sparsity_level={level}")
        assert (config.target_zeros, config.model.energy.sparsity_weight) == (target, 0.01)
        assert config.experiment_name == f"mine-vdl-zeros{target:g}"
    assert compose(*outside).target_zeros is None
    with pytest.raises(Exception, match=r"sparsity_level=6 must be between 0 and 5"):
        _ = compose(*outside, "sparsity_level=6").target_zeros
    assert compose("model=vdl", "sparsity_level=2").target_zeros is None


def test_no_target_stands_in_for_a_grid_of_k(compose: Compose):
    settings = ("model=topk", "data=imagenet_patches")
    with pytest.raises(Exception, match=r"level=2 picks k .* model=topk has none: set model\.enc"):
        _ = compose(*settings, "sparsity_level=2").target_zeros
    assert compose(*settings, "model.encoder.k=8").target_zeros is None
