r"""Data fits: :math:`\sum_i \frac1d \|x_i - D(z_i)\|^2` of one batch as a function of the codes.

Inference needs the gradient of this term up to two hundred times with D and x fixed. A decoder
makes the data fit of a batch (`Decoder.datafit`), and what does not change is prepared there:

- `QuadraticDataFit`: a linear decoder in Gram form. An iteration costs :math:`n l^2`
  multiplications in place of :math:`2 n l d`.
- `ReluNetworkDataFit`: a relu network with its own backward pass, without autograd.
- `AutogradDataFit`: any decoder, by autograd.

A data fit lives as long as one inference.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from sparse_lightning.inputs import require_rebuilt


def mean_squares(values: Tensor) -> Tensor:
    """The mean square of each sample, (n, d) -> (n,)."""
    return torch.linalg.vecdot(values, values) / values.shape[-1]


def with_normal_squares(matrix: Tensor) -> Tensor:
    r"""The matrix with 0 for numbers whose square is below the normal range.

    Those are under :math:`10^{-19}` in float32: weight decay halves the weights of an unused atom
    again and again. Processors calculate up to a hundred times as slowly with the subnormal numbers
    that are products of them, which change no digit of a sum in which there are others.
    """
    return functional.hardshrink(matrix, torch.finfo(matrix.dtype).tiny ** 0.5)


def largest_eigenvalue_bound(matrix: Tensor, enough: float = 0.0) -> float:
    r"""An upper bound of the largest eigenvalue of a positive semi-definite matrix (l, l).

    The Frobenius norm where that is ``enough`` or less, else
    :math:`\|G^p\|_F^{1/p}` with :math:`p = 32`: never too small, and too large by at most a factor
    of :math:`l^{1/2p}`, 1.08 for l = 128.
    """
    norms = [torch.linalg.matrix_norm(matrix)]
    if enough > 0 and (first := float(norms[0])) <= enough:
        return first
    for squarings in (3, 2):
        matrix = matrix / torch.where(norms[-1] > 0, norms[-1], 1.0)
        for _ in range(squarings):
            matrix = with_normal_squares(matrix)
            matrix = matrix @ matrix
        norms.append(torch.linalg.matrix_norm(matrix))
    first, after_3, after_5 = torch.stack(norms).tolist()
    # The squarings round.
    return first * after_3 ** (1 / 2**3) * after_5 ** (1 / 2**5) * (1 + 1e-5)


class DataFit(ABC):
    """The reconstruction term of one batch. Codes are (n, l), values per sample (n,)."""

    @abstractmethod
    def value_and_gradient(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Value (n,) and gradient (n, l)."""

    @abstractmethod
    def restrict(self, rows: Tensor) -> Self:
        """The data fit of the samples ``rows`` (an index vector) alone."""

    def value(self, codes: Tensor) -> Tensor:
        return self.value_and_gradient(codes)[0]

    def gradient(self, codes: Tensor) -> Tensor:
        return self.value_and_gradient(codes)[1]

    def lipschitz(self, enough: float = 0.0) -> float | None:
        """A bound of the gradient's Lipschitz constant L, None where none is known.

        Args:
            enough: a bound of this size or less is not refined; 0 asks for the closest.
        """
        return None

    def average_hessian(self, codes: Tensor) -> Tensor | None:
        """One Hessian (l, l) that nearly holds for all samples, None where there is none."""
        return None

    def prepared_for(self, gradients: int) -> DataFit:
        """The data fit, faster at so many gradients to come where preparing it pays."""
        return self


@dataclass(frozen=True)
class QuadraticDataFit(DataFit):
    r""":math:`\sum_i \frac12 z_i^\top G z_i - c_i^\top z_i + o_i`.

    Attributes:
        gram: G, (l, l).
        linear: c, (n, l).
        offset: o, (n,).
    """

    gram: Tensor
    linear: Tensor
    offset: Tensor

    @classmethod
    def of(cls, inputs: Tensor, weight: Tensor) -> Self:
        r""":math:`\frac1d \|x_i - W z_i\|^2` for inputs x (n, d) and a weight W (d, l)."""
        scale = 2 / inputs.shape[-1]
        gram, linear = scale * (weight.mT @ weight), scale * (inputs @ weight)
        return cls(gram, linear, mean_squares(inputs))

    def gradient(self, codes: Tensor) -> Tensor:
        return codes @ self.gram - self.linear

    def value_and_gradient(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        gradient = self.gradient(codes)
        return torch.linalg.vecdot(codes, gradient - self.linear) / 2 + self.offset, gradient

    def lipschitz(self, enough: float = 0.0) -> float:
        return largest_eigenvalue_bound(self.gram, enough)

    def restrict(self, rows: Tensor) -> Self:
        return replace(self, linear=self.linear[rows], offset=self.offset[rows])


@dataclass(frozen=True)
class LeastSquares(DataFit):
    r""":math:`\sum_i \frac1d \|x_i - W z_i\|^2` by products with W (d, l), for few gradients."""

    inputs: Tensor
    weight: Tensor

    def value(self, codes: Tensor) -> Tensor:
        return mean_squares(self._residual(codes))

    def value_and_gradient(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        residual = self._residual(codes)
        return mean_squares(residual), (2 / residual.shape[-1]) * residual @ self.weight

    def _residual(self, codes: Tensor) -> Tensor:
        return codes @ self.weight.mT - self.inputs

    def prepared_for(self, gradients: int) -> LeastSquares | QuadraticDataFit:
        """The Gram form, where it takes fewer multiplications in all."""
        (n, d), m = self.inputs.shape, self.weight.shape[1]
        if gradients * n * m * (2 * d - m) <= m * m * d + n * m * d:
            return self
        return QuadraticDataFit.of(self.inputs, self.weight)

    def restrict(self, rows: Tensor) -> Self:
        return replace(self, inputs=self.inputs[rows])


# A unit is active in a share p of the samples. Up to this mean of p(1 - p) over hidden units, a
# relu network is nearly one linear function. The most possible is 1/4.
MOST_SPREAD = 0.15


@dataclass(frozen=True)
class ReluNetworkDataFit(DataFit):
    """The data fit of a relu network, by its own backward pass.

    Attributes:
        hidden: weight (m, l) and bias (m,) of each hidden layer, bottom first.
        top: the squared error as a function of the last hidden layer.
    """

    hidden: list[tuple[Tensor, Tensor]]
    top: LeastSquares | QuadraticDataFit

    def value(self, codes: Tensor) -> Tensor:
        return self.top.value(self._activations(codes)[-1])

    def value_and_gradient(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        activations = self._activations(codes)
        values, gradient = self.top.value_and_gradient(activations[-1])
        return values, self._backward(activations, gradient)

    def _activations(self, codes: Tensor) -> list[Tensor]:
        """The codes and each hidden layer's activations, bottom first."""
        activations = [codes]
        for weight, bias in self.hidden:
            activations.append(torch.relu(functional.linear(activations[-1], weight, bias)))
        return activations

    def _backward(self, activations: list[Tensor], gradient: Tensor) -> Tensor:
        """From the gradient at the last hidden layer to that at the codes."""
        for (weight, _), activation in zip(reversed(self.hidden), reversed(activations[1:])):
            gradient = (gradient * activation.sign()) @ weight
        return gradient

    def average_hessian(self, codes: Tensor) -> Tensor | None:
        r"""The Hessian (l, l) averaged over samples, unless samples differ too much in their units.

        A sample's Hessian is :math:`J^\top M A M J`: J (m, l) is the Jacobian of the last hidden
        pre-activations, M the diagonal mask of active units, :math:`A = \frac2d W_K^\top W_K`. If
        units are independent, and each is active in a share p of the samples, its average is
        :math:`J^\top \mathrm{diag}(p) A\, \mathrm{diag}(p) J
        + J^\top \mathrm{diag}(p(1-p) A_{jj}) J`. With several hidden layers J is averaged by the
        shares below.
        """
        if not isinstance(self.top, LeastSquares):
            return None
        shares = [layer.sign().mean(-2) for layer in self._activations(codes)[1:]]
        spread = torch.stack([(share * (1 - share)).mean() for share in shares]).max()
        if not spread < MOST_SPREAD:
            return None
        response = self.hidden[0][0]
        for (weight, _), share in zip(self.hidden[1:], shares):
            response = weight @ (share[:, None] * response)
        p, scale = shares[-1][:, None], 2 / len(self.top.weight)
        mean = self.top.weight @ (p * response)
        own = self.top.weight.square().sum(0)[:, None] * p * (1 - p)
        return scale * (mean.mT @ mean + response.mT @ (own * response))

    def prepared_for(self, gradients: int) -> ReluNetworkDataFit:
        top = self.top.prepared_for(gradients)
        return self if top is self.top else replace(self, top=top)

    def restrict(self, rows: Tensor) -> Self:
        return replace(self, top=self.top.restrict(rows))


@dataclass(frozen=True)
class AutogradDataFit(DataFit):
    """The data fit of any decoder, its gradient by autograd."""

    decoder: Callable[[Tensor], Tensor]
    inputs: Tensor

    def value(self, codes: Tensor) -> Tensor:
        return self._errors(codes, self.inputs)

    def _errors(self, codes: Tensor, inputs: Tensor) -> Tensor:
        rebuilt = self.decoder(codes)
        require_rebuilt(rebuilt, inputs, self.decoder)
        return mean_squares(rebuilt - inputs)

    def value_and_gradient(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        # Lightning validates in inference mode, whose tensors autograd refuses: leave it, copy.
        with torch.inference_mode(False), torch.enable_grad():
            inputs = self.inputs.clone()
            values, pullback = torch.func.vjp(
                lambda codes: self._errors(codes, inputs), codes.detach().clone()
            )
            (gradient,) = pullback(torch.ones_like(values))
        return values.detach(), gradient.detach()

    def restrict(self, rows: Tensor) -> Self:
        return replace(self, inputs=self.inputs[rows])
