"""An image file in, a small image out, grey or in colour, whatever kind of image file it is.

Grey is a weighted sum of the colours, so it commutes with resizing and cropping: a JPEG is decoded
to grey alone, without its colours, in half the time. A large JPEG is also decoded at a half, a
quarter or an eighth of its size, as long as twice the wanted size is left for the antialiased
resize, which then removes what little the two ways differ in.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn.functional import interpolate

from sparse_lightning.errors import DataError

# Where Pillow, too, begins to suspect a small file that unfolds to fill the memory.
MOST_PIXELS = 89_478_485

# A JPEG is decoded to no less than this many times the wanted size.
FINEST = 2

# Below this number 16 bits hold what a camera or scanner of 12 bits has measured.
DEEP = 2**12

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "AVIF", "JPEG2000")


class UnusableImage(Exception):
    """A file to be passed over; the message ends the sentence 'it ...'."""


@contextmanager
def without_decoder_warnings() -> Iterator[None]:
    """Silence what Pillow says of files that it reads all the same; not for threads to enter."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
        yield


def read_grey(path: Path, shorter_side: int, smallest: int) -> Tensor:
    """Read an image as grey, upright, its shorter side resized with antialiasing.

    Args:
        path: the file.
        shorter_side: pixels of the result's shorter side.
        smallest: pixels that the file's own shorter side must have.

    Returns:
        (height, width), uint8.

    Raises:
        UnusableImage: a file that is unreadable, damaged, too small or too large, or uniform.
        DataError: a file that is not there any more.
    """
    return read_image(path, shorter_side, smallest)[0]


def read_image(path: Path, shorter_side: int, smallest: int, mode: str = "L") -> Tensor:
    """`read_grey` with a choice of channels, (1, height, width) or (3, height, width), uint8.

    Args:
        path, shorter_side, smallest: as there.
        mode: Pillow's, ``L`` for grey or ``RGB`` for colours.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(
            f"{path} has vanished since its folder was listed: see that data.root stays in "
            "place while patches are made, and run again."
        ) from error
    except OSError as error:
        raise UnusableImage(f"cannot be read ({error.strerror or error})") from error
    try:
        image = _resized(_decoded(content, shorter_side, smallest, mode), shorter_side)
    except UnusableImage:
        raise
    except Exception as error:  # Decoders raise anything at all on damaged files.
        raise UnusableImage(f"is damaged, or no image ({type(error).__name__})") from error
    if (image.amin((1, 2)) == image.amax((1, 2))).all():
        raise UnusableImage("is all of one colour")
    return image


@cache
def _formats() -> tuple[str, ...]:
    """Those of `FORMATS` that this build of Pillow reads; they are registered all at once here."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _decoded(content: bytes, shorter_side: int, smallest: int, mode: str) -> Tensor:
    """(channels, height, width), uint8, at the file's resolution, or a large JPEG's reduced one."""
    with Image.open(io.BytesIO(content), formats=_formats()) as image:
        width, height = image.size
        shorter = min(width, height)
        if width * height > MOST_PIXELS:
            raise UnusableImage(f"has {width}×{height} pixels, too many")
        if shorter < smallest:
            raise UnusableImage(f"has {width}×{height} pixels, too few")
        # Does nothing to other formats.
        least = FINEST * shorter_side
        image.draft(mode, (math.ceil(least * width / shorter), math.ceil(least * height / shorter)))
        ImageOps.exif_transpose(image, in_place=True)
        pixels = torch.from_numpy(_pixels(image, mode))
        if pixels.ndim == 3:
            return pixels.permute(2, 0, 1)
        # Deep greys have no colours.
        return pixels[None].expand(3 if mode == "RGB" else 1, -1, -1)


def _pixels(image: Image.Image, mode: str) -> np.ndarray:
    """(height, width) or (height, width, 3), uint8; the first frame of an animated image."""
    if image.mode.startswith("I"):
        # Pillow itself would cut 16 bits off at 255.
        deep = np.asarray(image).astype(np.int64)
        if deep.min() < 0 or deep.max() > 65_535:
            raise UnusableImage("has pixels of 32 bits")
        if 0 < deep.max() < DEEP:
            raise UnusableImage(
                "uses 12 or fewer of its 16 bits, of which 8 bits would keep few greys (scale its "
                "greys up to 65,535)"
            )
        return (deep // 257).astype(np.uint8)
    if image.mode == "F":
        raise UnusableImage("has floating-point pixels, of unknown range")
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")
    elif image.mode not in ("L", "LA", "RGB", "RGBA"):
        image = image.convert("RGB")
    return np.array(image if image.mode == mode else image.convert(mode))


def _resized(image: Tensor, shorter_side: int) -> Tensor:
    height, width = image.shape[1:]
    shorter = min(height, width)
    size = [shorter_side * height // shorter, shorter_side * width // shorter]
    if size[0] * size[1] > MOST_PIXELS:
        raise UnusableImage(f"has {width}×{height} pixels, too long a strip")
    image = image.contiguous()[None]
    return interpolate(image, size=size, mode="bilinear", antialias=True)[0].contiguous()
