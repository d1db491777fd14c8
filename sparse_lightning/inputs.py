"""Inputs and codes that callers give become tensors with one row for each sample.

Numpy arrays, other floating types, images that are not yet vectors, and single images are
converted. What may be a mistake is refused, and the error names the shapes that do not fit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sparse_lightning.data.batch import Batch
from sparse_lightning.errors import InputError

FLOATING = ("float16", "float32", "float64")


def as_inputs(values: Any, decoder: Any) -> Tensor:
    """Inputs (n, d) for a decoder, on its device and in its floating type.

    Args:
        values: a tensor or numpy array (n, d), images (n, ..., h, w) of d pixels in all, or one
            image of any shape.
        decoder: its ``input_dim`` d says what a sample is; one without it takes (n, d).

    Raises:
        InputError: they cannot be that.
    """
    inputs = _as_floats(values, decoder, "Inputs")
    dim = getattr(decoder, "input_dim", inputs.shape[-1] if inputs.ndim else 0)
    if inputs.ndim > 1 and len(inputs) > 0 and inputs[0].numel() == dim:
        return inputs.flatten(1)
    if inputs.ndim > 0 and inputs.numel() == dim > 0:
        return inputs.reshape(1, dim)
    raise InputError(
        f"Inputs of shape {tuple(inputs.shape)} do not fit {type(decoder).__name__}, whose "
        f"input_dim is {dim}: give (n, {dim}), or n images of {dim} pixels in all, n at least 1."
    )


def as_batch(batch: Any, decoder: Any) -> Batch:
    """A mini-batch of any DataLoader as the model takes it.

    Args:
        batch: a `Batch`, a tensor, or a list or tuple that begins with one, which may be followed
            by labels or anything else.
        decoder: what `as_inputs` makes the inputs fit, in its type, which may be a half one.

    Raises:
        InputError: it is something else, or its inputs do not fit.
    """
    inputs = batch[0] if isinstance(batch, list | tuple) and len(batch) else batch
    if not isinstance(inputs, Tensor):
        keys = f" with the keys {', '.join(map(str, batch))}" if isinstance(batch, Mapping) else ""
        raise InputError(
            f"A batch of kind {type(batch).__name__}{keys} is no input: give a DataLoader whose "
            "batches are tensors (n, d), or tuples that begin with one."
        )
    whole = batch if isinstance(batch, Batch) else Batch(inputs)
    return whole._replace(inputs=in_type_of(decoder, as_inputs(inputs, decoder)))


def as_codes(values: Any, decoder: Any) -> Tensor:
    """Codes (n, l) for a decoder, on its device and in its floating type; one code may be (l,).

    Raises:
        InputError: they cannot be that.
    """
    codes = _as_floats(values, decoder, "Codes")
    if codes.ndim in (1, 2) and codes.shape[-1] == decoder.code_dim:
        return codes.reshape(-1, decoder.code_dim)
    raise InputError(
        f"Codes of shape {tuple(codes.shape)} do not fit {type(decoder).__name__}, whose code_dim "
        f"is {decoder.code_dim}: give (n, {decoder.code_dim})."
    )


def floating_tensors(module: nn.Module) -> Iterator[Tensor]:
    """A module's parameters, and its buffers after them, less those that are no floats."""
    own = chain(module.parameters(), module.buffers())
    return (tensor for tensor in own if tensor.is_floating_point())


def in_type_of(module: nn.Module, tensor: Tensor) -> Tensor:
    """A tensor in the floating type of a module's own, which may be a half one."""
    return tensor.to(next(floating_tensors(module), tensor).dtype)


def at_least_float32(tensor: Tensor) -> Tensor:
    """``tensor`` detached, in float32 unless it is finer already."""
    return tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32))


def require_rebuilt(rebuilt: Tensor, inputs: Tensor, decoder: Any) -> None:
    """Raise `InputError` unless a decoder returns the shape of its inputs: others broadcast."""
    if rebuilt.shape != inputs.shape:
        raise InputError(
            f"{type(decoder).__name__} rebuilds inputs of shape {tuple(inputs.shape)} in the shape "
            f"{tuple(rebuilt.shape)}: let its forward return (n, d)."
        )


def require_codes(codes: Tensor, inputs: Tensor, encoder: Any) -> None:
    """Raise `InputError` unless an encoder returns a code for each input: others broadcast."""
    if codes.shape != (len(inputs), encoder.code_dim):
        raise InputError(
            f"{type(encoder).__name__} gives codes of shape {tuple(codes.shape)} for inputs of "
            f"shape {tuple(inputs.shape)}: let its forward return (n, {encoder.code_dim})."
        )


def require_finite(inputs: Tensor, where: str) -> None:
    """Raise `InputError`, saying which row, if inputs (n, d) are not finite numbers."""
    # One number tells of nearly all batches, in a tenth of the time.
    if inputs.sum().isfinite():
        return
    finite = inputs.isfinite()
    if finite.all():
        return
    per_row = (~finite).sum(1)
    rows = per_row.nonzero().flatten()
    row, count = int(rows[0]), int(per_row[rows[0]])
    raise InputError(
        f"{len(rows)} of {len(inputs)} inputs of {where} hold NaN or infinity, the first in row "
        f"{row} ({count} of its {inputs.shape[1]} values): mend these samples or leave them out."
    )


def _as_floats(values: Any, decoder: Any, what: str) -> Tensor:
    if isinstance(values, np.ndarray):
        # torch takes neither negative strides nor another machine's order of bytes.
        native = values.astype(values.dtype.newbyteorder("="), order="C")
        values = torch.from_numpy(native) if native.dtype.name in FLOATING else native
    if not (isinstance(values, Tensor) and values.is_floating_point()):
        is_array = isinstance(values, np.ndarray | Tensor)
        kind = values.dtype if is_array else type(values).__name__
        raise InputError(
            f"{what} of kind {kind} are no tensor or array of floating-point numbers: convert "
            "them, and pixels to the scale of the training data, (pixel - mean) / std."
        )
    own = next(floating_tensors(decoder), None) if isinstance(decoder, nn.Module) else None
    if own is None:
        return values
    if own.dtype in (torch.float32, torch.float64):
        return values.to(own.device, own.dtype)
    # Half types are those of training; inference is in single precision.
    return values.to(own.device, torch.float32)
