"""Runs add up to one table, and a summary over seeds.

Runs that differ in anything but the seed are never averaged.
"""

from __future__ import annotations

import json
import math
import warnings
from numbers import Number
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock
from rich.console import Console
from rich.table import Table

from sparse_lightning.errors import DataError
from sparse_lightning.experiments.fingerprint import (
    SEED,
    SHUFFLE_SEED,
    TARGET,
    digest,
    without_seed,
)
from sparse_lightning.experiments.records import (
    DIVERGED_AT,
    FOUND_WEIGHT,
    PLAN_FILE,
    TABLE_FILE,
    State,
    read_plan,
    unbegun,
)
from sparse_lightning.experiments.runs import Run, find_runs
from sparse_lightning.figures.sweep import regret_curve
from sparse_lightning.files import replaced_whole, write_figure, write_json
from sparse_lightning.quality import QUALITIES

# Column and setting of what every table shows.
COLUMNS = {
    "family": "model.family",
    "target_zeros": TARGET,
    "sparsity_weight": "model.energy.sparsity_weight",
    "variance_weight": "model.energy.variance_weight",
    "variance_threshold": "model.energy.variance_threshold",
    "encoder_weight": "model.energy.encoder_weight",
    "seed": SEED,
    "shuffle_seed": SHUFFLE_SEED,
    "max_epochs": "trainer.max_epochs",
}
FIRST = ("run", "state", "data", *COLUMNS)
LAST = ("decoder", "failure", "settings")
SEEDS = ("seed", "shuffle_seed")
LENGTHS = ("epochs", "seconds", "cpu_seconds")
DATA = "data_fingerprint"
ORIGIN = ("version", "commit", DATA)
PER_RUN = ("run", "state", *SEEDS, *ORIGIN, DIVERGED_AT, "failure")
RESULTS = [f"test/{quality.name}" for quality in QUALITIES]
REGRET_FILE, EPOCHS_FILE = "regret.png", "epochs.parquet"
HEADINGS = {
    "target_zeros": "target",
    "sparsity_weight": "λ",
    "variance_weight": "β",
    "encoder_weight": "γ",
}


def collect(folder: str | Path) -> pd.DataFrame:
    """One row per run at or below a folder, and one per run that is planned and not begun.

    Columns: ``run`` (its folder, below this one), ``state``, ``data``, ``family``, λ
    ``sparsity_weight`` (found by training where there is a ``target_zeros``, a column of tables
    with such a run), β ``variance_weight``, T ``variance_threshold``, γ ``encoder_weight``,
    ``seed``, ``shuffle_seed``, ``max_epochs``; every other setting that tells runs apart which
    these do not, by its dotted name; ``epochs``, ``seconds``, ``cpu_seconds``, ``version``,
    ``commit``, ``data_fingerprint`` and every final metric; ``decoder``; ``failure``, a sentence;
    and ``settings``, equal for runs that differ in the seeds alone. A run that is going on has the
    ``max_epochs`` that its results are of. A run that diverged has the metrics of its best model
    until then, and where there is one the table has the column ``diverged_at_epoch``.

    Raises:
        DataError: there is no run and no plan in the folder, or a run's files are damaged.
    """
    folder = Path(folder)
    runs = find_runs(folder)
    pending = [Run(path) for path in unbegun(folder)]
    if not runs and not pending:
        raise DataError(f"{folder} holds no run: give the folder of a sweep, or one above it.")
    for run in runs:
        if "model" not in run.config:
            raise DataError(
                f"{run.folder} holds settings of another program: give the folder of a sweep."
            )
    settings = [run.settings for run in runs]
    rows = [_row(folder, run, own) for run, own in zip(runs, settings)]
    telling = _telling_settings(rows, settings)
    for row, own in zip(rows, settings):
        row |= {name: _cell(own.get(name)) for name in telling}
    table = pd.DataFrame(rows + [_ending(folder, run) for run in pending])
    for name in telling:
        if table[name].dropna().map(type).nunique() > 1:
            table[name] = table[name].map(str, na_action="ignore")
    results = [name for name in table if "/" in name or name in (*LENGTHS, *ORIGIN, DIVERGED_AT)]
    if table.get("target_zeros", pd.Series()).isna().all():
        table = table.drop(columns="target_zeros", errors="ignore")
    first = [name for name in FIRST if name in table]
    last = [name for name in LAST if name in table]
    return table[[*first, *telling, *results, *last]]


def _row(folder: Path, run: Run, settings: dict[str, Any]) -> dict[str, Any]:
    return {
        **_ending(folder, run),
        "data": run.data_label,
        **{column: settings.get(setting) for column, setting in COLUMNS.items()},
        **_found_weight(run, settings),
        "decoder": str(settings.get("model.decoder._target_", "")).rpartition(".")[2],
        "settings": digest(without_seed(settings)),
        # What has been asked for since is not what the results are of.
        **(run.results or {}),
    }


def _found_weight(run: Run, settings: dict[str, Any]) -> dict[str, Any]:
    """The column λ of a run with a target: unknown before the end."""
    if TARGET not in settings:
        return {}
    return {"sparsity_weight": (run.results or {}).get(FOUND_WEIGHT)}


def _ending(folder: Path, run: Run) -> dict[str, Any]:
    name = run.folder.relative_to(folder).as_posix()
    return {"run": name, "state": str(run.state), "failure": run.reason}


def _telling_settings(rows: list[dict[str, Any]], settings: list[dict[str, Any]]) -> list[str]:
    """Settings that differ between runs which are equal in every column that is always there."""
    alike: dict[tuple, list[dict[str, Any]]] = {}
    for row, own in zip(rows, settings):
        key = (row["data"], *(own.get(COLUMNS[name]) for name in COLUMNS if name not in SEEDS))
        alike.setdefault(key, []).append(without_seed(own))
    telling: set[str] = set()
    for group in alike.values():
        names = {name for own in group for name in own}
        telling |= {name for name in names if len({str(own.get(name)) for own in group}) > 1}
    return sorted(telling)


def _cell(value: Any) -> Any:
    """A value that a column of a Parquet file can hold."""
    return json.dumps(value) if isinstance(value, list) else value


def summarize(table: pd.DataFrame) -> pd.DataFrame:
    """Mean, standard deviation and number over the seeds of runs that are otherwise the same.

    Where λ was found for a target it differs between seeds, and ``sparsity_weight`` is the mean.
    A warning tells of means over runs whose data differ in their contents.

    Args:
        table: what `collect` returns. Runs that are not finished are left out, those that
            diverged among them, and of several with the same settings and seed one counts.

    Returns:
        A row per group of runs: the columns that say what the runs are, ``n``, and for every
        metric ``METRIC_mean`` and ``METRIC_std`` (unbiased; missing where n = 1).
    """
    runs = table[table["state"] == State.FINISHED]
    if runs.empty or not any(result in table for result in RESULTS):
        return pd.DataFrame()
    runs = runs.drop_duplicates(["settings", *SEEDS])
    metrics = [name for name in runs if name.startswith(("val/", "test/"))]
    metrics += [name for name in LENGTHS if name in runs]
    about = [name for name in runs if name not in {*metrics, *PER_RUN}]
    groups = runs.groupby("settings", sort=False)
    if DATA in runs:
        _warn_of_other_data(groups)
    summary = groups[about].first()
    if "target_zeros" in runs:
        has_target = summary["target_zeros"].notna()
        means = groups["sparsity_weight"].mean()
        summary["sparsity_weight"] = summary["sparsity_weight"].where(~has_target, means)
    summary["n"] = groups.size()
    for name in metrics:
        summary[f"{name}_mean"], summary[f"{name}_std"] = groups[name].mean(), groups[name].std()
    order = [name for name in ("data", "family", "sparsity_weight") if name in summary]
    return summary.sort_values(order, kind="stable").reset_index(drop=True)


def _warn_of_other_data(groups: Any) -> None:
    # Results of earlier versions do not tell.
    mixed = [own.dropna(subset=DATA) for _, own in groups if own[DATA].nunique() > 1]
    if mixed:
        one, other, *_ = mixed[0].drop_duplicates(DATA)["run"]
        warnings.warn(
            f"{len(mixed)} of {len(groups)} means are over runs whose data differ in their "
            f"contents, such as {one} and {other} ({DATA} in the table). If files have changed, "
            "move the runs of the old files away, and give the sweep's command again.",
            stacklevel=3,
        )


def record_plan(folder: Path, jobs: dict[str, list[str]]) -> None:
    """Add jobs to what is to be done in a folder; the same overrides have one folder, the last."""
    with FileLock(folder / f"{PLAN_FILE}.lock"):  # Two sweeps may begin in one folder at once.
        others = {name: job for name, job in read_plan(folder).items() if job not in jobs.values()}
        write_json(folder / PLAN_FILE, others | jobs)


def epochs_of(run: Run) -> pd.DataFrame | None:
    """``metrics.csv`` up to the last epoch that the run's results are of; None without the file.

    A finished run that is given more epochs keeps its results and their model meanwhile. All rows
    where there are no results.

    Raises:
        DataError: the file is damaged.
    """
    path, results = run.folder / TABLE_FILE, run.results or {}
    if not path.is_file():
        return None
    try:
        metrics = pd.read_csv(path)
        if "epoch" not in metrics:
            raise ValueError("no epochs")
    except ValueError as error:  # pandas' own, of an empty file and of uneven rows, are as well.
        told = f"{path} is damaged: put it back, or move the run out of the folder."
        raise DataError(told) from error
    # Results of earlier versions count the epochs of the run alone, and not those behind it.
    before = 0 if DATA in results or metrics.empty else int(metrics["epoch"].min())
    return metrics[metrics["epoch"] < before + results.get("epochs", math.inf)]


def histories(folder: str | Path) -> pd.DataFrame:
    """One row per epoch of each finished run at or below a folder: ``run`` and its record."""
    folder = Path(folder)
    found = [
        metrics.assign(run=run.folder.relative_to(folder).as_posix())
        for run in find_runs(folder)
        if run.state == State.FINISHED and (metrics := epochs_of(run)) is not None
    ]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=["run"])


def write_results(folder: Path, table: pd.DataFrame, summary: pd.DataFrame) -> None:
    """Write the runs and, of those that are finished, the summary, each epoch and a curve."""
    frames = {"table": table, "summary": summary} if len(summary) else {"table": table}
    for name, frame in frames.items():
        with replaced_whole(folder / f"{name}.parquet") as temporary:
            frame.to_parquet(temporary, index=False)
        with replaced_whole(folder / f"{name}.csv") as temporary:
            frame.to_csv(temporary, index=False)
    with replaced_whole(folder / EPOCHS_FILE) as temporary:
        histories(folder).to_parquet(temporary, index=False)
    if len(summary):
        write_figure(regret_curve(summary), folder / REGRET_FILE)


def told_of_results(summary: pd.DataFrame) -> str:
    """What `write_results` has written, in words."""
    return "table, summary and regret curve" if len(summary) else "table"


def show(table: pd.DataFrame, summary: pd.DataFrame, console: Console) -> None:
    """Print the summary, and the runs that are not finished."""
    if len(summary):
        console.print(_summary_for_the_eye(summary))
    for _, run in table[table["state"] != State.FINISHED].iterrows():
        reason = f": {run['failure']}" if isinstance(run["failure"], str) else ""
        console.print(f"{run['state']}: {run['run']}{reason}", highlight=False, markup=False)


def _summary_for_the_eye(summary: pd.DataFrame) -> Table:
    """What differs between the groups, and the metrics of the regret curve."""
    described = [name for name in summary if not name.endswith(("_mean", "_std"))]
    described = [name for name in described if name not in ("n", "settings", "decoder")]
    telling = [name for name in described if summary[name].map(str).nunique() > 1]
    shown = Table(title="Mean ± standard deviation over seeds, on test data")
    headings = [HEADINGS.get(name, name) for name in telling]
    measured = [q for q in QUALITIES if f"test/{q.name}_mean" in summary]
    qualities = [quality.label for quality in measured]
    for heading in (*headings, "n", *qualities, "zeros (%)", "seconds"):
        shown.add_column(heading, justify="left" if heading in ("data", "family") else "right")
    for _, row in summary.iterrows():
        values = [f"{row[name]:g}" if _is_number(row[name]) else str(row[name]) for name in telling]
        shown.add_row(
            *values,
            str(row["n"]),
            *(_with_spread(row, f"test/{q.name}", f"{{:.{q.digits}f}}") for q in measured),
            _with_spread(row, "test/zeros", "{:.1f}", 100),
            f"{row['seconds_mean']:.0f}",
        )
    return shown


def _is_number(value: Any) -> bool:
    return isinstance(value, Number) and not isinstance(value, bool)


def _with_spread(row: pd.Series, metric: str, form: str, scale: float = 1) -> str:
    mean, deviation = row[f"{metric}_mean"] * scale, row[f"{metric}_std"] * scale
    if pd.isna(mean):
        return ""
    spread = "" if pd.isna(deviation) else f" ± {form.format(deviation)}"
    return form.format(mean) + spread
