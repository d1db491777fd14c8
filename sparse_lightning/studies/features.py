r"""What the code components stand for (Figs. 2 to 5 and 11 to 14 of the paper).

The atom of component j is :math:`D(s_j e_j) - D(0)`, with :math:`s_j` the largest value that the
component takes on validation images: the response of a non-linear decoder depends on it. Encoder
filters are the rows of U. Each atom's orientation, frequency and size are those of the Gabor
function nearest to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from sparse_lightning.data.module import SplitDataModule
from sparse_lightning.features import active_area, orientation_share
from sparse_lightning.findings import Findings, Pictures
from sparse_lightning.gabor import fit_gabor
from sparse_lightning.studies.coding import all_codes, fingerprint
from sparse_lightning.studies.memory import Memory
from sparse_lightning.studies.subjects import Subject

ATOM, FILTER = "atom", "encoder filter"


def features(
    subjects: Sequence[Subject],
    data: SplitDataModule,
    memory: Memory,
    num_images: int | None = 2000,
    gabor_threshold: float = 0.5,
    gabors: bool = True,
) -> Findings:
    """Atoms and encoder filters, and what can be measured of them.

    Args:
        subjects: models of any families, λ and seeds.
        data: whose validation images tell how large each component gets.
        memory: of what is known already.
        num_images: the first so many of them, None for all.
        gabor_threshold: share of an atom's energy that a Gabor function must explain for the
            atom to count as Gabor-like.
        gabors: whether to fit them at all.

    Returns:
        ``table``: one row per atom: ``scale`` (s_j), ``active`` (fraction of images),
        ``orientation_share``, ``active_area`` and the fields of `GaborFit`; ``summary``: one row
        per model with the share of Gabor-like and of oriented atoms, and the median area; pictures
        of atoms and filters.
    """
    samples = fingerprint(data)
    rows, index, pixels = [], [], []
    for subject in tqdm(subjects, desc="features", unit="model"):
        codes = memory.array(
            ["codes", subject.digest, samples, "val", num_images],
            lambda s=subject: all_codes(s.model, data, "val", num_images),
        )
        atoms = _tiles(subject.model.decoder.atoms(_scales(codes)), data)
        measured = memory.rows(
            ["features", subject.digest, samples, num_images, gabors],
            lambda c=codes, a=atoms: _measure(c, a, gabors),
        )
        rows += [subject.columns | row for row in measured]
        shown = {ATOM: atoms}
        if subject.model.encoder is not None:
            shown[FILTER] = _tiles(subject.model.encoder.filters(), data)
        for kind, tiles in shown.items():
            index += [subject.columns | {"kind": kind, "unit": j} for j in range(len(tiles))]
            pixels.append(tiles)
    table = pd.DataFrame(rows)
    if gabors:
        table["gabor_like"] = table["explained"] >= gabor_threshold
    pictures = Pictures(pd.DataFrame(index), np.concatenate(pixels))
    return Findings(table, {"summary": summary(table)}, pictures)


def _scales(codes: np.ndarray) -> torch.Tensor:
    largest = torch.from_numpy(codes).amax(0)
    # A component that is never active is shown at a scale of 1, to see what it would draw.
    return torch.where(largest > 0, largest, 1.0)


def _tiles(vectors: torch.Tensor, data: SplitDataModule) -> np.ndarray:
    return vectors.reshape(-1, *data.image_shape).numpy()


def _measure(codes: np.ndarray, atoms: np.ndarray, gabors: bool) -> list[dict]:
    active, largest = (codes > 0).mean(0), codes.max(0)
    tiles = torch.from_numpy(atoms)
    shares, areas = orientation_share(tiles), active_area(tiles)
    rows = []
    for unit, atom in enumerate(atoms):
        row = {
            "unit": unit,
            "scale": float(largest[unit]),
            "active": float(active[unit]),
            "orientation_share": float(shares[unit]),
            "active_area": float(areas[unit]),
        }
        if gabors:
            row |= {name: float(value) for name, value in asdict(fit_gabor(atom)).items()}
        rows.append(row)
    return rows


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """One row per model: shares of atoms, and the median share of the image that an atom covers."""
    keys = ["data", "family", "sparsity_weight", "seed", "run"]
    oriented = table.assign(oriented=table["orientation_share"] >= 0.5, dead=table["active"] == 0)
    means = ["oriented", "dead", *({"gabor_like"} & set(table.columns))]
    grouped = oriented.groupby(keys)
    area = grouped["active_area"].median().rename("median_active_area")
    return grouped[means].mean().join(area).reset_index()
