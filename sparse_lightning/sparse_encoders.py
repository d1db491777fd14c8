r"""The encoders of sparse autoencoders: one linear map, and a rule for what stays active.

The pre-activations are :math:`\pi = W x + b`. Codes are what is left of their positive part:

- `ReLUEncoder`: all of it (Bricken et al. 2023);
- `TopKEncoder`: the k largest of each sample (Gao et al. 2024);
- `BatchTopKEncoder`: the k n largest of a batch of n samples (Bussmann et al. 2024);
- `JumpReLUEncoder`: what is above a threshold of each unit, which is learned (Rajamanoharan et al.
  2024).

Another encoder of this kind is a class with its own `activate`. These encoders learn by
`sparse_lightning.training_rules.EndToEnd`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn

from sparse_lightning.distributed import Processes
from sparse_lightning.encoders import Encoder
from sparse_lightning.errors import (
    SettingError,
    require_count,
    require_non_negative,
    require_positive,
)
from sparse_lightning.inputs import at_least_float32
from sparse_lightning.penalties import NonNegativeL0, Penalty
from sparse_lightning.registry import register


class SparseEncoder(Encoder):
    """Base of these encoders: a linear map and `activate`.

    Args:
        input_dim: d.
        code_dim: l.
        subtracts_decoder_bias: whether x is the input less the decoder's bias.

    Attributes:
        input: W (l, d) with bias b (l,), which is 0 before training.
    """

    def __init__(self, input_dim: int, code_dim: int, subtracts_decoder_bias: bool = False) -> None:
        super().__init__()
        require_count("model.encoder.input_dim", input_dim)
        require_count("model.encoder.code_dim", code_dim)
        self.input_dim, self.code_dim = input_dim, code_dim
        self.subtracts_decoder_bias = subtracts_decoder_bias
        self.input = nn.Linear(input_dim, code_dim)
        nn.init.zeros_(self.input.bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """(n, d) -> non-negative codes (n, l), of each sample by itself."""
        return self.activate(self.input(inputs))

    def encode_with_preactivations(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        preactivations = self.input(inputs)
        return self.activate(preactivations), preactivations

    def activate(self, preactivations: Tensor) -> Tensor:
        """Codes of pre-activations, (n, l) -> (n, l); each subclass has its own."""
        raise NotImplementedError

    def filters(self) -> Tensor:
        """The rows of W, (l, d): what each code component looks for."""
        return self.input.weight.detach()


@register
class ReLUEncoder(SparseEncoder):
    r""":math:`z = \mathrm{relu}(\pi)`, to be trained with an l1 penalty.

    Bricken et al., "Towards monosemanticity: decomposing language models with dictionary learning",
    2023, where the decoder's bias is subtracted from the input and the decoder has unit columns.
    """

    def activate(self, preactivations: Tensor) -> Tensor:
        return torch.relu(preactivations)


@register
class TopKEncoder(SparseEncoder):
    r"""The k largest of :math:`\mathrm{relu}(\pi)`, and 0 elsewhere.

    Gao et al., "Scaling and evaluating sparse autoencoders", 2024, section 2.3. Their encoder has
    no bias b but the decoder's, which is subtracted from the input.

    Args:
        input_dim: d.
        code_dim: l.
        k: how many components of a sample may be active.
        subtracts_decoder_bias: whether x is the input less the decoder's bias.
    """

    def __init__(
        self, input_dim: int, code_dim: int, k: int, subtracts_decoder_bias: bool = False
    ) -> None:
        super().__init__(input_dim, code_dim, subtracts_decoder_bias)
        require_active("k", k, code_dim)
        self.k = k

    def activate(self, preactivations: Tensor) -> Tensor:
        largest = torch.relu(preactivations).topk(self.k, dim=-1)
        return torch.zeros_like(preactivations).scatter(-1, largest.indices, largest.values)


@register
class BatchTopKEncoder(SparseEncoder):
    r"""In training the k n largest of :math:`\mathrm{relu}(\pi)` of a batch of n samples.

    Components that are equal to the last of these stay as well. A sample by itself keeps what is
    above a threshold: the mean over batches of the smallest component that was active in one, as a
    moving average. A batch with fewer than k n positive components counts as 0. Bussmann, Leask &
    Nanda, "BatchTopK sparse autoencoders", 2024.

    Args:
        input_dim: d.
        code_dim: l.
        k: how many components of a sample are active, on average.
        threshold_decay: of the moving average, in [0, 1): what a batch leaves of it.
        subtracts_decoder_bias: whether x is the input less the decoder's bias.

    Attributes:
        threshold: the moving average, a scalar; 0 before the first batch, which sets it alone.
    """

    threshold: Tensor
    needs_preactivations = True

    def __init__(
        self,
        input_dim: int,
        code_dim: int,
        k: int,
        threshold_decay: float = 0.99,
        subtracts_decoder_bias: bool = False,
    ) -> None:
        super().__init__(input_dim, code_dim, subtracts_decoder_bias)
        require_active("k", k, code_dim)
        require_non_negative("model.encoder.threshold_decay", threshold_decay)
        if threshold_decay >= 1:
            raise SettingError(
                f"model.encoder.threshold_decay={threshold_decay} must be at least 0 and below 1."
            )
        self.k, self.threshold_decay = k, threshold_decay
        self.register_buffer("threshold", at_least_float32(torch.zeros(())))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # A moving average stands still in a half type, whose digits are too few for its steps.
        threshold = self.threshold
        super()._apply(fn, recurse)
        if self.threshold.itemsize < torch.float32.itemsize:
            self.threshold = threshold.to(self.threshold.device, torch.float32)
        return self

    def activate(self, preactivations: Tensor) -> Tensor:
        positive = torch.relu(preactivations)
        # What is no number stays so.
        return torch.where(positive <= self.threshold, 0.0, positive)

    def encode_with_preactivations(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        preactivations = self.input(inputs)
        positive = torch.relu(preactivations)
        smallest = self.smallest_active(positive.detach())
        self.remember(smallest)
        # Where fewer than k n are positive the smallest is 0, which is not active.
        return torch.where(positive >= smallest, positive, 0.0), preactivations

    def smallest_active(self, positive: Tensor) -> Tensor:
        """The k n-th largest of non-negative numbers (n, l), of all processes; a scalar."""
        count = self.k * len(positive)
        candidates, processes = positive.flatten(), Processes.present()
        if processes is not None:
            count = int(processes.total(torch.tensor(count, device=positive.device)))
            candidates = processes.gather(candidates.topk(min(count, len(candidates))).values)
        return candidates.topk(count).values[-1]

    @torch.no_grad()
    def remember(self, smallest: Tensor) -> None:
        """Take the smallest active component of a batch into the moving average."""
        fraction = 1 - self.threshold_decay * (self.threshold > 0).to(self.threshold)
        self.threshold.copy_(torch.lerp(self.threshold, smallest.to(self.threshold), fraction))


@register
class JumpReLUEncoder(SparseEncoder):
    r""":math:`z = \pi \cdot H(\pi - \theta)` with thresholds :math:`\theta > 0` that are learned.

    The l0 norm is :math:`\sum_j H(\pi_j - \theta_j)`. With respect to the threshold neither has a
    gradient that says anything, and both have a pseudo-derivative that estimates the gradient of
    the expected loss, by a rectangle K of width :math:`\epsilon` and height 1:

    .. math::
        \frac{\partial z}{\partial \theta} := -\frac{\theta}{\epsilon}
            K\!\Big(\frac{\pi - \theta}{\epsilon}\Big), \qquad
        \frac{\partial H(\pi - \theta)}{\partial \theta} := -\frac{1}{\epsilon}
            K\!\Big(\frac{\pi - \theta}{\epsilon}\Big), \qquad
        K(u) = 1 \text{ for } |u| < \tfrac12 .

    Rajamanoharan et al., "Jumping ahead: improving reconstruction fidelity with JumpReLU sparse
    autoencoders", 2024, section 3. The logarithm of the threshold is what is learned, as there.

    Args:
        input_dim: d.
        code_dim: l.
        bandwidth: :math:`\epsilon`, in units of the pre-activations.
        initial_threshold: of every :math:`\theta` before training.
        subtracts_decoder_bias: whether x is the input less the decoder's bias.

    Attributes:
        log_threshold: :math:`\log\theta`, (l,).
    """

    needs_preactivations = True

    def __init__(
        self,
        input_dim: int,
        code_dim: int,
        bandwidth: float,
        initial_threshold: float,
        subtracts_decoder_bias: bool = False,
    ) -> None:
        super().__init__(input_dim, code_dim, subtracts_decoder_bias)
        require_positive("model.encoder.bandwidth", bandwidth)
        require_positive("model.encoder.initial_threshold", initial_threshold)
        self.bandwidth, self.initial_threshold = bandwidth, initial_threshold
        self.log_threshold = nn.Parameter(torch.full((code_dim,), float(initial_threshold)).log())

    def activate(self, preactivations: Tensor) -> Tensor:
        threshold = self.log_threshold.exp()
        # What is no number stays so.
        passed = torch.where(preactivations <= threshold, 0.0, preactivations)
        return passed + threshold.detach() * self._jump(preactivations, threshold)

    def penalize(self, codes: Tensor, preactivations: Tensor, penalty: Penalty) -> Tensor:
        values = penalty.value(codes)
        # A class that inherits from it may have another value.
        if type(penalty) is not NonNegativeL0:
            return values
        jumps = self._jump(preactivations, self.log_threshold.exp())
        return values + jumps.sum(-1)

    def _jump(self, preactivations: Tensor, threshold: Tensor) -> Tensor:
        r"""0, (n, l), with the pseudo-derivative of :math:`H(\pi - \theta)` by the threshold."""
        distance = (preactivations - threshold).detach() / self.bandwidth
        kernel = (distance.abs() < 0.5).to(distance.dtype) / self.bandwidth
        return kernel * (threshold.detach() - threshold)


def require_active(name: str, k: int, code_dim: int) -> None:
    """Raise `SettingError` unless k of l components can be active."""
    require_count(f"model.encoder.{name}", k)
    if k > code_dim:
        raise SettingError(
            f"model.encoder.{name}={k} is more than there are code components, "
            f"model.encoder.code_dim={code_dim}: take a smaller one."
        )
