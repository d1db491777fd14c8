"""What the paper claims, and whether a study's result bears it out.

Every claim is judged by intervals over seeds, see `statistics`. A claim that a result cannot
decide, because a family, seeds, epochs or a value are missing, is open.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sparse_lightning.figures.style import family_name
from sparse_lightning.paper.judges import (
    ablation,
    denoising,
    features,
    filters,
    low_data,
    regret,
    settings,
)
from sparse_lightning.paper.statistics import Rules
from sparse_lightning.paper.verdicts import Finding
from sparse_lightning.studies.low_data import AUTHORS, UNVALIDATED
from sparse_lightning.studies.study_result import StudyResult


@dataclass(frozen=True)
class Claim:
    """A claim of the paper.

    Attributes:
        study: the kind of study that decides it.
        says: the claim.
        rule: when it holds, with the names of `words` in place of constants.
        judge: from the study's result and the rules to a finding.
        data: the data set that it is about, None for any.
    """

    study: str
    says: str
    rule: str
    judge: Callable[[StudyResult, Rules], Finding]
    data: str | None = None

    def rule_by(self, rules: Rules) -> str:
        """The rule with its constants."""
        return self.rule.format(**words(rules))


def words(rules: Rules) -> dict[str, str]:
    """What rules say of the constants."""
    return {
        "intervals": f"the lower end of each {_percent(rules.confidence)} interval is above 0; it "
        "does not hold if an upper end is below 0 after Bonferroni's correction",
        "confidence": _percent(rules.confidence),
        "parity_confidence": _percent(rules.parity_confidence),
        "parity_margin": f"{rules.parity_margin:g} dB",
        "zeros": f"{_listed(f'{100 * share:g}' for share in rules.high_sparsity)} % zeros",
        "rivals": _named(rules.rivals),
        "by_inference": _named(rules.rivals_by_inference),
        "few_labels": _listed(rules.few_labels),
        "few_label_rivals": _named(rules.few_label_rivals),
        "labels_with_codes": _listed(rules.labels_with_codes),
        "pixel_classifiers": _named(rules.pixel_classifiers),
        "growth": f"{rules.growth:g}",
        "gabor_share": _percent(rules.gabor_share),
        "rivals_of_filters": _named(rules.rivals_of_filters),
        "weight_ratio": f"{rules.largest_weight_ratio:g}",
        "solver_margin": f"{rules.solver_margin:g} dB",
        "collapse_epochs": f"{rules.collapse_epochs}",
    }


def _percent(share: float) -> str:
    return f"{100 * share:g} %"


def _named(families: Iterable[str]) -> str:
    return _listed(map(family_name, families))


def _listed(values: Iterable) -> str:
    """Such as ``1, 2 and 5``."""
    told = [*map(str, values)]
    return " and ".join(filter(None, [", ".join(told[:-1]), *told[-1:]]))


CLAIMS = (
    Claim(
        "regret",
        "At high sparsity VDL-NL reconstructs best of the families with an encoder.",
        "At {zeros}, PSNR of VDL-NL less that of {rivals}: {intervals}.",
        regret.reconstructs_best,
    ),
    Claim(
        "regret",
        "At high sparsity VDL-NL reconstructs best, DO and DO-NL among its rivals.",
        "As above, with {by_inference}, whose codes take an inference.",
        functools.partial(regret.reconstructs_best, by_inference=True),
    ),
    Claim(
        "regret",
        "VDL is on par with SDL.",
        "At {zeros} the {parity_confidence} interval of their difference lies within the margin of "
        "parity, {parity_margin}; it does not hold if the {confidence} interval lies outside.",
        regret.linear_on_par,
    ),
    Claim(
        "denoising",
        "Sparse codes learned with variance regularisation are useful for denoising.",
        "At every noise level VDL and VDL-NL exceed the clipped noisy image and the zero code: "
        "{intervals}.",
        denoising.denoises,
    ),
    Claim(
        "denoising",
        "(Not in the paper:) sparse codes denoise better than total variation, wavelets and "
        "non-local means.",
        "At every noise level, PSNR of the family that denoises validation images best, of those "
        "with evidence, less that of each: {intervals}.",
        denoising.beats_classical_denoisers,
    ),
    Claim(
        "denoising",
        "(Not in the paper:) sparse codes denoise better than the PCA-Wiener filter.",
        "At every noise level, PSNR of the family that denoises validation images best, of those "
        "with evidence, less the filter's: {intervals}.",
        denoising.beats_wiener,
    ),
    Claim(
        "low_data",
        "With at most 10 labels per class VDL-NL's features classify best.",
        "At {few_labels} labels per class, accuracy of VDL-NL over model seeds, less that of "
        "{few_label_rivals}: {intervals}.",
        low_data.classifies_best,
    ),
    Claim(
        "low_data",
        "With at most 10 labels per class VDL-NL's features classify best, DO and DO-NL among "
        "its rivals.",
        "As above, with {by_inference}, whose codes take an inference.",
        functools.partial(low_data.classifies_best, by_inference=True),
    ),
    Claim(
        "low_data",
        "With at most 10 labels per class VDL-NL's features classify best, also without labels of "
        "validation images.",
        "As the first, with one penalty for all and the λ nearest to the study's share of zeros.",
        functools.partial(low_data.classifies_best, arm=UNVALIDATED),
    ),
    Claim(
        "low_data",
        "With at most 10 labels per class VDL-NL's features classify best, by the authors' own "
        "protocol.",
        "As the first, with the first labels of the authors' split and a linear layer trained by "
        "Adam.",
        functools.partial(low_data.classifies_best, arm=AUTHORS),
    ),
    Claim(
        "low_data",
        "Up to 100 labels per class every family's codes beat classifiers of raw pixels; DO, DO-NL "
        "and SDL at 1 and 2 labels excepted.",
        "At {labels_with_codes} labels per class, accuracy of each family less that of "
        "{pixel_classifiers}: {intervals}.",
        low_data.codes_beat_pixels,
    ),
    Claim(
        "low_data",
        "Up to 100 labels per class every family's codes beat a linear classifier of raw pixels, "
        "also without labels of validation images.",
        "As above, with one penalty for all and the λ nearest to the study's share of zeros, and "
        "without the classifiers that need such labels.",
        functools.partial(low_data.codes_beat_pixels, arm=UNVALIDATED),
    ),
    Claim(
        "low_data",
        "Up to 100 labels per class every family's codes beat classifiers of raw pixels, by the "
        "authors' own protocol.",
        "As above, by that protocol.",
        functools.partial(low_data.codes_beat_pixels, arm=AUTHORS),
    ),
    Claim(
        "features",
        "Atoms go from strokes to whole digits as λ grows.",
        "For every family the mean extent of atoms in use is larger at the larger of two λ, which "
        "the scale names, than {growth} times that at the smaller, and the median atom is more "
        "like the digit nearest to it: {intervals}.",
        features.atoms_grow,
        "mnist",
    ),
    Claim(
        "features",
        "Atoms of natural image patches are Gabor-like.",
        "For every family and λ above 0 the share of atoms in use that are Gabor-like is above "
        "{gabor_share}, and above that of atoms with scrambled phases: {intervals}.",
        features.atoms_are_gabors,
        "imagenet_patches",
    ),
    Claim(
        "features",
        "On natural image patches a smaller λ gives atoms of higher frequency.",
        "For every family the median over atoms in use of their mean frequency is higher at the "
        "smaller of two λ, which the scale names, than at the larger: {intervals}.",
        features.atoms_are_finer_at_small_weights,
        "imagenet_patches",
    ),
    Claim(
        "filters",
        "WDL's encoder filters are noisier than those of SDL and VDL, the more so as λ grows.",
        "The mean over all filters of their share of white noise is higher than that of "
        "{rivals_of_filters} at two λ of WDL's, which the scale names, or at the rivals' nearest "
        "within a factor {weight_ratio}, and it grows faster with ln λ between them: {intervals}.",
        filters.filters_are_noisier,
        "mnist",
    ),
    Claim(
        "filters",
        "(Not in the paper:) WDL's encoder filters are noisier, the more so as λ grows, also where "
        "units are in use.",
        "As above, with the filters of units that are active for 1 % of images or more.",
        functools.partial(filters.filters_are_noisier, column="noise_in_use"),
        "mnist",
    ),
    Claim(
        "ablation",
        "Without regularisation codes collapse while the decoder grows, with a linear decoder and "
        "with a hidden layer.",
        "Over at least {collapse_epochs} epochs the norm of the codes falls and that of each layer "
        "of the decoder grows, more so than with SDL and VDL: {intervals}.",
        ablation.collapses,
    ),
    Claim(
        "settings",
        "(Not in the paper:) a family reaches the PSNR of its curve by another solver as well.",
        "Seed by seed, the {parity_confidence} interval of PSNR by the other solver, less the PSNR "
        "of the family's curve at equal zeros, lies within {solver_margin}; it does not hold if "
        "the {confidence} interval lies outside. What later epochs changed is not added.",
        settings.alike_by_solver,
    ),
)
