"""What tests share: small problems in float64, composed configurations, MNIST unpacked once."""

from __future__ import annotations

import copy
import functools
import logging
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import hydra
import numpy as np
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from sparse_lightning.config import CONFIG_DIR, register_resolvers
from sparse_lightning.data.mnist import seed_mnist
from sparse_lightning.paper.statistics import Rules

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

# A few seconds per job.
TINY = (
    "trainer=cpu",
    "trainer.max_epochs=1",
    "logger=none",
    "data.num_train=100",
    "data.num_val=50",
    "data.num_test=50",
    "data.batch_size=50",
    "solver.max_iterations=10",
    "~callbacks.figures",
)

# Variables of the shell: folders, and the terminal, by which tables are laid out.
FOREIGN = ("IMAGENET_DIR", "SPARSE_LIGHTNING_CACHE", "COLUMNS", "LINES", "FORCE_COLOR")

FAMILIES = ["sdl", "vdl", "wdl", "do", "none"]
FAMILIES += [f"{family}_nl" for family in FAMILIES]


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    for seed in (torch.manual_seed, np.random.seed, random.seed):
        seed(0)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the user's shell sets must change no test, and what a test sets no other test."""
    for name in [*os.environ]:
        if name.startswith("WANDB_") or name in FOREIGN:
            monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture(scope="session")
def mnist_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    seed_mnist(root / "MNIST" / "raw")
    return root


Compose = Callable[..., DictConfig]


@functools.cache
def _composed(name: str, overrides: tuple[str, ...]) -> DictConfig:
    """As the command line would, once for each command; it is copied before it is used."""
    register_resolvers()
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        config = hydra.compose(name, list(overrides), return_hydra_config=True)
    GlobalHydra.instance().clear()
    return config


def composed(name: str, *overrides: str, **values: str | Path) -> DictConfig:
    """A configuration of one of the commands, to be changed at will.

    Args:
        name: such as ``train``.
        overrides: words of the command line.
        values: settings that differ from test to test, such as the run's folder.
    """
    placeholders = [f"{setting}=unset" for setting in values]
    config = copy.deepcopy(_composed(name, (*overrides, *placeholders)))
    for setting, value in values.items():
        config[setting] = str(value)
    HydraConfig.instance().set_config(config)
    with open_dict(config):
        del config["hydra"]
    return config


@pytest.fixture
def compose(tmp_path: Path) -> Iterator[Compose]:
    """Compose ``train.yaml`` with overrides, as the command line would, into ``tmp_path``."""

    def compose_training(*overrides: str, run_dir: Path = tmp_path / "run") -> DictConfig:
        return composed("train", *overrides, run_dir=run_dir)

    yield compose_training
    GlobalHydra.instance().clear()


@pytest.fixture
def compose_small(compose: Compose, mnist_root: Path) -> Compose:
    """A few batches of MNIST and a small model, on the CPU."""

    def compose_small_training(*overrides: str, **kwargs) -> DictConfig:
        return compose(
            "trainer=cpu",
            "trainer.enable_progress_bar=false",
            "trainer.max_epochs=2",
            "logger=none",
            f"data.root={mnist_root}",
            "data.num_train=200",
            "data.num_val=100",
            "data.num_test=100",
            "data.batch_size=50",
            "hidden_dim=48",
            "solver.max_iterations=30",
            "~callbacks.figures",
            *overrides,
            **kwargs,
        )

    return compose_small_training


@pytest.fixture(scope="session")
def rules() -> Rules:
    """The rules of verdicts, as `reproduce` has them."""
    config = OmegaConf.load(CONFIG_DIR / "reproduce.yaml")
    return Rules(**OmegaConf.to_container(config.verdict))
