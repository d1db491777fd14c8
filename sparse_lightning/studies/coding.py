"""Samples, codes and reconstructions of a whole split, or its first so many samples."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from sparse_lightning.data.batch import Batch
from sparse_lightning.data.module import SplitDataModule
from sparse_lightning.data.pictures import picture_shape
from sparse_lightning.errors import CheckpointError, SettingError
from sparse_lightning.inputs import at_least_float32
from sparse_lightning.metrics import ExplainedVariance, ImagePSNR
from sparse_lightning.model import SparseAutoencoder


def batches(data: SplitDataModule, split: str, count: int | None = None) -> Iterator[Batch]:
    """The first ``count`` samples of a split (None: all), in order, as mini-batches.

    They are of equal size, as near to ``data.batch_size`` as that allows: a last batch of a few
    samples would have a variance of its own.
    """
    samples = data.splits[split]
    count = len(samples) if count is None else min(count, len(samples))
    for rows in np.array_split(np.arange(count), max(1, round(count / data.batch_size))):
        yield samples.__getitems__(rows.tolist())


@torch.no_grad()
def codes_of(model: SparseAutoencoder, inputs: Tensor) -> Tensor:
    """The family's own codes (n, l) of inputs (n, d).

    Raises:
        CheckpointError: codes that are NaN or infinite, as those of a model that diverged.
    """
    codes = at_least_float32(model.encode(inputs))
    if not torch.isfinite(codes).all():
        raise CheckpointError(
            f"A model of the family {model.family} gives codes that are NaN or infinite, as one "
            "that diverged does: leave it out by checkpoint=, runs= or where."
        )
    return codes


def all_codes(
    model: SparseAutoencoder, data: SplitDataModule, split: str, count: int | None = None
) -> np.ndarray:
    """The family's own codes of a split, (n, l)."""
    found = [codes_of(model, batch.inputs) for batch in batches(data, split, count)]
    return torch.cat(found).numpy()


def largest_codes(codes: np.ndarray) -> Tensor:
    """The code of each component that is largest in magnitude among (n, l), (l,).

    Atoms are drawn at it. A component that is never active is drawn at 1, to see what it would
    draw.
    """
    largest = torch.from_numpy(codes[np.abs(codes).argmax(0), np.arange(codes.shape[1])])
    return torch.where(largest != 0, largest, 1.0)


def all_inputs(data: SplitDataModule, split: str, count: int | None = None) -> np.ndarray:
    """The standardised inputs of a split, (n, d)."""
    return torch.cat([batch.inputs for batch in batches(data, split, count)]).numpy()


def all_labels(data: SplitDataModule, split: str) -> np.ndarray:
    """The labels of a split, (n,).

    Raises:
        SettingError: data without labels.
    """
    found = [batch.labels for batch in batches(data, split)]
    if found[0] is None:
        raise SettingError(
            f"study=low_data needs labels, and {data.title} has none: use models of data=mnist, or "
            "name them by data.labels= beside the other settings of data=arrays."
        )
    return torch.cat(found).numpy()


class ReconstructionQuality:
    """PSNR of reconstructions of images; R² and relative error of those of other inputs.

    Args:
        data: whose samples are rebuilt.
    """

    def __init__(self, data: SplitDataModule) -> None:
        self.psnr, self.explained = ImagePSNR(), ExplainedVariance(data.input_dim)
        self.explained.reference = data.training_mean
        if data.training_mean is None and not next(batches(data, "test", 1)).is_of_images:
            self.explained.reference = _mean(data)

    def update(self, batch: Batch, rebuilt: Tensor) -> None:
        """Take reconstructions (n, d) of a batch into account."""
        errors = rebuilt - batch.inputs
        if batch.is_of_images:
            self.psnr.update(batch.squared_errors(errors))
        else:
            self.explained.update(batch.inputs, errors.double().square().sum(1))

    def compute(self) -> dict[str, float]:
        """``psnr`` in dB, or ``r2`` and ``relative_error``."""
        used = self.psnr if self.psnr.update_called else self.explained
        return {name: float(value) for name, value in used.compute().items()}


@functools.lru_cache(maxsize=4)
def _mean(data: SplitDataModule) -> Tensor:
    """Mean of the training inputs, (d,)."""
    count, total = 0, 0.0
    for batch in batches(data, "train"):
        count, total = count + len(batch.inputs), total + batch.inputs.double().sum(0)
    return total / count


def require_images(data: SplitDataModule, study: str, grey: bool = False) -> None:
    """Raise `SettingError` unless a study's data are images, or grey images."""
    if grey and data.image_shape is not None and len(picture_shape(data.image_shape)) > 2:
        raise SettingError(
            f"study={study} needs grey images, and those of {data.title} have the shape "
            f"{data.image_shape}: train on grey ones, as with data.channels=grey."
        )
    if data.image_shape is None or not next(batches(data, "test", 1)).is_of_images:
        raise SettingError(
            f"study={study} needs images, and {data.title} has none: set data.image_shape in "
            "training where rows are images, or choose study=regret or study=ablation."
        )


def fingerprint(data: SplitDataModule) -> str:
    """Stands for the samples of a data set: sizes, and the first, middle and last of each split."""
    content, scales = hashlib.sha256(), []
    for split, samples in data.splits.items():
        size = len(samples)
        some = samples.__getitems__([0, size // 2, size - 1])
        content.update(f"{split} {size} {data.batch_size}".encode())
        content.update(some.inputs.contiguous().numpy().tobytes())
        scales += [None if t is None else t.tolist() for t in (some.scale, some.shift)]
    # Of files of one's own all that stands for their contents, and how they are measured.
    if hasattr(data, "contents"):
        content.update(str([data.contents, data.pixel_range, data.image_shape]).encode())
    elif not type(data).__module__.startswith("sparse_lightning."):
        content.update(f"{data.fingerprint()} {scales}".encode())
    return content.hexdigest()
