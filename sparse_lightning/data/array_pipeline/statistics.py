r"""Means and deviations of columns, over some rows, in one pass that sees every row.

Pieces of rows are joined as in Chan, Golub & LeVeque, "Algorithms for computing the sample
variance: analysis and recommendations", The American Statistician 1983: with counts n,
means m and sums of squares S around them,

.. math:: m = m_a + \delta \frac{n_b}{n}, \qquad
          S = S_a + S_b + \delta^2 \frac{n_a n_b}{n}, \qquad \delta = m_b - m_a .
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np

from sparse_lightning.data.array_pipeline.rows import Rows, Source
from sparse_lightning.data.cache import built_once, read_from
from sparse_lightning.errors import DataError
from sparse_lightning.files import digest, replaced_whole

# Bytes of rows from which on their statistics are kept.
LARGE = 2**26


@dataclass
class ColumnStatistics:
    """Of each column over the rows that count, (d,), in float64.

    Attributes:
        count: rows.
        mean, squares: the mean, and the sum of squares around it.
        lowest, highest: the smallest and the largest value.
        least, most: the smallest and the largest value of any row, those that do not count too.
    """

    count: int
    mean: np.ndarray
    squares: np.ndarray
    lowest: np.ndarray
    highest: np.ndarray
    least: float = np.inf
    most: float = -np.inf

    @classmethod
    def of_nothing(cls, width: int) -> ColumnStatistics:
        infinity = np.full(width, np.inf)
        return cls(0, np.zeros(width), np.zeros(width), infinity, -infinity)

    def add(self, rows: np.ndarray) -> None:
        """Take further rows (n, d) into account."""
        if not len(rows):
            return
        rows = rows.astype(np.float64)
        count = self.count + len(rows)
        # What is too large for a sum or a square is told of by `is_out_of_range`.
        with np.errstate(over="ignore", invalid="ignore"):
            mean = rows.mean(0)
            squares = np.square(rows - mean).sum(0)
            shift = mean - self.mean
            self.mean = self.mean + shift * len(rows) / count
            self.squares = self.squares + squares + shift**2 * (self.count * len(rows) / count)
        self.count = count
        self.lowest = np.minimum(self.lowest, rows.min(0))
        self.highest = np.maximum(self.highest, rows.max(0))

    @property
    def is_constant(self) -> np.ndarray:
        """Which columns have one value, but for errors of rounding, (d,).

        The criterion for these is that of scikit-learn's `StandardScaler`, with n rows:
        variance ≤ n ε variance + (n ε mean)², where ε is the precision of float64.
        """
        noise = self.count * np.finfo(np.float64).eps
        with np.errstate(over="ignore", invalid="ignore"):
            variance = self.squares / self.count
            is_noise = variance <= noise * variance + np.square(noise * self.mean)
        return (self.lowest == self.highest) | (is_noise & ~self.is_out_of_range)

    @property
    def is_out_of_range(self) -> np.ndarray:
        """Which columns have values whose squares are too large or too small for float64, (d,)."""
        noise = self.count * np.finfo(np.float64).eps
        spread = self.highest / 2 - self.lowest / 2
        is_lost = (self.squares == 0) & (spread > noise * np.abs(self.mean))
        return ~np.isfinite(self.squares) | is_lost

    @property
    def deviation(self) -> np.ndarray:
        """Standard deviation of each column (over n), exactly 0 where it is constant."""
        return np.where(self.is_constant, 0.0, np.sqrt(self.squares / self.count))

    @property
    def overall(self) -> tuple[float, float]:
        """Mean and standard deviation of all values together."""
        with np.errstate(over="ignore", invalid="ignore"):
            mean = self.mean.mean()
            variance = (self.squares / self.count + np.square(self.mean - mean)).mean()
        return float(mean), float(np.sqrt(variance))

    def save(self, path: Path) -> None:
        """Write them as .npz."""
        with replaced_whole(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **{field.name: getattr(self, field.name) for field in fields(self)})
            file.flush()
            os.fsync(file.fileno())

    @classmethod
    def load(cls, path: Path) -> ColumnStatistics:
        """What `save` wrote."""
        with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            values = {field.name: kept[field.name] for field in fields(cls)}
        numbers = {name: values[name].item() for name in ("count", "least", "most")}
        return cls(**(values | numbers))


def training_statistics(
    sources: Mapping[str, Source],
    rows: Mapping[str, Rows],
    train: np.ndarray,
    cache_dir: Path,
    contents: object,
) -> ColumnStatistics:
    """Statistics of the training rows; every row of every source is looked at.

    Those of large files are kept beside converted copies.

    Args:
        sources: what splits have to themselves, and as ``train`` what is split.
        rows: of each source.
        train: numbers of the training rows, of the source ``train``.
        cache_dir: where statistics are kept.
        contents: what stands for the contents of all files.

    Raises:
        DataError: see `scan`.
    """

    def computed() -> ColumnStatistics:
        scanned = {
            name: scan(source, rows[name], train if name == "train" else None)
            for name, source in sources.items()
        }
        statistics = scanned["train"]
        statistics.least = min(each.least for each in scanned.values())
        statistics.most = max(each.most for each in scanned.values())
        return statistics

    if sum(len(own) * own.width * own.dtype.itemsize for own in rows.values()) < LARGE:
        return computed()
    counted = hashlib.sha256(np.sort(train).tobytes()).hexdigest()
    # Contents tell of some blocks of a large file alone.
    files = [array for source in sources.values() for array in source.arrays]
    taken = [[file.path.stat().st_mtime_ns, astuple(file.choice)] for file in files]
    name = f"statistics-{digest([contents, taken, counted])}"
    entry = built_once(
        cache_dir, name, lambda _, result: computed().save(result / "statistics.npz")
    )
    with read_from(entry):
        return ColumnStatistics.load(entry / "statistics.npz")


def scan(source: Source, rows: Rows, counted: np.ndarray | None) -> ColumnStatistics:
    """Look at every row of a source once.

    Args:
        source: for messages.
        rows: of the source.
        counted: numbers of the rows that count, None for none.

    Raises:
        DataError: values that are NaN or infinite, with their number and the first place.
    """
    is_counted = np.zeros(len(rows), bool)
    if counted is not None:
        is_counted[counted] = True
    statistics = ColumnStatistics.of_nothing(rows.width)
    bad, first = 0, None
    for start, piece in rows.pieces():
        # A value that is NaN becomes both, an infinite one either.
        with np.errstate(invalid="ignore"):
            least, most = float(piece.min()), float(piece.max())
        statistics.least, statistics.most = min(statistics.least, least), max(statistics.most, most)
        if not (np.isfinite(least) and np.isfinite(most)):
            wrong = ~np.isfinite(piece)
            if first is None:
                row, column = (int(index) for index in np.argwhere(wrong)[0])
                first = start + row, column
            bad += int(wrong.sum())
        if not bad:
            statistics.add(piece[is_counted[start : start + len(piece)]])
    if bad:
        row, column = first
        raise DataError(
            f"{source.setting}={source.path} holds NaN or infinity {bad} times, the first "
            f"in {source.place(row)}, column {column} (from 0): mend these rows or leave "
            "them out."
        )
    return statistics
