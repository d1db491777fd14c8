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
from tiny_study import SIZE, TinyData, TinyModel

from sparse_lightning.decoders import LinearDecoder
from sparse_lightning.energy import Energy
from sparse_lightning.errors import DataError
from sparse_lightning.figures.features import draw as draw_features
from sparse_lightning.studies import ablation as ablation_study
from sparse_lightning.studies.ablation import ablation
from sparse_lightning.studies.coding import batches, codes_of
from sparse_lightning.studies.denoisers import choose_setting, denoise
from sparse_lightning.studies.denoising import best_denoisers, denoising, noise_like
from sparse_lightning.studies.features import features, summary
from sparse_lightning.studies.hinge_surface import hinge_surface
from sparse_lightning.studies.regret import (
    amortisation,
    interpolate,
    own_codes,
    psnr_at_zeros,
    regret,
)
from sparse_lightning.studies.result_cache import ResultCache
from sparse_lightning.studies.study_result import Pictures, StudyResult


def pixels(values: torch.Tensor) -> np.ndarray:
    return (values * 0.3 + 0.5).detach().double().numpy()


def mean_psnr(clean: np.ndarray, other: np.ndarray) -> float:
    return float(
        np.mean([peak_signal_noise_ratio(a, b, data_range=1.0) for a, b in zip(clean, other)])
    )


# Regret.


def test_regret_is_psnr_and_zeros_of_the_codes():
    data, trained = TinyData(), TinyModel()
    inputs = torch.cat([batch.inputs for batch in batches(data, "test", 50)])
    table = regret([trained], data, ResultCache(), num_images=50).table.set_index("codes")
    codes = trained.model.encode(inputs)
    rebuilt = trained.model.decode(codes)
    assert table.loc["encoder", "psnr"] == pytest.approx(
        mean_psnr(pixels(inputs), pixels(rebuilt)), abs=1e-4
    )
    assert table.loc["encoder", "zeros"] == pytest.approx(float((codes == 0).double().mean()))
    # Batches are of 25.
    inferred = torch.cat([codes_of(trained.model, part, True) for part in inputs.split(25)])
    assert table.loc["inference", "zeros"] == pytest.approx(float((inferred == 0).double().mean()))
    assert table.loc["inference", "psnr"] > table.loc["encoder", "psnr"]


def test_families_without_an_encoder_are_judged_by_inference():
    data = TinyData()
    trained_models = [TinyModel("sdl"), TinyModel("do", encoder=False)]
    table = regret(trained_models, data, ResultCache()).table
    chosen = own_codes(table).set_index("family")["codes"]
    assert chosen.to_dict() == {"sdl": "encoder", "do": "inference"}


def test_interpolation_on_a_made_up_curve():
    zeros, psnr = np.array([0.95, 0.75, 0.85]), np.array([10.0, 20.0, 16.0])
    assert interpolate(zeros, psnr, 0.80) == pytest.approx(18.0)
    assert interpolate(zeros, psnr, 0.9) == pytest.approx(13.0)
    assert interpolate(zeros, psnr, 0.95) == 10.0
    assert math.isnan(interpolate(zeros, psnr, 0.96))
    assert math.isnan(interpolate(zeros, psnr, 0.7))


def test_psnr_at_equal_zeros_is_a_mean_over_seeds_that_reach_there():
    rows = [
        {"family": "sdl", "seed": seed, "sparsity_weight": weight, "codes": way, "run": f"{seed}",
         "zeros": zeros, "psnr": psnr + (5.0 if way == "inference" else 0.0)}
        for way in ("encoder", "inference")
        for seed, points in {
            0: [(0.1, 0.7, 20.0), (0.2, 0.9, 10.0)],
            1: [(0.1, 0.7, 24.0), (0.2, 0.85, 18.0)],
        }.items()
        for weight, zeros, psnr in points
    ]  # fmt: skip
    table = pd.DataFrame(rows)
    result = psnr_at_zeros(table, (0.8, 0.9, 0.95)).set_index("zeros")
    # At 0.8: 15 and 20.
    assert result.loc[0.8, "psnr"] == pytest.approx(17.5 + 0.5 * (24 - 4 - 20))
    assert result.loc[0.8, "std"] == pytest.approx(abs(20.0 - 15.0) / math.sqrt(2))
    assert result["seeds"].to_list() == [2, 1, 0]
    assert result.loc[0.9, "psnr"] == pytest.approx(10.0)
    assert math.isnan(result.loc[0.9, "std"])
    assert math.isnan(result.loc[0.95, "psnr"])
    lost = amortisation(table).set_index("sparsity_weight")
    assert lost["psnr_loss"].to_list() == pytest.approx([5.0, 5.0])
    assert lost["seeds"].to_list() == [2, 2]


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
    strip = result.pictures.where(family="sdl", row="noisy")
    np.testing.assert_allclose(strip.pixels.reshape(4, -1), pixels(noisy[:4]), atol=1e-5)
    peers = result.more["peers"].set_index("peer")
    assert peers["psnr_noisy"].to_list() == pytest.approx([row["psnr_noisy"]] * 3, abs=1e-4)
    weight = peers.loc["total variation", "setting"]
    cleaned = [
        denoise_tv_chambolle(image, weight=weight)
        for image in noisy.double().reshape(-1, SIZE, SIZE).numpy()
    ]
    expected = mean_psnr(pixels(clean), 0.3 * np.reshape(cleaned, clean.shape) + 0.5)
    assert peers.loc["total variation", "psnr_denoised"] == pytest.approx(expected, abs=1e-4)


def test_settings_of_baselines_are_chosen_by_psnr():
    flat = torch.zeros(3, SIZE * SIZE)
    noisy = flat + noise_like(flat, 1.0, 0)
    batch = next(iter(batches(TinyData(), "val", 3)))._replace(inputs=flat)
    # Of a constant image all noise is to go.
    assert choose_setting("total variation", [(batch, noisy)], 1.0, (SIZE, SIZE)) == 3.0
    result = denoise("total variation", noisy, 1.0, 3.0, (SIZE, SIZE))
    assert float(result.var()) < 0.1


def test_table_one_takes_the_weight_that_denoises_validation_images_best():
    rows = [
        {"family": "vdl", "seed": seed, "sparsity_weight": weight, "noise": 1.0, "split": split,
         "psnr_clean": 20.0, "psnr_noisy": 10.0, "psnr_denoised": value + seed}
        for seed in (0, 1)
        for weight, val, test in ((0.1, 15.0, 12.0), (0.2, 14.0, 13.0))
        for split, value in (("val", val), ("test", test))
    ]  # fmt: skip
    best = best_denoisers(pd.DataFrame(rows)).iloc[0]
    assert best["sparsity_weight"] == 0.1
    assert best["psnr_denoised"] == pytest.approx(12.5)
    assert best["psnr_denoised_std"] == pytest.approx(math.sqrt(0.5))
    assert best["seeds"] == 2


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
    assert share["gabor_like"] == (used["explained"] >= 0.5).mean()
    assert share["median_active_area"] == used["active_area"].median()


def test_the_figure_of_gabor_functions_counts_what_the_table_counts():
    columns = {"family": "sdl", "sparsity_weight": 0.1, "seed": 0}
    table = pd.DataFrame(
        {"gabor_like": [True, False, True, True], "used": [True, True, False, False],
         "explained": [0.8, 0.2, 0.9, 0.9]}
    ).assign(**columns, data="MNIST", orientation=1.0, frequency=0.1, size_along=2.0,
             size_across=3.0, active_area=0.3)  # fmt: skip
    index = pd.DataFrame([columns | {"kind": "atom", "unit": 0}])
    pictures = Pictures(index, np.random.default_rng(0).normal(size=(1, 6, 6)))
    figures = dict(draw_features(StudyResult(table, {}, pictures)))
    assert "50 % Gabor-like" in figures["gabors_sdl_lambda0.1_seed0"].get_suptitle()


def test_atoms_that_are_hardly_used_do_not_count():
    columns = {"data": "d", "family": "sdl", "sparsity_weight": 0.1, "seed": 0}
    table = pd.DataFrame(
        {
            "active": [0.5, 0.2, 0.004, 0.0],
            "active_area": [0.3, 0.5, 0.9, 0.9],
            "orientation_share": [0.8, 0.2, 0.9, 0.9],
        }
    ).assign(**columns, run="a")
    table["used"] = table["active"] >= 0.01
    unused = table.assign(used=False, run="b")
    first, second = summary(pd.concat([table, unused])).to_dict("records")
    assert (first["used"], first["dead"], first["oriented"]) == (0.5, 0.25, 0.5)
    assert first["median_active_area"] == 0.4
    assert math.isnan(second["median_active_area"])
    assert second["used"] == 0


# Ablation.


class TrainedBefore(TinyModel):
    def __init__(self, folder: Path, **columns) -> None:
        self.run = type("Run", (), {"folder": folder})
        self.columns = {"family": "none", "sparsity_weight": 0.1, "seed": 0, "run": str(folder)}


def test_ablation_follows_training(tmp_path: Path):
    history = {f"train/{name}": [4.0, 3.0, 1.0] for name in ablation_study.TRACKED}
    history["train/column_norm"] = [1.0, 2.0, 3.0]
    pd.DataFrame({"epoch": [0, 1, 2]} | history).to_csv(tmp_path / "metrics.csv", index=False)
    result = ablation([TrainedBefore(tmp_path)])
    assert result.table["epoch"].to_list() == [1, 2, 3]
    assert result.table["code_std"].to_list() == [4.0, 3.0, 1.0]
    change = result.more["change"].iloc[0]
    assert (change["code_std"], change["column_norm"]) == (0.25, 3.0)
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
