"""Arrays of one's own: formats, splits, standardisation, refusals, and what is never in memory."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas
import pyarrow
import pyarrow.parquet
import pytest
import scipy.sparse
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file
from torch.serialization import get_default_mmap_options

from sparse_lightning.data import cache, module
from sparse_lightning.data.array_pipeline import formats, statistics
from sparse_lightning.data.array_pipeline import rows as module_of_rows
from sparse_lightning.data.array_pipeline.rows import Source
from sparse_lightning.data.array_pipeline.split import by_group, by_row
from sparse_lightning.data.arrays import Arrays
from sparse_lightning.data.batch import Batch
from sparse_lightning.data.image_folder import ImageFolder
from sparse_lightning.data.own import state_of_files
from sparse_lightning.data.patches import ImagePatches
from sparse_lightning.errors import DataError, SettingError
from sparse_lightning.experiments.early_checks import check_data
from sparse_lightning.studies.coding import fingerprint as of_study

COUNT, DIM = 60, 4


@pytest.fixture
def values() -> np.ndarray:
    return np.random.default_rng(0).normal(3, 2, (COUNT, DIM)).astype(np.float32)


def data_of(path: Path, **settings) -> Arrays:
    settings = {"cache_dir": path.parent / "cache", "batch_size": 10} | settings
    return Arrays(path, **settings)


def write(path: Path, values: np.ndarray) -> None:
    tensor = torch.from_numpy(values)
    table = pyarrow.table(
        {
            "text": ["a"] * len(values),
            "first": values[:, 0],
            "rest": pyarrow.FixedSizeListArray.from_arrays(values[:, 1:].ravel(), DIM - 1),
        }
    )
    {
        "plain.npy": lambda: np.save(path, values),
        "columns_first.npy": lambda: np.save(path, np.asfortranarray(values)),
        "big_endian.npy": lambda: np.save(path, values.astype(">f8")),
        "other.npz": lambda: np.savez_compressed(path, x=values, y=values[:, 0]),
        "bare.pt": lambda: torch.save(tensor, path),
        "named.pt": lambda: torch.save({"x": tensor, "y": tensor[:2]}, path),
        "old.pt": lambda: torch.save(tensor, path, _use_new_zipfile_serialization=False),
        "plain.safetensors": lambda: save_file({"x": tensor, "y": tensor[:2].clone()}, path),
        "table.parquet": lambda: pyarrow.parquet.write_table(table, path, row_group_size=7),
    }[path.name]()


FILES = (
    "plain.npy", "columns_first.npy", "big_endian.npy", "other.npz", "bare.pt", "named.pt",
    "old.pt", "plain.safetensors", "table.parquet",
)  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_every_format_gives_the_same_rows(name, values, tmp_path: Path):
    write(tmp_path / name, values)
    key = "x" if name in ("other.npz", "named.pt", "plain.safetensors") else None
    source = data_of(tmp_path / name, key=key).source
    assert (source.count, source.row_shape) == (COUNT, (DIM,))
    rows = source.rows(tmp_path / "cache")
    chosen = np.array([41, 3, 59, 0, 3])
    np.testing.assert_array_equal(rows.gather(chosen), values[chosen])
    assert not any(array.flags.writeable and array.base is None for array in rows.arrays)


def test_bfloat16_is_read_exactly(values, tmp_path: Path):
    tensor = torch.from_numpy(values).bfloat16()
    torch.save(tensor, tmp_path / "x.pt")
    save_file({"x": tensor}, tmp_path / "x.safetensors")
    for name in ("x.pt", "x.safetensors"):
        rows = data_of(tmp_path / name).source.rows(tmp_path / "cache")
        np.testing.assert_array_equal(rows.gather(np.arange(COUNT)), tensor.float().numpy())


def test_a_folder_is_its_files_in_order(values, tmp_path: Path):
    folder = tmp_path / "shards"
    folder.mkdir()
    np.save(folder / "b.npy", values[20:])
    torch.save(torch.from_numpy(values[:20]), folder / "a.pt")
    (folder / "README.txt").write_text("not a shard")
    rows = data_of(folder).source.rows(tmp_path / "cache")
    chosen = np.array([19, 20, 0, 59])
    np.testing.assert_array_equal(rows.gather(chosen), values[chosen])


def test_splits_are_disjoint_and_statistics_are_of_training_rows(values, tmp_path: Path):
    np.save(tmp_path / "x.npy", values)
    data = data_of(tmp_path / "x.npy", val_share=0.2, test_share=0.3)
    data.setup()
    orders = {split: samples.order for split, samples in data.splits.items()}
    assert {split: len(order) for split, order in orders.items()} == {
        "train": 30, "val": 12, "test": 18,
    }  # fmt: skip
    assert sorted(np.concatenate([*orders.values()])) == list(range(COUNT))
    train = values[orders["train"]].astype(np.float64)
    for split, order in orders.items():
        inputs = data.splits[split].__getitems__(list(range(len(order)))).inputs
        assert inputs.dtype == torch.float32
        expected = (values[order] - train.mean(0)) / train.std(0)
        np.testing.assert_allclose(inputs, expected, rtol=1e-4, atol=1e-5)
    kept = data.state_dict()
    np.testing.assert_allclose(kept["mean"], train.mean(0), rtol=1e-12)
    np.testing.assert_allclose(kept["std"], train.std(0), rtol=1e-9)
    torch.testing.assert_close(data.training_mean, torch.zeros(DIM).double())


@pytest.mark.parametrize("standardise", ["global", "none"])
def test_other_standardisations(standardise, values, tmp_path: Path):
    np.save(tmp_path / "x.npy", values)
    data = data_of(tmp_path / "x.npy", standardise=standardise)
    data.setup()
    train = values[data.splits["train"].order].astype(np.float64)
    mean, std = (train.mean(), train.std()) if standardise == "global" else (0, 1)
    found = data.splits["train"].__getitems__(list(range(len(train)))).inputs
    np.testing.assert_allclose(found, (train - mean) / std, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(data.training_mean, found.double().mean(0), atol=1e-5, rtol=1e-4)


def test_files_of_their_own(values, tmp_path: Path):
    np.save(tmp_path / "x.npy", values)
    np.save(tmp_path / "test.npy", values[:15] + 100)
    data = data_of(tmp_path / "x.npy", path_test=tmp_path / "test.npy", standardise="none")
    data.setup()
    assert sorted(data.splits["test"].order) == list(range(15))
    assert data.splits["test"].__getitems__([0]).inputs.min() > 50
    assert len(data.splits["train"]) + len(data.splits["val"]) == COUNT


def test_a_file_of_two_splits_is_refused(values, tmp_path: Path):
    folder = tmp_path / "shards"
    folder.mkdir()
    for name in ("a", "test"):
        np.save(folder / f"{name}.npy", values)
    with pytest.raises(SettingError, match=r"data\.path_test=.* which data\.path="):
        data_of(folder, path_test=folder / "test.npy").setup()
    (tmp_path / "link.npy").symlink_to(folder / "test.npy")
    same = {"path_val": folder / "test.npy", "path_test": tmp_path / "link.npy"}
    with pytest.raises(SettingError, match=r"data\.path_test=.* which data\.path_val="):
        data_of(folder / "a.npy", **same).setup()


def test_columns_of_further_tables_are_taken_by_their_names(values, tmp_path: Path):
    folder, names = tmp_path / "shards", ["a", "b", "c", "d"]
    folder.mkdir()
    tables = {
        folder / "0.parquet": names, folder / "1.parquet": [*names[::-1], "new"],
        tmp_path / "test.parquet": ["b", "a", "d", "c"],
    }  # fmt: skip
    columns = dict(zip(names, values.T)) | {"new": values[:, 0]}
    for path, order in tables.items():
        table = pyarrow.table({name: columns[name] for name in order})
        pyarrow.parquet.write_table(table, path)
    data = data_of(folder, path_test=tmp_path / "test.parquet", standardise="none")
    data.setup()
    for split, samples in data.splits.items():
        inputs = data.splits[split].__getitems__(list(range(len(samples)))).inputs
        np.testing.assert_array_equal(inputs, values[samples.order % COUNT])
    pyarrow.parquet.write_table(table.drop_columns("c"), tmp_path / "test.parquet")
    with pytest.raises(SettingError, match="c is missing"):
        data_of(folder, path_test=tmp_path / "test.parquet").setup()


def test_axes_in_another_order_are_refused(tmp_path: Path):
    pixels = np.random.default_rng(0).integers(0, 256, (COUNT, 4, 4, 3), dtype=np.uint8)
    np.save(tmp_path / "last.npy", pixels)
    np.save(tmp_path / "first.npy", pixels.transpose(0, 3, 1, 2).copy())
    np.save(tmp_path / "flat.npy", pixels.reshape(COUNT, -1))
    with pytest.raises(SettingError, match="another order of axes"):
        data_of(tmp_path / "last.npy", image_shape=[3, 4, 4]).setup()
    with pytest.raises(DataError, match=r"path_test=.*\(3, 4, 4\).* data\.path="):
        data_of(tmp_path / "last.npy", path_test=tmp_path / "first.npy").setup()
    flat = {"image_shape": [3, 4, 4], "path_test": tmp_path / "last.npy"}
    with pytest.raises(SettingError, match=r"another order of axes .* data\.path_test="):
        data_of(tmp_path / "flat.npy", **flat).setup()
    for name, shape in (("last.npy", [4, 4, 3]), ("flat.npy", [3, 4, 4])):
        path_test = tmp_path / ("flat.npy" if name == "last.npy" else "first.npy")
        data_of(tmp_path / name, image_shape=shape, path_test=path_test).setup()


def test_a_link_to_no_file_is_refused(values, tmp_path: Path):
    folder = tmp_path / "shards"
    folder.mkdir()
    np.save(folder / "a.npy", values)
    (folder / "b.npy").symlink_to(tmp_path / "gone.npy")
    with pytest.raises(DataError, match=r"b\.npy, a link"):
        data_of(folder).setup()


@pytest.mark.parametrize("kind", ["file", "column", "key"])
def test_whole_groups_go_to_one_split(kind, values, tmp_path: Path):
    groups = np.repeat([f"subject {i}" for i in range(12)], 5)
    if kind == "column":
        path, name = tmp_path / "x.parquet", "who"
        pyarrow.parquet.write_table(pyarrow.table({"a": values[:, 0], "who": groups}), path)
    elif kind == "key":
        path, name = tmp_path / "x.npz", "who"
        np.savez(path, x=values, who=groups)
    else:
        path, name = tmp_path / "x.npy", str(tmp_path / "who.npy")
        np.save(path, values)
        np.save(name, groups)
    data = data_of(path, groups=name, val_share=0.25, test_share=0.25)
    data.setup()
    found = [set(groups[samples.order]) for samples in data.splits.values()]
    assert set.union(*found) == set(groups)
    assert sum(map(len, found)) == 12
    assert sorted(map(len, found)) == [3, 3, 6]


def test_shares_of_groups_are_as_near_as_groups_allow():
    sizes = [50, 3, 3, 3, 3, 3, 3, 3, 3, 3]
    groups = np.repeat(np.arange(10), sizes)
    for seed in range(5):
        parts = by_group(groups, [0.1, 0.1], seed)
        assert [len(set(groups[part])) > 0 for part in parts] == [True] * 3
        assert sorted(np.concatenate(parts)) == list(range(len(groups)))
    with pytest.raises(DataError, match="2 groups for 3 splits"):
        by_group(np.array([0, 1, 1]), [0.1, 0.1], 0)


def test_batches_of_rows_sorted_by_class_are_random_draws(tmp_path: Path):
    """Shares of classes vary as those of draws without replacement do, by the variance."""
    classes, size = 4, 50
    labels = np.repeat(np.arange(classes), 2000).astype(np.float32)
    np.save(tmp_path / "x.npy", np.stack([labels, labels], 1))
    data = data_of(tmp_path / "x.npy", batch_size=size, standardise="none")
    data.setup()
    loader = data.train_dataloader()
    shares = []
    for epoch in range(4):
        loader.sampler.set_epoch(epoch)
        shares += [
            [(batch.inputs[:, 0] == c).double().mean().item() for c in range(classes)]
            for batch in loader
            if len(batch.inputs) == size
        ]
    count = len(data.splits["train"])
    known = data.splits["train"].order
    p = np.bincount(labels[known].astype(int)) / count
    expected = p * (1 - p) / size * (count - size) / (count - 1)
    ratio = np.var(shares, axis=0) / expected
    # Of 512 batches the standard error of the ratio is 0.06.
    assert np.all(np.abs(ratio - 1) < 0.25)
    np.testing.assert_allclose(np.mean(shares, 0), p, atol=0.005)


def test_constant_columns_are_scaled_by_1_with_a_warning(values, tmp_path: Path):
    values[:, 2] = 0.1
    np.save(tmp_path / "x.npy", values)
    data = data_of(tmp_path / "x.npy")
    with pytest.warns(UserWarning, match=r"has 1 columns that are constant .* 2 \(from 0\)"):
        data.setup()
    assert data.splits["val"].__getitems__([0, 1]).inputs[:, 2].abs().max() < 1e-6


def with_nan(values: np.ndarray) -> np.ndarray:
    values[17, 2] = values[20, 0] = np.nan
    values[17, 3] = np.inf
    return values


REFUSED = {
    "NaN": (with_nan, r"NaN or infinity 3 times, the first in row 17, column 2"),
    "rank": (lambda v: v[:, 0], r"shape \(60,\) .* has no rows: give \(n, d\)"),
    "empty": (lambda v: v[:0], r"shape \(0, 4\) .* is empty"),
    "objects": (lambda v: v.astype(object), r"x\.npy cannot be read .*without Python objects"),
    "texts": (lambda v: v.astype(str), "give integers or floating-point numbers"),
    "complex": (lambda v: v.astype(complex), "no complex128"),
    "few": (lambda v: v[:11], r"gives 7 rows for the split train, fewer than data\.batch_size=10"),
    "constant": (np.ones_like, "the same values in every training row"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_trained_on_is_refused_in_a_sentence(name, values, tmp_path: Path):
    spoil, told = REFUSED[name]
    np.save(tmp_path / "x.npy", spoil(values), allow_pickle=True)
    with pytest.raises((DataError, SettingError), match=told):
        data_of(tmp_path / "x.npy").setup()


def test_damaged_and_missing_files(values, tmp_path: Path):
    (tmp_path / "x.npy").write_bytes(b"")
    with pytest.raises(DataError, match=r"x\.npy is empty"):
        data_of(tmp_path / "x.npy").setup()
    for name in ("x.npz", "x.pt", "x.safetensors", "x.parquet", "y.npy"):
        (tmp_path / name).write_bytes(b"nonsense of some length")
        with pytest.raises(DataError, match=r"cannot be read|is no safetensors file"):
            data_of(tmp_path / name).setup()
    for name, told in (("none.npy", "does not exist"), ("x.csv", "no known format")):
        if name == "x.csv":
            (tmp_path / name).touch()
        with pytest.raises(SettingError, match=told):
            data_of(tmp_path / name).setup()
    np.savez(tmp_path / "several.npz", a=values, b=values)
    with pytest.raises(SettingError, match=r"holds 2 arrays \(a, b\), and data\.key is not given"):
        data_of(tmp_path / "several.npz").setup()


@pytest.mark.parametrize("name", ["x.npz", "compressed.npz", "x.parquet"])
def test_a_file_that_is_damaged_inside(name, tmp_path: Path):
    """It opens, and its values cannot be read."""
    path, values = tmp_path / name, np.random.default_rng(0).normal(size=(2000, DIM))
    if name == "x.parquet":
        pyarrow.parquet.write_table(pyarrow.table({"a": values[:, 0]}), path, compression="gzip")
    else:
        (np.savez if name == "x.npz" else np.savez_compressed)(path, x=values)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 200] = bytes(200)
    path.write_bytes(content)
    told = rf"{path.name} cannot be read as {path.suffix} \(.*give a whole file"
    with pytest.raises(DataError, match=told):
        data_of(path).setup()


def test_columns_of_what_is_no_table_are_refused(values, tmp_path: Path):
    np.save(tmp_path / "x.npy", values)
    with pytest.raises(SettingError, match=r"data\.columns=\['0', '1'\] names columns of a \.parq"):
        data_of(tmp_path / "x.npy", columns=[0, 1])
    (tmp_path / "x.csv").write_text("1,2")
    with pytest.raises(SettingError, match=r"no known format: .*to_parquet"):
        data_of(tmp_path / "x.csv").setup()


def test_a_header_that_python_cannot_read(values, tmp_path: Path):
    path = tmp_path / "x.npy"
    np.save(path, values)
    path.write_bytes(path.read_bytes().replace(b"'descr'", b"'descr\\"))
    with pytest.raises(DataError, match=r"x\.npy cannot be read as \.npy"):
        data_of(path).setup()


def test_a_file_that_is_larger_than_memory_is_mapped_and_never_written(
    values, tmp_path: Path, monkeypatch
):
    """Linux refuses a private mapping of such a file."""
    torch.save(torch.from_numpy(values), tmp_path / "x.pt")
    load = torch.load

    def refusing(*args, **kwargs):
        if not kwargs.get("mmap"):
            raise MemoryError
        if get_default_mmap_options() == mmap.MAP_PRIVATE:
            raise RuntimeError("unable to mmap: Cannot allocate memory (12)")
        return load(*args, **kwargs)

    monkeypatch.setattr(torch, "load", refusing)
    array = formats.open_array(tmp_path / "x.pt", formats.Choice())
    np.testing.assert_array_equal(array.mapped, values)
    with pytest.raises(ValueError, match="read-only"):
        array.mapped[0] = 0


def test_missing_values_of_a_table(tmp_path: Path):
    column = pyarrow.array([1.0, 2.0, None, 4.0] * 15)
    pyarrow.parquet.write_table(pyarrow.table({"a": column}), tmp_path / "x.parquet")
    with pytest.raises(DataError, match="missing values in column a, the first in row 2"):
        data_of(tmp_path / "x.parquet").setup()
    with pytest.raises(SettingError, match=r"b is missing\): its columns are a \(double\)"):
        data_of(tmp_path / "x.parquet", columns=["b"]).setup()
    many = {f"unit_{i:02}": column for i in range(30)}
    pyarrow.parquet.write_table(pyarrow.table(many), tmp_path / "many.parquet")
    for wrong, told in (("unit_3O", "the nearest are unit_"),
                        ("zz", r"its columns are unit_00 .* and 20 others\.$")):  # fmt: skip
        with pytest.raises(SettingError, match=told):
            data_of(tmp_path / "many.parquet", columns=[wrong]).setup()
    assert not list((tmp_path / "cache").glob("array-*"))


def table_of(path: Path, **columns) -> Arrays:
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return data_of(path)


def test_lists_of_one_length_are_columns(values, tmp_path: Path):
    lists = pyarrow.array(values[:, 1:].tolist(), pyarrow.list_(pyarrow.float32()))
    data = table_of(tmp_path / "x.parquet", first=values[:, 0], rest=lists)
    rows = data.source.rows(tmp_path / "cache")
    np.testing.assert_array_equal(rows.gather(np.arange(COUNT)), values)


def test_lists_that_are_no_columns_are_refused(values, tmp_path: Path):
    numbers = [[1.0, 2.0]] * COUNT
    for lists, error, told in (
        ([*numbers[:-1], [1.0]], DataError, "2 numbers in row 0, and one of 1 in row 59"),
        ([*numbers[:-1], [1.0, None]], DataError, "in column rest, the first in row 59"),
        ([*numbers[:-1], None], DataError, "in column rest, the first in row 59"),
        ([[[1.0]]] * COUNT, SettingError, r"column rest that are lists of lists \(.*data\.col"),
    ):
        data = table_of(tmp_path / "x.parquet", first=values[:, 0], rest=pyarrow.array(lists))
        with pytest.raises(error, match=told):
            data.setup()
    data = data_of(tmp_path / "x.parquet", columns=["first"])
    data.setup()
    assert data.input_dim == 1


def test_truth_values_are_numbers_and_the_index_is_none(values, tmp_path: Path):
    truths, index = values[:, 1] > 3, np.arange(COUNT)
    columns = {"a": values[:, 0], "b": truths, "__index_level_0__": index}
    data = table_of(tmp_path / "x.parquet", **columns)
    expected = np.stack([values[:, 0], truths], 1)
    found = data.source.rows(tmp_path / "cache").gather(index)
    np.testing.assert_array_equal(found, expected)


def test_a_named_index_is_no_column_and_decimals_are_refused(values, tmp_path: Path):
    frame = pandas.DataFrame(values, columns=list("abcd")).assign(sample_id=np.arange(COUNT) ** 2)
    frame.set_index("sample_id").to_parquet(tmp_path / "x.parquet")
    assert data_of(tmp_path / "x.parquet").input_dim == DIM
    assert data_of(tmp_path / "x.parquet", columns=["a", "sample_id"]).input_dim == 2
    prices = [Decimal("1.50")] * COUNT
    with pytest.raises(SettingError, match="decimals in the column price"):
        table_of(tmp_path / "x.parquet", a=values[:, 0], price=prices).setup()
    assert data_of(tmp_path / "x.parquet", columns=["a"]).input_dim == 1


def test_columns_that_are_left_out_are_told(values, tmp_path: Path):
    label, who = ["a", "b"] * (COUNT // 2), np.arange(COUNT) // 2
    table_of(tmp_path / "x.parquet", a=values[:, 0], label=label, who=who)
    with pytest.warns(UserWarning, match=r"x\.parquet has columns .* left out: label\. .*columns"):
        data_of(tmp_path / "x.parquet", groups="who").setup()
    # Whoever names columns knows the others.
    data_of(tmp_path / "x.parquet", groups="who", columns=["a"]).setup()


def test_a_column_that_is_named_twice_is_read_once(values, tmp_path: Path):
    table_of(tmp_path / "x.parquet", a=values[:, 0], b=values[:, 1])
    data = data_of(tmp_path / "x.parquet", columns=["a", "a", "b"])
    data.setup()
    np.testing.assert_array_equal(data.splits["val"].rows.gather(np.arange(COUNT)), values[:, :2])


def test_a_file_that_gives_other_rows_than_it_says_is_refused(values, tmp_path: Path, monkeypatch):
    np.savez(tmp_path / "x.npz", x=values)
    array = formats.open_array(tmp_path / "x.npz", formats.Choice())
    short = replace(array, pieces=lambda: iter([values[:-1]]))
    with pytest.raises(DataError, match=r"59 rows, .* 60"):
        Source("data.path", tmp_path, [short], array.choice).rows(tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("array-*"))


@pytest.mark.parametrize("name", ["rows.npy", "statistics.npz"])
def test_a_damaged_copy_says_which_folder_to_delete(name, values, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(statistics, "LARGE", 0)
    np.savez(tmp_path / "x.npz", x=values)
    data_of(tmp_path / "x.npz").setup()
    (path,) = (tmp_path / "cache").glob(f"*/{name}")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=f"{path.parent} .*delete that folder"):
        data_of(tmp_path / "x.npz").setup()


@pytest.mark.parametrize("name", [name for name in FILES if name != "plain.npy"])
def test_pieces_are_of_so_many_bytes(name, values, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(formats, "BYTES_IN_PIECE", 7 * DIM * 8)
    write(tmp_path / name, values)
    key = "x" if name in ("other.npz", "named.pt", "plain.safetensors") else None
    pieces = [*formats.open_array(tmp_path / name, formats.Choice(key=key)).pieces()]
    assert max(piece.nbytes for piece in pieces) <= 7 * DIM * 8
    np.testing.assert_array_equal(np.concatenate(pieces), values)


def test_settings_and_files_of_another_kind_than_expected(values, tmp_path: Path):
    with (tmp_path / "x.npy").open("wb") as file:
        np.savez(file, x=values)
    with pytest.raises(DataError, match="cannot be read"):
        data_of(tmp_path / "x.npy").setup()
    tensor = torch.nn.Parameter(torch.from_numpy(values).bfloat16())
    torch.save({0: tensor, 1: tensor[:2]}, tmp_path / "x.pt")
    rows = data_of(tmp_path / "x.pt", key=0).source.rows(tmp_path / "cache")
    np.testing.assert_array_equal(rows.gather(np.arange(COUNT)), tensor.detach().float().numpy())
    table_of(tmp_path / "x.parquet", **{"0": values[:, 0], "1": values[:, 1]})
    assert data_of(tmp_path / "x.parquet", columns=[0, 1]).input_dim == 2
    for wrong in ({"split_seed": -1}, {"split_seed": None}, {"pixel_range": [255]}):
        (name,) = wrong
        with pytest.raises(SettingError, match=rf"data\.{name}="):
            data_of(tmp_path / "x.npy", **wrong)


def test_few_rows_can_be_coded_and_not_trained_on(values, tmp_path: Path):
    np.save(tmp_path / "x.npy", values[:11])
    data = data_of(tmp_path / "x.npy")
    data.prepare_data()
    data.setup("test")
    assert len(data.splits["train"]) == 7
    with pytest.raises(SettingError, match=r"fewer than data\.batch_size"):
        data.setup("fit")


def test_rows_without_a_group_are_refused(values, tmp_path: Path):
    texts, numbers = ["a", "b", None] * (COUNT // 3), [1.0, 2.0, None] * (COUNT // 3)
    for groups in (texts, numbers, np.array(numbers, float)):
        table_of(tmp_path / "x.parquet", a=values[:, 0], who=groups)
        with pytest.raises(DataError, match=r"who in .* has missing values, the first in row 2"):
            data_of(tmp_path / "x.parquet", groups="who").setup()
    np.save(tmp_path / "who.npy", np.array(numbers, float))
    np.savez(tmp_path / "x.npz", x=values, who=np.array(numbers, float))
    for path, groups in (("x.parquet", str(tmp_path / "who.npy")), ("x.npz", "who")):
        with pytest.raises(DataError, match="has missing values, the first in row 2"):
            data_of(tmp_path / path, groups=groups).setup()


def test_groups_that_are_no_file_are_refused_in_a_sentence(values, tmp_path: Path):
    np.save(tmp_path / "x.npy", values)
    np.savez(tmp_path / "x.npz", x=values, who=values[:, 0])
    torch.save(torch.from_numpy(values), tmp_path / "x.pt")
    table_of(tmp_path / "x.parquet", a=values[:, 0])
    for name in ("x.npy", "x.npz", "x.pt", "x.parquet"):
        key = "x" if name == "x.npz" else None
        with pytest.raises((SettingError, DataError), match=r"data\.groups=group\.npy is no file"):
            data_of(tmp_path / name, key=key, groups="group.npy").setup()
    (tmp_path / "groups.csv").write_text("a\nb\n")
    np.save(tmp_path / "objects.npy", np.array(["a"], object), allow_pickle=True)
    for name in ("groups.csv", "x.npz", "objects.npy"):
        with pytest.raises(DataError, match=rf"data\.groups=.*{name} cannot be read as \.npy"):
            data_of(tmp_path / "x.npy", groups=tmp_path / name).setup()


def batches_of(data: Arrays) -> dict[str, Batch]:
    return {name: rows.__getitems__(list(range(len(rows)))) for name, rows in data.splits.items()}


@pytest.mark.parametrize("kind", ["file", "column", "category", "key", "folder"])
def test_each_row_has_the_number_of_its_class(kind, values, tmp_path: Path):
    names = np.resize(["cat", "ant", "bee"], COUNT)
    path, labels = tmp_path / "x.parquet", "kind"
    if kind in ("column", "category"):
        column = names if kind == "column" else pandas.Categorical(names)
        pandas.DataFrame({"a": values[:, 0], "kind": column}).to_parquet(path)
    elif kind == "key":
        path = tmp_path / "x.npz"
        np.savez(path, x=values, kind=np.array([3.0, -1.0, 0.0])[np.arange(COUNT) % 3])
    elif kind == "file":
        path, labels = tmp_path / "x.npy", str(tmp_path / "y.npy")
        np.save(path, values)
        np.save(labels, names)
    else:
        path = tmp_path / "tables"
        path.mkdir()
        for number, rows in enumerate((slice(0, 25), slice(25, None))):
            table_of(path / f"{number}.parquet", a=values[rows, 0], kind=names[rows])
    data = data_of(path, labels=labels)
    data.setup()
    for name, batch in batches_of(data).items():
        expected = {"cat": 2, "ant": 0, "bee": 1}
        assert batch.labels.tolist() == [expected[names[i]] for i in data.splits[name].order]
        assert batch.inputs.shape[1] == (4 if kind in ("file", "key") else 1)


def test_classes_have_one_number_in_all_files(values, tmp_path: Path):
    for name, kinds in {"x": "abc", "v": "bd", "t": "c"}.items():
        table_of(tmp_path / f"{name}.parquet", a=values[:, 0], kind=np.resize([*kinds], COUNT))
    paths = {f"path_{split}": tmp_path / f"{split[0]}.parquet" for split in ("val", "test")}
    data = data_of(tmp_path / "x.parquet", labels="kind", **paths)
    data.setup()
    found = {name: set(batch.labels.tolist()) for name, batch in batches_of(data).items()}
    assert found == {"train": {0, 1, 2}, "val": {1, 3}, "test": {2}}


def test_labels_that_are_no_classes_are_refused_in_a_sentence(values, tmp_path: Path):
    np.save(tmp_path / "x.npy", values)
    wrong = {
        "is no file, and .* has no names": "kind",
        r"has the value 0\.5, which is no class": np.resize([1, 0.5], COUNT),
        "has a single class, 7": np.full(COUNT, 7),
        r"has the shape \(9,\), and data\.path=.* has 60 rows": np.arange(9),
        "has missing values, the first in row 2": np.resize([0, 1, np.nan], COUNT),
    }
    for number, (told, labels) in enumerate(wrong.items()):
        if not isinstance(labels, str):
            np.save(tmp_path / f"{number}.npy", labels)
            labels = str(tmp_path / f"{number}.npy")
        with pytest.raises((SettingError, DataError), match=rf"data\.labels=\S+ {told}"):
            data_of(tmp_path / "x.npy", labels=labels).setup()
    np.save(tmp_path / "v.npy", values)
    with pytest.raises(SettingError, match=r"data\.labels=\S+ is a file of data\.path alone"):
        data_of(tmp_path / "x.npy", labels=tmp_path / "1.npy", path_val=tmp_path / "v.npy")
    for name, kinds in {"x": ["a", "b"], "v": [0, 1]}.items():
        table_of(tmp_path / f"{name}.parquet", a=values[:, 0], kind=np.resize(kinds, COUNT))
    mixed = data_of(tmp_path / "x.parquet", labels="kind", path_val=tmp_path / "v.parquet")
    with pytest.raises(DataError, match="has texts for one split, and numbers for another"):
        mixed.setup()


def test_rows_that_are_kept_whole_are_in_the_order_of_their_file(values, tmp_path: Path):
    np.save(tmp_path / "x.npy", values[:3])
    np.save(tmp_path / "v.npy", values)
    data = data_of(tmp_path / "x.npy", standardise="none", path_val=tmp_path / "v.npy")
    data.keep_whole()
    data.setup("test")
    assert list(data.splits) == ["all"]
    assert batches_of(data)["all"].inputs.tolist() == values[:3].tolist()
    assert data.positions["all"].tolist() == [0, 1, 2]


def test_a_disk_without_room_is_told_of_what_is_built(values, tmp_path: Path, monkeypatch):
    np.savez(tmp_path / "x.npz", x=values)
    usage = type("Usage", (), {"free": 100})
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: usage)
    told = rf"data\.cache_dir={tmp_path / 'cache'} is on .* what is built there needs 960 bytes:"
    with pytest.raises(DataError, match=told):
        data_of(tmp_path / "x.npz").setup()


def test_a_last_batch_of_one_row_is_left_out(values, tmp_path: Path):
    np.save(tmp_path / "x.npy", values)
    data = data_of(tmp_path / "x.npy", num_train=41)
    data.setup()
    data.require_variance()
    assert [len(batch.inputs) for batch in data.train_dataloader()] == [10] * 4


def test_pixels_of_images(tmp_path: Path):
    images = np.random.default_rng(0).integers(0, 256, (COUNT, 3, 3), dtype=np.uint8)
    np.save(tmp_path / "x.npy", images)
    for standardise in ("global", "feature"):
        data = data_of(tmp_path / "x.npy", image_shape=[3, 3], standardise=standardise)
        data.setup()
        batch = data.splits["val"].__getitems__([0, 1, 2])
        expected = images[data.splits["val"].order[:3]].reshape(3, 9) / 255
        np.testing.assert_allclose(batch.to_pixels(batch.inputs), expected, atol=1e-5)
        errors = torch.ones(3, 9)
        pixels = batch.to_pixels(batch.inputs + errors) - batch.to_pixels(batch.inputs)
        torch.testing.assert_close(
            batch.squared_errors(errors, torch.ones(3)), pixels.square().mean(1)
        )
    np.save(tmp_path / "x.npy", images.astype(np.float32))
    with pytest.raises(SettingError, match=r"not 0 and 1: set data\.pixel_range="):
        data_of(tmp_path / "x.npy", image_shape=[3, 3]).setup()
    data_of(tmp_path / "x.npy", image_shape=[3, 3], pixel_range=[0, 255]).setup()
    with pytest.raises(SettingError, match="has 16 pixels, and the rows"):
        _ = data_of(tmp_path / "x.npy", image_shape=[4, 4]).input_dim


def test_pixels_of_every_file_lie_in_one_range(tmp_path: Path, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (COUNT, 3, 3), dtype=np.uint8)
    np.save(tmp_path / "x.npy", (pixels / 255).astype(np.float32))
    settings = {"image_shape": [3, 3], "path_test": tmp_path / "test.npy"}
    for test, told in (
        (pixels, "different scales"),
        (pixels.astype(np.float64), r"path_test=.* lie between .* 255, not 0 and 1"),
    ):
        np.save(tmp_path / "test.npy", test)
        for large in (statistics.LARGE, 0):
            monkeypatch.setattr(statistics, "LARGE", large)
            with pytest.raises(SettingError, match=told):
                data_of(tmp_path / "x.npy", **settings).setup()


def test_other_contents_have_another_fingerprint(values, tmp_path: Path):
    def fingerprint() -> str:
        data = data_of(tmp_path / "x.npy", standardise="none")
        data.setup()
        return data.fingerprint()

    np.save(tmp_path / "x.npy", values)
    first = fingerprint()
    assert fingerprint() == first
    values[11, 1] += 1e-3
    np.save(tmp_path / "x.npy", values)
    assert fingerprint() != first


def test_studies_measure_again_where_pixels_have_another_range_or_shape(tmp_path: Path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((40, 64)))
    found = set()
    for settings in (
        {"image_shape": [8, 8], "pixel_range": [0, 1]},
        {"image_shape": [8, 8], "pixel_range": [0, 2]},
        {"image_shape": [4, 16], "pixel_range": [0, 1]},
    ):
        data = data_of(tmp_path / "x.npy", **settings)
        data.setup()
        found.add(of_study(data))
    assert len(found) == 3


def test_statistics_of_large_files_are_kept(values, tmp_path: Path, monkeypatch):
    np.save(tmp_path / "x.npy", values)
    expected = data_of(tmp_path / "x.npy")
    expected.setup()
    monkeypatch.setattr(statistics, "LARGE", 0)
    data_of(tmp_path / "x.npy").setup()
    monkeypatch.setattr(statistics, "scan", None)
    again = data_of(tmp_path / "x.npy")
    again.setup()
    np.testing.assert_array_equal(again.std, expected.std)


def test_statistics_that_are_kept_go_by_the_time_of_the_file(values, tmp_path: Path, monkeypatch):
    """A change between the blocks that stand for the contents shows in it."""
    monkeypatch.setattr(statistics, "LARGE", 0)
    monkeypatch.setattr(module_of_rows, "BLOCK", 8)
    monkeypatch.setattr(module_of_rows, "BLOCKS", 2)
    path, found = tmp_path / "x.npy", []
    for second in (1, 2):
        np.save(path, values)
        os.utime(path, (second, second))
        data = data_of(path)
        data.setup()
        found.append((data.contents, data.mean))
        values[1:-1] += 100
    assert found[0][0] == found[1][0]
    assert (found[1][1] > found[0][1] + 50).all()


def test_statistics_of_other_rows_take_the_place_of_their_own(values, tmp_path: Path):
    np.save(tmp_path / "x.npy", values)
    data = data_of(tmp_path / "x.npy")
    data.standardise_by(torch.full((DIM,), 2.0), torch.full((DIM,), 4.0))
    data.setup()
    for split, samples in data.splits.items():
        inputs = data.splits[split].__getitems__(list(range(len(samples)))).inputs
        np.testing.assert_allclose(inputs, (values[samples.order] - 2) / 4, rtol=1e-6)


def test_arrays_of_one_file_are_kept_apart(values, tmp_path: Path, monkeypatch):
    """Though they are of equal shape and begin alike."""
    monkeypatch.setattr(statistics, "LARGE", 0)
    other = values.copy()
    other[20:] += 100
    np.savez(tmp_path / "x.npz", a=values, b=other)
    save_file(
        {"a": torch.from_numpy(values), "b": torch.from_numpy(other)}, tmp_path / "x.safetensors"
    )
    table = pyarrow.table({"a": values[:, 0], "b": other[:, 0]})
    pyarrow.parquet.write_table(table, tmp_path / "x.parquet")
    for name in ("x.npz", "x.safetensors", "x.parquet"):
        for key, expected in (("a", values), ("b", other)):
            is_table = name == "x.parquet"
            choice = {"columns": [key]} if is_table else {"key": key}
            data = data_of(tmp_path / name, **choice)
            data.setup()
            expected = expected[:, :1] if is_table else expected
            rows = data.splits["train"].rows
            np.testing.assert_array_equal(rows.gather(np.arange(COUNT)), expected)
            train = expected[data.splits["train"].order]
            np.testing.assert_allclose(data.mean, train.mean(0), rtol=1e-5)
    pyarrow.parquet.write_table(table, tmp_path / "y.parquet")
    for groups in ("b", "a"):
        data = data_of(tmp_path / "y.parquet", groups=groups)
        data.setup()
        expected = {"a": other, "b": values}[groups][:, :1]
        np.testing.assert_array_equal(data.splits["val"].rows.gather(np.arange(COUNT)), expected)


def test_by_row_gives_small_splits_two_rows():
    parts = by_row(10, [0.01, 0.0], 0)
    assert [len(part) for part in parts] == [2, 0, 8]


def test_places_are_told_by_file(values, tmp_path: Path):
    folder = tmp_path / "shards"
    folder.mkdir()
    np.save(folder / "a.npy", values)
    np.save(folder / "b.npy", with_nan(values.copy()))
    source = Source.open("data.path", folder, data_of(folder).choice)
    assert source.place(COUNT + 3) == "row 3 of b.npy"
    with pytest.raises(DataError, match=r"the first in row 17 of b\.npy, column 2"):
        data_of(folder).setup()


@pytest.mark.parametrize(
    ("dtype", "most", "told"),
    [
        ("uint8", 1, r"takes 255 for white, .* is 1: .*such as \[0,1\]"),
        ("uint16", 4095, r"takes 65535 for white, .* is 4095: .*such as \[0,4095\]"),
        ("uint8", 16, None),
        ("float32", 1, None),
        ("bool", 1, None),
    ],
)
def test_images_that_are_black_on_the_range_of_their_type_need_one(
    dtype, most, told, tmp_path: Path
):
    pixels = np.random.default_rng(0).integers(0, most, (COUNT, 4), endpoint=True)
    pixels[:, 0] = most
    np.save(tmp_path / "x.npy", pixels.astype(dtype))
    if told is not None:
        with pytest.raises(SettingError, match=rf"^data\.pixel_range=null {told}"):
            data_of(tmp_path / "x.npy", image_shape=[2, 2]).setup()
    given = None if told is None else [0, most]
    data_of(tmp_path / "x.npy", image_shape=[2, 2], pixel_range=given).setup()


def test_a_group_of_two_files_is_refused(values, tmp_path: Path):
    groups = {"x": np.repeat(["a", "b", "c"], 20), "test": np.repeat(["d", "b"], 30)}
    for name, own in groups.items():
        table_of(tmp_path / f"{name}.parquet", a=values[:, 0], who=own)
    settings = {"groups": "who", "path_test": tmp_path / "test.parquet"}
    told = r"data\.groups=who has the group b in data\.path=.* and in data\.path_test=.*"
    with pytest.raises(SettingError, match=told):
        data_of(tmp_path / "x.parquet", **settings).setup()
    for own in (np.repeat("d", COUNT), None):
        columns = {"a": values[:, 0]} | ({} if own is None else {"who": own})
        table_of(tmp_path / "test.parquet", **columns)
        data_of(tmp_path / "x.parquet", **settings).setup()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"num_train": 3}, "data.path={x} gives 3 rows .*, or a larger data.num_train than 3"),
        ({"num_val": 1}, "data.path={x} gives 1 rows .*, or a larger data.num_val than 1"),
        ({"path_test": "one"}, "data.path_test={one} gives 1 rows .* too few: give more rows"),
        (
            {"val_share": 0.8},
            "data.batch_size, or another data.val_share than 0.8 or data.test_share than 0.1",
        ),
        (
            {"groups": "groups", "batch_size": 55},
            "data.val_share than 0.1 or data.test_share than 0.1 or data.groups than {groups}",
        ),
    ],
)
def test_too_few_rows_are_told_with_what_made_them_few(settings, told, values, tmp_path: Path):
    paths = {name: tmp_path / f"{name}.npy" for name in ("x", "one", "groups")}
    np.save(paths["x"], values)
    np.save(paths["one"], values[:1])
    np.save(paths["groups"], np.arange(COUNT) // 5)
    given = {name: paths.get(value, value) for name, value in settings.items()}
    with pytest.raises(SettingError, match=rf"{told.format(**paths)}\.$"):
        data_of(paths["x"], **given).setup()


def test_only_shares_that_are_used_are_checked(values, tmp_path: Path):
    for name in ("x", "v"):
        np.save(tmp_path / f"{name}.npy", values)
    data = data_of(tmp_path / "x.npy", path_val=tmp_path / "v.npy", val_share=0, test_share=0.5)
    data.setup()
    assert {name: len(rows) for name, rows in data.splits.items()} == {
        "train": 30, "val": 60, "test": 30,
    }  # fmt: skip
    with pytest.raises(SettingError, match=r"data\.val_share=0 must lie"):
        data_of(tmp_path / "x.npy", val_share=0)


@pytest.mark.parametrize("place", ["parent", "folder", "file", "values"])
def test_what_may_not_be_read_is_told_with_its_setting(place, values, tmp_path: Path, monkeypatch):
    np.save(tmp_path / "x.npy", values)

    def refused(*args, **kwargs):
        raise PermissionError(13, "Permission denied", tmp_path)

    if place == "folder":
        monkeypatch.setattr(Path, "iterdir", refused)
    elif place == "parent":
        monkeypatch.setattr(Path, "stat", refused)
    elif place == "file":
        monkeypatch.setattr(np, "load", refused)
    else:
        monkeypatch.setattr(module_of_rows, "_hash_of_blocks", refused)
    data = data_of(tmp_path if place == "folder" else tmp_path / "x.npy")
    refusal = r"cannot be read \(Permission denied\): allow reading"
    with pytest.raises(DataError, match=rf"^data\.path=\S+ {refusal}|{refusal}, or let data\.path"):
        _ = data.contents
    if place in ("parent", "folder"):
        assert state_of_files(tmp_path) == []


def test_a_key_for_files_without_names_is_refused(values, tmp_path: Path):
    np.save(tmp_path / "x.npy", values)
    torch.save(torch.from_numpy(values), tmp_path / "x.pt")
    table_of(tmp_path / "x.parquet", a=values[:, 0])
    for name in ("x.npy", "x.pt", "x.parquet"):
        with pytest.raises(
            SettingError, match=rf"data\.key=a names .* {tmp_path / name} has no nam"
        ):
            _ = data_of(tmp_path / name, key="a").source


@pytest.mark.parametrize("kind", ["csr_array", "coo_array"])
def test_a_sparse_matrix_is_refused_with_what_to_do(kind, values, tmp_path: Path):
    scipy.sparse.save_npz(tmp_path / "x.npz", getattr(scipy.sparse, kind)(values))
    for key in (None, "data"):
        with pytest.raises(DataError, match=r"a sparse matrix of scipy: save its \.toarray\(\)"):
            data_of(tmp_path / "x.npz", key=key).setup()


def test_columns_that_are_constant_but_for_rounding_are_scaled_by_1(values, tmp_path: Path):
    values = values.astype(np.float64)
    values[:, 1] = 0.1 + 0.2 * (np.arange(COUNT) % 2 * 1e-16)
    values[::2, 1] = 0.1 * 3 - 0.2
    assert len(set(values[:, 1])) == 2
    np.save(tmp_path / "x.npy", values)
    data = data_of(tmp_path / "x.npy")
    with pytest.warns(UserWarning, match=r"has 1 columns that are constant .* 1 \(from 0\)"):
        data.setup()
    assert data.std[1] == 1
    # A small deviation round a small mean is one.
    values[:, 1] = values[:, 0] * 1e-12
    np.save(tmp_path / "x.npy", values)
    data = data_of(tmp_path / "x.npy")
    data.setup()
    assert data.std[1] == pytest.approx(1e-12 * data.std[0])


@pytest.mark.parametrize("standardise", ["feature", "global"])
@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_columns_beyond_the_range_of_squares_are_refused_by_name(
    scale, standardise, values, tmp_path: Path
):
    values = values.astype(np.float64)
    columns = {"a": values[:, 0] * scale, "b": values[:, 1] * scale}
    table_of(tmp_path / "x.parquet", **columns)
    with pytest.raises(DataError, match=r"in column a, whose squares are beyond the range of flo"):
        data_of(tmp_path / "x.parquet", standardise=standardise).setup()
    columns = {"a": values[:, 0], "b": values[:, 1] * scale}
    table_of(tmp_path / "x.parquet", **columns)
    if (scale, standardise) == (1e-200, "global"):
        data_of(tmp_path / "x.parquet", standardise=standardise).setup()
        return
    with pytest.raises(DataError, match="in column b, whose squares"):
        data_of(tmp_path / "x.parquet", standardise=standardise).setup()


def test_the_fingerprint_needs_few_rows_at_a_time(values, tmp_path: Path, monkeypatch):
    np.save(tmp_path / "x.npy", values)
    data, most = data_of(tmp_path / "x.npy"), []
    data.setup()
    expected, gather = data.fingerprint(), data.splits["train"].rows.gather
    monkeypatch.setattr(module, "FINGERPRINT_PIECE", 7)
    rows = type(data.splits["train"].rows)
    monkeypatch.setattr(rows, "gather", lambda self, n: most.append(len(n)) or gather(n))
    assert data.fingerprint() == expected
    assert max(most) == 7


def test_folders_in_a_folder_of_shards_are_told(values, tmp_path: Path):
    folder = tmp_path / "shards"
    for name in ("deep", "other", ".hidden"):
        (folder / name).mkdir(parents=True)
    np.save(folder / "deep" / "a.npy", values)
    np.save(folder / ".hidden" / "a.npy", values)
    with pytest.raises(SettingError, match=r"no file of numbers .*; its folders deep do: name one"):
        _ = data_of(folder).source
    np.save(folder / "a.npy", values)
    with pytest.warns(UserWarning, match=r"files of numbers in the folders deep, which are not"):
        assert data_of(folder).source.count == COUNT


def test_an_empty_shard_is_left_out_with_a_warning(values, tmp_path: Path):
    folder = tmp_path / "shards"
    folder.mkdir()
    np.save(folder / "a.npy", values[:0])
    with pytest.raises(DataError, match="which is empty"):
        _ = data_of(folder).source
    np.save(folder / "b.npy", values)
    with pytest.warns(UserWarning, match=r"shards: a\.npy without a row left out"):
        assert data_of(folder).source.count == COUNT


def test_a_tilde_is_the_home_of_the_user(values, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("x", "v", "t"):
        np.save(tmp_path / f"{name}.npy", values)
    data = data_of(Path("~/x.npy"), cache_dir=tmp_path, path_val="~/v.npy", path_test="~/t.npy")
    data.setup()
    assert len(data.splits["test"]) == COUNT
    assert ImageFolder("~", tmp_path).root == ImagePatches("~", tmp_path).root == tmp_path
    assert state_of_files("~/x.npy") == state_of_files(tmp_path / "x.npy") != []
    images = "sparse_lightning.data.image_folder.ImageFolder"
    check_data(OmegaConf.create({"data": {"_target_": images, "root": "~"}}))


def test_values_just_beyond_white_are_told_to_their_last_digit(values, tmp_path: Path):
    pixels = np.random.default_rng(0).random((COUNT, 4))
    pixels[0, 0] = 1 + 2**-52
    np.save(tmp_path / "x.npy", pixels)
    with pytest.raises(SettingError, match=r"and 1\.0000000000000002, not 0 and 1: set"):
        data_of(tmp_path / "x.npy", image_shape=[2, 2]).setup()


ANONYMOUS = """
import sys
import numpy as np
from sparse_lightning.data.arrays import Arrays

def anonymous() -> int:
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) // 1024

before = anonymous()
data = Arrays(sys.argv[1], sys.argv[2], num_val=1000, num_test=1000)
data.setup()
data.fingerprint()
peak = anonymous()
for number, batch in zip(range(2000), data.train_dataloader()):
    if number % 50 == 0:
        peak = max(peak, anonymous())
print(peak - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_rows_on_disk_take_no_memory(tmp_path: Path):
    """1 GB of rows, of which batches, indices and pieces of 32 MiB are in memory."""
    count, dim = 1_000_000, 256
    generator = np.random.default_rng(0)
    array = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, (count, dim))
    for start in range(0, count, 50_000):
        array[start : start + 50_000] = generator.standard_normal((50_000, dim), np.float32)
    array.flush()
    arguments = [str(tmp_path / "x.npy"), str(tmp_path / "cache")]
    done = subprocess.run(
        [sys.executable, "-c", ANONYMOUS, *arguments], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 400  # MiB
