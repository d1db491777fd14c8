"""Runs add up to one table: ``python -m sparse_lightning.collect DIR``.

Writes into DIR ``table.parquet`` and ``table.csv`` (one row per run), ``epochs.parquet`` (one row
per epoch of each finished run), ``summary.parquet`` and ``summary.csv`` (mean, standard deviation
and number over seeds) and ``regret.png``, and says what is missing. Runs that differ in anything
but the seed are never averaged.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console

from sparse_lightning.errors import FOR_THE_USER
from sparse_lightning.experiments.early_checks import require_runs
from sparse_lightning.experiments.records import State
from sparse_lightning.machine import require_supported, tolerate_poor_terminals


def main() -> None:
    """Entry point of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m sparse_lightning.collect", description="Bring runs together in one table."
    )
    parser.add_argument("folder", type=Path, help="a folder with runs in it, at any depth")
    folder = parser.parse_args().folder
    tolerate_poor_terminals()
    try:
        require_supported()
        require_runs(folder)
        from sparse_lightning.experiments.table import (
            collect,
            show,
            summarize,
            told_of_results,
            write_results,
        )

        table = collect(folder)
        summary = summarize(table)
        write_results(folder, table, summary)
    except FOR_THE_USER as error:
        sys.exit(f"error: {error}")
    show(table, summary, Console())
    finished = int((table["state"] == State.FINISHED).sum())
    print(f"{finished} of {len(table)} runs finished; {told_of_results(summary)} in {folder}")


if __name__ == "__main__":
    main()
