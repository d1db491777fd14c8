"""Whether seeds find the same dictionary.

Models of one family and λ that differ in the seed alone are compared in pairs. Their atoms in use
are matched one to one, so that the sum of cosines is as large as it can be. What matched atoms have
in common is their cosine, and the correlation of their codes over test samples.

Matching finds similar pairs among any vectors, so each pair has a null that is matched likewise:
as many random unit atoms, either white or with the covariance of the training inputs. The second is
the stricter: its atoms, too, are smooth and lie where inputs vary. The null of the correlation
pairs each unit with the partner of another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from tqdm import tqdm

from sparse_lightning.data.module import SplitDataModule
from sparse_lightning.errors import NoModelsError
from sparse_lightning.studies.coding import all_codes, all_inputs, fingerprint, largest_codes
from sparse_lightning.studies.matching import correlations, matched
from sparse_lightning.studies.result_cache import ResultCache
from sparse_lightning.studies.study_result import StudyResult
from sparse_lightning.studies.trained_models import TrainedModel

MEASURES = [
    "zeros", "mean_cosine", "shared", "correlation",
    "null_white", "null_coloured", "null_mismatched",
]  # fmt: skip
KEYS = ["data", "family", "sparsity_weight", "max_epochs"]
# Training inputs whose span and covariance random atoms have.
COVARIANCE_SAMPLES = 5_000


def stability(
    trained_models: Sequence[TrainedModel],
    data: SplitDataModule,
    cache: ResultCache,
    num_images: int | None = 2000,
    threshold: float = 0.9,
    least_active: float = 0.01,
    null_seed: int = 0,
) -> StudyResult:
    """Agreement of seeds.

    Args:
        trained_models: of each family and λ at least two seeds; others are left out.
        data: whose validation and test samples are coded.
        cache: of what has been measured already.
        num_images: the first so many of either, None for all.
        threshold: cosine above which two atoms count as one.
        least_active: share of validation samples from which on an atom counts as used.
        null_seed: of random atoms and random pairs.

    Returns:
        ``table``: one row per pair of seeds: ``seed`` and ``other_seed``, ``used`` and
        ``other_used`` (atoms in use), ``mean_cosine`` of the matched, ``shared`` (pairs above the
        threshold, as a share of the smaller number in use), ``correlation`` (mean over pairs),
        ``zeros`` (mean of both), ``null_white``, ``null_coloured`` (mean cosines) and
        ``null_mismatched`` (NaN for fewer than two pairs of atoms); ``summary``: mean and
        standard deviation over pairs.

    Raises:
        NoModelsError: no family and λ has two seeds.
    """
    groups: dict[tuple, list[TrainedModel]] = {}
    for trained in trained_models:
        groups.setdefault(tuple(trained.columns[key] for key in KEYS), []).append(trained)
    # A pair is one pair, wherever its runs are: the key of its results has the seeds in order.
    for group in groups.values():
        group.sort(key=lambda trained: trained.columns["seed"])
    pairs = [pair for group in groups.values() for pair in combinations(group, 2)]
    if not pairs:
        raise NoModelsError(
            "study=stability compares seeds, and no family and λ here has two of them: "
            "train with seed=0,1."
        )
    setting = [fingerprint(data), num_images, threshold, least_active, null_seed]
    setting += [COVARIANCE_SAMPLES]
    rows = []
    for one, other in tqdm(pairs, desc="stability", unit="pair"):
        key = ["stability", one.digest, other.digest, *setting]
        measured = cache.rows(
            key,
            lambda pair=(one, other): [
                _compare(
                    [_in_use(t, data, cache, num_images, least_active) for t in pair],
                    pair[0].model.energy.penalty.is_signed,
                    all_inputs(data, "train", COVARIANCE_SAMPLES),
                    threshold,
                    np.random.default_rng(null_seed),
                )
            ],
        )
        names = {"other_seed": other.columns["seed"], "other_run": other.columns["run"]}
        rows += [one.columns | names | row for row in measured]
    # Rows of earlier versions have another null of the correlation.
    table = pd.DataFrame([dict.fromkeys(MEASURES, np.nan) | row for row in rows])
    return StudyResult(table, {"summary": summary(table)})


@dataclass(frozen=True)
class UnitsInUse:
    """The units of a model that are in use.

    Attributes:
        atoms: (k, d).
        codes: of test samples, (n, k).
        zeros: share of zeros among the test codes of all units.
    """

    atoms: np.ndarray
    codes: np.ndarray
    zeros: float


def _in_use(
    trained: TrainedModel,
    data: SplitDataModule,
    cache: ResultCache,
    num_images: int | None,
    least_active: float,
) -> UnitsInUse:
    # Each model is coded once, however many pairs it is in.
    val, test = (
        cache.array(
            ["codes", trained.digest, fingerprint(data), split, num_images],
            lambda split=split: all_codes(trained.model, data, split, num_images),
        )
        for split in ("val", "test")
    )
    used = (val != 0).mean(0) >= least_active
    atoms = trained.model.decoder.atoms(largest_codes(val)).numpy()
    return UnitsInUse(atoms[used], test[:, used], float((test == 0).mean()))


def _compare(
    pair: list[UnitsInUse],
    signed: bool,
    inputs: np.ndarray,
    threshold: float,
    generator: np.random.Generator,
) -> dict[str, float]:
    """What two models have in common; inputs (n, d) give random atoms their covariance."""
    one, other = pair
    sizes = [len(units.atoms) for units in pair]
    matching = matched(one.atoms, other.atoms, signed)
    paired = one.codes[:, matching.first], other.codes[:, matching.second]
    shuffled = paired[1][:, deranged(len(matching.second), generator)]
    centred = inputs - inputs.mean(0)
    white = [generator.standard_normal((size, inputs.shape[1])) for size in sizes]
    coloured = [generator.standard_normal((size, len(inputs))) @ centred for size in sizes]
    return {
        "used": sizes[0],
        "other_used": sizes[1],
        "zeros": (one.zeros + other.zeros) / 2,
        "mean_cosine": matching.mean,
        "shared": matching.share_above(threshold, min(sizes)),
        "correlation": _mean_correlation(*paired, signed),
        "null_white": matched(*white, signed).mean,
        "null_coloured": matched(*coloured, signed).mean,
        "null_mismatched": _mean_correlation(paired[0][:, : shuffled.shape[1]], shuffled, signed),
    }


def deranged(count: int, generator: np.random.Generator) -> np.ndarray:
    """A random order that leaves nothing in its place; of fewer than two, nothing."""
    order, partners = generator.permutation(count), np.empty(count, np.int64)
    partners[order] = np.roll(order, 1)
    return partners if count > 1 else partners[:0]


def _mean_correlation(first: np.ndarray, second: np.ndarray, signed: bool) -> float:
    """Over the columns of two sets of codes (n, k); NaN without any."""
    found = correlations(first, second)
    return float((np.abs(found) if signed else found).mean()) if len(found) else float("nan")


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation (``_std``; NaN for one pair) over the pairs of each λ.

    Returns:
        The keys, ``pairs`` (of models with atoms in use), and two columns for each of `MEASURES`.
    """
    grouped = table.groupby(KEYS, dropna=False)[MEASURES]
    spread = grouped.std().add_suffix("_std")
    return grouped.mean().join(spread).assign(pairs=grouped.count()["mean_cosine"]).reset_index()
