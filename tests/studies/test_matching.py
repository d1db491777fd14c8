"""Matchings against every permutation, and correlations against numpy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from sparse_lightning.studies.matching import correlations, matched


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("sizes", [(4, 4), (3, 5), (5, 3)])
def test_the_sum_of_cosines_is_the_largest_of_all_permutations(sizes, signed, random):
    first, second = (random.normal(size=(size, 6)) for size in sizes)
    cosines = first @ second.T
    cosines /= np.outer(np.linalg.norm(first, axis=1), np.linalg.norm(second, axis=1))
    cosines = abs(cosines) if signed else cosines
    short, long = sorted(sizes)
    table = cosines if sizes[0] <= sizes[1] else cosines.T
    best = max(
        sum(table[i, j] for i, j in enumerate(order))
        for order in itertools.permutations(range(long), short)
    )
    found = matched(first, second, signed)
    assert found.similarity.sum() == pytest.approx(best)
    assert found.mean == pytest.approx(best / short)
    assert found.similarity == pytest.approx(cosines[found.first, found.second])


def test_permuted_and_scaled_atoms_are_found_again(random):
    first, order = random.normal(size=(8, 12)), random.permutation(8)
    second = 3 * first[order]
    second[2] = -second[2]
    found = matched(first, second, signed=True)
    assert (order[found.second] == found.first).all()
    assert found.share_above(0.99, 8) == 1
    assert matched(first, second, signed=False).share_above(0.99, 8) < 1
    assert matched(first, np.zeros((2, 12)), signed=True).mean == 0
    assert np.isnan(matched(first, np.zeros((0, 12)), signed=True).mean)


def test_correlations_are_pearsons(random):
    first, second = random.normal(size=(2, 50, 3))
    expected = [np.corrcoef(a, b)[0, 1] for a, b in zip(first.T, second.T)]
    assert correlations(first, second) == pytest.approx(expected)
    assert correlations(first, np.ones_like(first)) == pytest.approx(0)
