"""When momentum goes on and when it rests, and what it leads to."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sparse_lightning.decoders import MultiLayerDecoder
from sparse_lightning.energy import Energy, Objective
from sparse_lightning.solvers import Adaptive, adaptive_descent
from sparse_lightning.solvers.pace import FALL, RISE_AT_RESTART, MeasuredPace

CORRECTION = torch.tensor([0.3, 0.4])
# What momentum carried; whether the change that is left is shorter than 0.8 of the correction,
# whose size is 0.5; and whether it points against the correction.
CARRIED = {
    "onwards": ([0.3, 0.4], False, False),
    "across": ([0.4, -0.3], False, False),
    "a little too far": ([-0.5, 0.2], False, False),
    "a little further too far": ([-0.3, 0.02], False, False),
    "too far": ([-0.3, -0.02], True, False),
    "much too far": ([-0.3, -0.2], True, False),
    "to and fro": ([-0.2, -0.3], True, False),
    "uphill": ([-0.6, -1.0], False, True),
}


def objective_of(decoder: MultiLayerDecoder, inputs: Tensor) -> Objective:
    return Energy(0.01).bind(decoder.double(), inputs.double())


def pace_of(count: int) -> MeasuredPace:
    objective = objective_of(MultiLayerDecoder(2, [3], 4), torch.randn(count, 4))
    codes = torch.rand(count, 2).double()
    bend = objective.curvature(codes)
    return MeasuredPace(bend, codes, objective.comparable(codes), objective, 50)


@pytest.mark.parametrize(("size", "settles"), [(10.0, True), (1000.0, True), (1.0, False)])
def test_near_the_end_momentum_rests_where_a_step_takes_it_back(size, settles):
    """A correction of 0.5 is within 0.1 of codes of size 10, not of codes of size 1."""
    pace = pace_of(len(CARRIED))
    pace.age.fill_(8)
    before = pace.curvature.clone()
    correction = CORRECTION.double().repeat(len(CARRIED), 1)
    change = correction + torch.tensor([carried for carried, _, _ in CARRIED.values()]).double()
    codes = torch.tensor([size, 0.0]).double().repeat(len(CARRIED), 1)
    momentum = pace.momentum(codes, correction, change, torch.tensor([0.1**2]).double())
    for i, (_, is_taken_back, is_uphill) in enumerate(CARRIED.values()):
        rests = is_uphill or (settles and is_taken_back)
        assert float(momentum[i]) == pytest.approx(0.0 if rests else 8 / 11)
        assert int(pace.age[i]) == (5 if rests else 9)
        assert bool(pace.has_restarted[i]) == is_uphill
        # As seen at the next gradient, if no more is measured.
        pace._measure(torch.zeros_like(before), torch.ones_like(before))
        factor = RISE_AT_RESTART if rests else FALL
        assert float(pace.curvature[i]) == pytest.approx(factor * float(before[i]))
        pace.curvature = before.clone()


@pytest.mark.parametrize(("limit", "tolerance"), [(200, 3e-4), (30, 0.0)])
def test_that_is_sooner_at_the_same_energy(monkeypatch, limit, tolerance):
    """With kinks all around: many hidden units, and inputs that no decoder made."""
    monkeypatch.setattr(Objective, "expanded", lambda self, codes: None)  # no leaps
    decoder = MultiLayerDecoder(32, [200], 64)
    for parameter in decoder.parameters():
        parameter.data.mul_(3)
    objective = objective_of(decoder, torch.randn(60, 64))
    codes = torch.zeros(60, 32).double()
    solver = Adaptive(limit, tolerance)
    found = solver(objective, codes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adaptive_descent, "SETTLING_TOLERANCES", 0)
        patch.setattr(adaptive_descent.math, "inf", 0.0)
        as_before = solver(objective, codes)
    change = (objective.comparable(found.codes) / objective.comparable(as_before.codes)).median()
    if tolerance == 0:
        assert change < 1
    else:
        assert found.converged.all()
        assert found.iterations.double().mean() < 0.8 * as_before.iterations.double().mean()
        assert change < 1 + 2e-4


def test_coupled_samples_never_settle():
    energy = Energy(0.01, 10.0, 0.5)
    objective = energy.bind(MultiLayerDecoder(4, [6], 5), torch.randn(7, 5))
    start = adaptive_descent.Start.at(objective, torch.rand(7, 4), torch.zeros(7).long())
    descent = adaptive_descent.descent_of(objective, start, 0, Adaptive(20, 1e-3))
    assert descent.settling() is None


def test_tighter_tolerances_settle_later():
    objective = objective_of(MultiLayerDecoder(4, [6], 5), torch.randn(7, 5))
    start = adaptive_descent.Start.at(objective, torch.rand(7, 4).double(), torch.zeros(7).long())
    sizes = []
    for tolerance in (0.0, 1e-6, 1e-4, 3e-4, 1e-1):
        descent = adaptive_descent.descent_of(objective, start, 1, Adaptive(21, tolerance))
        descent.iteration.fill_(11)
        sizes.append(float(descent.settling().sqrt()))
        for late in (12, 21):
            descent.iteration.fill_(late)
            assert descent.settling().tolist() == [math.inf]
    assert sizes == pytest.approx([0.0, 3e-5, 3e-3, 9e-3, 1e-2])
