"""The rules of verdicts, as `reproduce` has them."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from sparse_lightning.paper.statistics import Rules

REPRODUCE = Path(__file__).parents[2] / "conf" / "reproduce.yaml"


@pytest.fixture(scope="session")
def rules() -> Rules:
    return Rules(**OmegaConf.to_container(OmegaConf.load(REPRODUCE).verdict))
