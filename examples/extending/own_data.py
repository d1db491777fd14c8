"""Data of your own: images in three .npy files, as one data module.

The base class has the loaders, the shares of several processes, and the fingerprint by which a
resumed run knows its data. What is left is to fill ``splits``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from sparse_lightning import register
from sparse_lightning.data.batch import TensorSlices
from sparse_lightning.data.module import SplitDataModule
from sparse_lightning.errors import DataError

SPLITS = ("train", "val", "test")


@register
class OwnArrays(SplitDataModule):
    """Grey images from ``train.npy``, ``val.npy`` and ``test.npy``, standardised as one.

    Args:
        root: folder of the files; each holds an array (n, height, width) in [0, 1].
        batch_size: samples in a batch.
        shuffle_seed: fixes the order of training samples in each epoch.
        drop_last: leave out the last, incomplete batch of training.
    """

    title = "OwnArrays"

    def __init__(
        self, root: str | Path, batch_size: int = 50, shuffle_seed: int = 0, drop_last: bool = False
    ) -> None:
        self.root = Path(root)
        # Only the shapes are read here; training checks them before it begins.
        shapes = {split: self._load(split).shape for split in SPLITS}
        sizes = {split: shape[0] for split, shape in shapes.items()}
        super().__init__(sizes, batch_size, shuffle_seed, drop_last)
        self.image_shape = shapes["train"][1:]
        self.input_dim = int(np.prod(self.image_shape))

    def _load(self, split: str) -> np.ndarray:
        path = self.root / f"{split}.npy"
        try:
            return np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise DataError(
                f"{path} is no array ({error}): set data.root to its folder."
            ) from error

    def setup(self, stage: str | None = None) -> None:
        if self.splits:
            return
        train = self._load("train")
        mean, std = float(train.mean()), float(train.std())
        for split in SPLITS:
            pixels = torch.tensor(np.array(self._load(split)), dtype=torch.float32).flatten(1)
            # Pixels are inputs * scale + shift.
            scale, shift = torch.tensor(std), torch.tensor(mean)
            self.splits[split] = TensorSlices((pixels - mean) / std, scale, shift)
