"""Patches per second, end to end, against a pipeline that makes one patch at a time.

``python -m benchmarks.patches [FOLDER]`` builds patches of a folder of images (of the sample
photographs where none is given), 20 of each image, from opening the files to arrays on disk. The
other pipeline, in the same run and turn by turn with the first, opens an image with Pillow, resizes
it, crops it once, makes it grey, standardises and filters it; it writes nothing, and takes whatever
crop comes.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import random
import statistics
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch.nn.functional import conv2d
from torchvision.transforms.v2 import functional

from sparse_lightning.data.patch_pipeline.build import usable_cores
from sparse_lightning.data.patch_pipeline.photographs import find_photographs, sample_photographs
from sparse_lightning.data.patch_pipeline.recipe import Recipe
from sparse_lightning.data.patches import ImagePatches

RECIPE = Recipe()


def build(root: Path | None, num_images: int, crops_per_image: int) -> float:
    """Patches per second of a whole build."""
    total = num_images * crops_per_image
    held_out = total // 12
    with tempfile.TemporaryDirectory() as cache, contextlib.redirect_stderr(io.StringIO()):
        data = ImagePatches(
            root,
            cache,
            num_train=total - 2 * held_out,
            num_val=held_out,
            num_test=held_out,
        )
        began = time.perf_counter()
        data.prepare_data()
        return total / (time.perf_counter() - began)


def one_at_a_time(paths: list[Path], number: int, generator: random.Random) -> float:
    """Patches per second of the plain pipeline."""
    offsets = torch.arange(RECIPE.kernel_size) - RECIPE.kernel_size // 2
    window = torch.exp(-offsets.square() / (2 * RECIPE.kernel_sigma**2))
    kernel = torch.outer(window, window)
    kernel = (kernel / kernel.sum())[None, None]
    began = time.perf_counter()
    for _ in range(number):
        _one_patch(generator.choice(paths), kernel, generator)
    return number / (time.perf_counter() - began)


def _one_patch(path: Path, kernel: torch.Tensor, generator: random.Random) -> torch.Tensor:
    with Image.open(path) as file:
        image = functional.resize(file.convert("RGB"), [RECIPE.shorter_side])
    size = RECIPE.crop_size
    left = generator.randint(0, image.width - size)
    top = generator.randint(0, image.height - size)
    crop = image.crop((left, top, left + size, top + size)).convert("L")
    grey = functional.to_dtype(functional.pil_to_tensor(crop), torch.float32, scale=True)
    standardised = (grey[None] - RECIPE.grey_mean) / RECIPE.grey_std
    margin = RECIPE.kernel_size // 2
    centred = standardised[..., margin:-margin, margin:-margin] - conv2d(standardised, kernel)
    deviation = conv2d(centred.square(), kernel).sqrt()
    floor = deviation.mean().clamp_min(1e-4)
    return centred[..., margin:-margin, margin:-margin] / deviation.maximum(floor)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, help="images; none: sample photographs")
    parser.add_argument("--crops", type=int, default=20, help="patches of each image")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--plain", type=int, default=200, help="patches made one at a time")
    arguments = parser.parse_args()
    root = arguments.folder
    photographs = sample_photographs() if root is None else find_photographs(root)
    paths = [photograph.path for photograph in photographs]
    # Torch's threads only hold up a pipeline of single small images.
    torch.set_num_threads(1)
    generator = random.Random(0)
    ours, plain = [], []
    for _ in range(arguments.repeats):
        plain.append(one_at_a_time(paths, arguments.plain, generator))
        ours.append(build(root, len(paths), arguments.crops))
    show(ours, plain, len(paths), arguments.crops)


def show(ours: list[float], plain: list[float], num_images: int, crops: int) -> None:
    """Print the table of medians and extremes."""
    cores = usable_cores()
    table = Table(
        title=f"{num_images} images, {crops} patches of each, {cores} cores, {len(ours)} repeats"
    )
    table.add_column("pipeline")
    for heading in ("patches/s (median)", "slowest", "fastest"):
        table.add_column(heading, justify="right")
    for name, rates in (("this package, to disk", ours), ("one at a time", plain)):
        values = (statistics.median(rates), min(rates), max(rates))
        table.add_row(name, *(f"{value:,.0f}" for value in values))
    console = Console()
    console.print(table)
    ratio = statistics.median(own / other for own, other in zip(ours, plain))
    console.print(f"{ratio:.1f} times as fast (median of the pairs)", highlight=False)


if __name__ == "__main__":
    main()
