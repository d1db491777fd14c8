"""A run is a folder: its settings, and once it has ended well, its results.

Training writes ``config.yaml``, every setting resolved, when it begins, and ``metrics.json`` when
it ends. Whoever reads runs (sweeps, studies, tables) reads them through `Run`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import lightning
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from sparse_lightning.errors import DataError
from sparse_lightning.files import replaced_whole
from sparse_lightning.model import SparseAutoencoder

CONFIG_FILE, RESULTS_FILE = "config.yaml", "metrics.json"


@dataclass(frozen=True)
class Run:
    """One run's folder."""

    folder: Path

    @cached_property
    def config(self) -> DictConfig:
        """Every setting, resolved.

        Raises:
            DataError: the folder holds no readable settings.
        """
        path = self.folder / CONFIG_FILE
        try:
            return OmegaConf.load(path)
        except (OSError, YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
            raise DataError(
                f"{path} cannot be read ({type(error).__name__}): give the folder of a run of "
                "sparse_lightning.train."
            ) from error

    @property
    def is_finished(self) -> bool:
        """Whether the run ended well."""
        return (self.folder / RESULTS_FILE).is_file()

    @cached_property
    def metrics(self) -> dict[str, float]:
        """The final metrics of a finished run."""
        return json.loads((self.folder / RESULTS_FILE).read_text())

    @property
    def best_checkpoint(self) -> Path:
        """The model of lowest validation energy."""
        return self.folder / "checkpoints" / "best.ckpt"

    def model(self) -> SparseAutoencoder:
        """The best model, on the CPU, in evaluation mode."""
        return SparseAutoencoder.load_from_checkpoint(self.best_checkpoint).eval()

    def data(self) -> lightning.LightningDataModule:
        """The data that the run was trained on, not yet prepared."""
        return instantiate(self.config.data)


def find_runs(folder: Path) -> list[Run]:
    """All runs at or below a folder, finished or not, in the order of their paths."""
    return [
        Run(path.parent)
        for path in sorted(folder.rglob(CONFIG_FILE))
        # Hydra's own record of the settings, not resolved.
        if path.parent.name != ".hydra"
    ]


def record_settings(config: DictConfig, folder: Path) -> None:
    """Write a run's settings, resolved, into its folder."""
    with replaced_whole(folder / CONFIG_FILE) as temporary:
        resolved = OmegaConf.create(OmegaConf.to_container(config, resolve=True))
        OmegaConf.save(resolved, temporary)
