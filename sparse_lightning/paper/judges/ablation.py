"""Collapse of the codes without a remedy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import pandas as pd

from sparse_lightning.paper.judges.evidence import ABSENT, over_seeds, solvers
from sparse_lightning.paper.statistics import Rules, Sample
from sparse_lightning.paper.verdicts import Finding, Word, above, together
from sparse_lightning.studies.study_result import StudyResult


def collapses(result: StudyResult, rules: Rules) -> Finding:
    """Logarithms of growth over training: of code norms and of each layer's columns.

    A collapse goes on as long as training does. So it is judged over a number of epochs of its own,
    and what the last half of them changed is not added to intervals.
    """
    change = result.more["change"]
    logs = change.assign(
        **{name: np.log(change[name]) for name in change if name.startswith(("code", "column"))}
    )
    solvers_of = solvers(result)
    compared, findings = [], []
    for kind, rivals in rules.collapse_rivals.items():
        own = logs[logs["family"] == kind]
        if own.empty:
            findings.append(Finding(Word.OPEN, f"{kind}: missing"))
        for weight, rows in own.groupby("sparsity_weight"):
            others = dict(iter(logs[logs["sparsity_weight"] == weight].groupby("family")))
            compared += [
                (f"{kind} at λ = {weight:g}: {title}", ours, samples)
                for title, ours, samples in _comparisons(kind, rows, rivals, others, solvers_of)
            ]
    # What is not measured would have been compared as well: by a code norm, and a layer at least.
    unmeasured = rules.collapse_rivals.keys() - set(logs["family"])
    comparisons = sum(len(samples) for *_, samples in compared) + sum(
        2 * (1 + len(rules.collapse_rivals[kind])) for kind in unmeasured
    )
    findings += [
        above(
            title,
            ours,
            samples,
            rules,
            least_epochs=rules.collapse_epochs,
            comparisons=comparisons,
            unit="(logarithm)",
        )
        for title, ours, samples in compared
    ]
    return together(findings)


def _comparisons(
    family: str,
    rows: pd.DataFrame,
    rivals: Iterable[str],
    others: Mapping[str, pd.DataFrame],
    solvers_of: Mapping[str, Iterable[str]],
) -> Iterator[tuple[str, Sample, dict[str, Sample]]]:
    """Whether norms fall or grow at one λ, and more so than those of rivals.

    Args:
        family: without a remedy.
        rows: logarithms of its changes, one row per seed.
        rivals: families with one.
        others: the changes of all families at this λ.
        solvers_of: of each family.

    Yields:
        What falls or grows, by how much, and what that must be above.
    """

    def sample(family: str, rows: pd.DataFrame, name: str, sign: int) -> Sample:
        values = sign * rows[name]
        return over_seeds(values, rows["epochs"].min(), solvers=solvers_of.get(family, ()))

    layers = [name for name in rows if name.startswith("column_norm_")]
    used = [name for name in layers if rows[name].notna().any()] or ["column_norm"]
    for name, sign in (("code_l1", -1), *((layer, 1) for layer in used)):
        samples = {"no change": Sample.fixed(0.0)} | {
            rival: sample(rival, others[rival], name, sign) if rival in others else ABSENT
            for rival in rivals
        }
        yield (
            f"{'fall' if sign < 0 else 'growth'} of {name}",
            sample(family, rows, name, sign),
            samples,
        )
