"""One look for all figures: a family has the same name, colour and line everywhere."""

from __future__ import annotations

from matplotlib.axes import Axes

NAMES = {
    "sdl": "SDL",
    "vdl": "VDL",
    "wdl": "WDL",
    "do": "DO",
    "none": "no regularisation",
}
COLOURS = {
    "sdl": "tab:blue",
    "vdl": "tab:red",
    "wdl": "tab:green",
    "do": "tab:purple",
    "none": "0.35",
}


def family_name(family: str) -> str:
    """What a figure calls a family: ``vdl_nl`` is VDL-NL."""
    stem = family.removesuffix("_nl")
    return NAMES.get(stem, stem) + ("-NL" if is_non_linear(family) else "")


def is_non_linear(family: str) -> bool:
    """Whether the decoder has a hidden layer; the families are named so."""
    return family.endswith("_nl")


def family_style(family: str) -> dict[str, str]:
    """Colour by what prevents collapse; linear decoders dashed, non-linear solid."""
    non_linear = is_non_linear(family)
    return {
        "color": COLOURS.get(family.removesuffix("_nl"), "tab:brown"),
        "linestyle": "-" if non_linear else "--",
        "marker": "o" if non_linear else "s",
    }


def families_in_order(families) -> list[str]:
    """Linear first, then non-linear, each in the order of `NAMES`."""
    order = [*NAMES, *(f"{family}_nl" for family in NAMES)]
    return sorted(set(families), key=lambda f: (order.index(f) if f in order else len(order), f))


def tidy(axes: Axes) -> None:
    """Two spines and a faint grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
