"""What makes two runs the same is what can change their result, however it was typed."""

from __future__ import annotations

import pytest
from conftest import Compose
from omegaconf import DictConfig, OmegaConf

from sparse_lightning.identity import WITHOUT_EFFECT, digest, effective_settings, without_seed


def digest_of(config: DictConfig) -> str:
    return digest(effective_settings(config))


def test_how_a_setting_was_typed_makes_no_difference(compose: Compose):
    by_level = compose("model=vdl", "sparsity_level=1", "data.batch_size=100")
    weight = by_level.model.energy.sparsity_weight
    by_hand = compose(f"model.energy.sparsity_weight={weight}", "data.batch_size=100", "model=vdl")
    assert digest_of(by_level) == digest_of(by_hand)
    assert digest_of(compose("step_size=1")) == digest_of(compose("step_size=1.0"))
    for source, setting in (
        ("step_size=0.3", "solver.step_size=0.3"),
        ("max_epochs=7", "trainer.max_epochs=7"),
        ("hidden_dim=9", "model.decoder.hidden_dims=[9]"),
    ):
        assert digest_of(compose(source)) == digest_of(compose(setting)) != digest_of(compose())


def test_what_is_shown_and_where_it_goes_makes_no_difference(compose: Compose, tmp_path):
    one = compose("model=sdl")
    other = compose(
        "model=sdl",
        "logger=none",
        "~callbacks.figures",
        "~callbacks.inference_watch",
        "trainer.enable_progress_bar=false",
        "resume=true",
        "sweep.name=other",
        run_dir=tmp_path / "elsewhere",
    )
    assert digest_of(one) == digest_of(other)


@pytest.mark.parametrize(
    "override",
    [
        "seed=32",
        "model=sdl_nl",
        "data=kmnist",
        "data.num_train=100",
        "solver.tolerance=0",
        "trainer.max_epochs=3",
        "trainer.precision=bf16-mixed",
        "callbacks=early_stopping",
        "model.optimizer.decoder_learning_rate=1",
    ],
)
def test_a_changed_setting_makes_another_run(override, compose: Compose):
    assert digest_of(compose("model=sdl")) != digest_of(compose("model=sdl", override))


def test_every_setting_without_effect_exists(compose: Compose):
    config = compose("data=imagenet_patches")
    config.sparsity_level = 0
    for name in WITHOUT_EFFECT:
        parent, _, key = name.rpartition(".")
        assert key in (OmegaConf.select(config, parent) if parent else config), name


def test_the_seed_of_shuffling_is_a_seed(compose: Compose):
    first, second = (effective_settings(compose("model=sdl", f"seed={seed}")) for seed in (1, 2))
    assert first != second
    assert without_seed(first) == without_seed(second)
    fixed = effective_settings(compose("model=sdl", "seed=2", "data.shuffle_seed=1"))
    assert fixed != second
    assert without_seed(fixed) == without_seed(second)
