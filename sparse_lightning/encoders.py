r"""Encoders predict the code of a sample in one pass, without the other samples of its batch.

LISTA (Gregor & LeCun 2010) unrolls a few steps of shrinkage with free weights:

.. math:: u = U x + b, \qquad z^0 = \mathrm{relu}(u), \qquad
          z^{k+1} = \mathrm{relu}(u + S z^k), \quad k = 0, \dots, L - 1 .

For codes with signs the soft threshold, as in Gregor & LeCun, takes the place of the relu.
Gated LISTA (Wu et al. 2020) adds gates to its layers. The encoders of sparse autoencoders are in
`sparse_lightning.sparse_encoders`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sparse_lightning.errors import SettingError, require_count, require_non_negative
from sparse_lightning.overrides import overrides
from sparse_lightning.penalties import L1, Penalty
from sparse_lightning.registry import register


class Encoder(nn.Module):
    """Base of all encoders: ``forward`` maps inputs (n, d) to codes (n, l).

    Attributes:
        input_dim: d.
        code_dim: l.
        is_signed: whether codes may have negative components, as those of a signed penalty have.
        subtracts_decoder_bias: whether inputs come less the decoder's bias, which both then share.
        needs_preactivations: whether the encoder learns by its own `encode_with_preactivations`
            alone. A class with another ``forward`` must write that as well.
    """

    input_dim: int
    code_dim: int
    is_signed: bool = False
    subtracts_decoder_bias: bool = False
    needs_preactivations: bool = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """A class with another ``forward`` trains by it, and not by that of the one before."""
        super().__init_subclass__(**kwargs)
        method = "encode_with_preactivations"
        if overrides(cls, "forward", beyond=method):
            cls.encode_with_preactivations = Encoder.encode_with_preactivations  # type: ignore[method-assign]

    def encode_with_preactivations(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Codes (n, l) of a training batch, and what they are the active part of, (n, l)."""
        codes = self(inputs)
        return codes, codes

    @property
    def gives_preactivations(self) -> bool:
        """Whether `encode_with_preactivations` is the encoder's own."""
        return type(self).encode_with_preactivations is not Encoder.encode_with_preactivations

    def penalize(self, codes: Tensor, preactivations: Tensor, penalty: Penalty) -> Tensor:
        """A penalty's value of each sample, (n,), by whose gradient the encoder learns."""
        return penalty.value(codes)

    def filters(self) -> Tensor | None:
        """What each code component looks for in an input, (l, d); None where nothing says it."""
        return None

    def unit_slices(self) -> list[tuple[Tensor, int]]:
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
        input: U (l, d) with bias b (l,); without one in a class whose ``is_signed`` is true.
        lateral: S (l, l), no bias, shared by all layers.

    Example:
        >>> codes = LISTA(input_dim=784, code_dim=128)(torch.randn(5, 784))
        >>> codes.shape, bool((codes >= 0).all())
        (torch.Size([5, 128]), True)
    """

    def __init__(self, input_dim: int, code_dim: int, num_layers: int = 3) -> None:
        super().__init__()
        require_non_negative("model.encoder.num_layers", num_layers)
        if num_layers != int(num_layers):
            raise SettingError(f"model.encoder.num_layers={num_layers} must be a whole number.")
        require_count("model.encoder.input_dim", input_dim)
        require_count("model.encoder.code_dim", code_dim)
        self.input_dim, self.code_dim, self.num_layers = input_dim, code_dim, int(num_layers)
        self.input = nn.Linear(input_dim, code_dim, bias=not self.is_signed)
        self.lateral = nn.Linear(code_dim, code_dim, bias=False)
        # Processes that train together wait for the gradient of each weight that has one.
        self.lateral.requires_grad_(num_layers > 0)

    def forward(self, inputs: Tensor) -> Tensor:
        """(n, d) -> codes (n, l)."""
        drive = self.input(inputs)
        codes = self.shrink(drive)
        for _ in range(self.num_layers):
            codes = self.shrink(drive + self.lateral(codes))
        return codes

    def shrink(self, drive: Tensor) -> Tensor:
        """What each layer ends in, (n, l) -> (n, l)."""
        return torch.relu(drive)

    def unit_slices(self) -> list[tuple[Tensor, int]]:
        lateral, bias = self.lateral.weight, self.input.bias
        of_bias = [] if bias is None else [(bias, 0)]
        return [(self.input.weight, 0), *of_bias, (lateral, 0), (lateral, 1)]

    def filters(self) -> Tensor:
        """The rows of U, (l, d): what each code component looks for first."""
        return self.input.weight.detach()


@register
class GatedLISTA(LISTA):
    r"""LISTA with gain and overshoot gates. Its codes are not negative.

    .. math::
        \bar z^{k+1} &= \mathrm{relu}\big(u + S (g_k(z^k) \odot z^k)\big), \qquad
        g_k(z) = 1 + \kappa_k \exp(-\nu_k \odot z), \\
        z^{k+1} &= \mathrm{relu}\big(z^k + o_k \odot (\bar z^{k+1} - z^k)\big), \qquad
        o_k = 1 + a_k\, \sigma(W_o z^k + U_o x + b_o) \odot |U x| .

    The gain gate makes up for what shrinkage takes from the last estimate, and the overshoot gate
    for steps that are too short. Where :math:`\kappa = a = 0` it is LISTA. Wu, Guo, Li & Zhang,
    "Sparse coding with gated learned ISTA", ICLR 2020: gain gates by exponentials, overshoot gates
    by sigmoids, as in the authors' program. Ours: S is shared by all layers as in `LISTA`, and
    codes are not negative.

    Args:
        input_dim: d, pixels.
        code_dim: l, code components.
        num_layers: L, applications of the lateral weight S.
        initial_gain: of every :math:`\kappa_k` before training.
        initial_overshoot: of every :math:`a_k` before training.

    Attributes:
        input, lateral: as in `LISTA`.
        gain: :math:`\kappa`, (L,).
        gain_rate: :math:`\nu`, (L, l), 1 before training.
        overshoot: a, (L,).
        gate_lateral, gate_input: :math:`W_o` (l, l), and :math:`U_o` (l, d) with :math:`b_o`, of
            the overshoot gates of all layers.
    """

    def __init__(
        self,
        input_dim: int,
        code_dim: int,
        num_layers: int = 3,
        initial_gain: float = 0.1,
        initial_overshoot: float = 0.1,
    ) -> None:
        super().__init__(input_dim, code_dim, num_layers)
        if self.is_signed:
            raise SettingError(
                f"model.encoder={type(self).__name__} has is_signed=true, and the gates of "
                "GatedLISTA are those of codes that are not negative: take "
                "model/encoder=signed_lista, or inherit from SignedLISTA."
            )
        self.initial_gain, self.initial_overshoot = initial_gain, initial_overshoot
        self.gain = nn.Parameter(torch.full((self.num_layers,), float(initial_gain)))
        self.gain_rate = nn.Parameter(torch.ones(self.num_layers, code_dim))
        self.overshoot = nn.Parameter(torch.full((self.num_layers,), float(initial_overshoot)))
        self.gate_input = nn.Linear(input_dim, code_dim)
        self.gate_lateral = nn.Linear(code_dim, code_dim, bias=False)
        for gate in (self.gain, self.gain_rate, self.overshoot, self.gate_input, self.gate_lateral):
            gate.requires_grad_(num_layers > 0)

    def forward(self, inputs: Tensor) -> Tensor:
        """(n, d) -> non-negative codes (n, l)."""
        seen, gate_drive = functional.linear(inputs, self.input.weight), self.gate_input(inputs)
        drive, size = seen + self.input.bias, seen.abs()
        codes = self.shrink(drive)
        for kappa, nu, a in zip(self.gain, self.gain_rate, self.overshoot):
            gained = (1 + kappa * torch.exp(-nu * codes)) * codes
            shrunk = self.shrink(drive + self.lateral(gained))
            gate = torch.sigmoid(gate_drive + self.gate_lateral(codes))
            # Shrunk once already: this is what keeps codes from being negative.
            codes = torch.relu(codes + (1 + a * gate * size) * (shrunk - codes))
        return codes

    def unit_slices(self) -> list[tuple[Tensor, int]]:
        gate, lateral = self.gate_input, self.gate_lateral.weight
        gates = [(gate.weight, 0), (gate.bias, 0), (lateral, 0), (lateral, 1), (self.gain_rate, 1)]
        return super().unit_slices() + gates


@register
class SignedLISTA(LISTA):
    r"""Learned ISTA for codes with signs: the soft threshold with a learned threshold of each unit.

    .. math:: u = U x, \qquad z^0 = h_\theta(u), \qquad z^{k+1} = h_\theta(u + S z^k), \qquad
              h_\theta(v) = \mathrm{sign}(v) (|v| - |\theta|)_+

    Gregor & LeCun, "Learning fast approximations of sparse coding", 2010, eq. 5.

    Args:
        input_dim: d, pixels.
        code_dim: l, code components.
        num_layers: L, applications of the lateral weight S.

    Attributes:
        input: U (l, d), no bias.
        lateral: S (l, l), no bias, shared by all layers.
        threshold: :math:`\theta` (l,), shared by all layers.
    """

    is_signed = True

    def __init__(self, input_dim: int, code_dim: int, num_layers: int = 3) -> None:
        super().__init__(input_dim, code_dim, num_layers)
        # At 0 it would have no gradient.
        self.threshold = nn.Parameter(torch.full((code_dim,), input_dim**-0.5))

    def shrink(self, drive: Tensor) -> Tensor:
        """The soft threshold, (n, l) -> (n, l)."""
        return L1().prox(drive, self.threshold.abs())

    def unit_slices(self) -> list[tuple[Tensor, int]]:
        """Those of the weights: a component that begins anew keeps its threshold."""
        return [(self.input.weight, 0), (self.lateral.weight, 0), (self.lateral.weight, 1)]
