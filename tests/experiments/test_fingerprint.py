"""What makes two runs the same is what can change their result, however it was typed."""

from __future__ import annotations

import pytest
from conftest import Compose
from omegaconf import DictConfig, OmegaConf

from sparse_lightning.experiments import fingerprint, moved
from sparse_lightning.experiments.fingerprint import (
    WITHOUT_EFFECT,
    changed_settings,
    digest,
    effective_settings,
    without_seed,
)


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


def test_an_encoders_rate_counts_where_there_is_an_encoder(compose: Compose):
    rate = "encoder_learning_rate=0.02"
    assert digest_of(compose("model=vdl", rate)) != digest_of(compose("model=vdl"))
    assert digest_of(compose("model=do", rate)) == digest_of(compose("model=do"))
    assert changed_settings(compose("model=do"), compose("model=do", rate), False) == {}


@pytest.mark.parametrize(
    "choice", ["experiment=quick", "sweep=small", "sweep=beta", "trainer=debug"]
)
def test_the_number_of_epochs_is_set_in_either_place(choice, compose: Compose):
    assert compose(choice).trainer.max_epochs != 7
    for setting in ("max_epochs=7", "trainer.max_epochs=7"):
        assert compose(choice, setting).trainer.max_epochs == 7


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


def record(compose: Compose, *overrides: str) -> DictConfig:
    """What a run leaves behind."""
    return OmegaConf.create(OmegaConf.to_container(compose(*overrides), resolve=True))


def with_setting(config: DictConfig, name: str, value) -> DictConfig:
    """A copy of settings with one more, or with another value of it."""
    copy = config.copy()
    OmegaConf.update(copy, name, value, force_add=True)
    return copy


def test_a_callback_that_writes_into_the_run_is_the_same_on_record(compose: Compose, tmp_path):
    every = "{_target_: lightning.pytorch.callbacks.ModelCheckpoint, dirpath: '${run_dir}/every'}"
    config = compose(f"+callbacks.every={every}", run_dir=tmp_path / "run")
    record = OmegaConf.create(OmegaConf.to_container(config, resolve=True))
    assert record.callbacks.every.dirpath == str(tmp_path / "run" / "every")
    assert digest_of(record) == digest_of(config)


def test_the_order_of_settings_makes_no_difference(compose: Compose):
    config = record(compose, "model=sdl")
    backwards = OmegaConf.create(dict(reversed(config.items())))
    backwards.model = dict(reversed(config.model.items()))
    assert list(backwards) != list(config)
    assert digest_of(backwards) == digest_of(config)


def test_an_added_setting_is_read_as_what_older_runs_had(compose: Compose, monkeypatch):
    old = record(compose, "model=sdl")
    added = {"trainer.rounding": 2, "model.energy.term._target_": "package.Usual"}
    today = old
    for name, value in added.items():
        today = with_setting(today, name, value)
    assert digest_of(old) != digest_of(today)
    monkeypatch.setattr(fingerprint, "ADDED", added)
    assert digest_of(old) == digest_of(today)
    assert digest_of(old) == digest_of(with_setting(today, "trainer.rounding", 2.0))
    # A whole group may also be null where nobody sets it.
    assert digest_of(old) == digest_of(with_setting(old, "model.energy.term", None))
    for name, value in (
        ("trainer.rounding", 3),
        ("trainer.rounding", None),
        ("model.energy.term._target_", "package.Other"),
        ("model.energy.term.weight", 1),
    ):
        assert digest_of(old) != digest_of(with_setting(today, name, value)), (name, value)


def test_the_settings_that_were_added_are_at_their_place(compose: Compose):
    penalty = "sparse_lightning.penalties.NonNegativeL1"
    same = ("++solver.safeguard=true", f"++model.energy.penalty._target_={penalty}")
    assert digest_of(compose("model=sdl", *same)) == digest_of(compose("model=sdl"))
    for other in ("++solver.safeguard=false", "++model.energy.penalty._target_=package.Other"):
        assert digest_of(compose("model=sdl", other)) != digest_of(compose("model=sdl"))


def test_an_added_setting_that_is_null_needs_no_line(compose: Compose):
    old = record(compose, "model=sdl")
    assert digest_of(old) == digest_of(with_setting(old, "trainer.rounding", None))
    assert digest_of(old) != digest_of(with_setting(old, "trainer.rounding", 0))


@pytest.mark.parametrize("name", ["model.decoder._target_", "trainer.plugins"])
def test_a_moved_class_is_the_same_class(name, compose: Compose, monkeypatch):
    old = record(compose, "model=sdl")
    value = [{"_target_": "package.New"}] if name == "trainer.plugins" else "package.New"
    today = with_setting(old, name, value)
    assert digest_of(old) != digest_of(today)
    before = (
        "training.checkpoints.WholeFiles" if name == "trainer.plugins" else "decoders.LinearDecoder"
    )
    monkeypatch.setitem(moved.MOVED, f"sparse_lightning.{before}", "package.New")
    assert digest_of(old) == digest_of(today)
    assert digest_of(old) != digest_of(with_setting(today, name, "package.Other"))


def test_every_setting_without_effect_exists(compose: Compose):
    config = compose("data=imagenet_patches", "callbacks=milestones")
    config.sparsity_level = 0
    for name in WITHOUT_EFFECT:
        parent, _, key = name.rpartition(".")
        assert key in (OmegaConf.select(config, parent) if parent else config), name


def test_a_run_goes_on_with_the_callbacks_that_it_had(compose: Compose):
    plain, reviving = record(compose, "model=do"), record(compose, "model=do", "callbacks=revive")
    name, revive = "callbacks.revive._target_", "sparse_lightning.training.revive.Revive"
    assert changed_settings(plain, reviving, False) == {name: (None, revive)}
    assert changed_settings(reviving, plain, False) == {name: (revive, None)}
    for free in ("callbacks=early_stopping", "callbacks=milestones", "~callbacks.figures"):
        assert changed_settings(plain, record(compose, "model=do", free), False) == {}


def test_a_run_goes_on_where_its_data_have_moved_to(compose: Compose):
    for name in ("data.path", "data.groups"):
        here, there = (
            with_setting(record(compose), name, f"{folder}/x.npy") for folder in ("here", "there")
        )
        assert changed_settings(here, there, False) == {}
        assert digest_of(here) != digest_of(there)


def test_the_seed_of_shuffling_is_a_seed(compose: Compose):
    first, second = (effective_settings(compose("model=sdl", f"seed={seed}")) for seed in (1, 2))
    assert first != second
    assert without_seed(first) == without_seed(second)
    fixed = effective_settings(compose("model=sdl", "seed=2", "data.shuffle_seed=1"))
    assert fixed != second
    assert without_seed(fixed) == without_seed(second)
