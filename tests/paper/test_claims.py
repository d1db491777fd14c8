"""The paper's claims, each with its rule."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sparse_lightning.paper import claims
from sparse_lightning.studies.study_result import StudyResult


def at_zeros(**families: tuple[float, float]) -> StudyResult:
    rows = [
        {"zeros": zeros, "family": family, "psnr": psnr, "std": std, "seeds": 2}
        for family, (psnr, std) in families.items()
        for zeros in (0.9, 0.95)
    ]
    return StudyResult(pd.DataFrame(), {"at_zeros": pd.DataFrame(rows)})


def test_reconstructs_best_by_more_than_the_spread():
    better = claims.reconstructs_best(at_zeros(vdl_nl=(17.0, 0.3), sdl=(16.0, 0.4), vdl=(9.0, 0.1)))
    assert better.holds is True
    assert "17.00 ± 0.30 dB" in better.shown
    assert "sdl 16.00" in better.shown
    assert claims.reconstructs_best(at_zeros(vdl_nl=(16.4, 0.3), sdl=(16.0, 0.4))).holds is False
    assert claims.reconstructs_best(at_zeros(sdl=(16.0, 0.4))).holds is None
    alone = at_zeros(vdl_nl=(16.4, np.nan), sdl=(16.3, np.nan))
    assert claims.reconstructs_best(alone).holds is True
    assert "16.40 dB (one seed)" in claims.reconstructs_best(alone).shown


@pytest.mark.parametrize(("psnr", "holds"), [(17.0, None), (15.0, False)])
def test_half_of_the_evidence_refutes_and_does_not_confirm(psnr, holds):
    result = at_zeros(vdl_nl=(psnr, 0.1), sdl=(16.0, 0.1))
    table = result.more["at_zeros"]
    table.loc[(table["family"] == "vdl_nl") & (table["zeros"] == 0.95), "psnr"] = np.nan
    verdict = claims.reconstructs_best(result)
    assert verdict.holds is holds
    assert "missing: vdl_nl at 95 % zeros" in verdict.shown


def test_a_rival_that_does_not_reach_a_sparsity_leaves_the_claim_open():
    result = at_zeros(vdl_nl=(17.0, 0.1), sdl=(16.0, 0.1), wdl=(15.0, 0.1))
    table = result.more["at_zeros"]
    table.loc[(table["family"] == "wdl") & (table["zeros"] == 0.9), "psnr"] = np.nan
    verdict = claims.reconstructs_best(result)
    assert verdict.holds is None
    assert "missing: wdl at 90 % zeros" in verdict.shown


def test_on_par_within_half_a_decibel():
    assert claims.linear_on_par(at_zeros(vdl=(16.4, 0.0), sdl=(16.0, 0.0))).holds is True
    assert claims.linear_on_par(at_zeros(vdl=(15.4, 0.0), sdl=(16.0, 0.0))).holds is False
    assert claims.linear_on_par(at_zeros(vdl=(15.4, 0.0))).holds is None
    half = at_zeros(vdl=(16.4, 0.0), sdl=(16.0, 0.0))
    half.more["at_zeros"].loc[0, "psnr"] = np.nan
    assert claims.linear_on_par(half).holds is None


def test_classifies_best_at_every_small_count():
    def summary(last: float) -> StudyResult:
        rows = [
            {"method": method, "labels_per_class": count, "top1": error, "top1_std": 0.01}
            for method, error in (("vdl_nl", 0.3), ("linear on raw", 0.4))
            for count in (1, 2, 5, 10)
        ]
        rows[3]["top1"] = last
        return StudyResult(pd.DataFrame(), {"summary": pd.DataFrame(rows)})

    assert claims.classifies_best(summary(0.3)).holds is True
    assert claims.classifies_best(summary(0.5)).holds is False
    few = summary(0.3).more["summary"].query("labels_per_class == 1")
    assert claims.classifies_best(StudyResult(few, {"summary": few})).holds is None


def test_collapse_needs_shrinking_codes_and_growing_columns():
    def history(spread: float, norm: float) -> StudyResult:
        # The first epoch, and another λ without a rival, must not count.
        rows = [
            ("none", 0.02, 1, 0.9), ("none", 0.02, 5, spread), ("vdl", 0.02, 5, 0.5),
            ("vdl", 0.02, 1, 0.1), ("vdl", 0.05, 5, 0.01),
        ]  # fmt: skip
        table = pd.DataFrame(rows, columns=["family", "sparsity_weight", "epoch", "code_std"])
        table["run"] = table["family"] + table["sparsity_weight"].astype(str)
        change = pd.DataFrame(
            {
                "family": ["none", "vdl"],
                "sparsity_weight": 0.02,
                "code_l1": 0.7,
                "code_std": [0.5, 1.0],
                "column_norm": [norm, 1.0],
            }
        )
        return StudyResult(table, {"change": change})

    assert claims.collapses(history(0.1, 2.0)).holds is True
    assert claims.collapses(history(0.4, 2.0)).holds is False
    assert claims.collapses(history(0.1, 0.9)).holds is False
    alone = history(0.1, 2.0)
    alone = StudyResult(alone.table.query("family == 'none'"), alone.more)
    assert claims.collapses(alone).holds is None


def test_atoms_grow_and_atoms_are_gabors():
    table = pd.DataFrame(
        {
            "family": ["sdl"] * 2 + ["vdl"],
            "sparsity_weight": [0.1, 0.2, 0.1],
            "median_active_area": [0.2, 0.3, 0.1],
            "gabor_like": [0.9, 0.6, 0.4],
        }
    )
    assert claims.atoms_grow(StudyResult(table[:2], {"summary": table[:2]})).holds is True
    assert claims.atoms_grow(StudyResult(table, {"summary": table})).holds is None
    assert claims.atoms_are_gabors(StudyResult(table, {"summary": table})).holds is False
    assert claims.atoms_are_gabors(StudyResult(table, {"summary": table[:2]})).holds is True
    assert claims.atoms_grow(StudyResult(table, {"summary": table[2:]})).holds is None


def test_denoising_claims():
    best = pd.DataFrame(
        {"noise": 1.0, "family": ["vdl", "vdl_nl"], "psnr_noisy": 10.0, "psnr_denoised": 15.0}
    )
    peers = pd.DataFrame({"noise": [1.0], "peer": ["wavelet"], "psnr_denoised": [16.0]})
    result = StudyResult(best, {"best": best, "peers": peers})
    assert claims.denoises(result).holds is True
    alone = claims.denoises(StudyResult(best[:1], {"best": best[:1]}))
    assert alone.holds is None
    assert "missing: vdl_nl" in alone.shown
    assert claims.beats_classical_denoisers(result).holds is False
