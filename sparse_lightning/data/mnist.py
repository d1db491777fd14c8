"""MNIST, which travels inside the package, and its siblings Fashion-MNIST and KMNIST.

All are read by torchvision from its own folder layout, so that an existing torchvision folder is
used as it is. Where MNIST's files are missing, they are unpacked from the package: nothing is
downloaded. The siblings come through torchvision's download.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import struct
import zlib
from collections.abc import Iterable
from http.client import HTTPException
from importlib import resources
from pathlib import Path
from urllib.error import URLError

import torch
import torchvision
from torch import Tensor
from torchvision.datasets.utils import check_integrity

from sparse_lightning.data.batch import TensorSlices
from sparse_lightning.data.module import SplitDataModule
from sparse_lightning.errors import DataError, SettingError, require_positive
from sparse_lightning.files import replaced_whole

# Of the unpacked files of LeCun, Cortes & Burges.
MNIST_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}

# What each file holds, which its first bytes say.
SIZES: dict[str, tuple[int, ...]] = {
    "train-images-idx3-ubyte": (60_000, 28, 28),
    "train-labels-idx1-ubyte": (60_000,),
    "t10k-images-idx3-ubyte": (10_000, 28, 28),
    "t10k-labels-idx1-ubyte": (10_000,),
}
# What torchvision raises where a file does not come, or does not unpack.
UNFETCHED = (
    URLError,
    RuntimeError,
    ConnectionError,
    TimeoutError,
    HTTPException,
    EOFError,
    zlib.error,
)


class MNIST(SplitDataModule):
    """Standardised 28×28 images as vectors of 784, in three fixed splits.

    Args:
        root: folder in torchvision's layout, ``root/MNIST/raw``.
        name: torchvision's name: MNIST, FashionMNIST or KMNIST.
        mean, std: pixels in [0, 1] become (pixel − mean) / std.
        batch_size: samples in a batch.
        num_train, num_val: disjoint random subsets of the 60,000 training images.
        num_test: the first so many of the 10,000 test images.
        split_seed: fixes the split, whatever the seed of training is.
        shuffle_seed: fixes the order of training samples in each epoch.
        drop_last: leave out the last, incomplete batch of training.
        sorted_by_class: make training batches of one class each, as far as the class goes: the
            hardest case for a hinge on the variance over a batch.
    """

    is_the_same_everywhere = True
    input_dim = 784
    image_shape = (28, 28)

    def __init__(
        self,
        root: str | Path,
        name: str = "MNIST",
        mean: float = 0.1307,
        std: float = 0.3081,
        batch_size: int = 250,
        num_train: int = 55_000,
        num_val: int = 5_000,
        num_test: int = 10_000,
        split_seed: int = 0,
        shuffle_seed: int = 0,
        drop_last: bool = False,
        sorted_by_class: bool = False,
    ) -> None:
        sizes = {"train": num_train, "val": num_val, "test": num_test}
        super().__init__(sizes, batch_size, shuffle_seed, drop_last)
        if name not in ("MNIST", "FashionMNIST", "KMNIST"):
            raise SettingError(f"data.name={name} must be MNIST, FashionMNIST or KMNIST.")
        require_positive("data.std", std)
        if num_train + num_val > 60_000:
            raise SettingError(
                f"data.num_train={num_train} and data.num_val={num_val} are cut from 60,000 "
                "training images: their sum must not exceed that."
            )
        if num_test > 10_000:
            raise SettingError(f"data.num_test={num_test} must not exceed the 10,000 test images.")
        self.root, self.name = Path(root), name
        self.mean, self.std = torch.tensor(mean), torch.tensor(std)
        self.split_seed = split_seed
        self.sorted_by_class = sorted_by_class

    @property
    def title(self) -> str:
        """What figures say of the data."""
        return self.name

    def prepare_data(self) -> None:
        """Put the files in place where they are missing, and check those of MNIST.

        Raises:
            DataError: files that are damaged, cannot be written, or cannot be downloaded.
        """
        if self.splits:  # read already
            return
        folder = self.root / self.name / "raw"
        try:
            if self.name == "MNIST":
                seed_mnist(folder)
            else:
                self._download(folder)
                require_whole(folder, self.name)
        except OSError as error:
            raise DataError(
                f"data.root={self.root} cannot be written ({error.strerror or error}): set "
                "data.root to a folder that can."
            ) from error

    def _download(self, folder: Path) -> None:
        """Let torchvision unpack or download files that are missing."""
        missing = [name for name in SIZES if not (folder / name).is_file()]
        if not missing:
            return
        # One that is there and damaged would be told of as one that is missing.
        present = [name for name in SIZES if name not in missing]
        require_whole(folder, self.name, present)
        damaged = self._damaged_archives(folder)
        try:
            self._dataset(train=True, download=True)
        except UNFETCHED as error:
            reason = str(getattr(error, "reason", error)).strip().splitlines()[-1]
            if damaged:
                raise DataError(
                    f"{', '.join(damaged)} in {folder}: damaged (by MD5), and cannot be "
                    f"downloaded anew ({reason}). Put whole files there, or set data.root to a "
                    "folder that has them in torchvision's layout."
                ) from error
            needed = ", ".join(f"{name}.gz" for name in missing)
            raise DataError(
                f"{self.name} cannot be downloaded ({reason}): put its files {needed} into "
                f"{folder}, or set data.root to a folder that has them in torchvision's layout."
            ) from error

    def _damaged_archives(self, folder: Path) -> list[str]:
        resources = getattr(torchvision.datasets, self.name).resources
        return [
            name
            for name, md5 in resources
            if (folder / name).is_file() and not check_integrity(folder / name, md5)
        ]

    def _dataset(self, train: bool, download: bool = False) -> torchvision.datasets.MNIST:
        kind = getattr(torchvision.datasets, self.name)
        return kind(str(self.root), train=train, download=download)

    def setup(self, stage: str | None = None) -> None:
        if self.splits:
            return
        generator = torch.Generator().manual_seed(self.split_seed)
        order = torch.randperm(60_000, generator=generator)
        num_train, num_val = self.sizes["train"], self.sizes["val"]
        train_set = self._dataset(train=True)
        # From the far end, so that a smaller num_train leaves the validation set as it is.
        for split, rows in {"train": order[:num_train], "val": order[-num_val:]}.items():
            self.splits[split] = self._slices(train_set, rows)
            self.positions[split] = rows.numpy()
        self.splits["test"] = self._slices(
            self._dataset(train=False), torch.arange(self.sizes["test"])
        )

    def _slices(self, dataset: torchvision.datasets.MNIST, rows: Tensor) -> TensorSlices:
        pixels = dataset.data[rows].flatten(1).float().div_(255)
        inputs = pixels.sub_(self.mean).div_(self.std)
        return TensorSlices(inputs, self.std, self.mean, dataset.targets[rows])


def seed_mnist(folder: Path) -> None:
    """Unpack the package's MNIST files that ``folder`` lacks, and check all four.

    Raises:
        DataError: a file there is not MNIST's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    packed = resources.files("sparse_lightning.data") / "idx"
    for name, expected in MNIST_SHA256.items():
        path = folder / name
        if not path.exists():
            content = gzip.decompress((packed / f"{name}.gz").read_bytes())
            with replaced_whole(path) as temporary:
                temporary.write_bytes(content)
        with _readable(path).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != expected:
            raise DataError(
                f"{path} is truncated or altered (its SHA-256 is not MNIST's): delete it, and it "
                "is unpacked anew, or set data.root to another folder."
            )


def require_whole(folder: Path, title: str, names: Iterable[str] | None = None) -> None:
    """Raise `DataError` unless files in the format of MNIST are there, and as long as they say.

    Args:
        folder: where they are.
        title: of the data, for messages.
        names: which of the four; None for all.
    """
    for name in SIZES if names is None else names:
        path, shape = folder / name, SIZES[name]
        # Two bytes of 0, 8 for unsigned bytes, the number of dimensions, and these.
        header = struct.pack(f">4B{len(shape)}I", 0, 0, 8, len(shape), *shape)
        expected = len(header) + math.prod(shape)
        with _readable(path).open("rb") as file:
            found = file.read(len(header))
        size = path.stat().st_size
        if (found, size) != (header, expected):
            what = "does not begin as it should" if size == expected else f"has {size:,} bytes"
            raise DataError(
                f"{path} is damaged: it {what}, and {title}'s has {expected:,} bytes of the format "
                "of MNIST. Delete it, and it is unpacked or downloaded anew, or set data.root to "
                "another folder."
            )


def _readable(path: Path) -> Path:
    """The path, unless its file cannot be read."""
    try:
        with path.open("rb"):
            return path
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror or error}): allow reading, or set data.root "
            "to another folder."
        ) from error
