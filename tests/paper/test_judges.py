"""Judges of the paper's claims, each on made-up tables with known answers."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from sparse_lightning.paper.judges import (
    ablation,
    denoising,
    features,
    filters,
    low_data,
    regret,
    settings,
)
from sparse_lightning.paper.judges.evidence import over_seeds
from sparse_lightning.paper.statistics import Rules
from sparse_lightning.paper.verdicts import Finding, Word
from sparse_lightning.studies.low_data import AUTHORS, UNVALIDATED, VALIDATED
from sparse_lightning.studies.study_result import StudyResult

HOLDS, FAILS, OPEN = Word.HOLDS, Word.FAILS, Word.OPEN
MNIST = pd.DataFrame({"data": ["MNIST"]})
OTHERS = {"sdl": 16.0, "vdl": 16.1, "wdl": 15.0, "sdl_nl": 16.2, "wdl_nl": 15.5}


@pytest.fixture(scope="module")
def rules(rules: Rules) -> Rules:
    """With the two λ of `atoms` as the ends of every family."""
    ends = dict.fromkeys([*OTHERS, "vdl_nl"], (0.005, 0.02))
    return dataclasses.replace(rules, ends_of_weights={"MNIST": ends})


def at_zeros(**families: float) -> StudyResult:
    rows = [
        {"zeros": zeros, "family": family, "psnr": psnr, "std": 0.1, "seeds": 3, "curves": 3,
         "epochs": 100, "change": 0.02}
        for family, psnr in families.items()
        for zeros in (0.9, 0.95)
    ]  # fmt: skip
    return StudyResult(MNIST, {"at_zeros": pd.DataFrame(rows)})


def changed(result: StudyResult, family: str, zeros: float, **values: float) -> StudyResult:
    table = result.more["at_zeros"].copy()
    row = (table["family"] == family) & (table["zeros"] == zeros)
    for name, value in values.items():
        table[name] = table[name].astype(float)
        table.loc[row, name] = value
    return StudyResult(result.table, {"at_zeros": table})


def test_reconstructs_best(rules):
    better = regret.reconstructs_best(at_zeros(vdl_nl=17.0, **OTHERS), rules)
    assert better.word is HOLDS
    assert "17.00 ± 0.10 dB (3 seeds, 100 epochs)" in better.shown
    assert regret.reconstructs_best(at_zeros(vdl_nl=16.3, **OTHERS), rules).word is OPEN
    assert regret.reconstructs_best(at_zeros(vdl_nl=15.0, **OTHERS), rules).word is FAILS
    assert regret.reconstructs_best(at_zeros(**OTHERS), rules).word is OPEN
    without_one = {family: psnr for family, psnr in OTHERS.items() if family != "wdl"}
    lacking = regret.reconstructs_best(at_zeros(vdl_nl=17.0, **without_one), rules)
    assert lacking.word is OPEN
    assert "wdl: missing its value" in lacking.shown


def test_a_family_is_no_evidence_where_the_curve_of_a_seed_does_not_reach(rules):
    whole = at_zeros(vdl_nl=17.0, **OTHERS)
    found = regret.reconstructs_best(changed(whole, "sdl", 0.95, curves=5), rules)
    assert found.word is OPEN
    assert "sdl: missing curves that reach (3 of 5)" in found.shown


def test_families_of_other_solvers_are_compared_after_a_control_alone(rules):
    solvers = dict.fromkeys([*OTHERS, "vdl_nl"], "FISTA") | {"sdl_nl": "Adaptive"}
    table = pd.DataFrame({"family": solvers.keys(), "solver": solvers.values()})
    result = StudyResult(table.assign(data="MNIST"), at_zeros(vdl_nl=17.0, **OTHERS).more)
    found = regret.reconstructs_best(result, rules)
    assert found.word is OPEN
    assert "sdl_nl: missing a control of the solvers Adaptive and FISTA" in found.shown
    controlled = dataclasses.replace(rules, alike_solvers=["FISTA", "Adaptive"])
    assert regret.reconstructs_best(result, controlled).word is HOLDS
    # Other rivals refute as before.
    worse = StudyResult(result.table, at_zeros(vdl_nl=14.0, **OTHERS).more)
    assert regret.reconstructs_best(worse, rules).word is FAILS
    result.table["solver"] = result.table["solver"].where(result.table["family"] != "sdl", "ISTA")
    assert regret.linear_on_par(result, rules).word is OPEN


def test_a_family_whose_weights_differ_in_solver_is_no_evidence(rules):
    table = pd.DataFrame(
        {"family": ["sdl", "vdl", "vdl"], "solver": ["FISTA", "Adaptive", "FISTA"]}
    )
    result = StudyResult(table.assign(data="MNIST"), at_zeros(vdl=16.1, sdl=16.0).more)
    assert regret.linear_on_par(result, rules).word is OPEN
    rules = dataclasses.replace(rules, families_with_strokes=["sdl"])
    summary = atoms(mean_extent=(0.3, 0.6), median_likeness=(0.6, 0.8)).more["summary"]
    for large, word in (("FISTA", HOLDS), ("Adaptive", OPEN)):
        solvers = np.where(summary["sparsity_weight"] == 0.02, large, "FISTA")
        grown = StudyResult(MNIST, {"summary": summary.assign(solver=solvers)})
        assert features.atoms_grow(grown, rules).word is word


def test_what_was_not_measured_leaves_a_claim_open(rules):
    rows = at_zeros(vdl=16.1, sdl=16.0).more["at_zeros"].rename(columns={"psnr": "r2"})
    assert regret.linear_on_par(StudyResult(MNIST, {"at_zeros": rows}), rules).word is OPEN
    without = atoms(median_mean_frequency=(0.3, 0.2))
    assert "study.compute.gabors" in features.atoms_are_gabors(without, rules).shown


def test_codes_by_inference_stand_apart(rules):
    with_them = at_zeros(vdl_nl=17.0, do=18.0, do_nl=19.0, **OTHERS)
    assert regret.reconstructs_best(with_them, rules).word is HOLDS
    assert regret.reconstructs_best(with_them, rules, by_inference=True).word is FAILS
    worse = at_zeros(vdl_nl=17.0, do=15.0, do_nl=16.0, **OTHERS)
    assert regret.reconstructs_best(worse, rules, by_inference=True).word is HOLDS
    # One seed of DO refutes nothing.
    one_seed = with_them
    for zeros in (0.9, 0.95):
        for family in ("do", "do_nl"):
            one_seed = changed(one_seed, family, zeros, seeds=1, std=math.nan)
    assert regret.reconstructs_best(one_seed, rules, by_inference=True).word is OPEN


@pytest.mark.parametrize(("psnr", "word"), [(17.0, OPEN), (14.0, FAILS)])
def test_half_of_the_evidence_refutes_and_does_not_confirm(rules, psnr, word):
    half = changed(at_zeros(vdl_nl=psnr, **OTHERS), "vdl_nl", 0.95, psnr=math.nan, seeds=0)
    found = regret.reconstructs_best(half, rules)
    assert found.word is word
    assert "VDL-NL at 95 % zeros: missing curves that reach (0 of 3)" in found.shown


@pytest.mark.parametrize(
    "lack", [{"seeds": 2}, {"epochs": 50}, {"epochs": math.nan}, {"change": 0.9}]
)
def test_incomplete_evidence_leaves_the_claim_open(rules, lack):
    whole = at_zeros(vdl_nl=17.0, **OTHERS)
    assert regret.reconstructs_best(changed(whole, "vdl_nl", 0.9, **lack), rules).word is OPEN
    assert regret.reconstructs_best(changed(whole, "sdl_nl", 0.9, **lack), rules).word is OPEN


@pytest.mark.parametrize(
    ("title", "word"),
    [("my rows", HOLDS), ("MNIST", OPEN), ("natural image patches (val2017)", OPEN),
     ("sample photographs (not ImageNet)", OPEN)],
)  # fmt: skip
def test_data_have_a_least_number_of_epochs_by_how_their_title_begins(rules, title, word):
    short = changed(at_zeros(vdl_nl=17.0, **OTHERS), "vdl_nl", 0.9, epochs=20)
    result = StudyResult(pd.DataFrame({"data": [title]}), short.more)
    assert regret.reconstructs_best(result, rules).word is word


def test_on_par_within_half_a_decibel(rules):
    assert regret.linear_on_par(at_zeros(vdl=16.2, sdl=16.0), rules).word is HOLDS
    assert regret.linear_on_par(at_zeros(vdl=15.0, sdl=16.0), rules).word is FAILS
    assert regret.linear_on_par(at_zeros(vdl=15.5, sdl=16.0), rules).word is OPEN
    assert regret.linear_on_par(at_zeros(vdl=15.4), rules).word is OPEN
    half = changed(at_zeros(vdl=16.2, sdl=16.0), "sdl", 0.95, psnr=math.nan)
    assert regret.linear_on_par(half, rules).word is OPEN
    # Families that the claim is not about tell nothing of the spread.
    two = regret.linear_on_par(at_zeros(vdl=16.34, sdl=16.0), rules)
    all_families = regret.linear_on_par(at_zeros(vdl_nl=17.0, **OTHERS | {"vdl": 16.34}), rules)
    assert two == all_families


CANDIDATES = ["sdl", "vdl", "wdl", "sdl_nl", "vdl_nl", "wdl_nl"]


def denoised(psnr: float, seeds: int = 3, **references: float) -> StudyResult:
    """VDL-NL is the best family, by 1 dB."""
    best = pd.DataFrame(
        {"noise": 1.0, "family": CANDIDATES, "psnr_denoised": psnr,
         "psnr_denoised_val": psnr, "psnr_denoised_std": 0.1, "seeds": seeds, "epochs": 100,
         "change": 0.05}
    )  # fmt: skip
    best.loc[best["family"] == "vdl_nl", ["psnr_denoised", "psnr_denoised_val"]] += 1
    values = {"clipped noisy": 13.0, "zero code": 10.0, "PCA-Wiener": 19.0} | references
    references = pd.DataFrame(
        {"noise": 1.0, "reference": values.keys(), "psnr_denoised": values.values()}
    )
    baselines = pd.DataFrame({"noise": [1.0], "baseline": ["wavelet"], "psnr_denoised": [15.5]})
    return StudyResult(MNIST, {"best": best, "baselines": baselines, "references": references})


def test_denoising_is_judged_against_clipped_noise_and_the_zero_code(rules):
    assert denoising.denoises(denoised(15.0), rules).word is HOLDS
    assert denoising.denoises(denoised(12.0), rules).word is FAILS
    assert denoising.denoises(denoised(15.0, **{"zero code": 16.5}), rules).word is FAILS
    assert denoising.denoises(denoised(15.0, seeds=2), rules).word is OPEN
    alone = denoised(15.0)
    best = alone.more["best"]
    alone = StudyResult(MNIST, {**alone.more, "best": best[best["family"] != "vdl_nl"]})
    assert denoising.denoises(alone, rules).word is OPEN


def test_references_are_compared_with_the_spread_of_all_families_of_the_claim(rules):
    # Two families of three seeds: ± t(4) · 0.1 / √3.
    found = denoising.denoises(denoised(15.0), rules)
    half = stats.t.ppf(0.975, 4) * 0.1 / math.sqrt(3)
    assert f"clipped noisy: {2 - half:+.2f} to {2 + half:+.2f} dB" in found.shown
    # Six of them.
    found = denoising.beats_wiener(denoised(15.0), rules)
    half = stats.t.ppf(0.975, 12) * 0.1 / math.sqrt(3)
    assert f"PCA-Wiener: {-3 - half:+.2f} to {-3 + half:+.2f} dB" in found.shown


def test_other_denoisers_are_claims_of_their_own(rules):
    result = denoised(15.0)
    assert denoising.beats_classical_denoisers(result, rules).word is HOLDS
    assert denoising.beats_classical_denoisers(denoised(14.6), rules).word is OPEN
    assert denoising.beats_classical_denoisers(denoised(13.0), rules).word is FAILS
    assert denoising.beats_wiener(result, rules).word is FAILS
    assert denoising.beats_wiener(denoised(19.0), rules).word is HOLDS
    best = result.more["best"]
    without = StudyResult(MNIST, {**result.more, "best": best[best["family"] != "wdl_nl"]})
    assert denoising.beats_classical_denoisers(without, rules).word is HOLDS
    open_now = denoising.beats_wiener(without, rules)
    assert open_now.word is OPEN
    assert open_now.shown.endswith("; wdl_nl: missing")
    # One seed of a family is no evidence, and refutes no more than none.
    one_seed = best.assign(seeds=np.where(best["family"] == "wdl_nl", 1, 3))
    lacking = StudyResult(MNIST, {**result.more, "best": one_seed})
    assert denoising.beats_wiener(lacking, rules).word is OPEN
    assert denoising.beats_wiener(denoised(15.0, seeds=1), rules).word is OPEN


def test_the_best_denoiser_is_chosen_by_validation_images(rules):
    result = denoised(15.0)
    best = result.more["best"].copy()
    # Better on test images than VDL-NL, which is best on validation images.
    best.loc[best["family"] == "sdl", "psnr_denoised"] = 17.0
    found = denoising.beats_classical_denoisers(
        StudyResult(MNIST, {**result.more, "best": best}), rules
    )
    assert found.shown.startswith("vdl_nl at σ = 1 16.00")
    # Without evidence it is not chosen.
    best.loc[best["family"] == "vdl_nl", "seeds"] = 1
    best.loc[best["family"] == "wdl", "psnr_denoised_val"] = 15.5
    found = denoising.beats_classical_denoisers(
        StudyResult(MNIST, {**result.more, "best": best}), rules
    )
    assert found.shown.startswith("wdl at σ = 1 15.00")


def classified(
    ours: float, lista_std: float = 0.005, change: float = 0.0, **more: float
) -> StudyResult:
    spread = {"linear on raw": math.nan, "LISTA + linear on raw": lista_std}
    errors = {"vdl_nl": ours, "sdl": 0.4, "vdl": 0.42, "sdl_nl": 0.41, "linear on raw": 0.5,
              "LISTA + linear on raw": 0.5} | more  # fmt: skip
    rows = [
        {"arm": arm, "method": method, "labels_per_class": str(count), "top1": error,
         "top1_std": spread.get(method, 0.005), "epochs": 100,
         "change": change if method == "vdl_nl" else 0.0,
         "model_seeds": math.inf if method == "linear on raw" else 3}
        for arm, method, error in (
            *((VALIDATED, *item) for item in errors.items()),
            # What is best with validation labels is not without them.
            *((UNVALIDATED, method, 0.9 - error) for method, error in errors.items()
              if method != "LISTA + linear on raw"),
        )
        for count in (1, 2, 5, 10)
    ]  # fmt: skip
    return StudyResult(MNIST, {"summary": pd.DataFrame(rows)})


@pytest.mark.parametrize(
    ("judge", "result", "families"),
    [
        (low_data.classifies_best, classified(0.3), ["vdl_nl", "sdl", "vdl", "sdl_nl"]),
        (low_data.codes_beat_pixels, classified(0.3, do=0.3, do_nl=0.3),
         ["vdl_nl", "sdl", "vdl", "sdl_nl", "do", "do_nl"]),
        (denoising.denoises, denoised(15.0), CANDIDATES),
    ],
)  # fmt: skip
def test_other_studies_know_what_trained_a_family(rules, judge, result, families):
    """By one solver a family is evidence; by two, which its λ mix, it is none."""
    rules = dataclasses.replace(rules, labels_with_codes=[1, 2, 5, 10], least_weights=1)
    rows = [
        {"family": family, "sparsity_weight": weight, "seed": seed, "data": "MNIST",
         "solver": solver}
        for family in families
        for weight, solver in enumerate(("FISTA", "Adaptive"))
        for seed in range(3)
    ]  # fmt: skip
    by_two = pd.DataFrame(rows)
    by_one = by_two.assign(solver="FISTA")
    assert judge(StudyResult(by_one, result.more), rules).word is HOLDS
    assert judge(StudyResult(by_two, result.more), rules).word is OPEN


def test_validation_must_have_weights_to_choose_from(rules):
    """VDL-NL with two of three λ is no evidence, but where λ is chosen by its share of zeros."""

    def with_weights(result: StudyResult, count: int) -> StudyResult:
        rows = [
            {"data": "MNIST", "family": family, "solver": "FISTA", "sparsity_weight": weight,
             "seed": seed}
            for family in ("sdl", "vdl", "vdl_nl")
            for weight in range(3)
            # Of λ that a sweep has begun with one seed is there.
            for seed in range(3 if weight < count or family != "vdl_nl" else 1)
        ]  # fmt: skip
        return StudyResult(pd.DataFrame(rows), result.more)

    for count, word in ((3, HOLDS), (2, OPEN)):
        found = low_data.classifies_best(with_weights(classified(0.3), count), rules)
        assert found.word is word
        assert denoising.denoises(with_weights(denoised(15.0), count), rules).word is word
    assert "λ to choose from" in found.shown
    unvalidated = with_weights(classified(0.6), 2)
    assert low_data.classifies_best(unvalidated, rules, arm=UNVALIDATED).word is HOLDS


def test_classifies_best_at_every_small_count(rules):
    assert low_data.classifies_best(classified(0.3), rules).word is HOLDS
    assert low_data.classifies_best(classified(0.395), rules).word is OPEN
    # By 10 % ahead, which the last half of the epochs brought, or nobody knows.
    assert low_data.classifies_best(classified(0.3, change=-0.01), rules).word is HOLDS
    assert low_data.classifies_best(classified(0.3, change=-0.12), rules).word is OPEN
    assert low_data.classifies_best(classified(0.3, change=math.nan), rules).word is OPEN
    assert low_data.classifies_best(classified(0.5), rules).word is FAILS
    inferred = {"do": 0.2, "do_nl": 0.25}
    assert low_data.classifies_best(classified(0.3, **inferred), rules).word is HOLDS
    apart = low_data.classifies_best(classified(0.3, **inferred), rules, by_inference=True)
    assert apart.word is FAILS
    assert low_data.classifies_best(classified(0.3), rules, arm=UNVALIDATED).word is FAILS
    assert low_data.classifies_best(classified(0.6), rules, arm=UNVALIDATED).word is HOLDS
    assert low_data.classifies_best(classified(0.3), rules, arm=AUTHORS).word is OPEN
    few = classified(0.3).more["summary"].query("labels_per_class == '1'")
    assert low_data.classifies_best(StudyResult(MNIST, {"summary": few}), rules).word is OPEN


def test_draws_of_labels_do_not_widen_the_intervals_of_families(rules):
    # LISTA's replicates are draws of labels, which differ more than seeds of a model.
    found = low_data.classifies_best(classified(0.3, lista_std=0.012), rules).shown
    # Four families of three seeds: ± t(8) · 0.5 · √(2/3).
    assert "sdl: +9.06 to +10.94 % right" in found
    welch = stats.t.ppf(0.975, (0.25 + 1.44) ** 2 * 2 / (0.25**2 + 1.44**2)) * math.sqrt(1.69 / 3)
    assert f"LISTA + linear on raw: {20 - welch:+.2f} to {20 + welch:+.2f} % right" in found


def test_codes_beat_pixels_but_for_what_is_excepted(rules):
    rules = dataclasses.replace(rules, labels_with_codes=[1, 2, 5, 10])
    families = {"do": 0.45, "do_nl": 0.45}
    assert low_data.codes_beat_pixels(classified(0.4, **families), rules).word is HOLDS
    assert low_data.codes_beat_pixels(classified(0.4), rules).word is OPEN, "DO is missing"
    worse = classified(0.4, **families | {"vdl": 0.6})
    assert low_data.codes_beat_pixels(worse, rules).word is FAILS
    # SDL, DO and DO-NL may be worse at 1 and 2 labels, and not at 5.
    few = classified(0.4, **families | {"sdl": 0.6})
    summary = few.more["summary"]
    many = (summary["method"] == "sdl") & (summary["labels_per_class"].astype(int) > 2)
    assert low_data.codes_beat_pixels(few, rules).word is FAILS
    summary.loc[many, "top1"] = 0.4
    assert low_data.codes_beat_pixels(few, rules).word is HOLDS
    # Six families of three seeds, at 5 labels: ± t(12) · 0.5 / √3.
    half = stats.t.ppf(0.975, 12) * 0.5 / math.sqrt(3)
    shown = low_data.codes_beat_pixels(few, rules).shown
    assert "do_nl with 5 per class 55.00 ± 0.50 % right (3 seeds, 100 epochs)" in shown
    assert f"linear on raw: {5 - half:+.2f} to {5 + half:+.2f} % right" in shown


def history(kind: str, fall: float, *growth: float, epochs: int = 100) -> pd.DataFrame:
    names = ["column_norm"] if len(growth) == 1 else ["column_norm_1", "column_norm_2"]
    return pd.DataFrame(
        [
            {"family": kind, "sparsity_weight": 0.02, "seed": seed, "epochs": epochs,
             "code_l1": fall * noise, **{name: g / noise for name, g in zip(names, growth)}}
            for seed, noise in enumerate((0.98, 1.0, 1.02))
        ]
    )  # fmt: skip


def collapse(*changed_rows: pd.DataFrame) -> StudyResult:
    whole = [
        history("none", 0.1, 8.0),
        history("none_nl", 0.1, 4.0, 3.0),
        history("sdl", 0.9, 1.0),
        history("vdl", 1.2, 1.5),
        history("sdl_nl", 0.9, 1.0, 1.0),
        history("vdl_nl", 1.1, 1.3, 1.2),
    ]
    of_family = {rows["family"].iloc[0]: rows for rows in (*whole, *changed_rows)}
    return StudyResult(MNIST, {"change": pd.concat(of_family.values(), ignore_index=True)})


def test_collapse_needs_shrinking_codes_and_each_layer_growing(rules):
    assert ablation.collapses(collapse(), rules).word is HOLDS
    assert ablation.collapses(collapse(history("none", 1.5, 8.0)), rules).word is FAILS
    # The first layer alone must not carry the second.
    assert ablation.collapses(collapse(history("none_nl", 0.1, 9.0, 0.7)), rules).word is FAILS
    # VDL's columns grow as much.
    assert ablation.collapses(collapse(history("vdl", 1.2, 12.0)), rules).word is FAILS


def test_collapse_is_compared_at_equal_weights_and_by_one_solver(rules):
    change = collapse().more["change"]
    # At another λ a rival's columns grow more.
    other = history("vdl", 0.05, 20.0).assign(sparsity_weight=0.1)
    both = StudyResult(MNIST, {"change": pd.concat([change, other])})
    assert ablation.collapses(both, rules).word is HOLDS
    solvers = pd.DataFrame({"data": "MNIST", "family": change["family"], "solver": "FISTA"})
    assert ablation.collapses(StudyResult(solvers, both.more), rules).word is HOLDS
    solvers.loc[solvers["family"] == "sdl", "solver"] = "Adaptive"
    found = ablation.collapses(StudyResult(solvers, both.more), rules)
    assert found.word is OPEN
    assert "sdl: missing a control of the solvers Adaptive and FISTA" in found.shown


def test_one_short_seed_leaves_a_collapse_open(rules):
    change = collapse().more["change"]
    is_short = (change["family"] == "none") & (change["seed"] == 1)
    short = change.assign(epochs=np.where(is_short, 30, 100))
    assert ablation.collapses(StudyResult(MNIST, {"change": short}), rules).word is OPEN


@pytest.mark.parametrize("family", ["none", "none_nl", "sdl", "vdl_nl"])
def test_collapse_is_open_without_a_family_and_with_few_epochs(rules, family):
    change = collapse().more["change"]
    lacking = StudyResult(MNIST, {"change": change[change["family"] != family]})
    assert ablation.collapses(lacking, rules).word is OPEN
    short = change.assign(epochs=np.where(change["family"] == family, 30, 100))
    assert ablation.collapses(StudyResult(MNIST, {"change": short}), rules).word is OPEN


def atoms(
    family: str = "sdl", epochs: int = 100, weights=(0.005, 0.02), change: float = 0.0,
    **columns: tuple[float, ...],
) -> StudyResult:  # fmt: skip
    rows = [
        {"family": family, "sparsity_weight": weight, "seed": seed, "epochs": epochs,
         **{name: values[i] + (0.01 + 0.001 * i) * seed for name, values in columns.items()},
         **{f"change_{name}": change for name in columns}}
        for i, weight in enumerate(weights)
        for seed in range(3)
    ]  # fmt: skip
    return StudyResult(MNIST, {"summary": pd.DataFrame(rows)})


def test_atoms_grow_in_extent_and_in_likeness(rules):
    every = atoms(mean_extent=(0.3, 0.6), median_likeness=(0.6, 0.8))
    assert features.atoms_grow(every, rules).word is OPEN, "other families are missing"
    rules = dataclasses.replace(rules, families_with_strokes=["sdl"])
    grown = atoms(mean_extent=(0.3, 0.6), median_likeness=(0.6, 0.8))
    assert features.atoms_grow(grown, rules).word is HOLDS
    # Atoms that still move by as much may come to the other word; nothing known, they may as well.
    for change in (5.0, math.nan):
        moving = atoms(mean_extent=(0.3, 0.6), median_likeness=(0.6, 0.8), change=change)
        assert features.atoms_grow(moving, rules).word is OPEN
    # By less than the factor asked for.
    small = atoms(mean_extent=(0.3, 0.31), median_likeness=(0.6, 0.8))
    assert features.atoms_grow(small, rules).word is FAILS
    unlike = atoms(mean_extent=(0.3, 0.6), median_likeness=(0.6, 0.5))
    assert features.atoms_grow(unlike, rules).word is FAILS
    one = StudyResult(MNIST, {"summary": grown.more["summary"].query("sparsity_weight < 0.01")})
    assert features.atoms_grow(one, rules).word is OPEN
    one_seed = StudyResult(MNIST, {"summary": grown.more["summary"].query("seed == 0")})
    assert features.atoms_grow(one_seed, rules).word is OPEN
    # Stopped early.
    short = atoms(epochs=60, mean_extent=(0.3, 0.6), median_likeness=(0.6, 0.8))
    assert features.atoms_grow(short, rules).word is OPEN
    # Two parts of one claim share the error of a refutation.
    two, one = (dataclasses.replace(rules, families_with_strokes=own) for own in (
        ["sdl", "vdl"], ["sdl"]))  # fmt: skip
    smaller = atoms(mean_extent=(0.5, 0.568), median_likeness=(0.6, 0.8))
    assert features.atoms_grow(smaller, one).word is FAILS
    assert features.atoms_grow(smaller, two).word is OPEN


@pytest.mark.parametrize(
    "lack", [{"epochs": 60}, {"epochs": math.nan}, {"change_mean_extent": math.nan}]
)
def test_one_seed_without_evidence_leaves_atoms_open(rules, lack):
    rules = dataclasses.replace(rules, families_with_strokes=["sdl"])
    whole = atoms(mean_extent=(0.3, 0.6), median_likeness=(0.6, 0.8)).more["summary"]
    for seed in range(3):
        spoiled = whole.astype({"epochs": float})
        for name, value in lack.items():
            spoiled.loc[spoiled["seed"] == seed, name] = value
        assert features.atoms_grow(StudyResult(MNIST, {"summary": spoiled}), rules).word is OPEN


def test_atoms_are_judged_at_the_weights_that_were_named(rules):
    """What is finished so far may have other ends."""
    rules = dataclasses.replace(rules, families_with_strokes=["sdl"])
    so_far = atoms(weights=(0.01, 0.02), mean_extent=(0.59, 0.6), median_likeness=(0.6, 0.8))
    found = features.atoms_grow(so_far, rules)
    assert (found.word, found.shown) == (OPEN, "sdl: missing λ = 0.005")
    small = atoms(weights=(0.005,), mean_extent=(0.3,), median_likeness=(0.6,))
    both = pd.concat([so_far.more["summary"], small.more["summary"]])
    assert features.atoms_grow(StudyResult(MNIST, {"summary": both}), rules).word is HOLDS
    unnamed = dataclasses.replace(rules, ends_of_weights={})
    assert features.atoms_grow(so_far, unnamed).word is OPEN


def test_atoms_are_gabors_more_often_than_scrambled_ones(rules):
    every = atoms(gabor_like=(0.8, 0.7), gabor_like_scrambled=(0.1, 0.05))
    assert features.atoms_are_gabors(every, rules).word is OPEN, "other families are missing"
    rules = dataclasses.replace(rules, families_with_strokes=["sdl"])
    many = atoms(gabor_like=(0.8, 0.7), gabor_like_scrambled=(0.1, 0.05))
    assert features.atoms_are_gabors(many, rules).word is HOLDS
    few = atoms(gabor_like=(0.8, 0.4), gabor_like_scrambled=(0.1, 0.05))
    assert features.atoms_are_gabors(few, rules).word is FAILS
    by_chance = atoms(gabor_like=(0.8, 0.7), gabor_like_scrambled=(0.1, 0.8))
    assert features.atoms_are_gabors(by_chance, rules).word is FAILS
    # Without a penalty nothing is claimed.
    dense = atoms(
        weights=(0.0, 0.005, 0.02),
        gabor_like=(0.1, 0.7, 0.7),
        gabor_like_scrambled=(0.1, 0.05, 0.05),
    )
    assert features.atoms_are_gabors(dense, rules).word is HOLDS
    one = StudyResult(MNIST, {"summary": many.more["summary"].query("sparsity_weight < 0.01")})
    found = features.atoms_are_gabors(one, rules)
    assert (found.word, "missing λ = 0.02" in found.shown) == (OPEN, True)


def test_atoms_are_finer_at_small_weights(rules):
    rules = dataclasses.replace(rules, families_with_strokes=["sdl"])
    finer = atoms(median_mean_frequency=(0.3, 0.2))
    assert features.atoms_are_finer_at_small_weights(finer, rules).word is HOLDS
    coarser = atoms(median_mean_frequency=(0.2, 0.3))
    assert features.atoms_are_finer_at_small_weights(coarser, rules).word is FAILS


def test_models_without_a_penalty_are_no_end_of_lambda(rules):
    rules = dataclasses.replace(rules, families_with_strokes=["sdl"])
    columns = {
        "mean_extent": (0.3, 0.6), "median_likeness": (0.6, 0.8),
        "median_mean_frequency": (0.3, 0.2), "noise": (0.3, 0.4),
    }  # fmt: skip
    dense = atoms(weights=(0.0, 0.02), **columns)
    assert features.atoms_grow(dense, rules).word is OPEN
    assert features.atoms_are_finer_at_small_weights(dense, rules).word is OPEN
    dense = atoms("wdl", weights=(0.0, 0.02), **columns)
    assert filters.filters_are_noisier(dense, rules).shown == "wdl: missing λ = 0.005"


def test_seeds_that_are_equal_but_for_rounding_tell_nothing_of_their_spread():
    values = pd.Series([0.1] * 3)
    assert over_seeds(values, 100).deviation == 0
    assert over_seeds(pd.Series([0.3, 0.1 + 0.2, 0.3]), 100).deviation == 0
    assert over_seeds(pd.Series([0.3, 0.3 + 1e-6, 0.3]), 100).deviation > 0
    assert math.isnan(over_seeds(values[:1], 100).deviation)


def filters_of(wdl: tuple[float, float], rival: tuple[float, float]) -> StudyResult:
    tables = [
        atoms(family, noise=values).more["summary"]
        for family, values in {"wdl": wdl, "sdl": rival, "vdl": rival}.items()
    ]
    return StudyResult(MNIST, {"summary": pd.concat(tables)})


def test_filters_are_noisier_and_the_more_so_at_large_weights(rules):
    assert filters.filters_are_noisier(filters_of((0.3, 0.4), (0.2, 0.25)), rules).word is HOLDS
    # Noisier at both ends, and not the more so.
    assert filters.filters_are_noisier(filters_of((0.3, 0.3), (0.2, 0.25)), rules).word is FAILS
    assert filters.filters_are_noisier(filters_of((0.2, 0.4), (0.3, 0.35)), rules).word is FAILS
    in_use = filters_of((0.3, 0.4), (0.2, 0.25))
    for name in ("noise", "change_noise"):
        in_use.more["summary"][name.replace("noise", "noise_in_use")] = math.nan
    assert filters.filters_are_noisier(in_use, rules, "noise_in_use").word is OPEN
    alone = atoms("wdl", noise=(0.3, 0.4))
    assert filters.filters_are_noisier(alone, rules).word is OPEN


def test_filters_are_compared_at_equal_weights(rules):
    """A rival that is trained at far smaller λ as well is taken where WDL is."""
    ends = {"MNIST": {"wdl": (0.01, 0.02)}}
    rules = dataclasses.replace(rules, ends_of_weights=ends)
    tables = [atoms("wdl", weights=(0.01, 0.02), noise=(0.3, 0.4))]
    for rival in ("sdl", "vdl"):
        tables += [
            atoms(rival, weights=(0.001, 0.02), noise=(0.9, 0.25)),
            atoms(rival, weights=(0.012, 0.1), noise=(0.2, 0.1)),
        ]
    summary = pd.concat([result.more["summary"] for result in tables])
    result = StudyResult(MNIST, {"summary": summary})
    assert filters.filters_are_noisier(result, rules).word is HOLDS
    far = summary[summary["sparsity_weight"] != 0.012]
    found = filters.filters_are_noisier(StudyResult(MNIST, {"summary": far}), rules)
    assert found.word is OPEN
    assert "missing its value" in found.shown


def test_filters_grow_faster_per_unit_of_the_logarithm(rules):
    """WDL gains more than its rivals only since its two λ are further apart."""
    ends = {"MNIST": {"wdl": (0.01, 0.02)}}
    rules = dataclasses.replace(rules, ends_of_weights=ends)
    tables = [atoms("wdl", weights=(0.01, 0.02), noise=(0.5, 0.57))]
    for rival in ("sdl", "vdl"):
        tables.append(atoms(rival, weights=(0.014, 0.02), noise=(0.3, 0.36)))
    summary = pd.concat([result.more["summary"] for result in tables])
    found = filters.filters_are_noisier(StudyResult(MNIST, {"summary": summary}), rules)
    assert found.word is FAILS
    assert f"{0.07 / math.log(2):.2f}" in found.shown


def noise_at_two_weights(large: float = 0.4) -> pd.DataFrame:
    """WDL at λ = 0.01 and 0.02, and rivals which are far less noisy."""
    tables = [atoms("wdl", weights=(0.01, 0.02), noise=(0.3, large))]
    for rival in ("sdl", "vdl"):
        tables.append(atoms(rival, weights=(0.01, 0.02), noise=(0.2, 0.21)))
    return pd.concat([result.more["summary"] for result in tables], ignore_index=True)


def noisier(summary: pd.DataFrame, rules: Rules) -> Finding:
    rules = dataclasses.replace(rules, ends_of_weights={"MNIST": {"wdl": (0.01, 0.02)}})
    return filters.filters_are_noisier(StudyResult(MNIST, {"summary": summary}), rules)


def test_the_nearest_weight_is_that_of_the_smallest_factor(rules):
    """0.0075 and 0.013 are as far from 0.01 as their factors, 1.33 and 1.30, not as 0.0025 is."""
    summary = noise_at_two_weights()
    is_rival = (summary["family"] != "wdl") & (summary["sparsity_weight"] == 0.01)
    below = summary[is_rival].assign(sparsity_weight=0.0075, noise=0.9)
    above = summary[is_rival].assign(sparsity_weight=0.013, noise=0.2)
    assert noisier(pd.concat([summary[~is_rival], below, above]), rules).word is HOLDS
    noisy_above = pd.concat([summary[~is_rival], below.assign(noise=0.2), above.assign(noise=0.9)])
    assert noisier(noisy_above, rules).word is FAILS


@pytest.mark.parametrize("weight", [0.01, 0.02])
def test_the_slope_of_noise_counts_epochs_and_changes_of_both_ends(rules, weight):
    summary = noise_at_two_weights().astype({"epochs": float})
    assert noisier(summary, rules).word is HOLDS
    is_end = (summary["sparsity_weight"] == weight) & (summary["family"] == "wdl")
    slope = "per unit of ln λ"
    short = summary.assign(epochs=np.where(is_end, 60.0, 100.0))
    assert f"{slope}: missing epochs (60 of 100)" in noisier(short, rules).shown
    # Of 0.05 at one end, the slope moves by that over ln 2.
    moving = summary.assign(change_noise=np.where(is_end, 0.05, 0.0))
    told = noisier(moving, rules).shown.partition(slope)[2]
    assert f"{0.05 / math.log(2):.2f}" in told


def by_solvers(gap: float, epochs: int = 100, weights=(0.005, 0.01)) -> StudyResult:
    """A curve that falls by 3 dB from 90 to 95 % zeros, and a control at 93 % zeros."""
    share = math.log(10 / 7) / math.log(2)
    zeros = {0.005: 0.9, 0.01: 0.95}
    rows = [
        {"data": "MNIST", "family": "sdl", "solver": "FISTA", "seed": seed, "epochs": epochs,
         "zeros": zeros[weight], "psnr": 18.0 + seed - 3 * (weight == 0.01)}
        for seed in range(3)
        for weight in weights
    ]  # fmt: skip
    rows += [
        {"data": "MNIST", "family": "sdl", "solver": "Adaptive", "seed": seed, "epochs": epochs,
         "zeros": 0.93, "psnr": 18.0 + seed - 3 * share + gap + 0.01 * seed}
        for seed in range(3)
    ]  # fmt: skip
    return StudyResult(pd.DataFrame(rows), {})


def test_a_control_of_solvers_is_judged_at_equal_zeros_seed_by_seed(rules):
    alike = settings.alike_by_solver(by_solvers(0.05), rules)
    assert alike.word is HOLDS
    # ± t(2) · 0.01 / √3 about 0.06, though seeds are 1 dB apart.
    half = stats.t.ppf(0.95, 2) * 0.01 / math.sqrt(3)
    assert f"{0.06 - half:+.2f} to {0.06 + half:+.2f} dB at 90 %" in alike.shown
    assert settings.alike_by_solver(by_solvers(0.5), rules).word is FAILS
    assert settings.alike_by_solver(by_solvers(0.19), rules).word is OPEN
    assert settings.alike_by_solver(by_solvers(0.05, epochs=30), rules).word is OPEN
    beyond = settings.alike_by_solver(by_solvers(0.05, weights=(0.005,)), rules)
    assert (beyond.word, "both sides" in beyond.shown) == (OPEN, True)
    # A control within a hole of the curve is no evidence.
    dense = by_solvers(0.05)
    hole = dense.table.replace({"zeros": {0.9: 0.8}})
    assert settings.alike_by_solver(StudyResult(hole, {}), rules).word is OPEN
    one = by_solvers(0.05)
    alone = StudyResult(one.table[one.table["solver"] == "FISTA"], {})
    assert settings.alike_by_solver(alone, rules).word is OPEN


def test_the_order_of_runs_changes_no_verdict_on_solvers(rules):
    table = by_solvers(0.05).table
    equal = table.groupby("solver").head(table["solver"].value_counts().min())
    told = {
        settings.alike_by_solver(StudyResult(rows, {}), rules).shown
        for rows in (equal, equal[::-1].reset_index(drop=True))
    }
    assert len(told) == 1


STROKES = ("sdl", "vdl", "sdl_nl", "vdl_nl")


def of_every_family(**columns: tuple[float, float]) -> StudyResult:
    tables = [atoms(family, **columns).more["summary"] for family in STROKES]
    return StudyResult(MNIST, {"summary": pd.concat(tables)})


@pytest.mark.parametrize(
    ("judge", "result"),
    [
        (regret.reconstructs_best, at_zeros(vdl_nl=17.0, **OTHERS)),
        (denoising.denoises, denoised(15.0)),
        (denoising.beats_classical_denoisers, denoised(15.0)),
        (low_data.classifies_best, classified(0.3)),
        (low_data.codes_beat_pixels, classified(0.3)),
        (features.atoms_grow,
         of_every_family(mean_extent=(0.3, 0.6), median_likeness=(0.6, 0.8))),
        (features.atoms_are_finer_at_small_weights,
         of_every_family(median_mean_frequency=(0.3, 0.2))),
        (features.atoms_are_gabors,
         of_every_family(gabor_like=(0.8, 0.7), gabor_like_scrambled=(0.1, 0.05))),
        (filters.filters_are_noisier, filters_of((0.3, 0.4), (0.2, 0.25))),
        (ablation.collapses, collapse()),
    ],
)  # fmt: skip
def test_refutations_are_corrected_for_all_comparisons_of_the_claim(
    rules, judge, result, monkeypatch
):
    made, asked = [], set()

    def counted(name, ours, rivals, rules, *, comparisons, **settings):
        made.append(len(rivals))
        asked.add(comparisons)
        return Finding(HOLDS, name)

    monkeypatch.setitem(judge.__globals__, "above", counted)
    judge(result, rules)
    assert asked == {sum(made)}
