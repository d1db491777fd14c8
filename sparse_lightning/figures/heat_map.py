"""Atoms of data that are no images, a row each. Arrays in, matplotlib Figure out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

MOST_ATOMS, MOST_NAMES = 64, 48


def atom_heat_map(
    atoms: np.ndarray, activity: np.ndarray, title: str, names: Sequence[str] | None = None
) -> Figure:
    """The atoms that are active most often, on one scale around zero: red positive, blue negative.

    Args:
        atoms: (l, d), in the units of the model's inputs.
        activity: (l,) fraction of samples in which each is active.
        title: of the figure.
        names: of the d columns; None for their numbers.
    """
    order = np.argsort(-activity, kind="stable")[:MOST_ATOMS]
    count, width = len(order), atoms.shape[1]
    figure = Figure(figsize=(8.2, 1.9 + 0.08 * max(count, 24)), layout="constrained")
    axes = figure.subplots()
    # A single value that is far off would leave the others pale.
    most = np.percentile(np.abs(atoms[order]), 99.5) or 1.0
    drawn = axes.imshow(
        atoms[order], cmap="RdBu_r", vmin=-most, vmax=most, aspect="auto", interpolation="nearest"
    )
    figure.colorbar(drawn, label="at the largest code, in units of the inputs", extend="both")
    shown = range(0, width, -(-width // MOST_NAMES))
    told = [str(column) if names is None else names[column] for column in shown]
    axes.set_xticks(shown, told, rotation=90, fontsize=6)
    rows = range(0, count, -(-count // 32))
    axes.set_yticks(rows, [f"{order[row]} ({100 * activity[order[row]]:.0f} %)" for row in rows])
    axes.tick_params(axis="y", labelsize=6)
    of_all = "" if count == len(atoms) else f" {count} of {len(atoms)},"
    axes.set(xlabel="column", ylabel=f"atom,{of_all} and samples in which it is active")
    figure.suptitle(title, fontsize=10)
    return figure
