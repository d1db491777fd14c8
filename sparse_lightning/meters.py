"""What is measured of a model in one phase: training, validation or test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from sparse_lightning.data.batch import Batch
from sparse_lightning.datafits import mean_squares
from sparse_lightning.inputs import at_least_float32
from sparse_lightning.metrics import (
    CodeStatistics,
    EnergyTerms,
    ExplainedVariance,
    ImagePSNR,
    InferenceEffort,
)


class Meters(nn.ModuleDict):
    """The metrics of a phase, which add up batches until `results`.

    Args:
        input_dim, code_dim: d and l.
        variance_threshold: T, for the share of components below it.
        further_terms: names of what is measured beside the terms of the energy.
    """

    def __init__(
        self,
        input_dim: int,
        code_dim: int,
        variance_threshold: float,
        further_terms: Sequence[str] = (),
    ) -> None:
        super().__init__(
            {
                "energy": EnergyTerms(further_terms),
                "psnr": ImagePSNR(),
                "r2": ExplainedVariance(input_dim),
                "codes": CodeStatistics(code_dim, variance_threshold),
                "effort": InferenceEffort(),
            }
        )

    def measure(
        self, batch: Batch, codes: Tensor, reconstructions: Tensor, terms: Mapping[str, Tensor]
    ) -> None:
        """Take a batch into account: its codes (n, l), reconstructions (n, d), and energy."""
        with torch.no_grad(), torch.autocast(codes.device.type, enabled=False):
            errors = at_least_float32(reconstructions) - at_least_float32(batch.inputs)
            self["energy"].update(terms, len(codes))
            if batch.is_of_images:
                self["psnr"].update(batch.squared_errors(errors, mean_squares(errors)))
            else:
                self["r2"].update(at_least_float32(batch.inputs), errors.square().sum(1))
            self["codes"].update(codes)

    def so_far(self, name: str) -> dict[str, Tensor]:
        """What one metric comes to so far; it goes on."""
        # torchmetrics restores what it adds up over processes from copies, which training adds to.
        with torch.inference_mode(False):
            return self[name].compute()

    def results(self, training_mean: Tensor | None = None) -> dict[str, Tensor]:
        """What has been measured, by its name; afterwards all begins anew.

        Args:
            training_mean: (d,), that R² compares with; None for that of the rows themselves.
        """
        self["r2"].reference = training_mean
        found: dict[str, Tensor] = {}
        for meter in self.values():
            if meter.update_called:
                found |= meter.compute()
        self.reset()
        return found

    def reset(self) -> None:
        """Forget what has been measured, as that of a phase that an error ended."""
        for meter in self.values():
            meter.reset()
