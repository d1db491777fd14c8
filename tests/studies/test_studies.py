"""Studies on tiny models, against values worked out by hand, by scikit-image or by scikit-learn."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio
from skimage.restoration import denoise_tv_chambolle
from tiny_study import SIZE, FlatValidation, TinyData, TinyModel

from sparse_lightning.decoders import LinearDecoder
from sparse_lightning.energy import Energy
from sparse_lightning.errors import CheckpointError, DataError, SettingError
from sparse_lightning.figures.denoising import draw as draw_denoising
from sparse_lightning.figures.features import draw as draw_features
from sparse_lightning.studies import ablation as ablation_study
from sparse_lightning.studies.ablation import ablation
from sparse_lightning.studies.coding import (
    all_codes,
    all_inputs,
    batches,
    fingerprint,
    largest_codes,
    require_images,
)
from sparse_lightning.studies.denoisers import BASELINES, choose_setting, denoise
from sparse_lightning.studies.denoising import _noisy, best_denoisers, denoising, noise_like
from sparse_lightning.studies.epochs import halfway, validation_history
from sparse_lightning.studies.features import features, summary
from sparse_lightning.studies.hinge_surface import hinge_surface
from sparse_lightning.studies.result_cache import ResultCache
from sparse_lightning.studies.study_result import Pictures, StudyResult


def pixels(values: torch.Tensor) -> np.ndarray:
    return (values * 0.3 + 0.5).detach().double().numpy()


def mean_psnr(clean: np.ndarray, other: np.ndarray) -> float:
    return float(
        np.mean([peak_signal_noise_ratio(a, b, data_range=1.0) for a, b in zip(clean, other)])
    )


# Denoising.


def test_noise_is_the_same_in_any_batch_and_for_any_level():
    whole = noise_like(torch.zeros(7, 5), 1.0, seed=3)
    parts = [noise_like(torch.zeros(k, 5), 1.5, seed=3, first=f) for f, k in ((0, 4), (4, 3))]
    torch.testing.assert_close(torch.cat(parts), 1.5 * whole)
    assert not torch.equal(whole, noise_like(torch.zeros(7, 5), 1.0, seed=4))
    assert float(noise_like(torch.zeros(50, 400), 2.0, seed=0).std()) == pytest.approx(2, abs=0.05)


def test_denoising_is_psnr_against_the_clean_image():
    data, trained = TinyData(), TinyModel()
    result = denoising([trained], data, ResultCache(), (1.0,), num_peer_images=10, num_shown=4)
    row = result.table.query("split == 'test'").iloc[0]
    clean = torch.cat([batch.inputs for batch in batches(data, "test")])
    noisy = clean + noise_like(clean, 1.0, seed=1)
    assert row["psnr_noisy"] == pytest.approx(mean_psnr(pixels(clean), pixels(noisy)), abs=1e-4)
    rebuilt = trained.model(noisy)
    assert row["psnr_denoised"] == pytest.approx(
        mean_psnr(pixels(clean), pixels(rebuilt)), abs=1e-4
    )
    assert row["psnr_clean"] == pytest.approx(
        mean_psnr(pixels(clean), pixels(trained.model(clean))), abs=1e-4
    )
    for name, inputs in {"zeros": clean, "zeros_noisy": noisy}.items():
        codes = trained.model.encoder(inputs)
        assert row[name] == pytest.approx(float((codes == 0).float().mean()), abs=1e-6)
    strip = result.pictures.where(family="sdl", row="noisy")
    np.testing.assert_allclose(strip.pixels.reshape(4, -1), pixels(noisy[:4]), atol=1e-5)
    baselines = result.more["baselines"].set_index("baseline")
    assert baselines["psnr_noisy"].to_list() == pytest.approx([row["psnr_noisy"]] * 3, abs=1e-4)
    weight = baselines.loc["total variation", "setting"]
    cleaned = [
        denoise_tv_chambolle(image, weight=weight)
        for image in noisy.double().reshape(-1, SIZE, SIZE).numpy()
    ]
    expected = mean_psnr(pixels(clean), 0.3 * np.reshape(cleaned, clean.shape) + 0.5)
    assert baselines.loc["total variation", "psnr_denoised"] == pytest.approx(expected, abs=1e-4)


def test_settings_of_baselines_are_chosen_by_psnr():
    flat = torch.zeros(3, SIZE * SIZE)
    noisy = flat + noise_like(flat, 1.0, 0)
    batch = next(iter(batches(TinyData(), "val", 3)))._replace(inputs=flat)
    # Of a constant image all noise is to go.
    assert choose_setting("total variation", [(batch, noisy)], 1.0, (SIZE, SIZE)) == 3.0
    result = denoise("total variation", noisy, 1.0, 3.0, (SIZE, SIZE))
    assert float(result.var()) < 0.1


def test_settings_of_baselines_are_chosen_on_validation_images():
    data = FlatValidation()
    given = ResultCache(), (1.0,)
    result = denoising([TinyModel()], data, *given, num_images=10, num_peer_images=10, num_shown=1)
    rows = result.more["baselines"].set_index("baseline")
    assert rows.loc["total variation", "setting"] == 3.0
    # Of test images a smaller one would be best.
    test = next(iter(batches(data, "test", 10)))
    noisy = test.inputs + noise_like(test.inputs, 1.0, seed=1)
    assert choose_setting("total variation", [(test, noisy)], 1.0, (SIZE, SIZE)) < 3.0


def test_other_settings_of_baselines_are_measured_again(tmp_path: Path, monkeypatch):
    given = TinyData(), ResultCache(tmp_path), (1.0,)
    for choices in ((3.0,), (0.5,)):
        name = "total variation"
        monkeypatch.setitem(BASELINES, name, (BASELINES[name][0], choices))
        result = denoising([TinyModel()], *given, num_peer_images=2, num_shown=1)
        assert result.more["baselines"].set_index("baseline").loc[name, "setting"] == choices[0]


def test_table_one_takes_the_weight_that_denoises_validation_images_best():
    rows = [
        {"family": "vdl", "seed": seed, "sparsity_weight": weight, "noise": 1.0, "split": split,
         "psnr_clean": 20.0, "psnr_noisy": 10.0, "psnr_denoised": value + seed,
         "zeros": 0.9 + 0.04 * seed, "zeros_noisy": 0.8,
         "epochs": 100 - seed, "change": 0.1 + 0.2 * seed}
        for seed in (0, 1)
        for weight, val, test in ((0.1, 15.0, 12.0), (0.2, 14.0, 13.0))
        for split, value in (("val", val), ("test", test))
    ]  # fmt: skip
    table = pd.DataFrame(rows)
    assert not best_denoisers(table[table["sparsity_weight"] == 0.1]).iloc[0]["at_end"]
    best = best_denoisers(table).iloc[0]
    assert (best["sparsity_weight"], best["at_end"]) == (0.1, True)
    assert best["psnr_denoised"] == pytest.approx(12.5)
    assert best["psnr_denoised_val"] == pytest.approx(15.5)
    assert (best["zeros"], best["zeros_noisy"]) == pytest.approx((0.92, 0.8))
    assert best["psnr_denoised_std"] == pytest.approx(math.sqrt(0.5))
    assert (best["seeds"], best["epochs"]) == (2, 99)
    assert best["change"] == pytest.approx(0.2)


def test_what_the_last_half_of_training_changed_in_denoising(monkeypatch):
    trained, half = TinyModel(), TinyModel(seed=1)

    def table(earlier: TinyModel | None) -> pd.DataFrame:
        monkeypatch.setattr("sparse_lightning.studies.epochs.halfway", lambda _: earlier)
        data, cache = TinyData(), ResultCache()
        return denoising([trained], data, cache, (0.5, 1.0), num_peer_images=2, num_shown=1).table

    found = table(half)
    monkeypatch.setattr("sparse_lightning.studies.epochs.halfway", lambda _: None)
    before = denoising([half], TinyData(), ResultCache(), (0.5, 1.0), num_peer_images=2).table
    expected = (found["psnr_denoised"] - before["psnr_denoised"])[found["split"] == "test"]
    changes = found.set_index("split")["change"]
    assert changes["test"].to_list() == pytest.approx(expected.to_list())
    assert changes["test"].abs().min() > 0
    assert table(None)["change"].isna().all()
    assert (table(trained)["change"] == 0).all()


def test_references_of_denoising():
    data = TinyData()
    result = denoising([TinyModel()], data, ResultCache(), (0.5,), num_peer_images=10, num_shown=2)
    found = result.more["references"].set_index("reference")["psnr_denoised"]
    train, clean = (
        torch.from_numpy(all_inputs(data, split)).double() for split in ("train", "test")
    )
    noisy = clean + noise_like(clean.float(), 0.5, seed=1).double()
    mean, covariance = train.mean(0), torch.cov(train.T, correction=0)
    gain = covariance @ torch.linalg.inv(covariance + 0.25 * torch.eye(len(covariance)))
    expected = {
        "mean image": mean.expand_as(clean),
        "zero code": torch.zeros_like(clean),
        "PCA-Wiener": mean + (noisy - mean) @ gain.T,
    }
    for name, image in expected.items():
        assert found[name] == pytest.approx(mean_psnr(pixels(clean), pixels(image)), abs=1e-3)
    clipped = pixels(noisy).clip(0, 1)
    assert found["clipped noisy"] == pytest.approx(mean_psnr(pixels(clean), clipped), abs=1e-3)
    labels = next(draw_denoising(result))[1].axes[0].get_xticklabels()
    assert "clipped\nnoisy" in [label.get_text() for label in labels]


def test_the_history_of_a_model_is_that_of_the_best_so_far(tmp_path: Path):
    trained = TinyModel(run=str(tmp_path))
    assert validation_history(trained).empty
    history = pd.DataFrame(
        {"epoch": range(5), "val/psnr": [1.0, 3.0, 4, 5, 7], "val/zeros": 0.5,
         "val/energy": [9.0, 5, 4, 3, 2]}
    )  # fmt: skip
    history.to_csv(tmp_path / "metrics.csv", index=False)
    assert validation_history(trained)["psnr"].to_list() == [1, 3, 4, 5, 7]
    # The model of the fourth epoch is kept, and studies measure it.
    history["val/energy"] = [9.0, 5, 4, 2, 3]
    history.to_csv(tmp_path / "metrics.csv", index=False)
    assert validation_history(trained)["psnr"].to_list() == [1, 3, 4, 5, 5]
    # While λ is sought, energies of one λ say nothing of those of another.
    history["val/sparsity_weight"] = [0.1, 0.1, 0.1, 0.1, 0.2]
    history.to_csv(tmp_path / "metrics.csv", index=False)
    assert validation_history(trained)["psnr"].to_list() == [1, 3, 4, 5, 7]
    # While a finished run is given more epochs, its model is that of the fewer.
    trained.run.results = {"epochs": 4}
    assert validation_history(trained)["epochs"].to_list() == [1, 2, 3, 4]
    trained.run.results = {}
    assert validation_history(trained)["epochs"].to_list() == [1, 2, 3, 4, 5]


def test_half_of_a_search_that_ended_inside_an_epoch_has_the_last_weight_that_is_known(tmp_path):
    trained = TinyModel(run=str(tmp_path))
    pd.DataFrame(
        {"epoch": range(4), "val/energy": [9.0, 4, 5, math.nan],
         "val/sparsity_weight": [0.1, 0.2, 0.2, math.nan]}
    ).to_csv(tmp_path / "metrics.csv", index=False)  # fmt: skip
    assert halfway(trained) is trained


# Features.


def test_atoms_are_scaled_by_the_largest_code():
    data, trained = TinyData(), TinyModel()
    result = features([trained], data, ResultCache(), num_images=None)
    codes = trained.model.encode(torch.cat([batch.inputs for batch in batches(data, "val")]))
    largest = codes.detach().amax(0)
    table = result.table.set_index("unit")
    assert table["scale"].to_list() == pytest.approx(largest.tolist())
    assert table["active"].to_list() == pytest.approx((codes > 0).double().mean(0).tolist())
    scale = torch.where(largest > 0, largest, 1.0)
    expected = (trained.model.decoder.weight.detach() * scale).T.reshape(-1, SIZE, SIZE)
    np.testing.assert_allclose(
        result.pictures.where(kind="atom").pixels, expected.numpy(), atol=1e-6
    )
    filters = result.pictures.where(kind="encoder filter").pixels
    np.testing.assert_array_equal(filters.reshape(12, -1), trained.model.encoder.filters().numpy())
    share = result.more["summary"].iloc[0]
    used = table[table["active"] >= 0.01]
    assert share["used"] == len(used) / len(table)
    assert share["gabor_like"] == used["gabor_like"].mean()
    assert share["gabor_like_scrambled"] == used["gabor_like_scrambled"].mean()
    assert share["median_extent"] == used["extent"].median()
    assert share["mean_extent"] == used["extent"].mean()
    assert share["epochs"] == 5
    assert share["median_likeness"] == used["likeness"].median()
    assert not table["gabor_like"][table["explained"] < 0.5].any()
    assert (table["scrambled_explained"] != table["explained"]).all()


def test_atoms_are_drawn_at_the_signed_code_of_largest_magnitude():
    codes = np.array([[-3.0, 1.0, 0.0, -0.2], [2.0, -0.5, 0.0, -0.1]])
    assert largest_codes(codes).tolist() == pytest.approx([-3.0, 1.0, 1.0, -0.2])


def test_the_figure_of_gabor_functions_counts_what_the_table_counts():
    columns = {"family": "sdl", "sparsity_weight": 0.1, "seed": 0, "run": "runs/a"}
    table = pd.DataFrame(
        {"gabor_like": [True, False, True, True], "used": [True, True, False, False],
         "explained": [0.8, 0.2, 0.9, 0.9]}
    ).assign(**columns, data="MNIST", orientation=1.0, frequency=0.1, size_along=2.0,
             size_across=3.0, extent=0.3, likeness=0.5)  # fmt: skip
    index = pd.DataFrame([columns | {"kind": "atom", "unit": 0}])
    pictures = Pictures(index, np.random.default_rng(0).normal(size=(1, 6, 6)))
    figures = dict(draw_features(StudyResult(table, {}, pictures)))
    assert "50 % Gabor-like" in figures["gabors_sdl_lambda0.1_seed0"].get_suptitle()
    assert [axes.get_xlabel() for axes in figures["atom_extents"].axes] == ["", "λ"]
    both = pd.concat([table, table.assign(run="runs/b", gabor_like=True)])
    two = dict(draw_features(StudyResult(both, {}, None)))
    assert "50 % Gabor-like" in two["gabors_sdl_lambda0.1_seed0_1"].get_suptitle()
    assert "seed 0, run b, MNIST; 100 %" in two["gabors_sdl_lambda0.1_seed0_2"].get_suptitle()
    counting = dict(draw_features(StudyResult(table.assign(family="topk"), {}, pictures)))
    assert [axes.get_xlabel() for axes in counting["atom_extents"].axes] == ["", "k"]


def test_atoms_that_are_hardly_used_do_not_count():
    columns = {"data": "d", "family": "sdl", "sparsity_weight": 0.1, "seed": 0, "solver": "FISTA"}
    table = pd.DataFrame(
        {
            "active": [0.5, 0.2, 0.004, 0.0],
            "extent": [0.3, 0.5, 0.9, 0.9],
            "likeness": [0.6, 0.8, 0.1, 0.1],
            "orientation_share": [0.8, 0.2, 0.9, 0.9],
            "mean_frequency": [0.1, 0.2, 0.4, 0.4],
        }
    ).assign(**columns, epochs=4, run="a")
    table["used"] = table["active"] >= 0.01
    unused = table.assign(used=False, run="b")
    first, second = summary(pd.concat([table, unused])).to_dict("records")
    assert (first["used"], first["dead"], first["oriented"]) == (0.5, 0.25, 0.5)
    assert (first["median_extent"], first["median_likeness"]) == pytest.approx((0.4, 0.7))
    assert first["median_mean_frequency"] == pytest.approx(0.15)
    assert math.isnan(second["median_extent"])
    assert second["used"] == 0


# Ablation.


class TrainedBefore(TinyModel):
    def __init__(self, folder: Path, **columns) -> None:
        self.run = type("Run", (), {"folder": folder, "results": columns})
        known = {"family": "none", "sparsity_weight": 0.1, "seed": 0, "run": str(folder)}
        self.columns = known | {"epochs": math.nan} | columns


def test_ablation_follows_training(tmp_path: Path):
    history = {f"train/{name}": [4.0, 3.0, 1.0] for name in ablation_study.TRACKED}
    history["train/psnr"] = history["train/column_norm"] = [1.0, 2.0, 3.0]
    history["train/column_norm_1"], history["train/column_norm_2"] = [1.0, 1.0, 5.0], [2.0, 2.0, 1]
    pd.DataFrame({"epoch": [0, 1, 2]} | history).to_csv(tmp_path / "metrics.csv", index=False)
    result = ablation([TrainedBefore(tmp_path)])
    assert result.table["epoch"].to_list() == [1, 2, 3]
    assert result.table["code_std"].to_list() == [4.0, 3.0, 1.0]
    change = result.more["change"].iloc[0]
    assert (change["code_std"], change["column_norm"]) == (0.25, 3.0)
    assert (change["column_norm_1"], change["column_norm_2"], change["epochs"]) == (5.0, 0.5, 3)
    # While a finished run is given more epochs, its model is that of the fewer.
    extended = ablation([TrainedBefore(tmp_path, epochs=2)])
    assert extended.table["epoch"].to_list() == [1, 2]
    assert extended.more["change"].iloc[0][["code_std", "epochs"]].to_list() == [0.75, 2]
    linear = pd.read_csv(tmp_path / "metrics.csv").drop(columns="train/column_norm_1")
    linear.to_csv(tmp_path / "metrics.csv", index=False)
    assert "column_norm_1" not in ablation([TrainedBefore(tmp_path)]).table
    (tmp_path / "metrics.csv").unlink()
    with pytest.raises(DataError, match="reads the metrics of each epoch"):
        ablation([TrainedBefore(tmp_path)])


# Hinge surface.


def test_hinge_surface_by_hand():
    result = hinge_surface(variance_threshold=0.5, largest=1.0, steps=5, line_at=0.25)
    table = result.table
    expected = np.maximum(0.5 - (table["z1"] - table["z2"]).abs() / math.sqrt(2), 0) ** 2
    np.testing.assert_allclose(table["hinge"], expected, atol=1e-12)
    codes = torch.tensor([table["z1"], table["z2"]], dtype=torch.float64)
    energy = Energy(sparsity_weight=0.0, variance_weight=1.0, variance_threshold=0.5)
    objective = energy.bind(LinearDecoder(codes.shape[1], 1).double(), codes.new_zeros(2, 1))
    assert float(objective.terms(codes)["variance"]) == pytest.approx(expected.sum())


def test_gradient_on_the_line_is_the_slope_of_the_hinge():
    line = hinge_surface(steps=201).more["line"]
    slope = np.gradient(line["hinge"], line["z1"])
    # Off the ridge, where there is no slope, and the edge of the flat part, where it turns.
    smooth = (line["z1"] - line["z2"]).abs().between(0.01, 0.7)
    np.testing.assert_allclose(line["gradient"][smooth], slope[smooth], atol=2e-3)
    assert (line["gradient"][(line["z1"] - line["z2"]).abs() > 0.71] == 0).all()


def test_the_model_after_half_of_the_epochs(tmp_path: Path):
    trained = TinyModel(run=str(tmp_path), epochs=10)
    assert halfway(trained) is None, "nothing is on record"

    def record(best: int) -> None:
        energies = [float(abs(epoch - best)) for epoch in range(10)]
        table = pd.DataFrame({"epoch": range(10), "val/energy": energies})
        table.to_csv(tmp_path / "metrics.csv", index=False)

    record(best=4)
    assert halfway(trained) is trained
    record(best=5)
    assert halfway(trained) is None, "it was not kept"
    (tmp_path / "milestones").mkdir()
    (tmp_path / "milestones" / "epoch=4.ckpt").touch()
    assert halfway(trained).checkpoint == tmp_path / "milestones" / "epoch=4.ckpt"


def test_halves_of_runs_that_sought_lambda_or_began_from_another(tmp_path: Path):
    trained = TinyModel(run=str(tmp_path), epochs=10)

    def record(**columns) -> None:
        table = pd.DataFrame({"epoch": range(10)} | columns)
        table.to_csv(tmp_path / "metrics.csv", index=False)

    # The least energy is of a λ that was left again.
    weights = [0.1] * 6 + [0.3] * 4
    energies = [0.1] * 6 + [0.9, 0.8, 0.7, 0.6]
    record(**{"val/energy": energies, "val/sparsity_weight": weights})
    assert halfway(trained) is None
    record(**{"val/psnr": energies})
    assert halfway(trained) is None, "nothing was validated"
    # Results of an earlier version, of ten epochs behind another run's hundred.
    record(**{"val/energy": energies, "val/psnr": energies, "val/zeros": energies})
    table = pd.read_csv(tmp_path / "metrics.csv")
    table.assign(epoch=table["epoch"] + 100).to_csv(tmp_path / "metrics.csv", index=False)
    assert len(validation_history(trained)) == 10


def test_what_the_last_half_of_training_changed_in_atoms(monkeypatch):
    data, trained, before = TinyData(), TinyModel(seed=0), TinyModel(seed=1)

    def models(half) -> pd.Series:
        monkeypatch.setattr("sparse_lightning.studies.epochs.halfway", lambda _: half)
        return features([trained], data, ResultCache(), gabors=False).more["summary"].iloc[0]

    earlier = features([before], data, ResultCache(), gabors=False).more["summary"].iloc[0]
    found = models(before)
    for name in ("mean_extent", "median_likeness", "median_mean_frequency"):
        assert found[f"change_{name}"] == pytest.approx(found[name] - earlier[name])
    assert models(trained)["change_mean_extent"] == 0
    assert math.isnan(models(None)["change_mean_extent"])


def test_codes_that_are_no_numbers_are_told():
    trained = TinyModel()
    with torch.no_grad():
        trained.model.encoder.input.weight.fill_(float("nan"))
    with pytest.raises(CheckpointError, match="family sdl gives codes that are NaN"):
        all_codes(trained.model, TinyData(), "val")


def test_what_another_packages_data_hold_tells_them_from_others():
    def changed(change) -> str:
        data = TinyData()
        for split in data.splits.values():
            change(split)
        return fingerprint(data)

    def one_row(split) -> None:
        split.tensors.inputs[7] += 1

    def scale(split) -> None:
        split.tensors = split.tensors._replace(scale=torch.tensor(0.4))

    found = [changed(change) for change in (lambda split: None, one_row, scale)]
    assert len(set(found)) == 3
    assert found[0] == fingerprint(TinyData())


def test_images_of_one_channel_are_grey():
    data = TinyData()
    for shape in ((SIZE, SIZE, 1), (1, SIZE, SIZE)):
        data.image_shape = shape
        require_images(data, "denoising", grey=True)
    for shape in ((SIZE, SIZE, 3), (3, SIZE, SIZE)):
        data.image_shape = shape
        with pytest.raises(SettingError, match="needs grey images"):
            require_images(data, "denoising", grey=True)


def test_splits_do_not_share_their_noise():
    data = TinyData()
    test, val = (next(iter(_noisy(data, split, 1.0, 0, None))) for split in ("test", "val"))
    noises = [noisy - batch.inputs for batch, noisy in (test, val)]
    assert abs(torch.corrcoef(torch.stack([n.flatten() for n in noises]))[0, 1]) < 0.1
