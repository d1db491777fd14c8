"""What a study found: tidy tables and pictures, on disk and back.

Figures are drawn from a result alone: they can be drawn again, or differently, without computing
anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from sparse_lightning.files import replaced_whole


@dataclass(frozen=True)
class Pictures:
    """Small images, and what each is.

    Args:
        index: one row per image.
        pixels: (k, height, width), or of colours (k, height, width, 3), in the order of the rows.
    """

    index: pd.DataFrame
    pixels: np.ndarray

    @classmethod
    def of(cls, index: list[dict], pixels: list[np.ndarray]) -> Pictures | None:
        """Rows of the index and arrays of images, in one order; None without any."""
        return cls(pd.DataFrame(index), np.concatenate(pixels)) if pixels else None

    def where(self, **values: object) -> Pictures:
        """Those whose columns have these values."""
        chosen = np.ones(len(self.index), dtype=bool)
        for column, value in values.items():
            chosen &= (self.index[column] == value).to_numpy()
        return Pictures(self.index[chosen], self.pixels[chosen])


@dataclass(frozen=True)
class StudyResult:
    """The result of a study.

    Args:
        table: one row per measurement.
        more: further tables by name, such as a summary.
        pictures: images, where the study has any.
    """

    table: pd.DataFrame
    more: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    pictures: Pictures | None = None

    @property
    def data(self) -> str:
        """What titles call the data."""
        return ", ".join(sorted(self.table["data"].dropna().unique()))

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """All tables by name, the main one as ``table``."""
        return {"table": self.table, **self.more}

    def write(self, folder: Path) -> list[Path]:
        """Write each table as CSV and Parquet, pictures as .npy in place of earlier ones."""
        written = []
        for name, table in self.tables.items():
            with replaced_whole(folder / f"{name}.csv") as temporary:
                table.to_csv(temporary, index=False)
            written.append(folder / f"{name}.csv")
            with replaced_whole(folder / f"{name}.parquet") as temporary:
                table.to_parquet(temporary, index=False)
        pixels, index = folder / "pictures.npy", folder / "pictures.csv"
        if self.pictures is None:
            pixels.unlink(missing_ok=True)
            index.unlink(missing_ok=True)
            return written
        with replaced_whole(pixels) as temporary:
            np.save(temporary, self.pictures.pixels.astype(np.float32))
        with replaced_whole(index) as temporary:
            self.pictures.index.to_csv(temporary, index=False)
        return written

    @classmethod
    def read(cls, folder: Path) -> StudyResult:
        """What `write` left in a folder."""
        tables = {path.stem: pd.read_parquet(path) for path in sorted(folder.glob("*.parquet"))}
        pictures = None
        if (folder / "pictures.npy").is_file():
            pixels = np.load(folder / "pictures.npy", allow_pickle=False)
            pictures = Pictures(pd.read_csv(folder / "pictures.csv"), pixels)
        return cls(tables.pop("table"), tables, pictures)
