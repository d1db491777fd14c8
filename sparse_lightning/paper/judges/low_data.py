"""Classification with few labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from sparse_lightning.paper.judges.evidence import ABSENT, lacks_of_choice, least_epochs, solvers
from sparse_lightning.paper.statistics import Rules, Sample
from sparse_lightning.paper.verdicts import Finding, above, together
from sparse_lightning.studies.low_data import UNVALIDATED, VALIDATED
from sparse_lightning.studies.study_result import StudyResult


def classifies_best(
    result: StudyResult, rules: Rules, by_inference: bool = False, arm: str = VALIDATED
) -> Finding:
    """VDL-NL's codes against other methods, with few labels, by accuracy."""
    rivals = [*rules.few_label_rivals, *(rules.rivals_by_inference if by_inference else [])]
    rivals = _in_arm(rivals, arm, rules)
    findings = []
    for count in rules.few_labels:
        values = _accuracies(result, rules, arm, count)
        finding = above(
            f"VDL-NL with {count} per class",
            values.get("vdl_nl", ABSENT),
            {rival: values.get(rival, ABSENT) for rival in rivals},
            rules,
            least_epochs=least_epochs(result, rules),
            comparisons=len(rivals) * len(rules.few_labels),
            unit="% right",
        )
        findings.append(finding)
    return together(findings)


def codes_beat_pixels(result: StudyResult, rules: Rules, arm: str = VALIDATED) -> Finding:
    """Every family's codes against classifiers of pixels, but for what the paper excepts."""
    families = {
        count: [
            family
            for family in rules.families_with_codes
            if count not in rules.excepted_with_codes.get(family, ())
        ]
        for count in rules.labels_with_codes
    }
    findings, classifiers = [], _in_arm(rules.pixel_classifiers, arm, rules)
    for count, named in families.items():
        values = _accuracies(result, rules, arm, count)
        judged = [values.get(family, ABSENT) for family in named]
        for family, ours in zip(named, judged):
            finding = above(
                f"{family} with {count} per class",
                ours,
                {rival: values.get(rival, ABSENT) for rival in classifiers},
                rules,
                judged=judged,
                least_epochs=least_epochs(result, rules),
                comparisons=len(classifiers) * sum(map(len, families.values())),
                unit="% right",
            )
            findings.append(finding)
    return together(findings)


def _in_arm(methods: Sequence[str], arm: str, rules: Rules) -> list[str]:
    """Those that can do without labels of validation images, where an arm has none."""
    lacking = rules.needs_validation if arm == UNVALIDATED else ()
    return [method for method in methods if method not in lacking]


def _accuracies(result: StudyResult, rules: Rules, arm: str, count: int) -> dict[str, Sample]:
    """By method, in %."""
    summary = result.more["summary"]
    rows = summary[(summary["arm"] == arm) & (summary["labels_per_class"] == str(count))]
    solvers_of = solvers(result)
    lacks = {} if arm == UNVALIDATED else lacks_of_choice(result, rules)
    return {
        row.method: _accuracy(
            row, rules, solvers_of.get(row.method, frozenset()), lacks.get(row.method)
        )
        for row in rows.itertuples()
    }


def _accuracy(row: NamedTuple, rules: Rules, solvers: frozenset[str], lack: str | None) -> Sample:
    """In %; of a method without model seeds it is what it is, on the draws that all share."""
    accuracy = 100 * (1 - row.top1)
    if row.model_seeds == math.inf:
        return Sample.fixed(accuracy)
    # What sees pixels has no model: its replicates are draws of labels, and its own start.
    is_model = row.method not in rules.pixel_classifiers
    change = -100 * row.change if is_model else 0.0
    return Sample(
        accuracy, 100 * row.top1_std, row.model_seeds, change, row.epochs, is_model, solvers, lack
    )
