"""Batches as slices of tensors that are in memory whole.

A data set of small images fits in memory. Fetching a batch of it is one indexing operation per
tensor, where a data set of single samples would make hundreds and collate them again.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, SequentialSampler

from sparse_lightning.errors import SettingError


class Batch(NamedTuple):
    """One mini-batch.

    Attributes:
        inputs: (n, d), standardised.
        scale, shift: pixels on the scale of [0, 1] are ``inputs * scale + shift``; scalars, (1, d)
            where each pixel has statistics of its own, or (n, d) where each sample has been
            normalised by its own local statistics. None where inputs are no images.
        labels: (n,), or None where the data have none.
    """

    inputs: Tensor
    scale: Tensor | None = None
    shift: Tensor | None = None
    labels: Tensor | None = None

    @property
    def is_of_images(self) -> bool:
        """Whether the inputs are images, whose reconstructions have a PSNR."""
        return self.scale is not None

    def to_pixels(self, standardised: Tensor) -> Tensor:
        """Undo the normalisation of this batch for inputs or reconstructions of them, (n, d)."""
        if self.scale is None:
            return standardised
        return torch.addcmul(self.shift, standardised, self.scale)

    def squared_errors(self, standardised: Tensor, mean_squares: Tensor | None = None) -> Tensor:
        """Mean squared errors (n,) of pixels, of errors (n, d) on the scale of ``inputs``.

        Args:
            standardised: the errors.
            mean_squares: of them, (n,), where they are already known.
        """
        if mean_squares is not None and self.scale.ndim == 0:
            return mean_squares * self.scale**2
        pixels = standardised * self.scale
        return torch.linalg.vecdot(pixels, pixels) / pixels.shape[1]


class TensorSlices(Dataset[Batch]):
    """Whole tensors in, batches out; the arguments are the fields of `Batch`, over all samples."""

    def __init__(
        self,
        inputs: Tensor,
        scale: Tensor | None = None,
        shift: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> None:
        self.tensors = Batch(inputs, scale, shift, labels)

    def __len__(self) -> int:
        return len(self.tensors.inputs)

    def __getitem__(self, index: int) -> Batch:
        return self.__getitems__([index])

    def _has_rows(self, field: Tensor | None) -> bool:
        return field is not None and field.ndim > 0 and len(field) == len(self)

    def __getitems__(self, indices: list[int]) -> Batch:
        rows = torch.as_tensor(indices)
        return Batch(*(field[rows] if self._has_rows(field) else field for field in self.tensors))


class EpochShuffle(Sampler[int]):
    """A new order each epoch that depends on the seed and the epoch alone.

    The order is a full shuffle: whatever order the samples are in, each batch is a random draw
    without replacement. A resumed run therefore sees the batches that the uninterrupted one would
    have seen. Lightning calls ``set_epoch``.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.seed, self.epoch = size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator()
        # Far enough apart that no run's epochs reach the orders of the next seed.
        generator.manual_seed((1_000_003 * self.seed + self.epoch) % 2**63)
        # Piece by piece: a list of Python's numbers takes five times the memory of the tensor.
        for part in self.order(generator).split(2**16):
            yield from part.tolist()

    def order(self, generator: torch.Generator) -> Tensor:
        """Numbers of the samples, (size,)."""
        return torch.randperm(self.size, generator=generator)


class ShuffleOfClasses(EpochShuffle):
    """Batches of one class each, as far as the class goes, in a new order each epoch.

    The worst case for what is estimated over a batch, such as the variance of codes.

    Args:
        labels: the class of each sample, (size,).
        batch_size: samples in a batch, of all processes together.
        seed: of the orders.
    """

    def __init__(self, labels: Tensor, batch_size: int, seed: int) -> None:
        super().__init__(len(labels), seed)
        self.labels, self.batch_size = labels, batch_size

    def order(self, generator: torch.Generator) -> Tensor:
        shuffled = super().order(generator)
        by_class = shuffled[self.labels[shuffled].argsort(stable=True)]
        num_whole = self.size // self.batch_size
        whole = by_class[: num_whole * self.batch_size].view(num_whole, self.batch_size)
        whole = whole[torch.randperm(num_whole, generator=generator)]
        return torch.cat([whole.flatten(), by_class[num_whole * self.batch_size :]])


class Share(Sampler[int]):
    """Every ``count``-th sample of an order, from ``rank`` on.

    Batch k of all shares together is batch k of the whole order.
    """

    def __init__(self, order: Sampler[int], rank: int, count: int) -> None:
        self.order, self.rank, self.count = order, rank, count

    def set_epoch(self, epoch: int) -> None:
        if isinstance(self.order, EpochShuffle):
            self.order.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.order) // self.count

    def __iter__(self) -> Iterator[int]:
        return islice(self.order, self.rank, None, self.count)


class ResumableLoader(DataLoader[Batch]):
    """A DataLoader that goes on inside an epoch, behind the batches that a checkpoint counts.

    The order of an epoch must follow from the epoch alone, as that of `EpochShuffle` does.
    Lightning keeps the state in checkpoints, and loads it before an interrupted epoch goes on.
    """

    _taken, _first = 0, 0

    def state_dict(self) -> dict[str, int]:
        """How many batches of the epoch have been taken, and how many the epoch has."""
        return {"taken": self._taken, "batches": len(self)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Begin the next iteration behind the batches that were taken.

        Raises:
            SettingError: the epoch had another number of batches.
        """
        if state["batches"] != len(self):
            raise SettingError(
                f"data.batch_size={self.batch_size} cuts an epoch into {len(self)} batches, and "
                f"the checkpoint is from inside an epoch of {state['batches']}: set batch size and "
                "data as they were until that epoch has ended."
            )
        self._first = state["taken"]

    def __iter__(self) -> Iterator[Batch]:
        # Not before the first batch is asked for: the samplers know their epoch by then.
        first, self._first = self._first, 0
        self._taken = first
        for batch in super().__iter__() if first == 0 else self._behind(first):
            self._taken += 1
            yield batch

    def _behind(self, first: int) -> DataLoader[Batch]:
        """The epoch less its first batches, which are not loaded."""
        return DataLoader(
            self.dataset,
            batch_sampler=islice(self.batch_sampler, first, None),
            collate_fn=self.collate_fn,
            num_workers=self.num_workers,
            pin_memory=self.pin_memory,
            generator=self.generator,
        )


def slice_loader(
    data: TensorSlices,
    batch_size: int,
    shuffle_seed: int | None = None,
    drop_last: bool = False,
    rank: int = 0,
    processes: int = 1,
    classes: Tensor | None = None,
) -> ResumableLoader:
    """A loader of `Batch`; in order, or shuffled anew each epoch with a seed.

    Args:
        data: all samples.
        batch_size: samples in a batch, of all processes together.
        shuffle_seed: None for the order of ``data``.
        drop_last: leave out the last, incomplete batch.
        rank, processes: which of how many shares of each batch is loaded. ``processes`` divides
            ``batch_size`` and the number of samples.
        classes: of the samples, where shuffled batches are to be of one class each.
    """
    order = SequentialSampler(data)
    if shuffle_seed is not None and classes is not None:
        order = ShuffleOfClasses(classes, batch_size, shuffle_seed)
    elif shuffle_seed is not None:
        order = EpochShuffle(len(data), shuffle_seed)
    return ResumableLoader(
        data,
        batch_size=batch_size // processes,
        sampler=order if processes == 1 else Share(order, rank, processes),
        collate_fn=_as_it_is,
        drop_last=drop_last,
        pin_memory=torch.cuda.is_available(),
        # Each iteration draws a seed, which must not come from the generator of everything else.
        generator=torch.Generator(),
    )


def _as_it_is(batch: Batch) -> Batch:
    return batch


def require_no_single_sample(sizes: dict[str, int], batch_size: int, drop_last: bool) -> None:
    """Raise where a last batch would hold one sample, which has no variance.

    Args:
        sizes: number of samples by the name of its setting.
        batch_size: samples in a batch.
        drop_last: whether the last incomplete batch of ``data.num_train`` is left out.
    """
    for setting, size in sizes.items():
        if drop_last and setting == "data.num_train":
            continue
        if batch_size == 1 or size % batch_size == 1:
            raise SettingError(
                f"{setting}={size} with data.batch_size={batch_size} makes a batch of 1 sample, "
                "which has no variance: change either of them, or set "
                "model.energy.variance_weight=0."
            )
