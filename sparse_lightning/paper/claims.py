"""What the paper claims, and whether a study's result bears it out.

Every claim is judged by intervals over seeds, see `statistics`. A claim that a result cannot
decide, because a family, seeds, epochs or a value are missing, is open.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

from sparse_lightning.paper.judges import ablation, denoising, features, low_data, regret
from sparse_lightning.paper.statistics import Finding, Rules
from sparse_lightning.studies.low_data import AUTHORS, UNVALIDATED
from sparse_lightning.studies.study_result import StudyResult


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


INTERVALS = (
    "the lower end of each 95 % interval is above 0; it does not hold if an upper end is below 0 "
    "after Bonferroni's correction"
)
CLAIMS = (
    Claim(
        "regret",
        "At high sparsity VDL-NL reconstructs best of the families with an encoder.",
        f"At 90 and 95 % zeros, PSNR of VDL-NL less that of each rival: {INTERVALS}.",
        regret.reconstructs_best,
    ),
    Claim(
        "regret",
        "At high sparsity VDL-NL reconstructs best, DO and DO-NL among its rivals.",
        "As above, with families whose codes take an inference.",
        functools.partial(regret.reconstructs_best, by_inference=True),
    ),
    Claim(
        "regret",
        "VDL is on par with SDL.",
        "At 90 and 95 % zeros the 90 % interval of their difference lies within the margin of "
        "parity, 0.5 dB; it does not hold if the 95 % interval lies outside.",
        regret.linear_on_par,
    ),
    Claim(
        "denoising",
        "Sparse codes learned with variance regularisation are useful for denoising.",
        "At every noise level VDL and VDL-NL exceed the clipped noisy image and the zero code: "
        f"{INTERVALS}.",
        denoising.denoises,
    ),
    Claim(
        "denoising",
        "(Not in the paper:) sparse codes denoise better than total variation, wavelets and "
        "non-local means.",
        "At every noise level, PSNR of the family that denoises validation images best, less that "
        f"of each: {INTERVALS}.",
        denoising.beats_classical_denoisers,
    ),
    Claim(
        "denoising",
        "(Not in the paper:) sparse codes denoise better than the PCA-Wiener filter.",
        "At every noise level, PSNR of the family that denoises validation images best, less the "
        f"filter's: {INTERVALS}.",
        denoising.beats_wiener,
    ),
    Claim(
        "low_data",
        "With at most 10 labels per class VDL-NL's features classify best.",
        "At 1, 2, 5 and 10 labels per class, accuracy of VDL-NL less that of SDL, VDL, SDL-NL, and "
        "of a linear classifier and LISTA with a linear layer on pixels, over model seeds: "
        f"{INTERVALS}.",
        low_data.classifies_best,
    ),
    Claim(
        "low_data",
        "With at most 10 labels per class VDL-NL's features classify best, DO and DO-NL among "
        "its rivals.",
        "As above, with families whose codes take an inference.",
        functools.partial(low_data.classifies_best, by_inference=True),
    ),
    Claim(
        "low_data",
        "With at most 10 labels per class VDL-NL's features classify best, also without labels of "
        "validation images.",
        "As the first, with one penalty for all and the λ nearest to 90 % zeros.",
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
        "At each number of labels, accuracy of each family less that of the linear classifier and "
        f"of LISTA on pixels: {INTERVALS}.",
        low_data.codes_beat_pixels,
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
        "For every family the mean extent of atoms in use is larger at the largest λ than 1.2 "
        "times that at the smallest, and the median atom is more like the digit nearest to it: "
        f"{INTERVALS}.",
        features.atoms_grow,
        "mnist",
    ),
    Claim(
        "features",
        "Atoms of natural image patches are Gabor-like.",
        "For every family and λ above 0 the share of atoms in use that are Gabor-like is above a "
        f"half, and above that of atoms with scrambled phases: {INTERVALS}.",
        features.atoms_are_gabors,
        "imagenet_patches",
    ),
    Claim(
        "features",
        "On natural image patches a smaller λ gives atoms of higher frequency.",
        "For every family the median over atoms in use of their mean frequency is higher at the "
        f"smallest λ than at the largest: {INTERVALS}.",
        features.atoms_are_finer_at_small_weights,
        "imagenet_patches",
    ),
    Claim(
        "features",
        "WDL's encoder filters are noisier than those of SDL and VDL, the more so as λ grows.",
        "The median over filters of atoms in use of their mean frequency is higher than that of "
        "each at the smallest λ and at the largest, and it grows by more between them: "
        f"{INTERVALS}.",
        features.filters_are_noisier,
        "mnist",
    ),
    Claim(
        "ablation",
        "Without regularisation codes collapse while the decoder grows, with a linear decoder and "
        "with a hidden layer.",
        "Over at least 50 epochs the norm of the codes falls and that of each layer of the decoder "
        f"grows, more so than with SDL and VDL: {INTERVALS}.",
        ablation.collapses,
    ),
)
