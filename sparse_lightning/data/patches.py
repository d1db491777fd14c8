"""Natural image patches, normalised by their local contrast.

Any folder of photographs is cut into patches once, and the patches are kept; without a folder, the
sample photographs of scikit-image and scikit-learn stand in. See `build` for how they are made.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.panel import Panel

from sparse_lightning.data.batch import Batch, TensorSlices
from sparse_lightning.data.cache import built_once, read_from
from sparse_lightning.data.module import SplitDataModule
from sparse_lightning.data.patch_pipeline.build import build_patches, describe_skipped
from sparse_lightning.data.patch_pipeline.photographs import (
    Photograph,
    find_photographs,
    sample_photographs,
)
from sparse_lightning.data.patch_pipeline.recipe import SPLITS, Recipe
from sparse_lightning.errors import require_count
from sparse_lightning.files import digest

# To be raised with every change of the code that changes the patches it makes.
PIPELINE_VERSION = 2

SAMPLE_TITLE = "sample photographs (not ImageNet)"


class PatchSlices(TensorSlices):
    """Records of patches on disk in, batches out.

    Args:
        records: (m,) of `crops.record_type`, memory-mapped.
        order: (n,) the records to use, in the order of samples.
        grey_mean, grey_std: standardisation of grey in [0, 1].
    """

    def __init__(
        self, records: np.ndarray, order: np.ndarray, grey_mean: float, grey_std: float
    ) -> None:
        self.records, self.order = records, order
        self.grey_mean, self.grey_std = grey_mean, grey_std

    def __len__(self) -> int:
        return len(self.order)

    def __getitems__(self, indices: list[int]) -> Batch:
        # In numpy: too little work for torch's threads, which wait for each other.
        chosen = self.records[self.order[indices]]
        std, mean = (chosen[name].astype(np.float32) for name in ("local_std", "local_mean"))
        scale = std * np.float32(self.grey_std)
        shift = mean * np.float32(self.grey_std) + np.float32(self.grey_mean)
        inputs = chosen["pixels"].astype(np.float32) * np.float32(1 / 255)
        inputs -= shift
        inputs /= scale
        return Batch(*(torch.from_numpy(field) for field in (inputs, scale, shift)))


class ImagePatches(SplitDataModule):
    """Patches of photographs as standardised vectors, in three splits that share no image.

    Args:
        root: folder of images at any depth, or None for sample photographs.
        cache_dir: folder where patches are kept once they are made.
        batch_size: samples in a batch.
        shuffle_seed: fixes the order of training samples in each epoch.
        drop_last: leave out the last, incomplete batch of training.
        num_workers: threads that make patches, None for one on each core; the patches do not
            depend on it.

    The other arguments are those of `recipe.Recipe`.

    Raises:
        SettingError: a setting that cannot work.
    """

    def __init__(
        self,
        root: str | Path | None,
        cache_dir: str | Path,
        batch_size: int = 250,
        num_train: int = 200_000,
        num_val: int = 20_000,
        num_test: int = 20_000,
        patch_size: int = 28,
        crops_per_image: int | None = None,
        threshold: float = 0.5,
        shorter_side: int = 256,
        grey_mean: float = 0.457,
        grey_std: float = 0.259,
        kernel_size: int = 13,
        kernel_sigma: float = 5.0,
        split_seed: int = 0,
        shuffle_seed: int = 0,
        drop_last: bool = False,
        num_workers: int | None = None,
    ) -> None:
        sizes = {"train": num_train, "val": num_val, "test": num_test}
        super().__init__(sizes, batch_size, shuffle_seed, drop_last)
        if num_workers is not None:
            require_count("data.num_workers", num_workers)
        self.recipe = Recipe(
            num_train, num_val, num_test, patch_size, crops_per_image, threshold, shorter_side,
            grey_mean, grey_std, kernel_size, kernel_sigma, split_seed,
        )  # fmt: skip
        self.root = Path(root).expanduser() if root else None
        self.cache_dir = Path(cache_dir)
        self.num_workers = num_workers
        self._folder: Path | None = None

    @property
    def input_dim(self) -> int:
        """Pixels of a patch."""
        return self.recipe.patch_size**2

    @property
    def image_shape(self) -> tuple[int, int]:
        """Height and width of a patch."""
        return self.recipe.patch_size, self.recipe.patch_size

    @property
    def title(self) -> str:
        """What figures say of the data."""
        if self.root is None:
            return SAMPLE_TITLE
        return f"natural image patches (folder '{self.root.name}')"

    @classmethod
    def tags_of(cls, root: str | Path | None) -> list[str]:
        return [] if root else ["sample photographs"]

    def prepare_data(self) -> None:
        """Make the patches, unless they have been made before.

        Raises:
            DataError: images that are missing or too few, or a cache that cannot be written.
        """
        if self._folder is not None:
            return  # Lightning asks before training and again before testing.
        if self.root is None:
            _warn_of_samples()
        photographs = self._photographs()
        source = "null" if self.root is None else str(self.root)

        def build(progress: Path, result: Path) -> None:
            build_patches(photographs, self.recipe, source, self.num_workers, progress, result)

        self._folder = built_once(self.cache_dir, self.key(photographs), build)
        skipped = self._description()["skipped"]
        if skipped:
            # Not by rich, which takes brackets in the name of a file for markup.
            print(f"data.root={source}: {describe_skipped(skipped)}.", file=sys.stderr)

    def _photographs(self) -> list[Photograph]:
        return sample_photographs() if self.root is None else find_photographs(self.root)

    def key(self, photographs: list[Photograph]) -> str:
        """A name for the patches that these files and settings give."""
        files = [(photo.name, photo.size, photo.changed) for photo in photographs]
        versions = {name: version(name) for name in ("torch", "pillow")}
        # Files of two folders may have equal names, sizes and times.
        place = None if self.root is None else str(self.root.resolve())
        return digest([PIPELINE_VERSION, asdict(self.recipe), versions, place, files])

    def setup(self, stage: str | None = None) -> None:
        if self.splits:
            return
        if self._folder is None:
            self._folder = self.cache_dir / self.key(self._photographs())
        for split in SPLITS:
            records = self._records(split)
            generator = torch.Generator().manual_seed(self.recipe.split_seed)
            order = torch.randperm(len(records), generator=generator).numpy()
            self.splits[split] = PatchSlices(
                records,
                order[: self.recipe.number(split)],
                self.recipe.grey_mean,
                self.recipe.grey_std,
            )

    def _records(self, split: str) -> np.ndarray:
        path = self._folder / f"{split}.npy"
        with read_from(self._folder):
            # A plain view, because each slice of a memmap is a slow object of its own.
            return np.load(path, mmap_mode="r", allow_pickle=False).view(np.ndarray)

    def _description(self) -> dict:
        with read_from(self._folder):
            return json.loads((self._folder / "images.json").read_text())

    def images(self, split: str) -> list[str]:
        """Name of the image that each patch of a split is from, in the order of samples."""
        names, data = self._description()["images"][split], self.splits[split]
        return [names[index] for index in data.records["image"][data.order]]


def _warn_of_samples() -> None:
    text = (
        "These patches are cut from SAMPLE PHOTOGRAPHS that scikit-image and scikit-learn carry, "
        "NOT from ImageNet: a dozen images, for trying things out. Set data.root, or the "
        "environment variable IMAGENET_DIR, to a folder of photographs for results."
    )
    Console(stderr=True).print(Panel(text, title="WARNING", style="bold yellow"))
