r"""An encoder of your own: the k largest of a linear response.

.. math:: E(x) = \mathrm{relu}\big(\mathrm{top}_k(U x + b)\big) ,

after Makhzani & Frey, "k-Sparse Autoencoders", ICLR 2014. It has ``filters``, which figures show;
an encoder whose first layer says nothing leaves that method out.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sparse_lightning import Encoder, register
from sparse_lightning.errors import SettingError


@register
class KLargest(Encoder):
    """At most k components of a code are active.

    Args:
        input_dim: d.
        code_dim: l.
        k: components that may be active, from 1 to l.
    """

    def __init__(self, input_dim: int, code_dim: int, k: int) -> None:
        super().__init__()
        if not 1 <= k <= code_dim:
            raise SettingError(f"model.encoder.k={k} must be from 1 to code_dim={code_dim}.")
        self.input_dim, self.code_dim, self.k = input_dim, code_dim, k
        self.input = nn.Linear(input_dim, code_dim)

    def forward(self, inputs: Tensor) -> Tensor:
        """(n, d) -> non-negative codes (n, l)."""
        largest, places = torch.relu(self.input(inputs)).topk(self.k, dim=-1)
        zeros = inputs.new_zeros(*inputs.shape[:-1], self.code_dim).to(largest.dtype)
        return zeros.scatter(-1, places, largest)

    def filters(self) -> Tensor:
        """The rows of U, (l, d)."""
        return self.input.weight.detach()
