"""PSNR against zeros, a curve for each family."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from sparse_lightning.figures.style import (
    OVER_SEEDS,
    curve_with_bars,
    families_in_order,
    family_name,
    family_style,
    legend_below,
    tidy,
)
from sparse_lightning.quality import PSNR, quality_of
from sparse_lightning.studies.regret import BEST, LAST
from sparse_lightning.studies.study_result import StudyResult


def draw(result: StudyResult) -> Iterator[tuple[str, Figure]]:
    """The regret curves, PSNR at equal zeros, also against epochs, and what the encoder costs."""
    references, classics, pursued = map(result.more.get, ("references", "classics", "pursuit"))
    yield "regret", regret_curves(result.table, references, classics, result.data)
    name, epochs = quality_of(result.table).name, result.more["epochs"]
    # No curve may reach any of the shares of zeros.
    if result.more["at_zeros"][name].notna().any():
        yield f"{name}_at_zeros", psnr_at_zeros(result.more["at_zeros"], result.data)
    if name in epochs and epochs[name].notna().any():
        yield f"{name}_against_epochs", psnr_against_epochs(epochs, result.data)
    if not result.more["amortisation"].empty:
        yield "amortisation", amortisation(result.table, result.data)
    if not pursued.empty:
        yield "pursuit", pursuit(result.table, pursued, result.data)


def regret_curves(
    table: pd.DataFrame, references: pd.DataFrame, classics: pd.DataFrame, data: str
) -> Figure:
    """Mean over seeds of each family and λ, with bars of one standard deviation both ways.

    Principal components stand beside them, as many as codes are active, and dictionaries that were
    fitted and coded by orthogonal matching pursuit. One seed has no bar.
    """
    figure = Figure(figsize=(8.2, 5.0), layout="constrained")
    axes = figure.subplots()
    has_encoder = set(table.loc[table["codes"] == "encoder", "family"])
    for family in families_in_order(table["family"]):
        way = "encoder" if family in has_encoder else "inference"
        chosen = table[(table["family"] == family) & (table["codes"] == way)]
        label = family_name(family) + ("" if family in has_encoder else " (by inference)")
        _curve(axes, chosen, label=label, **family_style(family))
    _reference_lines(axes, table, references)
    quality = quality_of(table).name
    methods = [] if classics.empty else classics.groupby("method", sort=False)
    for (method, rows), marker in zip(methods, "^vx"):
        rows = rows.sort_values("zeros")
        style = {"color": "0.4", "linestyle": ":", "marker": marker, "markersize": 4}
        axes.plot(100 * rows["zeros"], rows[quality], label=f"{method}, OMP", **style)
    _label(axes, table)
    axes.legend(fontsize=8, handlelength=3.5)
    figure.suptitle(
        f"Reconstruction against sparsity, codes by the encoder, test {_samples(table)} of {data}\n"
        f"{OVER_SEEDS}, both ways",
        fontsize=10,
    )
    return figure


def _reference_lines(axes: Axes, table: pd.DataFrame, references: pd.DataFrame) -> None:
    """The mean image, and PCA over the range of zeros that the curves have."""
    quality = quality_of(table)
    values = references.set_index("components")[quality.name]
    if 0 in values.index:
        style = {"color": "0.4", "linestyle": (0, (1, 3))}
        axes.axhline(values[0], label=quality.mean_line, **style)
    zeros = pd.Series(1 - values.index / table["code_dim"].max(), index=values.index)
    shown = (values.index > 0) & (zeros >= table["zeros"].min() - 0.02)
    style = {"color": "0.4", "linestyle": "-.", "linewidth": 1.0}
    axes.plot(100 * zeros[shown], values[shown], label="PCA, as many components", **style)


def _curve(axes: Axes, rows: pd.DataFrame, **style) -> None:
    """Points in the order of λ, which is the order in which training made them sparser."""
    name = quality_of(rows).name
    by_weight = rows.groupby("sparsity_weight")[["zeros", name]]
    mean, spread = by_weight.mean(), by_weight.std()
    seeds = rows.groupby("sparsity_weight")["seed"].nunique()
    if rows["seed"].nunique() > 1 and seeds.max() == 1:
        # As where λ was sought: each is of one seed, and there are no means to join.
        style = style | {"linestyle": "none"}
    curve_with_bars(
        axes,
        100 * mean["zeros"],
        mean[name],
        xerr=100 * spread["zeros"],
        yerr=spread[name],
        **style,
    )


def _samples(table: pd.DataFrame) -> str:
    return "images" if quality_of(table) is PSNR else "rows"


def _label(axes: Axes, table: pd.DataFrame) -> None:
    axes.set(xlabel="zeros among code components (%)", ylabel=quality_of(table).label)
    tidy(axes)


def psnr_at_zeros(summary: pd.DataFrame, data: str) -> Figure:
    """PSNR or R² read off each family's curve at equal shares of zeros.

    A family has no mark where the curves of some seeds do not reach.
    """
    quality = quality_of(summary)
    summary = summary.assign(
        **{quality.name: summary[quality.name].where(summary["seeds"] == summary["curves"])}
    )
    figure = Figure(figsize=(8.2, 3.6), layout="constrained")
    axes = figure.subplots()
    families = families_in_order(summary["family"])
    shares = sorted(summary["zeros"].unique())
    for place, family in enumerate(families):
        rows = summary[summary["family"] == family].set_index("zeros").reindex(shares)
        style = family_style(family)
        offset = (place - (len(families) - 1) / 2) * min(0.75 / len(families), 0.1)
        curve_with_bars(
            axes,
            [index + offset for index in range(len(shares))],
            rows[quality.name],
            yerr=rows["std"],
            linestyle="none",
            marker=style["marker"],
            color=style["color"],
            markerfacecolor=style["color"] if style["linestyle"] == "-" else "white",
            markersize=6,
            label=family_name(family),
        )
    axes.set_xticks(range(len(shares)), [f"{100 * share:g} %" for share in shares])
    axes.set(xlabel="zeros among code components", ylabel=f"{quality.label}, interpolated")
    tidy(axes)
    axes.legend(fontsize=8, ncols=2)
    figure.suptitle(
        f"Reconstruction at equal sparsity, {data}\n"
        f"{OVER_SEEDS}; no mark: not every seed reaches there",
        fontsize=10,
    )
    return figure


def psnr_against_epochs(summary: pd.DataFrame, data: str) -> Figure:
    """Validation PSNR or R² at equal zeros over training, a panel for each share of zeros.

    A curve is the mean over all seeds of a family, and has a gap where some do not reach the zeros.
    Curves of the epoch's own weights, where they are not the best so far, are pale.
    """
    quality = quality_of(summary)
    curves = summary.groupby("family")["curves"].transform("max")
    values = summary[quality.name].where(summary["seeds"] == curves)
    shares = sorted(summary["zeros"].unique())
    figure = Figure(figsize=(3.4 * len(shares), 3.6), layout="constrained")
    grid = figure.subplots(1, len(shares), sharex=True, squeeze=False)[0]
    for axes, share in zip(grid, shares):
        for family in families_in_order(summary["family"]):
            both = summary[(summary["zeros"] == share) & (summary["family"] == family)]
            style = family_style(family) | {"marker": None}
            last, best = (both[both["weights"] == weights] for weights in (LAST, BEST))
            _epochs(axes, last["epochs"], values[last.index], alpha=0.35, **style)
            label = family_name(family)
            _epochs(axes, best["epochs"], values[best.index], label=label, **style)
        axes.set(xscale="log", xlabel="epochs", title=f"{100 * share:g} % zeros")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(LogFormatter())
        tidy(axes)
    grid[0].set_ylabel(f"{quality.label}, validation")
    legend_below(figure, 5)
    figure.suptitle(
        f"Reconstruction at equal sparsity over training, {data}\n"
        "by the best weights so far; pale: by those of the epoch",
        fontsize=10,
    )
    return figure


def _epochs(axes: Axes, epochs: pd.Series, values: pd.Series, **style) -> None:
    """A line with its gaps; a dot where an epoch stands between two gaps."""
    axes.plot(epochs, values, linewidth=1.3, **style)
    alone = values.notna() & values.shift().isna() & values.shift(-1).isna()
    if alone.any():
        style = {"color": style["color"], "alpha": style.get("alpha"), "linestyle": "none"}
        axes.plot(epochs[alone], values[alone], marker=".", markersize=5, **style)


def amortisation(table: pd.DataFrame, data: str) -> Figure:
    """Each family with an encoder twice: its codes, and inference at γ = 0 and β = 0."""
    families = families_in_order(table.loc[table["codes"] == "encoder", "family"])
    ways = {way: table[table["codes"] == way] for way in ("encoder", "inference")}
    return _two_ways(
        families, ways, f"What predicting the codes costs, test {_samples(table)} of {data}"
    )


def pursuit(table: pd.DataFrame, pursued: pd.DataFrame, data: str) -> Figure:
    """Each linear family twice: its codes, and pursuit with as many atoms as its own codes have.

    Its codes are those by inference, but of sparse autoencoders, which have none.
    """
    inferred = table.groupby("family")["codes"].transform(lambda ways: "inference" in set(ways))
    codes = table[~inferred | (table["codes"] == "inference")]
    ways = {"codes of the model": codes, "OMP, same dictionary": pursued}
    title = f"Codes and matching pursuit, same dictionary, test {_samples(table)} of {data}"
    return _two_ways(families_in_order(pursued["family"]), ways, title)


def _two_ways(families: list[str], ways: dict[str, pd.DataFrame], title: str) -> Figure:
    """A panel for each family, with a curve for each way of finding codes."""
    columns = min(len(families), 3)
    rows = -(-len(families) // columns)
    width = max(2.9 * columns + 0.4, 7.2)  # At least that of the title.
    figure = Figure(figsize=(width, 2.5 * rows + 0.5), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for place in range(rows * columns):
        grid.flat[place].set_visible(place < len(families))
        if place + columns >= len(families):  # The lowest of its column.
            grid.flat[place].tick_params(labelbottom=True)
            grid.flat[place].set_xlabel("zeros (%)", fontsize=9)
    styles = dict(zip(ways, ("-", ":")))
    for axes, family in zip(grid.flat, families):
        colour = family_style(family)["color"]
        for way, table in ways.items():
            chosen = table[table["family"] == family]
            _curve(axes, chosen, color=colour, linestyle=styles[way], marker="o")
        axes.set_title(family_name(family), fontsize=9)
        tidy(axes)
    for way, style in styles.items():
        grid[0, 0].plot([], [], color="0.3", linestyle=style, marker="o", markersize=4, label=way)
    legend_below(figure, len(ways))
    figure.supylabel(quality_of(next(iter(ways.values()))).label, fontsize=9)
    figure.suptitle(f"{title}\n{OVER_SEEDS}, both ways", fontsize=10)
    return figure
