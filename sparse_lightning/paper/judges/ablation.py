"""Collapse of the codes without a remedy."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from sparse_lightning.paper.judges.evidence import ABSENT, over_seeds, solvers
from sparse_lightning.paper.statistics import Rules, Sample
from sparse_lightning.paper.verdicts import Finding, Word, above, together
from sparse_lightning.studies.study_result import StudyResult


def collapses(result: StudyResult, rules: Rules) -> Finding:
    """Logarithms of growth over training: of code norms and of each layer's columns."""
    change = result.more["change"]
    logs = change.assign(
        **{name: np.log(change[name]) for name in change if name.startswith(("code", "column"))}
    )
    compared, findings, solver_of = [], [], solvers(result)
    for kind, rivals in (("none", ("sdl", "vdl")), ("none_nl", ("sdl_nl", "vdl_nl"))):
        own = logs[logs["family"] == kind]
        if own.empty:
            findings.append(Finding(Word.OPEN, f"{kind}: missing"))
        for weight, rows in own.groupby("sparsity_weight"):
            others = logs[logs["sparsity_weight"] == weight].groupby("family")
            shown = {r: others.get_group(r) for r in rivals if r in others.groups}
            layers = [name for name in rows if name.startswith("column_norm_")]
            used = [name for name in layers if rows[name].notna().any()] or ["column_norm"]
            for name, sign in (("code_l1", -1), *((layer, 1) for layer in used)):
                title = f"{kind} at λ = {weight:g}"
                compared.append((title, kind, rows, shown, name, sign, rivals))
    comparisons = sum(1 + len(rivals) for *_, rivals in compared)
    return together(
        findings + [_outgrows(*part, comparisons, solver_of, rules) for part in compared]
    )


def _outgrows(
    title: str,
    kind: str,
    rows: pd.DataFrame,
    others: Mapping[str, pd.DataFrame],
    name: str,
    sign: int,
    rivals: tuple[str, ...],
    comparisons: int,
    solver_of: Mapping[str, str],
    rules: Rules,
) -> Finding:
    """Whether a norm falls (sign −1) or grows (+1), and more so than that of the rivals."""

    def sample(family: str, values: pd.DataFrame) -> Sample:
        return over_seeds(sign * values[name], values["epochs"].min(), solver=solver_of.get(family))

    samples = {
        rival: sample(rival, others[rival]) if rival in others else ABSENT for rival in rivals
    }
    return above(
        f"{title}: {'fall' if sign < 0 else 'growth'} of {name}",
        sample(kind, rows),
        {"no change": Sample.fixed(0.0)} | samples,
        rules,
        least_epochs=rules.collapse_epochs,
        comparisons=comparisons,
        unit="(logarithm)",
    )
