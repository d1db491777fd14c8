r"""The energy that inference minimises, written once.

For inputs :math:`x_i \in R^d`, codes :math:`z_i \in R^l, z_i \ge 0`, a decoder :math:`D` and the
encoder's predictions :math:`z_{E,i}`,

.. math::
    E(Z) = \sum_i \Big[ \tfrac1d \|x_i - D(z_i)\|^2 + \lambda \|z_i\|_1
           + \tfrac{\gamma}{l} \|z_i - z_{E,i}\|^2 \Big]
           + \beta \sum_j \big[ (T - \sigma_j)_+ \big]^2 .

The terms have a file each: the data fit (`sparse_lightning.datafits`), the penalty
(`sparse_lightning.penalties`; another one may take the place of the l1 norm) and the variance hinge
(`sparse_lightning.variance`). The penalty is handled by its proximal step (`Objective.prox`), all
other terms by their gradient (`Objective.gradient`).

`Energy` holds the weights; `Energy.bind` joins them with a decoder and a batch into an
`Objective`, a plain function of the codes. Solvers, training logs, tests and studies all judge by
that one object.

Source: Evtimova & LeCun, "Sparse Coding with Multi-layer Decoders using Variance
Regularization", TMLR 2022, eq. 6 to 12 and appendix A.3.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from sparse_lightning.datafits import DataFit
from sparse_lightning.decoders import Decoder
from sparse_lightning.distributed import Processes
from sparse_lightning.errors import InputError, SettingError, require_non_negative
from sparse_lightning.inputs import as_inputs, at_least_float32
from sparse_lightning.penalties import NonNegativeL1, Penalty
from sparse_lightning.registry import plain_numbers, register
from sparse_lightning.variance import Moments, VarianceHinge

TERMS = ("reconstruction", "sparsity", "variance", "encoder")


@register
@dataclass(frozen=True)
class Energy:
    r"""The weights of :math:`E(Z)`.

    Args:
        sparsity_weight: :math:`\lambda \ge 0`, a number, or a tensor without dimensions (as
            ``torch.func.vmap`` needs it), whose sign is not checked.
        variance_weight: :math:`\beta \ge 0`; 0 switches the variance hinge off.
        variance_threshold: :math:`T \ge 0`, in units of the codes.
        encoder_weight: :math:`\gamma \ge 0`; 0 ignores the encoder's prediction.
        penalty: what :math:`\lambda` weighs.

    Raises:
        SettingError: for a weight that is negative or not finite.

    Example:
        >>> from sparse_lightning import LinearDecoder
        >>> decoder = LinearDecoder(code_dim=2, input_dim=2)
        >>> decoder.weight.data = torch.eye(2)
        >>> objective = Energy(sparsity_weight=0.1).bind(decoder, torch.tensor([[1.0, 0.0]]))
        >>> objective.value(torch.tensor([[0.9, 0.0]]))  # 0.1² / 2 + 0.1 · 0.9
        tensor(0.0950)
    """

    sparsity_weight: float
    variance_weight: float = 0.0
    variance_threshold: float = 0.5
    encoder_weight: float = 0.0
    penalty: Penalty = field(default_factory=NonNegativeL1, kw_only=True)

    def __post_init__(self) -> None:
        plain_numbers(self)
        for name in ("variance_weight", "variance_threshold", "encoder_weight"):
            require_non_negative(f"model.energy.{name}", getattr(self, name))
        if isinstance(self.sparsity_weight, Tensor):
            if self.sparsity_weight.ndim > 0:
                raise SettingError(
                    "model.energy.sparsity_weight is a tensor of shape "
                    f"{tuple(self.sparsity_weight.shape)}: give one number for all samples."
                )
        else:
            require_non_negative("model.energy.sparsity_weight", self.sparsity_weight)

    @property
    def hinge(self) -> VarianceHinge | None:
        """The variance hinge, None where it is 0 everywhere."""
        if self.variance_weight == 0 or self.variance_threshold == 0:
            return None
        return VarianceHinge(self.variance_weight, self.variance_threshold)

    def bind(
        self,
        decoder: Decoder,
        inputs: Tensor,
        encoder_codes: Tensor | None = None,
        processes: Processes | None = None,
    ) -> Objective:
        """Join the weights with one batch.

        Args:
            decoder: its weights are read now and must not change while the objective is used.
            inputs: (n, d).
            encoder_codes: (n, l), the encoder's prediction, taken as a constant.
            processes: those that share the batch. The hinge's mean and variance belong to all.

        Raises:
            SettingError: γ > 0 without ``encoder_codes``, or β > 0 with fewer than two samples.
            InputError: the inputs, or the encoder's codes, do not fit the decoder.
        """
        inputs = as_inputs(inputs, decoder)
        encoder_penalty = None
        if self.encoder_weight > 0:
            if encoder_codes is None:
                raise SettingError(
                    f"model.energy.encoder_weight={self.encoder_weight} needs an encoder: "
                    "give the encoder's codes, or set it to 0."
                )
            shape = (len(inputs), decoder.code_dim)
            if encoder_codes.shape != shape:
                raise InputError(
                    f"Codes of the encoder of shape {tuple(encoder_codes.shape)} do not fit the "
                    f"batch and its decoder: give codes of shape {shape}."
                )
            curvature = 2 * self.encoder_weight / decoder.code_dim
            encoder_penalty = EncoderPenalty(curvature, at_least_float32(encoder_codes))
        if self.hinge is not None and len(inputs) < 2 and processes is None:
            raise SettingError(
                f"model.energy.variance_weight={self.variance_weight} needs at least 2 samples "
                f"in a batch to have a variance, got {len(inputs)}: use a larger batch, or set "
                "model.energy.variance_weight=0."
            )
        with torch.autocast(inputs.device.type, enabled=False):
            datafit = decoder.datafit(at_least_float32(inputs))
        return Objective(
            energy=self,
            datafit=datafit,
            encoder_penalty=encoder_penalty,
            processes=None if self.hinge is None else processes,
            code_shape=(len(inputs), decoder.code_dim),
        )


@dataclass(frozen=True)
class EncoderPenalty:
    r""":math:`\frac{c}{2} \|z_i - z_{E,i}\|^2` with :math:`c = 2\gamma/l`.

    Attributes:
        curvature: c.
        encoder_codes: :math:`z_E`, (n, l).
    """

    curvature: float
    encoder_codes: Tensor

    def value(self, codes: Tensor) -> Tensor:
        """Per sample, (n,)."""
        distance = codes - self.encoder_codes
        return torch.linalg.vecdot(distance, distance) * (self.curvature / 2)

    def gradient(self, codes: Tensor) -> Tensor:
        r""":math:`c\,(z - z_E)`, (n, l)."""
        return self.curvature * (codes - self.encoder_codes)

    def restrict(self, rows: Tensor) -> EncoderPenalty:
        return replace(self, encoder_codes=self.encoder_codes[rows])


@dataclass(frozen=True)
class Objective:
    """:math:`E(Z)` of a batch as a function of the codes (n, l); see the module's formula.

    Attributes:
        energy: the weights.
        datafit: the reconstruction term.
        encoder_penalty: the encoder term, None without one.
        processes: those that share the batch, None where this process has all of it.
        frozen: moments of samples that belong to the batch but whose codes are constant. They
            count in the hinge's mean and variance and nowhere else.
        code_shape: (n, l) of the codes of the whole batch, None where it is not checked.

    Raises:
        InputError: by each method but `prox`, for codes of another shape.
    """

    energy: Energy
    datafit: DataFit = field(repr=False)
    encoder_penalty: EncoderPenalty | None = field(repr=False, default=None)
    processes: Processes | None = None
    frozen: Moments | None = field(repr=False, default=None)
    code_shape: tuple[int, int] | None = None

    @property
    def penalty(self) -> Penalty:
        return self.energy.penalty

    @property
    def sparsity_weight(self) -> float | Tensor:
        return self.energy.sparsity_weight

    @property
    def is_separable(self) -> bool:
        """Whether E is a sum of functions of one sample each; the hinge couples samples."""
        return self.energy.hinge is None

    # What a solver asks for.

    def gradient(self, codes: Tensor) -> Tensor:
        """Gradient of all terms but the penalty, (n, l) -> (n, l)."""
        self._require_shape(codes)
        return self._add_other_gradients(self.datafit.gradient(codes), codes)

    def _add_other_gradients(self, gradient: Tensor, codes: Tensor) -> Tensor:
        if self.encoder_penalty is not None:
            gradient = gradient + self.encoder_penalty.gradient(codes)
        if self.energy.hinge is not None:
            gradient = gradient + self.energy.hinge.gradient(codes, self._moments(codes))
        return gradient

    def prox(self, codes: Tensor, step_size: float | Tensor) -> Tensor:
        r"""Proximal step of :math:`\eta\lambda R`, (n, l) -> (n, l).

        Args:
            codes: (n, l).
            step_size: :math:`\eta`, one number or one of each sample, (n, 1).
        """
        return self.penalty.prox(codes, step_size * self.sparsity_weight)

    def energies(self, codes: Tensor) -> Tensor:
        """E of each sample, (n, 1), or of the whole batch, (1, 1), where samples are coupled."""
        self._require_shape(codes)
        return self._energies(self.datafit.value(codes), codes)

    def energies_and_gradient(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """`energies` and `gradient`, for little more than the gradient alone."""
        self._require_shape(codes)
        values, gradient = self.datafit.value_and_gradient(codes)
        return self._energies(values, codes), self._add_other_gradients(gradient, codes)

    def _separable_terms(self, values: Tensor, codes: Tensor) -> dict[str, Tensor]:
        """The weighted terms that samples have each by themselves, (n,), by name.

        Args:
            values: of the reconstruction term, (n,).
            codes: (n, l).
        """
        terms = {
            "reconstruction": values,
            "sparsity": self.sparsity_weight * self.penalty.value(codes),
        }
        if self.encoder_penalty is not None:
            terms["encoder"] = self.encoder_penalty.value(codes)
        return terms

    def _energies(self, values: Tensor, codes: Tensor) -> Tensor:
        first, *others = self._separable_terms(values, codes).values()
        energies = sum(others, first)
        if self.energy.hinge is None:
            return energies[:, None]
        total = self.total(energies.sum())
        return (total + self.energy.hinge.value(self._moments(codes))).reshape(1, 1)

    def lipschitz(self, codes: Tensor, enough: float = 0.0) -> float | None:
        """An upper bound of the curvature of all terms but the penalty, None if none is known.

        That of the hinge is at most 2β/(n − 1). It has no lower bound, which no step needs.

        Args:
            codes: (n, l).
            enough: a bound of this size or less is not refined; 0 asks for the closest.
        """
        self._require_shape(codes)
        others = 0.0
        if self.encoder_penalty is not None:
            others += self.encoder_penalty.curvature
        if self.energy.hinge is not None:
            others += self.energy.hinge.curvature_bound(self._moments(codes).count)
        bound = self.datafit.lipschitz(max(enough - others, 0.0))
        return None if bound is None else bound + others

    def average_hessian(self, codes: Tensor) -> Tensor | None:
        """One Hessian (l, l) of a separable E that nearly holds for all samples, None if none."""
        self._require_shape(codes)
        hessian = self.datafit.average_hessian(codes)
        if hessian is None or self.encoder_penalty is None:
            return hessian
        return hessian + self.encoder_penalty.curvature * torch.eye(len(hessian)).to(hessian)

    def restrict(self, rows: Tensor, frozen_codes: Tensor) -> Objective:
        """The objective of the samples ``rows``, while the others keep their codes.

        Args:
            rows: index vector of the samples that stay free.
            frozen_codes: (k, l) codes of the samples that are now constant. With the hinge they go
                on counting in the batch's mean and variance, exactly.
        """
        frozen, encoder_penalty = self.frozen, self.encoder_penalty
        if self.energy.hinge is not None:
            frozen = Moments.of(frozen_codes).merge(frozen)
        if encoder_penalty is not None:
            encoder_penalty = encoder_penalty.restrict(rows)
        return replace(
            self,
            datafit=self.datafit.restrict(rows),
            encoder_penalty=encoder_penalty,
            frozen=frozen,
            code_shape=None,
        )

    def without_hinge(self) -> Objective:
        """The objective less the hinge, which curves upwards by 2β/(n − 1) at most."""
        return replace(self, energy=replace(self.energy, variance_weight=0.0), frozen=None)

    def prepared_for(self, gradients: int) -> Objective:
        """The objective, faster at so many gradients to come where preparing it pays."""
        datafit = self.datafit.prepared_for(gradients)
        return self if datafit is self.datafit else replace(self, datafit=datafit)

    def total(self, part: Tensor) -> Tensor:
        """The sum over the processes that share the batch of what each has a part of."""
        return part if self.processes is None else self.processes.total(part)

    def agree(self, holds: bool, device: torch.device) -> bool:
        """Whether something holds in every process that shares the batch."""
        return holds if self.processes is None else self.processes.agree(holds, device)

    # What logs, tests and studies ask for.

    def terms(self, codes: Tensor, squared_errors: Tensor | None = None) -> dict[str, Tensor]:
        """The weighted terms by name (`TERMS`), each summed over the samples; they add up to E.

        Where processes share the batch these are this process's part, and the parts add up to E.
        All processes must ask for them.

        Args:
            codes: (n, l).
            squared_errors: mean squares of D(codes) - x, (n,), where they are already known.
        """
        self._require_shape(codes)
        if squared_errors is None:
            squared_errors = self.datafit.value(codes)
        terms = dict.fromkeys(TERMS, codes.new_zeros(()))
        for name, values in self._separable_terms(squared_errors, codes).items():
            terms[name] = values.sum()
        if self.energy.hinge is not None:
            moments = self._moments(codes)
            terms["variance"] = self.energy.hinge.value(moments)
            if self.processes is not None:
                # This process's part of it.
                terms["variance"] = terms["variance"] * (len(codes) / moments.count)
        return terms

    def value(self, codes: Tensor) -> Tensor:
        """E(Z), a scalar summed over the batch."""
        return sum(self.terms(codes).values(), codes.new_zeros(()))

    def alone(self) -> Objective:
        """The objective of this process's samples, which asks no other process anything."""
        return replace(self, processes=None)

    def _require_shape(self, codes: Tensor) -> None:
        if self.code_shape is not None and tuple(codes.shape) != self.code_shape:
            raise InputError(
                f"Codes of shape {tuple(codes.shape)} do not fit the batch and its decoder: start "
                f"from codes of shape {self.code_shape}."
            )

    def _moments(self, codes: Tensor) -> Moments:
        """The moments of the whole batch: with the frozen samples and the other processes."""
        moments = Moments.of(codes).merge(self.frozen)
        return moments if self.processes is None else self.processes.merge(moments)
