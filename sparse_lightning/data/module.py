"""What all data modules share: three splits in memory, and loaders that slice them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from sparse_lightning.data.batch import TensorSlices, require_no_single_sample, slice_loader
from sparse_lightning.errors import SettingError, require_count

FINGERPRINT = "fingerprint"
FINGERPRINT_SAMPLES = 2000
# So many are in memory at a time.
FINGERPRINT_PIECE = 50


class SplitDataModule(lightning.LightningDataModule):
    """Base of the data modules; a subclass fills ``splits`` in ``setup``.

    It also says ``input_dim``, ``title`` (what figures call the data), ``image_shape`` where its
    inputs are images, and ``training_mean`` (d,), the mean of its training inputs, where they are
    not.

    Args:
        sizes: number of samples of ``train``, ``val`` and ``test``.
        batch_size: samples in a batch, of all processes together.
        shuffle_seed: fixes the order of training samples in each epoch.
        drop_last: leave out the last, incomplete batch of training.

    Raises:
        SettingError: a size that is no whole number, or below 1.

    Attributes:
        positions: by split, the numbers (n,) of its samples in the file that they come from;
            without the splits that are in the order of their file.
        column_names: of the d values of an input, for figures; None where they have none.
        is_the_same_everywhere: whether ``data.root`` says where the files are, not which.
        sorted_by_class: whether batches of training are of one class each.
    """

    is_the_same_everywhere = False
    sorted_by_class = False
    input_dim: int
    image_shape: tuple[int, ...] | None = None
    column_names: Sequence[str] | None = None
    training_mean: Tensor | None = None
    title: str

    def __init__(
        self, sizes: dict[str, int], batch_size: int, shuffle_seed: int, drop_last: bool
    ) -> None:
        super().__init__()
        counts = {f"data.num_{split}": size for split, size in sizes.items()}
        for setting, size in {"data.batch_size": batch_size, **counts}.items():
            require_count(setting, size)
        self.sizes, self.batch_size = sizes, batch_size
        self.shuffle_seed, self.drop_last = shuffle_seed, drop_last
        self.splits: dict[str, TensorSlices] = {}
        self.positions: dict[str, np.ndarray] = {}
        self._state: dict[str, str] = {}

    def fingerprint(self) -> str:
        """What stands for the contents of the splits, once they are set up.

        Of a large split a fixed choice of samples counts. Other data, other splits and another
        normalisation all show in it; one altered sample of many may not.
        """
        content = hashlib.sha256()
        for name, split in sorted(self.splits.items()):
            last = len(split) - 1
            # In single precision numbers above 2²⁴ are rounded, the last one perhaps past the end.
            rows = torch.linspace(0, last, min(len(split), FINGERPRINT_SAMPLES)).long()
            rows = rows.clamp_max(last)
            content.update(f"{name} {len(split)}".encode())
            for piece in rows.split(FINGERPRINT_PIECE):
                inputs = split.__getitems__(piece.tolist()).inputs
                content.update(inputs.float().contiguous().numpy().tobytes())
        return content.hexdigest()[:20]

    def state_dict(self) -> dict[str, str]:
        """What checkpoints keep of the data."""
        if not self._state and self.splits:
            self._state = {FINGERPRINT: self.fingerprint()}
        return self._state

    @classmethod
    def tags_of(cls, root: str | Path | None) -> list[str]:
        """What a run's record must say of data from there beyond their name."""
        return []

    @property
    def tags(self) -> list[str]:
        """What a run's record must say of these data beyond their name."""
        return self.tags_of(getattr(self, "root", None) or getattr(self, "path", None))

    def require_variance(self) -> None:
        """Raise `SettingError` if any batch would hold a single sample."""
        counts = {f"data.num_{split}": size for split, size in self.sizes.items()}
        require_no_single_sample(counts, self.batch_size, self.drop_last)

    def train_dataloader(self) -> DataLoader:
        return self._loader("train", self.shuffle_seed, self.drop_last)

    def val_dataloader(self) -> DataLoader:
        return self._loader("val")

    def test_dataloader(self) -> DataLoader:
        return self._loader("test")

    def predict_dataloader(self) -> DataLoader:
        return self._loader("test")

    def _loader(
        self, split: str, shuffle_seed: int | None = None, drop_last: bool = False
    ) -> DataLoader:
        """A loader of this process's share of each batch."""
        rank, processes = 0, 1
        if self.trainer is not None:
            rank, processes = self.trainer.global_rank, self.trainer.world_size
        data = self.splits[split]
        # All of them at once: the test split's turn comes after hours.
        sizes = {f"data.num_{name}": len(samples) for name, samples in self.splits.items()}
        for setting, size in {**sizes, "data.batch_size": self.batch_size}.items():
            if size % processes:
                raise SettingError(
                    f"{setting}={size} cannot be shared evenly by the {processes} processes of "
                    f"trainer.devices: make it a multiple of {processes}."
                )
        classes = data.tensors.labels if self.sorted_by_class else None
        return slice_loader(
            data, self.batch_size, shuffle_seed, drop_last, rank, processes, classes
        )
