"""The trained models that a study looks at.

Weights are large, and what was measured of them is small. So a study that is given the folder of a
run notes there what tables say of its model, and its results go by that note (`result_cache`). The
checkpoint may be deleted then, and the model stays in the tables of the studies that have measured
it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from sparse_lightning.errors import (
    CheckpointError,
    DataError,
    NoModelsError,
    SettingError,
    StorageError,
)
from sparse_lightning.experiments.early_checks import as_list, require_models
from sparse_lightning.experiments.fingerprint import (
    EPOCHS,
    SHUFFLE_SEED,
    without_seed,
)
from sparse_lightning.experiments.runs import CONFIG_FILE, RESULTS_FILE, Run, find_runs
from sparse_lightning.files import digest, write_json
from sparse_lightning.model import SparseAutoencoder

# In the folder of checkpoints, of the model that the run's results are of.
NOTE_FILE = "best.json"
# What a note has of the columns of tables.
NOTED = ("family", "sparsity_weight", "variance_weight", "encoder_weight")


class WeightsGoneError(CheckpointError):
    """A study asks for a model whose checkpoint is gone, and of which it knows nothing.

    Attributes:
        trained: the model.
    """

    def __init__(self, trained: TrainedModel) -> None:
        super().__init__(
            f"{trained.checkpoint} is gone, and this study has not measured its model with these "
            "settings: put the checkpoint back to measure it."
        )
        self.trained = trained


@dataclass(frozen=True)
class TrainedModel:
    """A trained model, and what tables say of it.

    Args:
        run: where it was trained.
        checkpoint: the file that holds it.
        by_name: whether the file was given, and not the run, whose note is then left alone.
    """

    run: Run
    checkpoint: Path
    by_name: bool = False

    @cached_property
    def model(self) -> SparseAutoencoder:
        """The model, on the CPU, in evaluation mode.

        Raises:
            CheckpointError: the checkpoint cannot be read.
            WeightsGoneError: it is gone.
        """
        if self._is_noted_alone:
            raise WeightsGoneError(self)
        return SparseAutoencoder.load_from_checkpoint(self.checkpoint).eval()

    @property
    def has_weights(self) -> bool:
        """Whether the checkpoint is still there."""
        return self.checkpoint.is_file()

    @cached_property
    def note(self) -> dict[str, object]:
        """What a study asks of the model and not of its weights.

        It is kept in the run's folder, and is read from there once the checkpoint is gone.

        Raises:
            CheckpointError: there is neither, or the note is damaged or of another model.
        """
        if self._is_noted_alone:
            return self._read_note()
        found = self._noted()
        if not self.by_name:
            with contextlib.suppress(StorageError):  # Another user's folder.
                write_json(self._note_file, found)
        return found

    @property
    def _note_file(self) -> Path:
        return self.run.folder / "checkpoints" / NOTE_FILE

    @property
    def _is_noted_alone(self) -> bool:
        """Whether the checkpoint is gone, and the run's note is there."""
        return not (self.by_name or self.has_weights) and self._note_file.is_file()

    def _noted(self) -> dict[str, object]:
        model, energy = self.model, self.model.energy
        return {
            "digest": self.digest,
            "results": digest(self.run.results),
            "metric": model.training_rule.metric,
            "family": model.family,
            "sparsity_weight": getattr(model.encoder, "k", energy.sparsity_weight),
            "variance_weight": energy.variance_weight,
            "encoder_weight": energy.encoder_weight,
        }

    def _read_note(self) -> dict[str, object]:
        advice = f"put {self.checkpoint} back, or give runs= without {self.run.folder}"
        try:
            note = json.loads(self._note_file.read_text())
            is_whole = {"digest", "results", "metric", *NOTED} <= note.keys()
        except (OSError, ValueError, AttributeError):
            is_whole = False
        if not is_whole:
            raise CheckpointError(f"{self._note_file} is damaged or of another version: {advice}.")
        if note["results"] != digest(self.run.results):
            raise CheckpointError(
                f"{self._note_file} is of another model than {self.run.folder / RESULTS_FILE}, as "
                f"it is where the run was given more epochs since: {advice}."
            )
        return note

    @cached_property
    def columns(self) -> dict[str, object]:
        """The columns of a table that say which model a row is about.

        ``sparsity_weight`` is what a family's curve runs over: λ, or k where the encoder keeps the
        k largest components. ``epochs`` are those that were done, which early stopping can make
        fewer than ``max_epochs``; NaN if the run has not ended. ``solver`` found the codes in
        training.
        """
        return {
            "data": _title(self.run),
            **{name: self.note[name] for name in NOTED},
            "solver": _solver(self.run),
            "seed": self.run.config.seed,
            "max_epochs": self.run.settings.get(EPOCHS),
            "epochs": (self.run.results or {}).get("epochs", math.nan),
            "run": str(self.run.folder),
        }

    @property
    def metric(self) -> str:
        """By which the best model was kept, the lower the better."""
        return self.note["metric"]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the checkpoint."""
        if not self.has_weights:
            return self.note["digest"]
        with self.checkpoint.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @property
    def settings(self) -> dict[str, object]:
        """Those that make it what it is, but for the seed."""
        settings = without_seed(self.run.settings)
        with contextlib.suppress(DataError):  # Of another package's data nothing is known.
            if self.run.data_class().is_the_same_everywhere:
                settings.pop("data.root", None)
        return settings


def _title(run: Run) -> str:
    try:
        return run.data().title
    except DataError:  # Another package's, known by name alone.
        return run.config.data_name


def _solver(run: Run) -> str:
    """The name of its class, which says more than its settings do."""
    return str(OmegaConf.select(run.config, "model.solver._target_")).rpartition(".")[2]


def find_trained_models(
    checkpoint: str | Sequence[str] | None = None,
    runs: str | Sequence[str] | None = None,
    where: Mapping[str, Any] | None = None,
    of_any_settings: bool = False,
) -> list[TrainedModel]:
    """The models of checkpoints, or of all finished runs below some folders.

    A run that diverged is not finished, and is left out with a warning; its checkpoint is taken
    where it is asked for by name.

    Args:
        checkpoint: one file, or several.
        runs: one folder, or several.
        where: values to keep of columns of `TrainedModel.columns`, one or several, such as
            ``{"family": ["sdl"]}``, or by family, such as ``{"sparsity_weight": {"sdl": 0.01}}``;
            None for all.

    Raises:
        SettingError: not exactly one of the two is given, or models that a study would take for
            seeds of one another differ in more than the seed.
        NoModelsError: nothing is found or kept.
        CheckpointError: a file that is missing or no checkpoint.
    """
    require_models(checkpoint, runs)
    if checkpoint is not None:
        found = [_of_checkpoint(Path(path)) for path in as_list(checkpoint)]
    else:
        found = [trained for folder in as_list(runs) for trained in _of_folder(Path(folder))]
    for column, given in (where or {}).items():
        if given is None:
            continue
        values = _as_values(given)
        kept = [trained for trained in found if _is_among(trained, column, values)]
        if not kept:
            known = sorted({trained.columns[column] for trained in found}, key=str)
            raise NoModelsError(f"where.{column}={values} leaves no model: there are {known}.")
        found = kept
    if not of_any_settings:
        _require_seeds_of_one_another(found)
    return found


def _as_values(given: Any) -> list | dict[str, list]:
    """The values of a condition, by family where they were given so; one alone is a list of one."""
    if isinstance(given, Mapping):
        return {family: _as_values(own) for family, own in given.items()}
    is_one = isinstance(given, str) or not isinstance(given, Sequence)
    return [given] if is_one else list(given)


def _is_among(trained: TrainedModel, column: str, values: list | dict[str, list]) -> bool:
    """Whether a model's column has one of the values, or of those of its family if it has any."""
    if isinstance(values, dict):
        family = trained.columns["family"]
        return family not in values or trained.columns[column] in values[family]
    return trained.columns[column] in values


def _require_seeds_of_one_another(trained_models: Sequence[TrainedModel]) -> None:
    """Refuse models of one family and λ that differ in more than the seed, or not even in that."""
    firsts: dict[tuple, TrainedModel] = {}
    seen: dict[tuple, TrainedModel] = {}
    for trained in trained_models:
        kind = trained.columns["family"], trained.columns["sparsity_weight"]
        seeds = trained.columns["seed"], OmegaConf.select(trained.run.config, SHUFFLE_SEED)
        first = firsts.setdefault(kind, trained)
        ours, theirs = first.settings, trained.settings
        names = sorted(name for name in ours.keys() | theirs if ours.get(name) != theirs.get(name))
        about = f"{first.checkpoint} and {trained.checkpoint} have one family and λ"
        if names:
            name = names[0]
            raise SettingError(
                f"{about}, and differ in {name} ({ours.get(name)} and {theirs.get(name)}): they "
                "would be averaged as if they differed in the seed alone. Keep some of them by "
                "where., checkpoint= or runs=."
            )
        if (twin := seen.setdefault((*kind, *seeds), trained)) is not trained:
            raise SettingError(
                f"{twin.checkpoint} and {trained.checkpoint} have one family, λ and seed: "
                "give one of them."
            )


def _of_folder(folder: Path) -> list[TrainedModel]:
    runs = find_runs(folder)
    finished = [run for run in runs if run.is_finished]
    unfinished = [run for run in runs if not run.is_finished]
    diverged = [run for run in unfinished if run.diverged_at_epoch is not None]
    if diverged:
        names = ", ".join(f"{run.folder} (epoch {run.diverged_at_epoch})" for run in diverged)
        told = f"runs that diverged are not studied: {names}; give checkpoint= for one of them"
    if diverged and finished:
        warnings.warn(f"runs={folder}: {told}.", stacklevel=2)
    if not finished:
        advice = "check the path"
        if unfinished:
            advice = f"{len(unfinished)} have not ended, so wait, or give their command again"
        if diverged:
            advice = told
        raise NoModelsError(f"runs={folder} holds no finished run: {advice}.")
    return [TrainedModel(run, run.best_checkpoint) for run in finished]


def _of_checkpoint(path: Path) -> TrainedModel:
    if path.is_dir():
        path = Run(path).best_checkpoint
    folder = path.parent.parent
    if not (folder / CONFIG_FILE).is_file():
        raise CheckpointError(
            f"checkpoint={path} lies in no folder of a run, whose {CONFIG_FILE} tells of its data "
            "and settings: leave it in RUN/checkpoints, or load it in Python by "
            "SparseAutoencoder.load_from_checkpoint."
        )
    return TrainedModel(Run(folder), path, by_name=True)
