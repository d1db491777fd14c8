r"""What evidence over seeds says: intervals, and one of three words.

Seeds are independent replicates. The difference of two families' means has the interval

.. math:: \bar a - \bar b \pm t_{\nu}\, \sqrt{s_a^2 / n_a + s_b^2 / n_b},

where both variances are the one pooled over the families that are judged, with
:math:`\nu = \sum_f (n_f - 1)`. Where two deviations differ too much for one variance, each keeps
its own, and ν is that of Welch and Satterthwaite. So it does where the replicates of one are no
seeds of a model. A family that is much quieter than one of the two is not in the pool: it would
promise a precision that the two do not have.

Values that are equal for every seed, as shares of whole pixels may be, tell nothing of their
spread: the interval is then the whole line.

Evidence that is missing decides nothing: too few seeds, too few epochs, a value that was not
measured, families that different solvers have trained, without a control, or a verdict that the
change of the last doubling of epochs would turn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from scipy import stats


class Word(StrEnum):
    """What a verdict says."""

    HOLDS = "holds"
    FAILS = "does not hold"
    OPEN = "open"


@dataclass(frozen=True)
class Rules:
    """The constants of every verdict; their values are in ``conf/reproduce.yaml``.

    Attributes:
        confidence: of the interval of a difference, such as 0.95.
        parity_confidence: of the interval that must lie inside the margin of parity.
        parity_margin: within which two PSNR are on par, in dB.
        largest_ratio: of two deviations, from which on their variances are not pooled.
        least_seeds: from which on a family is evidence.
        least_epochs: by how titles of the data begin; data without an entry have no minimum.
        high_sparsity: shares of zeros that the paper's claim is about.
        rivals: families that VDL-NL is compared with.
        rivals_by_inference: further ones, whose codes take an inference.
        few_labels: labels per class that the paper's claim is about.
        few_label_rivals: methods that VDL-NL is compared with there.
        needs_validation: those of them that cannot do without validation labels.
        labels_with_codes: labels per class at which codes are compared with pixels.
        families_with_codes: families whose codes are.
        excepted_with_codes: numbers of labels that the claim leaves out, by family.
        pixel_classifiers: methods on pixels that they are compared with.
        families_with_strokes: families whose atoms are compared over λ.
        rivals_of_filters: families whose encoder filters WDL's are compared with.
        largest_weight_ratio: of a rival's λ to WDL's at which they are.
        alike_solvers: solvers by which a control has found a family's results alike; families that
            others have trained are not compared.
        ends_of_weights: the two λ at which a family's atoms and filters are judged, by how titles
            of the data begin and by family.
        growth: factor by which the extent of atoms must grow with λ.
        gabor_share: share of atoms that must be Gabor-like.
        collapse_epochs: over which collapse is followed, at least.
    """

    confidence: float
    parity_confidence: float
    parity_margin: float
    largest_ratio: float
    least_seeds: int
    least_epochs: Mapping[str, int]
    high_sparsity: Sequence[float]
    rivals: Sequence[str]
    rivals_by_inference: Sequence[str]
    few_labels: Sequence[int]
    few_label_rivals: Sequence[str]
    needs_validation: Sequence[str]
    labels_with_codes: Sequence[int]
    families_with_codes: Sequence[str]
    excepted_with_codes: Mapping[str, Sequence[int]]
    pixel_classifiers: Sequence[str]
    families_with_strokes: Sequence[str]
    rivals_of_filters: Sequence[str]
    largest_weight_ratio: float
    alike_solvers: Sequence[str]
    ends_of_weights: Mapping[str, Mapping[str, Sequence[float]]]
    growth: float
    gabor_share: float
    collapse_epochs: int


@dataclass(frozen=True)
class Sample:
    """A mean over seeds.

    Attributes:
        mean: in the units of what is compared, larger is better.
        deviation: standard deviation over seeds, NaN for one seed.
        seeds: how many; infinite for a reference that chance has no part in.
        change: what the last doubling of epochs changed; NaN if unknown.
        epochs: of training.
        of_models: whether the replicates are seeds of a model, whose variance is pooled with that
            of other models.
        solver: that found the codes in training; None for what has none.
        lack: what else keeps it from being evidence.
    """

    mean: float
    deviation: float
    seeds: float
    change: float = 0.0
    epochs: float = math.inf
    of_models: bool = True
    solver: str | None = None
    lack: str | None = None

    @classmethod
    def fixed(cls, value: float) -> Sample:
        """A reference that chance has no part in."""
        return cls(value, 0.0, math.inf)

    def missing(self, rules: Rules, least_epochs: int = 0) -> str | None:
        """What keeps it from being evidence, None if nothing does."""
        if self.lack:
            return self.lack
        if math.isnan(self.mean):
            return "its value"
        if self.seeds < rules.least_seeds:
            return f"seeds (it has {self.seeds:g} of {rules.least_seeds})"
        if math.isnan(self.deviation):
            return "a spread"
        if not self.epochs >= least_epochs:
            return f"epochs ({self.epochs:g} of {least_epochs})"
        if math.isnan(self.change):
            return "the change of the last doubling of epochs"
        return None

    def missing_beside(self, other: Sample, rules: Rules, least_epochs: int = 0) -> str | None:
        """What keeps it from being evidence in a comparison with another."""
        solvers = {self.solver, other.solver} - {None}
        if len(solvers) == 2 and not solvers <= {*rules.alike_solvers}:
            return f"a control of its solver, {self.solver} in place of {other.solver}"
        return self.missing(rules, least_epochs)


@dataclass(frozen=True)
class Interval:
    """A confidence interval of a difference."""

    low: float
    high: float

    def widened(self, by: float) -> Interval:
        """With so much added to both ends."""
        return Interval(self.low - by, self.high + by)

    def told(self, unit: str) -> str:
        """Such as ``+0.10 to +0.31 dB``."""
        return f"{_number(self.low, unit, '+')} to {_number(self.high, unit, '+')} {unit}".strip()


@dataclass(frozen=True)
class Spread:
    """A variance over seeds, pooled over families.

    Attributes:
        variance: of one seed.
        freedom: degrees of freedom.
    """

    variance: float
    freedom: float

    @classmethod
    def pooled(cls, samples: Sequence[Sample]) -> Spread:
        """That of models with at least two seeds; references have none."""
        models = [sample for sample in samples if sample.of_models]
        chance = [s for s in models if 1 < s.seeds < math.inf and not math.isnan(s.mean)]
        freedom = sum(sample.seeds - 1 for sample in chance)
        squares = sum((sample.seeds - 1) * sample.deviation**2 for sample in chance)
        return cls(squares / freedom if freedom else math.nan, freedom)


def difference(
    ours: Sample,
    theirs: Sample,
    judged: Sequence[Sample],
    confidence: float,
    largest_ratio: float,
) -> Interval:
    """Confidence interval of ours − theirs.

    Args:
        ours, theirs: both evidence.
        judged: all families that are, these two among them; the variance is pooled over those
            that are not much quieter than either.
        confidence: of the two-sided interval.
        largest_ratio: of the deviations of the two, above which Welch's form is used; and by which
            a quieter family stays out of the pool.

    Returns:
        The interval; the whole line where neither of the two has a spread.
    """
    pair = [sample for sample in (ours, theirs) if sample.seeds < math.inf]
    middle = ours.mean - theirs.mean
    if not pair:
        return Interval(middle, middle)
    noisiest = max(sample.deviation for sample in pair)
    if noisiest == 0:
        return Interval(-math.inf, math.inf)

    def is_too_quiet(sample: Sample) -> bool:
        return largest_ratio * sample.deviation < noisiest

    if any(is_too_quiet(sample) or not sample.of_models for sample in pair):
        parts = [sample.deviation**2 / sample.seeds for sample in pair]
        terms = [part**2 / (sample.seeds - 1) for part, sample in zip(parts, pair)]
        variance, freedom = sum(parts), sum(parts) ** 2 / (sum(terms) or math.nan)
    else:
        spread = Spread.pooled([sample for sample in judged if not is_too_quiet(sample)])
        variance = spread.variance * sum(1 / sample.seeds for sample in pair)
        freedom = spread.freedom
    half = stats.t.ppf((1 + confidence) / 2, freedom) * math.sqrt(variance)
    return Interval(middle - half, middle + half)


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
    pool = [s for s in judged or (ours, *rivals.values()) if not s.missing(rules, least_epochs)]
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
    return Finding(result.word, f"{name} {_value(ours, unit)}, less that of {result.shown}")


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
) -> Finding:
    """Whether two PSNR are equal within the margin of parity, m.

    It holds if the narrower interval lies inside ±m, and fails if the wider lies outside. The
    variance is pooled over these two, which are the families that are judged.

    Args:
        name: of the comparison.
        ours, theirs: the two.
        rules: constants.
        least_epochs: that make a model evidence.
    """
    for sample, other in ((ours, theirs), (theirs, ours)):
        if lacking := sample.missing_beside(other, rules, least_epochs):
            return Finding(Word.OPEN, f"{name}: missing {lacking}")
    levels = (rules.parity_confidence, rules.confidence)
    narrow, wide = (
        difference(ours, theirs, (ours, theirs), level, rules.largest_ratio) for level in levels
    )
    more, margin = abs(ours.change - theirs.change), rules.parity_margin
    word = _converged(
        _inside(narrow, wide, margin), _inside(narrow.widened(more), wide.widened(more), margin)
    )
    shown = (f"{it.told('dB')} at {100 * level:g} %" for it, level in zip((narrow, wide), levels))
    return Finding(word, f"{name}: {', '.join(shown)}" + _moves(more, "dB"))


def _inside(narrow: Interval, wide: Interval, margin: float) -> Word:
    if -margin < narrow.low and narrow.high < margin:
        return Word.HOLDS
    return Word.FAILS if wide.low > margin or wide.high < -margin else Word.OPEN


def _value(sample: Sample, unit: str) -> str:
    mean = _number(sample.mean, unit)
    if sample.seeds == math.inf:
        return f"{mean} {unit}".strip()
    trained = f", {sample.epochs:g} epochs" if math.isfinite(sample.epochs) else ""
    spread = f"{mean} ± {_number(sample.deviation, unit)} {unit}".strip()
    return f"{spread} ({sample.seeds:g} seeds{trained})"


def _moves(change: float, unit: str) -> str:
    told = f"{_number(change, unit)} {unit}".strip()
    return f" (± {told} by the last doubling of epochs)" if change else ""


def _number(value: float, unit: str, sign: str = "") -> str:
    """Shares and frequencies, which have no unit, are small."""
    return f"{value:{sign}.{2 if unit else 3}f}"
