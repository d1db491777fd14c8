"""How the code components are spread, as histograms. Arrays in, matplotlib Figure out."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator


def unit_histograms(deviation: np.ndarray, activity: np.ndarray, threshold: float, title: str):
    """How spread the code components are, and how often active.

    Args:
        deviation: (l,) standard deviation of each component over a set.
        activity: (l,) fraction of samples in which it is active.
        threshold: T, drawn as a line.
        title: of the figure.
    """
    figure = Figure(figsize=(8.2, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.hist(deviation, bins=_bins(deviation, threshold), color="tab:blue")
    left.axvline(threshold, color="black", linestyle="--", label=f"threshold T = {threshold:g}")
    left.set(xlabel="standard deviation of a code component", ylabel="code components")
    # Over the axes: looking for the best place inside takes matplotlib long on a busy machine.
    left.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    right.hist(100 * activity, bins=_bins(100 * activity), color="tab:orange")
    right.set(xlabel="samples in which a component is active (%)", ylabel="code components")
    for axes in (left, right):
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize=10)
    return figure


def _bins(values: np.ndarray, include: float = 0.0) -> np.ndarray:
    return np.linspace(0, max(values.max(), include, 1e-6) * 1.02, 33)
