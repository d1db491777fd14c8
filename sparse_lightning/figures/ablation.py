"""Codes and decoders over the epochs of training."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sparse_lightning.figures.style import (
    families_in_order,
    family_name,
    family_style,
    legend_below,
    sparsity_name,
    tidy,
)
from sparse_lightning.studies.study_result import StudyResult

PANELS = {
    "code_l1": "mean l1 norm of a code",
    "code_std": "mean standard deviation\nof a code component",
    "column_norm": "mean norm of a\ndecoder column",
    "column_norm_1": "mean norm of a column,\nfirst layer",
    "column_norm_2": "mean norm of a column,\nsecond layer",
    "column_norm_3": "mean norm of a column,\nthird layer",
    "column_norm_4": "mean norm of a column,\nfourth layer",
}
ALL_LAYERS = {"column_norm": "mean norm of a column,\nall layers"}
MOST_IN_A_ROW = 5
MOST_MARKERS = 20  # On a line of more epochs markers would hide its dashes.


def draw(result: StudyResult) -> Iterator[tuple[str, Figure]]:
    """One figure, a panel for each quantity."""
    yield "ablation", histories(result.table, result.data)


def histories(table: pd.DataFrame, data: str) -> Figure:
    """One line for each family and λ, mean over seeds; a layer that a family lacks has none."""
    labels = PANELS | (ALL_LAYERS if "column_norm_1" in table else {})
    panels = {name: label for name, label in labels.items() if name in table}
    rows = math.ceil(len(panels) / MOST_IN_A_ROW)
    columns = math.ceil(len(panels) / rows)
    figure = Figure(figsize=(2.75 * columns, 2.8 * rows + 0.6), layout="constrained")
    curves = table.groupby(["family", "sparsity_weight", "epoch"])[list(panels)].mean()
    places = figure.subplots(rows, columns, squeeze=False).flat
    for axes in places[len(panels) :]:
        axes.set_axis_off()
    for axes, (name, label) in zip(places, panels.items()):
        for family in families_in_order(table["family"]):
            weights = curves.loc[family].groupby("sparsity_weight")
            for number, (weight, curve) in enumerate(weights):
                style = family_style(family)
                if len(curve) > MOST_MARKERS:
                    style["marker"] = ""
                axes.plot(
                    curve.index.get_level_values("epoch"),
                    curve[name],
                    label=f"{family_name(family)}, {sparsity_name(family, weight)}",
                    markersize=3,
                    # A family's λ differ in how faint they are.
                    alpha=1 - 0.7 * number / len(weights),
                    **style,
                )
        axes.set(xlabel="epoch", ylabel=label)
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        tidy(axes)
    legend_below(figure, 3)
    figure.suptitle(f"Training codes and decoders, epoch by epoch, {data}", fontsize=10)
    return figure
