r"""What inference sees of one batch: :math:`\sum_i \frac1d\|x_i - D(z_i)\|^2` with D and x fixed.

A decoder makes one of these when it is bound to a batch (`sparse_lightning.decoders`). It knows
its gradient, its value, and how far it bends, and lives as long as one inference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from sparse_lightning.least_squares import LinearLeastSquares, QuadraticTerm, Recordable
from sparse_lightning.products import relu_layer, through_relu, times
from sparse_lightning.smooth import Attraction, Curvature, Expansion, Outset


def estimated_curvature(product: Callable[[Tensor], Tensor], start: Tensor, count: int) -> Tensor:
    """Largest curvature of each row of ``start`` (k, l), by ``count`` power iterations, (k,)."""
    least = torch.finfo(start.dtype).tiny
    norm = torch.linalg.vector_norm(start, dim=1, keepdim=True)
    for _ in range(count):
        start = product(start / norm.clamp_min(least))
        norm = torch.linalg.vector_norm(start, dim=1, keepdim=True)
    return norm.squeeze(1)


# Largest mean of p(1 - p) over hidden units, p the share of samples that a unit is active in, up to
# which a relu network is nearly the same linear function for all samples. 1/4 is the most there is.
MOST_SPREAD = 0.15
# The share of the last hidden layer's units up to which it pays to leave the others out, at a point
# where they are off for all samples.
FEW_UNITS = 0.75


def _shares(activations: list[Tensor]) -> list[Tensor]:
    """Of the samples, in which the units of each hidden layer are active, (m,) each."""
    # No activation is below 0, so that this is a comparison without a conversion.
    return [layer.sign().mean(0) for layer in activations[1:]]


def add_attraction(values: Tensor, attraction: Attraction | None, codes: Tensor) -> Tensor:
    """Per-sample values (n,) plus those of a quadratic that pulls the codes to a centre."""
    return values if attraction is None else values + attraction.value(codes)


@dataclass(frozen=True)
class MultiLayerTerm(Recordable):
    """The reconstruction term of a relu network, by its own backward pass.

    Attributes:
        hidden: weight and bias of each hidden layer, bottom first.
        top: the squared error as a function of the last hidden layer.
        attraction: a quadratic in the codes to add.
        may_be_in_pieces: whether `sparse_lightning.pieces` is worth a try.
    """

    hidden: list[tuple[Tensor, Tensor]]
    top: QuadraticTerm | LinearLeastSquares
    attraction: Attraction | None
    may_be_in_pieces: bool = True

    def gradient(self, codes: Tensor, out: Tensor | None = None) -> Tensor:
        activations = self._activations(codes)
        return self._backward(activations, self.top.gradient(activations[-1]), out)

    def _backward(
        self, activations: list[Tensor], gradient: Tensor, out: Tensor | None = None
    ) -> Tensor:
        (bottom, *above) = zip(self.hidden, activations[1:])
        for (weight, _), activation in reversed(above):
            gradient = times(through_relu(gradient, activation), weight)
        (weight, _), activation = bottom
        gradient = times(through_relu(gradient, activation), weight, out)
        if self.attraction is not None:
            self.attraction.add_gradient(gradient, activations[0])
        return gradient

    def _activations(self, codes: Tensor) -> list[Tensor]:
        activations = [codes]
        for weight, bias in self.hidden:
            activations.append(relu_layer(activations[-1], weight, bias))
        return activations

    def value(self, codes: Tensor) -> Tensor:
        return add_attraction(self.top.value(self._activations(codes)[-1]), self.attraction, codes)

    def value_and_gradient(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        return self._value_and_gradient(self._activations(codes))

    def _value_and_gradient(self, activations: list[Tensor]) -> tuple[Tensor, Tensor]:
        values, gradient = self.top.value_and_gradient(activations[-1])
        values = add_attraction(values, self.attraction, activations[0])
        return values, self._backward(activations, gradient)

    def expanded(self, codes: Tensor) -> Expansion | None:
        """By an average Hessian, unless samples differ too much in which units are active.

        At codes of zero they do not differ at all, and it is that of every sample.
        """
        if len(codes) > 0 and not codes.any():
            return self._expanded_at_zero(codes)
        activations = self._activations(codes)
        shares = _shares(activations)
        spread = torch.stack([(share * (1 - share)).mean() for share in shares]).max()
        if not spread < MOST_SPREAD:
            return None
        hessian = partial(self._average_hessian, shares)
        return Expansion(*self._value_and_gradient(activations), hessian)

    def _expanded_at_zero(self, codes: Tensor) -> Expansion:
        """There one row of activations is that of all samples, which differ in their inputs."""
        activations = self._activations(codes[:1])
        active = _shares(activations)
        top, point, directions = self.top, activations[-1], self._response(active)
        units = active[-1].nonzero().squeeze(1)
        if len(units) <= FEW_UNITS * len(directions):
            top, point, directions = top.of_units(units), point[:, units], directions[units]
        else:
            directions = active[-1][:, None] * directions
        values, gradient, hessian = top.expanded_along(point, directions)
        values = add_attraction(values, self.attraction, codes)
        if self.attraction is not None:
            self.attraction.add_gradient(gradient, codes)
        return Expansion(values, gradient, lambda: self._with_attraction(hessian()))

    def _with_attraction(self, hessian: Tensor) -> Tensor:
        """A second derivative, with that of the attraction added to it in place."""
        if self.attraction is not None:
            hessian.diagonal().add_(self.attraction.curvature)
        return hessian

    def _response(self, active: list[Tensor]) -> Tensor:
        """Of the last hidden layer, before its own relu, to the codes, (m, l).

        Args:
            active: what each unit of the hidden layers lets through, (m,) each.
        """
        response = self.hidden[0][0]
        for (weight, _), share in zip(self.hidden[1:], active):
            response = times(weight, share[:, None] * response)
        return response

    def _average_hessian(self, active: list[Tensor]) -> Tensor:
        r"""The second derivative (l, l) averaged over samples in which units are active that often.

        A hidden unit is active in a share p of the samples. Where units are independent, the
        average over masks M of :math:`J^\top M A M J` is that of :math:`M = \mathrm{diag}(p)` and
        :math:`J^\top \mathrm{diag}(p(1-p) A_{jj}) J`. With several hidden layers the second is
        of the last one alone.
        """
        response = self._response(active)
        mean = self.top.hessian(active[-1][:, None] * response)
        own = self.top.diagonal() * active[-1] * (1 - active[-1])
        return self._with_attraction(mean + times(response.T, own[:, None] * response))

    def curvature(self, codes: Tensor) -> Curvature:
        """An estimate, where each hidden unit counts by its share of samples that it is active in.

        Kinks, where a unit switches, are not in it.
        """
        return self._curvature(self._activations(codes))

    def outset(self, codes: Tensor) -> Outset:
        activations = self._activations(codes)
        return Outset(*self._value_and_gradient(activations), self._curvature(activations))

    def _curvature(self, activations: list[Tensor]) -> Curvature:
        shares = _shares(activations)
        layers = [(weight, share) for (weight, _), share in zip(self.hidden, shares)]

        def product(direction: Tensor) -> Tensor:
            for weight, share in layers:
                direction = times(direction, weight.T).mul_(share)
            direction = self.top.product(direction)
            for weight, share in reversed(layers):
                direction = times(direction.mul_(share), weight)
            return direction

        upper = float(estimated_curvature(product, torch.ones_like(activations[0][:1]), 5))
        lower = self.attraction.curvature if self.attraction else 0.0
        return Curvature(0.0, lower + upper, is_bound=False)

    def prepared_for(self, gradients: int) -> MultiLayerTerm:
        top = self.top.prepared_for(gradients)
        return self if top is self.top else replace(self, top=top)

    @property
    def multiplications(self) -> int:
        """For the gradient of one sample."""
        layers = sum(weight.numel() for weight, _ in self.hidden)
        return 2 * layers + self.top.multiplications

    def in_gram_form(self) -> MultiLayerTerm:
        return replace(self, top=self.top.in_gram_form())

    def restrict(self, rows: Tensor) -> MultiLayerTerm:
        attraction = self.attraction and self.attraction.restrict(rows)
        return replace(self, top=self.top.restrict(rows), attraction=attraction)


@dataclass(frozen=True)
class AutogradTerm:
    """The reconstruction term of any decoder, its gradient by autograd."""

    decoder: Callable[[Tensor], Tensor]
    inputs: Tensor
    attraction: Attraction | None

    # A user's decoder may ask the device for a number.
    is_recordable = False

    def prepared_for(self, gradients: int) -> AutogradTerm:
        return self

    def expanded(self, codes: Tensor) -> Expansion | None:
        return None

    def gradient(self, codes: Tensor, out: Tensor | None = None) -> Tensor:
        return self.value_and_gradient(codes)[1]

    @torch.no_grad()
    def value(self, codes: Tensor) -> Tensor:
        squared = (self.decoder(codes) - self.inputs).square().mean(1)
        return add_attraction(squared, self.attraction, codes)

    def value_and_gradient(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        # Lightning validates in inference mode, whose tensors autograd refuses: leave it, copy.
        with torch.inference_mode(False), torch.enable_grad():
            copy = codes.detach().clone().requires_grad_()
            squared = (self.decoder(copy) - self.inputs.clone()).square().mean(1)
            gradient = torch.autograd.grad(squared.sum(), copy)[0]
        values = add_attraction(squared.detach(), self.attraction, codes)
        if self.attraction is not None:
            self.attraction.add_gradient(gradient, codes)
        return values, gradient

    def curvature(self, codes: Tensor) -> Curvature:
        """An estimate from differences of gradients, the largest of the batch's samples."""
        return self._curvature(codes, self.gradient(codes))

    def outset(self, codes: Tensor) -> Outset:
        values, gradient = self.value_and_gradient(codes)
        return Outset(values, gradient, self._curvature(codes, gradient))

    def _curvature(self, codes: Tensor, gradient: Tensor) -> Curvature:
        spacing = torch.finfo(codes.dtype).eps ** 0.25

        def product(direction: Tensor) -> Tensor:
            return (self.gradient(codes + spacing * direction) - gradient) / spacing

        upper = float(estimated_curvature(product, torch.ones_like(codes), 3).max())
        return Curvature(0.0, upper, is_bound=False)

    def restrict(self, rows: Tensor) -> AutogradTerm:
        attraction = self.attraction and self.attraction.restrict(rows)
        return replace(self, inputs=self.inputs[rows], attraction=attraction)
