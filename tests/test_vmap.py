"""Problems that are stacked and mapped over have the results that they have one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from problems import CODE_DIM, DECODERS, INPUT_DIM, PENALTIES
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from sparse_lightning.encoders import LISTA, SignedLISTA
from sparse_lightning.energy import Energy
from sparse_lightning.penalties import Penalty

PROBLEMS, SAMPLES = 3, 7


class BoundEnergy(nn.Module):
    """What a solver asks of an energy, as a module, whose weights can be replaced."""

    def __init__(self, decoder: nn.Module, variance_weight: float) -> None:
        super().__init__()
        self.decoder, self.variance_weight = decoder, variance_weight

    def forward(
        self, sparsity_weight: Tensor, inputs: Tensor, encoder_codes: Tensor, codes: Tensor
    ) -> tuple[Tensor, ...]:
        energy = Energy(sparsity_weight, self.variance_weight, 0.5, 2.0)
        objective = energy.bind(self.decoder, inputs, encoder_codes)
        return (
            objective.gradient(codes),
            objective.prox(codes, 0.3),
            objective.energies(codes),
            *objective.energies_and_gradient(codes),
            *objective.terms(codes).values(),
        )


def of_each(modules: list[nn.Module], *arguments: Tensor) -> Any:
    """The results one by one, stacked."""
    found = [module(*own) for module, *own in zip(modules, *arguments)]
    return torch.utils._pytree.tree_map(lambda *parts: torch.stack(parts), *found)


def of_all(modules: list[nn.Module], *arguments: Tensor) -> Any:
    """The results of all at once."""

    def call(state: dict[str, Tensor], *own: Tensor) -> Any:
        return functional_call(modules[0], state, own)

    parameters, buffers = stack_module_state(modules)
    return vmap(call)(parameters | buffers, *arguments)


@pytest.mark.parametrize("penalty", PENALTIES.values(), ids=PENALTIES)
def test_penalties_and_their_proximal_steps(penalty: Penalty):
    codes = torch.randn(PROBLEMS, SAMPLES, CODE_DIM).double()
    thresholds = torch.rand(PROBLEMS, SAMPLES, 1).double()
    for threshold in (thresholds, thresholds[:, 0, 0]):
        expected = [penalty.prox(*own) for own in zip(codes, threshold)]
        torch.testing.assert_close(vmap(penalty.prox)(codes, threshold), torch.stack(expected))
    values = torch.stack([penalty.value(own) for own in codes])
    torch.testing.assert_close(vmap(penalty.value)(codes), values)


@pytest.mark.parametrize("variance_weight", [0.0, 3.0])
@pytest.mark.parametrize("make", DECODERS.values(), ids=DECODERS)
def test_energies_gradients_and_proximal_steps(make: Callable, variance_weight: float):
    modules = [BoundEnergy(make().double(), variance_weight) for _ in range(PROBLEMS)]
    weights = torch.tensor([0.01, 0.1, 0.5]).double()
    inputs = torch.randn(PROBLEMS, SAMPLES, INPUT_DIM).double()
    prediction, codes = torch.rand(2, PROBLEMS, SAMPLES, CODE_DIM).double()
    # A component that is constant has a hinge without a gradient.
    codes[1, :, 3] = 0.7
    arguments = weights, inputs, prediction, codes
    torch.testing.assert_close(of_all(modules, *arguments), of_each(modules, *arguments))


@pytest.mark.parametrize("kind", [LISTA, SignedLISTA])
def test_predictions_of_lista(kind: type):
    modules = [kind(INPUT_DIM, CODE_DIM).double() for _ in range(PROBLEMS)]
    inputs = torch.randn(PROBLEMS, SAMPLES, INPUT_DIM).double()
    torch.testing.assert_close(of_all(modules, inputs), of_each(modules, inputs))
