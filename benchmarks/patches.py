"""Patches per second, to disk, against making one at a time: ``python -m benchmarks.patches``.

Builds patches of a folder of images (``--root``; without it the images of scikit-image), 20 of each
image, from opening the files to arrays on disk. The other pipeline opens an image with Pillow,
resizes it, crops it once, makes it grey, standardises and filters it; it writes nothing, and takes
whatever crop comes. Both take turns.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import skimage
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from PIL import Image
from torch import Tensor
from torch.nn.functional import conv2d
from torchvision.transforms.v2 import functional

from benchmarks.problems import settings
from benchmarks.timing import machine, median_ratio, parser, show

IMAGES = (".jpg", ".jpeg", ".png")


def build(root: Path, total: int) -> float:
    """Patches per second of a whole build."""
    held_out = total // 12
    with tempfile.TemporaryDirectory() as cache, contextlib.redirect_stderr(io.StringIO()):
        data = instantiate(
            settings("data=imagenet_patches").data,
            root=root,
            cache_dir=cache,
            num_train=total - 2 * held_out,
            num_val=held_out,
            num_test=held_out,
        )
        began = time.perf_counter()
        data.prepare_data()
        return total / (time.perf_counter() - began)


def one_at_a_time(paths: list[Path], number: int, recipe: DictConfig) -> float:
    """Patches per second of the plain pipeline."""
    generator = random.Random(0)
    began = time.perf_counter()
    for _ in range(number):
        _one_patch(generator.choice(paths), recipe, generator)
    return number / (time.perf_counter() - began)


def _one_patch(path: Path, recipe: DictConfig, generator: random.Random) -> Tensor:
    with Image.open(path) as file:
        image = functional.resize(file.convert("RGB"), [recipe.shorter_side])
    size = recipe.patch_size + 2 * (recipe.kernel_size - 1)  # the filter is applied twice
    left = generator.randint(0, image.width - size)
    top = generator.randint(0, image.height - size)
    crop = image.crop((left, top, left + size, top + size)).convert("L")
    grey = functional.to_dtype(functional.pil_to_tensor(crop), torch.float32, scale=True)
    return _normalise_contrast((grey[None] - recipe.grey_mean) / recipe.grey_std, recipe)


def _normalise_contrast(images: Tensor, recipe: DictConfig) -> Tensor:
    """Less the local mean, over the local standard deviation."""
    margin = recipe.kernel_size // 2
    offsets = torch.arange(recipe.kernel_size) - margin
    window = torch.exp(-offsets.square() / (2 * recipe.kernel_sigma**2))
    kernel = torch.outer(window, window)
    kernel = (kernel / kernel.sum())[None, None]
    centred = images[..., margin:-margin, margin:-margin] - conv2d(images, kernel)
    deviation = conv2d(centred.square(), kernel).sqrt()
    floor = deviation.mean().clamp_min(1e-4)
    return centred[..., margin:-margin, margin:-margin] / deviation.maximum(floor)


def image_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGES)


def sample_folder(folder: Path) -> Path:
    """A folder that holds the images that scikit-image carries."""
    for path in image_files(Path(skimage.__file__).parent / "data"):
        (folder / path.name).symlink_to(path)
    return folder


def main(words: Sequence[str] | None = None) -> None:
    """Command line."""
    known = parser(__doc__)
    known.add_argument("--root", type=Path, help="folder of images; none: scikit-image's")
    known.add_argument("--crops", type=int, default=20, help="patches of each image")
    known.add_argument("--plain", type=int, default=200, help="patches made one at a time")
    known.add_argument("--repeats", type=int, default=5)
    given = known.parse_args(words)
    if given.quick:
        given.crops, given.plain, given.repeats = 4, 5, 1
    with tempfile.TemporaryDirectory() as folder:
        compare(given.root or sample_folder(Path(folder)), given)


def compare(root: Path, given: argparse.Namespace) -> None:
    """Time both in turn and print the table."""
    recipe = settings("data=imagenet_patches").data
    paths = image_files(root)
    # Torch's threads only hold up a pipeline of single small images.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    ours, plain = [], []
    for _ in range(given.repeats):
        plain.append(one_at_a_time(paths, given.plain, recipe))
        ours.append(build(root, len(paths) * given.crops))
    torch.set_num_threads(threads)
    rates = {"this package, to disk": ours, "one at a time": plain}
    show(
        f"{len(paths)} images, {given.crops} patches of each, {given.repeats} turns\n{machine()}",
        ("pipeline",),
        ("patches/s (median)", "slowest", "fastest", "times as fast"),
        [
            [
                name,
                *(f"{value:,.0f}" for value in (statistics.median(found), min(found), max(found))),
                f"{median_ratio(found, plain):.1f}",
            ]
            for name, found in rates.items()
        ],
    )


if __name__ == "__main__":
    main()
