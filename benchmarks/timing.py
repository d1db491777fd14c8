"""Timing of rivals in turn, so that a noisy machine is noisy to all, and how that is shown."""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

import torch
from rich.console import Console
from rich.table import Table

Name = TypeVar("Name", bound=Hashable)


def parser(description: str | None) -> argparse.ArgumentParser:
    """A command line that knows ``--quick``; the first line of a docstring describes it."""
    made = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    made.add_argument("--quick", action="store_true", help="run through in seconds, for a test")
    return made


def finish() -> None:
    """Wait for a GPU, if one is in use."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def medians(rivals: dict[Name, Callable[[], object]], repeats: int) -> dict[Name, float]:
    """Median seconds of each, measured in turn ``repeats`` times after one warm-up."""
    seconds: dict[Name, list[float]] = {name: [] for name in rivals}
    for rival in rivals.values():
        rival()
        finish()
    for _ in range(repeats):
        for name, rival in rivals.items():
            start = time.perf_counter()
            rival()
            finish()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Median over turns of the ratio within one turn, which a slow minute does not move."""
    return statistics.median(own / other for own, other in zip(ours, theirs, strict=True))


def machine(device: str = "cpu") -> str:
    """One line that says what the numbers were measured on."""
    if device != "cpu":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    return (
        f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"Python {platform.python_version()}"
    )


def show(
    title: str, names: Sequence[str], numbers: Sequence[str], rows: Sequence[Sequence[str]]
) -> None:
    """Print a table: columns of names, and columns of numbers, which stand on the right."""
    table = Table(title=title)
    for heading in names:
        table.add_column(heading)
    for heading in numbers:
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(*row)
    Console(width=110).print(table)
