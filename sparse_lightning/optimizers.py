"""One Adam for decoder and encoder.

The codes that inference found are constants. So the losses of the decoder and of the encoder share
no parameter. Adam treats each parameter by itself. One Adam on the sum of both losses, with a
parameter group for each learning rate and weight decay, therefore takes the steps of two Adams.
(Not so with ``trainer.gradient_clip_val``, whose norm is that of both parts together, nor with the
training rule ``EndToEnd``, whose loss both parts share.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import Adam
from torch.optim.lr_scheduler import LambdaLR

from sparse_lightning.errors import (
    SettingError,
    require_count,
    require_non_negative,
    require_positive,
)
from sparse_lightning.registry import plain_numbers, register


@register
@dataclass(frozen=True)
class AdamSettings:
    """Learning rates and weight decays (Adam's coupled L2) by part.

    Args:
        decoder_learning_rate: of all decoder parameters.
        encoder_learning_rate: of all encoder parameters.
        decoder_weight_decay: of the decoder's weight matrices.
        decoder_bias_weight_decay: of the decoder's biases.
        encoder_bias_weight_decay: of the encoder's biases. Other vectors, such as gates and
            thresholds, do not decay.
        decoder_decay_factor: the decoder's learning rate is multiplied by it ...
        decoder_decay_epochs: ... every so many epochs; None never.
        betas: of Adam's moving averages, of gradients and of their squares.
        epsilon: what Adam adds to the root of the latter.
    """

    decoder_learning_rate: float
    encoder_learning_rate: float
    decoder_weight_decay: float = 0.0
    decoder_bias_weight_decay: float = 0.0
    encoder_bias_weight_decay: float = 0.0
    decoder_decay_factor: float = 0.5
    decoder_decay_epochs: int | None = None
    betas: Sequence[float] = (0.9, 0.999)
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        plain_numbers(self)
        betas = self.betas if isinstance(self.betas, Sequence) else [self.betas]
        object.__setattr__(self, "betas", list(betas))
        positive = ("decoder_learning_rate", "encoder_learning_rate", "decoder_decay_factor")
        for name in (*positive, "epsilon"):
            require_positive(f"model.optimizer.{name}", getattr(self, name))
        for beta in self.betas:
            require_non_negative("model.optimizer.betas", beta)
        if len(self.betas) != 2 or max(self.betas) >= 1:
            raise SettingError(
                f"model.optimizer.betas={self.betas} must be two numbers of at least 0 and below 1."
            )
        for part in ("decoder", "decoder_bias", "encoder_bias"):
            name = f"{part}_weight_decay"
            require_non_negative(f"model.optimizer.{name}", getattr(self, name))
        if self.decoder_decay_epochs is not None:
            require_count("model.optimizer.decoder_decay_epochs", self.decoder_decay_epochs)

    def build(
        self, decoder: nn.Module, encoder: nn.Module | None, scales_losses: bool = False
    ) -> tuple[Adam, LambdaLR]:
        """The optimizer, and its learning-rate schedule in epochs.

        Args:
            decoder, encoder: whose parameters are learned.
            scales_losses: whether training may scale losses, as in mixed precision.
        """
        groups = _groups(
            "decoder",
            decoder,
            self.decoder_learning_rate,
            self.decoder_weight_decay,
            self.decoder_bias_weight_decay,
        )
        if encoder is not None:
            groups += _groups(
                "encoder", encoder, self.encoder_learning_rate, 0.0, self.encoder_bias_weight_decay
            )
        if not groups:
            raise SettingError(
                f"model.decoder={type(decoder).__name__} and the encoder have no parameters: there "
                "is nothing to train."
            )
        adam = {"betas": tuple(self.betas), "eps": self.epsilon}
        optimizer = _adam(groups, scales_losses, **adam)
        factors: list[Callable[[int], float]] = [
            self._decoder_factor if group["name"].startswith("decoder") else _constant
            for group in groups
        ]
        return optimizer, LambdaLR(optimizer, factors)

    def _decoder_factor(self, epoch: int) -> float:
        if self.decoder_decay_epochs is None:
            return 1.0
        return self.decoder_decay_factor ** (epoch // self.decoder_decay_epochs)


def _adam(groups: list[dict], scales_losses: bool, **settings: Any) -> Adam:
    """On the CPU by torch's one loop over all of a step, in as little as a seventh of the time.

    Where losses may be scaled Lightning refuses to clip the gradients of that loop.
    """
    parameters = [parameter for group in groups for parameter in group["params"]]
    on_cpu = all(parameter.device.type == "cpu" for parameter in parameters)
    return Adam(groups, fused=(on_cpu and not scales_losses) or None, **settings)


def _constant(epoch: int) -> float:
    return 1.0


def _groups(
    name: str, part: nn.Module, learning_rate: float, weight_decay: float, bias_decay: float
) -> list[dict]:
    """Groups of weight matrices, of biases, and of other vectors, without those that are empty."""
    parameters: dict[str, list[nn.Parameter]] = {"weights": [], "biases": [], "vectors": []}
    for own, parameter in part.named_parameters():
        # Where biases do not decay either, older checkpoints have one group for all vectors.
        is_bias = own.endswith("bias") or bias_decay == 0
        kind = "weights" if parameter.ndim > 1 else "biases" if is_bias else "vectors"
        parameters[kind].append(parameter)
    decays = {"weights": weight_decay, "biases": bias_decay, "vectors": 0.0}
    return [
        {"name": f"{name}_{kind}", "params": own, "weight_decay": decays[kind], "lr": learning_rate}
        for kind, own in parameters.items()
        if own
    ]
