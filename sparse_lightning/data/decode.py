"""An image file in, a small grey image out, whatever kind of image file it is.

Grey is a weighted sum of the colours, so it commutes with resizing and cropping: a JPEG is decoded
to grey alone, without its colours, in half the time. 8-bit JPEG and PNG files, nearly all there
are, are decoded by torchvision; every other kind by Pillow.
"""

from __future__ import annotations

import io
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
from torchvision.io import ImageReadMode, decode_image

from sparse_lightning.errors import DataError

# Where Pillow, too, begins to suspect a small file that unfolds to fill the memory.
MOST_PIXELS = 89_478_485

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "AVIF", "JPEG2000")


class UnusableImage(Exception):
    """A file to be passed over; the message ends the sentence 'it ...'."""


@contextmanager
def without_decoder_warnings() -> Iterator[None]:
    """Silence what decoders say of files that they read all the same; not for threads to enter.

    Also that torchvision's decoders are deprecated since 0.29: torchvision still has them, and to
    leave it is a decision for this package, not for its users.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", r"The image decoding .* capabilities of TorchVision")
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
        grey = _resized(_decoded(content, smallest), shorter_side)
    except UnusableImage:
        raise
    except Exception as error:  # Decoders raise anything at all on damaged files.
        raise UnusableImage(f"is damaged, or no image ({type(error).__name__})") from error
    if grey.min() == grey.max():
        raise UnusableImage("is all of one colour")
    return grey


@cache
def _formats() -> tuple[str, ...]:
    """Those of `FORMATS` that this build of Pillow reads; they are registered all at once here."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _decoded(content: bytes, smallest: int) -> Tensor:
    """(height, width), uint8, at the file's own resolution."""
    with Image.open(io.BytesIO(content), formats=_formats()) as image:
        width, height = image.size
        if width * height > MOST_PIXELS:
            raise UnusableImage(f"has {width}×{height} pixels, too many")
        if min(width, height) < smallest:
            raise UnusableImage(f"has {width}×{height} pixels, too few")
        if image.format not in ("JPEG", "PNG") or image.mode not in ("L", "LA", "RGB", "RGBA"):
            return torch.from_numpy(_grey_by_pillow(image))
    # A copy, because torch wants memory that it may write to.
    encoded = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    grey = decode_image(encoded, mode=ImageReadMode.GRAY, apply_exif_orientation=True)[0]
    return grey if grey.dtype is torch.uint8 else (grey.int() // 257).byte()


def _grey_by_pillow(image: Image.Image) -> np.ndarray:
    """(height, width), uint8; the first frame of an animated image."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        # Pillow itself would cut 16 bits off at 255.
        deep = np.asarray(image).astype(np.int64)
        if deep.min() < 0 or deep.max() > 65_535:
            raise UnusableImage("has pixels of 32 bits")
        return (deep // 257).astype(np.uint8)
    if image.mode == "F":
        raise UnusableImage("has floating-point pixels, of unknown range")
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")
    elif image.mode not in ("L", "LA", "RGB", "RGBA"):
        image = image.convert("RGB")
    return np.array(image.convert("L"))


def _resized(grey: Tensor, shorter_side: int) -> Tensor:
    height, width = grey.shape
    shorter = min(height, width)
    size = [shorter_side * height // shorter, shorter_side * width // shorter]
    if size[0] * size[1] > MOST_PIXELS:
        raise UnusableImage(f"has {width}×{height} pixels, too long a strip")
    image = grey.contiguous()[None, None]
    return interpolate(image, size=size, mode="bilinear", antialias=True)[0, 0].contiguous()
