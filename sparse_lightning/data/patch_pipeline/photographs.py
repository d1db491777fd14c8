"""Which photographs there are: those of a folder, or those that two Python packages carry."""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from sparse_lightning.data.patch_pipeline.passed_over import PassedOver
from sparse_lightning.errors import DataError

EXTENSIONS = frozenset(
    f".{name}"
    for name in (
        *("jpg", "jpeg", "jpe", "jfif", "png", "gif", "bmp", "webp"),
        *("tif", "tiff", "ppm", "pgm", "pnm", "avif", "jp2"),
    )
)

# Photographs of the visible world alone: no drawings, text, microscopes, telescopes or scanners.
SAMPLE_PHOTOGRAPHS = (
    "skimage/data/astronaut.png",
    "skimage/data/brick.png",
    "skimage/data/camera.png",
    "skimage/data/chelsea.png",
    "skimage/data/coffee.png",
    "skimage/data/coins.png",
    "skimage/data/grass.png",
    "skimage/data/gravel.png",
    "skimage/data/motorcycle_left.png",
    "skimage/data/rocket.jpg",
    "sklearn/datasets/images/china.jpg",
    "sklearn/datasets/images/flower.jpg",
)


# Images of a folder have no samples.
OR_SAMPLES = "With data=imagenet_patches data.root=null takes sample photographs."


class Photograph(NamedTuple):
    """An image file: its name within the collection, its path, size in bytes and time of change."""

    name: str
    path: Path
    size: int
    changed: int


def find_photographs(root: Path) -> list[Photograph]:
    """Every image file under a folder, at any depth, sorted by name.

    Files and folders whose names begin with a dot are left out: they are those of other programs,
    such as thumbnails and what was deleted.

    Symbolic links are followed. What two names lead to is taken under the first of them, so that
    no image is in two splits and loops of links end.

    Raises:
        DataError: a folder that is missing, cannot be read, or holds no images.
    """
    require_folder(root)
    passed_over = PassedOver()
    found = sorted(_walk(str(root), "", set(), passed_over))
    if not found:
        told = passed_over.report(everything=True)
        raise DataError(
            f"data.root={root} holds no image files ({', '.join(sorted(EXTENSIONS))})"
            f"{f': {told}' if told else ''}. Set data.root to a folder that "
            f"does. {OR_SAMPLES}"
        )
    if told := passed_over.report():
        _tell_once(f"data.root={root}: {told}.")
    return found


@cache
def _tell_once(text: str) -> None:
    print(text, file=sys.stderr)


def require_folder(root: Path) -> None:
    """Raise `DataError` unless ``data.root`` is a folder that can be read."""
    try:
        if not stat.S_ISDIR(root.stat().st_mode):
            raise DataError(f"data.root={root} is a file: set data.root to a folder of images.")
        os.listdir(root)
    except OSError as error:
        raise DataError(
            f"data.root={root} cannot be read ({error.strerror or error}): set data.root to a "
            f"folder of images. {OR_SAMPLES}"
        ) from error


def _walk(
    folder: str, prefix: str, seen: set[tuple[int, int]], passed_over: PassedOver
) -> Iterator[Photograph]:
    """Photographs at or below a folder; what cannot be read is passed over, and noted."""
    try:
        status = os.stat(folder)
        names = sorted(os.listdir(folder))
    except OSError as error:
        passed_over.add_unreadable(prefix.rstrip("/") or folder, error)
        return
    if (status.st_dev, status.st_ino) in seen:
        return
    seen.add((status.st_dev, status.st_ino))
    for name in names:
        # A leading dot marks what other systems leave beside images, under the images' own names.
        if name.startswith("."):
            continue
        path = os.path.join(folder, name)
        try:
            status = os.stat(path)
        except OSError as error:
            passed_over.add_unreadable(f"{prefix}{name}", error)
            continue
        if stat.S_ISDIR(status.st_mode):
            yield from _walk(path, f"{prefix}{name}/", seen, passed_over)
        elif not stat.S_ISREG(status.st_mode):
            continue
        elif os.path.splitext(name)[1].lower() not in EXTENSIONS:
            passed_over.add_other(f"{prefix}{name}")
        elif (status.st_dev, status.st_ino) not in seen:
            seen.add((status.st_dev, status.st_ino))
            yield Photograph(f"{prefix}{name}", Path(path), status.st_size, status.st_mtime_ns)


def sample_photographs() -> list[Photograph]:
    """The photographs that scikit-image and scikit-learn carry, sorted by name."""
    found = []
    for name in SAMPLE_PHOTOGRAPHS:
        package, _, inside = name.partition("/")
        spec = find_spec(package)
        path = Path(spec.origin).parent / inside if spec and spec.origin else None
        if path is not None and path.is_file():
            status = path.stat()
            found.append(Photograph(name, path, status.st_size, status.st_mtime_ns))
    if len(found) < 3:
        raise DataError(
            "data.root=null needs the sample photographs of scikit-image and scikit-learn, of "
            f"which {len(found)} are installed: install both packages, or set data.root to a "
            "folder of images."
        )
    return found


def in_seeded_order(photographs: list[Photograph], seed: int) -> list[Photograph]:
    """A random order that has files of equal size beside each other.

    It depends on the seed, names and sizes alone. Copies of one file are of one size, so that few
    files need to be read to find those that a cut through this order would part.
    """

    def rank(photograph: Photograph) -> tuple[bytes, bytes]:
        size, name = str(photograph.size).encode(), os.fsencode(photograph.name)
        return tuple(hashlib.sha256(f"{seed}/".encode() + part).digest() for part in (size, name))

    return sorted(photographs, key=rank)


def copies(photographs: Iterable[Photograph], others: Iterable[Photograph]) -> dict[str, str]:
    """Name of each photograph that is, byte by byte, one of the others, and that other's name.

    With the same list twice: the photographs that repeat an earlier one. Only files are read that
    another file is as large as.
    """
    by_size: dict[int, list[Photograph]] = {}
    for other in others:
        by_size.setdefault(other.size, []).append(other)

    @cache
    def names_by_content(size: int) -> dict[bytes, str]:
        return {_digest(other): other.name for other in reversed(by_size[size])}

    found = {}
    for photograph in photographs:
        if by_size.get(photograph.size, [photograph]) != [photograph]:
            original = names_by_content(photograph.size).get(_digest(photograph))
            if original not in (None, photograph.name):
                found[photograph.name] = original
    return found


def _digest(photograph: Photograph) -> bytes:
    """What a file holds; a file that cannot be read is like no other, and found so later."""
    try:
        with photograph.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return os.fsencode(photograph.name)
