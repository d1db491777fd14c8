"""Words on made-up evidence: gaps of known size and spread, at 2, 3 and 5 seeds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from sparse_lightning.paper.statistics import Sample, Spread, difference
from sparse_lightning.paper.verdicts import Word, above, on_par

HOLDS, FAILS, OPEN = Word.HOLDS, Word.FAILS, Word.OPEN


def sample(mean: float, deviation: float = 0.1, seeds: int = 3, **more: float) -> Sample:
    return Sample(mean, deviation, seeds, **more)


def test_interval_of_two_is_that_of_scipy():
    first, second = np.array([16.0, 16.3, 16.1]), np.array([15.2, 15.1, 15.5])
    both = [Sample(values.mean(), values.std(ddof=1), 3) for values in (first, second)]
    found = difference(*both, both, 0.95, 3.0)
    expected = stats.ttest_ind(first, second).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_welch_where_deviations_differ_more_than_threefold():
    first, second = np.array([16.0, 16.01, 16.02]), np.array([15.0, 15.4, 15.8])
    both = [Sample(values.mean(), values.std(ddof=1), 3) for values in (first, second)]
    found = difference(*both, both, 0.95, 3.0)
    expected = stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_variance_is_pooled_over_all_families():
    spread = Spread.pooled([sample(1, 0.1, 3), sample(2, 0.2, 5), Sample.fixed(7.0)])
    assert spread.freedom == 6
    assert spread.variance == pytest.approx((2 * 0.01 + 4 * 0.04) / 6)


def test_replicates_that_are_no_models_are_compared_by_welch_and_not_pooled():
    ours, draws = sample(16.0, 0.1), sample(15.0, 0.2, 5, of_models=False)
    spread = Spread.pooled([ours, draws])
    assert (spread.freedom, spread.variance) == (2, pytest.approx(0.01))
    found = difference(ours, draws, [ours, draws], 0.95, 3.0)
    parts = 0.01 / 3, 0.04 / 5
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / 2 + parts[1] ** 2 / 4)
    half = stats.t.ppf(0.975, freedom) * math.sqrt(sum(parts))
    assert (found.low, found.high) == pytest.approx((1 - half, 1 + half))


def test_values_equal_for_all_seeds_are_no_evidence(rules):
    ours, theirs = sample(0.75, 0.0), sample(0.73, 0.0)
    assert above("A", ours, {"b": theirs}, rules).word is OPEN
    assert above("A", theirs, {"b": ours}, rules).word is OPEN
    assert above("A", ours, {"reference": Sample.fixed(0.5)}, rules).word is OPEN
    assert on_par("x", ours, theirs, rules).word is OPEN
    # The spread of one of the two is evidence, and that of another family is not.
    assert above("A", sample(0.75, 0.001), {"b": theirs}, rules).word is HOLDS
    assert above("A", ours, {"b": theirs, "c": sample(0.1, 0.001)}, rules).word is OPEN


def test_quiet_families_do_not_tell_the_spread_of_a_noisy_one(rules):
    ours, asked = sample(0.6, 0.05), {"asked for": Sample.fixed(0.5)}
    assert above("A", ours, asked, rules).word is OPEN
    for quiet in (sample(0.0, 0.0), sample(0.0, 0.016)):
        found = above("A", ours, asked | {"b": quiet}, rules)
        # ± t(2) · 0.05 / √3, and Welch's form against the quiet one.
        assert "asked for: -0.02 to +0.22" in found.shown
        assert found.word is OPEN
    # Within threefold it does.
    assert above("A", ours, asked | {"b": sample(0.0, 0.017)}, rules).word is HOLDS


def test_a_pair_that_is_quiet_by_chance_does_not_choose_its_pool(rules):
    """Families that are judged with it tell how much a seed changes."""
    ours, rival = sample(16.10, 0.02), sample(16.00, 0.02)
    others = {name: sample(15.0, 0.1) for name in "cdef"}
    assert above("A", ours, {"b": rival}, rules).word is HOLDS
    found = above("A", ours, {"b": rival} | others, rules)
    half = stats.t.ppf(0.975, 12) * math.sqrt((4 * 0.01 + 2 * 0.0004) / 6 * 2 / 3)
    assert f"b: {0.1 - half:+.2f} to {0.1 + half:+.2f}" in found.shown
    assert found.word is OPEN


def test_the_variance_is_pooled_over_all_families_that_the_claim_judges(rules):
    ours, rival = sample(15.2), {"reference": Sample.fixed(15.0)}
    assert above("A", ours, rival, rules).word is OPEN
    assert above("A", ours, rival, rules, judged=[ours, sample(12), sample(13)]).word is HOLDS
    # One that is no evidence tells nothing of the spread.
    few = [ours, sample(12, seeds=2), sample(math.nan), sample(13, epochs=5)]
    assert above("A", ours, rival, rules, judged=few, least_epochs=100).word is OPEN


def test_what_is_missing_is_said(rules):
    lacking = {
        "its value": sample(math.nan, math.nan, 0),
        "seeds (it has 2 of 3)": sample(1.0, seeds=2),
        "a spread": sample(1.0, math.nan),
        "epochs (60 of 100)": sample(1.0, epochs=60),
        "the change of the last doubling of epochs": sample(1.0, change=math.nan),
    }
    for words, found in lacking.items():
        assert found.missing(rules, 100) == words
    assert sample(1.0).missing(rules, 100) is None


@pytest.mark.parametrize(
    # The interval of a difference is ± 0.227 dB for two families of 3 seeds, ± 0.146 dB of 5.
    ("gap", "seeds", "word"),
    [
        (1.0, 2, OPEN), (1.0, 3, HOLDS), (1.0, 5, HOLDS), (-1.0, 2, OPEN), (-1.0, 3, FAILS),
        (0.2, 3, OPEN), (0.2, 5, HOLDS), (-0.2, 3, OPEN), (-0.2, 5, FAILS),
    ],
)  # fmt: skip
def test_a_gap_of_known_size_and_spread(rules, gap, seeds, word):
    found = above("A", sample(16 + gap, 0.1, seeds), {"b": sample(16, 0.1, seeds)}, rules)
    assert found.word is word


def test_more_families_tell_the_spread_better(rules):
    ours, near = sample(16.2), sample(16.0)
    assert above("A", ours, {"b": near}, rules).word is OPEN
    rivals = {"b": near, "c": sample(12), "d": sample(12), "e": sample(12), "f": sample(12)}
    assert above("A", ours, rivals, rules).word is HOLDS


def test_refutation_is_corrected_for_the_number_of_rivals(rules):
    # Alone, or among rivals whose spread would tell no more.
    assert above("A", sample(16), {"b": sample(16.25)}, rules).word is FAILS
    assert above("A", sample(16), {"b": sample(16.25)}, rules, comparisons=5).word is OPEN
    assert above("A", sample(16), {"b": sample(17)}, rules, comparisons=5).word is FAILS
    # Two families of 3 seeds, judged on their own spread in either case.
    pair = [sample(16), sample(16.25)]
    many = {"b": pair[1]} | {name: Sample.fixed(12.0) for name in "cdef"}
    assert above("A", pair[0], many, rules, judged=pair).word is OPEN


def test_one_rival_with_evidence_refutes_and_one_without_decides_nothing(rules):
    good, better = sample(15), sample(18)
    two_seeds = sample(18, 0.1, 2)
    one_seed = sample(18, math.nan, 1)
    absent = sample(math.nan, math.nan, 0)
    for lacking in (two_seeds, one_seed, absent):
        found = above("A", sample(16), {"b": good, "c": lacking}, rules)
        assert found.word is OPEN
        assert "c: missing" in found.shown
        assert above("A", sample(16), {"b": better, "c": lacking}, rules).word is FAILS
        assert above("A", lacking, {"b": good}, rules).word is OPEN


def test_short_training_decides_nothing(rules):
    ours, theirs = sample(17, epochs=100), sample(16, epochs=5)
    assert above("A", ours, {"b": theirs}, rules, least_epochs=100).word is OPEN
    assert above("A", ours, {"b": theirs}, rules, least_epochs=5).word is HOLDS
    unknown = sample(16, epochs=math.nan)
    assert above("A", ours, {"b": unknown}, rules, least_epochs=100).word is OPEN
    assert "100 epochs" in above("A", ours, {"b": theirs}, rules).shown


@pytest.mark.parametrize(("change", "word"), [(0.1, HOLDS), (0.9, OPEN), (math.nan, OPEN)])
def test_what_the_last_doubling_changed_must_not_turn_the_verdict(rules, change, word):
    assert above("A", sample(17, change=change), {"b": sample(16)}, rules).word is word
    assert above("A", sample(16), {"b": sample(17, change=change)}, rules).word is (
        FAILS if word is HOLDS else OPEN
    )
    # What both gain alike leaves the gap as it is.
    both = above("A", sample(17, change=change), {"b": sample(16, change=change)}, rules)
    assert both.word is (OPEN if math.isnan(change) else HOLDS)


@pytest.mark.parametrize(
    ("gap", "deviation", "word"),
    [(0.1, 0.1, HOLDS), (-0.3, 0.1, HOLDS), (0.4, 0.1, OPEN), (0.1, 0.4, OPEN), (0.9, 0.1, FAILS),
     (-0.9, 0.1, FAILS), (0.6, 0.1, OPEN)],
)  # fmt: skip
def test_equivalence(rules, gap, deviation, word):
    # ± 0.174 dB at 90 %, ± 0.227 dB at 95 %, for a deviation of 0.1 dB.
    both = [sample(16 + gap, deviation), sample(16, deviation)]
    found = on_par("VDL and SDL", *both, rules)
    assert found.word is word
    if (gap, deviation) == (0.9, 0.1):
        assert found.shown.endswith(": +0.73 to +1.07 dB at 90 %, +0.67 to +1.13 dB at 95 %")


def test_equivalence_wants_the_same_evidence(rules):
    near, few = sample(16.0), sample(16.0, 0.1, 2)
    assert on_par("x", near, few, rules).word is OPEN
    moving = sample(16.0, change=0.4)
    assert on_par("x", near, moving, rules).word is OPEN
    assert on_par("x", moving, moving, rules).word is HOLDS
    early = sample(16.0, epochs=5)
    assert on_par("x", near, early, rules, least_epochs=100).word is OPEN


def test_references_have_no_spread(rules):
    reference = Sample.fixed(15.0)
    assert above("A", sample(16), {"reference": reference}, rules).word is HOLDS
    assert above("A", sample(14), {"reference": reference}, rules).word is FAILS
    # ± 0.248 dB: three seeds alone have two degrees of freedom.
    assert above("A", sample(15.2), {"reference": reference}, rules).word is OPEN
