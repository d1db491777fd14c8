"""Gradients piece by piece are those of the network."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from sparse_lightning.decoders import LinearDecoder, MultiLayerDecoder
from sparse_lightning.energy import Energy, Objective
from sparse_lightning.peers import Peers
from sparse_lightning.pieces import cost, rows, term
from sparse_lightning.pieces.cost import in_pieces
from sparse_lightning.pieces.sizes import ROOM, bytes_of
from sparse_lightning.pieces.term import PiecewiseTerm
from sparse_lightning.reconstruction import MultiLayerTerm
from sparse_lightning.smooth import Outlook
from sparse_lightning.solvers import FISTA, ISTA, Adaptive

ENERGIES = {
    "plain": Energy(0.02),
    "encoder": Energy(0.02, encoder_weight=1.0),
    "hinge": Energy(0.02, 10.0, 0.5, 5.0),
}


def problem(
    weights: Energy, count: int = 70, m: int = 90, dtype: torch.dtype = torch.float64
) -> tuple[Objective, Tensor]:
    """Samples of very different difficulty; units of which about half are active."""
    inputs, prediction = torch.randn(count, 30, dtype=dtype), torch.rand(count, 17, dtype=dtype)
    inputs *= torch.logspace(-2, 1, count, dtype=dtype)[:, None]
    prediction[::7] = 0
    decoder = MultiLayerDecoder(17, [m], 30).to(dtype)
    return weights.bind(decoder, inputs, prediction), prediction


def sparse_codes(count: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(count, 17, dtype=dtype) * (torch.rand(count, 17) < 0.4)


def walk(count: int, steps: int) -> list[Tensor]:
    """Codes as inference makes them: large steps, then smaller ones, then hardly any."""
    codes = [sparse_codes(count)]
    for step in range(steps):
        new = codes[-1] + 0.7**step * torch.randn(count, 17).double()
        codes.append(new.relu() * (torch.rand(count, 17) < 0.9))
    return codes


def pieces_of(objective: Objective, codes: Tensor) -> tuple[MultiLayerTerm, PiecewiseTerm]:
    network = objective.smooth.in_gram_form()
    return network, PiecewiseTerm.at(network, codes)


def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Go on piece by piece from the first look on."""
    monkeypatch.setattr(cost, "_is_large", lambda *_: True)
    monkeypatch.setattr(cost, "pays", lambda *_: True)


@pytest.mark.parametrize("weights", ENERGIES.values(), ids=ENERGIES)
def test_the_gradient_anywhere(weights):
    objective, _ = problem(weights)
    points = walk(70, 40)
    network, pieces = pieces_of(objective, points[0])
    for codes in [*points, *reversed(points), torch.zeros_like(points[0]), points[0]]:
        torch.testing.assert_close(
            pieces.gradient(codes), network.gradient(codes), rtol=1e-9, atol=1e-11
        )


def test_is_written_where_it_is_asked_for():
    objective, codes = problem(ENERGIES["encoder"])
    network, pieces = pieces_of(objective, codes)
    room = torch.empty_like(codes)
    assert pieces.gradient(codes, out=room) is room
    torch.testing.assert_close(room, network.gradient(codes))
    strided = codes.T.contiguous().T
    torch.testing.assert_close(pieces.gradient(strided), network.gradient(codes))
    torch.testing.assert_close(pieces.gradient(codes, out=strided), network.gradient(codes))


def test_of_some_samples():
    """Also when they are restricted twice, and the others have moved meanwhile."""
    objective, _ = problem(ENERGIES["encoder"])
    points = walk(70, 30)
    network, pieces = pieces_of(objective, points[0])
    rows, again = torch.randperm(70)[:40], torch.randperm(40)[:9]
    some, few = pieces.restrict(rows), pieces.restrict(rows).restrict(again)
    for codes in points:
        for part, which in ((pieces, slice(None)), (some, rows), (few, rows[again])):
            expected = network.gradient(codes)[which]
            torch.testing.assert_close(part.gradient(codes[which]), expected)


def test_more_units_switch_than_there_is_room_for():
    """A few at a time, and most of them at once."""
    objective, _ = problem(ENERGIES["plain"], m=6 * ROOM)
    left, right = sparse_codes(70), 3 * sparse_codes(70)
    network, pieces = pieces_of(objective, left)
    for share in [*torch.linspace(0, 1, 40).double(), 0.0, 1.0, 0.5]:
        codes = torch.lerp(left, right, share)
        torch.testing.assert_close(pieces.gradient(codes), network.gradient(codes))
    kept = pieces.knowledge.pieces.kept
    assert (kept.count > 0).any()
    assert (kept.count <= ROOM).all()


def test_what_is_known_is_right():
    """Rows of Q and responses of units, by the formulas of the package."""
    objective, _ = problem(ENERGIES["plain"])
    points = walk(70, 60)
    network, pieces = pieces_of(objective, points[0])
    for codes in points:
        pieces.gradient(codes)
    (weight, bias), top = network.hidden[0], network.top
    units = torch.cat((weight, bias[:, None]), 1)
    common, piece, kept, _ = pieces.knowledge.pieces
    is_right(common.hessian, units, common.usual, top.gram)
    for sample in range(0, 70, 10):
        masked = units * torch.from_numpy(piece.active[sample])[:, None]
        known = piece.is_known[sample]
        assert known[-1]
        assert known.sum() > 5
        is_right(piece.hessian[sample], units, piece.active[sample], top.gram, known)
        constant = -masked.T @ top.drive[sample]
        np.testing.assert_allclose(piece.constant[sample], constant[:-1], atol=1e-10)
        for slot in range(kept.count[sample]):
            response = masked.T @ top.gram[kept.unit[sample, slot]]
            np.testing.assert_allclose(kept.response[sample, slot], response, atol=1e-10)
        kept_units = kept.unit[sample, : kept.count[sample]]
        between = kept.gram[sample, : len(kept_units), : len(kept_units)]
        assert np.array_equal(between, top.gram.numpy()[np.ix_(kept_units, kept_units)])


def is_right(
    hessian: np.ndarray,
    units: Tensor,
    active: np.ndarray,
    gram: Tensor,
    known: np.ndarray | slice = slice(None),
) -> None:
    """Whether known rows of Q are those of a piece."""
    masked = units * torch.from_numpy(active)[:, None]
    expected = (masked.T @ gram @ masked).numpy()
    np.testing.assert_allclose(hessian[known], expected[known], atol=1e-10)


@pytest.mark.parametrize("numbers", [1, 3_000, 2**20])
def test_rows_that_are_learned_at_once(monkeypatch, numbers):
    """One sample at a time or many; of samples that differ in no unit, in few, and in most."""
    monkeypatch.setattr(rows, "AT_A_TIME", numbers)
    objective, _ = problem(ENERGIES["plain"])
    codes = sparse_codes(70)
    codes[:40] = codes[0]
    codes[50] = 0
    network, pieces = pieces_of(objective, codes)
    (weight, bias), gram = network.hidden[0], network.top.gram
    units = torch.cat((weight, bias[:, None]), 1)
    common, piece, _, _ = pieces.knowledge.pieces
    differences = (piece.active != common.usual).sum(1)
    assert differences.min() == 0
    assert differences.max() > 20
    for sample in range(70):
        assert np.array_equal(piece.is_known[sample, :-1], codes[sample] != 0)
        known = piece.is_known[sample]
        is_right(piece.hessian[sample], units, piece.active[sample], gram, known)


@pytest.mark.parametrize("weights", ENERGIES.values(), ids=ENERGIES)
@pytest.mark.parametrize("tolerance", [0.0, 1e-3])
@pytest.mark.parametrize("kind", ["fista", "ista", "adaptive"])
def test_inference_is_the_same(monkeypatch, weights, tolerance, kind):
    solver = {
        "fista": FISTA(0.5, 120, tolerance),
        "ista": ISTA(0.5, 120, tolerance),
        "adaptive": Adaptive(120, tolerance),
    }[kind]
    objective, start = problem(weights)
    monkeypatch.setattr(cost, "pays", lambda *_: False)
    expected = solver(objective, start)
    always(monkeypatch)
    calls = []
    learn = PiecewiseTerm.gradient
    monkeypatch.setattr(
        PiecewiseTerm, "gradient", lambda *given, **out: calls.append(1) or learn(*given, **out)
    )
    found = solver(objective, start)
    assert len(calls) > 10
    torch.testing.assert_close(found.codes, expected.codes, rtol=1e-6, atol=1e-8)
    assert torch.equal(found.iterations, expected.iterations)
    assert torch.equal(found.converged, expected.converged)


def test_in_float32():
    """Rounding adds up over hundreds of switches, and stays rounding."""
    objective, start = problem(ENERGIES["encoder"], dtype=torch.float32)
    network, pieces = pieces_of(objective, start)
    points = [code.float() for code in walk(70, 40)]
    for _ in range(5):
        for codes in points:
            gradient = pieces.gradient(codes)
    assert gradient.dtype == torch.float32
    torch.testing.assert_close(gradient, network.gradient(points[-1]), rtol=1e-4, atol=1e-4)


def test_codes_that_are_not_finite(monkeypatch):
    always(monkeypatch)
    objective, codes = problem(ENERGIES["plain"])
    _, pieces = pieces_of(objective, codes)
    for number in (math.nan, math.inf):
        broken = codes.clone()
        broken[3, 2] = number
        gradient = pieces.gradient(broken)
        assert not gradient[3].isfinite().all()
        assert gradient[4:].isfinite().all()
    solution = FISTA(1e4, 200, 0.0)(objective, codes)
    assert not solution.codes.isfinite().all()


def pays(network: MultiLayerTerm, outlook: Outlook) -> bool:
    state = cost.state_of(network, outlook)
    return cost.pays(network, outlook, state, network.multiplications)


def test_when_it_pays():
    """Where units and atoms are settled and many gradients are to come; not before."""
    decoder = MultiLayerDecoder(128, [1024], 784)
    codes = torch.rand(250, 128) * (torch.rand(250, 128) < 0.1)
    elsewhere = torch.rand(250, 128) * (torch.rand(250, 128) < 0.1)
    plain = decoder.bind(torch.randn(250, 784))
    for network in (plain, plain.in_gram_form()):
        outlook = Outlook(200, codes, elsewhere)
        assert not pays(network, outlook), "hundreds of units switch"
        outlook.tell(200, codes, 1.001 * codes)
        assert not pays(network, outlook), "that was much worse just now"
        assert pays(network, outlook)
        outlook.tell(10, codes, 1.001 * codes)
        assert not pays(network, outlook), "few gradients are to come"
        outlook.tell(0, codes, codes)
        assert not pays(network, outlook)


def test_of_guessed_gradients_a_share_counts():
    codes = torch.rand(250, 128) * (torch.rand(250, 128) < 0.25)
    network = MultiLayerDecoder(128, [1024], 784).bind(torch.randn(250, 784))

    def settled(gradients: int, is_known: bool) -> bool:
        outlook = Outlook(gradients, codes, codes, is_known)
        return [pays(network, outlook) for _ in range(2)][-1]

    least = next(count for count in range(1, 500) if settled(count, is_known=True))
    assert not settled(least, is_known=False)
    assert settled(2 * least, is_known=False)


def test_what_the_cache_does_not_hold_costs_more(monkeypatch):
    codes = torch.rand(250, 128) * (torch.rand(250, 128) < 0.25)
    network = MultiLayerDecoder(128, [1024], 784).bind(torch.randn(250, 784))
    state = cost.state_of(network, Outlook(100, codes, codes))
    held = cost.costs_of(network, state, 250).gradient
    monkeypatch.setattr(cost, "CACHE", 1000)
    assert cost.costs_of(network, state, 250).gradient == pytest.approx(cost.BEYOND_CACHE * held)


@pytest.mark.parametrize(("n", "length", "m", "d"), [(20, 256, 512, 144), (10, 16, 64, 30)])
def test_small_problems_are_left_to_the_network(n, length, m, d):
    codes = torch.rand(n, length) * (torch.rand(n, length) < 0.1)
    outlook = Outlook(100, codes, 1.001 * codes)
    network = MultiLayerDecoder(length, [m], d).bind(torch.randn(n, d))
    assert not any(pays(network, outlook) for _ in range(3))


def looked(codes: Tensor, looks: int = cost.EVERY) -> Outlook:
    return Outlook(100, codes, codes, looks=looks)


def test_what_has_no_pieces(monkeypatch):
    always(monkeypatch)
    codes, inputs = torch.rand(20, 12), torch.randn(20, 30)
    two = MultiLayerDecoder(12, [16, 14], 30).bind(inputs)
    linear, one = LinearDecoder(12, 30).bind(inputs), MultiLayerDecoder(12, [16], 30).bind(inputs)
    for other in (two, linear):
        assert in_pieces(other, looked(codes)) is other
    assert in_pieces(one, looked(codes, cost.EVERY + 1)) is one, "looks are few"
    assert in_pieces(one, looked(codes, 0)) is one, "nothing has been seen"
    pieces = in_pieces(one, looked(codes))
    assert isinstance(pieces, PiecewiseTerm)
    assert in_pieces(pieces, looked(codes)) is pieces
    none = one.restrict(torch.arange(0))
    assert in_pieces(none, looked(codes[:0])) is none
    monkeypatch.setattr(cost, "LARGEST", 100_000)
    assert in_pieces(one, looked(codes)) is one, "too large"


def test_sizes_are_those_of_the_arrays():
    objective, codes = problem(ENERGIES["plain"])
    _, pieces = pieces_of(objective, codes)
    knowledge = pieces.knowledge
    arrays = [array for part in knowledge.pieces for array in part]
    assert sum(array.nbytes for array in arrays) == pytest.approx(bytes_of(70, 90, 17, 8), rel=0.05)


def test_where_processes_share_a_batch_there_are_none(monkeypatch):
    """Whether to go on in pieces is asked of the samples, and each has others."""
    always(monkeypatch)
    objective, codes = problem(ENERGIES["hinge"])
    shared = replace(objective, peers=Peers())
    assert isinstance(objective.prepared_for(looked(codes)).smooth, PiecewiseTerm)
    assert isinstance(shared.prepared_for(looked(codes)).smooth, MultiLayerTerm)


def test_one_search_does_not_change_the_next(monkeypatch):
    monkeypatch.setattr(cost, "LEAST", 0.0)
    objective, start = problem(ENERGIES["plain"], m=400)
    solver = FISTA(0.05, 200, 0.0)
    assert torch.equal(solver(objective, start).codes, solver(objective, start).codes)


def test_pieces_that_cost_too_much_are_left_for_good():
    """So many units switch each time that the network is faster."""
    objective, codes = problem(ENERGIES["plain"], m=6 * ROOM)
    network, pieces = pieces_of(objective, codes)
    points = [sparse_codes(70), sparse_codes(70)]
    for turn in range(100):
        pieces.gradient(points[turn % 2])
    left = pieces.prepared_for(100)
    assert isinstance(left, MultiLayerTerm)
    assert in_pieces(left, looked(codes)) is left
    torch.testing.assert_close(left.gradient(codes), network.gradient(codes))


def test_all_is_learned_anew_now_and_then(monkeypatch):
    monkeypatch.setattr(term, "LASTS", 5)
    monkeypatch.setattr(term, "MOST_EXCESS", math.inf)
    objective, _ = problem(ENERGIES["encoder"])
    points = walk(70, 8)
    network, pieces = pieces_of(objective, points[0])
    pieces = pieces.restrict(torch.arange(30))
    for codes in points[:4]:
        pieces.gradient(codes[:30])
        assert pieces.prepared_for(100) is pieces
    pieces.gradient(points[4][:30])
    fresh = pieces.prepared_for(100)
    assert fresh.knowledge is not pieces.knowledge
    expected = network.gradient(points[5])[:30]
    torch.testing.assert_close(fresh.gradient(points[5][:30]), expected)


def test_all_else_is_the_networks():
    objective, codes = problem(ENERGIES["encoder"])
    network, pieces = pieces_of(objective, codes)
    assert torch.equal(pieces.value(codes), network.value(codes))
    for left, right in zip(pieces.value_and_gradient(codes), network.value_and_gradient(codes)):
        assert torch.equal(left, right)
    assert pieces.curvature(codes) == network.curvature(codes)
    left, right = pieces.outset(codes), network.outset(codes)
    assert left.curvature == right.curvature
    assert torch.equal(left.values, right.values)
    assert torch.equal(left.gradient, right.gradient)
    left, right = pieces.expanded(codes), network.expanded(codes)
    assert torch.equal(left.values, right.values)
    assert torch.equal(left.gradient, right.gradient)
    assert torch.equal(left.hessian(), right.hessian())
    assert pieces.prepared_for(100) is pieces
