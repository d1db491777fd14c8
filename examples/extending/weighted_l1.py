r"""A penalty of your own: an l1 norm that charges later components more.

.. math:: R(z) = \sum_{j=0}^{l-1} w_j z_j, \quad z \ge 0, \qquad
          w_j = 1 + g\,\frac{j}{l-1}, \qquad \mathrm{prox}_{\tau R}(v)_j = (v_j - \tau w_j)_+ .

Candès, Wakin & Boyd, "Enhancing Sparsity by Reweighted l1 Minimization", 2008, weigh by the last
solution; here the weights follow the order of components, so that the first ones are used first.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparse_lightning import Penalty, register
from sparse_lightning.errors import require_non_negative


@register
@dataclass(frozen=True)
class OrderedL1(Penalty):
    """See the module's formula.

    Args:
        growth: g, how much more the last component costs than the first.
    """

    growth: float = 1.0

    def __post_init__(self) -> None:
        require_non_negative("model.energy.penalty.growth", self.growth)

    def _weights(self, codes: Tensor) -> Tensor:
        order = torch.linspace(0, 1, codes.shape[-1], dtype=codes.dtype, device=codes.device)
        return 1 + self.growth * order

    def value(self, codes: Tensor) -> Tensor:
        return (self._weights(codes) * codes.abs()).sum(-1)

    def prox(self, codes: Tensor, threshold: float | Tensor) -> Tensor:
        return torch.relu(codes - threshold * self._weights(codes))
