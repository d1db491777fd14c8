"""One look for all figures: a family has the same name, colour and line everywhere."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

OVER_SEEDS = "bars: one standard deviation over seeds"
NAMES = {
    "sdl": "SDL",
    "vdl": "VDL",
    "wdl": "WDL",
    "do": "DO",
    "none": "no regularisation",
    "l1_sae": "l1 SAE",
    "topk": "TopK SAE",
    "batchtopk": "BatchTopK SAE",
    "jumprelu": "JumpReLU SAE",
}
COLOURS = {
    "sdl": "tab:blue",
    "vdl": "tab:red",
    "wdl": "tab:green",
    "do": "tab:purple",
    "none": "0.35",
    "l1_sae": "tab:olive",
    "topk": "tab:orange",
    "batchtopk": "tab:pink",
    "jumprelu": "tab:cyan",
}
# Families whose encoder keeps k components.
COUNTING = ("topk", "batchtopk")
# Decoders by the end of a family's name, and their markers; without one it is linear.
LINEAR, LINEAR_MARKERS = "", {"": "s", "ln": "D"}
NON_LINEAR_MARKERS = {"nl": "o", "nl2": "^", "nl3": "v", "conv": "P"}


def stem_and_decoder(family: str) -> tuple[str, str]:
    """``vdl`` and ``nl2`` of ``vdl_nl2``; ``topk`` and nothing of ``topk``."""
    stem, _, decoder = family.rpartition("_")
    known = {*LINEAR_MARKERS, *NON_LINEAR_MARKERS}
    return (stem, decoder) if stem and decoder in known else (family, LINEAR)


def family_name(family: str) -> str:
    """What a figure calls a family: ``vdl_nl`` is VDL-NL."""
    stem, decoder = stem_and_decoder(family)
    return NAMES.get(stem, stem) + (f"-{decoder.upper()}" if decoder else "")


def is_non_linear(family: str) -> bool:
    """Whether the decoder has a hidden layer with a relu; the families are named so."""
    return stem_and_decoder(family)[1] in NON_LINEAR_MARKERS


def sparsity_name(family: str, value: float) -> str:
    """How a figure tells the sparsity of a model: ``k = 16`` or ``λ = 0.01``."""
    return f"{sparsity_symbol(family)} = {value:g}"


def sparsity_symbol(family: str) -> str:
    """What a family's curve runs over: ``k`` or ``λ``."""
    return "k" if family in COUNTING else "λ"


def sparsity_label(family: str) -> str:
    """What an axis over `sparsity_symbol` is called."""
    return "active components k" if family in COUNTING else "sparsity weight λ"


def family_style(family: str) -> dict[str, str]:
    """Colour by what prevents collapse; linear decoders dashed, non-linear solid."""
    stem, decoder = stem_and_decoder(family)
    return {
        "color": COLOURS.get(stem, "tab:brown"),
        "linestyle": "-" if decoder in NON_LINEAR_MARKERS else "--",
        "marker": (NON_LINEAR_MARKERS | LINEAR_MARKERS)[decoder],
    }


def families_in_order(families) -> list[str]:
    """Linear first, then non-linear, each in the order of `NAMES`."""
    stems, decoders = list(NAMES), [*LINEAR_MARKERS, *NON_LINEAR_MARKERS]

    def place(family: str) -> tuple[int, int, str]:
        stem, decoder = stem_and_decoder(family)
        rank = stems.index(stem) if stem in NAMES else len(stems)
        # Those of a stem that is not known come last, whatever their decoder.
        return (decoders.index(decoder) if stem in NAMES else len(decoders), rank, family)

    return sorted(set(families), key=place)


def curve_with_bars(
    axes: Axes,
    x: ArrayLike,
    y: ArrayLike,
    *,
    xerr: ArrayLike | None = None,
    yerr: ArrayLike | None = None,
    **style,
) -> None:
    """A curve with error bars; a point whose bar is NaN has none, as of one seed.

    Where no point has one the legend shows none either.
    """
    bars = [None if err is None or np.isnan(err).all() else err for err in (yerr, xerr)]
    common = {"markersize": 4, "capsize": 2, "linewidth": 1.4, "elinewidth": 0.9}
    axes.errorbar(x, y, *bars, **common | style)


def tidy(axes: Axes) -> None:
    """Two spines and a faint grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)


def legend_below(figure: Figure, columns: int) -> None:
    """One legend for all panels of a figure, which stands below them."""
    found = [axes.get_legend_handles_labels() for axes in figure.axes]
    handles = {label: handle for pair in found for handle, label in zip(*pair)}
    style = {"loc": "outside lower center", "fontsize": 8, "handlelength": 3}
    figure.legend(handles.values(), handles, ncols=columns, **style)
