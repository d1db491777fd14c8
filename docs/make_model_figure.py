"""Draw ``docs/images/model.png``: the parts of a model, and what inference and learning do.

python docs/make_model_figure.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from sparse_lightning.files import write_figure

INK, CODE, DECODER, ENCODER = "0.2", "tab:red", "tab:blue", "tab:green"


def box(axes: Axes, x: float, y: float, width: float, height: float, text: str, color: str) -> None:
    """A rounded box with its text in the middle."""
    shape = FancyBboxPatch(
        (x, y), width, height, boxstyle="round,pad=0,rounding_size=0.12", fc="white", ec=color, lw=2
    )
    axes.add_patch(shape)
    axes.text(x + width / 2, y + height / 2, text, ha="center", va="center", color=INK, fontsize=11)


def arrow(axes: Axes, start: tuple, end: tuple, color: str = INK, bend: float = 0.0) -> None:
    """An arrow, bent to one side where it passes something."""
    style = {"arrowstyle": "-|>", "mutation_scale": 16, "shrinkA": 2, "shrinkB": 2}
    bent = f"arc3,rad={bend}"
    axes.add_patch(FancyArrowPatch(start, end, color=color, lw=1.8, connectionstyle=bent, **style))


def bars(axes: Axes, x: float, y: float, width: float, height: float) -> None:
    """A code: a few components are active, the others are 0. It is a drawing, not a measurement."""
    values = np.zeros(16)
    values[[1, 4, 5, 9, 14]] = 0.8, 0.45, 1.0, 0.6, 0.3
    step = width / len(values)
    axes.plot([x, x + width], [y, y], color=INK, lw=1)
    for index, value in enumerate(values):
        axes.bar(x + (index + 0.5) * step, value * height, 0.7 * step, bottom=y, color=CODE)


def draw() -> Figure:
    figure = Figure(figsize=(11, 4.7), layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=(0, 11), ylim=(0, 4.7), aspect="equal")
    axes.axis("off")
    box(axes, 0.1, 2.2, 1.3, 0.9, "input\n$x$", INK)
    box(axes, 2.3, 2.2, 1.7, 0.9, "encoder $\\mathcal{E}$\nLISTA", ENCODER)
    box(axes, 4.9, 2.0, 2.1, 1.6, "", CODE)
    axes.text(5.95, 3.4, "code $z \\geq 0$", ha="center", va="center", color=INK, fontsize=11)
    bars(axes, 5.1, 2.2, 1.7, 0.9)
    box(axes, 7.8, 2.2, 1.7, 0.9, "decoder $D$\nlinear or deep", DECODER)
    axes.text(10.2, 2.65, "$D(z) \\approx x$", ha="center", va="center", color=INK, fontsize=12)
    arrow(axes, (1.4, 2.65), (2.3, 2.65))
    arrow(axes, (4.0, 2.65), (4.9, 2.65), ENCODER)
    arrow(axes, (7.0, 2.65), (7.8, 2.65))
    arrow(axes, (9.5, 2.65), (9.72, 2.65))
    axes.text(4.45, 2.85, "start", ha="center", color=ENCODER, fontsize=10)
    arrow(axes, (5.4, 3.62), (6.5, 3.62), CODE, bend=-0.9)
    axes.text(
        5.95, 4.22, "inference: up to 200 steps of FISTA", ha="center", color=CODE, fontsize=11
    )
    axes.text(
        5.5,
        1.32,
        r"$\frac{1}{d}\|x-D(z)\|^2$   $+\;\lambda\,\|z\|_1$   "
        r"$+\;\frac{\gamma}{l}\|z-\mathcal{E}(x)\|^2$   "
        r"$+\;\beta\,\sum_j\,[(T-\sigma_j)_+]^2$",
        ha="center",
        fontsize=15,
        color=INK,
    )
    for x, text in (
        (3.13, "rebuild the input"),
        (4.36, "few active"),
        (5.7, "near the encoder"),
        (7.6, "every component varies\nover the batch"),
    ):
        axes.text(x, 0.98, text, ha="center", va="top", color="0.4", fontsize=10)
    axes.text(
        5.5,
        0.1,
        "Learning, once per batch: one Adam step brings $D(z)$ nearer to $x$ (decoder), "
        "and $\\mathcal{E}(x)$ nearer to $z$ (encoder).",
        ha="center",
        color=INK,
        fontsize=11,
    )
    return figure


if __name__ == "__main__":
    print(write_figure(draw(), Path(__file__).parent / "images" / "model.png"))
