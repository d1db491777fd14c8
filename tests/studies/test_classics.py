"""Pursuit against brute force, and dictionaries that other packages fit."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio
from tiny_study import TinyData, TinyModel

from sparse_lightning.decoders import LinearDecoder
from sparse_lightning.errors import SettingError
from sparse_lightning.figures.regret import draw
from sparse_lightning.studies import pursuit
from sparse_lightning.studies.classics import (
    KSVD,
    ONLINE,
    ClassicSettings,
    fitted_dictionary,
    pursued,
)
from sparse_lightning.studies.coding import all_inputs
from sparse_lightning.studies.pursuit import of_models
from sparse_lightning.studies.regret import regret
from sparse_lightning.studies.result_cache import ResultCache


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


def mean_psnr(clean: np.ndarray, other: np.ndarray) -> float:
    images = zip(clean.astype(float), other.astype(float))
    return float(np.mean([peak_signal_noise_ratio(*pair, data_range=1.0) for pair in images]))


def least_error(x: np.ndarray, atoms: np.ndarray, count: int) -> float:
    """The smallest squared error of any so many atoms, by least squares on each choice of them."""
    errors = []
    for chosen in itertools.combinations(range(len(atoms)), count):
        own = atoms[list(chosen)].T
        errors.append(((x - own @ np.linalg.lstsq(own, x, rcond=None)[0]) ** 2).sum())
    return min(errors)


def test_pursuit_is_the_best_choice_where_it_must_be(random):
    """One atom of any dictionary; any number of atoms that are orthogonal."""
    atoms, inputs = random.normal(size=(7, 5)) * 3, random.normal(size=(6, 5))
    found = ((inputs - pursued(inputs, atoms, 1) @ atoms) ** 2).sum(1)
    assert found == pytest.approx([least_error(x, atoms, 1) for x in inputs])
    orthogonal = 2 * np.linalg.qr(random.normal(size=(5, 5)))[0]
    codes = pursued(inputs, orthogonal, 3)
    assert ((codes != 0).sum(1) == 3).all()
    found = ((inputs - codes @ orthogonal) ** 2).sum(1)
    assert found == pytest.approx([least_error(x, orthogonal, 3) for x in inputs])


def test_pursuit_leaves_no_residual_along_its_atoms_and_takes_no_atom_of_zeros(random):
    atoms, inputs = random.normal(size=(9, 12)), random.normal(size=(4, 12))
    atoms[5] = 0
    codes = pursued(inputs, atoms, 4)
    assert (codes[:, 5] == 0).all()
    residual = inputs - codes @ atoms
    assert np.abs((residual @ atoms.T)[codes != 0]).max() < 1e-9


# The loops of dictlearn are compiled when they are first used.
@pytest.mark.parametrize("method", [ONLINE, pytest.param(KSVD, marks=pytest.mark.slow)])
def test_atoms_that_inputs_are_made_of_are_found(method):
    if method == KSVD:
        pytest.importorskip("dictlearn")
    random = np.random.default_rng(0)
    truth = np.linalg.qr(random.normal(size=(8, 8)))[0]
    codes = np.zeros((300, 8))
    for code in codes:
        code[random.choice(8, 2, replace=False)] = random.uniform(0.5, 1.5, 2)
    settings = ClassicSettings(iterations=100, sparsity_weight=0.05)
    atoms = fitted_dictionary(method, codes @ truth, 8, 2, settings)
    assert np.linalg.norm(atoms, axis=1) == pytest.approx(np.ones(8))
    assert (np.abs(atoms @ truth.T).max(0) > 0.95).all()


def test_codes_without_signs_need_an_atom_for_each_of_two_directions():
    """The inputs are a and -c, with 60° between a and c, and there is one atom for them."""
    a, c = np.array([1.0, 0.0]), np.array([0.5, 0.75**0.5])
    inputs = np.tile([a, -c], (50, 1))
    settings = ClassicSettings(iterations=50, sparsity_weight=0.01)
    of_signed = fitted_dictionary(ONLINE, inputs, 1, 1, settings)
    # With signs it is halfway between a and c, without them it is one of the inputs.
    assert np.abs(of_signed @ np.transpose([a, c])) == pytest.approx(0.75**0.5, abs=0.02)
    of_positive = fitted_dictionary(ONLINE, inputs, 1, 1, settings, positive=True)
    assert (of_positive @ np.transpose([a, -c])).max() == pytest.approx(1, abs=1e-3)


def test_settings_are_checked(monkeypatch):
    with pytest.raises(SettingError, match=r"unknown names \(k-means\)"):
        ClassicSettings(methods=["k-means"])
    with pytest.raises(SettingError, match=r"num_images=3 is less than the number of atoms, 8"):
        fitted_dictionary(ONLINE, np.ones((3, 4)), 8, 2, ClassicSettings())
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.warns(UserWarning, match="K-SVD is left out"):
        assert ClassicSettings().installed() == [ONLINE]


def test_dictionaries_of_more_atoms_than_samples_are_left_out():
    data = TinyData()
    with pytest.warns(UserWarning, match=r"are left out: they begin with 1000 training samples, "):
        table = pursuit.of_classics(1000, data, ResultCache(), 5, ClassicSettings())
    assert table.empty


def test_a_dictionary_that_needs_no_number_is_fitted_once(monkeypatch):
    fitted = []

    def fit(method, inputs, num_atoms, num_active, settings):
        fitted.append((method, num_active))
        return np.eye(num_atoms, inputs.shape[1])

    monkeypatch.setattr(pursuit, "fitted_dictionary", fit)
    monkeypatch.setattr(ClassicSettings, "installed", lambda self: [ONLINE, KSVD])
    table = pursuit.of_classics(
        12, TinyData(), ResultCache(), 5, ClassicSettings(num_active=(2, 3))
    )
    assert len(table) == 4
    assert fitted == [(ONLINE, 0), (KSVD, 2), (KSVD, 3)]


def test_regret_has_other_dictionaries_and_pursuit_of_its_own():
    data, models = TinyData(), [TinyModel(), TinyModel("do", encoder=False, run="other")]
    classics = ClassicSettings([ONLINE], (2, 3), num_images=60, iterations=2)
    result = regret(models, data, ResultCache(), classics=classics, most_pursued=12)
    test = all_inputs(data, "test")
    row = result.more["classics"].set_index("active").loc[3]
    atoms = fitted_dictionary(ONLINE, all_inputs(data, "train"), 12, 3, classics)
    rebuilt = pursued(test, atoms, 3) @ atoms
    clean, other = test * 0.3 + 0.5, rebuilt * 0.3 + 0.5
    assert row["psnr"] == pytest.approx(mean_psnr(clean, other), abs=1e-3)
    assert row["zeros"] == pytest.approx(9 / 12, abs=0.01)
    pursuit = result.more["pursuit"].set_index("family")
    own = result.table.set_index(["family", "codes"])["zeros"]
    for family, way in (("sdl", "encoder"), ("do", "inference")):
        assert pursuit.loc[family, "active"] == round(12 * (1 - own[family, way]))
    atoms = models[1].model.decoder.weight.detach().numpy().T
    rebuilt = pursued(test, atoms, int(pursuit.loc["do", "active"])) @ atoms
    expected = mean_psnr(clean, rebuilt * 0.3 + 0.5)
    assert pursuit.loc["do", "psnr"] == pytest.approx(expected, abs=1e-3)
    figures = dict(draw(result))
    labels = figures["regret"].axes[0].get_legend_handles_labels()[1]
    assert f"{ONLINE}, OMP" in labels
    assert "pursuit" in figures


def test_pursuit_leaves_the_bias_of_a_decoder_to_it():
    data, models = TinyData(), []
    for has_bias in (False, True):
        trained = TinyModel(seed=has_bias)
        decoder = LinearDecoder(12, data.input_dim, has_bias=has_bias)
        decoder.weight.data = torch.randn(decoder.weight.shape, generator=torch.manual_seed(0))
        if has_bias:
            decoder.bias.data += 3.0
            trained.settings["model.decoder.has_bias"] = True
        trained.model.decoder, trained.columns["run"] = decoder.requires_grad_(False), str(has_bias)
        models.append(trained)
    moved = TinyData()
    for split in moved.splits.values():
        split.tensors = split.tensors._replace(inputs=split.tensors.inputs + 3.0)
    own = pd.DataFrame({"family": "sdl", "run": ["False", "True"], "zeros": 0.75, "code_dim": 12})
    plain, biased = (
        of_models([trained], own, given, ResultCache(), None, 32)["psnr"].item()
        for trained, given in zip(models, (data, moved))
    )
    assert biased == pytest.approx(plain, abs=1e-3)
