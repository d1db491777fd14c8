r"""Reference lines, so that a PSNR means something.

Principal components of the training images give two references in closed form. With mean
:math:`\mu`, eigenvectors :math:`v_i` and variances :math:`s_i`, the k first components rebuild
:math:`\mu + \sum_{i \le k} v_i v_i^\top (x - \mu)`, which for k = 0 is the mean image. The
PCA-Wiener filter, the best linear denoiser of noise of variance :math:`\sigma^2`, is
:math:`\mu + \sum_i \frac{s_i}{s_i + \sigma^2}\, v_i v_i^\top (x - \mu)`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparse_lightning.data.module import SplitDataModule
from sparse_lightning.studies.coding import batches


@dataclass(frozen=True)
class PrincipalComponents:
    """Of standardised training images.

    Attributes:
        mean: (d,).
        directions: (d, d), orthonormal columns, that of the largest variance first.
        variances: (d,), at least 0.
    """

    mean: Tensor
    directions: Tensor
    variances: Tensor

    @classmethod
    def of(cls, data: SplitDataModule) -> PrincipalComponents:
        """Those of the training split, computed in float64."""
        count, total, squares = 0, 0.0, 0.0
        for batch in batches(data, "train"):
            inputs = batch.inputs.double()
            count, total = count + len(inputs), total + inputs.sum(0)
            squares = squares + inputs.T @ inputs
        mean = total / count
        covariance = squares / count - torch.outer(mean, mean)
        variances, directions = torch.linalg.eigh(covariance)
        return cls(mean, directions.flip(1), variances.flip(0).clamp_min(0))

    def rebuilt(self, inputs: Tensor, components: int) -> Tensor:
        """Inputs (n, d) from their mean and the first so many components."""
        chosen = self.directions[:, :components]
        return (self.mean + (inputs.double() - self.mean) @ chosen @ chosen.T).to(inputs.dtype)

    def denoised(self, noisy: Tensor, level: float) -> Tensor:
        """The Wiener filter of noisy inputs (n, d), whose noise has standard deviation σ."""
        gains = self.variances / (self.variances + level**2)
        coefficients = (noisy.double() - self.mean) @ self.directions
        return (self.mean + (coefficients * gains) @ self.directions.T).to(noisy.dtype)
