"""Runs and sweeps at a glance: ``python -m sparse_lightning.runs [FOLDER ...]``.

Lists every run below some folders, the best first, by the validation metric; test metrics stand
beside it. ``--where`` keeps some, ``--sort`` takes another order, ``--format`` exports, ``--watch``
looks again until nothing runs. It reads no settings of its own and writes nothing but ``--output``:
hence argparse, as for `collect`, and no Hydra. It needs no torch and answers at once.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import sys
import time
from collections import Counter
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sparse_lightning.errors import FOR_THE_USER, DataError, SettingError
from sparse_lightning.experiments.glance import (
    DESCRIPTION,
    Glance,
    Row,
    Standing,
    column_of,
    kept,
    metric_chosen_by,
    ranked,
    sweeps,
)
from sparse_lightning.files import replaced_whole
from sparse_lightning.machine import tolerate_poor_terminals

EVERY = 2.0  # seconds
WIDE, PIPED_WIDTH = 120, 200  # characters
USUAL_FOLDERS = ("runs", "sweeps")
DESCRIBED = {"data": "data", "family": "family", "sparsity_weight": "λ", "seed": "seed"}
METRICS = {
    "val/psnr": ("PSNR val", "{:.2f}"),
    "test/psnr": ("PSNR test", "{:.2f}"),
    "val/r2": ("R² val", "{:.3f}"),
    "test/r2": ("R² test", "{:.3f}"),
    "val/zeros": ("zeros val", "{:.1%}"),
}
COLORS = {
    Standing.RUNNING: "cyan",
    Standing.FINISHED: "green",
    Standing.STOPPED_EARLY: "green",
    Standing.DIVERGED: "red",
    Standing.FAILED: "red",
    Standing.DEAD: "red",
    Standing.INTERRUPTED: "yellow",
    Standing.WAITING: "bright_black",
}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m sparse_lightning.runs",
        description="List runs and sweeps, the best first.",
        epilog="Example: python -m sparse_lightning.runs sweeps/small --where family=vdl,vdl_nl "
        "state=finished --top 5",
    )
    made.add_argument(
        "folders", nargs="*", type=Path, help="folders with runs at any depth (runs and sweeps)"
    )
    made.add_argument(
        "--where", nargs="+", default=[], metavar="COLUMN=VALUE", help="keep runs, as family=sdl"
    )
    made.add_argument("--sort", metavar="COLUMN", help="order by a column (val/psnr or val/r2)")
    made.add_argument("--reverse", action="store_true", help="the other way round")
    made.add_argument("--top", type=int, metavar="N", help="the first N alone")
    made.add_argument("--sweeps", action="store_true", help="a row for each folder of runs")
    made.add_argument("--format", choices=("table", "csv", "json"), default="table")
    made.add_argument("--output", type=Path, metavar="FILE", help="write there, as CSV or JSON")
    made.add_argument("--watch", action="store_true", help="look again until nothing runs or waits")
    return made


def found_rows(glance: Glance, arguments: argparse.Namespace) -> list[Row]:
    """The rows that meet the conditions of ``--where``.

    Raises:
        DataError: there is no run, or files of one are damaged.
        SettingError: a name that no column has.
    """
    rows = glance.rows()
    if not rows:
        places = ", ".join(map(str, glance.folders)) or "runs or sweeps"
        raise DataError(f"There is no run in {places}: give a folder that holds some.")
    return kept(rows, arguments.where)


def arranged(rows: list[Row], arguments: argparse.Namespace) -> list[Row]:
    """Rows in the order that was asked for, as many as were asked for."""
    column = column_of(arguments.sort, rows) if arguments.sort else metric_chosen_by(rows)
    rows = ranked(rows, column, arguments.reverse)
    return (sweeps(rows) if arguments.sweeps else rows)[: arguments.top]


def columns_of(rows: list[Row]) -> list[str]:
    """What describes runs first, then whatever else any row has."""
    known = [name for name in DESCRIPTION if any(name in row for row in rows)]
    return list(dict.fromkeys([*known, *(name for row in rows for name in row)]))


def as_text(rows: list[Row], form: str) -> str:
    """Rows as CSV or JSON, with every metric; a value that a run lacks is empty or null."""
    columns = columns_of(rows)
    whole = [{name: row.get(name) for name in columns} for row in rows]
    if form == "json":
        return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"
    file = io.StringIO()
    writer = csv.DictWriter(file, columns, lineterminator="\n")
    writer.writeheader()
    for row in whole:
        writer.writerow({name: _joined(value) for name, value in row.items()})
    return file.getvalue()


def _joined(value: object) -> object:
    return " ".join(value) if isinstance(value, list) else value


def for_the_eye(rows: list[Row], width: int) -> Table:
    """Rows of runs as a table for the terminal; a narrow one has no test metrics."""
    metrics = [name for name in METRICS if any(name in row for row in rows)]
    metrics = [name for name in metrics if width >= WIDE or not name.startswith("test/")]
    described = {name: heading for name, heading in DESCRIBED.items() if not _common(rows, name)}
    shows_signs = any("last_sign" in row for row in rows)
    folders = [row["sweep"] for row in rows]
    if any(map(os.path.isabs, folders)):
        folders = list(map(os.path.abspath, folders))
    above = (os.path.commonpath(folders) or ".") if rows else ""
    telling = telling_overrides(rows)
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("state", no_wrap=True)
    for heading in described.values():
        table.add_column(heading, no_wrap=True)
    headings = ["epochs", *(METRICS[name][0] for name in metrics)]
    for heading in (*headings, *(["last sign"] if shows_signs else [])):
        table.add_column(heading, justify="right", no_wrap=True)
    if any(telling):
        table.add_column("overrides", overflow="fold")
    table.add_column(f"run, in {above}", overflow="fold", style="bright_black", min_width=16)
    for row, own in zip(rows, telling):
        cells = [Text(row["state"], COLORS[Standing(row["state"])])]
        cells += [*(_cell(row.get(name)) for name in described), _epochs(row)]
        cells += [_cell(row.get(name), METRICS[name][1]) for name in metrics]
        cells += [_ago(row.get("last_sign"))] if shows_signs else []
        cells += [Text(own)] if any(telling) else []
        table.add_row(*cells, Text(os.path.relpath(row["run"], above)))
    return table


def telling_overrides(rows: list[Row]) -> list[str]:
    """Of each run the overrides that not every run has."""
    known = [set(row["overrides"]) for row in rows if "overrides" in row]
    common = set.intersection(*known) if known else set()
    typed = [row.get("overrides", []) for row in rows]
    return [" ".join(text for text in own if text not in common) for own in typed]


def _common(rows: list[Row], name: str) -> str:
    """What all of several rows have in a column, empty where they differ."""
    values = {_cell(row.get(name)) for row in rows}
    return values.pop() if len(rows) > 1 and len(values) == 1 else ""


def sweeps_for_the_eye(rows: list[Row]) -> Table:
    """Rows of sweeps as a table for the terminal."""
    states = [str(state) for state in Standing if any(row[str(state)] for row in rows)]
    metrics = [name for name in METRICS if any(name in row for row in rows)]
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("sweep", overflow="fold")
    for heading in ("runs", *states, *(f"best {METRICS[name][0]}" for name in metrics)):
        table.add_column(heading, justify="right")
    table.add_column("best run", overflow="fold", style="bright_black")
    for row in rows:
        cells = [Text(row["sweep"]), str(row["runs"]), *(str(row[state]) for state in states)]
        cells += [_cell(row.get(name), METRICS[name][1]) for name in metrics]
        table.add_row(*cells, Text(row.get("best", "")))
    return table


def _cell(value: object, form: str | None = None) -> str:
    if value is None:
        return ""
    if form is not None:
        return form.format(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _epochs(row: Row) -> str:
    asked = row.get("max_epochs")
    return f"{row['epochs']}" if asked in (None, -1) else f"{row['epochs']}/{asked}"


def _ago(seconds: float | None) -> str:
    """Such as ``8 s``, ``12 min``, ``3 h`` or ``2 d``."""
    if seconds is None:
        return ""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def shown(rows: list[Row], arguments: argparse.Namespace, width: int) -> Group:
    """The table, and a line that counts and says what all of these runs are."""
    if arguments.sweeps:
        return Group(sweeps_for_the_eye(rows))
    counts = Counter(row["state"] for row in rows)
    line = ", ".join(f"{counts[state]} {state}" for state in Standing if counts[state])
    common = {heading: _common(rows, name) for name, heading in DESCRIBED.items()}
    alike = ", ".join(f"{heading} {value}" for heading, value in common.items() if value)
    line = f"{len(rows)} runs: {line}" + (f"; all: {alike}" if alike else "")
    return Group(for_the_eye(rows, width), Text(line))


def watch(glance: Glance, arguments: argparse.Namespace, console: Console) -> None:
    """Show the table again and again until no run is running and none waits."""
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            rows = found_rows(glance, arguments)
            now = shown(arranged(rows, arguments), arguments, console.width)
            live.update(now, refresh=True)
            if not any(row["state"] in (Standing.RUNNING, Standing.WAITING) for row in rows):
                return
            time.sleep(EVERY)


def list_runs(arguments: argparse.Namespace) -> None:
    """Do what the command line asks for."""
    if arguments.top is not None and arguments.top < 1:
        raise SettingError(f"--top {arguments.top} must be at least 1.")
    if arguments.watch and (arguments.format != "table" or arguments.output):
        raise SettingError("--watch shows a table: leave --format and --output out.")
    usual = [Path(name) for name in USUAL_FOLDERS if Path(name).is_dir()]
    glance = Glance(arguments.folders or usual)
    # What goes to a file or another program is not squeezed into a terminal's width.
    console = Console(width=None if sys.stdout.isatty() else PIPED_WIDTH)
    if arguments.watch:
        watch(glance, arguments, console)
        return
    rows = arranged(found_rows(glance, arguments), arguments)
    if arguments.output is not None:
        usual = "json" if arguments.output.suffix == ".json" else "csv"
        kind = usual if arguments.format == "table" else arguments.format
        with replaced_whole(arguments.output) as temporary:
            temporary.write_text(as_text(rows, kind))
        print(f"{len(rows)} rows in {arguments.output}")
    elif arguments.format == "table":
        console.print(shown(rows, arguments, console.width))
    else:
        print(as_text(rows, arguments.format), end="")


def main() -> None:
    """Entry point of the command line."""
    try:
        arguments = parser().parse_args()
        tolerate_poor_terminals()
        list_runs(arguments)
    except FOR_THE_USER as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
