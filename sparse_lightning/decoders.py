r"""Decoders rebuild an input from its code: linear, or with hidden layers.

A decoder also makes the data fit of a batch, by which inference sees it (`Decoder.datafit`). A
decoder of one's own inherits the data fit that autograd gives.

Inference runs in float32 or better whatever the precision of training is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from sparse_lightning.datafits import (
    AutogradDataFit,
    DataFit,
    LeastSquares,
    QuadraticDataFit,
    ReluNetworkDataFit,
    with_normal_squares,
)
from sparse_lightning.energy import at_least_float32
from sparse_lightning.errors import SettingError, require_count, require_positive
from sparse_lightning.registry import plain_numbers, register

Columns = tuple[nn.Parameter, tuple[int, ...]]


class Decoder(nn.Module):
    """Base of all decoders: ``forward`` maps codes (n, l) to inputs (n, d).

    A subclass sets ``code_dim`` and ``input_dim`` and may override `datafit` with a faster one.
    """

    code_dim: int
    input_dim: int

    def datafit(self, inputs: Tensor) -> DataFit:
        r"""The reconstruction term :math:`\sum_i \frac1d \|x_i - D(z_i)\|^2` of inputs x (n, d)."""
        return AutogradDataFit(self, inputs)

    def column_groups(self) -> list[Columns]:
        """Weights, bottom first, and the dimensions that one column of each extends over.

        A column is what one component of a layer's input adds to the layer's output. Unit columns
        and column norms are taken over these dimensions: of a matrix over its rows, of a
        convolution over the kernel of one input channel (exact away from borders).

        Raises:
            SettingError: for a convolution in groups, whose columns are parts of the weight.
        """
        found: dict[nn.Parameter, tuple[int, ...]] = {}
        for module in self.modules():
            for parameter in module.parameters(recurse=False):
                dims = _column_dims(module, parameter)
                if dims is not None:
                    found.setdefault(parameter, dims)
        return list(found.items())

    def column_norms(self) -> list[Tensor]:
        """The norms of the columns of each weight, bottom first, a vector each."""
        return [
            torch.linalg.vector_norm(weight.detach(), dim=dims).flatten()
            for weight, dims in self.column_groups()
        ]

    @torch.no_grad()
    def atoms(self, scale: Tensor | float = 1.0) -> Tensor:
        r"""What each code component draws: :math:`D(s_j e_j) - D(0)`, (l, d).

        Args:
            scale: :math:`s_j`, one number or (l,). A non-linear decoder's response depends on it.
        """
        # A decoder without any parameter takes codes as they come.
        weight = next(self.parameters(), torch.zeros(()))
        codes = (torch.eye(self.code_dim, device=weight.device) * scale).to(weight.dtype)
        return self(codes) - self(torch.zeros_like(codes[:1]))


CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED_CONVOLUTIONS = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def _column_dims(module: nn.Module, parameter: nn.Parameter) -> tuple[int, ...] | None:
    """The dimensions of a column of a module's parameter, None where it has no columns."""
    ndim = parameter.ndim
    if isinstance(module, CONVOLUTIONS) and ndim > 2:  # (output, input, *kernel)
        if module.groups > 1:
            raise SettingError(
                f"A {type(module).__name__} with groups={module.groups} has columns that are parts "
                "of its weight: write the decoder's column_groups(), or take groups=1."
            )
        return (0, *range(2, ndim))
    if isinstance(module, TRANSPOSED_CONVOLUTIONS) and ndim > 2:  # (input, output, *kernel)
        return tuple(range(1, ndim))
    return (0,) if ndim == 2 else None


@register
class LinearDecoder(Decoder):
    """D(z) = W z, with ``weight`` W of shape (d, l)."""

    def __init__(self, code_dim: int, input_dim: int) -> None:
        super().__init__()
        require_count("model.decoder.code_dim", code_dim)
        require_count("model.decoder.input_dim", input_dim)
        self.code_dim, self.input_dim = code_dim, input_dim
        self.weight = nn.Linear(code_dim, input_dim, bias=False).weight

    def forward(self, codes: Tensor) -> Tensor:
        return functional.linear(codes.to(self.weight.dtype), self.weight)

    def datafit(self, inputs: Tensor) -> DataFit:
        return QuadraticDataFit.of(inputs, _frozen(self.weight))


@register
class MultiLayerDecoder(Decoder):
    r"""A relu network: :math:`D(z) = W_K\,\mathrm{relu}(\dots \mathrm{relu}(W_1 z + b_1) \dots)`.

    Hidden layers have biases, the output has none. One hidden layer is the paper's decoder.

    Args:
        code_dim: l.
        hidden_dims: widths of the hidden layers, bottom first; at least one.
        input_dim: d.
    """

    def __init__(self, code_dim: int, hidden_dims: Sequence[int], input_dim: int) -> None:
        super().__init__()
        if isinstance(hidden_dims, str) or len(hidden_dims) == 0 or min(hidden_dims) < 1:
            raise SettingError(
                f"model.decoder.hidden_dims={hidden_dims} must list at least one positive width: "
                "use LinearDecoder for a decoder without hidden layers."
            )
        require_count("model.decoder.code_dim", code_dim)
        require_count("model.decoder.input_dim", input_dim)
        for layer, width in enumerate(hidden_dims):
            require_count(f"model.decoder.hidden_dims[{layer}]", width)
        hidden_dims = [int(width) for width in hidden_dims]
        self.code_dim, self.hidden_dims, self.input_dim = code_dim, hidden_dims, input_dim
        widths = [code_dim, *hidden_dims]
        self.hidden = nn.ModuleList(map(nn.Linear, widths[:-1], widths[1:]))
        self.output = nn.Linear(widths[-1], input_dim, bias=False)

    def forward(self, codes: Tensor) -> Tensor:
        codes = codes.to(self.output.weight.dtype)
        for layer in self.hidden:
            codes = torch.relu(layer(codes))
        return self.output(codes)

    def datafit(self, inputs: Tensor) -> DataFit:
        layers = [layer for layer in self.hidden if isinstance(layer, nn.Linear)]
        hidden = [(_frozen(layer.weight), at_least_float32(layer.bias)) for layer in layers]
        return ReluNetworkDataFit(hidden, LeastSquares(inputs, _frozen(self.output.weight)))


def _frozen(weight: Tensor) -> Tensor:
    """A weight as inference sees it."""
    return with_normal_squares(at_least_float32(weight))


@register
@dataclass(frozen=True)
class UnitColumns:
    """Constraint: every column of every weight of a decoder has this norm.

    The classical remedy against codes that shrink while the dictionary grows. A column of zeros
    has no direction and stays.
    """

    norm: float = 1.0

    def __post_init__(self) -> None:
        plain_numbers(self)
        require_positive("model.constraint.norm", self.norm)

    @torch.no_grad()
    def __call__(self, decoder: Decoder) -> None:
        """Rescale the columns in place.

        Raises:
            SettingError: the decoder has no columns.
        """
        groups = decoder.column_groups()
        if not groups:
            raise SettingError(
                f"model.constraint.norm={self.norm} cannot hold: {type(decoder).__name__} has no "
                "columns (its column_groups() is empty). Set model.constraint=null."
            )
        for weight, dims in groups:
            norms = torch.linalg.vector_norm(weight, dim=dims, keepdim=True)
            weight.mul_(torch.where(norms > 0, self.norm / norms, 1.0))
