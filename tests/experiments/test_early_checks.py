"""What is told of settings before work starts."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import Compose
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sparse_lightning.config import CONFIG_DIR, user_message
from sparse_lightning.errors import NoModelsError, SettingError
from sparse_lightning.experiments.early_checks import check_study, check_training
from sparse_lightning.paper import reproduction
from sparse_lightning.studies import trained_models
from sparse_lightning.studies.trained_models import find_trained_models

STUDIES = sorted(path.stem for path in (CONFIG_DIR / "study").glob("*.yaml"))


def of_study(name: str, **settings: object) -> DictConfig:
    study = OmegaConf.load(CONFIG_DIR / "study" / f"{name}.yaml")
    return OmegaConf.create({"study": study, "checkpoint": None, "runs": None, **settings})


@pytest.mark.parametrize("name", [name for name in STUDIES if name != "hinge_surface"])
def test_a_study_needs_models(name):
    with pytest.raises(SettingError, match="set either checkpoint=PATH"):
        check_study(of_study(name))


def test_the_hinge_needs_no_model():
    check_study(of_study("hinge_surface"))


def test_a_logger_that_takes_no_tables_is_refused():
    check_study(of_study("hinge_surface", logger={"wandb": {}, "csv": None}))
    with pytest.raises(SettingError, match="logger=csv takes no tables"):
        check_study(of_study("hinge_surface", logger={"csv": {}}))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            {"data": {"root": "${dta.folder}"}},
            "data.root: Interpolation key 'dta.folder' not found",
        ),
        ({"seed": "${oc.evn:SEED}"}, "seed: Unsupported interpolation type oc.evn"),
    ],
)
def test_a_mistyped_interpolation_is_told_in_a_sentence(settings, told):
    with pytest.raises(OmegaConfBaseException) as refused:
        OmegaConf.to_container(OmegaConf.create(settings), resolve=True)
    assert user_message(refused.value, "train") == told


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("columns=price", r"data\.columns=price must be a list, as in \[a,b\] or null, not text"),
        ("image_shape=4", r"data\.image_shape=4 must be a list, as in \[64,32\]"),
        ("val_share=abc", r"data\.val_share=abc must be a number, not text"),
        ("batch_size=1e1", None),
    ],
)
def test_settings_of_data_have_their_kinds_before_sizes_follow_from_them(
    setting, told, compose: Compose, tmp_path: Path
):
    np.save(tmp_path / "x.npy", np.zeros((4, 3)))
    config = compose("data=arrays", f"data.path={tmp_path / 'x.npy'}", f"data.{setting}")
    if told is None:
        check_training(config)
        assert type(config.data.batch_size) is int
        return
    with pytest.raises(SettingError, match=told):
        check_training(config)


@pytest.mark.parametrize(
    ("where", "count"),
    [
        ({"seed": 0}, 2),
        ({"family": "sdl"}, 2),
        ({"sparsity_weight": 0.02}, 1),
        ({"sparsity_weight": {"sdl": 0.02}}, 2),
        ({"family": ["sdl", "vdl"], "seed": [0, 1]}, 3),
    ],
)
def test_a_condition_is_one_value_or_several(where, count, monkeypatch):
    columns = [("sdl", 0.01, 0), ("sdl", 0.02, 1), ("vdl", 0.04, 0)]
    found = [
        SimpleNamespace(columns=dict(zip(("family", "sparsity_weight", "seed"), own)))
        for own in columns
    ]
    monkeypatch.setattr(trained_models, "_of_folder", lambda folder: found)
    given = OmegaConf.create(where)
    assert len(find_trained_models(runs=".", where=given, of_any_settings=True)) == count
    with pytest.raises(NoModelsError, match=r"where\.seed=\[7\] leaves no model"):
        find_trained_models(runs=".", where={"seed": 7}, of_any_settings=True)


def test_a_folder_of_any_name_reaches_a_study(tmp_path: Path, monkeypatch):
    commands = []
    monkeypatch.setattr(reproduction, "exit_code", lambda command: commands.append(command) or 3)
    folder = tmp_path / "a, b = (c)"
    study = OmegaConf.create({"data": "mnist", "settings": ["study=regret"], "figures": []})
    digests = {folder / "trainings" / "mnist" / "run": "x"}
    reproduction.run_study("regret", study, digests, folder)
    overrides = OverridesParser.create().parse_overrides(commands[0][2:])
    values = {override.key_or_group: override.value() for override in overrides}
    assert values["runs"] == str(folder / "trainings" / "mnist")
    assert values["hydra.run.dir"] == str(folder / "studies" / "regret")
