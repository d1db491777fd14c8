"""Agreement of seeds against zeros."""

from __future__ import annotations

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
from sparse_lightning.studies.study_result import StudyResult

PANELS = {
    "mean_cosine": "mean cosine of matched atoms",
    "shared": "share of atoms in common",
    "correlation": "mean correlation of their codes",
}
NULLS = {
    "mean_cosine": {
        "null_white": ("random atoms, matched", ":"),
        "null_coloured": ("random atoms, covariance of the data, matched", "-."),
    },
    "correlation": {"null_mismatched": ("a unit and the partner of another", "--")},
}


def draw(result: StudyResult) -> Iterator[tuple[str, Figure]]:
    """One figure, a panel for each measure."""
    yield "stability", agreement(result.more["summary"], result.data)


def agreement(summary: pd.DataFrame, data: str) -> Figure:
    """Mean over pairs of seeds, with bars of one standard deviation; nulls are thin."""
    figure = Figure(figsize=(10.4, 4.2), layout="constrained")
    for axes, (name, label) in zip(figure.subplots(1, len(PANELS)), PANELS.items()):
        for family in families_in_order(summary["family"]):
            rows = summary[summary["family"] == family].sort_values("zeros")
            curve_with_bars(
                axes,
                100 * rows["zeros"],
                rows[name],
                yerr=rows[f"{name}_std"],
                label=family_name(family),
                **family_style(family),
            )
        _nulls(axes, summary, name)
        axes.set(xlabel="zeros among code components (%)", ylabel=label, ylim=(-0.02, 1.02))
        tidy(axes)
    legend_below(figure, 4)
    figure.suptitle(
        f"Agreement of seeds, pairs of models of {data}\nbars: one standard deviation over pairs",
        fontsize=10,
    )
    return figure


def _nulls(axes: Axes, summary: pd.DataFrame, name: str) -> None:
    """Of each family its own, thin: a null depends on the number of atoms in use."""
    for column, (label, line) in NULLS.get(name, {}).items():
        if summary.loc[summary[name].notna(), column].isna().any():
            continue  # Some pairs were measured by an earlier version, which had no such null.
        for family in families_in_order(summary["family"]):
            rows = summary[summary["family"] == family].sort_values("zeros")
            colour = family_style(family)["color"]
            axes.plot(100 * rows["zeros"], rows[column], color=colour, linestyle=line, linewidth=1)
        axes.plot([], [], color="0.3", linestyle=line, linewidth=1, label=label)
