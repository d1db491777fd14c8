"""MNIST from the package: its files, its splits, its batches."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torchvision

from sparse_lightning.data.batch import EpochShuffle, TensorSlices, slice_loader
from sparse_lightning.data.mnist import MNIST, SIZES
from sparse_lightning.errors import DataError, SettingError


def ready(root: Path, **settings) -> MNIST:
    data = MNIST(root, **settings)
    data.prepare_data()
    data.setup()
    return data


@pytest.fixture(scope="module")
def mnist(mnist_root: Path) -> MNIST:
    return ready(mnist_root)


def test_splits_are_disjoint_and_complete(mnist: MNIST, mnist_root: Path):
    assert {name: len(split) for name, split in mnist.splits.items()} == {
        "train": 55_000,
        "val": 5_000,
        "test": 10_000,
    }
    whole = torchvision.datasets.MNIST(str(mnist_root)).data.flatten(1)
    found = [
        bytes(image)
        for name in ("train", "val")
        for image in mnist.splits[name].tensors.inputs.mul(0.3081).add(0.1307).mul(255)
        .round().byte().numpy()
    ]  # fmt: skip
    assert sorted(found) == sorted(map(bytes, whole.numpy()))


def test_pixels_labels_and_normalisation(mnist: MNIST, mnist_root: Path):
    theirs = torchvision.datasets.MNIST(str(mnist_root), train=False)
    batch = mnist.splits["test"].__getitems__([0, 17, 9_999])
    torch.testing.assert_close(
        batch.inputs, (theirs.data[[0, 17, 9_999]].flatten(1) / 255 - 0.1307) / 0.3081
    )
    torch.testing.assert_close(
        batch.to_pixels(batch.inputs), theirs.data[[0, 17, 9_999]].flatten(1) / 255
    )
    assert batch.labels.tolist() == theirs.targets[[0, 17, 9_999]].tolist()


def test_split_has_a_seed_of_its_own(mnist_root: Path):
    small = {"num_train": 300, "num_val": 50, "num_test": 10}
    torch.manual_seed(1)
    first = ready(mnist_root, shuffle_seed=1, **small)
    torch.manual_seed(2)
    second = ready(mnist_root, shuffle_seed=2, **small)
    third = ready(mnist_root, split_seed=1, **small)
    for name in ("train", "val"):
        assert torch.equal(first.splits[name].tensors.inputs, second.splits[name].tensors.inputs)
        assert not torch.equal(first.splits[name].tensors.inputs, third.splits[name].tensors.inputs)


def test_training_order_follows_seed_and_epoch():
    orders = {
        (seed, epoch): tuple(shuffled(seed, epoch)) for seed in range(3) for epoch in range(3)
    }
    assert len(set(orders.values())) == 9
    assert all(sorted(order) == list(range(50)) for order in orders.values())
    assert tuple(shuffled(1, 2)) == orders[1, 2]


def shuffled(seed: int, epoch: int) -> list[int]:
    sampler = EpochShuffle(50, seed)
    sampler.set_epoch(epoch)
    return list(sampler)


def test_a_batch_is_one_indexing_operation():
    data = TensorSlices(torch.arange(20.0).view(10, 2), torch.tensor(2.0), torch.tensor(1.0))
    batches = list(slice_loader(data, 4))
    assert [len(batch.inputs) for batch in batches] == [4, 4, 2]
    assert torch.equal(batches[1].inputs, data.tensors.inputs[4:8])
    assert batches[0].labels is None
    assert [len(batch.inputs) for batch in slice_loader(data, 4, drop_last=True)] == [4, 4]


def test_altered_and_truncated_files_are_refused(mnist_root: Path, tmp_path: Path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    labels = "t10k-labels-idx1-ubyte"
    for damage in (lambda content: content[:-10], lambda content: content[:-1] + b"\x07"):
        (raw / labels).write_bytes(damage((mnist_root / "MNIST" / "raw" / labels).read_bytes()))
        with pytest.raises(DataError, match=f"{labels} is truncated or altered"):
            MNIST(tmp_path).prepare_data()
        assert (raw / labels).exists(), "a user's file is never replaced"


def test_existing_folder_is_used_as_it_is(mnist_root: Path, tmp_path: Path):
    shutil.copytree(mnist_root / "MNIST", tmp_path / "MNIST")
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "MNIST" / "raw").iterdir()}
    MNIST(tmp_path).prepare_data()
    assert stamps == {p: p.stat().st_mtime_ns for p in (tmp_path / "MNIST" / "raw").iterdir()}


def test_folder_that_cannot_be_written(tmp_path: Path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(DataError, match=r"data\.root=.*cannot be written"):
        MNIST(tmp_path / "file" / "data").prepare_data()


def test_download_without_network_says_which_files_go_where(tmp_path: Path, monkeypatch):
    def offline(self):
        raise RuntimeError("Error downloading train-images-idx3-ubyte.gz")

    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "download", offline)
    with pytest.raises(DataError, match="FashionMNIST cannot be downloaded") as error:
        MNIST(tmp_path, name="FashionMNIST").prepare_data()
    assert str(tmp_path / "FashionMNIST" / "raw") in str(error.value)
    assert "train-images-idx3-ubyte.gz" in str(error.value)


def write_idx(path: Path, shape: tuple[int, ...]) -> None:
    """A file of zeros in the format of MNIST."""
    header = bytes([0, 0, 8, len(shape)]) + b"".join(size.to_bytes(4, "big") for size in shape)
    with path.open("wb") as file:
        file.write(header)
        file.truncate(len(header) + math.prod(shape))


@pytest.fixture
def fashion(tmp_path: Path, monkeypatch) -> Path:
    """Whole files of Fashion-MNIST's sizes, and no network."""

    def offline(*arguments, **settings):
        raise URLError("Name or service not known")

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", offline)
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for name, shape in SIZES.items():
        write_idx(raw / name, shape)
    return raw


def test_files_of_a_sibling_are_enough(fashion: Path, tmp_path: Path):
    data = MNIST(tmp_path, name="FashionMNIST", num_train=10, num_val=10, num_test=10)
    data.prepare_data()
    data.setup()


@pytest.mark.parametrize("name", SIZES)
def test_a_damaged_file_of_a_sibling_is_called_damaged(fashion: Path, tmp_path: Path, name):
    for content in (b"", (fashion / name).read_bytes()[:-1], b"<html>404</html>"):
        (fashion / name).write_bytes(content)
        with pytest.raises(DataError, match=f"{name} is damaged: it has {len(content):,} bytes"):
            MNIST(tmp_path, name="FashionMNIST").prepare_data()
    (fashion / name).unlink()
    with pytest.raises(
        DataError, match=rf"cannot be downloaded \(.*not known.*files {name}\.gz into"
    ):
        MNIST(tmp_path, name="FashionMNIST").prepare_data()
    (fashion / f"{name}.gz").write_bytes(b"half of it")
    with pytest.raises(DataError, match=rf"{name}\.gz in .*: damaged \(by MD5\)"):
        MNIST(tmp_path, name="FashionMNIST").prepare_data()
    (fashion / name).mkdir()
    with pytest.raises(DataError, match=r"damaged|cannot be"):
        MNIST(tmp_path, name="FashionMNIST").prepare_data()


def test_a_file_of_the_right_length_that_is_none_is_called_damaged(fashion: Path, tmp_path: Path):
    path = fashion / "t10k-labels-idx1-ubyte"
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(DataError, match=f"{path.name} is damaged: it does not begin"):
        MNIST(tmp_path, name="FashionMNIST").prepare_data()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_train": 58_000}, r"data\.num_train=58000 and data\.num_val=5000"),
        ({"num_test": 10_001}, r"data\.num_test=10001"),
        ({"num_val": 0}, r"data\.num_val=0"),
        ({"batch_size": 0}, r"data\.batch_size=0"),
        ({"name": "CIFAR10"}, r"data\.name=CIFAR10"),
        ({"std": 0.0}, r"data\.std=0"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(SettingError, match=message):
        MNIST("data", **settings)


def test_batches_of_one_sample_are_found():
    MNIST("data").require_variance()
    MNIST("data", num_train=501, drop_last=True).require_variance()
    for settings in ({"num_train": 501}, {"num_val": 251}, {"batch_size": 1}):
        with pytest.raises(SettingError, match="a batch of 1 sample"):
            MNIST("data", **settings).require_variance()
