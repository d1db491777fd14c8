"""Runs at a glance: one row of plain values per run, read off its files without torch or pandas.

`Glance` looks at folders again and again; what cannot have changed is read once. `collect` in
`table` is the table for analysis; the rows here are for the eye, and also tell of runs that go on.
"""

from __future__ import annotations

import csv
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import yaml

from sparse_lightning.errors import DataError, SettingError
from sparse_lightning.experiments.fingerprint import OUTWARD, is_one_of
from sparse_lightning.experiments.locks import is_locked, seconds_since_beat
from sparse_lightning.experiments.records import (
    CONFIG_FILE,
    FOUND_WEIGHT,
    TABLE_FILE,
    Record,
    State,
    run_folders,
    unbegun,
)

Row = dict[str, Any]

DESCRIPTION = (
    "run",
    "sweep",
    "state",
    "data",
    "family",
    "sparsity_weight",
    "seed",
    "epochs",
    "max_epochs",
    "overrides",
)
# The metric that runs are chosen by, in the order of preference: PSNR in dB, or R² where inputs
# are not images. Test metrics are reported and never chosen by.
CHOSEN_BY = ("val/psnr", "val/r2")
LOWER_IS_BETTER = (
    *("energy", "reconstruction", "sparsity", "variance", "encoder", "relative_error"),
    *("dead_units", "below_threshold", "seconds", "iterations", "last_sign"),
)
# Overrides of a planned run, and their columns.
TOLD_BY_OVERRIDES = {
    "data": "data",
    "model": "family",
    "model.energy.sparsity_weight": "sparsity_weight",
    "seed": "seed",
    "trainer.max_epochs": "max_epochs",
    "max_epochs": "max_epochs",
}
OVERRIDES_FILE = ".hydra/overrides.yaml"
# Other overrides that tell nothing of what a run is.
UNTOLD = (*OUTWARD, "hydra")
# Of a run that has begun λ and k are known.
KNOWN_AT_LAST = ("sparsity_level", "model.encoder.k")
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Standing(StrEnum):
    """How a run stands, for the eye: finer than `State`, which sweeps act on."""

    FINISHED = "finished"
    STOPPED_EARLY = "stopped early"  # by itself, before the epochs that it was to have
    RUNNING = "running"
    DIVERGED = "diverged"
    FAILED = "failed"
    INTERRUPTED = "interrupted"  # ended in order before its end
    DEAD = "dead"  # its process is gone without a word
    WAITING = "waiting"  # planned by a sweep, not begun


def standing(record: Record) -> Standing:
    """How a run stands. The lock decides between running and not; the heartbeat never does."""
    was_left = seconds_since_beat(record.folder) is not None
    # One that has finished may go on for more epochs.
    is_held = was_left and is_locked(record.folder)
    state = State.RUNNING if is_held else record.state
    if state is State.FINISHED:
        results = record.results
        asked = results.get("max_epochs")
        is_short = asked is not None and results.get("epochs", asked) < asked
        return Standing.STOPPED_EARLY if is_short else Standing.FINISHED
    # A process that ends in order between two looks takes its word away.
    if state is State.INTERRUPTED and was_left and seconds_since_beat(record.folder) is not None:
        return Standing.DEAD
    return Standing(state.value)


@dataclass
class Glance:
    """Rows of all runs at or below some folders.

    Attributes:
        folders: where to look.
    """

    folders: list[Path]
    _settings: dict[Path, tuple[tuple[int, int], Row]] = field(default_factory=dict)

    def rows(self) -> list[Row]:
        """A row per run, and one per run that a sweep has planned and not begun.

        Keys: ``run`` (its folder), ``sweep`` (the folder above it), ``state``, ``data``,
        ``family``, λ ``sparsity_weight``, ``seed``, ``epochs`` done and ``max_epochs`` asked for,
        ``overrides`` (a list of those that these do not tell), ``last_sign`` (seconds since the
        last sign of life, of a run that is running or dead), ``failure``, and the metrics: of the
        best model where the run has ended, else of the latest epoch, which have no ``test/``.

        Raises:
            DataError: a folder does not exist, or a run's files are damaged.
        """
        found: list[Row] = []
        for folder in self.folders:
            if not folder.is_dir():
                raise DataError(f"{folder} is no folder: give one that holds runs or sweeps.")
            found += [self._row(Record(path)) for path in sorted(run_folders(folder))]
            found += [_planned(Record(path), asked) for path, asked in unbegun(folder).items()]
        return list({row["run"]: row for row in found}.values())

    def _row(self, record: Record) -> Row:
        state = standing(record)
        about = self._description(record.folder)
        ended = state in (Standing.FINISHED, Standing.STOPPED_EARLY, Standing.DIVERGED)
        metrics = (record.results if ended else None) or latest_epoch(record.folder)
        # Results may be of fewer epochs than have been asked for since.
        epochs = metrics.get("epochs", record.epochs_done)
        row = _beginning(record, state) | about | {"epochs": epochs}
        if FOUND_WEIGHT in metrics:  # The settings of such a run have where the search began.
            row["sparsity_weight"] = metrics[FOUND_WEIGHT]
        row |= {name: metrics[name] for name in ("max_epochs", "seconds") if name in metrics}
        if state in (Standing.RUNNING, Standing.DEAD):
            row["last_sign"] = seconds_since_beat(record.folder)
        return row | {name: value for name, value in metrics.items() if "/" in name}

    def _description(self, folder: Path) -> Row:
        path, typed = folder / CONFIG_FILE, folder / OVERRIDES_FILE
        try:
            changed = path.stat().st_mtime_ns, typed.stat().st_mtime_ns if typed.is_file() else 0
            if folder not in self._settings or self._settings[folder][0] != changed:
                about = describe(yaml.load(path.read_text(), LOADER))
                self._settings[folder] = changed, about | _typed(typed)
        except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError) as error:
            raise DataError(
                f"{path} cannot be read ({type(error).__name__}): give the folder of a run of "
                "sparse_lightning.train, or move this one away."
            ) from error
        return self._settings[folder][1]


def _typed(path: Path) -> Row:
    """``overrides`` of a run that has begun; nothing where the file is missing or damaged."""
    try:
        overrides = yaml.load(path.read_text(), LOADER)
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    if not isinstance(overrides, list):
        return {}
    return {"overrides": further(overrides, KNOWN_AT_LAST)}


def describe(settings: Row) -> Row:
    """What a run is, from its recorded settings."""

    def get(name: str) -> Any:
        node: Any = settings
        for part in name.split("."):
            node = node.get(part) if isinstance(node, dict) else None
        return node

    data = get("data_name") or str(get("data._target_") or "").rpartition(".")[2]
    return {
        "data": data,
        "family": get("model.family"),
        # As in tables of studies: k, where the encoder keeps the k largest components.
        "sparsity_weight": get("model.encoder.k") or get("model.energy.sparsity_weight"),
        "seed": settings.get("seed"),
        "max_epochs": get("trainer.max_epochs"),
    }


def further(overrides: Iterable[str], known: Sequence[str] = ()) -> list[str]:
    """The overrides that neither other columns tell nor what is ``known``, as they were typed."""

    def is_told(text: str) -> bool:
        name = text.lstrip("+~").partition("=")[0]
        is_untold = is_one_of(re.sub("[/@]", ".", name), UNTOLD)
        return name in (*TOLD_BY_OVERRIDES, *known) or is_untold

    return [text for text in map(str, overrides) if not is_told(text)]


def latest_epoch(folder: Path) -> Row:
    """The metrics of the last row of ``metrics.csv``, without those that are missing in it."""
    try:
        with (folder / TABLE_FILE).open(newline="") as file:
            *_, last = csv.DictReader(file)
    except (FileNotFoundError, ValueError):  # Not one row yet.
        return {}
    row = {name: float(text) for name, text in last.items() if "/" in name and text}
    return {name: value for name, value in row.items() if not math.isnan(value)}


def _beginning(record: Record, state: Standing) -> Row:
    """Where a run is, how it stands, and why if it went wrong."""
    row = {"run": str(record.folder), "sweep": str(record.folder.parent), "state": str(state)}
    reason = record.reason if state in (Standing.FAILED, Standing.DIVERGED) else None
    return row if reason is None else row | {"failure": reason}


def _planned(record: Record, overrides: list[str]) -> Row:
    """What a run will be, as far as its overrides name it; levels of λ are not resolved here."""
    values = dict(text.split("=", 1) for text in overrides if "=" in text)
    asked = {column: values[name] for name, column in TOLD_BY_OVERRIDES.items() if name in values}
    told = asked | {"overrides": further(overrides)}
    return _beginning(record, standing(record)) | {"epochs": 0} | told


def metric_chosen_by(rows: list[Row]) -> str:
    """The validation metric that most of these runs are ranked by: PSNR, or R²."""
    counts = {name: sum(name in row for row in rows) for name in CHOSEN_BY}
    return max(counts, key=counts.get)


def column_of(name: str, rows: list[Row]) -> str:
    """The column that a name on the command line means: ``psnr`` is ``val/psnr``, λ its weight.

    Raises:
        SettingError: there is none; it says which there are.
    """
    columns = list(dict.fromkeys(key for row in rows for key in row))
    wanted = {"λ": "sparsity_weight", "lambda": "sparsity_weight"}.get(name, name)
    for candidate in (wanted, f"val/{wanted}"):
        if candidate in columns or candidate in (*DESCRIPTION, *CHOSEN_BY):
            return candidate
    usual = [column.removeprefix("val/") for column in columns if not column.startswith("t")]
    raise SettingError(f"{name} is no column of these runs: choose one of {', '.join(usual)}.")


def kept(rows: list[Row], conditions: Iterable[str]) -> list[Row]:
    """The rows that meet all conditions such as ``family=sdl,vdl`` or ``state=running``.

    Raises:
        SettingError: what is no condition, or names no column.
    """
    for condition in conditions:
        name, equals, text = condition.partition("=")
        if not equals or not text:
            raise SettingError(
                f"--where {condition} is no condition: write COLUMN=VALUE or COLUMN=VALUE,VALUE."
            )
        column, values = column_of(name, rows), text.strip("[]").split(",")
        rows = [row for row in rows if any(_equal(row.get(column), value) for value in values)]
    return rows


def _equal(value: Any, text: str) -> bool:
    """Whether a cell is what somebody typed: 0.01 and 1e-2 are one number; of a list, one of it."""
    if isinstance(value, list):
        return text.strip() in value
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return math.isclose(value, float(text))
        except ValueError:
            return False
    return str(value) == text.strip()


def ranked(rows: list[Row], column: str, worst_first: bool = False) -> list[Row]:
    """Best first; runs that went wrong after the others, runs without a value last."""
    lower = column.rpartition("/")[2] in LOWER_IS_BETTER
    is_metric = "/" in column or column in LOWER_IS_BETTER
    sign = -1 if (is_metric and not lower) != worst_first else 1

    def key(row: Row) -> tuple:
        value = row.get(column)
        went_wrong = is_metric and row["state"] in (Standing.DIVERGED, Standing.FAILED)
        if isinstance(value, int | float) and not math.isnan(value):
            return 0, went_wrong, sign * value, ""
        return (2, False, 0, "") if value is None else (1, False, 0, str(value))

    return sorted(rows, key=key)


def sweeps(rows: list[Row]) -> list[Row]:
    """One row per folder of runs: how many stand how, and the best run in it."""
    chosen = metric_chosen_by(rows)
    found = []
    for folder in dict.fromkeys(row["sweep"] for row in rows):
        own = [row for row in rows if row["sweep"] == folder]
        counts = Counter(row["state"] for row in own)
        best = ranked(own, chosen)[0]
        row: Row = {"sweep": folder, "runs": len(own)}
        row |= {str(state): counts[str(state)] for state in Standing}
        if chosen in best:
            row |= {"best": Path(best["run"]).name, chosen: best[chosen]}
        found.append(row)
    return found
