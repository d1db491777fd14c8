"""A run is a folder: its settings, and once it has ended, its results.

Training writes ``config.yaml``, every setting resolved, when it begins, and ``metrics.json`` when
it ends. Whoever reads runs (sweeps, studies, tables) reads them through `Run`. A run that is given
more epochs goes on: the results of the fewer, and the model that they are of, stay until those of
the more are whole; where the more diverge, they stay. The results of any other run that diverged
are those of its best model until then. They say in which epoch it diverged (``diverged_at_epoch``,
from 0), and the run does not count as finished.

The files alone say how a run stands (`records`).
"""

from __future__ import annotations

import contextlib
import importlib
import shutil
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from sparse_lightning.data.module import SplitDataModule
from sparse_lightning.errors import DataError, DivergenceError, told_to_the_user
from sparse_lightning.experiments.fingerprint import EPOCHS
from sparse_lightning.experiments.records import (
    CONFIG_FILE,
    DIVERGED_AT,
    FAILURE_FILE,
    RESULTS_FILE,
    TABLE_FILE,
    Record,
    State,
    run_folders,
)
from sparse_lightning.files import replaced_whole, write_json
from sparse_lightning.model import SparseAutoencoder
from sparse_lightning.registry import REGISTRY

KEPT_FILE = "finished.ckpt"

__all__ = [
    "CONFIG_FILE",
    "DIVERGED_AT",
    "FAILURE_FILE",
    "KEPT_FILE",
    "RESULTS_FILE",
    "TABLE_FILE",
    "Run",
    "State",
    "failure_recorded",
    "find_runs",
    "record_command",
    "record_settings",
    "recorded_seed",
]


@dataclass(frozen=True)
class Run(Record):
    """One run's folder."""

    def record_failure(self, error: BaseException) -> None:
        """Leave behind why the run failed."""
        told = told_to_the_user(error) or error
        content: dict[str, object] = {
            "error": type(told).__name__,
            "message": str(told),
            "traceback": "".join(traceback.format_exception(error)),
        }
        if isinstance(error, DivergenceError) and error.epoch is not None:
            content[DIVERGED_AT] = error.epoch
        write_json(self.folder / FAILURE_FILE, content)

    def forget_failure(self) -> None:
        """Make the run one that may yet end well, without what it left when it failed."""
        if not self.is_finished:
            (self.folder / RESULTS_FILE).unlink(missing_ok=True)
        (self.folder / FAILURE_FILE).unlink(missing_ok=True)

    @property
    def best_checkpoint(self) -> Path:
        """The model of lowest validation energy, of the epochs that the results are of."""
        kept = self._kept_checkpoint
        return kept if kept.is_file() else self.folder / "checkpoints" / "best.ckpt"

    @property
    def _kept_checkpoint(self) -> Path:
        return self.folder / "checkpoints" / KEPT_FILE

    def keep_results(self) -> None:
        """Keep the model that the results are of beside the one that training goes on with."""
        if self.is_finished and self.best_checkpoint.is_file():
            with replaced_whole(self._kept_checkpoint) as temporary:
                shutil.copyfile(self.best_checkpoint, temporary)

    def replace_results(self, results: dict[str, object]) -> None:
        """Write the results of a run that has ended, in place of those of fewer epochs."""
        write_json(self.folder / RESULTS_FILE, results)
        self._kept_checkpoint.unlink(missing_ok=True)

    @property
    def last_checkpoint(self) -> Path:
        """The model from which the run goes on: of the last epoch, or from inside the next."""
        return self.folder / "checkpoints" / "last.ckpt"

    def model(self) -> SparseAutoencoder:
        """The best model, on the CPU, in evaluation mode."""
        return SparseAutoencoder.load_from_checkpoint(self.best_checkpoint).eval()

    @property
    def data_label(self) -> str:
        """The name of the data, and what must be said of it beside that, for tables."""
        data = self.config.get("data") or {}
        try:
            tags = self.data_class().tags_of(data.get("root") or data.get("path"))
        except DataError:  # Another package's.
            tags = []
        return " ".join([self.config.data_name, *(f"({tag})" for tag in tags)])

    def data(self) -> SplitDataModule:
        """The data that the run was trained on, not yet prepared.

        Raises:
            DataError: as `data_class`.
        """
        self.data_class()
        return instantiate(self.config.data, _recursive_=False)

    def data_class(self) -> type[SplitDataModule]:
        """The class of the run's data.

        A run's folder may come from elsewhere, and what its settings name is called: it must be
        one of this package's own, or one that is registered because the user imported it.

        Raises:
            DataError: it is something else.
        """
        target = str(OmegaConf.select(self.config, "data._target_"))
        module, _, name = target.rpartition(".")
        registered = REGISTRY.get(name)
        if (
            isinstance(registered, type)
            and issubclass(registered, SplitDataModule)
            and f"{registered.__module__}.{registered.__qualname__}" == target
        ):
            return registered
        if module.startswith("sparse_lightning.data."):
            with contextlib.suppress(ImportError):
                found = getattr(importlib.import_module(module), name, None)
                if isinstance(found, type) and issubclass(found, SplitDataModule):
                    return found
        raise DataError(
            f"{self.folder / CONFIG_FILE} names data of another package ({target}), which is not "
            "run from a file: set data= to say what to use, or, if you trust it and its class is "
            f"under @register, add imports=[{module}]."
        )


@contextlib.contextmanager
def failure_recorded(folder: Path) -> Iterator[None]:
    """Leave behind why the run in a folder failed, unless an earlier failure is on record there.

    Of several processes the first one does.
    """
    try:
        yield
    except Exception as error:
        if rank_zero_only.rank == 0 and not (folder / FAILURE_FILE).exists():
            with contextlib.suppress(OSError):  # Of a full disk, say, which the error tells.
                Run(folder).record_failure(error)
        raise


def find_runs(folder: Path) -> list[Run]:
    """All runs at or below a folder, finished or not, in the order of their paths."""
    return [Run(path) for path in sorted(run_folders(folder))]


def recorded_seed(folder: Path) -> int | None:
    """The seed of the run in a folder, None where there is none on record."""
    with contextlib.suppress(DataError):
        return Run(folder).config.get("seed")
    return None


def record_command(config: DictConfig, folder: Path) -> None:
    """Write Hydra's own record of a command, ``.hydra``, once the folder is the command's own."""
    if not HydraConfig.initialized():
        return
    hydra = HydraConfig.get()
    records = {
        "config.yaml": config,
        "hydra.yaml": {"hydra": hydra},
        "overrides.yaml": hydra.overrides.task,
    }
    for name, content in records.items():
        with replaced_whole(folder / ".hydra" / name) as temporary:
            OmegaConf.save(OmegaConf.create(content), temporary)


def record_settings(config: DictConfig, folder: Path) -> None:
    """Write a run's settings, resolved, into its folder.

    Results that do not tell how many epochs the run was to have learn it from the settings before.
    """
    run = Run(folder)
    if run.results is not None and "epochs" in run.results and "max_epochs" not in run.results:
        with contextlib.suppress(DataError):
            asked = OmegaConf.select(run.config, EPOCHS)
            write_json(folder / RESULTS_FILE, run.results | {"max_epochs": asked})
    with replaced_whole(folder / CONFIG_FILE) as temporary:
        resolved = OmegaConf.create(OmegaConf.to_container(config, resolve=True))
        OmegaConf.save(resolved, temporary)
