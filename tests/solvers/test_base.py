"""Codes of a higher energy than the start are not returned."""

from __future__ import annotations

import pytest
import torch
from problems import ENERGIES, Problem, problem
from torch import Tensor

from sparse_lightning.solvers import FISTA, Solution
from sparse_lightning.solvers.base import no_higher


def kept(given: Problem, codes: Tensor) -> Tensor:
    """The codes that are returned of a solution with these."""
    objective = given.objective
    solution = Solution(codes, torch.arange(40), torch.ones(40).bool())
    found = no_higher(objective, solution, given.start, objective.energies(given.start))
    assert found.iterations is solution.iterations
    assert found.converged is solution.converged
    return found.codes


@pytest.mark.parametrize("number", [100.0, torch.inf, torch.nan])
def test_each_sample_that_is_no_lower_keeps_its_start(number: float):
    given = problem("linear", ENERGIES["DO"])
    better = FISTA(0.1)(given.objective, given.start).codes
    codes = better.clone()
    codes[3:9, 2] = number
    found = kept(given, codes)
    assert torch.equal(found[3:9], given.start[3:9])
    assert torch.equal(found[9:], better[9:])


@pytest.mark.parametrize("number", [100.0, torch.inf, torch.nan])
def test_coupled_samples_keep_the_start_together(number: float):
    given = problem("linear", ENERGIES["VDL"])
    better = FISTA(0.1)(given.objective, given.start).codes
    assert torch.equal(kept(given, better), better)
    codes = better.clone()
    codes[3, 2] = number
    assert torch.equal(kept(given, codes), given.start)
