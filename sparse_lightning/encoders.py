r"""Encoders predict codes in one pass, per sample, where inference needs many and a whole batch.

LISTA (Gregor & LeCun 2010) unrolls a few steps of shrinkage with free weights:

.. math:: u = U x + b, \qquad z^0 = \mathrm{relu}(u), \qquad
          z^{k+1} = \mathrm{relu}(u + S z^k), \quad k = 0, \dots, L - 1 .
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sparse_lightning.errors import SettingError, require_count
from sparse_lightning.registry import register


class Encoder(nn.Module):
    """Base of all encoders: ``forward`` maps inputs (n, d) to codes (n, l).

    Attributes:
        input_dim: d.
        code_dim: l.
        is_signed: whether codes may have negative components, as those of a signed penalty have.
    """

    input_dim: int
    code_dim: int
    is_signed: bool = False

    def unit_slices(self) -> list[tuple[nn.Parameter, int]]:
        """Weights, and the dimension of each along which code components are counted.

        The first is what meets the inputs. An encoder that tells nothing cannot have single units
        begin anew.
        """
        return []


@register
class LISTA(Encoder):
    """Learned ISTA. Its codes are not negative.

    Args:
        input_dim: d, pixels.
        code_dim: l, code components.
        num_layers: L, applications of the lateral weight S.

    Attributes:
        input: U (l, d) with bias b (l,).
        lateral: S (l, l), no bias, shared by all layers.
    """

    def __init__(self, input_dim: int, code_dim: int, num_layers: int = 3) -> None:
        super().__init__()
        if num_layers < 0:
            raise SettingError(f"model.encoder.num_layers={num_layers} must be 0 or more.")
        require_count("model.encoder.input_dim", input_dim)
        require_count("model.encoder.code_dim", code_dim)
        self.input_dim, self.code_dim, self.num_layers = input_dim, code_dim, num_layers
        self.input = nn.Linear(input_dim, code_dim)
        self.lateral = nn.Linear(code_dim, code_dim, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """(n, d) -> non-negative codes (n, l)."""
        drive = self.input(inputs)
        codes = torch.relu(drive)
        for _ in range(self.num_layers):
            codes = torch.relu(drive + self.lateral(codes))
        return codes

    def unit_slices(self) -> list[tuple[nn.Parameter, int]]:
        lateral = self.lateral.weight
        return [(self.input.weight, 0), (self.input.bias, 0), (lateral, 0), (lateral, 1)]

    def filters(self) -> Tensor:
        """The rows of U, (l, d): what each code component looks for first."""
        return self.input.weight.detach()
