"""Images rebuilt from noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import pandas as pd

from sparse_lightning.paper.judges.evidence import ABSENT, lacks_of_choice, least_epochs, solvers
from sparse_lightning.paper.statistics import Rules, Sample
from sparse_lightning.paper.verdicts import Finding, Word, above, together
from sparse_lightning.studies.study_result import StudyResult


def _denoised(result: StudyResult, rows: pd.DataFrame, rules: Rules) -> dict[str, Sample]:
    """PSNR of rebuilt noisy images by family, and what a family lacks."""
    lacks, solvers_of = lacks_of_choice(result, rules), solvers(result)
    return {
        row.family: Sample(
            row.psnr_denoised,
            row.psnr_denoised_std,
            row.seeds,
            row.change,
            row.epochs,
            solvers=solvers_of.get(row.family, frozenset()),
            lack=lacks.get(row.family),
        )
        for row in rows.itertuples()
    }


def _noise_levels(result: StudyResult) -> Iterator[tuple[float, pd.DataFrame, dict, dict]]:
    """σ, the rows of families, and the PSNR of references and of scikit-image by name."""
    for noise, rows in result.more["best"].groupby("noise"):
        references = _fixed(result.more["references"], "reference", noise)
        yield noise, rows, references, _fixed(result.more["baselines"], "baseline", noise)


def _fixed(table: pd.DataFrame, name: str, noise: float) -> dict[str, Sample]:
    rows = table[table["noise"] == noise].set_index(name)["psnr_denoised"]
    return {key: Sample.fixed(value) for key, value in rows.items()}


def denoises(result: StudyResult, rules: Rules) -> Finding:
    """Families with the variance hinge against the clipped noisy image and the zero code."""
    findings, least, families = [], least_epochs(result, rules), rules.families_with_hinge
    levels = list(_noise_levels(result))
    for noise, rows, references, _ in levels:
        rivals = {name: references.get(name, ABSENT) for name in ("clipped noisy", "zero code")}
        values, number = _denoised(result, rows, rules), len(rivals) * len(families) * len(levels)
        judged = [values.get(family, ABSENT) for family in families]
        for family, ours in zip(families, judged):
            found = above(
                f"{family} at σ = {noise:g}",
                ours,
                rivals,
                rules,
                judged=judged,
                least_epochs=least,
                comparisons=number,
            )
            findings.append(found)
    return together(findings)


def _best_denoises(result: StudyResult, rules: Rules, rivals_of: Callable) -> Finding:
    """The best family at each σ, by validation images, against rivals.

    It may hold without some candidates. It fails only with evidence of all of them, since a missing
    one may be better.
    """
    findings, least, candidates = [], least_epochs(result, rules), rules.denoising_candidates
    levels = list(_noise_levels(result))
    for noise, rows, references, baselines in levels:
        values, validated = (
            _denoised(result, rows, rules),
            rows.set_index("family")["psnr_denoised_val"],
        )
        lacking = {name: values.get(name, ABSENT).missing(rules, least) for name in candidates}
        missing = [name for name in candidates if lacking[name]]
        if len(missing) == len(candidates):
            findings.append(Finding(Word.OPEN, f"every family at σ = {noise:g}: missing"))
            continue
        family = validated[[name for name in candidates if not lacking[name]]].idxmax()
        rivals = rivals_of(references, baselines)
        found = above(
            f"{family} at σ = {noise:g}",
            values[family],
            rivals,
            rules,
            judged=[values[name] for name in candidates if not lacking[name]],
            least_epochs=least,
            comparisons=len(rivals) * len(levels),
        )
        if found.word is Word.FAILS and missing:
            found = Finding(Word.OPEN, f"{found.shown}; {', '.join(missing)}: missing")
        findings.append(found)
    return together(findings)


def beats_classical_denoisers(result: StudyResult, rules: Rules) -> Finding:
    """The best family against those of scikit-image; not a claim of the paper."""
    return _best_denoises(result, rules, lambda references, baselines: baselines)


def beats_wiener(result: StudyResult, rules: Rules) -> Finding:
    """The best family against the PCA-Wiener filter; not a claim of the paper."""

    def rivals_of(references: Mapping, baselines: Mapping) -> Mapping:
        return {"PCA-Wiener": references.get("PCA-Wiener", ABSENT)}

    return _best_denoises(result, rules, rivals_of)
