"""Atoms recovered, their cosine, and supports found, against the number of active components."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sparse_lightning.figures.style import (
    OVER_SEEDS,
    curve_with_bars,
    families_in_order,
    family_name,
    family_style,
    legend_below,
    tidy,
)
from sparse_lightning.studies.study_result import StudyResult

PANELS = {
    "recovered": "true atoms recovered (share)",
    "mean_cosine": "mean cosine with the true atom",
    "support_f1": "F1 of supports",
}
MARKERS = "^vxP"


def draw(result: StudyResult) -> Iterator[tuple[str, Figure]]:
    """One figure, a panel for each measure."""
    yield "recovery", recovered(result.table, result.more["neighbours"], result.data)


def recovered(table: pd.DataFrame, neighbours: pd.DataFrame, data: str) -> Figure:
    """Mean over seeds against active components of own codes, bars of one standard deviation.

    Other methods are grey marks; they know the true number of active components. F1 is that of a
    family's own codes. Where a family has an encoder, F1 by inference is drawn faintly.
    """
    figure = Figure(figsize=(10.4, 4.4), layout="constrained")
    for axes, (name, label) in zip(figure.subplots(1, len(PANELS)), PANELS.items()):
        for family in families_in_order(table["family"]):
            _family(axes, table[table["family"] == family], family, name)
        for (other, rows), marker in zip(neighbours.groupby("name"), MARKERS):
            mean = rows[["active", name]].mean()
            style = {"color": "0.4", "marker": marker, "linestyle": "none", "markersize": 5}
            axes.plot(mean["active"], mean[name], label=other, **style)
        axes.set(xlabel="active components of a code", ylabel=label, ylim=(-0.02, 1.02))
        tidy(axes)
    legend_below(figure, 4)
    figure.suptitle(f"Recovery of a known dictionary: {data}\n{OVER_SEEDS}", fontsize=10)
    return figure


def _family(axes: Axes, rows: pd.DataFrame, family: str, name: str) -> None:
    ways = [way for way in ("encoder", "inference") if way in set(rows["codes"])]
    for way in ways if name == "support_f1" else ways[:1]:
        by_sparsity = rows[rows["codes"] == way].groupby("sparsity_weight")[["active", name]]
        mean, spread = by_sparsity.mean(), by_sparsity.std()
        faint = way != ways[0]
        curve_with_bars(
            axes,
            mean["active"],
            mean[name],
            xerr=spread["active"],
            yerr=spread[name],
            label=family_name(family) + (", by inference" if faint else ""),
            alpha=0.4 if faint else 1.0,
            **family_style(family),
        )
