"""FISTA as one writes it first: energy forward, autograd backward, shrink.

The reference for speed. It shares no code with the package.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def textbook_fista(
    decoder: nn.Module,
    inputs: Tensor,
    initial_codes: Tensor,
    *,
    sparsity_weight: float,
    variance_weight: float,
    variance_threshold: float,
    encoder_weight: float,
    step_size: float,
    num_iterations: int,
    tolerance: float = 0.0,
) -> Tensor:
    """Codes (n, l) after ``num_iterations`` iterations from ``initial_codes``.

    With a tolerance it ends once every sample's last change has been below it, relative.
    """
    codes = point = initial_codes
    t = 1.0
    converged = torch.zeros(len(codes), dtype=torch.bool, device=codes.device)
    for _ in range(num_iterations):
        point = point.detach().requires_grad_()
        energy = ((decoder(point) - inputs) ** 2).mean(dim=1).sum()
        if encoder_weight:
            energy = energy + encoder_weight * ((point - initial_codes) ** 2).mean(dim=1).sum()
        if variance_weight:
            hinge = torch.relu(variance_threshold - point.std(dim=0))
            energy = energy + variance_weight * (hinge**2).sum()
        (gradient,) = torch.autograd.grad(energy, point)
        with torch.no_grad():
            new = torch.relu(point - step_size * gradient - step_size * sparsity_weight)
            t_new = (1 + (1 + 4 * t * t) ** 0.5) / 2
            point = new + (t - 1) / t_new * (new - codes)
            if tolerance:
                change = (new - codes).norm(dim=1)
                converged |= (change < tolerance * codes.norm(dim=1)) | (change == 0)
            codes, t = new, t_new
        if tolerance and converged.all():
            break
    return codes
