"""Images of a folder as vectors, whole or in random patches, grey or in colour.

The images are decoded once, as those of natural image patches are, and kept as an array of bytes,
one row for an image or patch; what follows is that of `arrays`. There is no contrast normalisation.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from sparse_lightning.data.array_pipeline.rows import Source
from sparse_lightning.data.arrays import Arrays
from sparse_lightning.data.cache import built_once, read_from, require_room
from sparse_lightning.data.npy_writer import write_npy
from sparse_lightning.data.patch_pipeline.build import describe_skipped, workers
from sparse_lightning.data.patch_pipeline.crops import random_crops, seeded_generator
from sparse_lightning.data.patch_pipeline.decode import UnusableImage, read_image
from sparse_lightning.data.patch_pipeline.photographs import Photograph, copies, find_photographs
from sparse_lightning.errors import DataError, SettingError, require_count
from sparse_lightning.files import digest, write_json

MODES = {"rgb": "RGB", "grey": "L"}
WHOLE, PATCH = "whole", "patch"
IMAGES_FILE = "images.json"
# To be raised with every change of the code that changes the pixels it makes.
VERSION = 1


class ImageFolder(Arrays):
    """Images of a folder, in three splits that share no image.

    Args:
        root: folder of images at any depth.
        size: side of a square in pixels.
        channels: ``rgb`` or ``grey``.
        crop: ``whole``: the shorter side becomes ``size``, and the middle is cut out; ``patch``:
            squares at random places of the image at ``shorter_side``.
        shorter_side: pixels to which an image's shorter side is resized before patches are cut;
            None: twice ``size``.
        crops_per_image: patches cut from each image.
        num_workers: threads that decode, None for one on each core.

    The class of an image is the folder in ``root`` that it is in, at any depth. Where images are in
    ``root`` itself, or in a single folder, they have none.

    The other arguments are those of `Arrays`. Files that cannot be used are passed over and named.

    Raises:
        SettingError: a setting that cannot work.
    """

    setting = "data.root"
    are_given = False

    def __init__(
        self,
        root: str | Path | None,
        cache_dir: str | Path,
        size: int = 32,
        channels: str = "rgb",
        crop: str = WHOLE,
        shorter_side: int | None = None,
        crops_per_image: int = 16,
        val_share: float = 0.1,
        test_share: float = 0.1,
        num_train: int | None = None,
        num_val: int | None = None,
        num_test: int | None = None,
        standardise: str = "global",
        batch_size: int = 250,
        split_seed: int = 0,
        shuffle_seed: int = 0,
        drop_last: bool = False,
        num_workers: int | None = None,
    ) -> None:
        if root is None:
            raise SettingError("data.root=null: set data.root to a folder of images.")
        for name, value in (("size", size), ("crops_per_image", crops_per_image)):
            require_count(f"data.{name}", value)
        if size < 2:
            raise SettingError(f"data.size={size} must be at least 2.")
        if channels not in MODES:
            raise SettingError(f"data.channels={channels} must be {' or '.join(MODES)}.")
        if crop not in (WHOLE, PATCH):
            raise SettingError(f"data.crop={crop} must be {WHOLE} or {PATCH}.")
        side = size if crop == WHOLE else (2 * size if shorter_side is None else shorter_side)
        if side < size:
            raise SettingError(f"data.shorter_side={side} must be at least data.size={size}.")
        if num_workers is not None:
            require_count("data.num_workers", num_workers)
        super().__init__(
            root, cache_dir, val_share=val_share, test_share=test_share, num_train=num_train,
            num_val=num_val, num_test=num_test, standardise=standardise,
            image_shape=[3 if channels == "rgb" else 1, size, size], batch_size=batch_size,
            split_seed=split_seed, shuffle_seed=shuffle_seed, drop_last=drop_last,
            # Patches of one image go to one split.
            groups="images" if crop == PATCH else None,
        )  # fmt: skip
        self.root, self.size = Path(root).expanduser(), size
        self.mode, self.shorter_side = MODES[channels], side
        self.crops = crops_per_image if crop == PATCH else None
        self.num_workers = num_workers
        self._folder: Path | None = None

    @property
    def input_dim(self) -> int:
        """Pixels of a square, times its channels."""
        return int(np.prod(self.image_shape))

    @property
    def title(self) -> str:
        """What figures say of the data."""
        return f"image folder '{self.root.resolve().name}'"

    @cached_property
    def source(self) -> Source:
        """The squares of all images, looked at."""
        return Source.open(self.setting, self._made() / "images.npy", self.choice)

    def _groups(self) -> np.ndarray:
        with read_from(self._made()):
            return np.load(self._made() / "image_of_row.npy", allow_pickle=False)

    def _labels(self) -> dict[str, Tensor]:
        with read_from(self._made()):
            names = json.loads((self._made() / IMAGES_FILE).read_text())["images"]
            of_row = np.load(self._made() / "image_of_row.npy", allow_pickle=False)
        parts = [Path(name).parts for name in names]
        classes = [path[0] if len(path) > 1 else "" for path in parts]
        if "" in classes or len(set(classes)) < 2:
            return {}
        numbers = np.unique(classes, return_inverse=True)[1].astype(np.int64)
        return {"train": torch.from_numpy(numbers[of_row])}

    def _made(self) -> Path:
        """The folder of decoded images, made now unless it is there."""
        if self._folder is None:
            photographs = find_photographs(self.root)
            self._folder = built_once(
                self.cache_dir,
                f"images-{self._key(photographs)}",
                lambda _, result: self._build(photographs, result),
            )
        return self._folder

    def _key(self, photographs: list[Photograph]) -> str:
        files = [(photo.name, photo.size, photo.changed) for photo in photographs]
        versions = {name: version(name) for name in ("torch", "pillow")}
        # Whole images are those of any seed, and are called as those of the seed 0.
        seed = 0 if self.crops is None else self.split_seed
        recipe = [self.mode, self.size, self.shorter_side, self.crops, seed]
        # Files of two folders may have equal names, sizes and times.
        return digest([VERSION, recipe, versions, str(self.root.resolve()), files])

    def _build(self, photographs: list[Photograph], folder: Path) -> None:
        """Write ``images.npy`` (n, c, h, w), ``image_of_row.npy`` (n,) and ``images.json``."""
        require_room(folder, len(photographs) * (self.crops or 1) * self.input_dim)
        repeated = copies(photographs, photographs)
        skipped = {name: f"is a copy of {other}" for name, other in repeated.items()}
        photographs = [photo for photo in photographs if photo.name not in skipped]
        names, images = [], []

        def squares() -> Iterator[np.ndarray]:
            for photograph, result in self._decoded(photographs):
                if isinstance(result, str):
                    skipped[photograph.name] = result
                    continue
                images.extend([len(names)] * len(result))
                names.append(photograph.name)
                yield result

        write_npy(folder / "images.npy", np.dtype(np.uint8), self.image_shape, squares())
        if len(names) < 3:
            told = f" ({describe_skipped(skipped)})" if skipped else ""
            raise DataError(
                f"data.root={self.root} has {len(names)} usable images{told}, and at least 3 are "
                "needed (training, validation and test share none): add images."
            )
        if skipped:
            print(f"data.root={self.root}: {describe_skipped(skipped)}.", file=sys.stderr)
        np.save(folder / "image_of_row.npy", np.array(images, np.int64))
        write_json(folder / IMAGES_FILE, {"images": names, "skipped": skipped})

    def _decoded(
        self, photographs: list[Photograph]
    ) -> Iterator[tuple[Photograph, np.ndarray | str]]:
        """Squares (n, c, h, w) of each image in order, or why there are none."""
        with workers(self.num_workers) as pool:
            found = zip(photographs, pool(partial(_squares, self), photographs))
            yield from tqdm(found, "Decoding", len(photographs), unit=" images")


def _squares(data: ImageFolder, photograph: Photograph) -> np.ndarray | str:
    size = data.size
    try:
        image = read_image(photograph.path, data.shorter_side, size, data.mode).numpy()
    except UnusableImage as error:
        return str(error)
    if data.crops is None:
        top, left = ((side - size) // 2 for side in image.shape[1:])
        return np.ascontiguousarray(image[None, :, top : top + size, left : left + size])
    generator = seeded_generator(data.split_seed, photograph.name)
    # Channels last in the view of all squares, which are indexed by their place.
    windows = np.lib.stride_tricks.sliding_window_view(image, (size, size), axis=(1, 2))
    return np.ascontiguousarray(
        random_crops(windows.transpose(1, 2, 0, 3, 4), data.crops, generator)
    )
