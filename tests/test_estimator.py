"""The scikit-learn face: its own checks, every family, and codes that scikit-learn agrees with."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import FAMILIES
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.decomposition import sparse_encode
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from sparse_lightning import SparseCoding
from sparse_lightning.errors import DivergenceError, SettingError
from sparse_lightning.learner import mini_batches
from sparse_lightning.model import SparseAutoencoder

# With an encoder and the hinge; and with neither.
TINY = {"n_components": 4, "max_epochs": 2, "alpha": 0.01, "random_state": 0}
CHECKED = [SparseCoding(family=family, hidden_dim=5, **TINY) for family in ("vdl_nl", "do_nl")]


@parametrize_with_checks(CHECKED)
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def digits() -> np.ndarray:
    """Digits of 8×8 pixels, standardised as a whole."""
    rows = load_digits().data[:300]
    return ((rows - rows.mean()) / rows.std()).astype(np.float32)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family(family: str, digits, tmp_path: Path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    states = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    small = {"hidden_dim": 24, "alpha": 0.003, "max_epochs": 2, "batch_size": 101}
    model = SparseCoding(16, family=family, random_state=3, **small).fit(digits)
    assert torch.equal(states[0], torch.random.get_rng_state())
    assert np.array_equal(states[1], np.random.get_state()[1])
    assert not list(tmp_path.iterdir())
    assert "".join(capfd.readouterr()) == ""

    codes = model.transform(digits)
    assert codes.shape == (300, 16)
    assert codes.dtype == model.components_.dtype == np.float32
    assert codes.min() >= 0 < codes.max()
    is_one = all(
        torch.allclose(norms, torch.ones_like(norms), atol=1e-5)
        for norms in model.model_.decoder.column_norms()
    )
    assert is_one is (model.model_.constraint is not None)
    if model.model_.encoder is not None:
        theirs = model.model_.encode(torch.tensor(digits)).detach()
        np.testing.assert_allclose(codes, theirs, atol=1e-6)
    rebuilt = model.inverse_transform(codes)
    if not family.endswith("_nl"):
        np.testing.assert_allclose(rebuilt, codes @ model.components_, atol=1e-5)
    errors = ((digits - rebuilt) ** 2).sum() / ((digits - digits.mean(0)) ** 2).sum()
    assert model.score(digits) == pytest.approx(1 - errors, abs=1e-4)
    for algorithm in ("auto", "inference"):
        model.transform_algorithm = algorithm
        some = model.transform(digits[40:47])
        np.testing.assert_allclose(some, model.transform(digits)[40:47], atol=1e-5)
    assert (model.n_iter_, model.n_steps_, model.alpha_) == (2, 6, 0.003)
    again = pickle.loads(pickle.dumps(model)).partial_fit(digits)
    np.testing.assert_array_equal(again.components_, model.partial_fit(digits).components_)


@pytest.mark.parametrize("family", ["do", "vdl"])
def test_inference_is_scikit_learns_positive_lasso(family, digits):
    """Its α is λ d / 2; neither the encoder nor the hinge holds the codes."""
    numbers = {"alpha": 0.02, "solver": "adaptive", "max_epochs": 1, "random_state": 0}
    numbers["transform_algorithm"] = "inference"
    model = SparseCoding(20, family=family, **numbers).fit(digits)
    expected = sparse_encode(
        digits.astype(float), model.components_.astype(float), algorithm="lasso_cd", positive=True,
        alpha=0.02 * 64 / 2, max_iter=10_000,
    )  # fmt: skip

    def energies(codes: np.ndarray) -> np.ndarray:
        return ((digits - codes @ model.components_) ** 2).mean(1) + 0.02 * codes.sum(1)

    ours, theirs = energies(model.transform(digits)), energies(expected)
    # Its stopping rule is fixed, and looser than ours.
    assert (ours <= theirs * (1 + 1e-4)).all()
    np.testing.assert_allclose(ours, theirs, rtol=5e-3)


def test_a_target_finds_alpha(digits):
    numbers = {"alpha": 0.05, "max_epochs": 24, "batch_size": 50, "random_state": 0}
    model = SparseCoding(32, family="do", target_zeros=0.9, **numbers).fit(digits)
    active = (model.transform(digits) > 0).mean()
    assert 0.1 / 1.25 < active < 0.1 * 1.25
    found = model.alpha_
    assert found != 0.05
    assert model.partial_fit(digits).alpha_ == found
    with pytest.warns(ConvergenceWarning, match=r"target_zeros=0\.999 was not reached"):
        SparseCoding(8, family="sdl", target_zeros=0.999, max_epochs=3).fit(digits)


def test_pipelines_searches_and_names(digits):
    labels = load_digits().target[:300]
    coding = SparseCoding(12, family="sdl", max_epochs=1, random_state=0)
    pipeline = make_pipeline(coding, LogisticRegression(max_iter=20))
    search = GridSearchCV(pipeline, {"sparsecoding__alpha": [0.001, 0.01]}, cv=2)
    with pytest.warns(ConvergenceWarning):
        search.fit(digits, labels)
    assert search.best_score_ > 0.2
    frame = pd.DataFrame(digits, columns=[f"pixel {i}" for i in range(64)])
    codes = clone(coding).set_output(transform="pandas").fit_transform(frame)
    assert list(codes.columns) == [f"sparsecoding{i}" for i in range(12)]


@pytest.mark.slow
def test_a_search_in_two_processes(digits):
    coding = SparseCoding(12, family="vdl_nl", hidden_dim=24, max_epochs=1, random_state=0)
    grid = {"alpha": [0.001, 0.01]}
    one, two = (
        GridSearchCV(coding, grid, cv=2, n_jobs=jobs).fit(digits).cv_results_["mean_test_score"]
        for jobs in (1, 2)
    )
    np.testing.assert_allclose(one, two, rtol=1e-5)


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"family": "sld"}, r"family='sld' is not known: take .*do, do_nl"),
        ({"family": "topk"}, r"family='topk' learns without inference, by EndToEnd: take one"),
        ({"solver": "lars"}, r"solver='lars' is not known"),
        ({"preset": "cifar"}, r"preset='cifar' is not known"),
        ({"n_components": 0}, r"n_components=0 must be a whole number"),
        ({"alpha": -1}, r"alpha=-1 must be a finite number"),
        ({"transform_algorithm": "lars"}, r"transform_algorithm='lars' is not known"),
        ({"family": "do", "transform_algorithm": "encoder"}, r"family='do' has none"),
        ({"batch_size": 1}, r"batch_size=1 leaves family='vdl_nl' no variance"),
        ({"target_zeros": 0.9, "alpha": 0.0}, r"alpha=0\.0 is no start for target_zeros=0\.9"),
        ({"target_zeros": 0.9, "max_epochs": 2}, r"max_epochs=2 is too short"),
        ({"target_zeros": 9}, r"target_zeros=9 must lie between 0 and 1"),
        ({"target_zeros": "0.5"}, r"target_zeros='0\.5' must lie .* as the number 0\.9"),
    ],
)
def test_parameters_that_cannot_work_are_refused(parameters, told, digits):
    with pytest.raises(SettingError, match=told):
        SparseCoding(**({"hidden_dim": 4} | parameters)).fit(digits[:10])


def test_another_way_to_codes_is_checked_after_learning_too(digits):
    coding = SparseCoding(family="do", **TINY).fit(digits)
    with pytest.raises(SettingError, match="transform_algorithm='lars' is not known"):
        coding.set_params(transform_algorithm="lars").transform(digits)
    with pytest.raises(SettingError, match="family='do' has none"):
        coding.set_params(transform_algorithm="encoder").transform(digits)


def test_learning_goes_on_with_parameters_that_were_set_since(digits):
    coding = SparseCoding(family="sdl", batch_size=100, **TINY).fit(digits)
    steps = coding.n_steps_
    coding.set_params(alpha=0.5, batch_size=30).partial_fit(digits)
    assert (coding.n_steps_ - steps, coding.alpha_) == (10, 0.5)
    assert coding.set_params(max_epochs=9, verbose=False).partial_fit(digits).alpha_ == 0.5
    for name, value in {"solver": "ista", "n_components": 5, "target_zeros": 0.9}.items():
        before = getattr(coding, name)
        with pytest.raises(SettingError, match=rf"^{name}={value!r} is for a new model, and this"):
            coding.set_params(**{name: value}).partial_fit(digits)
        coding.set_params(**{name: before})
    with pytest.raises(SettingError, match="alpha=-1 must be"):
        coding.set_params(alpha=-1).partial_fit(digits)


def test_as_many_rows_are_rebuilt_at_a_time_as_are_encoded(digits, monkeypatch):
    coding, sizes = SparseCoding(family="sdl", **TINY).fit(digits), []
    expected = coding.inverse_transform(coding.transform(digits))
    monkeypatch.setattr("sparse_lightning.estimator.CHUNK", 120)
    coding.model_.decoder.register_forward_hook(lambda _, codes, __: sizes.append(len(codes[0])))
    rebuilt = coding.inverse_transform(coding.transform(digits))
    np.testing.assert_allclose(rebuilt, expected, atol=1e-5)
    coding.score(digits)
    assert sizes == 2 * [120, 120, 60]


def test_presets_that_are_offered_work(digits):
    with pytest.raises(SettingError, match="preset='image_folder' is not known") as refused:
        SparseCoding(preset="image_folder").fit(digits[:10])
    offered = str(refused.value).partition(": take ")[2].removesuffix(".").split(", ")
    assert {"arrays", "mnist", "imagenet_patches"} <= {*offered}
    for preset in offered:
        small = {"n_components": 2, "hidden_dim": 2, "max_epochs": 1}
        assert SparseCoding(preset=preset, **small).fit(digits[:10]).n_steps_ == 1


def test_the_numbers_of_rows_of_any_kind_go_with_their_width(digits):
    coding = SparseCoding(family="sdl", max_epochs=1, random_state=0).fit(digits)
    assert coding.components_.shape == (128, 64)
    assert coding.alpha_ == pytest.approx(1 / 64, rel=1e-2)
    assert coding.model_.solver.step_size == pytest.approx(0.03 * 64)
    assert coding.model_.optimizer_settings.encoder_learning_rate == 1e-3
    wide = SparseCoding(4, family="sdl", max_epochs=1, random_state=0).fit(np.tile(digits, 2))
    assert wide.alpha_ == pytest.approx(1 / 128, rel=1e-2)


@pytest.mark.parametrize("family", ["sdl", "vdl", "wdl"])
def test_a_target_is_found_in_few_batches_too(family):
    """Ten atoms, two in each row, and twelve batches an epoch."""
    random = np.random.default_rng(0)
    codes = np.zeros((1_200, 10))
    for row in codes:
        row[random.choice(10, 2, replace=False)] = 0.5 + random.exponential(size=2)
    rows = codes @ random.normal(size=(10, 16))
    rows = (rows - rows.mean()) / rows.std()
    numbers = {"target_zeros": 0.8, "batch_size": 100, "max_epochs": 60, "random_state": 0}
    coding = SparseCoding(10, family=family, **numbers).fit(rows)  # Without a warning.
    assert coding.score(rows) > 0.3


def test_codes_of_another_width_are_refused(digits):
    model = SparseCoding(family="sdl", **TINY).fit(digits)
    with pytest.raises(ValueError, match="Codes have 3 components, and this SparseCoding has 4"):
        model.inverse_transform(np.ones((2, 3)))


def test_a_row_that_is_left_over_joins_the_batch_before():
    assert mini_batches([4, 3, 2, 1, 0], 2, fewest=2) == [[4, 3], [2, 1, 0]]
    assert mini_batches([4, 3, 2, 1, 0], 2, fewest=1) == [[4, 3], [2, 1], [0]]
    assert mini_batches([1, 0], 250, fewest=2) == [[1, 0]]


def test_components_rebuild_what_a_linear_network_rebuilds(digits):
    model = SparseCoding(family="sdl_ln", hidden_dim=5, **TINY).fit(digits)
    codes = model.transform(digits)
    np.testing.assert_allclose(codes @ model.components_, model.inverse_transform(codes), atol=1e-4)


def test_components_of_a_network_are_drawn_at_its_largest_codes(digits, monkeypatch):
    """Of the last epoch; those that were never active are drawn at 1."""
    found, infer = [], SparseAutoencoder.infer_batch

    def recorded(*arguments):
        found.append(infer(*arguments))
        return found[-1]

    monkeypatch.setattr(SparseAutoencoder, "infer_batch", recorded)
    numbers = {"alpha": 0.03, "max_epochs": 2, "batch_size": 150, "random_state": 0}
    model = SparseCoding(20, family="do_nl", hidden_dim=8, **numbers).fit(digits)
    assert len(found) == 4
    largest = torch.cat([inference.solution.codes for inference in found[2:]]).amax(0).numpy()
    assert 0 == largest.min() < largest.max() != 1
    scale = np.where(largest > 0, largest, 1)
    nothing, *drawn = model.inverse_transform(np.vstack([0 * scale, np.diag(scale)]))
    np.testing.assert_allclose(model.components_, np.array(drawn) - nothing, atol=1e-6)


def test_a_score_compares_with_the_mean_of_the_rows_that_were_learned_from(digits):
    model = SparseCoding(family="sdl", **TINY).fit(digits)
    rows = digits[:50] + 1
    rebuilt = model.inverse_transform(model.transform(rows))
    errors = ((rows - rebuilt) ** 2).sum() / ((rows - digits.mean(0)) ** 2).sum()
    assert model.score(rows) == pytest.approx(1 - errors, abs=1e-4)


def test_pictures_of_another_size_are_told_in_a_sentence(digits):
    with pytest.raises(SettingError, match=r"preset='arrays' has no image_shape: take .*mnist"):
        SparseCoding(family="sdl_conv", **TINY).fit(digits)
    with pytest.raises(SettingError, match="image_shape"):
        SparseCoding(family="sdl_conv", preset="mnist", **TINY).fit(digits)


def test_verbose_prints_a_line_for_each_epoch(digits, capsys):
    SparseCoding(family="sdl", verbose=True, **TINY).fit(digits)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["epoch 1", "epoch 2"]
    assert "zeros 0." in lines[1]
    assert lines[1].endswith("alpha 0.01")


def test_rows_and_columns_in_reverse_order(digits):
    coding = SparseCoding(family="sdl", **TINY).fit(digits[::-1])
    codes = coding.transform(digits)
    np.testing.assert_allclose(coding.transform(digits[::-1])[::-1], codes, atol=1e-6)
    np.testing.assert_allclose(
        coding.inverse_transform(codes[::-1])[::-1], coding.inverse_transform(codes), atol=1e-6
    )


def test_a_refused_fit_leaves_what_was_learned(digits):
    new = SparseCoding(family="sdl", target_zeros=0.9, **TINY)
    with pytest.raises(SettingError, match="max_epochs=2 is too short"):
        new.fit(digits)
    with pytest.raises(NotFittedError):
        new.transform(digits)
    coding = SparseCoding(family="sdl", **TINY).fit(digits)
    before = coding.transform(digits)
    for settings in ({"target_zeros": 9, "max_epochs": 5}, {"family": "vdl_nl", "hidden_dim": -1}):
        with pytest.raises(SettingError):
            clone(coding).set_params(**settings).fit(digits)
        with pytest.raises(SettingError):
            coding.set_params(**settings).fit(digits)
        assert np.array_equal(coding.transform(digits), before)
        coding.set_params(target_zeros=None, max_epochs=2, family="sdl", hidden_dim=None)
    broken = digits.copy()
    broken[0, 0] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        coding.set_params(family="do_nl").fit(broken)
    # Of rows that were refused neither width nor names stay.
    named = pd.DataFrame(broken[:, :9], columns=list("abcdefghi"))
    with pytest.raises(ValueError, match="NaN"):
        coding.fit(named)
    with pytest.raises(ValueError, match="seed"):
        coding.set_params(random_state="no seed").fit(digits[:, :9])
    coding.set_params(family="sdl")
    assert np.array_equal(coding.transform(digits), before)
    assert not hasattr(coding, "feature_names_in_")


def test_a_fit_that_ends_early_is_not_fitted(digits, monkeypatch):
    coding = SparseCoding(family="sdl", **TINY).fit(digits)

    def fall(*arguments):
        raise DivergenceError("fallen")

    monkeypatch.setattr("sparse_lightning.learner.Learner.epoch", fall)
    with pytest.raises(DivergenceError):
        coding.fit(digits)
    with pytest.raises(NotFittedError):
        coding.transform(digits)
