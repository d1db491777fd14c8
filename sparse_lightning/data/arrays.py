"""Rows of numbers from one's own files: recordings, embeddings, activations, images.

Files are read from disk row by row as batches need them, so that a data set may be larger than the
memory. Each epoch is a full shuffle. See `array_pipeline` for formats, splits and statistics.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from sparse_lightning.data.array_pipeline.fit import (
    require_files_once,
    require_one_scale,
    require_range_used,
    require_shape,
    same_layout,
)
from sparse_lightning.data.array_pipeline.formats import Choice, require_names
from sparse_lightning.data.array_pipeline.row_values import numbered, values_of_rows
from sparse_lightning.data.array_pipeline.rows import Source
from sparse_lightning.data.array_pipeline.split import by_group, by_row, shuffled
from sparse_lightning.data.array_pipeline.standardisation import (
    FEATURE,
    GLOBAL,
    NONE,
    ArrayRows,
    mean_and_std,
    scale_and_shift,
)
from sparse_lightning.data.array_pipeline.statistics import training_statistics
from sparse_lightning.data.module import FINGERPRINT, SplitDataModule
from sparse_lightning.errors import DataError, SettingError, require_count
from sparse_lightning.files import digest

ALL = "all"  # The one split of `Arrays.keep_whole`.


class Arrays(SplitDataModule):
    """Rows of arrays as vectors, in three splits.

    Args:
        path: a file (.npy, .npz, .pt, .safetensors, .parquet) of (n, d) or (n, ...), whose rows are
            flattened, or a folder of such files, taken in the order of their names.
        key: name of the array, where a file holds several.
        columns: of .parquet, None for all that hold numbers.
        path_val, path_test: files of their own for these splits; None: rows of ``path``.
        groups: column or key that says which group a row is of, or an .npy file of that; whole
            groups go to one split. None: rows are split one by one.
        labels: column or key that says which class a row is of, or an .npy file of that, for
            studies. Neither this column nor that of groups is part of the rows.
        val_share, test_share: fraction of the rows of ``path`` for these splits.
        num_train, num_val, num_test: at most so many rows of each split, None for all.
        standardise: ``feature``: each column less its mean, over its standard deviation;
            ``global``: one mean and one deviation for all; ``none``. None: ``global`` for images
            and ``feature`` for others. The statistics are of training rows.
        image_shape: (h, w), (3, h, w) or (h, w, 3), where rows are images.
        pixel_range: values that are black and white, where rows are images. None: the range of
            the type for 8 and 16 bits, and [0, 1] for others.
        cache_dir: where copies of files that cannot be mapped into memory are kept.
        batch_size: rows in a batch. A last batch of a single row is left out.
        split_seed: fixes the splits.
        shuffle_seed: fixes the order of training rows in each epoch.
        drop_last: leave out the last, incomplete batch of training.

    Raises:
        SettingError: a setting that cannot work.
    """

    setting = "data.path"
    # Whether rows are as they are in the user's own files, and settings tell what they are.
    are_given = True

    def __init__(
        self,
        path: str | Path | None,
        cache_dir: str | Path,
        key: str | None = None,
        columns: list[str] | None = None,
        path_val: str | Path | None = None,
        path_test: str | Path | None = None,
        groups: str | Path | None = None,
        labels: str | Path | None = None,
        val_share: float = 0.1,
        test_share: float = 0.1,
        num_train: int | None = None,
        num_val: int | None = None,
        num_test: int | None = None,
        standardise: str | None = None,
        image_shape: list[int] | None = None,
        pixel_range: list[float] | None = None,
        batch_size: int = 250,
        split_seed: int = 0,
        shuffle_seed: int = 0,
        drop_last: bool = False,
    ) -> None:
        super().__init__({}, batch_size, shuffle_seed, drop_last)
        if path is None:
            raise SettingError("data.path=null: set data.path to a file of numbers, or a folder.")
        self.path, self.cache_dir = Path(path).expanduser(), Path(cache_dir)
        beside = tuple(str(name) for name in (groups, labels) if name is not None)
        names = None if columns is None else [str(column) for column in columns]
        # Keys of a dictionary of tensors may be numbers.
        self.choice = Choice(None if key is None else str(key), names, beside)
        self.paths = {
            split: None if own is None else Path(own).expanduser()
            for split, own in (("val", path_val), ("test", path_test))
        }
        self.groups, self.labels, self.split_seed = groups, labels, split_seed
        self.shares = {"val": val_share, "test": test_share}
        self.most = {"train": num_train, "val": num_val, "test": num_test}
        self.standardise = standardise or (GLOBAL if image_shape else FEATURE)
        self.image_shape = None if image_shape is None else _without_single(image_shape)
        self.pixel_range = pixel_range
        self.given: tuple[np.ndarray, np.ndarray] | None = None
        self.is_whole = False
        self._require_split()
        self._require_rows()

    def _require_split(self) -> None:
        """Raise `SettingError` for settings that no rows could be split by."""
        for split, most in self.most.items():
            if most is not None:
                require_count(f"data.num_{split}", most)
        for split, share in self._used_shares.items():
            if not 0 < share < 1:
                raise SettingError(f"data.{split}_share={share} must lie between 0 and 1.")
        if sum(self._used_shares.values()) >= 1:
            raise SettingError(
                f"data.val_share={self.shares['val']} and data.test_share={self.shares['test']} "
                "leave nothing to train on: their sum must be below 1."
            )
        seed = self.split_seed
        if not isinstance(seed, Integral) or isinstance(seed, bool) or seed < 0:
            raise SettingError(f"data.split_seed={seed} must be a whole number, 0 or more.")
        if self.groups is not None and all(self.paths.values()):
            raise SettingError(
                f"data.groups={self.groups} has nothing to split: data.path_val and "
                "data.path_test are given already. Leave data.groups out."
            )

    @property
    def _used_shares(self) -> dict[str, float]:
        """The shares of the splits without files of their own."""
        return {split: self.shares[split] for split, own in self.paths.items() if own is None}

    def _require_rows(self) -> None:
        """Raise `SettingError` for settings that say of no rows what they are."""
        if self.pixel_range is not None and len(self.pixel_range) != 2:
            raise SettingError(
                f"data.pixel_range={list(self.pixel_range)} must be two numbers, [black,white]."
            )
        if self.standardise not in (GLOBAL, FEATURE, NONE):
            raise SettingError(
                f"data.standardise={self.standardise} must be {FEATURE}, {GLOBAL} or {NONE}."
            )
        # A folder that may not be read is told of when it is opened.
        is_table = os.path.isdir(self.path) or self.path.suffix.lower() == ".parquet"
        if self.choice.columns is not None and not is_table:
            raise SettingError(
                f"data.columns={self.choice.columns} names columns of a .parquet file, and "
                f"data.path={self.path} is none: leave data.columns out."
            )
        if self.labels is not None and any(self.paths.values()) and Path(self.labels).is_file():
            raise SettingError(
                f"data.labels={self.labels} is a file of data.path alone: name a column or a key "
                "that data.path_val and data.path_test have as well."
            )
        shape = self.image_shape
        is_coloured = shape is not None and len(shape) == 3 and 3 in (shape[0], shape[-1])
        if shape is not None and len(shape) != 2 and not is_coloured:
            raise SettingError(
                f"data.image_shape={list(shape)} must be [height,width], [3,height,width] or "
                "[height,width,3]."
            )

    # What the data are.

    @property
    def _named(self) -> str:
        """The setting that names the rows, and its value."""
        return f"{self.setting}={self.path}"

    @cached_property
    def source(self) -> Source:
        """The rows of ``path``, looked at."""
        source = Source.open("data.path", self.path, self.choice)
        require_names(source.arrays, self.choice.key)
        if self.image_shape is not None:
            require_shape(source, self.image_shape)
        return source

    @cached_property
    def sources(self) -> dict[str, Source]:
        """The files that splits have to themselves, and those that are split, as ``train``."""
        found = {"train": self.source}
        for split, path in self.paths.items():
            if path is not None and not self.is_whole:
                source = Source.open(f"data.path_{split}", path, self.source.choice)
                self._require_equal_rows(source)
                found[split] = source
        require_files_once(found.values())
        if self.image_shape is not None:
            require_one_scale(found.values(), self.pixel_range is not None)
        return found

    def _require_equal_rows(self, source: Source) -> None:
        """Raise `DataError` unless another source has rows as those of ``path`` are."""
        ours, theirs = self.source.row_shape, source.row_shape
        if np.prod(theirs) != self.input_dim or not same_layout(ours, theirs):
            raise DataError(
                f"{source.setting}={source.path} has rows of the shape {theirs}, and "
                f"data.path={self.path} of {ours}: give equal ones."
            )
        if self.image_shape is not None:
            require_shape(source, self.image_shape)

    @property
    def input_dim(self) -> int:
        """Values in a row."""
        return int(np.prod(self.source.row_shape))

    @property
    def column_names(self) -> list[str] | None:
        names = self.source.choice.columns
        # A column may hold lists, and count as several.
        return list(names) if names and len(names) == self.input_dim else None

    @property
    def title(self) -> str:
        """What figures say of the data."""
        return self.path.stem

    @classmethod
    def tags_of(cls, root: str | Path | None) -> list[str]:
        # W&B takes tags of up to 64 characters.
        return [Path(root).stem[:64]] if root else []

    # Splits.

    def prepare_data(self) -> None:
        """Convert files that cannot be mapped into memory, unless that has been done before."""
        self._split()

    def setup(self, stage: str | None = None) -> None:
        """Split the rows, look at every one of them, and standardise.

        Raises:
            SettingError, DataError: rows that cannot be trained on, or not even looked at.
        """
        self._split()
        # To code and to test rows of their own takes no batch of training.
        if stage in (None, "fit"):
            self._require_batch()

    def _require_batch(self) -> None:
        """Raise `SettingError` where there are fewer training rows than a batch."""
        count = len(self.splits["train"])
        if count < self.batch_size:
            raise SettingError(
                f"{self._named} gives {count} rows for the split train, fewer than "
                f"data.batch_size={self.batch_size}: give more rows, or set a smaller "
                f"data.batch_size{self._or_another_split('train', count)}."
            )

    def _or_another_split(self, split: str, count: int) -> str:
        """The settings that could give a split another number of rows, and their values."""
        if self.most[split] == count:
            return f", or a larger data.num_{split} than {count}"
        if self.paths.get(split) is not None or (split == "train" and not self._used_shares):
            return ""
        shares = self._used_shares if split == "train" else {split: self.shares[split]}
        told = [f"data.{name}_share than {share}" for name, share in shares.items()]
        if self.groups is not None and self.are_given:
            told.append(f"data.groups than {self.groups}")
        return f", or another {' or '.join(told)}"

    def _split(self) -> None:
        if self.splits:
            return
        left_out = self.source.arrays[0].left_out
        if left_out:
            warnings.warn(
                f"{self._named} has columns that hold no numbers, which are left out: "
                f"{', '.join(left_out)}. Set data.columns to choose columns.",
                stacklevel=2,
            )
        rows = {name: source.rows(self.cache_dir) for name, source in self.sources.items()}
        orders = self._orders()
        of_training = orders.get("train", orders.get(ALL))
        statistics = training_statistics(
            self.sources, rows, of_training, self.cache_dir, self.contents
        )
        mean, std = self.given or mean_and_std(
            self._named, self.standardise, statistics, self.column_names
        )
        scale = shift = None
        if self.image_shape is not None:
            sources = self.sources.values()
            if self.are_given and self.pixel_range is None:
                require_range_used(
                    self._named, self.source.arrays[0].dtype, statistics.highest.max()
                )
            scale, shift = scale_and_shift(
                self.image_shape, self.pixel_range, sources, statistics, mean, std
            )
        labels = self._labels()
        for split, order in orders.items():
            source = split if split in rows else "train"
            self.splits[split] = ArrayRows(
                rows[source], order, mean, std, scale, shift, labels.get(source)
            )
        self.positions = orders
        self.mean, self.std = mean, std
        self.training_mean = torch.from_numpy((statistics.mean - mean) / std)

    def _orders(self) -> dict[str, np.ndarray]:
        """Numbers of the rows of each split, in the order of its samples."""
        if self.is_whole:
            return {ALL: np.arange(self.source.count)}
        taken, shares = [*self._used_shares], [*self._used_shares.values()]
        if self.groups is None:
            parts = by_row(self.source.count, shares, self.split_seed)
        else:
            parts = by_group(self._groups(), shares, self.split_seed)
        orders = dict(zip([*taken, "train"], parts))
        for split, source in self.sources.items():
            if split != "train":
                orders[split] = shuffled(source.count, self.split_seed)
        orders = {split: orders[split][: self.most[split]] for split in ("train", "val", "test")}
        for split, order in orders.items():
            if (count := len(order)) < 2:
                own = self.paths.get(split)
                named = self._named if own is None else f"data.path_{split}={own}"
                raise SettingError(
                    f"{named} gives {count} rows for the split {split}, too few: give more rows"
                    f"{self._or_another_split(split, count)}."
                )
        return orders

    def _groups(self) -> np.ndarray:
        groups = values_of_rows("data.groups", str(self.groups), self.source)
        for source in self.sources.values():
            if source is not self.source:
                self._require_other_groups(groups, source)
        return groups

    def _require_other_groups(self, groups: np.ndarray, source: Source) -> None:
        """Raise `SettingError` for a group of ``path`` that a file of another split has as well."""
        others = np.empty(0)
        # A file that does not tell of groups is taken for one of others.
        if not Path(self.groups).is_file():
            with suppress(SettingError):
                others = values_of_rows("data.groups", str(self.groups), source)
        if len(shared := np.intersect1d(groups, others)):
            raise SettingError(
                f"data.groups={self.groups} has the group {shared[0]} in {self._named} and in "
                f"{source.setting}={source.path}: let each group be in one of them."
            )

    def _labels(self) -> dict[str, Tensor]:
        """The number of the class of each row of `sources`, (n,); empty where none are given."""
        if self.labels is None:
            return {}
        name = str(self.labels)
        values = [values_of_rows("data.labels", name, own) for own in self.sources.values()]
        numbers = numbered(f"data.labels={name}", values)
        return dict(zip(self.sources, map(torch.from_numpy, numbers)))

    def keep_whole(self) -> None:
        """Before `setup`: one split, ``all``, of all rows of ``path`` in their order."""
        self.is_whole = True

    def standardise_by(self, mean: Tensor, std: Tensor) -> None:
        """Before `setup`: take (x − mean) / std of other rows, those of a model's training."""
        self.given = mean.numpy(), std.numpy()

    def order_columns_by(self, names: Sequence[str]) -> None:
        """At first: take a table's columns in the order of others, those of a model's training.

        Columns that the settings name are taken as they say, unless they are these in another
        order.

        Raises:
            SettingError: the table lacks some of them.
        """
        own = self.choice.columns or self.source.choice.columns
        if own is None or list(own) == list(names):
            return
        is_other = set(own) != set(names)
        if is_other and self.choice.columns is not None:
            return
        if lacking := [name for name in names if name not in own]:
            raise SettingError(
                f"{self._named} lacks the column {lacking[0]} that the model was trained on: name "
                "its columns as they were named then, or set data.columns to those to use, in "
                f"the order of training ({', '.join(names[:3])}, ...)."
            )
        self.choice = replace(self.choice, columns=list(names))
        self.__dict__.pop("source", None)

    # What is kept, and loaders.

    @cached_property
    def contents(self) -> list:
        """What stands for the contents of all files, see `Source.fingerprint`."""
        return [[name, source.fingerprint()] for name, source in sorted(self.sources.items())]

    def fingerprint(self) -> str:
        """What stands for the files, the splits and the normalisation."""
        return digest([self.contents, super().fingerprint()])

    def state_dict(self) -> dict[str, Any]:
        """The fingerprint, statistics of training rows, (x − mean) / std, and columns' names."""
        if not self._state and self.splits:
            self._state = {
                FINGERPRINT: self.fingerprint(),
                "mean": torch.from_numpy(self.mean),
                "std": torch.from_numpy(self.std),
            }
            if self.source.choice.columns is not None:
                self._state["columns"] = list(self.source.choice.columns)
        return self._state

    def require_variance(self) -> None:
        """Raise `SettingError` if every batch would hold a single row."""
        if self.batch_size == 1:
            raise SettingError(
                "data.batch_size=1 makes batches of 1 sample, which have no variance: set a larger "
                "one, or model.energy.variance_weight=0."
            )

    def _loader(
        self, split: str, shuffle_seed: int | None = None, drop_last: bool = False
    ) -> DataLoader:
        is_left_over = self.batch_size > 1 and len(self.splits[split]) % self.batch_size == 1
        return super()._loader(split, shuffle_seed, drop_last or is_left_over)


def _without_single(shape: Sequence[int]) -> tuple[int, ...]:
    """An image's shape, (h, w) where it has a single channel."""
    if len(shape) == 3 and 1 in (shape[0], shape[-1]):
        return tuple(shape[1:] if shape[0] == 1 else shape[:2])
    return tuple(shape)
