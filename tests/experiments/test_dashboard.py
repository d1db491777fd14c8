"""The dashboard's definition, without a network."""

from __future__ import annotations

import json
import re

import pandas as pd
import pytest
from conftest import Compose
from omegaconf import OmegaConf

from sparse_lightning.train import train

pytest.importorskip("wandb_workspaces", reason="needs the extra `dashboard`")
from sparse_lightning.experiments.dashboard import CURVES, workspace


def definition(**arguments) -> dict:
    """What would be sent to W&B."""
    return json.loads(workspace("somebody", **arguments)._to_model().model_dump_json())


def test_panels():
    sections = definition()["spec"]["section"]["panel_bank_config"]["sections"]
    panels = {section["name"]: section["panels"] for section in sections}
    others = [*CURVES, "Dictionaries side by side", "Whole sweep"]
    assert list(panels) == ["Regret", "Regret, no images", *others]
    assert panels["Regret, no images"][0]["config"]["y_axis"] == "summary:test/r2"
    scatter, _, parallel = panels["Regret"]
    assert scatter["view_type"] == "Scatter Plot"
    assert scatter["config"]["x_axis"] == "summary:test/zeros"
    assert scatter["config"]["y_axis"] == "summary:test/psnr"
    assert parallel["view_type"] == "Parallel Coordinates Plot"
    accessors = [column["accessor"] for column in parallel["config"]["columns"]]
    assert accessors == [
        "config:model.value.energy.sparsity_weight",
        "config:model.value.energy.variance_weight",
        "config:model.value.energy.encoder_weight",
        "summary:test/zeros",
        "summary:test/psnr",
    ]
    media = [panel["config"]["media_keys"] for panel in panels["Dictionaries side by side"]]
    assert ["figures/atoms"] in media


def test_one_sweep_alone():
    whole, one = json.dumps(definition()), json.dumps(definition(sweep="small"))
    assert '"small"' not in whole
    assert '"small"' in one
    assert re.search(r"Sparse coding: small", one)


def test_every_metric_is_logged(compose_small: Compose, tmp_path):
    config = compose_small("model=vdl", "trainer.max_epochs=1")
    final = train(config)
    logged = set(pd.read_csv(tmp_path / "run" / "metrics.csv"))
    shown = {metric for curves in CURVES.values() for metric in curves.values()}
    assert shown <= logged
    assert {"test/zeros", "test/psnr"} <= set(final)
    for weight in ("sparsity_weight", "variance_weight", "encoder_weight"):
        assert OmegaConf.select(config, f"model.energy.{weight}") is not None
