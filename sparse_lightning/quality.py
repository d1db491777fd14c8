"""How reconstructions are measured: images by PSNR, other inputs by R².

The names of metrics, the columns of tables and the labels of figures follow from the measure.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import pandas as pd


class Quality(NamedTuple):
    """One measure of reconstructions; higher is better.

    Attributes:
        name: of the metric (after ``val/``), and of columns.
        label: of an axis, with the unit.
        unit: that follows a number.
        digits: behind the point, where a number is shown.
        mean_line: what the reconstruction by the mean of the training data is called.
    """

    name: str
    label: str
    unit: str
    digits: int
    mean_line: str

    def shown(self, value: float) -> str:
        """A number with its unit.

        Example:
            >>> PSNR.shown(17.356), R2.shown(0.9124)
            ('17.36 dB', '0.912 R²')
        """
        return f"{value:.{self.digits}f}{self.unit}"


PSNR = Quality("psnr", "PSNR (dB)", " dB", 2, "mean image")
R2 = Quality("r2", "R²", " R²", 3, "mean")
QUALITIES = (PSNR, R2)


def quality_of(names: Iterable[str]) -> Quality:
    """R² where one of these names of metrics or columns is R²'s, PSNR where none is."""
    return R2 if any(name.rpartition("/")[2] == R2.name for name in names) else PSNR


def quality_of_rows(rows: pd.DataFrame, prefix: str = "", suffix: str = "") -> Quality:
    """The quality that rows of a table have values of; its column is ``prefix + name + suffix``."""
    for quality in QUALITIES:
        column = f"{prefix}{quality.name}{suffix}"
        if column in rows and rows[column].notna().any():
            return quality
    return PSNR
