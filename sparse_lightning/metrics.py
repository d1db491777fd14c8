"""What is measured of codes and reconstructions, as torchmetrics.

Each metric adds up sums over batches, so that the result depends neither on how many processes
share a set, nor on how it was cut into batches, but for the variance hinge, which each batch has
once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from sparse_lightning.energy import TERMS
from sparse_lightning.solvers import Solution

EXACT_PSNR = 40.0


def image_psnr(prediction: Tensor, target: Tensor) -> Tensor:
    r"""Peak signal-to-noise ratio per image, :math:`-10 \log_{10} \mathrm{mse}`, in dB.

    Args:
        prediction: (n, ...) pixels on the scale of [0, 1] (peak 1), not clipped.
        target: likewise.

    Returns:
        (n,). An exact reconstruction counts as 40 dB.

    Example:
        >>> image_psnr(torch.full((1, 28, 28), 0.5), torch.zeros(1, 28, 28))
        tensor([6.0206])
    """
    return psnr_of((prediction - target).flatten(1).square_().mean(1))


def psnr_of(squared_errors: Tensor) -> Tensor:
    """`image_psnr` of images whose mean squared errors, (n,), are known."""
    psnr = squared_errors.log10().mul_(-10)
    return psnr.nan_to_num_(nan=math.nan, posinf=EXACT_PSNR, neginf=-math.inf)


class Sums(Metric):
    """A metric whose sums keep their precision where the model takes another one."""

    full_state_update = False

    def _apply(self, fn: Callable, exclude_state: Sequence[str] = "") -> nn.Module:
        # Module.to(dtype), by which trainer.precision=bf16-true goes, is not torchmetrics' guard's.
        return super()._apply(lambda tensor: tensor.to(fn(tensor).device), exclude_state)


class ImagePSNR(Sums):
    """Mean over images of `image_psnr`, in dB, from their mean squared errors.

    An exact image counts as 40 dB, and one with a smaller error than :math:`10^{-4}` as more. Means
    near 40 dB and above are therefore no order of quality.
    """

    higher_is_better = True

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, squared_errors: Tensor) -> None:
        self.total.add_(psnr_of(squared_errors).sum())
        self.count.add_(len(squared_errors))

    def compute(self) -> dict[str, Tensor]:
        return {"psnr": self.total / self.count}


class ExplainedVariance(Sums):
    r"""How much of inputs that are no images is rebuilt, pooled over rows.

    .. math:: R^2 = 1 - \frac{\sum_i \|x_i - \hat x_i\|^2}{\sum_i \|x_i - \bar x\|^2}, \qquad
              e = \sqrt{\frac{\sum_i \|x_i - \hat x_i\|^2}{\sum_i \|x_i\|^2}}

    with :math:`\bar x` the mean of the training rows, in the units of the inputs (standardised,
    where they are). 1 is an exact reconstruction, 0 as good as the mean.

    Args:
        input_dim: d.

    Attributes:
        reference: the mean of the training rows, (d,); None for the mean of the rows themselves,
            which of training rows is the same.
        mean: of the rows of the last ``compute``, (d,).

    Results of ``compute``:
        r2: :math:`R^2`; relative_error: e.
    """

    def __init__(self, input_dim: int) -> None:
        super().__init__()
        self.reference: Tensor | None = None
        self.mean: Tensor | None = None
        zeros = torch.zeros(input_dim, dtype=torch.float64)
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")
        for state in ("errors", "squares"):
            self.add_state(state, zeros.new_zeros(()), dist_reduce_fx="sum")
        self.add_state("total", zeros, dist_reduce_fx="sum")

    def update(self, inputs: Tensor, squared_errors: Tensor) -> None:
        """Take rows (n, d) and the squared norms of their errors, (n,), into account."""
        precise = inputs.double()
        self.count.add_(len(inputs))
        self.errors.add_(squared_errors.double().sum())
        self.squares.add_(precise.square().sum())
        self.total.add_(precise.sum(0))

    def compute(self) -> dict[str, Tensor]:
        self.mean = self.total / self.count
        reference = self.mean if self.reference is None else self.reference.to(self.total)
        # The sum of ||x - reference||² by its three terms.
        around = self.squares - 2 * reference @ self.total + self.count * reference.square().sum()
        return {
            "r2": 1 - self.errors / around,
            "relative_error": (self.errors / self.squares).sqrt(),
        }


class EnergyTerms(Sums):
    """Energy and each of its weighted terms per sample: batch sums over the number of samples.

    Args:
        further: names of terms that are measured besides, and are no part of the energy.
    """

    def __init__(self, further: Sequence[str] = ()) -> None:
        super().__init__()
        self.names = (*TERMS, *further)
        totals = torch.zeros(len(self.names), dtype=torch.float64)
        self.add_state("totals", totals, dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, terms: Mapping[str, Tensor], num_samples: int) -> None:
        self.totals.add_(torch.stack([terms[name] for name in self.names]))
        self.count.add_(num_samples)

    def compute(self) -> dict[str, Tensor]:
        means = self.totals / self.count
        energy = means[: len(TERMS)].sum()
        return {"energy": energy, **dict(zip(self.names, means, strict=True))}


class CodeStatistics(Sums):
    """How codes are used over a whole set.

    Args:
        code_dim: l.
        variance_threshold: T, the bound that ``below_threshold`` counts against.

    Results of ``compute``:
        zeros: fraction of exactly zero components; dead_units: components that are never active;
        code_l1: mean l1 norm of a code; code_std: mean over components of the standard deviation
        over the set; below_threshold: share of components whose standard deviation is under T.
    """

    def __init__(self, code_dim: int, variance_threshold: float = 0.5) -> None:
        super().__init__()
        self.variance_threshold = variance_threshold
        zeros = torch.zeros(code_dim, dtype=torch.float64)
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")
        for state in ("total", "squares", "active"):
            self.add_state(state, zeros.clone(), dist_reduce_fx="sum")
        self.add_state("l1", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("largest", zeros.clone(), dist_reduce_fx="max")

    def update(self, codes: Tensor) -> None:
        precise = codes.to(torch.float64, copy=True)
        self.count.add_(len(codes))
        self.total.add_(precise.sum(0))
        self.squares.add_(torch.linalg.vecdot(precise, precise, dim=0))
        self.l1.add_(torch.linalg.vector_norm(precise, ord=1))
        # Sums of booleans are several times as slow as sums of numbers.
        self.active.add_(precise.ne_(0).sum(0))
        torch.maximum(self.largest, codes.abs().amax(0), out=self.largest)

    def standard_deviation(self) -> Tensor:
        """Unbiased standard deviation of each component over the set, (l,)."""
        scatter = self.squares - self.total.square() / self.count
        return (scatter.clamp_min(0) / (self.count - 1).clamp_min(1)).sqrt()

    def activity(self) -> Tensor:
        """Fraction of samples in which each component is active, (l,)."""
        return self.active / self.count

    def compute(self) -> dict[str, Tensor]:
        deviation = self.standard_deviation()
        return {
            "zeros": 1 - self.activity().mean(),
            "dead_units": (self.active == 0).sum(),
            "code_l1": self.l1 / self.count,
            "code_std": deviation.mean(),
            "below_threshold": (deviation < self.variance_threshold).double().mean(),
        }


class InferenceEffort(Sums):
    """Mean iterations of inference per sample, and the share of samples that converged."""

    def __init__(self) -> None:
        super().__init__()
        for state in ("iterations", "converged", "count"):
            self.add_state(state, torch.tensor(0), dist_reduce_fx="sum")

    def update(self, solution: Solution) -> None:
        self.iterations.add_(solution.iterations.sum())
        self.converged.add_(solution.converged.sum())
        self.count.add_(len(solution.codes))

    def compute(self) -> dict[str, Tensor]:
        return {
            "iterations": self.iterations / self.count,
            "converged": self.converged / self.count,
        }
