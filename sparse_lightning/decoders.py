r"""Decoders rebuild an input from its code, and know the gradient of their own squared error.

Inference needs :math:`\nabla_z \sum_i \frac1d\|x_i - D(z_i)\|^2` up to two hundred times with D
and x fixed. `Decoder.bind` therefore prepares what does not change and returns the
reconstruction term of one batch; it lives as long as that inference and no longer.

- A linear decoder :math:`W z` has gradient :math:`\frac2d (W^\top W z - W^\top x)`: with the Gram
  matrix :math:`W^\top W` an iteration costs :math:`n l^2` multiplications in place of
  :math:`2 n l d`.
- A decoder with hidden layers runs its own backward pass, without autograd, so that it also
  works where autograd is off. Its last layer gets :math:`W_2^\top W_2` in the same way once so many
  gradients have been asked for that it pays (`LinearLeastSquares.prepared_for`): where three
  iterations are enough it never does. With one hidden layer, where samples have most hidden units
  in common, the gradient is soon made from that; with many iterations to come in which few units
  switch, it goes on piece by piece (`sparse_lightning.pieces`).
- Any other decoder inherits the gradient that autograd gives.

Inference runs in float32 or better whatever the precision of training is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from sparse_lightning.energy import at_least_float32
from sparse_lightning.errors import SettingError, require_positive
from sparse_lightning.least_squares import LinearLeastSquares, QuadraticTerm
from sparse_lightning.products import times, with_normal_squares
from sparse_lightning.reconstruction import AutogradTerm, MultiLayerTerm
from sparse_lightning.smooth import Attraction, SmoothTerm


def _bound(weight: Tensor) -> Tensor:
    """A weight as inference sees it.

    Weight decay halves the weights of an atom that no code uses again and again.
    """
    return with_normal_squares(at_least_float32(weight))


class Decoder(nn.Module):
    """Base of all decoders: ``forward`` maps codes (n, l) to inputs (n, d).

    A subclass sets ``code_dim`` and ``input_dim`` and may override `bind` with a faster gradient.
    """

    code_dim: int
    input_dim: int

    def bind(self, inputs: Tensor, attraction: Attraction | None = None) -> SmoothTerm:
        r"""The reconstruction term :math:`\sum_i \frac1d \|x_i - D(z_i)\|^2` of one batch.

        Args:
            inputs: x, (n, d).
            attraction: a quadratic in the codes to add to it.
        """
        return AutogradTerm(self, at_least_float32(inputs), attraction)

    def weight_matrices(self) -> list[nn.Parameter]:
        """The weight matrices, bottom first."""
        return [parameter for parameter in self.parameters() if parameter.ndim == 2]

    @torch.no_grad()
    def atoms(self, scale: Tensor | float = 1.0) -> Tensor:
        r"""What each code component draws: :math:`D(s_j e_j) - D(0)`, (l, d).

        Args:
            scale: :math:`s_j`, one number or (l,). A non-linear decoder's response depends on it.
        """
        weight = self.weight_matrices()[0]
        codes = torch.eye(self.code_dim, device=weight.device, dtype=weight.dtype) * scale
        return self(codes.to(weight.dtype)) - self(torch.zeros_like(codes[:1], dtype=weight.dtype))


class LinearDecoder(Decoder):
    """D(z) = W z, with ``weight`` W of shape (d, l)."""

    def __init__(self, code_dim: int, input_dim: int) -> None:
        super().__init__()
        self.code_dim, self.input_dim = code_dim, input_dim
        self.weight = nn.Linear(code_dim, input_dim, bias=False).weight

    def forward(self, codes: Tensor) -> Tensor:
        return functional.linear(codes.to(self.weight.dtype), self.weight)

    def bind(self, inputs: Tensor, attraction: Attraction | None = None) -> SmoothTerm:
        weight, inputs = _bound(self.weight), at_least_float32(inputs)
        scale = 2 / self.input_dim
        gram, drive = times(weight.T, weight).mul_(scale), times(inputs, weight).mul_(scale)
        if attraction is not None:
            gram.diagonal().add_(attraction.curvature)
            drive.add_(attraction.centre, alpha=attraction.curvature)
            return QuadraticTerm(gram, drive, attraction.curvature)
        return QuadraticTerm(gram, drive)


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
        hidden_dims = [int(width) for width in hidden_dims]
        if not hidden_dims or min(hidden_dims) < 1:
            raise SettingError(
                f"model.decoder.hidden_dims={hidden_dims} must list at least one positive width: "
                "use LinearDecoder for a decoder without hidden layers."
            )
        self.code_dim, self.hidden_dims, self.input_dim = code_dim, hidden_dims, input_dim
        widths = [code_dim, *hidden_dims]
        self.hidden = nn.ModuleList(map(nn.Linear, widths[:-1], widths[1:]))
        self.output = nn.Linear(widths[-1], input_dim, bias=False)

    def forward(self, codes: Tensor) -> Tensor:
        codes = codes.to(self.output.weight.dtype)
        for layer in self.hidden:
            codes = torch.relu(layer(codes))
        return self.output(codes)

    def bind(self, inputs: Tensor, attraction: Attraction | None = None) -> SmoothTerm:
        hidden = [(_bound(h.weight), at_least_float32(h.bias)) for h in self.hidden]
        top = LinearLeastSquares(at_least_float32(inputs), _bound(self.output.weight))
        return MultiLayerTerm(hidden, top, attraction)


@dataclass(frozen=True)
class UnitColumns:
    """Constraint: every column of every weight matrix of a decoder has this norm.

    The classical remedy against codes that shrink while the dictionary grows. A column of zeros
    has no direction and stays.
    """

    norm: float = 1.0

    def __post_init__(self) -> None:
        require_positive("model.constraint.norm", self.norm)

    @torch.no_grad()
    def __call__(self, decoder: Decoder) -> None:
        """Rescale the columns in place."""
        for weight in decoder.weight_matrices():
            norms = torch.linalg.vector_norm(weight, dim=0, keepdim=True)
            weight.mul_(torch.where(norms > 0, self.norm / norms, 1.0))
