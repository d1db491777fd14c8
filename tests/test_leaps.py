"""Leaps of a quadratic that stands for all samples."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from sparse_lightning import reconstruction
from sparse_lightning.decoders import LinearDecoder, MultiLayerDecoder
from sparse_lightning.energy import ActiveObjective, Energy, Objective
from sparse_lightning.smooth import Expansion, Outlook
from sparse_lightning.solvers import FISTA, Adaptive, Solution, adaptive, leaps
from sparse_lightning.solvers.leaps import RISE, AskedByTheHost, Leaps, leap
from sparse_lightning.solvers.quasi_newton import QuasiNewton
from sparse_lightning.solvers.start import Start, no_leaps


def problem(
    energy: Energy, bias: float, hidden_dims: tuple[int, ...] = (60,), count: int = 50
) -> tuple[Objective, Tensor]:
    """The larger the bias, the more hidden units are active."""
    decoder = MultiLayerDecoder(12, hidden_dims, 30).double()
    with torch.no_grad():
        for layer in decoder.hidden:
            layer.bias.add_(bias)
        codes = 2 * torch.rand(count, 12).double() * (torch.rand(count, 12) < 0.3)
        inputs = decoder(codes) + 0.1 * torch.randn(count, 30).double()
    return energy.bind(decoder, inputs, codes), torch.rand(count, 12).double()


def hessians(objective: Objective, codes: Tensor) -> Tensor:
    """Of each sample's smooth energy, by autograd, (n, l, l)."""
    pull = 0.0 if objective.attraction is None else objective.attraction.curvature / 2

    def value(code: Tensor, target: Tensor) -> Tensor:
        error = (objective.decoder(code) - target).square().mean()
        return error + pull * code.square().sum()

    hessian = torch.autograd.functional.hessian
    pairs = zip(codes, objective.inputs)
    return torch.stack([hessian(lambda z, x=x: value(z, x), code) for code, x in pairs])


@pytest.mark.parametrize("hidden_dims", [(24,), (60, 24)])
@pytest.mark.parametrize("energy", [Energy(0.02), Energy(0.02, encoder_weight=3.0)])
def test_of_units_that_are_all_active_the_average_is_exact(energy, hidden_dims):
    objective, codes = problem(energy, 5.0, hidden_dims)
    for hessian in hessians(objective, codes)[:5]:
        torch.testing.assert_close(objective.expanded(codes).hessian(), hessian)
    prepared = objective.prepared_for(Outlook(10_000, codes, codes))
    assert prepared is not objective
    left, right = prepared.expanded(codes), objective.expanded(codes)
    torch.testing.assert_close(left[:2], right[:2])
    torch.testing.assert_close(left.hessian(), right.hessian())
    torch.testing.assert_close(prepared.expanded(codes).values, objective.comparable(codes))
    torch.testing.assert_close(prepared.expanded(codes).gradient, objective.gradient(codes))


def test_the_average_of_mixed_units():
    objective, codes = problem(Energy(0.02, encoder_weight=1.0), 0.4, (400,), count=300)
    shares = (objective.smooth._activations(codes)[1] > 0).double().mean(0)
    assert float((shares < 0.99).double().mean()) > 0.1
    mean = hessians(objective, codes).mean(0)
    error = torch.linalg.matrix_norm(objective.expanded(codes).hessian() - mean)
    assert error < 0.02 * torch.linalg.matrix_norm(mean)


def test_there_is_none_where_one_quadratic_will_not_do():
    undecided, codes = problem(Energy(0.02), 0.0)
    codes = codes * (torch.rand(codes.shape) < 0.3)
    with torch.no_grad():
        undecided.decoder.hidden[0].bias.zero_()
    assert undecided.expanded(codes) is None, "half of the units are active"
    assert leap(undecided, codes, 10) is None
    objective, codes = problem(Energy(0.02, 10.0, 0.5), 5.0)
    assert objective.expanded(codes) is None, "the hinge couples samples"
    linear = Energy(0.02).bind(LinearDecoder(12, 30), torch.randn(50, 30))
    assert linear.expanded(codes) is None, "it is its own quadratic"


def test_where_the_network_is_linear_the_second_leap_arrives():
    """The first is a little too short, by which the second knows better."""
    objective, codes = problem(Energy(0.02), 5.0)
    step = 1 / objective.curvature(codes).upper / 1.5
    lowest = objective.comparable(FISTA(step, 5_000, 0.0)(objective, codes).codes)
    gaps = [float((leap(objective, codes, n).energies - lowest).max()) for n in (1, 2, 3)]
    assert gaps[0] > 1e-6
    assert gaps[1] < 1e-9
    assert gaps[2] < 1e-9


def test_a_bend_that_underflows_ends_them():
    decoder = MultiLayerDecoder(12, [60], 30)
    with torch.no_grad():
        for layer in (decoder.hidden[0], decoder.output):
            layer.weight.mul_(1e-6)
        decoder.hidden[0].bias.fill_(1.0)
    codes = torch.rand(50, 12)
    objective = Energy(0.02).bind(decoder, torch.randn(50, 30))
    assert objective.expanded(codes).hessian().any()
    start = leap(objective, codes, 10)
    assert not start.leaps.any()
    assert torch.equal(start.codes, codes)


@pytest.mark.parametrize("bias", [0.2, 0.5, 1.0])
@pytest.mark.parametrize("hidden_dims", [(60,), (60, 40)])
def test_never_uphill(monkeypatch, bias, hidden_dims):
    """However little H tells."""
    monkeypatch.setattr(reconstruction, "MOST_SPREAD", 1.0)
    monkeypatch.setattr(leaps, "FIRST_SHARE", 0.0)
    objective, codes = problem(Energy(0.02), bias, hidden_dims)
    energies = objective.comparable(codes)
    for most in range(1, 12):
        start = leap(objective, codes, most)
        assert 1 <= start.leaps.max() <= most
        assert (start.energies <= energies).all()
        torch.testing.assert_close(start.energies, objective.comparable(start.codes))
        torch.testing.assert_close(start.gradient, objective.gradient(start.codes))
        assert (start.codes >= 0).all()
        energies = start.energies


def test_they_save_iterations():
    """Where atoms are alike, which makes steps along the gradient slow."""
    objective, codes = problem(Energy(0.002), 1.0)
    with torch.no_grad():
        objective.decoder.hidden[0].weight.add_(torch.rand(60, 1))
    solver = Adaptive(500, 1e-6)
    found = solver(objective, codes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reconstruction, "MOST_SPREAD", 0.0)
        without = solver(objective, codes)
    assert found.iterations.double().mean() < 0.75 * without.iterations.double().mean()
    energy, other = (float(objective.value(s.codes).detach()) for s in (found, without))
    assert energy == pytest.approx(other, rel=1e-4)


def test_the_limit_counts_leaps():
    objective, codes = problem(Energy(0.02), 0.5)
    for limit in (1, 2, 3):
        found = Adaptive(limit, 1e-9)(objective, codes)
        assert (found.iterations[~found.converged] == limit).all()
        assert (found.iterations <= limit).all()
        assert found.converged.double().mean() < 0.2
    found = Adaptive(500, 1e-6)(objective, codes)
    assert found.converged.all()
    assert Adaptive(1, 1e-3)(objective, found.codes).converged.all()


def test_where_no_sample_stops_early_all_iterations_may_be_leaps():
    objective, codes = problem(Energy(0.02), 0.5)
    were_all = []
    for limit in range(1, 12):
        start, found = leap(objective, codes, limit), Adaptive(limit, 0.0)(objective, codes)
        assert found.iterations.max() == limit
        assert not found.converged.any()
        assert (objective.comparable(found.codes) <= start.energies + 1e-15).all()
        were_all.append(int(start.leaps.max()) == limit)
        if were_all[-1]:
            assert torch.equal(found.codes, start.codes)
    assert were_all[2]
    assert not were_all[-1]


def test_samples_that_have_arrived_rest():
    """They go where the others do not disturb them, and only their own leaps are counted."""
    objective, codes = problem(Energy(0.02), 5.0, count=120)
    with torch.no_grad():  # so that the others do not arrive at once
        objective.decoder.hidden[0].bias[::7] = -1.0
    codes[::2] = Adaptive(2_000, 1e-9)(objective, codes).codes[::2]
    start = leap(objective, codes, 100)
    resting, moving = start.leaps[::2], start.leaps[1::2]
    assert moving.max() >= 3
    assert resting.double().mean() < moving.double().mean()
    for name, expected in (("energies", "comparable"), ("gradient", "gradient")):
        torch.testing.assert_close(getattr(start, name), getattr(objective, expected)(start.codes))
    found = Adaptive(500, 1e-4)(objective, codes)
    assert found.iterations[::2].double().mean() < found.iterations[1::2].double().mean()


def test_samples_that_are_promised_nothing_are_not_looked_at_again(monkeypatch):
    """Also where that is all of them, in the first of the further leaps and in the last of all."""
    objective, codes = problem(Energy(0.02), 5.0)
    arrived = Adaptive(2_000, 1e-9)(objective, codes).codes
    codes[::2] = arrived[::2]
    looked_at, look = [], ActiveObjective.comparable_and_gradient
    monkeypatch.setattr(
        ActiveObjective,
        "comparable_and_gradient",
        lambda self, codes: looked_at.append(len(codes)) or look(self, codes),
    )
    start = leap(objective, codes, 10)
    assert looked_at[0] == 50
    assert looked_at[1] <= 25
    assert (start.leaps[::2] == 1).all()
    assert start.leaps[1::2].double().mean() > 1.5
    torch.testing.assert_close(start.gradient, objective.gradient(start.codes))
    looked_at.clear()
    for nothing_follows in (False, True):
        start = leap(objective, arrived, 2, nothing_follows=nothing_follows)
        assert (start.leaps == 1).all()
        assert (start.energies <= objective.comparable(arrived)).all()
    assert looked_at == [50, 50]


def test_all_that_have_arrived_rest_at_once():
    objective, codes = problem(Energy(100.0), 5.0)
    start = leap(objective, 0 * codes, 10)
    assert (start.leaps == 1).all()
    assert not start.codes.any()
    torch.testing.assert_close(start.gradient, objective.gradient(0 * codes))
    found = Adaptive()(objective, 0 * codes)
    assert found.converged.all()
    assert (found.iterations == 1).all()
    assert not Adaptive(5, 0.0)(objective, 0 * codes).converged.any(), "with a tolerance of 0"


@pytest.mark.parametrize("tolerance", [0.0, 1e-5])
def test_one_sample_that_is_pulled_moves_while_the_others_rest(tolerance):
    objective, codes = problem(Energy(0.01), 5.0)
    objective.inputs[4] = 40.0
    objective.inputs[:4] = objective.inputs[5:] = objective.decoder(codes[:1]).detach()
    rested = Energy(1.0).bind(objective.decoder, objective.inputs)
    pulled = rested.gradient(0 * codes) < -1.0
    assert pulled.any(1).nonzero().flatten().tolist() == [4]
    found = Adaptive(100, tolerance)(rested, 0 * codes)
    assert found.codes.any(1).nonzero().flatten().tolist() == [4]


def test_where_a_gradient_is_not_a_number_nothing_rests():
    objective, codes = problem(Energy(100.0), 5.0)
    objective.inputs[3] = torch.nan
    start = Start.at(objective, 0 * codes, no_leaps(codes))
    assert not start.rests_at_zero(100.0)


@pytest.mark.parametrize("bias", [0.0, 5.0])
@pytest.mark.parametrize("hidden_dims", [(24,), (60, 24)])
@pytest.mark.parametrize("energy", [Energy(0.02), Energy(0.02, encoder_weight=3.0)])
def test_at_zero_all_samples_have_the_same_hessian(energy, hidden_dims, bias):
    """Where one row of activations is enough, with units that are off and in Gram form, too."""
    objective, codes = problem(energy, bias, hidden_dims)
    zero = 0 * codes
    in_gram_form = objective.prepared_for(Outlook(10_000, zero, zero))
    assert in_gram_form is not objective
    hessian = hessians(objective, zero[:1] + 1e-12)[0]
    for form in (objective, in_gram_form):
        expansion = form.expanded(zero)
        torch.testing.assert_close(expansion.values, form.comparable(zero))
        torch.testing.assert_close(expansion.gradient, form.gradient(zero))
        torch.testing.assert_close(expansion.hessian(), hessian)


def test_without_any_active_unit_there_is_nothing_to_leap_by():
    decoder = MultiLayerDecoder(12, [24], 30)
    torch.nn.init.zeros_(decoder.hidden[0].bias)
    codes = torch.zeros(5, 12)
    found = Adaptive()(Energy(0.02).bind(decoder, torch.randn(5, 30)), codes)
    assert torch.equal(found.codes, codes)
    assert found.converged.all()
    assert found.iterations.tolist() == [1] * 5


def test_leaps_that_arrive_at_zero_have_converged_there():
    objective, codes = problem(Energy(100.0), 5.0)
    leaps_taken = leap(objective, codes, 10).leaps
    found = Adaptive()(objective, codes)
    assert not found.codes.any()
    assert found.converged.all()
    assert torch.equal(found.iterations, leaps_taken)


def test_codes_that_have_arrived_elsewhere_hardly_move():
    objective, codes = problem(Energy(0.02, encoder_weight=1.0), 5.0)
    arrived = Adaptive(2_000, 1e-9)(objective, codes).codes
    assert arrived.any()
    start = leap(objective, arrived, 10)
    assert start.leaps.max() <= 2
    torch.testing.assert_close(start.codes, arrived, rtol=1e-3, atol=1e-4)


def test_of_no_samples_there_is_no_expansion():
    objective, codes = problem(Energy(0.02), 5.0)
    assert objective.restrict(torch.arange(0), codes).expanded(codes[:0]) is None


@pytest.mark.parametrize("number", [torch.nan, torch.inf, 1e30])
def test_a_sample_that_is_lost_does_not_stop_the_others(number):
    objective, codes = problem(Energy(0.02), 5.0)
    alone = leap(objective, codes, 20)
    codes[3, 4] = number
    start = leap(objective, codes, 20)
    others = torch.arange(50) != 3
    torch.testing.assert_close(start.energies[others], alone.energies[others])
    assert start.leaps.max() < 20


class Lifted:
    """An objective whose energies are raised for some samples from the second look on."""

    def __init__(self, objective: Objective, rows: list[int]) -> None:
        self.objective, self.rows = objective, rows
        self.sparsity_weight, self.expanded = objective.sparsity_weight, objective.expanded

    def comparable_and_gradient(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        energies, gradient = self.objective.comparable_and_gradient(codes)
        energies[self.rows] += 10
        return energies, gradient

    def restrict(self, rows: Tensor, held_codes: Tensor) -> Objective:
        raise AssertionError("none rests in these tests")


def test_a_first_leap_uphill_is_not_taken_and_the_next_is_shorter():
    objective, codes = problem(Energy(0.02), 5.0)
    start = leap(Lifted(objective, [2, 5]), codes, 1)
    rows = torch.zeros(50).bool()
    rows[[2, 5]] = True
    assert torch.equal(start.codes[rows], codes[rows])
    assert ((start.codes != codes).any(1))[~rows].all()
    assert leap(Lifted(objective, list(range(6))), codes, 1).leaps.max() == 0, "too many"


@pytest.mark.parametrize("bend", [-10.0, 10.0])
def test_none_is_taken_where_energies_bend_otherwise_than_expected(bend):
    """Though they fall as they should."""
    objective, codes = problem(Energy(0.02), 5.0)

    class Bent(Lifted):
        def comparable_and_gradient(self, new: Tensor) -> tuple[Tensor, Tensor]:
            energies, gradient = self.objective.comparable_and_gradient(new)
            gradient[self.rows] += bend * (new - codes)[self.rows]
            return energies, gradient

    assert leap(Bent(objective, [2, 5]), codes, 1).leaps.min() == 1
    assert leap(Bent(objective, list(range(6))), codes, 1).leaps.max() == 0, "too many"


def test_after_a_leap_uphill_the_quadratic_is_stiffer():
    objective, codes = problem(Energy(0.02), 5.0)
    energies, gradient, hessian = objective.expanded(codes)
    model = QuasiNewton.of(hessian(), torch.ones_like(energies))
    start = Start(codes, energies, gradient, no_leaps(codes))
    flight = Leaps(Lifted(objective, [2, 5]), start, model)
    flight.go_on()
    assert torch.equal(flight.codes[[2, 5]], codes[[2, 5]])
    assert flight.model.scale[[2, 5]].tolist() == [[RISE], [RISE]]
    assert flight.model.scale.sum() == 48 + 2 * RISE
    assert RISE > 1


def test_there_are_never_more_than_some(monkeypatch):
    monkeypatch.setattr(leaps, "WORTHWHILE", 0.0)
    monkeypatch.setattr(leaps, "MOST_LEAPS", 6)
    objective, codes = problem(Energy(0.02), 0.7)
    assert leap(objective, codes, 100).leaps.max() == 6
    # Half of the iterations are left to settle.
    seen = []

    def spy(
        objective: Objective, codes: Tensor, most: int, *, nothing_follows: bool
    ) -> Start | None:
        seen.append((most, nothing_follows))
        return leap(objective, codes, most, nothing_follows=nothing_follows)

    monkeypatch.setattr(adaptive, "leap", spy)
    Adaptive(9, 1e-3)(objective, codes)
    Adaptive(9, 0.0)(objective, codes)
    assert seen == [(4, False), (9, True)]


@pytest.mark.parametrize("most", [1, 2, 5, 30])
@pytest.mark.parametrize("worthwhile", [0.0, 1e-5])
def test_the_last_of_all_leaps_does_without_its_gradient(monkeypatch, most, worthwhile):
    """Also where some rest already."""
    objective, codes = problem(Energy(0.02), 0.5)
    monkeypatch.setattr(leaps, "WORTHWHILE", worthwhile)
    gradients, looked = [], ActiveObjective.comparable_and_gradient
    monkeypatch.setattr(
        ActiveObjective,
        "comparable_and_gradient",
        lambda self, codes: gradients.append(len(codes)) or looked(self, codes),
    )
    start = leap(objective, codes, most)
    count = len(gradients)
    last = leap(objective, codes, most, nothing_follows=True)
    for name in ("codes", "energies", "leaps"):
        assert torch.equal(getattr(start, name), getattr(last, name))
    took_all = start.leaps.max() == most
    assert took_all == (most < 30)
    assert (start.leaps < most).any() or most < 5 or worthwhile == 0
    assert 2 * count - len(gradients) == (took_all and most > 1)


def test_the_first_leap_is_judged_by_the_matrix_itself(monkeypatch):
    """Where all units are active the matrix is exact, but for what is added for safety."""
    objective, codes = problem(Energy(0.02), 5.0)
    monkeypatch.setattr(leaps, "FALL_ERROR", 1e-9)
    assert leap(objective, codes, 3).leaps.max() > 0


def test_an_empty_batch():
    objective, codes = problem(Energy(0.02), 5.0)
    none = objective.restrict(torch.arange(0), codes)
    for solver in (Adaptive(), Adaptive(10, 0.0), FISTA(0.1)):
        found = solver(none, codes[:0])
        assert found.codes.shape == (0, 12)
        assert found.iterations.shape == found.converged.shape == (0,)


def test_codes_of_any_layout_and_precision():
    objective, codes = problem(Energy(0.02), 0.5)
    expected = leap(objective, codes, 8)
    with torch.inference_mode():
        found = leap(objective, codes.T.contiguous().T, 8)
    torch.testing.assert_close(found.codes, expected.codes)
    decoder = copy.deepcopy(objective.decoder).float()
    single = Energy(0.02).bind(decoder, objective.inputs.float())
    torch.set_default_dtype(torch.float64)
    try:
        start = leap(single, codes.float(), 8)
    finally:
        torch.set_default_dtype(torch.float32)
    assert {part.dtype for part in (start.codes, start.energies, start.gradient)} == {torch.float32}
    torch.testing.assert_close(start.energies.double(), expected.energies, rtol=1e-3, atol=1e-5)


class Elsewhere(AskedByTheHost):
    """As an objective on an accelerator is asked."""

    def expanded(self, codes: Tensor) -> Expansion | None:
        return self.objective.expanded(codes)


def test_an_objective_that_the_host_asks_gives_the_same():
    objective, codes = problem(Energy(0.02, encoder_weight=1.0), 0.5)
    asked = Elsewhere(objective, codes.device)
    for nothing_follows in (False, True):
        expected = leap(objective, codes, 6, nothing_follows=nothing_follows)
        found = leap(asked, codes, 6, nothing_follows=nothing_follows)
        for name in ("codes", "energies", "gradient", "leaps"):
            assert torch.equal(getattr(found, name), getattr(expected, name))
        assert expected.leaps.min() < expected.leaps.max(), "samples were left out"


def test_the_end_is_no_higher_than_where_leaps_ended(monkeypatch):
    """Whatever the steps that come after them do."""
    objective, codes = problem(Energy(0.02), 0.5)
    start = leap(objective, codes, 100)

    class Lost:
        def run(self) -> Solution:
            iterations = torch.full((50,), 60)
            return Solution(start.codes + 100, iterations, torch.zeros(50).bool())

    monkeypatch.setattr(adaptive, "descent_of", lambda *_: Lost())
    found = Adaptive(200, 1e-4)(objective, codes)
    assert torch.equal(found.codes, start.codes)
    assert torch.equal(found.iterations, 60 - start.leaps.max() + start.leaps)
    assert start.leaps.min() < start.leaps.max()
