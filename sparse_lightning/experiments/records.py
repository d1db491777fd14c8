"""What the files of a run's folder say, read without torch.

Whoever trains holds ``run.lock`` (`locks`). A run that an error ends leaves ``failure.json``, and
``plan.json`` in a sweep's folder tells what has not begun. `Run` (in `runs`) is a record whose
model and data can be used.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigTypeError, OmegaConfBaseException
from yaml import YAMLError

from sparse_lightning.errors import DataError
from sparse_lightning.experiments.fingerprint import EPOCHS, effective_settings
from sparse_lightning.experiments.locks import is_locked
from sparse_lightning.experiments.moved import translated

CONFIG_FILE, RESULTS_FILE = "config.yaml", "metrics.json"
TABLE_FILE = "metrics.csv"
FAILURE_FILE = "failure.json"
PLAN_FILE = "plan.json"
DIVERGED_AT = "diverged_at_epoch"
# λ that a run with a target has come to; the settings say where it started.
FOUND_WEIGHT = "val/sparsity_weight"


class State(StrEnum):
    """How a run stands."""

    FINISHED = "finished"
    FAILED = "failed"
    DIVERGED = "diverged"  # with results until then
    RUNNING = "running"
    INTERRUPTED = "interrupted"  # begun, and no process is at it
    WAITING = "waiting"  # not begun


@dataclass(frozen=True)
class Record:
    """The files of one run's folder, which may be given as text."""

    folder: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", Path(self.folder))

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
        """The epoch that ended the run, which has results until then; None if none did.

        The results may be whole, of a run that had finished and was given more epochs.
        """
        return ((self.failure or {}) | (self.results or {})).get(DIVERGED_AT)

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
        is_held = is_locked(self.folder)
        if self.covers(max_epochs):  # It may have ended since.
            return State.FINISHED
        if is_held:
            return State.RUNNING
        if self.diverged_at_epoch is not None:
            return State.DIVERGED
        if self.failure is not None:
            return State.FAILED
        begun = (self.folder / CONFIG_FILE).is_file()
        return State.INTERRUPTED if begun else State.WAITING

    @property
    def failure(self) -> dict[str, Any] | None:
        """``error``, ``message`` and ``traceback`` of the last attempt, None unless it failed.

        Where it diverged, and the run had a model, ``diverged_at_epoch`` as well.

        Raises:
            DataError: the file is damaged.
        """
        return _read(self.folder / FAILURE_FILE, "give the sweep's or the training's command again")

    @property
    def reason(self) -> str | None:
        """Why the last attempt failed, in a sentence that begins with the error's name."""
        failure = self.failure
        return None if failure is None else f"{failure['error']}: {failure['message']}"

    @property
    def epochs_done(self) -> int:
        """Epochs so far, by the last row of ``metrics.csv``, as ``trainer.max_epochs`` counts."""
        try:
            *_, last = (self.folder / TABLE_FILE).read_text().splitlines()
        except (FileNotFoundError, ValueError):
            return 0
        epoch = last.partition(",")[0]
        return int(epoch) + 1 if epoch.isdecimal() else 0

    @property
    def results(self) -> dict[str, float] | None:
        """What ``metrics.json`` holds: the metrics of the best model; None before the end.

        Raises:
            DataError: the file is damaged.
        """
        return _read(self.folder / RESULTS_FILE, "resume the run, which writes it again")

    @property
    def settings(self) -> dict[str, object]:
        """`effective_settings`, with the number of epochs that the results are of."""
        settings = effective_settings(self.config)
        asked = (self.results or {}).get("max_epochs")
        return settings if asked is None else settings | {EPOCHS: asked}


def _read(path: Path, remedy: str) -> dict[str, Any] | None:
    """What a file of JSON holds; None where there is none."""
    try:
        found = json.loads(path.read_text())
        if not isinstance(found, dict):
            raise ValueError("no names")
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise DataError(f"{path} is damaged: delete it, and {remedy}.") from error
    return found


def _calls_a_resolver(settings: Any) -> bool:
    """Whether a text, or one nested inside, may be an interpolation like ``${name:...}``."""
    if isinstance(settings, dict):
        settings = [*settings.values()]
    if isinstance(settings, list):
        return any(map(_calls_a_resolver, settings))
    return isinstance(settings, str) and ":" in settings.partition("${")[2]


def _folders_with(name: str, folder: Path) -> Iterator[Path]:
    """Folders at or below a folder that hold a file of this name, not looking inside runs."""
    for path, below, files in os.walk(folder):
        if name in files:
            yield Path(path)
        if CONFIG_FILE in files:  # What loggers keep inside a run may bear the same name.
            below.clear()
        # Hydra's own record of the settings, not resolved, and what W&B keeps beside the runs.
        below[:] = [name for name in below if not name.startswith(".") and name != "wandb"]


def run_folders(folder: Path) -> Iterator[Path]:
    """Folders of all runs at or below a folder, in any order."""
    return _folders_with(CONFIG_FILE, folder)


def unbegun(folder: Path) -> dict[Path, list[str]]:
    """Overrides of each run that sweeps at or below a folder have planned and not begun."""
    planned = {
        sweep / name: overrides
        for sweep in sorted(_folders_with(PLAN_FILE, folder))
        for name, overrides in read_plan(sweep).items()
    }
    return {path: own for path, own in planned.items() if not (path / CONFIG_FILE).is_file()}


def read_plan(folder: Path) -> dict[str, list[str]]:
    """Overrides of every job that sweeps in this folder are to do, by the name of its folder."""
    return _read(folder / PLAN_FILE, "give the sweep's command again") or {}
