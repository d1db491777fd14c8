"""Whether files fit each other, and the images that their rows are said to be."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from sparse_lightning.data.array_pipeline.rows import Source
from sparse_lightning.errors import SettingError


def require_shape(source: Source, image_shape: Sequence[int]) -> None:
    """Raise `SettingError` unless the rows of a source can be images of a shape."""
    told, dim = f"{source.setting}={source.path}", np.prod(source.row_shape)
    if np.prod(image_shape) != dim:
        raise SettingError(
            f"data.image_shape={list(image_shape)} has {np.prod(image_shape)} pixels, and the rows "
            f"of {told} have {dim} values: make them equal."
        )
    if not same_layout(source.row_shape, image_shape):
        raise SettingError(
            f"data.image_shape={list(image_shape)} is another order of axes than that of {told}, "
            f"whose rows have the shape {list(source.row_shape)}: set data.image_shape to that, "
            "or save the array in the order of the setting."
        )


def require_files_once(sources: Iterable[Source]) -> None:
    """Raise `SettingError` where a file is of two splits, or counts twice in one."""
    settings: dict[Path, str] = {}
    for source in sources:
        for array in source.arrays:
            told, file = f"{source.setting}={source.path}", array.path.resolve()
            if file in settings:
                raise SettingError(
                    f"{told} takes {file}, which {settings[file]} takes already: its rows would "
                    "be in the data twice. Give each file once, outside the other's folder."
                )
            settings[file] = told


def require_one_scale(sources: Iterable[Source], has_range: bool) -> None:
    """Raise `SettingError` where types of images tell of different ranges of pixels."""
    scales: dict[tuple, str] = {}
    for source in sources:
        for array in source.arrays:
            scale = array.dtype.kind in "iu", None if has_range else white_of(array.dtype)
            scales.setdefault(scale, f"{source.setting} takes {array.path} of {array.dtype}")
    if len(scales) > 1:
        first, second, *_ = scales.values()
        raise SettingError(
            f"{first}, and {second}, which are images of different scales: save all files with "
            "one type and one range."
        )


def white_of(dtype: np.dtype) -> int:
    """The value of white: the largest of 8 and 16 bits, and 1 of other types."""
    return np.iinfo(dtype).max if dtype.kind == "u" and dtype.itemsize <= 2 else 1


def require_range_used(told: str, dtype: np.dtype, brightest: float) -> None:
    """Raise `SettingError` where images are all but black on the range of their type.

    Their PSNR, which is relative to white, would be too high.

    Args:
        told: the setting that names the rows, and its value.
        dtype: of the rows.
        brightest: the largest value of the training rows.
    """
    white = white_of(dtype)
    if white > 1 and brightest <= white / 16:
        likely = 2 ** max(1, int(brightest).bit_length()) - 1
        raise SettingError(
            f"data.pixel_range=null takes {white} for white, as the type {dtype} of {told} has it, "
            f"and the largest value of the training rows is {brightest:g}: set data.pixel_range to "
            f"black and white, such as [0,{likely}], or [0,{white}] where images are that dark."
        )


def same_layout(rows: Sequence[int], others: Sequence[int]) -> bool:
    """Whether axes are in one order; of a row that is flat nobody can tell."""
    ours, theirs = ([side for side in shape if side > 1] for shape in (rows, others))
    return ours == theirs or len(ours) < 2 or len(theirs) < 2
