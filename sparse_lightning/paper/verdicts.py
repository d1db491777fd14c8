"""One of three words for a claim, by intervals of differences over seeds (`statistics`).

Evidence that is missing leaves a claim open. So does a word that the change of the last doubling of
epochs would turn: adding that change to both ends of the interval must leave it as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from sparse_lightning.paper.statistics import Interval, Rules, Sample, difference, number


class Word(StrEnum):
    """What a verdict says."""

    HOLDS = "holds"
    FAILS = "does not hold"
    OPEN = "open"


@dataclass(frozen=True)
class Finding:
    """A word, and the numbers that it follows from."""

    word: Word
    shown: str


def together(findings: Sequence[Finding]) -> Finding:
    """A claim of several parts: one that fails refutes it, and all must hold for it to hold."""
    words = {finding.word for finding in findings}
    word = Word.FAILS if Word.FAILS in words else Word.HOLDS if words == {Word.HOLDS} else Word.OPEN
    return Finding(word, "; ".join(f.shown for f in findings) or "nothing was measured")


def above(
    name: str,
    ours: Sample,
    rivals: Mapping[str, Sample],
    rules: Rules,
    *,
    judged: Sequence[Sample] = (),
    least_epochs: int = 0,
    comparisons: int | None = None,
    unit: str = "dB",
) -> Finding:
    """Whether ours is larger than every rival: a conjunction of intervals.

    It holds if each interval of ours − rival lies above 0. It fails if one lies below 0 after
    Bonferroni's correction, and a rival that is no evidence neither supports nor refutes it.

    Args:
        name: of what is claimed to be larger, such as ``VDL-NL at 90 % zeros``.
        ours: its values.
        rivals: by name, those of the claim, measured or not.
        rules: constants.
        judged: all families that the claim judges, if not only ours and the rivals; the variance
            is pooled over those that are evidence.
        least_epochs: that make a model evidence.
        comparisons: that the claim makes in all, if not only with these rivals.
        unit: of the values.
    """
    lacking = ours.missing(rules, least_epochs)
    if lacking:
        return Finding(Word.OPEN, f"{name}: missing {lacking}")
    lacks = {
        rival: theirs.missing_beside(ours, rules, least_epochs) for rival, theirs in rivals.items()
    }
    evidence = {rival: theirs for rival, theirs in rivals.items() if not lacks[rival]}
    pool = [
        sample
        for sample in judged or (ours, *rivals.values())
        if not sample.missing_beside(ours, rules, least_epochs)
    ]
    corrected = 1 - (1 - rules.confidence) / (comparisons or max(1, len(rivals)))
    findings = []
    for rival, theirs in evidence.items():
        levels = (rules.confidence, corrected)
        plain, strict = (
            difference(ours, theirs, pool, level, rules.largest_ratio) for level in levels
        )
        more = abs(ours.change - theirs.change)
        word = _converged(_sign(plain, strict), _sign(plain.widened(more), strict.widened(more)))
        shown = f"{rival}: {plain.told(unit)}" + _moves(more, unit)
        findings.append(Finding(word, shown))
    findings += [
        Finding(Word.OPEN, f"{rival}: missing {lack}") for rival, lack in lacks.items() if lack
    ]
    result = together(findings)
    return Finding(result.word, f"{name} {ours.told(unit)}, less that of {result.shown}")


def _sign(plain: Interval, strict: Interval) -> Word:
    if plain.low > 0:
        return Word.HOLDS
    return Word.FAILS if strict.high < 0 else Word.OPEN


def _converged(now: Word, later: Word) -> Word:
    """Open if more training could give another word."""
    return now if now is later else Word.OPEN


def on_par(
    name: str,
    ours: Sample,
    theirs: Sample,
    rules: Rules,
    *,
    least_epochs: int = 0,
    margin: float | None = None,
) -> Finding:
    """Whether two PSNR are equal within a margin m.

    It holds if the narrower interval lies inside ±m, and fails if the wider lies outside. The
    variance is pooled over these two, which are the families that are judged.

    Args:
        name: of the comparison.
        ours, theirs: the two.
        rules: constants.
        least_epochs: that make a model evidence.
        margin: m in dB, if not the rules' margin of parity.
    """
    for sample, other in ((ours, theirs), (theirs, ours)):
        if lacking := sample.missing_beside(other, rules, least_epochs):
            return Finding(Word.OPEN, f"{name}: missing {lacking}")
    levels = (rules.parity_confidence, rules.confidence)
    narrow, wide = (
        difference(ours, theirs, (ours, theirs), level, rules.largest_ratio) for level in levels
    )
    more = abs(ours.change - theirs.change)
    margin = rules.parity_margin if margin is None else margin
    word = _converged(
        _inside(narrow, wide, margin), _inside(narrow.widened(more), wide.widened(more), margin)
    )
    shown = (f"{it.told('dB')} at {100 * level:g} %" for it, level in zip((narrow, wide), levels))
    return Finding(word, f"{name}: {', '.join(shown)}" + _moves(more, "dB"))


def _inside(narrow: Interval, wide: Interval, margin: float) -> Word:
    if -margin < narrow.low and narrow.high < margin:
        return Word.HOLDS
    return Word.FAILS if wide.low > margin or wide.high < -margin else Word.OPEN


def _moves(change: float, unit: str) -> str:
    told = f"{number(change, unit)} {unit}".strip()
    return f" (± {told} by the last doubling of epochs)" if change else ""
