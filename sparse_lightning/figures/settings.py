"""Test results against each setting that a sweep ran over."""

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
from sparse_lightning.quality import quality_of
from sparse_lightning.studies.settings import in_order
from sparse_lightning.studies.study_result import StudyResult

NAMES = {
    "model.energy.sparsity_weight": "λ",
    "model.energy.variance_weight": "β",
    "model.energy.variance_threshold": "T",
    "model.energy.encoder_weight": "γ",
    "data.batch_size": "batch size",
    "data.sorted_by_class": "batches of one class",
    "model.solver": "solver",
    "trainer.max_epochs": "epochs",
}


def draw(result: StudyResult) -> Iterator[tuple[str, Figure]]:
    """One figure: a column for each setting, its rows quality, zeros and dead units."""
    effects = result.more["effects"]
    if len(effects):
        yield "settings", against_settings(effects, result.data)


def against_settings(effects: pd.DataFrame, data: str) -> Figure:
    """Means over seeds, with a bar of one standard deviation where there are several."""
    names = list(effects["setting"].unique())
    quality = quality_of(effects)
    rows = {quality.name: quality.label, "zeros": "zeros", "dead_units": "dead units"}
    figure = Figure(figsize=(1.2 + 2.4 * len(names), 6.2), layout="constrained")
    grid = figure.subplots(len(rows), len(names), squeeze=False, sharey="row", sharex="col")
    for column, name in enumerate(names):
        of_setting = effects[effects["setting"] == name]
        for row, (measure, label) in enumerate(rows.items()):
            _panel(grid[row, column], of_setting, measure)
            if column == 0:
                grid[row, column].set_ylabel(label)
        grid[-1, column].set_xlabel(NAMES.get(name, name))
    legend_below(figure, 4)
    figure.suptitle(f"Test results against settings, {data}\n{OVER_SEEDS}", fontsize=10)
    return figure


def _panel(axes: Axes, rows: pd.DataFrame, measure: str) -> None:
    values = rows["value"].drop_duplicates().sort_values(key=in_order).tolist()
    for family in families_in_order(rows["family"]):
        own = rows[rows["family"] == family]
        curve_with_bars(
            axes,
            [values.index(value) for value in own["value"]],
            own[measure],
            yerr=own[f"{measure}_std"],
            label=family_name(family),
            **family_style(family),
        )
    axes.set_xticks(range(len(values)), values)
    axes.margins(x=0.12)
    tidy(axes)
