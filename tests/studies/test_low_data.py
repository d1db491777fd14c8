"""Classification with few labels: draws, errors and classifiers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from tiny_study import FlatValidation, TinyData, TinyModel

from sparse_lightning.errors import SettingError
from sparse_lightning.figures.low_data import error_curves
from sparse_lightning.studies import classifiers
from sparse_lightning.studies.classifiers import (
    ScratchSettings,
    Split,
    lista_from_scratch,
    logistic_regression,
    nearest_neighbours,
    top_error,
)
from sparse_lightning.studies.coding import all_codes
from sparse_lightning.studies.labelled import draw_labels
from sparse_lightning.studies.low_data import AUTHORS, UNVALIDATED, VALIDATED, low_data, summary
from sparse_lightning.studies.pixel_classifiers import Penalties, linear_baselines, scaled
from sparse_lightning.studies.result_cache import ResultCache

SCRATCH = {"code_dim": 8, "steps": 40, "check_every": 10, "learning_rates": [1e-2]}


def blobs(seed: int, count: int = 90) -> Split:
    """Three overlapping clouds in six dimensions."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    centres = np.random.default_rng(0).standard_normal((3, 6))
    features = centres[labels] + generator.standard_normal((count, 6))
    return Split(features.astype(np.float32), labels)


@pytest.fixture
def splits() -> dict[str, Split]:
    return {"val": blobs(1), "test": blobs(2)}


def test_top_errors_of_a_made_up_table():
    scores = np.array([[0.1, 0.5, 0.2, 0.15], [0.4, 0.3, 0.2, 0.1], [0.0, 0.1, 0.2, 0.7]])
    labels = np.array([1, 2, 0])
    assert top_error(scores, labels, 1) == pytest.approx(2 / 3)
    assert top_error(scores, labels, 2) == pytest.approx(2 / 3)
    assert top_error(scores, labels, 3) == pytest.approx(1 / 3)
    assert top_error(scores, labels, 4) == 0


def test_equal_scores_do_not_flatter():
    assert top_error(np.zeros((4, 3)), np.array([0, 1, 2, 2]), 1) == 0.75


def test_linear_is_logistic_regression_at_the_best_penalty(splits):
    train, choices = blobs(0, 30), (1e-3, 1e-1, 10.0)
    found = logistic_regression(train, splits, choices)
    models = {
        c: LogisticRegression(C=c, max_iter=3000, tol=1e-6).fit(train.features, train.labels)
        for c in choices
    }
    errors = {c: 1 - model.score(*splits["val"]) for c, model in models.items()}
    assert found.setting == min(errors, key=errors.get)
    assert found.val_error == pytest.approx(min(errors.values()))
    assert found.top1 == pytest.approx(1 - models[found.setting].score(*splits["test"]))
    assert found.top3 == 0


def test_two_classes_have_one_score_and_two_columns():
    train, val, test = (Split(s.features[s.labels < 2], s.labels[s.labels < 2]) for s in (
        blobs(0, 30), blobs(1), blobs(2)))  # fmt: skip
    found = logistic_regression(train, {"val": val, "test": test}, (1.0,))
    model = LogisticRegression().fit(*train)
    assert found.top1 == pytest.approx(1 - model.score(*test))
    assert found.top3 == 0


def test_patience_ends_the_search_after_as_many_in_vain(splits, monkeypatch):
    errors = iter([0.5, 0.4, 0.4, 0.3, 0.35, 0.3, 0.1])
    choices = tuple(10.0**k for k in range(-4, 3))
    monkeypatch.setattr(classifiers, "outcome", lambda setting, *_: setting)
    monkeypatch.setattr(classifiers, "top_error", lambda *_: next(errors))
    assert logistic_regression(blobs(0, 30), splits, choices, patience=2) == 1e-1
    assert next(errors) == 0.1, "the fifth and sixth were in vain, and the last was not tried"


def test_neighbours_are_those_of_scikit_learn(splits):
    train = blobs(0, 30)
    for count in (1, 5):
        expected = KNeighborsClassifier(count, weights="distance").fit(*train)
        found = nearest_neighbours(train, splits, (count,))
        assert found.top1 == pytest.approx(1 - expected.score(*splits["test"]))
        assert found.val_error == pytest.approx(1 - expected.score(*splits["val"]))
    counts = (1, 5, 30)
    scores = [
        KNeighborsClassifier(count, weights="distance").fit(*train).score(*splits["val"])
        for count in counts
    ]
    # Of 1000 neighbours there are 30.
    chosen = nearest_neighbours(train, splits, (1, 5, 1000))
    assert chosen.setting == counts[int(np.argmax(scores))]


def test_the_number_of_neighbours_is_chosen_on_validation_labels():
    train = Split(np.array([[0.0], [1.0], [-1.1]]), np.array([1, 0, 0]))
    queries = np.full((3, 1), 0.45)
    # The nearest sample votes for 1, and all three together for 0.
    by_one, by_three = Split(queries, np.ones(3, int)), Split(queries, np.zeros(3, int))
    for val, test, best in ((by_one, by_three, 1), (by_three, by_one, 3)):
        found = nearest_neighbours(train, {"val": val, "test": test}, (1, 3))
        assert (found.setting, found.val_error, found.top1) == (best, 0, 1)


def test_further_guesses_of_one_neighbour_come_from_the_others():
    # One neighbour votes for its class alone; the second and third guess are the next nearest's.
    train = Split(np.array([[0.0], [1.0], [2.0], [9.0], [10.0]]), np.array([4, 3, 2, 1, 0]))
    queries = Split(np.array([[-0.1]] * 3), np.array([4, 3, 2]))
    found = nearest_neighbours(train, {"val": queries, "test": queries}, (1, 4))
    assert (found.setting, found.top1, found.top3) == (1, pytest.approx(2 / 3), 0)


def test_each_number_of_labels_needs_its_number_of_draws():
    with pytest.raises(SettingError, match=r"num_draws=\[3\] must have one number for each"):
        low_data([], TinyData(), ResultCache(), labels_per_class=[1, 2], num_draws=[3])


def test_lista_from_scratch_learns(splits):
    settings = ScratchSettings(code_dim=16, steps=200, learning_rates=[1e-2])
    found = lista_from_scratch(blobs(0), splits, settings, seed=0)
    assert found.top1 < 0.4
    assert found == lista_from_scratch(blobs(0), splits, settings, seed=0)


def contrary(split: Split) -> Split:
    """Each sample with the label of another class."""
    return split._replace(labels=(split.labels + 1) % 3)


def test_the_learning_rate_of_lista_is_chosen_on_validation_labels(splits):
    """What has learned the training labels is right of the true ones, and wrong of the others."""
    true, other = splits["val"], contrary(splits["test"])
    settings = ScratchSettings(code_dim=8, steps=20, learning_rates=[1e-6, 0.1])
    for val, test, best in ((true, other, 0.1), (other, true, 1e-6)):
        found = lista_from_scratch(blobs(0), {"val": val, "test": test}, settings, seed=0)
        assert found.setting == best


def test_lista_is_kept_as_it_was_when_it_was_best_on_validation_labels(splits):
    given = {"val": contrary(splits["val"]), "test": splits["test"]}

    def trained(steps: int, check_every: int) -> classifiers.Outcome:
        settings = ScratchSettings(8, 3, [3e-2], 250, steps, check_every, patience=12)
        return lista_from_scratch(blobs(0), given, settings, seed=0)

    # The more it has learned, the worse it is.
    after = [trained(steps, steps) for steps in range(1, 13)]
    assert after[-1].val_error > after[0].val_error
    assert trained(12, 1) == min(after, key=lambda found: found.val_error)


def test_labels_are_drawn_evenly_and_nested():
    labels = np.random.default_rng(0).integers(0, 4, 200)
    few, more = draw_labels(labels, 2, 0), draw_labels(labels, 5, 0)
    assert np.bincount(labels[few]).tolist() == [2] * 4
    assert np.bincount(labels[more]).tolist() == [5] * 4
    assert set(few) < set(more)
    assert set(few) == set(draw_labels(labels, 2, 0)) != set(draw_labels(labels, 2, 1))
    with pytest.raises(SettingError, match="take fewer labels"):
        draw_labels(labels, 1000, 0)


def test_every_method_is_measured_and_nothing_twice(tmp_path, monkeypatch):
    data, cache = TinyData(), ResultCache(tmp_path)
    trained_models = [TinyModel("sdl", seed=0), TinyModel("do", encoder=False, seed=1)]
    settings = {
        "labels_per_class": [1, 5, "all"], "num_draws": [2, 2, 1], "pca_dim": 4,
        "scratch_draws": 2, "lista": SCRATCH,
    }  # fmt: skip
    first = low_data(trained_models, data, cache, **settings)
    linear = ["do", "linear on PCA", "linear on raw", "sdl"]
    unvalidated = first.table[first.table["arm"] == UNVALIDATED]
    assert sorted(unvalidated["method"].unique()) == linear
    assert set(unvalidated["setting"]) == {1.0}
    rows = first.table[first.table["arm"] == VALIDATED].groupby("method").size()
    # Of all labels there is one draw; only LISTA's own start depends on the seed there.
    assert rows.to_dict() == dict.fromkeys(
        ["sdl", "do", "linear on raw", "linear on PCA", "nearest neighbours on raw"], 5
    ) | {"LISTA + linear on raw": 6}
    summarised = first.more["summary"].query("labels_per_class == '5'")
    seeds = summarised[summarised["arm"] == VALIDATED].set_index("method")["model_seeds"]
    assert seeds[["sdl", "LISTA + linear on raw", "linear on raw"]].to_list() == [1, 2, np.inf]
    draws = first.table.query("labels_per_class == '5'").groupby("label_seed")["labels"].unique()
    assert [counts.tolist() for counts in draws] == [[15], [15]]

    def computed_again(*args, **kwargs):
        raise AssertionError("this was known")

    studies = "sparse_lightning.studies"
    monkeypatch.setattr(f"{studies}.pixel_classifiers.logistic_regression", computed_again)
    monkeypatch.setattr(f"{studies}.low_data.all_codes", computed_again)
    pd.testing.assert_frame_equal(
        low_data(trained_models, data, cache, **settings).table, first.table
    )


def test_other_labels_of_the_same_inputs_are_not_taken_from_memory(tmp_path):
    settings = {"labels_per_class": [1], "num_draws": [1], "scratch_draws": 1, "pca_dim": 4,
                "lista": SCRATCH}  # fmt: skip
    data, other = TinyData(), TinyData()
    labels = other.splits["test"].tensors.labels
    other.splits["test"].tensors = other.splits["test"].tensors._replace(labels=(labels + 1) % 3)
    for studied in (data, other):
        known = low_data([TinyModel()], studied, ResultCache(tmp_path), **settings)
        new = low_data([TinyModel()], studied, ResultCache(), **settings)
        pd.testing.assert_frame_equal(known.table, new.table)


def test_zeros_are_those_of_validation_codes():
    data, trained = FlatValidation(), TinyModel()
    settings = {"labels_per_class": [1], "num_draws": [1], "scratch_draws": 1, "pca_dim": 4,
                "lista": SCRATCH | {"steps": 1}}  # fmt: skip
    table = low_data([trained], data, ResultCache(), **settings).table
    val, test = ((all_codes(trained.model, data, split) == 0).mean() for split in ("val", "test"))
    assert table["zeros"].dropna().unique() == pytest.approx([val])
    assert abs(val - test) > 0.02


def test_principal_components_are_those_of_training_inputs():
    axes = np.eye(5, dtype=np.float32)
    steps = np.resize(np.float32([-1, 1]), (20, 1))
    inputs = {"train": steps * axes[0], "val": steps * axes[1], "test": 3 * steps * axes[2]}
    features = linear_baselines(inputs, Penalties((1.0,), None), 1)["linear on PCA"].features()
    np.testing.assert_allclose(np.abs(features["train"]), 1, rtol=1e-6)
    for split in ("val", "test"):
        np.testing.assert_allclose(features[split], 0, atol=1e-6)


def test_the_scale_of_features_does_not_matter():
    """Of inputs 1024 times as large, and of codes 1024 times as large, all errors are equal."""
    tables = []
    for scale in (1, 1024):
        data, trained = TinyData(), TinyModel()
        for split in data.splits.values():
            split.tensors = split.tensors._replace(inputs=scale * split.tensors.inputs)
        with torch.no_grad():
            trained.model.encoder.input.bias.mul_(scale)
        settings = {"labels_per_class": [2], "num_draws": [2], "scratch_draws": 1, "pca_dim": 4,
                    "lista": SCRATCH | {"steps": 1}}  # fmt: skip
        table = low_data([trained], data, ResultCache(), **settings).table
        linear = table["method"].isin(["sdl", "linear on PCA", "linear on raw"])
        tables.append(table[linear])
    pd.testing.assert_frame_equal(*tables)


def test_summary_takes_the_weight_of_lowest_validation_error():
    rows = [
        {"arm": VALIDATED, "method": "sdl", "labels": 10, "labels_per_class": "1",
         "sparsity_weight": weight, "seed": seed, "epochs": 100, "val_error": val,
         "top1": top1, "top3": 0.1}
        for weight, val, errors in ((0.1, 0.3, (0.5, 0.7)), (0.2, 0.4, (0.1, 0.1)))
        for seed, top1 in enumerate(errors)
    ]  # fmt: skip
    rows.append({"arm": VALIDATED, "method": "raw", "labels": 10, "labels_per_class": "1",
                 "val_error": 0.9, "top1": 0.8, "top3": 0.6})  # fmt: skip
    result = summary(pd.DataFrame(rows), 0.9).set_index("method")
    assert result.loc["sdl", "sparsity_weight"] == 0.1
    assert result.loc["sdl", "top1"] == pytest.approx(0.6)
    assert (result.loc["sdl", "model_seeds"], result.loc["sdl", "epochs"]) == (2, 100)
    assert result.loc["raw", "top1"] == 0.8
    assert (result.loc["raw", "model_seeds"], result.loc["raw", "epochs"]) == (np.inf, np.inf)


def test_epochs_that_are_unknown_stay_unknown():
    rows = [
        {"arm": VALIDATED, "method": method, "labels": 10, "labels_per_class": "1",
         "sparsity_weight": weight, "seed": seed, "epochs": epochs, "val_error": 0.3, "top1": 0.3,
         "top3": 0.1}
        for method, weight, seed, epochs in (
            ("sdl", 0.1, 0, 100), ("sdl", 0.1, 1, np.nan), ("LISTA", np.nan, 0, np.nan)
        )
    ]  # fmt: skip
    epochs = summary(pd.DataFrame(rows), 0.9).set_index("method")["epochs"]
    assert np.isnan(epochs["sdl"])
    assert epochs["LISTA"] == np.inf


def test_without_validation_labels_the_weight_is_that_nearest_to_a_share_of_zeros():
    rows = [
        {"arm": UNVALIDATED, "method": "sdl", "labels": 10, "labels_per_class": "1",
         "sparsity_weight": weight, "seed": 0, "epochs": 100, "val_error": error,
         "top1": error, "top3": 0.1, "zeros": zeros}
        for weight, zeros, error in ((0.1, 0.8, 0.1), (0.2, 0.92, 0.3), (0.3, 0.97, 0.2))
    ]  # fmt: skip
    assert summary(pd.DataFrame(rows), 0.9)["sparsity_weight"].to_list() == [0.2]
    assert summary(pd.DataFrame(rows), 0.8)["sparsity_weight"].to_list() == [0.1]
    # 13 % active is nearer to 10 % than 7.2 %, by the factor between them.
    for row, zeros in zip(rows, (0.87, 0.928, 1.0)):
        row["zeros"] = zeros
    assert summary(pd.DataFrame(rows), 0.9)["sparsity_weight"].to_list() == [0.1]


def test_draws_are_averaged_within_a_model_seed():
    # Draws differ by 0.4, and model seeds by 0.02.
    rows = [
        {"arm": VALIDATED, "method": "sdl", "labels": 10, "labels_per_class": "1",
         "sparsity_weight": 0.1, "seed": seed, "label_seed": draw, "epochs": 100,
         "val_error": 0.3, "top1": 0.3 + 0.4 * draw + 0.02 * seed, "top3": 0.1}
        for seed, draw in ((0, 0), (0, 1), (1, 0), (1, 1))
    ]  # fmt: skip
    row = summary(pd.DataFrame(rows), 0.9).iloc[0]
    assert row["top1"] == pytest.approx(0.51)
    assert row["top1_std"] == pytest.approx(0.02 / np.sqrt(2))
    assert (row["model_seeds"], row["draws"]) == (2, 2)


def test_the_figure_says_what_its_bars_are():
    rows = pd.DataFrame(
        {"method": ["sdl", "LISTA + linear on raw"], "labels": 10, "labels_per_class": "1",
         "top1": 0.3, "top3": 0.1, "top1_std": 0.02, "top3_std": 0.01}
    )  # fmt: skip
    titles = {
        arm: error_curves(rows, "tiny", arm).get_suptitle()
        for arm in (VALIDATED, AUTHORS, UNVALIDATED)
    }
    assert all(f"tiny, {arm}" in title for arm, title in titles.items())
    on_inputs = "over model seeds; of methods on raw inputs, over random starts"
    assert titles[VALIDATED].endswith(f"{on_inputs} and draws of labels")
    assert titles[AUTHORS].endswith(on_inputs)
    assert titles[UNVALIDATED].endswith("over model seeds")


def test_of_few_classes_top_3_is_not_drawn():
    """Three guesses at two classes are never wrong, and 0 has no place on a logarithmic axis."""
    rows = pd.DataFrame(
        {"method": ["sdl"], "labels": 2, "labels_per_class": "1", "top1": 0.3, "top3": 0.0,
         "top1_std": 0.02, "top3_std": 0.0}
    )  # fmt: skip
    few, more = (error_curves(table, "tiny", VALIDATED) for table in (rows, rows.assign(top3=0.1)))
    assert [len(figure.axes) for figure in (few, more)] == [1, 2]
    assert few.axes[0].get_ylabel() == "test error, top-1 (%)"
    # In half the width.
    assert max(map(len, few.get_suptitle().splitlines())) <= 62
    assert "no point: no error" not in few.get_suptitle()
    assert (
        "no point: no error"
        in error_curves(rows.assign(top1=0.0), "tiny", VALIDATED).get_suptitle()
    )


def test_numbers_that_a_class_does_not_have_are_refused_before_anything_is_measured(monkeypatch):
    def measured(*args, **kwargs):
        raise AssertionError("too late")

    monkeypatch.setattr("sparse_lightning.studies.low_data.all_codes", measured)
    data = TinyData()
    smallest = int(np.bincount(data.splits["train"].tensors.labels).min())
    asked = {"labels_per_class": [2, smallest + 1, "all"], "num_draws": [5, 4, 1]}
    told = (
        rf"labels_per_class=\[2,{smallest + 1},all\] has more than {smallest}, .*: set "
        r"study\.compute\.labels_per_class=\[2,all\] study\.compute\.num_draws=\[5,1\]\."
    )
    with pytest.raises(SettingError, match=told):
        low_data([TinyModel()], data, ResultCache(), **asked)


def test_data_without_labels_are_refused():
    with pytest.raises(SettingError, match="needs labels, and tiny has none"):
        low_data([TinyModel()], TinyData(labelled=False), ResultCache())


def test_what_the_last_half_of_training_changed(monkeypatch):
    data, trained, before = TinyData(), TinyModel(seed=0), TinyModel(seed=1)
    settings = {"labels_per_class": [1, "all"], "num_draws": [3, 1], "scratch_draws": 1,
                "pca_dim": 4, "lista": SCRATCH}  # fmt: skip
    earlier = low_data([before], data, ResultCache(), **settings).table
    monkeypatch.setattr("sparse_lightning.studies.epochs.halfway", lambda _: before)
    result = low_data([trained], data, ResultCache(), change_draws=2, **settings)
    rows, expected = (
        table[table["method"] == "sdl"]
        .set_index(["arm", "labels_per_class", "label_seed"])
        .sort_index()
        for table in (result.table, earlier)
    )
    known = rows["top1_before"].dropna()
    assert {key[1:] for key in known.index} == {("1", 0), ("1", 1)}
    pd.testing.assert_series_equal(known, expected["top1"][known.index], check_names=False)
    keys = ["arm", "method", "labels_per_class"]
    summarised = result.more["summary"].set_index(keys)["change"]
    changes = (rows["top1"] - rows["top1_before"])[VALIDATED, "1"]
    assert summarised[VALIDATED, "sdl", "1"] == pytest.approx(changes.mean())
    assert np.isnan(summarised[VALIDATED, "sdl", "all"])


def test_a_summary_has_each_number_of_labels_even_where_two_are_all():
    rows = [
        {"arm": VALIDATED, "method": "sdl", "sparsity_weight": 0.1, "seed": 0, "epochs": 9,
         "labels": 200, "labels_per_class": count, "label_seed": 0, "val_error": 0.1, "top1": 0.2,
         "top3": 0.1, "zeros": 0.9}
        for count in ("20", "all")
    ]  # fmt: skip
    assert summary(pd.DataFrame(rows), 0.9)["labels_per_class"].to_list() == ["20", "all"]


def test_features_are_scaled_by_their_size_in_training():
    features = {"train": np.full((4, 2), 2.0), "val": np.full((4, 2), 5.0), "test": np.ones((4, 2))}
    assert {split: values[0, 0] for split, values in scaled(features).items()} == {
        "train": 1.0, "val": 2.5, "test": 0.5,
    }  # fmt: skip
