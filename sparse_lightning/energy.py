r"""The energy that inference minimises, written once.

For inputs :math:`x_i \in R^d`, codes :math:`z_i \in R^l, z_i \ge 0`, a decoder :math:`D` and the
encoder's predictions :math:`z_{E,i}`,

.. math::
    E(Z) = \sum_i \Big[ \tfrac1d \|x_i - D(z_i)\|^2 + \lambda \|z_i\|_1
           + \tfrac{\gamma}{l} \|z_i - z_{E,i}\|^2 \Big]
           + \beta \sum_j \big[ (T - \sigma_j)_+ \big]^2,
    \qquad \sigma_j^2 = \tfrac{1}{n-1} \sum_i (z_{ij} - \mu_j)^2 .

The l1 term is handled by a proximal step (`Objective.shrink`), all others by their gradient
(`Objective.gradient`). The last term, the *variance hinge*, keeps the standard deviation of each
code component over the mini-batch above the threshold :math:`T`: it is what stops the codes from
shrinking to nothing when the decoder is free to grow.

`Energy` holds the weights; `Energy.bind` joins them with a decoder and a batch into an
`Objective`, a plain function of the codes. Solvers, training logs, tests and studies all judge by
that one object.

Source: Evtimova & LeCun, "Sparse Coding with Multi-layer Decoders using Variance
Regularization", TMLR 2022, eq. 6 to 12 and appendix A.3.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from sparse_lightning.errors import SettingError, require_non_negative
from sparse_lightning.host import can_be_compiled, can_be_helped
from sparse_lightning.least_squares import QuadraticTerm, mean_squares
from sparse_lightning.moments import Moments, relative_shortfall
from sparse_lightning.peers import Peers
from sparse_lightning.pieces.cost import in_pieces
from sparse_lightning.smooth import (
    Attraction,
    Curvature,
    Expansion,
    Outlook,
    Outset,
    Quadratic,
    SmoothTerm,
)

TERMS = ("reconstruction", "sparsity", "variance", "encoder")


def at_least_float32(tensor: Tensor) -> Tensor:
    """``tensor`` detached, in float32 unless it is finer already."""
    return tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32))


class BindableDecoder(Protocol):
    """What an energy needs from a decoder; `sparse_lightning.decoders.Decoder` has it all."""

    code_dim: int

    def __call__(self, codes: Tensor) -> Tensor: ...

    def bind(self, inputs: Tensor, attraction: Attraction | None = None) -> SmoothTerm: ...


@dataclass(frozen=True)
class Energy:
    r"""The weights of :math:`E(Z)`.

    Args:
        sparsity_weight: :math:`\lambda \ge 0`.
        variance_weight: :math:`\beta \ge 0`; 0 switches the variance hinge off.
        variance_threshold: :math:`T \ge 0`, in units of the codes.
        encoder_weight: :math:`\gamma \ge 0`; 0 ignores the encoder's prediction.

    Raises:
        SettingError: for a weight that is negative or not finite.
    """

    sparsity_weight: float
    variance_weight: float = 0.0
    variance_threshold: float = 0.5
    encoder_weight: float = 0.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            require_non_negative(f"model.energy.{name}", value)

    def bind(
        self,
        decoder: BindableDecoder,
        inputs: Tensor,
        encoder_codes: Tensor | None = None,
        peers: Peers | None = None,
    ) -> Objective:
        """Join the weights with one batch.

        Args:
            decoder: its weights are read now and must not change while the objective is used.
            inputs: (n, d).
            encoder_codes: (n, l), the encoder's prediction, taken as a constant.
            peers: processes that have the rest of the batch, to all of which the hinge's mean and
                variance belong.

        Raises:
            SettingError: γ > 0 without ``encoder_codes``, or β > 0 with fewer than two samples.
        """
        if self.encoder_weight > 0 and encoder_codes is None:
            raise SettingError(
                f"model.energy.encoder_weight={self.encoder_weight} needs an encoder: "
                "give the encoder's codes, or set it to 0."
            )
        if self.has_hinge and len(inputs) < 2 and peers is None:
            raise SettingError(
                f"model.energy.variance_weight={self.variance_weight} needs at least 2 samples "
                f"in a batch to have a variance, got {len(inputs)}: use a larger batch, or set "
                "model.energy.variance_weight=0."
            )
        inputs = at_least_float32(inputs)
        attraction = None
        if self.encoder_weight > 0:
            curvature = 2 * self.encoder_weight / decoder.code_dim
            attraction = Attraction(curvature, at_least_float32(encoder_codes))
        room = (len(inputs), decoder.code_dim)
        return Objective(
            energy=self,
            smooth=decoder.bind(inputs, attraction),
            scratch=(inputs.new_empty(room), inputs.new_empty(room)) if self.has_hinge else None,
            decoder=decoder,
            inputs=inputs,
            attraction=attraction,
            peers=peers if self.has_hinge else None,
        )

    def hinge(self, moments: Moments) -> Tensor:
        r""":math:`\beta \sum_j [(T - \sigma_j)_+]^2`, a scalar."""
        shortfall = (self.variance_threshold - moments.standard_deviation()).relu()
        return self.variance_weight * shortfall.square().sum()

    @property
    def has_hinge(self) -> bool:
        """Whether the variance hinge is other than 0 everywhere."""
        return self.variance_weight > 0 and self.variance_threshold > 0


@dataclass(frozen=True)
class ActiveObjective:
    """What a solver works on: :math:`E` of the samples whose codes may still move.

    Attributes:
        energy: the weights.
        smooth: the reconstruction and encoder terms.
        scratch: two times (n, l), room for the hinge's intermediate results; None without one.
        held: moments of samples that belong to the batch but whose codes are constant: they
            count in the hinge's mean and variance and nowhere else.
        peers: processes that have the other samples of the batch, None where this one has all.
    """

    energy: Energy
    smooth: SmoothTerm
    scratch: tuple[Tensor, Tensor] | None = field(repr=False)
    held: Moments | None = field(default=None, kw_only=True)
    peers: Peers | None = field(default=None, kw_only=True)

    def gradient(self, codes: Tensor, out: Tensor | None = None) -> Tensor:
        r"""Gradient of the smooth part of :math:`E`, (n, l) -> (n, l), written to ``out`` if given.

        Reconstruction term of the decoder, :math:`\frac{2\gamma}{l}(z - z_E)`, and for
        :math:`0 < \sigma_j < T`
        :math:`-\frac{2\beta}{n-1}\frac{T-\sigma_j}{\sigma_j}(z_{ij}-\mu_j)`, else 0 (eq. 12).
        """
        gradient = self.smooth.gradient(codes, out)
        if self.energy.has_hinge:
            self._add_hinge_gradient(gradient, codes)
        return gradient

    def _add_hinge_gradient(self, gradient: Tensor, codes: Tensor) -> None:
        centred, squares = self.scratch
        total = codes.sum(0)
        torch.sub(codes, total, alpha=1 / len(codes), out=centred)
        scatter = torch.mul(centred, centred, out=squares).sum(0)
        count = len(codes)
        if self.held is not None or self.peers is not None:
            moments = self._of_the_whole_batch(Moments(count, total / count, scatter))
            torch.sub(codes, moments.mean, out=centred)
            count, scatter = moments.count, moments.scatter
            total = moments.mean * count
        scale = -2 * self.energy.variance_weight / (count - 1)
        shortfall = relative_shortfall(self.energy.variance_threshold, count, total, scatter)
        gradient.addcmul_(centred, shortfall, value=scale)

    def _of_the_whole_batch(self, moments: Moments) -> Moments:
        """These moments with those of the held samples and of the other processes."""
        moments = moments.merge(self.held)
        return moments if self.peers is None else self.peers.merge(moments)

    @property
    def quadratic(self) -> Quadratic | None:
        """E as a quadratic, for a solver that is compiled; None where that does not pay.

        There is none on an accelerator, nor where the hinge counts samples that are not here.
        """
        smooth = self.smooth
        if not isinstance(smooth, QuadraticTerm) or not can_be_compiled(smooth.drive):
            return None
        if self.peers is not None or self.held is not None:
            return None
        energy = self.energy
        hinge = (energy.variance_weight, energy.variance_threshold) if energy.has_hinge else None
        return Quadratic(smooth.gram, smooth.drive, energy.sparsity_weight, hinge)

    @property
    def is_recordable(self) -> bool:
        """Whether an accelerator may record some gradients and replay them (`SmoothTerm`)."""
        return self.smooth.is_recordable and self.peers is None

    def prepared_for(self, outlook: Outlook) -> ActiveObjective:
        """The same objective, faster at the gradients to come, where preparing it pays."""
        smooth = self.smooth.prepared_for(outlook.gradients)
        if self.peers is None:  # all would have to decide alike
            smooth = in_pieces(smooth, outlook)
        return self if smooth is self.smooth else replace(self, smooth=smooth)

    def agree(self, holds: bool) -> bool:
        """Whether something holds in every process that shares the batch."""
        return holds if self.peers is None else self.peers.agree(holds, self.scratch[0].device)

    def total(self, part: Tensor) -> Tensor:
        """The sum over the processes that share the batch of what each has a part of."""
        return part if self.peers is None else self.peers.total(part)

    def curvature(self, codes: Tensor) -> Curvature:
        r"""Of the smooth part of :math:`E`, near ``codes``.

        The hinge bends upwards by at most :math:`2\beta/(n-1)`, since :math:`\sigma_j` is a convex
        function and :math:`(T - \sigma)_+^2` lies below :math:`\sigma^2 - 2T\sigma + T^2` and
        below any of its own parabolas of that curvature where it is 0. It may bend downwards.
        """
        return self._with_hinge(self.smooth.curvature(codes), codes)

    def _with_hinge(self, smooth: Curvature, codes: Tensor) -> Curvature:
        if self.is_separable:
            return smooth
        upper, count = smooth.upper, len(codes)
        if self.held is not None:
            count += self.held.count
        if self.peers is not None:
            mine = codes.new_tensor([upper, count, 1], dtype=torch.float64)
            total, count, processes = self.total(mine).tolist()
            upper = total / processes
        hinge = 2 * self.energy.variance_weight / (count - 1)
        return Curvature(0.0, upper + hinge, smooth.is_bound)

    @property
    def sparsity_weight(self) -> float:
        return self.energy.sparsity_weight

    @property
    def is_separable(self) -> bool:
        """Whether E is a sum of functions of one sample each; the hinge couples samples."""
        return not self.energy.has_hinge

    def comparable(self, codes: Tensor) -> Tensor:
        """E up to a constant, to compare codes by: per sample, (n, 1), or (1, 1) if coupled."""
        return self._comparable(self.smooth.value(codes), codes)

    def comparable_and_gradient(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """`comparable` and `gradient`, for little more than the gradient alone."""
        return self._comparable_and_gradient(*self.smooth.value_and_gradient(codes), codes)

    def _comparable_and_gradient(
        self, values: Tensor, gradient: Tensor, codes: Tensor
    ) -> tuple[Tensor, Tensor]:
        if self.energy.has_hinge:
            self._add_hinge_gradient(gradient, codes)
        return self._comparable(values, codes), gradient

    def outset(self, codes: Tensor) -> Outset:
        """`comparable`, `gradient` and `curvature` in one look."""
        values, gradient, smooth = self.smooth.outset(codes)
        curvature = self._with_hinge(smooth, codes)
        return Outset(*self._comparable_and_gradient(values, gradient, codes), curvature)

    def expanded(self, codes: Tensor) -> Expansion | None:
        """`comparable` and `gradient` with a Hessian that nearly holds for all samples.

        None if none does, or where a quadratic would not be solved by compiled loops.
        """
        if not self.is_separable or not can_be_helped(codes):
            return None
        expansion = self.smooth.expanded(codes)
        if expansion is None:
            return None
        return expansion._replace(values=self._comparable(expansion.values, codes))

    def _comparable(self, values: Tensor, codes: Tensor) -> Tensor:
        energies = values + self.energy.sparsity_weight * codes.sum(1)
        if self.is_separable:
            return energies[:, None]
        hinge = self.energy.hinge(self._of_the_whole_batch(Moments.of(codes)))
        return (self.total(energies.sum()) + hinge).reshape(1, 1)

    def shrink(self, codes: Tensor, step_size: float | Tensor, out: Tensor | None = None) -> Tensor:
        r"""Proximal step of :math:`\lambda\|z\|_1, z \ge 0`: :math:`(z - \eta\lambda)_+`."""
        return torch.sub(codes, step_size * self.energy.sparsity_weight, out=out).relu_()

    def restrict(self, rows: Tensor, held_codes: Tensor) -> ActiveObjective:
        """The objective of the samples ``rows``, while the others keep their codes.

        Args:
            rows: index vector of the samples that stay free.
            held_codes: (k, l) codes of the samples that are now constant. With the hinge they
                go on counting in the batch's mean and variance, exactly.
        """
        held, scratch = self.held, self.scratch
        if self.energy.has_hinge:
            held = Moments.of(held_codes).merge(held)
            scratch = tuple(room[: len(rows)] for room in scratch)
        return ActiveObjective(
            self.energy, self.smooth.restrict(rows), scratch, held=held, peers=self.peers
        )


@dataclass(frozen=True)
class Objective(ActiveObjective):
    """:math:`E(Z)` of a whole batch as a function of the codes (n, l); see the module's formula.

    Attributes:
        decoder: D.
        inputs: x, (n, d).
        attraction: the encoder term, None without one.
    """

    decoder: BindableDecoder = field(repr=False)
    inputs: Tensor = field(repr=False)
    attraction: Attraction | None = field(repr=False)

    def terms(self, codes: Tensor, squared_errors: Tensor | None = None) -> dict[str, Tensor]:
        """The weighted terms by name (`TERMS`), each summed over the batch; they add up to E.

        Args:
            codes: (n, l).
            squared_errors: mean squares of D(codes) - x, (n,), where they are already known.
        """
        energy = self.energy
        if squared_errors is None:
            squared_errors = mean_squares(self.decoder(codes).to(codes.dtype) - self.inputs)
        variance = encoder = codes.new_zeros(())
        if energy.has_hinge:
            moments = self._of_the_whole_batch(Moments.of(codes))
            variance = energy.hinge(moments)
            if self.peers is not None:
                # This process's part of it.
                variance = variance * (len(codes) / moments.count)
        if self.attraction is not None:
            encoder = self.attraction.value(codes).sum()
        return {
            "reconstruction": squared_errors.sum(),
            "sparsity": energy.sparsity_weight * codes.abs().sum(),
            "variance": variance,
            "encoder": encoder,
        }

    def alone(self) -> Objective:
        """The objective of this process's samples, which asks no other process anything."""
        return replace(self, peers=None)

    def value(self, codes: Tensor) -> Tensor:
        """E(Z), a scalar summed over the batch."""
        return sum(self.terms(codes).values())
