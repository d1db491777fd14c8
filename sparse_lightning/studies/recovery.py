r"""Whether learning finds the dictionary that its data were made from.

The atoms of a model are :math:`D(s_j e_j) - D(0)`, with :math:`s_j` the largest magnitude of the
component on validation samples. They are matched one to one with the true atoms, so that the sum of
cosines is as large as it can be. A true atom is recovered where that cosine is above a threshold.

The support of a code is the set of its active components, and by the matching each is compared
with the true support: :math:`F_1 = 2\,TP / (2\,TP + FP + FN)`, pooled over samples and
components. Active components without a partner are false positives, true ones without a partner
false negatives.

Beside the families stand dictionaries fitted by K-SVD and by online dictionary learning, coded by
orthogonal matching pursuit (`sparse_lightning.studies.classics`). They are told how many components
are active. The null is a dictionary of random unit atoms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from sparse_lightning.data.module import SplitDataModule
from sparse_lightning.data.synthetic import SyntheticDictionary
from sparse_lightning.errors import SettingError
from sparse_lightning.studies.classics import ClassicSettings, fitted_dictionary, pursued
from sparse_lightning.studies.coding import (
    all_codes,
    all_inputs,
    batches,
    fingerprint,
    largest_codes,
)
from sparse_lightning.studies.matching import Matching, matched
from sparse_lightning.studies.regret import ENCODER, INFERENCE
from sparse_lightning.studies.result_cache import ResultCache
from sparse_lightning.studies.study_result import StudyResult
from sparse_lightning.studies.trained_models import TrainedModel

RANDOM = "random atoms"


def recovery(
    trained_models: Sequence[TrainedModel],
    data: SplitDataModule,
    cache: ResultCache,
    threshold: float = 0.9,
    classics: ClassicSettings | None = None,
    classic_seeds: Sequence[int] = (0, 1, 2),
) -> StudyResult:
    """Atoms recovered and supports found.

    Args:
        trained_models: models of any families, λ and seeds, trained on ``data=synthetic``.
        data: which knows its atoms and the codes of its test samples.
        cache: of what has been measured already.
        threshold: cosine above which an atom counts as recovered.
        classics: how other dictionaries are fitted, None for none.
        classic_seeds: of what they begin as, and of random atoms.

    Returns:
        ``table``: one row per model and way of finding codes (``codes``): ``recovered`` (share of
        the true atoms), ``mean_cosine`` (over matched pairs), ``support_f1`` and ``active``, the
        mean number of active components;
        ``neighbours``: these numbers of each other method and seed, ``name`` and ``seed`` first.

    Raises:
        SettingError: data whose atoms are not known.
    """
    if not isinstance(data, SyntheticDictionary):
        raise SettingError(
            f"study=recovery needs data whose atoms are known, and those of {data.title} are not: "
            "train models on data=synthetic."
        )
    samples, rows = [fingerprint(data), threshold], []
    for trained in tqdm(trained_models, desc="recovery", unit="model"):
        key = ["recovery, active components", trained.digest, *samples]
        measured = cache.rows(key, lambda t=trained: _measure(t, data, threshold))
        rows += [trained.columns | row for row in measured]
    neighbours = []
    for name in [RANDOM] if classics is None else [RANDOM, *classics.installed()]:
        for seed in classic_seeds:
            own = replace(classics or ClassicSettings(), seed=seed)
            measured = cache.rows(
                ["recovery neighbour, active components", name, *samples, own.key()],
                lambda n=name, o=own: [_neighbour(n, data, threshold, o)],
            )
            neighbours += [{"data": data.title, "name": name, "seed": seed} | measured[0]]
    return StudyResult(pd.DataFrame(rows), {"neighbours": pd.DataFrame(neighbours)})


def _measure(trained: TrainedModel, data: SyntheticDictionary, threshold: float) -> list[dict]:
    model = trained.model
    atoms = model.decoder.atoms(largest_codes(all_codes(model, data, "val"))).numpy()
    found = {}
    if model.encoder is not None:
        found[ENCODER] = all_codes(model, data, "test")
    # Codes by inference are no codes of a sparse autoencoder.
    if model.training_rule.infers:
        found[INFERENCE] = _free_codes(trained, data)
    return [
        {"codes": way} | measures(atoms, codes, data, threshold) for way, codes in found.items()
    ]


def _free_codes(trained: TrainedModel, data: SplitDataModule) -> np.ndarray:
    found = [trained.model.infer_alone(batch.inputs) for batch in batches(data, "test")]
    return torch.cat(found).numpy()


def _neighbour(
    name: str, data: SyntheticDictionary, threshold: float, settings: ClassicSettings
) -> dict[str, float]:
    size = data.num_atoms, data.num_active
    if name == RANDOM:
        generator = np.random.default_rng(settings.seed)
        atoms = generator.standard_normal((data.num_atoms, data.input_dim))
    else:
        train = all_inputs(data, "train", settings.num_images)
        atoms = fitted_dictionary(name, train, *size, settings, positive=not data.signed)
    codes = pursued(all_inputs(data, "test"), atoms, data.num_active)
    return measures(atoms, codes, data, threshold)


def measures(
    atoms: np.ndarray, codes: np.ndarray, data: SyntheticDictionary, threshold: float
) -> dict[str, float]:
    """How well atoms (l, d) and codes (n, l) of the test samples agree with those of ``data``."""
    truth = data.atoms().numpy()
    matching = matched(truth, atoms, data.signed)
    return {
        "recovered": matching.share_above(threshold, len(truth)),
        "mean_cosine": matching.mean,
        "support_f1": support_f1(data.codes["test"].numpy() != 0, codes != 0, matching),
        "active": float((codes != 0).sum(axis=1).mean()),
    }


def support_f1(truth: np.ndarray, found: np.ndarray, matching: Matching) -> float:
    """F1 of supports.

    Args:
        truth: (n, l) which components are active.
        found: (n, l') likewise.
        matching: of components of ``truth`` with those of ``found``.
    """
    hits = int((truth[:, matching.first] & found[:, matching.second]).sum())
    total = int(truth.sum()) + int(found.sum())
    return 2 * hits / total if total else float("nan")
