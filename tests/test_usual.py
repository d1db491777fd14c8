"""Gradients by what samples have in common are those of the network."""

from __future__ import annotations

import math

import pytest
import torch

from sparse_lightning.decoders import MultiLayerDecoder
from sparse_lightning.pieces import cost
from sparse_lightning.pieces.cost import State, in_pieces
from sparse_lightning.pieces.term import PiecewiseTerm
from sparse_lightning.pieces.usual import UsualTerm
from sparse_lightning.reconstruction import MultiLayerTerm
from sparse_lightning.smooth import Outlook
from sparse_lightning.solvers import FISTA
from tests.test_pieces import ENERGIES, always, problem, sparse_codes, walk


@pytest.mark.parametrize("weights", ENERGIES.values(), ids=ENERGIES)
@pytest.mark.parametrize("in_gram_form", [False, True])
def test_the_gradient_anywhere(weights, in_gram_form):
    """At codes that are like those of the start, and at others: all units may be other ones."""
    objective, _ = problem(weights)
    points, network = walk(70, 20), objective.smooth
    network = network.in_gram_form() if in_gram_form else network
    usual = UsualTerm.at(network, points[0])
    elsewhere = torch.zeros_like(points[0]), 50 * points[0], -points[0]
    for codes in [*points, *elsewhere, points[0]]:
        torch.testing.assert_close(
            usual.gradient(codes), network.gradient(codes), rtol=1e-9, atol=1e-11
        )


def test_in_float32_and_where_it_is_asked_for():
    objective, _ = problem(ENERGIES["encoder"], dtype=torch.float32)
    codes = sparse_codes(70, torch.float32)
    network, usual = objective.smooth, UsualTerm.at(objective.smooth, codes)
    room = torch.empty_like(codes)
    assert usual.gradient(codes, out=room) is room
    torch.testing.assert_close(room, network.gradient(codes), rtol=1e-4, atol=1e-5)
    strided = codes.T.contiguous().T
    for gradient in (usual.gradient(strided), usual.gradient(codes, out=strided)):
        torch.testing.assert_close(gradient, room)


@pytest.mark.parametrize("threads", [1, 3])
def test_of_some_samples_in_any_number_of_parts(monkeypatch, threads):
    """More parts than samples as well."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    objective, _ = problem(ENERGIES["encoder"])
    codes = sparse_codes(70)
    network, usual = objective.smooth, UsualTerm.at(objective.smooth, codes)
    rows, again = torch.randperm(70)[:40], torch.tensor([5, 2])
    for part, which in (
        (usual.restrict(rows), rows),
        (usual.restrict(rows).restrict(again), rows[again]),
    ):
        torch.testing.assert_close(part.gradient(codes[which]), network.gradient(codes)[which])


def test_it_counts_the_units_in_which_samples_differ():
    objective, _ = problem(ENERGIES["plain"])
    left, right = sparse_codes(70), 3 * sparse_codes(70)
    usual = UsualTerm.at(objective.smooth, left)
    ((weight, bias),) = objective.smooth.hidden
    masks = [codes @ weight.T + bias > 0 for codes in (left, right)]
    for codes, active in zip((left, right), masks):
        usual.gradient(codes)
        differing = active ^ (masks[0].double().mean(0) > 0.5)
        assert usual.others == pytest.approx(float(differing.sum(1).double().mean()))


def test_codes_that_are_not_finite():
    objective, codes = problem(ENERGIES["plain"])
    usual = UsualTerm.at(objective.smooth, codes)
    for number in (math.nan, math.inf):
        broken = codes.clone()
        broken[3, 2] = number
        gradient = usual.gradient(broken)
        assert not gradient[3].isfinite().all()
        assert gradient[4:].isfinite().all()


@pytest.mark.parametrize("weights", ENERGIES.values(), ids=ENERGIES)
@pytest.mark.parametrize("tolerance", [0.0, 1e-3])
def test_inference_is_the_same(monkeypatch, weights, tolerance):
    """By the network, then in common, and piece by piece in the end."""
    objective, start = problem(weights)
    solver = FISTA(0.5, 120, tolerance)
    expected = solver(objective, start)
    always(monkeypatch)
    monkeypatch.setattr(cost, "common", lambda *_: True)
    monkeypatch.setattr(cost, "pays", lambda _, outlook, *__: outlook.looks >= 20)
    monkeypatch.setattr(cost, "in_common", lambda *_: 0.0)
    kinds = []
    for kind in (MultiLayerTerm, UsualTerm, PiecewiseTerm):
        made = kind.gradient
        monkeypatch.setattr(
            kind,
            "gradient",
            lambda self, *given, made=made, **out: (
                kinds.append(type(self)) or made(self, *given, **out)
            ),
        )
    found = solver(objective, start)
    assert kinds[:3] == [MultiLayerTerm] * 3
    assert kinds[3:20] == [UsualTerm] * 17
    assert set(kinds[20:]) == {PiecewiseTerm}
    torch.testing.assert_close(found.codes, expected.codes, rtol=1e-6, atol=1e-8)
    assert torch.equal(found.iterations, expected.iterations)


def outlook(codes: torch.Tensor, looks: int, gradients: int = 100) -> Outlook:
    return Outlook(gradients, codes, codes, looks=looks)


def test_where_samples_differ_little_it_pays():
    decoder = MultiLayerDecoder(128, [1024], 784)
    alike = torch.rand(1, 128) + 0.02 * torch.rand(250, 128) * (torch.rand(250, 128) < 0.2)
    other = torch.rand(250, 128) * (torch.rand(250, 128) < 0.2)
    network = decoder.bind(torch.randn(250, 784))
    assert in_pieces(network, outlook(other, cost.EARLY)) is network, "half of the units differ"
    assert in_pieces(network, outlook(alike, 1)) is network, "too early"
    assert in_pieces(network, outlook(alike, cost.EARLY, 1)) is network, (
        "too few gradients are to come"
    )
    guess = outlook(alike, cost.EARLY, 1)
    guess.is_known = False
    usual = in_pieces(network, guess)
    assert isinstance(usual, UsualTerm), "there may be more, and there is little to lose"
    usual.gradient(alike)
    assert in_pieces(usual, outlook(alike, cost.EARLY)) is usual
    assert in_pieces(usual, outlook(alike, 5, 1)) is usual
    usual.gradient(other)
    left = in_pieces(usual, outlook(other, 5))
    assert isinstance(left, MultiLayerTerm), "samples have come to differ"
    torch.testing.assert_close(left.gradient(other), network.gradient(other), rtol=1e-3, atol=1e-5)


def test_small_problems_are_left_to_the_network():
    codes = torch.rand(1, 16) + 0.01 * torch.rand(20, 16)
    network = MultiLayerDecoder(16, [64], 30).bind(torch.randn(20, 30))
    for looks in (cost.EARLY, 5, 10):
        assert in_pieces(network, outlook(codes, looks)) is network


def test_what_a_gradient_costs():
    """More, the more samples differ; and no less than the inputs of all units."""
    network = MultiLayerDecoder(128, [1024], 784).bind(torch.randn(250, 784))
    costs = [cost.in_common(network, State(20, 1, others)) for others in (0, 60, 250)]
    assert 128 * 1024 < costs[0] < costs[1] < network.in_gram_form().multiplications / 2
    assert costs[2] > network.in_gram_form().multiplications
