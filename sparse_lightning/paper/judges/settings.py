"""Whether it matters which solver trains a family."""

from __future__ import annotations

import math

import pandas as pd

from sparse_lightning.paper.judges.evidence import epochs_of, least_epochs, over_seeds
from sparse_lightning.paper.statistics import Rules, Sample
from sparse_lightning.paper.verdicts import Finding, on_par, together
from sparse_lightning.studies.equal_sparsity import interpolate
from sparse_lightning.studies.study_result import StudyResult


def alike_by_solver(result: StudyResult, rules: Rules) -> Finding:
    """PSNR of a control, less that of the family's curve at the control's zeros, seed by seed."""
    findings, table = [], result.table
    if "psnr" not in table:
        return together([])
    for family, models in table.groupby("family"):
        # The curve is of the solver with most models, and of equals the first by name.
        first, *others = models["solver"].sort_values().value_counts().index
        for solver in others:
            control = models[models["solver"] == solver]
            differences = _differences(control, models[models["solver"] == first], rules)
            own = over_seeds(differences, epochs_of(models))
            is_whole = differences.notna().all()
            lack = None if is_whole else "a curve on both sides of the control's zeros"
            finding = on_par(
                f"{family}, {solver} less {first} at equal zeros",
                Sample(own.mean, own.deviation, own.seeds, epochs=own.epochs, lack=lack),
                Sample.fixed(0.0),
                rules,
                least_epochs=least_epochs(result, rules),
                margin=rules.solver_margin,
            )
            findings.append(finding)
    return together(findings)


def _differences(control: pd.DataFrame, curve: pd.DataFrame, rules: Rules) -> pd.Series:
    """Of each seed, the mean over its controls; NaN where a control's zeros are not reached."""
    found = {}
    for seed, models in control.groupby("seed"):
        points = curve[curve["seed"] == seed]
        zeros, psnr = points["zeros"].to_numpy(), points["psnr"].to_numpy()
        gaps = [
            row.psnr - interpolate(zeros, psnr, row.zeros, rules.largest_gap)
            if len(points)
            else math.nan
            for row in models.itertuples()
        ]
        found[seed] = pd.Series(gaps).mean(skipna=False)
    return pd.Series(found)
