r"""Rate and distortion: how many bits a code is, and what it rebuilds.

Codes are quantised uniformly, :math:`q_j = \mathrm{round}(z_j / \Delta)`, and images are rebuilt
from :math:`\Delta q`. The rate is the entropy of the units one by one, in bits per image,

.. math::
    R = \sum_j H(q_j) = \sum_j \Big[ h(p_j) + p_j\, H(q_j \mid q_j \ne 0) \Big],
    \qquad p_j = P(q_j \ne 0),

with :math:`h(p) = -p \log_2 p - (1 - p) \log_2 (1 - p)`. The first part says which units are
active, the second how active they are. An entropy coder that knows the frequencies of each unit's
symbols comes close to this rate. Dependencies between units are not used. Frequencies are those of
the measured images; neither they nor the decoder are part of the rate. Entropies of few images are
too low, by about (symbols - 1) / (2 n ln 2) bits for each unit.

The step is a multiple of the root mean square of a model's active components, since families differ
in the scale of their codes. Principal components, quantised likewise, stand beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor
from tqdm import tqdm

from sparse_lightning.data.module import SplitDataModule
from sparse_lightning.errors import SettingError
from sparse_lightning.studies.coding import (
    ReconstructionQuality,
    all_codes,
    batches,
    fingerprint,
)
from sparse_lightning.studies.references import PrincipalComponents
from sparse_lightning.studies.result_cache import ResultCache
from sparse_lightning.studies.study_result import StudyResult
from sparse_lightning.studies.trained_models import TrainedModel

Rebuild = Callable[[Tensor], Tensor]


def rate(
    trained_models: Sequence[TrainedModel],
    data: SplitDataModule,
    cache: ResultCache,
    num_images: int | None = None,
    steps: Sequence[float] = (0.125, 0.25, 0.5, 1.0),
    num_components: Sequence[int] = (4, 8, 16, 32, 64),
) -> StudyResult:
    """Bits per image against PSNR, or R² of inputs that are no images.

    Args:
        trained_models: models of any families, λ and seeds, judged by their own codes.
        data: whose test images are coded.
        cache: of what has been measured already.
        num_images: the first so many test images, None for all.
        steps: quantisation steps, as multiples of the root mean square of active components.
        num_components: numbers of principal components that are quantised for reference.

    Returns:
        ``table``: one row per model and step: ``step`` (relative), ``delta``, ``bits``,
        ``support_bits``, ``amplitude_bits`` (per image), ``zeros`` (after quantisation), and
        ``psnr`` in dB, or ``r2`` of inputs that are no images; ``references``: the same of each
        number of principal components.

    Raises:
        SettingError: a step that is not above 0.
    """
    if min(steps) <= 0:
        raise SettingError(f"study.compute.steps={list(steps)} must all be above 0.")
    setting, rows = [fingerprint(data), num_images, list(steps)], []
    test = CodedImages(data, num_images)
    for trained in tqdm(trained_models, desc="rate", unit="model"):
        key = ["rate", trained.digest, *setting]
        measured = cache.rows(key, lambda t=trained: _of_model(t, test, steps))
        rows += [trained.columns | row for row in measured]
    references = cache.rows(
        ["rate of components", *setting, list(num_components)],
        lambda: _of_components(test, steps, num_components),
    )
    return StudyResult(pd.DataFrame(rows), {"references": pd.DataFrame(references)})


@dataclass(frozen=True)
class CodedImages:
    """The images that are coded.

    Attributes:
        data: whose test split they are the first ``count`` of, None for all.
    """

    data: SplitDataModule
    count: int | None

    def quality(self, codes: np.ndarray, rebuild: Rebuild) -> dict[str, float]:
        """PSNR, or R² of inputs that are no images, of what codes (n, l) rebuild."""
        quality, done = ReconstructionQuality(self.data), 0
        for batch in batches(self.data, "test", self.count):
            own = torch.from_numpy(codes[done : done + len(batch.inputs)]).float()
            quality.update(batch, rebuild(own))
            done += len(own)
        return quality.compute()


def _of_model(trained: TrainedModel, test: CodedImages, steps: Sequence[float]) -> list[dict]:
    codes = all_codes(trained.model, test.data, "test", test.count)
    return _curve(codes, lambda c: trained.model.decode(c).detach(), test, steps)


def _of_components(
    test: CodedImages, steps: Sequence[float], num_components: Sequence[int]
) -> list[dict]:
    components = PrincipalComponents.of(test.data)
    inputs = torch.cat([batch.inputs for batch in batches(test.data, "test", test.count)])
    rows = []
    for number in (number for number in num_components if number <= len(components.mean)):
        chosen = components.directions[:, :number]
        codes = ((inputs.double() - components.mean) @ chosen).float().numpy()

        def rebuild(quantised: Tensor, chosen: Tensor = chosen) -> Tensor:
            return (components.mean + quantised.double() @ chosen.T).float()

        rows += [{"components": number} | row for row in _curve(codes, rebuild, test, steps)]
    return rows


def _curve(
    codes: np.ndarray, rebuild: Rebuild, test: CodedImages, steps: Sequence[float]
) -> list[dict]:
    """A row for each step, of codes (n, l)."""
    active = codes[codes != 0]
    size = float(np.sqrt(np.mean(np.square(active, dtype=np.float64)))) if len(active) else 1.0
    rows = []
    for step in steps:
        symbols = np.rint(codes / (step * size)).astype(np.int64)
        support, amplitudes = bits(symbols)
        quality = test.quality(symbols * (step * size), rebuild)
        rows.append(
            {
                "step": step,
                "delta": step * size,
                "bits": support + amplitudes,
                "support_bits": support,
                "amplitude_bits": amplitudes,
                "zeros": float((symbols == 0).mean()),
            }
            | quality
        )
    return rows


def bits(symbols: np.ndarray) -> tuple[float, float]:
    """Bits per sample of which units are active, and of how active they are.

    Args:
        symbols: (n, l), whole numbers, 0 where a unit is not active.
    """
    support = amplitudes = 0.0
    for unit in symbols.T:
        active = unit[unit != 0]
        if len(active) == 0:
            continue
        share = len(active) / len(unit)
        support += stats.entropy([share, 1 - share], base=2)
        amplitudes += share * stats.entropy(np.unique(active, return_counts=True)[1], base=2)
    return float(support), float(amplitudes)
