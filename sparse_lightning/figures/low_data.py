"""Test error against the number of labels."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sparse_lightning.figures.style import (
    curve_with_bars,
    families_in_order,
    family_name,
    family_style,
    legend_below,
    tidy,
)
from sparse_lightning.studies.low_data import AUTHORS, UNVALIDATED, VALIDATED
from sparse_lightning.studies.study_result import StudyResult

NAMES = {
    VALIDATED: "low_data",
    UNVALIDATED: "low_data_unvalidated",
    AUTHORS: "low_data_authors",
}
# What the bars of methods on raw inputs are over, where an arm gives them bars.
ON_INPUTS = {
    VALIDATED: "; of methods on raw inputs, over random starts and draws of labels",
    AUTHORS: "; of methods on raw inputs, over random starts",
    UNVALIDATED: "",
}
BASELINE_STYLES = {
    "linear on raw": {"color": "black", "marker": "x"},
    "LISTA + linear on raw": {"color": "tab:orange", "marker": "^"},
    "nearest neighbours on raw": {"color": "tab:olive", "marker": "v"},
    "linear on PCA": {"color": "tab:cyan", "marker": "d"},
}


def draw(result: StudyResult) -> Iterator[tuple[str, Figure]]:
    """Top-1 and top-3 error side by side, for each arm; of up to three classes top-1 alone."""
    for arm, rows in result.more["summary"].groupby("arm"):
        yield NAMES[arm], error_curves(rows, result.data, arm)


def error_curves(summary: pd.DataFrame, data: str, arm: str) -> Figure:
    """One curve per method; bars are one standard deviation over model seeds.

    Draws of labels are averaged before. A method with one seed or none has no bar. A method on
    raw inputs that begins at random has no model: its bars are over its starts, each with a draw of
    labels where these are drawn.
    """
    errors = ["top1"] if (summary["top3"] == 0).all() else ["top1", "top3"]
    figure = Figure(figsize=(4.8 * len(errors), 4.8), layout="constrained")
    methods = set(summary["method"])
    families = families_in_order(methods - set(BASELINE_STYLES))
    styles = {family: (family_name(family), family_style(family)) for family in families}
    styles |= {
        name: (name, style | {"linestyle": ":"})
        for name, style in BASELINE_STYLES.items()
        if name in methods
    }
    for axes, error in zip(figure.subplots(1, len(errors), squeeze=False)[0], errors):
        for method, (label, style) in styles.items():
            _curve(axes, summary[summary["method"] == method], error, label=label, **style)
        _label(axes, summary, f"test error, top-{error[-1]} (%)")
    legend_below(figure, 2 * len(errors))
    told = f"bars: one standard deviation over model seeds{ON_INPUTS[arm]}"
    title = [f"Classification with few labels, {data}, {arm}"]
    title += textwrap.wrap(told, 62 * len(errors))
    if (summary[errors] == 0).any(axis=None):
        title.append("no point: no error")
    figure.suptitle("\n".join(title), fontsize=10)
    return figure


def _curve(axes: Axes, rows: pd.DataFrame, error: str, **style) -> None:
    curve_with_bars(
        axes,
        rows["labels"],
        100 * rows[error],
        yerr=100 * rows[f"{error}_std"],
        capsize=1.5,
        **style,
    )


def _label(axes: Axes, summary: pd.DataFrame, label: str) -> None:
    axes.set_yscale("log", nonpositive="mask")
    axes.set(xscale="log", xlabel="labelled samples per class", ylabel=label)
    ticks = summary.drop_duplicates("labels").sort_values("labels")
    axes.set_xticks(ticks["labels"], ticks["labels_per_class"].astype(str), fontsize=8)
    axes.minorticks_off()
    low, high = axes.get_ylim()
    marks = [mark for mark in (0.2, 0.5, 1, 2, 5, 10, 20, 30, 50, 70) if low <= mark <= high]
    axes.set_yticks(marks, [f"{mark:g}" for mark in marks])
    tidy(axes)
