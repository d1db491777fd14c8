r"""What evidence over seeds says: intervals of differences, and what is missing.

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
measured, or families that different solvers have trained, without a control.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy import stats


@dataclass(frozen=True)
class Rules:
    """The constants of every verdict; their values are in ``conf/reproduce.yaml``.

    Attributes:
        confidence: of the interval of a difference, such as 0.95.
        parity_confidence: of the interval that must lie inside the margin of parity.
        parity_margin: within which two PSNR are on par, in dB.
        largest_ratio: of two deviations, from which on their variances are not pooled.
        least_seeds: from which on a family is evidence.
        least_weights: λ that validation must have to choose from, where one model of a family
            counts.
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
        families_with_hinge: families whose codes are learned with variance regularisation.
        denoising_candidates: families that the best one at denoising is chosen from.
        families_with_strokes: families whose atoms are compared over λ.
        rivals_of_filters: families whose encoder filters WDL's are compared with.
        largest_weight_ratio: of a rival's λ to WDL's at which they are.
        alike_solvers: solvers by which a control has found a family's results alike; families that
            others have trained are not compared.
        solver_margin: within which a control finds them alike, in dB at equal zeros.
        largest_gap: factor in active share that the two points must be closer than which a value
            at equal zeros is read off between.
        ends_of_weights: the two λ at which a family's atoms and filters are judged, by how titles
            of the data begin and by family.
        growth: factor by which the extent of atoms must grow with λ.
        gabor_share: share of atoms that must be Gabor-like.
        collapse_epochs: over which collapse is followed, at least.
        collapse_rivals: families that do not collapse, by the one that does.
    """

    confidence: float
    parity_confidence: float
    parity_margin: float
    largest_ratio: float
    least_seeds: int
    least_weights: int
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
    families_with_hinge: Sequence[str]
    denoising_candidates: Sequence[str]
    families_with_strokes: Sequence[str]
    rivals_of_filters: Sequence[str]
    largest_weight_ratio: float
    alike_solvers: Sequence[str]
    solver_margin: float
    largest_gap: float
    ends_of_weights: Mapping[str, Mapping[str, Sequence[float]]]
    growth: float
    gabor_share: float
    collapse_epochs: int
    collapse_rivals: Mapping[str, Sequence[str]]


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
        solvers: those that found the codes in training; none for what has no models.
        lack: what else keeps it from being evidence.
    """

    mean: float
    deviation: float
    seeds: float
    change: float = 0.0
    epochs: float = math.inf
    of_models: bool = True
    solvers: frozenset[str] = frozenset()
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
        solvers = self.solvers | other.solvers
        if len(solvers) > 1 and not solvers <= {*rules.alike_solvers}:
            return f"a control of the solvers {' and '.join(sorted(solvers))}"
        return self.missing(rules, least_epochs)

    def told(self, unit: str) -> str:
        """Such as ``17.00 ± 0.10 dB (3 seeds, 100 epochs)``."""
        mean = number(self.mean, unit)
        if self.seeds == math.inf:
            return f"{mean} {unit}".strip()
        trained = f", {self.epochs:g} epochs" if math.isfinite(self.epochs) else ""
        spread = f"{mean} ± {number(self.deviation, unit)} {unit}".strip()
        return f"{spread} ({self.seeds:g} seeds{trained})"


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
        return f"{number(self.low, unit, '+')} to {number(self.high, unit, '+')} {unit}".strip()


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


def number(value: float, unit: str, sign: str = "") -> str:
    """Shares and frequencies, which have no unit, are small."""
    return f"{value:{sign}.{2 if unit else 3}f}"
