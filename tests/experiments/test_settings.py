"""Numbers of a wrong kind are converted where they are harmless, and refused where they are not."""

from __future__ import annotations

import re

import pytest
from conftest import Compose
from omegaconf import OmegaConf

from sparse_lightning.errors import SettingError
from sparse_lightning.experiments.seeds import SEED_VARIABLE, require_seed, settle_seed
from sparse_lightning.experiments.settings import convert_settings


@pytest.mark.parametrize(
    ("override", "name", "expected"),
    [
        ("data.num_train=1e3", "data.num_train", 1000),
        ("code_dim=1e2", "model.encoder.code_dim", 100),
        ("solver.max_iterations=50.0", "model.solver.max_iterations", 50),
        ("trainer.max_epochs=2e0", "trainer.max_epochs", 2),
        ("model.decoder.hidden_dims=[64.0,32]", "model.decoder.hidden_dims", [64, 32]),
        # 1 would be a single batch.
        ("trainer.limit_train_batches=1.0", "trainer.limit_train_batches", 1.0),
        ("trainer.devices=[0,1]", "trainer.devices", [0, 1]),
    ],
)
def test_a_whole_float_is_a_whole_number(override, name, expected, compose: Compose):
    config = compose("model=vdl_nl", override)
    convert_settings(config)
    found = OmegaConf.select(config, name)
    assert found == expected
    assert type(found) is type(expected) or isinstance(expected, list)
    if isinstance(expected, list):
        assert [type(item) for item in found] == [type(item) for item in expected]


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("code_dim=0", "code_dim=0 must be at least 1."),
        ("code_dim=2.5", "code_dim=2.5 must be a whole number or null."),
        ("seed=-1", "seed=-1 must be at least 0."),
        ("seed=4294967296", "seed=4294967296 must be at most 4294967295."),
        ("seed=[1,2]", "seed=[1, 2] must be a whole number or null."),
        ("data.batch_size=2.5", "data.batch_size=2.5 must be a whole number."),
        ("data.batch_size=true", "data.batch_size=True must be a whole number."),
        ("data.num_train=inf", "data.num_train=inf must be a whole number."),
        ("data.mean=[0.1,0.2]", "data.mean=[0.1, 0.2] must be a number."),
        ("data.drop_last=1", "data.drop_last=1 must be true or false."),
        ("model.decoder.hidden_dims='64'", "=64 must be a list, as in [64,32], not text."),
        ("model.decoder.hidden_dims=64", "model.decoder.hidden_dims=64 must be a list"),
        ("model.decoder.hidden_dims=[6.5]", "a list whose items are each a whole number."),
        ("hidden_dim=[64,64]", "must be a whole number. For several layers set model.decoder."),
        ("step_size=fast", "step_size=fast must be a number, not text."),
        ("model.energy.sparsity_weight=[1]", "model.energy.sparsity_weight=[1] must be a number."),
        ("trainer.max_epochs=2.5", "trainer.max_epochs=2.5 must be a whole number or null."),
    ],
)  # fmt: skip
def test_another_kind_is_refused_by_name(override, told, compose: Compose):
    with pytest.raises(SettingError, match=re.escape(told)):
        convert_settings(compose("model=vdl_nl", override))


def test_parts_of_others_are_read_by_their_annotations():
    """Also where settings are resolved and the class is nobody's that is known here."""
    target = "datetime.timedelta"  # It has no annotations, and takes anything.
    config = OmegaConf.create({"seed": 1, "part": {"_target_": target, "days": "x"}})
    convert_settings(config)
    assert config.part.days == "x"
    config = OmegaConf.create({"data": {"_target_": "sparse_lightning.encoders.LISTA"}})
    config.data.code_dim = "many"
    with pytest.raises(SettingError, match=r"data\.code_dim=many must be a whole number, not text"):
        convert_settings(config)


def test_a_seed_is_drawn_where_none_is_given(monkeypatch):
    drawn = [OmegaConf.create({"seed": None}) for _ in range(2)]
    for config in drawn:
        settle_seed(config, None)
    assert 0 <= drawn[0].seed != drawn[1].seed
    settle_seed(on_record := OmegaConf.create({"seed": None}), 7)
    assert on_record.seed == 7
    settle_seed(given := OmegaConf.create({"seed": 3}), 7)
    assert given.seed == 3
    with pytest.raises(SettingError, match="seed=null in a sweep"):
        require_seed(OmegaConf.create({"seed": None}))


def test_processes_of_one_training_draw_one_seed(monkeypatch):
    monkeypatch.setattr("sparse_lightning.experiments.seeds.rank_zero_only.rank", 1)
    monkeypatch.setenv(SEED_VARIABLE, "12")
    settle_seed(config := OmegaConf.create({"seed": None}), None)
    assert config.seed == 12
    monkeypatch.delenv(SEED_VARIABLE)
    with pytest.raises(SettingError, match="started one by one"):
        settle_seed(OmegaConf.create({"seed": None}), None)
