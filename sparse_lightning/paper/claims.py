"""What the paper claims, and whether a study's result bears it out.

Every claim is judged by intervals over seeds, see `statistics`. A claim that a result cannot
decide, because a family, seeds, epochs or a value are missing, is open.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from sparse_lightning.paper.statistics import (
    Finding,
    Rules,
    Sample,
    Word,
    above,
    on_par,
    together,
)
from sparse_lightning.studies.low_data import UNVALIDATED, VALIDATED
from sparse_lightning.studies.study_result import StudyResult

ABSENT = Sample(math.nan, math.nan, 0, math.nan, math.nan)


@dataclass(frozen=True)
class Claim:
    """A claim of the paper.

    Attributes:
        study: the kind of study that decides it.
        says: the claim.
        rule: when it holds, where `Rules` name the constants.
        judge: from the study's result and the rules to a finding.
        data: the data set that it is about, None for any.
    """

    study: str
    says: str
    rule: str
    judge: Callable[[StudyResult, Rules], Finding]
    data: str | None = None


def _least_epochs(result: StudyResult, rules: Rules) -> int:
    return rules.least_epochs.get(result.data, 0)


def _at_zeros(result: StudyResult, at: float) -> dict[str, Sample]:
    """Interpolated PSNR by family."""
    table = result.more["at_zeros"]
    return {
        row.family: Sample(row.psnr, row.std, row.seeds, row.change, row.epochs)
        for row in table[np.isclose(table["zeros"], at)].itertuples()
    }


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
            least_epochs=_least_epochs(result, rules),
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
            list(values.values()),
            rules,
            least_epochs=_least_epochs(result, rules),
        )
        findings.append(finding)
    return together(findings)


def _denoised(rows: pd.DataFrame) -> dict[str, Sample]:
    """PSNR of rebuilt noisy images by family."""
    return {
        row.family: Sample(
            row.psnr_denoised, row.psnr_denoised_std, row.seeds, row.change, row.epochs
        )
        for row in rows.itertuples()
    }


def _noise_levels(result: StudyResult) -> Iterator[tuple[float, pd.DataFrame, dict, dict]]:
    """σ, the rows of families, and the PSNR of references and of scikit-image by name."""
    for noise, rows in result.more["best"].groupby("noise"):
        references = _fixed(result.more["references"], "reference", noise)
        yield noise, rows, references, _fixed(result.more["peers"], "peer", noise)


def _fixed(table: pd.DataFrame, name: str, noise: float) -> dict[str, Sample]:
    rows = table[table["noise"] == noise].set_index(name)["psnr_denoised"]
    return {key: Sample.fixed(value) for key, value in rows.items()}


def denoises(result: StudyResult, rules: Rules) -> Finding:
    """VDL and VDL-NL against the clipped noisy image and the zero code."""
    findings = []
    for noise, rows, references, _ in _noise_levels(result):
        rivals = {name: references.get(name, ABSENT) for name in ("clipped noisy", "zero code")}
        values = _denoised(rows)
        for family in ("vdl", "vdl_nl"):
            name, least = f"{family} at σ = {noise:g}", _least_epochs(result, rules)
            ours = values.get(family, ABSENT)
            findings.append(above(name, ours, rivals, rules, least_epochs=least))
    return together(findings)


def _best_denoises(result: StudyResult, rules: Rules, rivals_of: Callable) -> Finding:
    """The best family at each σ against rivals."""
    findings = []
    for noise, rows, references, peers in _noise_levels(result):
        family = rows.loc[rows["psnr_denoised"].idxmax(), "family"]
        name, least = f"{family} at σ = {noise:g}", _least_epochs(result, rules)
        ours, rivals = _denoised(rows)[family], rivals_of(references, peers)
        findings.append(above(name, ours, rivals, rules, least_epochs=least))
    return together(findings)


def beats_classical_denoisers(result: StudyResult, rules: Rules) -> Finding:
    """The best family against those of scikit-image; not a claim of the paper."""
    return _best_denoises(result, rules, lambda references, peers: peers)


def beats_wiener(result: StudyResult, rules: Rules) -> Finding:
    """The best family against the PCA-Wiener filter; not a claim of the paper."""

    def rivals_of(references: Mapping, peers: Mapping) -> Mapping:
        return {"PCA-Wiener": references.get("PCA-Wiener", ABSENT)}

    return _best_denoises(result, rules, rivals_of)


def classifies_best(
    result: StudyResult, rules: Rules, by_inference: bool = False, arm: str = VALIDATED
) -> Finding:
    """VDL-NL's codes against other methods, with few labels, by accuracy."""
    summary = result.more["summary"].astype({"labels_per_class": str})
    summary = summary[summary["arm"] == arm]
    rivals = [*rules.few_label_rivals, *(rules.rivals_by_inference if by_inference else [])]
    if arm == UNVALIDATED:
        rivals = [rival for rival in rivals if rival not in rules.needs_validation]
    findings = []
    for count in map(str, rules.few_labels):
        values = {
            row.method: _accuracy(row)
            for row in summary[summary["labels_per_class"] == count].itertuples()
        }
        finding = above(
            f"VDL-NL with {count} per class",
            values.get("vdl_nl", ABSENT),
            {rival: values.get(rival, ABSENT) for rival in rivals},
            rules,
            least_epochs=_least_epochs(result, rules),
            comparisons=len(rivals) * len(rules.few_labels),
            unit="% right",
        )
        findings.append(finding)
    return together(findings)


def _accuracy(row: NamedTuple) -> Sample:
    """In %; of a method without model seeds it is what it is, on the draws that all share."""
    accuracy = 100 * (1 - row.top1)
    if row.model_seeds == math.inf:
        return Sample.fixed(accuracy)
    return Sample(accuracy, 100 * row.top1_std, row.model_seeds, 0.0, row.epochs)


def _over_seeds(values: pd.Series, epochs: float) -> Sample:
    return Sample(values.mean(), values.std(), values.count(), 0.0, epochs)


def collapses(result: StudyResult, rules: Rules) -> Finding:
    """Logarithms of growth over training: of code norms and of each layer's columns."""
    change = result.more["change"]
    logs = change.assign(
        **{name: np.log(change[name]) for name in change if name.startswith(("code", "column"))}
    )
    findings = []
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
                findings.append(_outgrows(f"{kind} at λ = {weight:g}", rows, shown, name, sign,
                                          rivals, rules))  # fmt: skip
    return together(findings)


def _outgrows(
    title: str,
    rows: pd.DataFrame,
    others: Mapping[str, pd.DataFrame],
    name: str,
    sign: int,
    rivals: tuple[str, ...],
    rules: Rules,
) -> Finding:
    """Whether a norm falls (sign −1) or grows (+1), and more so than that of the rivals."""
    samples = {
        rival: _over_seeds(sign * others[rival][name], others[rival]["epochs"].min())
        if rival in others
        else ABSENT
        for rival in rivals
    }
    return above(
        f"{title}: {'fall' if sign < 0 else 'growth'} of {name}",
        _over_seeds(sign * rows[name], rows["epochs"].min()),
        {"no change": Sample.fixed(0.0)} | samples,
        rules,
        least_epochs=rules.collapse_epochs,
        unit="(logarithm)",
    )


def atoms_grow(result: StudyResult, rules: Rules) -> Finding:
    """Extent and likeness to images of atoms, at the smallest and the largest λ of a family."""
    findings = []
    least = _least_epochs(result, rules)
    for family, models in result.more["summary"].groupby("family"):
        weights = sorted(models["sparsity_weight"].unique())
        if len(weights) < 2:
            findings.append(Finding(Word.OPEN, f"{family}: missing a second λ"))
            continue
        small, large = (models[models["sparsity_weight"] == weights[i]] for i in (0, -1))
        for column, factor in (("median_extent", rules.growth), ("median_likeness", 1.0)):
            ours = _over_seeds(large[column], large["max_epochs"].min())
            rival = _over_seeds(factor * small[column], small["max_epochs"].min())
            name = f"{family}, {column.replace('_', ' ')} at λ = {weights[-1]:g}"
            label = f"{factor:g} × that at {weights[0]:g}"
            finding = above(name, ours, {label: rival}, rules, least_epochs=least, unit="")
            findings.append(finding)
    return together(findings)


def atoms_are_gabors(result: StudyResult, rules: Rules) -> Finding:
    """Share of Gabor-like atoms, against a share that is asked for and scrambled atoms."""
    findings = []
    for (family, weight), models in result.more["summary"].groupby(["family", "sparsity_weight"]):
        epochs = models["max_epochs"].min()
        rivals = {
            f"{rules.gabor_share:g}": Sample.fixed(rules.gabor_share),
            "scrambled atoms": _over_seeds(models["gabor_like_scrambled"], epochs),
        }
        ours = _over_seeds(models["gabor_like"], epochs)
        least = _least_epochs(result, rules)
        name = f"{family} at λ = {weight:g}"
        findings.append(above(name, ours, rivals, rules, least_epochs=least, unit=""))
    return together(findings)


INTERVALS = (
    "the lower end of each 95 % interval is above 0; it does not hold if an upper end is below 0 "
    "after Bonferroni's correction"
)
CLAIMS = (
    Claim(
        "regret",
        "At high sparsity VDL-NL reconstructs best of the families with an encoder.",
        f"At 90 and 95 % zeros, PSNR of VDL-NL less that of each rival: {INTERVALS}.",
        reconstructs_best,
    ),
    Claim(
        "regret",
        "At high sparsity VDL-NL reconstructs best, DO and DO-NL among its rivals.",
        "As above, with families whose codes take an inference.",
        functools.partial(reconstructs_best, by_inference=True),
    ),
    Claim(
        "regret",
        "VDL is on par with SDL.",
        "At 90 and 95 % zeros the 90 % interval of their difference lies within the margin of "
        "parity, 0.5 dB; it does not hold if the 95 % interval lies outside.",
        linear_on_par,
    ),
    Claim(
        "denoising",
        "Sparse codes learned with variance regularisation are useful for denoising.",
        "At every noise level VDL and VDL-NL exceed the clipped noisy image and the zero code: "
        f"{INTERVALS}.",
        denoises,
    ),
    Claim(
        "denoising",
        "(Not in the paper:) sparse codes denoise better than total variation, wavelets and "
        "non-local means.",
        f"At every noise level, PSNR of the best family less that of each: {INTERVALS}.",
        beats_classical_denoisers,
    ),
    Claim(
        "denoising",
        "(Not in the paper:) sparse codes denoise better than the PCA-Wiener filter.",
        f"At every noise level, PSNR of the best family less the filter's: {INTERVALS}.",
        beats_wiener,
    ),
    Claim(
        "low_data",
        "With at most 10 labels per class VDL-NL's features classify best.",
        "At 1, 2, 5 and 10 labels per class, accuracy of VDL-NL less that of each rival with an "
        f"encoder or on pixels, over model seeds: {INTERVALS}.",
        classifies_best,
    ),
    Claim(
        "low_data",
        "With at most 10 labels per class VDL-NL's features classify best, DO and DO-NL among "
        "its rivals.",
        "As above, with families whose codes take an inference.",
        functools.partial(classifies_best, by_inference=True),
    ),
    Claim(
        "low_data",
        "With at most 10 labels per class VDL-NL's features classify best, also without labels of "
        "validation images.",
        "As the first, with one penalty for all and the λ nearest to 90 % zeros.",
        functools.partial(classifies_best, arm=UNVALIDATED),
    ),
    Claim(
        "features",
        "Atoms go from strokes to whole digits as λ grows.",
        "For every family the median extent of atoms in use is larger at the largest λ than 1.2 "
        "times that at the smallest, and they are more like the digit nearest to them: "
        f"{INTERVALS}.",
        atoms_grow,
        "mnist",
    ),
    Claim(
        "features",
        "Atoms of natural image patches are Gabor-like.",
        "The share of atoms in use that are Gabor-like is above a half, and above that of atoms "
        f"with scrambled phases: {INTERVALS}.",
        atoms_are_gabors,
        "imagenet_patches",
    ),
    Claim(
        "ablation",
        "Without regularisation codes collapse while the decoder grows, with a linear decoder and "
        "with a hidden layer.",
        "Over at least 50 epochs the norm of the codes falls and that of each layer of the decoder "
        f"grows, more so than with SDL and VDL: {INTERVALS}.",
        collapses,
    ),
)
