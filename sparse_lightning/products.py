r"""Matrix products in float32 on the CPU, by the faster of two libraries that come with torch.

torch multiplies matrices of float32 by MKL, which leaves the AVX-512 units of processors by AMD
idle. oneDNN, by which torch multiplies in lower precision and in compiled graphs, does not: there
it is more than twice as fast, in the same precision. It is asked where that is so, for products
that are large enough; anywhere else these functions are torch's own.

They are for inference. Under autograd products are always torch's own.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

# Multiplications from which oneDNN, which takes longer to call, is the faster one.
LEAST = 2**21
# How many times as fast it is.
ADVANTAGE = 2.3
CPU_INFO = Path("/proc/cpuinfo")


def times(left: Tensor, right: Tensor, out: Tensor | None = None) -> Tensor:
    """``left`` (n, k) times ``right`` (k, m), (n, m); written to ``out`` if that is given."""
    if not _is_for_onednn(left, right):
        return torch.mm(left, right, out=out)
    product = _linear(left, right.T)
    return product if out is None else out.copy_(product)


def times_less(
    left: Tensor, right: Tensor, subtrahend: Tensor, out: Tensor | None = None
) -> Tensor:
    """``left`` times ``right`` less ``subtrahend`` (n, m); written to ``out`` if that is given."""
    if not _is_for_onednn(left, right):
        return torch.addmm(subtrahend, left, right, beta=-1, out=out)
    return torch.sub(_linear(left, right.T), subtrahend, out=out)


def relu_layer(inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    r""":math:`\mathrm{relu}(x W^\top + b)` of inputs (n, k) and a weight (m, k), (n, m)."""
    if not _is_for_onednn(inputs, weight.T):
        return torch.addmm(bias, inputs, weight.T).relu_()
    # In a relu of oneDNN's own NaN would become 0.
    return _linear(inputs, weight, bias).relu_()


def with_normal_squares(matrix: Tensor) -> Tensor:
    r"""The same with 0 for numbers whose square is below the normal range.

    Those are under :math:`10^{-19}` in float32. Processors calculate up to a hundred times as
    slowly with the subnormal numbers that are products of them, which change no digit of a sum in
    which there are others.
    """
    return functional.hardshrink(matrix, torch.finfo(matrix.dtype).tiny ** 0.5)


def through_relu(gradient: Tensor, activation: Tensor) -> Tensor:
    """A gradient (n, m), overwritten, by hand: 0 where the unit's activation is 0."""
    backward = torch.ops.aten.threshold_backward.grad_input
    return backward(gradient, activation, 0, grad_input=gradient)


def advantage() -> float:
    """How many times as fast large products are as torch's own, beside which other work counts."""
    return ADVANTAGE if onednn_is_faster() else 1.0


@cache
def onednn_is_faster() -> bool:
    """On processors by AMD with AVX-512, if this torch has both libraries."""
    has_avx512 = torch.backends.cpu.get_cpu_capability() == "AVX512"
    return has_avx512 and torch.backends.mkl.is_available() and _is_by_amd() and _is_as_expected()


def _is_for_onednn(left: Tensor, right: Tensor) -> bool:
    return (
        onednn_is_faster()
        and left.dtype == right.dtype == torch.float32
        and left.device.type == "cpu"
        and len(left) * right.numel() >= LEAST
        and not torch.is_grad_enabled()
        and _is_dense(left)
        and _is_dense(right)
    )


def _is_dense(matrix: Tensor) -> bool:
    """Not a part of a larger one, of which oneDNN's products take a thousand times as long."""
    return matrix.is_contiguous() or matrix.T.is_contiguous()


def _linear(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, "none", [], "")


def _is_by_amd() -> bool:
    try:
        return "AuthenticAMD" in CPU_INFO.read_text()
    except OSError:
        return False


@torch.no_grad()
def _is_as_expected() -> bool:
    """Whether oneDNN's product, which torch does not promise to keep, is what it was."""
    numbers = torch.arange(22, dtype=torch.float32, device="cpu")
    inputs, weight, bias = numbers[:6].view(2, 3), numbers[6:18].view(4, 3), numbers[18:]
    try:
        product = _linear(inputs, weight, bias)
    except (AttributeError, RuntimeError, TypeError):
        return False
    return torch.equal(product, torch.addmm(bias, inputs, weight.T))
