"""Inputs are (x − mean) / std, by statistics of the training rows; images know the way back."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from sparse_lightning.data.array_pipeline.fit import white_of
from sparse_lightning.data.array_pipeline.rows import Rows, Source
from sparse_lightning.data.array_pipeline.statistics import ColumnStatistics
from sparse_lightning.data.batch import Batch, TensorSlices
from sparse_lightning.errors import DataError, SettingError

GLOBAL, FEATURE, NONE = "global", "feature", "none"


class ArrayRows(TensorSlices):
    """Rows of a source in, standardised batches out.

    Args:
        rows: all rows.
        order: numbers of those of this split, in the order of its samples.
        mean, std: inputs are (x − mean) / std; one number each, or (d,).
        scale, shift: of `Batch`, where rows are images.
        labels: the number of the class of each of all rows, (n,).
    """

    def __init__(
        self,
        rows: Rows,
        order: np.ndarray,
        mean: np.ndarray,
        std: np.ndarray,
        scale: Tensor | None = None,
        shift: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> None:
        self.rows, self.order = rows, order
        self.mean, self.std = mean.astype(rows.dtype), std.astype(rows.dtype)
        self.scale, self.shift, self.labels = scale, shift, labels

    def __len__(self) -> int:
        return len(self.order)

    def __getitems__(self, indices: list[int]) -> Batch:
        numbers = self.order[indices]
        values = self.rows.gather(numbers)
        values -= self.mean
        values /= self.std
        inputs = torch.from_numpy(values.astype(np.float32, copy=False))
        labels = None if self.labels is None else self.labels[numbers]
        return Batch(inputs, self.scale, self.shift, labels)


def mean_and_std(
    told: str,
    standardise: str,
    statistics: ColumnStatistics,
    names: Sequence[str] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """What rows are standardised by: one number each, (1,), or one for each column, (d,).

    Args:
        told: the setting that names the rows, and its value.
        standardise: ``feature``, ``global`` or ``none``.
        statistics: of the training rows.
        names: of the columns, where they have names.

    Raises:
        DataError: every training row is the same, or a column has no deviation in float64.
    """
    constant = np.flatnonzero(statistics.is_constant)
    if len(constant) == len(statistics.mean):
        raise DataError(
            f"{told} has the same values in every training row: there is nothing to learn. Give "
            "other rows."
        )
    if standardise == NONE:
        return np.zeros(1), np.ones(1)
    if standardise == GLOBAL:
        mean, std = statistics.overall
        if not 0 < std < np.inf:
            raise _out_of_range(told, statistics, names)
        return np.array([mean]), np.array([std])
    if statistics.is_out_of_range.any():
        raise _out_of_range(told, statistics, names)
    if len(constant):
        warnings.warn(
            f"{told} has {len(constant)} columns that are constant in all training rows, the first "
            f"of them {constant[0]} (from 0): these are scaled by 1.",
            stacklevel=2,
        )
    return statistics.mean, np.where(statistics.is_constant, 1.0, statistics.deviation)


def _out_of_range(
    told: str, statistics: ColumnStatistics, names: Sequence[str] | None
) -> DataError:
    """What is said of a standard deviation that float64 cannot hold."""
    wrong = statistics.is_out_of_range
    column = int(wrong.argmax() if wrong.any() else np.abs(statistics.mean).argmax())
    name = f"{column} (from 0)" if names is None else names[column]
    lowest, highest = statistics.lowest[column], statistics.highest[column]
    return DataError(
        f"{told} has values between {lowest:g} and {highest:g} in column {name}, whose squares "
        "are beyond the range of float64: give the column in another unit, or leave it out."
    )


def scale_and_shift(
    image_shape: Sequence[int],
    black_and_white: Sequence[float] | None,
    sources: Iterable[Source],
    statistics: ColumnStatistics,
    mean: np.ndarray,
    std: np.ndarray,
) -> tuple[Tensor, Tensor]:
    """``scale`` and ``shift`` of `Batch`: pixels on the scale of [0, 1] are inputs · scale + shift.

    Args:
        image_shape: of the images that rows are.
        black_and_white: values of pixels; None for those that the type of the rows has.
        sources: all rows.
        statistics: of the training rows, with the least and the largest value of all.
        mean, std: see `mean_and_std`.

    Raises:
        SettingError: values that are darker than black, or brighter than white.
    """
    sources = list(sources)
    black, white = black_and_white or (0, white_of(sources[0].arrays[0].dtype))
    least, most = statistics.least, statistics.most
    if not black < white or least < black or most > white:
        named = " and ".join(f"{source.setting}={source.path}" for source in sources)
        raise SettingError(
            f"data.image_shape={list(image_shape)} makes rows images, whose values must lie "
            f"between black and white, and those of {named} lie between {_told(least)} and "
            f"{_told(most)}, not {_told(black)} and {_told(white)}: set "
            "data.pixel_range=[black,white], or leave data.image_shape out."
        )
    scale = torch.from_numpy(std / (white - black)).float()
    shift = torch.from_numpy((mean - black) / (white - black)).float()
    return (scale[0], shift[0]) if len(mean) == 1 else (scale[None], shift[None])


def _told(value: float) -> str:
    """A number in a message: to six digits where these are all that it has, else to its last."""
    return f"{value:g}" if float(f"{value:g}") == value else repr(float(value))
