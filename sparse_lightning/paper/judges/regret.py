"""Reconstruction at equal sparsity."""

from __future__ import annotations

import numpy as np

from sparse_lightning.paper.judges.evidence import ABSENT, least_epochs, solvers
from sparse_lightning.paper.statistics import Rules, Sample
from sparse_lightning.paper.verdicts import Finding, above, on_par, together
from sparse_lightning.studies.study_result import StudyResult


def _at_zeros(result: StudyResult, at: float) -> dict[str, Sample]:
    """Interpolated PSNR by family.

    It is no evidence where the curve of a seed does not reach: those that do are the sparser ones.
    """
    table, solvers_of = result.more["at_zeros"], solvers(result)
    values = {}
    if "psnr" not in table:  # The paper's claims are about images.
        return values
    for row in table[np.isclose(table["zeros"], at)].itertuples():
        is_whole = row.seeds == row.curves
        lack = None if is_whole else f"curves that reach ({row.seeds:g} of {row.curves:g})"
        values[row.family] = Sample(
            row.psnr,
            row.std,
            row.seeds,
            row.change,
            row.epochs,
            solvers=solvers_of.get(row.family, frozenset()),
            lack=lack,
        )
    return values


def reconstructs_best(result: StudyResult, rules: Rules, by_inference: bool = False) -> Finding:
    """VDL-NL against every rival, at equal high sparsity."""
    rivals = [*rules.rivals, *(rules.rivals_by_inference if by_inference else [])]
    findings = []
    for at in rules.high_sparsity:
        values = _at_zeros(result, at)
        finding = above(
            f"VDL-NL at {100 * at:g} % zeros",
            values.get("vdl_nl", ABSENT),
            {rival: values.get(rival, ABSENT) for rival in rivals},
            rules,
            least_epochs=least_epochs(result, rules),
            comparisons=len(rivals) * len(rules.high_sparsity),
        )
        findings.append(finding)
    return together(findings)


def linear_on_par(result: StudyResult, rules: Rules) -> Finding:
    """VDL against SDL at equal high sparsity."""
    findings = []
    for at in rules.high_sparsity:
        values = _at_zeros(result, at)
        finding = on_par(
            f"VDL less SDL at {100 * at:g} % zeros",
            values.get("vdl", ABSENT),
            values.get("sdl", ABSENT),
            rules,
            least_epochs=least_epochs(result, rules),
        )
        findings.append(finding)
    return together(findings)
