"""Figures of a sweep, drawn from its summary table."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sparse_lightning.figures.style import (
    curve_with_bars,
    families_in_order,
    family_name,
    family_style,
    tidy,
)
from sparse_lightning.quality import PSNR, Quality, quality_of_rows

LINEAR = ("LinearDecoder", "LinearNetworkDecoder")
# A curve runs over λ, or over k where the encoder keeps the k largest components.
FIXED = ("family", "sparsity_weight", "model.encoder.k")


def regret_curve(summary: pd.DataFrame) -> Figure:
    """Test PSNR or R² against zeros, one curve over λ per family, linear decoders dashed.

    A family has several curves where other settings differ at one λ. Error bars are one standard
    deviation over seeds, in both directions; one seed has none.

    Args:
        summary: of `sparse_lightning.experiments.table.summarize`; a panel for each data set.
    """
    data_sets = list(summary["data"].unique())
    figure = Figure(figsize=(7.2 * len(data_sets), 4.8), layout="constrained")
    panels = figure.subplots(1, len(data_sets), squeeze=False)[0]
    for axes, data in zip(panels, data_sets):
        rows = summary[summary["data"] == data]
        least, most = rows["n"].min(), rows["n"].max()
        seeds = f"{most}" if least == most else f"{least} to {most}"
        names = ["family", *splitting_settings(rows)]
        for family in families_in_order(rows["family"]):
            _draw_family(axes, rows[rows["family"] == family], names)
        quality = _quality(rows)
        axes.set(xlabel="zeros in the codes (%)", ylabel=quality.label)
        samples = "images" if quality is PSNR else "rows"
        axes.set_title(f"{data}: test {samples}, mean over seeds (n = {seeds})", fontsize=10)
        tidy(axes)
        axes.legend(fontsize=9)
    return figure


def _quality(rows: pd.DataFrame) -> Quality:
    return quality_of_rows(rows, "test/", "_mean")


def splitting_settings(summary: pd.DataFrame) -> list[str]:
    """Columns that differ between groups of one family at one λ or k."""
    settings = [name for name in summary if not name.endswith(("_mean", "_std"))]
    settings = [name for name in settings if name not in ("n", "settings", "decoder", *FIXED)]
    fixed = [name for name in FIXED if name in summary]
    groups = summary.groupby(fixed, dropna=False)
    return [name for name in settings if (groups[name].nunique(dropna=False) > 1).any()]


def _draw_family(axes: Axes, rows: pd.DataFrame, names: list[str]) -> None:
    style = family_style(rows["family"].iloc[0])
    groups = rows.groupby(names, sort=False, dropna=False)
    for number, (key, curve) in enumerate(groups):
        # Curves of one family have its colour, each one fainter than that before.
        alpha = 1 - 0.8 * number / len(groups)
        _draw_curve(axes, curve, _label(key, names), style["color"], style["marker"], alpha)


def _label(values: tuple, names: list[str]) -> str:
    family, *rest = values
    told = [f"{name.rpartition('.')[2]} {value}" for name, value in zip(names[1:], rest)]
    # A class goes by its name alone: a label with its path is as wide as the figure.
    told = [text.rpartition(".")[2] if text.startswith("_target_ ") else text for text in told]
    return ", ".join([family_name(family), *told])


def _draw_curve(
    axes: Axes, curve: pd.DataFrame, label: str, colour: str, marker: str, alpha: float
) -> None:
    # In the order of λ or k, as training made codes sparser: zeros need not follow it.
    curve = curve.sort_values([name for name in FIXED[1:] if name in curve])
    name = f"test/{_quality(curve).name}"
    curve_with_bars(
        axes,
        100 * curve["test/zeros_mean"],
        curve[f"{name}_mean"],
        xerr=100 * curve["test/zeros_std"],
        yerr=curve[f"{name}_std"],
        label=label,
        color=colour,
        alpha=alpha,
        linestyle="--" if curve["decoder"].isin(LINEAR).all() else "-",
        marker=marker,
    )
