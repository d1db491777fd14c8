"""Recovery of dictionaries that are known, or nearly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_study import TinyData, TinyModel

from sparse_lightning import FISTA, AdamSettings, Energy, LinearDecoder, SparseAutoencoder
from sparse_lightning.data.synthetic import SyntheticDictionary
from sparse_lightning.errors import SettingError
from sparse_lightning.figures.recovery import draw
from sparse_lightning.studies.classics import ONLINE, ClassicSettings
from sparse_lightning.studies.matching import Matching
from sparse_lightning.studies.recovery import RANDOM, measures, recovery, support_f1
from sparse_lightning.studies.result_cache import ResultCache


@pytest.fixture(scope="module")
def data() -> SyntheticDictionary:
    sizes = {"num_train": 400, "num_val": 50, "num_test": 60, "batch_size": 50}
    found = SyntheticDictionary(20, 12, 2, 0.02, **sizes)
    found.setup()
    return found


class Knowing(TinyModel):
    """Its atoms are the true ones, in another order."""

    def __init__(self, data: SyntheticDictionary) -> None:
        decoder = LinearDecoder(12, 20)
        with torch.no_grad():
            decoder.weight.copy_(data.atoms().flip(0).T)
        energy, settings = Energy(0.005), AdamSettings(1e-3, 1e-3)
        self.model = SparseAutoencoder(decoder, None, energy, FISTA(5.0), settings, family="do")
        self.digest = "knowing"
        self.columns = TinyModel("do", encoder=False).columns | {"data": data.title}


def test_who_knows_the_atoms_recovers_them_and_the_supports(data):
    classics = ClassicSettings([ONLINE], num_images=400, iterations=20, sparsity_weight=0.02)
    result = recovery([Knowing(data)], data, ResultCache(), 0.9, classics, classic_seeds=(0,))
    (row,) = result.table.to_dict("records")
    assert (row["codes"], row["recovered"]) == ("inference", 1.0)
    assert row["mean_cosine"] == pytest.approx(1.0)
    assert row["support_f1"] > 0.8
    others = result.more["neighbours"].set_index("name")
    assert others.loc[RANDOM, "recovered"] == 0
    assert others.loc[ONLINE, "recovered"] > 0.4
    # Pursuit with the true number of atoms.
    assert others["active"].to_list() == pytest.approx([2] * len(others), abs=0.1)
    ((name, figure),) = draw(result)
    assert name == "recovery"
    assert data.title in figure.get_suptitle()


def test_what_is_missing_counts_as_missing(data):
    atoms = data.atoms().numpy().copy()
    # Two of twelve are of something else: orthogonal to all others but one another's multiple.
    other = np.linalg.svd(atoms)[2][-1]
    atoms[[3, 7]] = other
    codes = data.codes["test"].numpy()
    found = measures(atoms, codes, data, 0.9)
    assert found["recovered"] == pytest.approx(10 / 12)
    assert found["mean_cosine"] == pytest.approx(10 / 12, abs=1e-5)
    assert found["active"] == pytest.approx(2)
    # Of eight atoms only: all that codes of the other four say is lost.
    some = measures(atoms[[0, 1, 2, 4, 5, 6, 8, 9]], codes[:, [0, 1, 2, 4, 5, 6, 8, 9]], data, 0.9)
    kept = (codes[:, [0, 1, 2, 4, 5, 6, 8, 9]] != 0).sum()
    assert some["recovered"] == pytest.approx(8 / 12)
    assert some["support_f1"] == pytest.approx(2 * kept / (kept + (codes != 0).sum()))


def test_atoms_of_signed_codes_are_recovered_up_to_their_sign():
    sizes = {"num_train": 20, "num_val": 10, "num_test": 10, "batch_size": 10}
    for signed, recovered in ((True, 1.0), (False, 0.0)):
        data = SyntheticDictionary(20, 12, 2, 0.02, signed=signed, **sizes)
        data.setup()
        found = measures(-data.atoms().numpy(), -data.codes["test"].numpy(), data, 0.9)
        assert found["recovered"] == recovered


def test_f1_by_hand():
    truth = np.array([[1, 1, 0], [0, 1, 0]], bool)
    found = np.array([[0, 1, 1, 1], [0, 0, 0, 1]], bool)
    # Component 0 of the truth is 1 of what was found, 1 is 3, and 2 is 0; 2 has no partner.
    matching = Matching(np.array([0, 1, 2]), np.array([1, 3, 0]), np.ones(3))
    # Three hits, none missed, one active without a partner.
    assert support_f1(truth, found, matching) == pytest.approx(2 * 3 / (2 * 3 + 1))
    assert np.isnan(support_f1(truth[:0], found[:0], matching))


def test_data_without_known_atoms_are_refused():
    with pytest.raises(SettingError, match="those of tiny are not: train models on data=synthetic"):
        recovery([TinyModel()], TinyData(), ResultCache())
