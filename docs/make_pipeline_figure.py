"""Draw ``docs/images/patches_pipeline.png`` from a photograph that scikit-image carries."""

from __future__ import annotations

from pathlib import Path

from sparse_lightning.data.patch_pipeline.photographs import sample_photographs
from sparse_lightning.data.patch_pipeline.stages import patch_stages
from sparse_lightning.figures.patch_pipeline import patch_pipeline
from sparse_lightning.files import write_figure

NAME = "skimage/data/chelsea.png"
TOP, LEFT = 124, 262


def main() -> None:
    """Write the figure and print its path."""
    path = next(photo.path for photo in sample_photographs() if photo.name == NAME)
    title = "From a photograph to the input of a model (chelsea.png of scikit-image)"
    figure = patch_pipeline(patch_stages(path, TOP, LEFT), title)
    print(write_figure(figure, Path(__file__).parent / "images" / "patches_pipeline.png"))


if __name__ == "__main__":
    main()
