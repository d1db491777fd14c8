"""Runs that were recorded before classes moved go on working."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Compose
from hydra.utils import get_object
from omegaconf import OmegaConf

from sparse_lightning.experiments.fingerprint import effective_settings
from sparse_lightning.experiments.moved import MOVED, translated
from sparse_lightning.experiments.runs import CONFIG_FILE, Run, record_settings


@pytest.mark.parametrize("path", MOVED.values())
def test_classes_are_where_the_table_says(path: str):
    assert callable(get_object(path))


def test_targets_are_translated_at_any_depth_and_nothing_else():
    old, new = next(iter(MOVED.items()))
    settings = {
        "a": [{"_target_": old, "deep": {"_target_": old, "text": old}}, old],
        "b": {"_target_": "torch.nn.ReLU"},
        "c": {"_target_": None},
    }
    assert translated(settings) == {
        "a": [{"_target_": new, "deep": {"_target_": new, "text": old}}, old],
        "b": {"_target_": "torch.nn.ReLU"},
        "c": {"_target_": None},
    }
    assert settings["a"][0]["_target_"] == old


def test_an_old_run_has_the_settings_of_a_new_one(compose: Compose, tmp_path: Path):
    config = compose("model=vdl", "callbacks=early_stopping", "logger=wandb")
    record_settings(config, tmp_path / "new")
    present = recorded = (tmp_path / "new" / CONFIG_FILE).read_text()
    for old, new in MOVED.items():
        recorded = recorded.replace(f"_target_: {new}\n", f"_target_: {old}\n")
    assert recorded != present
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / CONFIG_FILE).write_text(recorded)
    old, new = Run(tmp_path / "old").config, Run(tmp_path / "new").config
    assert effective_settings(old) == effective_settings(new)
    assert OmegaConf.to_container(old) == OmegaConf.to_container(new)
