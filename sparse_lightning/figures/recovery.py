"""Atoms recovered, their cosine, and supports found, against λ."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sparse_lightning.figures.style import families_in_order, family_name, family_style, tidy
from sparse_lightning.studies.study_result import StudyResult

PANELS = {
    "recovered": "true atoms recovered (share)",
    "mean_cosine": "mean cosine with the true atom",
    "support_f1": "F1 of supports",
}
LINES = ((0, (1, 1)), "-.", (0, (5, 2, 1, 2, 1, 2)), (0, (6, 3)))


def draw(result: StudyResult) -> Iterator[tuple[str, Figure]]:
    """One figure, a panel for each measure."""
    yield "recovery", recovered(result.table, result.more["neighbours"], result.data)


def recovered(table: pd.DataFrame, neighbours: pd.DataFrame, data: str) -> Figure:
    """Mean over seeds, with bars of one standard deviation; other methods as grey lines.

    F1 is that of a family's own codes. Where a family has an encoder, that of codes by inference
    is drawn faintly.
    """
    figure = Figure(figsize=(10.4, 4.4), layout="constrained")
    for axes, (name, label) in zip(figure.subplots(1, len(PANELS)), PANELS.items()):
        for family in families_in_order(table["family"]):
            _family(axes, table[table["family"] == family], family, name)
        for (other, rows), style in zip(neighbours.groupby("name"), LINES):
            axes.axhline(rows[name].mean(), color="0.4", linestyle=style, label=other)
        _scale(axes, sorted(table["sparsity_weight"].unique()))
        axes.set(xlabel="λ", ylabel=label, ylim=(-0.02, 1.02))
        tidy(axes)
    handles, labels = figure.axes[-1].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=4, fontsize=8, handlelength=3.5
    )
    figure.suptitle(f"Recovery of a known dictionary: {data}", fontsize=10)
    return figure


def _family(axes: Axes, rows: pd.DataFrame, family: str, name: str) -> None:
    has_encoder = "encoder" in set(rows["codes"])
    ways = ["encoder", "inference"] if has_encoder and name == "support_f1" else [None]
    for way in ways:
        chosen = rows if way is None else rows[rows["codes"] == way]
        by_weight = chosen.groupby(["sparsity_weight", "seed"])[name].mean().groupby(level=0)
        mean, spread = by_weight.mean(), by_weight.std()
        faint = way == "inference"
        axes.errorbar(
            mean.index,
            mean,
            yerr=spread,
            label=family_name(family) + (", by inference" if faint else ""),
            alpha=0.4 if faint else 1.0,
            markersize=4,
            capsize=2,
            linewidth=1.4,
            **family_style(family),
        )


def _scale(axes: Axes, weights: list[float]) -> None:
    """A logarithmic axis of λ with the measured values as ticks; 0 has a place, too."""
    if weights[0] > 0:
        axes.set_xscale("log")
    elif len(weights) > 1:
        axes.set_xscale("symlog", linthresh=weights[1])
    axes.set_xticks(weights, [f"{weight:g}" for weight in weights])
    axes.minorticks_off()
