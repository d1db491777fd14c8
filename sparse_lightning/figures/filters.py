"""Noise of encoder filters against λ."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
from matplotlib.figure import Figure

from sparse_lightning.figures.style import (
    OVER_SEEDS,
    curve_with_bars,
    families_in_order,
    family_name,
    family_style,
    sparsity_label,
    tidy,
)
from sparse_lightning.studies.study_result import StudyResult

PANELS = {"noise": "all filters", "noise_in_use": "filters of units in use"}


def draw(result: StudyResult) -> Iterator[tuple[str, Figure]]:
    """One figure, a panel for each of the two ways of counting filters."""
    yield "filter_noise", noise(result.more["summary"], result.data)


def noise(summary: pd.DataFrame, data: str) -> Figure:
    """Mean over seeds of each family and λ above 0, with bars of one standard deviation."""
    summary = summary[summary["sparsity_weight"] > 0]
    weights = sorted(summary["sparsity_weight"].unique())
    labels = dict.fromkeys(map(sparsity_label, families_in_order(summary["family"])))
    figure = Figure(figsize=(8.4, 4.0), layout="constrained")
    row = figure.subplots(1, len(PANELS), sharey=True)
    for axes, (column, title) in zip(row, PANELS.items()):
        for family in families_in_order(summary["family"]):
            models = summary[summary["family"] == family].groupby("sparsity_weight")[column]
            curve_with_bars(
                axes,
                models.mean().index,
                models.mean(),
                yerr=models.std(),
                label=family_name(family),
                **family_style(family),
            )
        axes.set(xscale="log", xlabel=" or ".join(labels), ylim=(-0.02, 1.02))
        axes.set_xticks(weights, [f"{weight:g}" for weight in weights], rotation=45)
        axes.minorticks_off()
        axes.set_title(title, fontsize=9)
        tidy(axes)
    row[0].set_ylabel("share of white noise in a filter")
    row[-1].legend(fontsize=8, handlelength=3)
    figure.suptitle(f"Noise of encoder filters, {data}\n{OVER_SEEDS}", fontsize=10)
    return figure
