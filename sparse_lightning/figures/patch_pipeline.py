"""A figure of how a photograph becomes a patch. Arrays in, matplotlib Figure out."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from sparse_lightning.data.patch_pipeline.stages import PatchStages


def patch_pipeline(stages: PatchStages, title: str) -> Figure:
    """The five stages from a photograph to the input of a model, left to right.

    Args:
        stages: of one patch.
        title: which photograph it is.
    """
    wide = stages.image.shape[1] / stages.image.shape[0]
    figure = Figure(figsize=(4.2 * wide + 6.3, 3.0), layout="constrained")
    axes = figure.subplots(1, 5, width_ratios=(wide, wide, 1, 1, 1))
    size, patch = stages.crop.shape[0], stages.normalized.shape[0]
    axes[0].imshow(stages.image)
    axes[1].imshow(stages.grey, cmap="gray", vmin=0, vmax=1)
    _frame(axes[1], stages.left, stages.top, size, "tab:red")
    axes[2].imshow(stages.crop, cmap="gray", vmin=0, vmax=1)
    _frame(axes[2], stages.margin, stages.margin, patch, "tab:blue")
    for place, values in ((axes[3], stages.centred), (axes[4], stages.normalized)):
        largest = float(np.abs(values).max())
        place.imshow(values, cmap="gray", vmin=-largest, vmax=largest)
        place.set_xlabel(f"black −{largest:.1f}, white +{largest:.1f}", fontsize=8)
        _frame(place, 0, 0, patch, "tab:blue")
    height, width = stages.grey.shape
    headings = (
        f"1. image, resized\n{width}×{height}",
        f"2. grey\n{width}×{height}",
        f"3. random crop\n{size}×{size}",
        f"4. local mean removed\n{patch}×{patch}",
        f"5. divided by local std\n{patch}×{patch}",
    )
    for place, heading in zip(axes, headings):
        place.set_title(heading, fontsize=9)
        place.set(xticks=[], yticks=[])
    figure.suptitle(title, fontsize=10)
    return figure


def _frame(axes: Axes, left: float, top: float, size: int, colour: str) -> None:
    """Outline a square of pixels; the same square has the same colour in each panel."""
    axes.add_patch(
        Rectangle((left - 0.5, top - 0.5), size, size, fill=False, edgecolor=colour, linewidth=2)
    )
