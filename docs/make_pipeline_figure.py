"""Draw ``docs/images/patches_pipeline.png`` from a photograph that scikit-image carries."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from sparse_lightning.data.patch_pipeline.contrast import local_contrast_normalize
from sparse_lightning.data.patch_pipeline.crops import standardise
from sparse_lightning.data.patch_pipeline.decode import read_grey
from sparse_lightning.data.patch_pipeline.photographs import sample_photographs
from sparse_lightning.data.patch_pipeline.recipe import Recipe
from sparse_lightning.files import write_figure

NAME = "skimage/data/chelsea.png"
TOP, LEFT = 124, 262


def main() -> None:
    """Write the figure and print its path."""
    path = next(photo.path for photo in sample_photographs() if photo.name == NAME)
    recipe = Recipe()
    grey = read_grey(path, recipe.shorter_side, recipe.crop_size)
    height, width = grey.shape
    colour = Image.open(path).convert("RGB").resize((width, height))
    size = recipe.crop_size
    crop = grey[TOP : TOP + size, LEFT : LEFT + size]
    normalized, _, std = local_contrast_normalize(
        standardise(crop, recipe), recipe.kernel_size, recipe.kernel_sigma
    )
    patch = normalized.shape[0]
    figure = Figure(figsize=(4.2 * width / height + 6.3, 3.0), layout="constrained")
    axes = figure.subplots(1, 5, width_ratios=(width / height, width / height, 1, 1, 1))
    axes[0].imshow(colour)
    axes[1].imshow(grey, cmap="gray", vmin=0, vmax=255)
    frame(axes[1], LEFT, TOP, size, "tab:red")
    axes[2].imshow(crop, cmap="gray", vmin=0, vmax=255)
    frame(axes[2], recipe.kernel_size - 1, recipe.kernel_size - 1, patch, "tab:blue")
    for place, tensor in ((axes[3], normalized * std), (axes[4], normalized)):
        values = tensor.numpy()
        largest = float(np.abs(values).max())
        place.imshow(values, cmap="gray", vmin=-largest, vmax=largest)
        place.set_xlabel(f"black −{largest:.1f}, white +{largest:.1f}", fontsize=8)
        frame(place, 0, 0, patch, "tab:blue")
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
    title = "From a photograph to the input of a model (chelsea.png of scikit-image)"
    figure.suptitle(title, fontsize=10)
    print(write_figure(figure, Path(__file__).parent / "images" / "patches_pipeline.png"))


def frame(axes: Axes, left: float, top: float, size: int, colour: str) -> None:
    """Outline a square of pixels; a square has one colour in all panels."""
    axes.add_patch(
        Rectangle((left - 0.5, top - 0.5), size, size, fill=False, edgecolor=colour, linewidth=2)
    )


if __name__ == "__main__":
    main()
