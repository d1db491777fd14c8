"""A run is a folder: its settings, and once it has ended, its results.

Training writes ``config.yaml``, every setting resolved, when it begins, and ``metrics.json`` when
it ends. Whoever reads runs (sweeps, studies, tables) reads them through `Run`. A run that is given
more epochs goes on: the results of the fewer, and the model that they are of, stay until those of
the more are whole. The results of a run that diverged are those of its best model until then. They
say in which epoch it diverged (``diverged_at_epoch``, from 0), and the run does not count as
finished.

The files alone say how a run stands. Whoever trains holds ``run.lock`` (`locks`); a job of a sweep
that fails leaves ``failure.json``.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import shutil
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigTypeError, OmegaConfBaseException
from yaml import YAMLError

from sparse_lightning.data.module import SplitDataModule
from sparse_lightning.errors import DataError
from sparse_lightning.experiments.fingerprint import EPOCHS, effective_settings
from sparse_lightning.experiments.locks import is_locked
from sparse_lightning.experiments.moved import translated
from sparse_lightning.files import replaced_whole, write_json
from sparse_lightning.model import SparseAutoencoder

CONFIG_FILE, RESULTS_FILE = "config.yaml", "metrics.json"
TABLE_FILE = "metrics.csv"
KEPT_FILE = "finished.ckpt"
FAILURE_FILE = "failure.json"
DIVERGED_AT = "diverged_at_epoch"


class State(StrEnum):
    """How a run stands."""

    FINISHED = "finished"
    FAILED = "failed"
    DIVERGED = "diverged"  # with results until then
    RUNNING = "running"
    INTERRUPTED = "interrupted"  # begun, and no process is at it
    WAITING = "waiting"  # not begun


@dataclass(frozen=True)
class Run:
    """One run's folder."""

    folder: Path

    @cached_property
    def config(self) -> DictConfig:
        """Every setting, resolved, with the present paths of classes.

        Raises:
            DataError: the folder holds no readable settings.
        """
        path = self.folder / CONFIG_FILE
        try:
            recorded = OmegaConf.load(path)
            if not isinstance(recorded, DictConfig):
                raise ConfigTypeError("a list, where settings have names")
        except (OSError, YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
            raise DataError(
                f"{path} cannot be read ({type(error).__name__}): give the folder of a run of "
                "sparse_lightning.train."
            ) from error
        settings = translated(OmegaConf.to_container(recorded))
        if _calls_a_resolver(settings):
            # A resolver may make what the settings name, and a file does not say what is made.
            raise DataError(
                f"{path} has settings that are not resolved: give the folder of a run of "
                "sparse_lightning.train, which resolves them."
            )
        return OmegaConf.create(settings)

    @property
    def is_finished(self) -> bool:
        """Whether the run ended well."""
        results = self.results
        return results is not None and DIVERGED_AT not in results

    @property
    def diverged_at_epoch(self) -> int | None:
        """The epoch that ended the run, which has results until then; None if none did."""
        return (self.results or {}).get(DIVERGED_AT)

    def covers(self, max_epochs: int | None) -> bool:
        """Whether the run ended well, after so many epochs or before them by itself.

        A run that early stopping or a limit of time ended has fewer epochs than it was to have.

        Args:
            max_epochs: None or −1 for whatever it was to have.
        """
        if not self.is_finished:
            return False
        done = self.results.get("epochs")
        if done is None or max_epochs is None or done >= max_epochs:
            return True
        return done < (self._asked_epochs or done)

    @property
    def _asked_epochs(self) -> int | None:
        """The epochs that the run with these results was to have; None if unknown."""
        if "max_epochs" in self.results:
            return self.results["max_epochs"]
        with contextlib.suppress(DataError):
            # Results of earlier versions do not tell, and `record_settings` sees to it that they
            # do before other settings are recorded.
            return OmegaConf.select(self.config, EPOCHS)
        return None

    @property
    def state(self) -> State:
        """How the run stands."""
        return self.state_of(None)

    def state_of(self, max_epochs: int | None) -> State:
        """How the run stands as one that is to have so many epochs, see `covers`."""
        if self.covers(max_epochs):
            return State.FINISHED
        if is_locked(self.folder):
            # It may have ended since.
            return State.FINISHED if self.covers(max_epochs) else State.RUNNING
        if self.diverged_at_epoch is not None:
            return State.DIVERGED
        if self.failure is not None:
            return State.FAILED
        begun = (self.folder / CONFIG_FILE).is_file()
        return State.INTERRUPTED if begun else State.WAITING

    @property
    def failure(self) -> dict[str, str] | None:
        """``error``, ``message`` and ``traceback`` of the last attempt, None unless it failed."""
        try:
            return json.loads((self.folder / FAILURE_FILE).read_text())
        except FileNotFoundError:
            return None

    def record_failure(self, error: BaseException) -> None:
        """Leave behind why the run failed."""
        content = {
            "error": type(error).__name__,
            "message": str(error),
            "traceback": "".join(traceback.format_exception(error)),
        }
        write_json(self.folder / FAILURE_FILE, content)

    def forget_failure(self) -> None:
        """Make the run one that may yet end well, without what it left when it failed."""
        if self.diverged_at_epoch is not None:
            (self.folder / RESULTS_FILE).unlink(missing_ok=True)
        (self.folder / FAILURE_FILE).unlink(missing_ok=True)

    @property
    def epochs_done(self) -> int:
        """Epochs in ``metrics.csv`` so far."""
        try:
            lines = (self.folder / TABLE_FILE).read_bytes().count(b"\n")
        except FileNotFoundError:
            return 0
        return max(lines - 1, 0)

    @property
    def results(self) -> dict[str, float] | None:
        """What ``metrics.json`` holds: the metrics of the best model; None before the end.

        Raises:
            DataError: the file is damaged.
        """
        path = self.folder / RESULTS_FILE
        try:
            return json.loads(path.read_text())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise DataError(
                f"{path} is damaged: delete it, and resume the run, which writes it again."
            ) from error

    @cached_property
    def metrics(self) -> dict[str, float]:
        """The final metrics of a finished run."""
        return self.results

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
    def settings(self) -> dict[str, object]:
        """`effective_settings`, with the number of epochs that the results are of."""
        settings = effective_settings(self.config)
        asked = (self.results or {}).get("max_epochs")
        return settings if asked is None else settings | {EPOCHS: asked}

    @property
    def last_checkpoint(self) -> Path:
        """The model of the last finished epoch, from which the run goes on."""
        return self.folder / "checkpoints" / "last.ckpt"

    def model(self) -> SparseAutoencoder:
        """The best model, on the CPU, in evaluation mode."""
        return SparseAutoencoder.load_from_checkpoint(self.best_checkpoint).eval()

    @property
    def data_label(self) -> str:
        """The name of the data, and what must be said of it beside that, for tables."""
        data = self.config.data
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
        one of this package's own.

        Raises:
            DataError: it is something else.
        """
        target = str(OmegaConf.select(self.config, "data._target_"))
        module, _, name = target.rpartition(".")
        if module.startswith("sparse_lightning.data."):
            with contextlib.suppress(ImportError):
                found = getattr(importlib.import_module(module), name, None)
                if isinstance(found, type) and issubclass(found, SplitDataModule):
                    return found
        raise DataError(
            f"{self.folder / CONFIG_FILE} names data of another package ({target}), which is not "
            "run from a file: set data= to say what to use."
        )


def _calls_a_resolver(settings: Any) -> bool:
    """Whether a text, or one nested inside, may be an interpolation like ``${name:...}``."""
    if isinstance(settings, dict):
        settings = [*settings.values()]
    if isinstance(settings, list):
        return any(map(_calls_a_resolver, settings))
    return isinstance(settings, str) and ":" in settings.partition("${")[2]


def find_runs(folder: Path) -> list[Run]:
    """All runs at or below a folder, finished or not, in the order of their paths."""
    return [Run(path) for path in sorted(_run_folders(folder))]


def _run_folders(folder: Path) -> Iterator[Path]:
    for path, below, files in os.walk(folder):
        if CONFIG_FILE in files:
            yield Path(path)
            # What loggers keep inside a run may bear the same name.
            below.clear()
        # Hydra's own record of the settings, not resolved, and what W&B keeps beside the runs.
        below[:] = [name for name in below if not name.startswith(".") and name != "wandb"]


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
