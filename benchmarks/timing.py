"""Timing of rivals in turn, so that a noisy machine is noisy to all, and how that is shown."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

import torch
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter
from rich.table import Table

Name = TypeVar("Name", bound=Hashable)


def finish() -> None:
    """Wait for an accelerator, if one is in use."""
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


def label_milliseconds(axis: Axes) -> None:
    """Ticks at 1, 2, 5, 10 and so on of a logarithmic horizontal axis, which may be short."""
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.xaxis.set_minor_locator(NullLocator())


def machine(device: str = "cpu") -> str:
    """One line that says what the numbers were measured on."""
    if device != "cpu":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    return (
        f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"Python {platform.python_version()}"
    )


def empty_table(title: str, names: Sequence[str], numbers: Sequence[str]) -> Table:
    """A table to print: columns of names, and columns of numbers, which stand on the right."""
    table = Table(title=title)
    for heading in names:
        table.add_column(heading)
    for heading in numbers:
        table.add_column(heading, justify="right")
    return table
