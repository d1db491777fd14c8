"""What a setting does: models of one family that differ in it, and in nothing else.

Other studies take models of one family and λ for seeds of one another. This one tells apart every
setting: β, T, the size of batches, how they are drawn, the solver, epochs, widths, or any other
that a sweep runs over. The numbers are those of the test at the end of each training.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from sparse_lightning.errors import DataError, NoModelsError
from sparse_lightning.quality import quality_of
from sparse_lightning.studies.study_result import StudyResult
from sparse_lightning.studies.trained_models import TrainedModel

MEASURES = ("zeros", "dead_units", "code_std", "below_threshold")
# All settings of a solver change with its class.
SOLVER = "model.solver"


def settings(trained_models: Sequence[TrainedModel]) -> StudyResult:
    """Test results, setting by setting.

    Args:
        trained_models: of any families and settings, one or more seeds of each.

    Returns:
        ``table``: one row per model, with a column for every setting in which models of a family
        differ, and the test's ``psnr`` in dB (``r2`` of data that are no images), ``zeros``,
        ``dead_units``, ``code_std`` and ``below_threshold``; ``effects``: for every family, setting
        and value the means and standard deviations over ``seeds`` of the models whose other
        settings are the family's most frequent ones.

    Raises:
        NoModelsError: no two models of a family differ in a setting.
        DataError: a run has no test results.
    """
    families = pd.Series([trained.columns["family"] for trained in trained_models])
    chosen = pd.DataFrame([_settings(trained) for trained in trained_models]).fillna("none")
    chosen[SOLVER] = _solvers(chosen, families)
    varied = _varied(chosen, families)
    if not varied:
        raise NoModelsError(
            "study=settings compares models of one family whose settings differ, and these differ "
            "in the seed alone: give runs= of a sweep over a setting."
        )
    results = pd.DataFrame([_results(trained) for trained in trained_models])
    columns = pd.DataFrame([trained.columns for trained in trained_models])
    table = columns.drop(columns=varied, errors="ignore").join(chosen[varied]).join(results)
    return StudyResult(table, {"effects": effects(table, varied)})


def _settings(trained: TrainedModel) -> dict[str, str]:
    """Value of each setting, as text; of the solver also its class."""
    found = {name: _text(value) for name, value in trained.settings.items()}
    return found | {SOLVER: found.get(f"{SOLVER}._target_", "none").rpartition(".")[2]}


def _solvers(chosen: pd.DataFrame, families: pd.Series) -> pd.Series:
    """The solver as one setting: its class, and those of its settings that differ in a family."""
    names = chosen[SOLVER].copy()
    own = [name for name in chosen if name.startswith(f"{SOLVER}.")]
    for _, group in chosen.groupby([families, SOLVER]):
        for name in own:
            if group[name].nunique() > 1:
                names[group.index] += f", {name.removeprefix(f'{SOLVER}.')} " + group[name]
    return names


def _varied(chosen: pd.DataFrame, families: pd.Series) -> list[str]:
    """Settings that differ in a family; of those that change together, as widths do, the first."""
    found: dict[str, list[int]] = {}
    for name in chosen:
        differs = chosen[name].groupby(families).nunique().max() > 1
        models = pd.factorize(families + "\0" + chosen[name])[0].tolist()
        if differs and not name.startswith(f"{SOLVER}.") and models not in found.values():
            found[name] = models
    return list(found)


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _results(trained: TrainedModel) -> dict[str, float]:
    tested = trained.run.results or {}
    if "test/zeros" not in tested:
        raise DataError(
            f"{trained.run.folder} has no test results, which study=settings compares: train it to "
            "its end, or leave it out."
        )
    names = (quality_of(tested).name, *MEASURES)
    return {name: tested[f"test/{name}"] for name in names}


def effects(table: pd.DataFrame, varied: Sequence[str]) -> pd.DataFrame:
    """Rows of ``effects``, see `settings`."""
    measures = [quality_of(table).name, *MEASURES]
    parts = []
    for family, models in table.groupby("family", sort=False):
        usual = models[list(varied)].mode().iloc[0]
        for name in varied:
            others = [other for other in varied if other != name]
            alike = models[(models[others] == usual[others]).all(axis=1)]
            if alike[name].nunique() < 2:
                continue
            groups = alike.groupby(name)[measures]
            found = groups.mean().join(groups.std().add_suffix("_std"))
            found.insert(0, "seeds", groups.size())
            found = found.rename_axis("value").reset_index()
            found.insert(0, "setting", name)
            found.insert(0, "family", family)
            parts.append(found.sort_values("value", key=in_order))
    columns = ["family", "setting", "value", "seeds"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def in_order(values: pd.Series) -> pd.Series:
    """Numbers by size; texts as they are."""
    numbers = pd.to_numeric(values, errors="coerce")
    return values if numbers.isna().any() else numbers
