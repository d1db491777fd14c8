r"""Penalties :math:`R(z)` on the codes, by their value and their proximal step.

The energy weighs its penalty with :math:`\lambda`. A solver takes a gradient step on all other
terms, and then the penalty's proximal step

.. math::
    \mathrm{prox}_{\eta\lambda R}(v) = \arg\min_z \tfrac12 \|z - v\|^2 + \eta\lambda R(z) .

A penalty of one's own is one class with `value` and `prox` (Parikh & Boyd, "Proximal Algorithms",
2014, has a catalogue).

=======================  ======  ======  ==========================================================
class                    convex  signed  R(z)
=======================  ======  ======  ==========================================================
`NonNegativeL1`          yes     no      sum of the components
`L1`                     yes     yes     sum of the magnitudes
`NonNegativeGroupLasso`  yes     no      sum of the norms of groups of components
`GroupLasso`             yes     yes     sum of the norms of groups of components
`NonNegativeLogSum`      no      no      sum of log(1 + z / ε) over the components
`NonNegativeL0`          no      no      number of active components
=======================  ======  ======  ==========================================================

With a convex penalty, a linear decoder and β = 0 a solver ends at a minimum of the energy. The
hinge and a decoder with hidden layers are not convex. With them, or with a penalty that is not
convex, a solver ends at a fixed point of the proximal gradient step, which depends on the start.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from sparse_lightning.errors import SettingError, require_count, require_positive
from sparse_lightning.registry import plain_numbers, register


class Penalty(ABC):
    """Base of all penalties.

    Attributes:
        is_signed: whether codes may have negative components. Encoders that end in a relu cannot
            predict such codes.
    """

    is_signed: bool = False

    @abstractmethod
    def value(self, codes: Tensor) -> Tensor:
        """R of each sample, unweighted, (n, l) -> (n,)."""

    @abstractmethod
    def prox(self, codes: Tensor, threshold: float | Tensor) -> Tensor:
        r"""The proximal step of :math:`\tau R`, (n, l) -> (n, l).

        Args:
            codes: (n, l).
            threshold: :math:`\tau = \eta\lambda \ge 0`, one number or one of each sample, (n, 1).
        """

    def require_fit(self, code_dim: int) -> None:  # noqa: B027
        """Raise `SettingError` if codes of l components cannot have this penalty."""


@register
@dataclass(frozen=True)
class NonNegativeL1(Penalty):
    r""":math:`R(z) = \|z\|_1` for :math:`z \ge 0`, with :math:`\mathrm{prox}(v) = (v - \tau)_+`.

    The paper's penalty (Evtimova & LeCun 2022, eq. 5).

    Example:
        >>> NonNegativeL1().prox(torch.tensor([[0.5, 0.05, -0.2]]), threshold=0.1)
        tensor([[0.4000, 0.0000, 0.0000]])
    """

    def value(self, codes: Tensor) -> Tensor:
        return codes.abs().sum(-1)

    def prox(self, codes: Tensor, threshold: float | Tensor) -> Tensor:
        return torch.relu(codes - threshold)


@register
@dataclass(frozen=True)
class L1(Penalty):
    r""":math:`R(z) = \|z\|_1`, with the soft threshold :math:`\mathrm{sign}(v)(|v| - \tau)_+`.

    The penalty of ISTA (Daubechies, Defrise & De Mol, "An iterative thresholding algorithm for
    linear inverse problems with a sparsity constraint", 2004).
    """

    is_signed = True

    def value(self, codes: Tensor) -> Tensor:
        return codes.abs().sum(-1)

    def prox(self, codes: Tensor, threshold: float | Tensor) -> Tensor:
        return codes.sign() * torch.relu(codes.abs() - threshold)


@register
@dataclass(frozen=True)
class NonNegativeLogSum(Penalty):
    r""":math:`R(z) = \sum_j \log(1 + z_j / \epsilon)` for :math:`z \ge 0`.

    Near 0 it is as steep as an l1 norm divided by :math:`\epsilon`; large components are hardly
    shrunk. It is the penalty that reweighted l1 minimisation descends on (Candès, Wakin & Boyd,
    "Enhancing sparsity by reweighted l1 minimization", 2008). Its proximal step is the
    larger root of :math:`(z - v)(z + \epsilon) + \tau = 0` where that has a lower cost than 0, and
    0 elsewhere (Prater-Bennette, Shen & Tripp, "The proximity operator of the log-sum penalty",
    2022).

    Args:
        epsilon: :math:`\epsilon > 0`, in units of the codes.

    Raises:
        SettingError: for another number.
    """

    epsilon: float = 0.1

    def __post_init__(self) -> None:
        plain_numbers(self)
        require_positive("model.energy.penalty.epsilon", self.epsilon)

    def value(self, codes: Tensor) -> Tensor:
        return torch.log1p(codes.clamp_min(0) / self.epsilon).sum(-1)

    def prox(self, codes: Tensor, threshold: float | Tensor) -> Tensor:
        root = ((codes + self.epsilon).square() - 4 * threshold).clamp_min(0).sqrt()
        inner = ((codes - self.epsilon + root) / 2).clamp_min(0)
        # By how much the cost at the root differs from the cost at 0.
        rise = inner * (inner / 2 - codes) + threshold * torch.log1p(inner / self.epsilon)
        # What is no finite number stays so, by which divergence is told.
        is_zero = (codes <= 0) | ((rise >= 0) & inner.isfinite())
        return torch.where(is_zero, 0.0, inner)


@register
@dataclass(frozen=True)
class NonNegativeL0(Penalty):
    r""":math:`R(z) = \|z\|_0` for :math:`z \ge 0`: the number of active components.

    The proximal step is the hard threshold: v where :math:`v > \sqrt{2\tau}`, 0 elsewhere
    (Blumensath & Davies, "Iterative thresholding for sparse approximations", 2008). What is active
    is not shrunk. Codes that start at 0 stay there unless one step passes the threshold.

    Example:
        >>> NonNegativeL0().prox(torch.tensor([[0.5, 0.4, -0.9]]), threshold=0.1)
        tensor([[0.5000, 0.0000, 0.0000]])
    """

    def value(self, codes: Tensor) -> Tensor:
        return (codes != 0).to(codes.dtype).sum(-1)

    def prox(self, codes: Tensor, threshold: float | Tensor) -> Tensor:
        # What is no number stays so, by which divergence is told.
        return torch.where((codes <= 0) | (codes.square() <= 2 * threshold), 0.0, codes)


@register
@dataclass(frozen=True)
class GroupLasso(Penalty):
    r""":math:`R(z) = \sqrt{p} \sum_g \|z_g\|_2` over groups of p consecutive components.

    The components of a group are active together or not at all. The proximal step shrinks the norm
    of each group: :math:`v_g\,(1 - \tau\sqrt{p} / \|v_g\|)_+` (Yuan & Lin, "Model selection and
    estimation in regression with grouped variables", 2006).

    Args:
        group_size: p, which divides the number of code components.

    Raises:
        SettingError: for a group size that is no whole number of at least 1. `value`, `prox` and
            `require_fit` raise it too where p does not divide l.

    Example:
        >>> GroupLasso(group_size=2).value(torch.tensor([[3.0, 4.0, 0.0, 0.0]]))
        tensor([7.0711])
    """

    group_size: int = 4

    is_signed = True

    def __post_init__(self) -> None:
        plain_numbers(self)
        require_count("model.energy.penalty.group_size", self.group_size)

    def require_fit(self, code_dim: int) -> None:
        if code_dim % self.group_size:
            raise SettingError(
                f"model.energy.penalty.group_size={self.group_size} must divide the number of code "
                f"components, model.decoder.code_dim={code_dim}: change either of them."
            )

    def value(self, codes: Tensor) -> Tensor:
        return self.group_size**0.5 * self._norms(self._groups(codes)).sum((-2, -1))

    def prox(self, codes: Tensor, threshold: float | Tensor) -> Tensor:
        groups = self._groups(codes)
        norms = self._norms(groups)
        if isinstance(threshold, Tensor):
            threshold = threshold[..., None]
        kept = torch.relu(norms - threshold * self.group_size**0.5)
        return (groups * torch.where(norms > 0, kept / norms, 0.0)).flatten(-2)

    def _groups(self, codes: Tensor) -> Tensor:
        """(n, l) -> (n, l / p, p)."""
        self.require_fit(codes.shape[-1])
        return codes.unflatten(-1, (-1, self.group_size))

    def _norms(self, groups: Tensor) -> Tensor:
        """(n, g, p) -> (n, g, 1)."""
        return torch.linalg.vector_norm(groups, dim=-1, keepdim=True)


@register
@dataclass(frozen=True)
class NonNegativeGroupLasso(GroupLasso):
    r"""`GroupLasso` for codes that are not negative; arguments as there.

    Negative components are set to 0 before the norms of the groups are shrunk. That is the proximal
    step of norm and constraint together: :math:`\langle z, v\rangle \le \langle z, v_+\rangle` for
    :math:`z \ge 0`, with equality where z is a multiple of :math:`v_+`.
    """

    is_signed = False

    def prox(self, codes: Tensor, threshold: float | Tensor) -> Tensor:
        return super().prox(torch.relu(codes), threshold)
