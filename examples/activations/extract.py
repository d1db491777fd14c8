"""Real activations as data: recordings of speech in, ``x.npy`` and ``groups.npy`` out.

The model is the voice activity detector Silero VAD (MIT licence). It looks at 32 ms of sound at a
time: a short-time Fourier transform, four convolutions with a relu each, a recurrent cell, one
probability. A row of ``x.npy`` is what the fourth convolution makes of one frame, before its relu:
128 numbers, which depend on this frame and on the last 4 ms of the frame before. ``groups.npy``
says which recording a row is of, so that whole recordings go to one split.

    pip download --no-deps silero-vad==6.2.3
    unzip -j silero_vad-*.whl '*/silero_vad_16k.safetensors'
    python examples/activations/extract.py SOUNDS silero_vad_16k.safetensors activations

``SOUNDS`` is any folder of WAV files, of any rate. Only the weights are taken from the wheel: none
of its code runs, and it need not be installed.
"""

from __future__ import annotations

import argparse
import struct
import warnings
from math import gcd
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from scipy.io import wavfile
from scipy.signal import resample_poly
from torch import Tensor
from tqdm import tqdm

from sparse_lightning.errors import DataError
from sparse_lightning.files import replaced_whole

RATE = 16_000  # samples per second
FRAME, CONTEXT = 512, 64  # samples
WINDOW, HOP = 256, 128  # of the Fourier transform, in samples
FREQUENCIES = WINDOW // 2 + 1
STRIDES = {"conv1": 1, "conv2": 2, "conv3": 2, "conv4": 1}
SHAPES = {
    "stft_conv.weight": (2 * FREQUENCIES, 1, WINDOW),
    **{"conv1.weight": (128, FREQUENCIES, 3), "conv1.bias": (128,)},
    **{"conv2.weight": (64, 128, 3), "conv2.bias": (64,)},
    **{"conv3.weight": (64, 64, 3), "conv3.bias": (64,)},
    **{"conv4.weight": (128, 64, 3), "conv4.bias": (128,)},
}
AT_A_TIME = 1024  # frames


def read_sound(path: Path) -> np.ndarray:
    """The samples of a WAV file in [-1, 1], the mean of its channels, at `RATE`.

    Raises:
        DataError: the file is no WAV file that scipy can read.
    """
    try:
        with warnings.catch_warnings():
            # Of chunks that hold no sound.
            warnings.simplefilter("ignore", wavfile.WavFileWarning)
            rate, samples = wavfile.read(path)
    except (OSError, ValueError, EOFError, struct.error) as error:
        raise DataError(
            f"{path} cannot be read as WAV ({error}): convert it or take it away."
        ) from error
    if samples.dtype == np.uint8:
        samples = (samples.astype(np.float64) - 128) / 128
    elif samples.dtype.kind == "i":
        # 24 bits come as the upper ones of 32.
        samples = samples / -float(np.iinfo(samples.dtype).min)
    samples = samples.reshape(len(samples), -1).mean(axis=1)
    common = gcd(rate, RATE)
    if len(samples):
        samples = resample_poly(samples, RATE // common, rate // common)
    return samples.astype(np.float32)


def frames_of(samples: np.ndarray) -> Tensor:
    """Frames (n, CONTEXT + FRAME), each after the end of the one before, as the model takes them.

    Zeros stand before the first frame and fill up the last.
    """
    number = -(-len(samples) // FRAME)
    padded = torch.zeros(CONTEXT + number * FRAME)
    padded[CONTEXT : CONTEXT + len(samples)] = torch.from_numpy(samples)
    before = padded[: number * FRAME].reshape(number, FRAME)[:, :CONTEXT]
    return torch.cat([before, padded[CONTEXT:].reshape(number, FRAME)], dim=1)


def preactivations(frames: Tensor, weights: dict[str, Tensor]) -> Tensor:
    """What the last convolution of the encoder gives, before its relu.

    Args:
        frames: (n, CONTEXT + FRAME).
        weights: tensors of the shapes `SHAPES`.

    Returns:
        (n, 128): of four windows the convolutions leave one place.
    """
    padded = F.pad(frames, (0, CONTEXT), mode="reflect")[:, None]
    waves = F.conv1d(padded, weights["stft_conv.weight"], stride=HOP)
    real, imaginary = waves.split(FREQUENCIES, dim=1)
    values = (real.square() + imaginary.square()).sqrt()
    for name, stride in STRIDES.items():
        weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
        # The first convolution sees no negative values, so that a relu changes nothing there.
        values = F.conv1d(values.relu(), weight, bias, stride=stride, padding=1)
    return values.squeeze(2)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The encoder's tensors.

    Raises:
        DataError: the file lacks one, or has one of another shape.
    """
    try:
        found = load_file(path)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path} cannot be read as safetensors ({error}).") from error
    for name, shape in SHAPES.items():
        if name not in found or tuple(found[name].shape) != shape:
            raise DataError(
                f"{path} has no tensor {name} of the shape {shape}: give the file "
                "silero_vad_16k.safetensors of the wheel silero-vad 6.2.3."
            )
    return {name: found[name].float() for name in SHAPES}


@torch.inference_mode()
def extract(sounds: Path, weights: dict[str, Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """Rows (n, 128) of all WAV files below a folder, and the name of each row's file, (n,)."""
    paths = sorted(path for path in sounds.rglob("*") if path.suffix.lower() == ".wav")
    if not paths:
        raise DataError(f"{sounds} holds no .wav file: give a folder of recordings.")
    rows, groups = [], []
    for path in tqdm(paths, unit="recording"):
        for frames in frames_of(read_sound(path)).split(AT_A_TIME):
            rows.append(preactivations(frames, weights).numpy())
            groups += [path.relative_to(sounds).as_posix()] * len(frames)
    return np.concatenate(rows), np.array(groups)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sounds", type=Path, help="a folder with WAV files, at any depth")
    parser.add_argument("weights", type=Path, help="silero_vad_16k.safetensors")
    parser.add_argument("out", type=Path, help="the folder for x.npy and groups.npy")
    given = parser.parse_args(arguments)
    try:
        rows, groups = extract(given.sounds, read_weights(given.weights))
    except DataError as error:
        parser.error(str(error))
    for name, values in (("x", rows), ("groups", groups)):
        with replaced_whole(given.out / f"{name}.npy") as temporary:
            np.save(temporary, values)
    print(f"{len(rows)} rows of {len(np.unique(groups))} recordings in {given.out}")


if __name__ == "__main__":
    main()
