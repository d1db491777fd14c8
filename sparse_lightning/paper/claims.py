"""What the paper claims, and whether a study's result bears it out, by a rule with numbers.

A claim that a result cannot decide, because a family or a value is missing, is open; an open claim
is never counted as holding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from sparse_lightning.studies.study_result import StudyResult

HIGH_SPARSITY = (0.9, 0.95)
ON_PAR = 0.5
FEW_LABELS = ("1", "2", "5", "10")


@dataclass(frozen=True)
class Verdict:
    """What a study's result says of a claim.

    Attributes:
        shown: the numbers.
        holds: None where the result cannot decide.
    """

    shown: str
    holds: bool | None


@dataclass(frozen=True)
class Claim:
    """A claim of the paper.

    Attributes:
        study: the kind of study that decides it.
        says: the claim.
        rule: when it counts as holding.
        judge: from the study's result to a verdict.
        data: the data set that it is about, None for any.
    """

    study: str
    says: str
    rule: str
    judge: Callable[[StudyResult], Verdict]
    data: str | None = None


def _together(parts: list[tuple[str, bool]], absent: Iterable[str] = ()) -> Verdict:
    """All parts must hold; part of the evidence can refute a claim, and cannot confirm it.

    Args:
        parts: what was measured, and whether the claim holds there.
        absent: what the rule asks for beside it.
    """
    absent = list(absent)
    shown = [text for text, _ in parts] + ([f"missing: {', '.join(absent)}"] if absent else [])
    holds = all(holds for _, holds in parts)
    undecided = not parts or (holds and absent)
    return Verdict("; ".join(shown) or "nothing was measured", None if undecided else holds)


def _value(row: pd.Series) -> str:
    spread = " dB (one seed)" if np.isnan(row["std"]) else f" ± {row['std']:.2f} dB"
    return f"{row['psnr']:.2f}{spread}"


def reconstructs_best(result: StudyResult) -> Verdict:
    """VDL-NL against every other family, at equal high sparsity."""
    table = result.more["at_zeros"]
    parts, absent = [], []
    for at in HIGH_SPARSITY:
        rows = table[np.isclose(table["zeros"], at)].set_index("family")
        reached = rows.dropna(subset="psnr")
        unreached = sorted({"vdl_nl", *rows.index} - set(reached.index))
        absent += [f"{family} at {100 * at:g} % zeros" for family in unreached]
        others = reached.drop(index="vdl_nl", errors="ignore")
        if others.empty and not unreached:
            absent.append(f"a rival at {100 * at:g} % zeros")
        if "vdl_nl" not in reached.index or others.empty:
            continue
        ours, best = reached.loc["vdl_nl"], others.loc[others["psnr"].idxmax()]
        spread = np.hypot(*np.nan_to_num([ours["std"], best["std"]]))
        text = (
            f"at {100 * at:g} % zeros VDL-NL {_value(ours)}, next best {best.name} {_value(best)}"
        )
        parts.append((text, bool(ours["psnr"] - best["psnr"] > spread)))
    return _together(parts, absent)


def linear_on_par(result: StudyResult) -> Verdict:
    """VDL against SDL at equal sparsity."""
    parts, absent = [], []
    for at, rows in result.more["at_zeros"].groupby("zeros"):
        pair = rows.dropna(subset="psnr").set_index("family")
        unreached = sorted({"sdl", "vdl"} - set(pair.index))
        absent += [f"{family} at {100 * at:g} % zeros" for family in unreached]
        if unreached:
            continue
        ours, theirs = pair.loc["vdl"], pair.loc["sdl"]
        text = f"at {100 * at:g} % zeros VDL {_value(ours)}, SDL {_value(theirs)}"
        parts.append((text, bool(abs(ours["psnr"] - theirs["psnr"]) <= ON_PAR)))
    return _together(parts, absent)


def denoises(result: StudyResult) -> Verdict:
    """The reconstruction of a noisy image against the noisy image."""
    best = result.more["best"]
    ours = best[best["family"].isin(["vdl", "vdl_nl"])]
    parts = []
    for row in ours.itertuples():
        change = f"from {row.psnr_noisy:.1f} to {row.psnr_denoised:.1f} dB"
        holds = bool(row.psnr_denoised > row.psnr_noisy + 1)
        parts.append((f"{row.family} at σ = {row.noise:g} {change}", holds))
    return _together(parts, sorted({"vdl", "vdl_nl"} - set(ours["family"])))


def beats_classical_denoisers(result: StudyResult) -> Verdict:
    """The best family against the best of scikit-image; not a claim of the paper."""
    parts = []
    for noise, rows in result.more["best"].groupby("noise"):
        peers = result.more["peers"].query("noise == @noise")
        ours = rows.loc[rows["psnr_denoised"].idxmax()]
        theirs = peers.loc[peers["psnr_denoised"].idxmax()]
        text = (
            f"σ = {noise:g}: {ours['family']} {ours['psnr_denoised']:.1f} dB, "
            f"{theirs['peer']} {theirs['psnr_denoised']:.1f} dB"
        )
        parts.append((text, bool(ours["psnr_denoised"] > theirs["psnr_denoised"])))
    return _together(parts)


def classifies_best(result: StudyResult) -> Verdict:
    """VDL-NL's codes against all other methods, with few labels."""
    summary = result.more["summary"].astype({"labels_per_class": str})
    parts, absent = [], []
    for count in FEW_LABELS:
        rows = summary[summary["labels_per_class"] == count].set_index("method")
        others = rows.drop(index="vdl_nl", errors="ignore")
        if "vdl_nl" not in rows.index or others.empty:
            absent.append(f"vdl_nl and a rival at {count} per class")
            continue
        ours, best = rows.loc["vdl_nl"], others.loc[others["top1"].idxmin()]
        text = (
            f"{count} per class: VDL-NL {100 * ours['top1']:.1f} ± {100 * ours['top1_std']:.1f} %, "
            f"next best {best.name} {100 * best['top1']:.1f} ± {100 * best['top1_std']:.1f} %"
        )
        parts.append((text, bool(ours["top1"] < best["top1"])))
    return _together(parts, absent)


def collapses(result: StudyResult) -> Verdict:
    """Codes and decoder without regularisation, over training and beside VDL."""
    keys, table = ["sparsity_weight", "family"], result.table
    final = table[table["epoch"] == table.groupby("run")["epoch"].transform("max")]
    ends = final.groupby(keys)["code_std"].mean().unstack()
    ends = ends.reindex(columns=["none", "vdl"]).dropna()
    change = result.more["change"].groupby(keys)[["code_l1", "code_std", "column_norm"]].mean()
    parts = []
    for weight, end in ends.iterrows():
        size, spread, norm = change.loc[(weight, "none")]
        text = (
            f"λ = {weight:g}: without regularisation the spread of codes ends at {end['none']:.3f} "
            f"(× {spread:.2f} since the first epoch; their l1 norm × {size:.2f}) and column norms "
            f"grow × {norm:.2f}; VDL's spread ends at {end['vdl']:.3f}"
        )
        parts.append((text, bool(spread < 1 and norm > 1 and end["none"] < end["vdl"] / 2)))
    return _together(parts, [] if parts else ["VDL and a model without regularisation at one λ"])


def atoms_grow(result: StudyResult) -> Verdict:
    """Area of atoms at the smallest and the largest λ of each family with several."""
    areas = result.more["summary"].groupby(["family", "sparsity_weight"])["median_active_area"]
    parts, absent = [], []
    for family, values in areas.mean().dropna().groupby("family"):
        if len(values) < 2:
            absent.append(f"a second λ of {family}")
            continue
        small, large = values.iloc[0], values.iloc[-1]
        lowest, highest = (values.index[i][1] for i in (0, -1))
        text = (
            f"{family}: {100 * small:.0f} % of the pixels at λ = {lowest:g}, "
            f"{100 * large:.0f} % at {highest:g}"
        )
        parts.append((text, bool(large > 1.2 * small)))
    return _together(parts, absent)


def atoms_are_gabors(result: StudyResult) -> Verdict:
    """Share of Gabor-like atoms of each model."""
    parts = [
        (
            f"{row.family} at λ = {row.sparsity_weight:g}: {100 * row.gabor_like:.0f} %",
            bool(row.gabor_like >= 0.5),
        )
        for row in result.more["summary"].itertuples()
    ]
    return _together(parts)


CLAIMS = (
    Claim(
        "regret",
        "At high sparsity VDL-NL reconstructs best.",
        "At 90 and 95 % zeros VDL-NL's mean PSNR exceeds the next best family's by more than the "
        "root of the sum of their variances over seeds (0 where there is one seed).",
        reconstructs_best,
    ),
    Claim(
        "regret",
        "VDL is on par with SDL.",
        f"At each share of zeros their mean PSNR differ by at most {ON_PAR:g} dB.",
        linear_on_par,
    ),
    Claim(
        "denoising",
        "Sparse codes learned with variance regularisation are useful for denoising.",
        "VDL and VDL-NL raise the PSNR of the noisy image by more than 1 dB at every noise level.",
        denoises,
    ),
    Claim(
        "denoising",
        "(Not in the paper:) sparse codes denoise better than total variation, wavelets and "
        "non-local means.",
        "At every noise level the best family's PSNR exceeds the best of the three.",
        beats_classical_denoisers,
    ),
    Claim(
        "low_data",
        "With at most 10 labels per class VDL-NL's features classify best.",
        "At 1, 2, 5 and 10 labels per class VDL-NL has the lowest mean top-1 error of all methods.",
        classifies_best,
    ),
    Claim(
        "features",
        "Atoms go from strokes to whole digits as λ grows.",
        "For every family the median share of pixels that hold 90 % of the energy of an atom in "
        "use is 1.2 times as large at the largest λ as at the smallest.",
        atoms_grow,
        "mnist",
    ),
    Claim(
        "features",
        "Atoms of natural image patches are Gabor-like.",
        "A Gabor function explains half the energy of at least half of each model's atoms in use.",
        atoms_are_gabors,
        "imagenet_patches",
    ),
    Claim(
        "ablation",
        "Without regularisation codes collapse while the decoder grows.",
        "Over training the spread of codes falls and column norms rise, and the spread ends under "
        "half of VDL's at the same λ.",
        collapses,
    ),
)
