"""Regret on tiny models: what is measured of codes, of inference and of principal components."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio
from sklearn.decomposition import PCA
from tiny_study import TinyData, TinyModel

from sparse_lightning.figures.regret import draw, psnr_against_epochs
from sparse_lightning.studies.coding import all_inputs, batches
from sparse_lightning.studies.regret import amortisation, own_codes, psnr_at_zeros, regret
from sparse_lightning.studies.result_cache import ResultCache


def pixels(values: torch.Tensor) -> np.ndarray:
    return (values * 0.3 + 0.5).detach().double().numpy()


def mean_psnr(clean: np.ndarray, other: np.ndarray) -> float:
    return float(
        np.mean([peak_signal_noise_ratio(a, b, data_range=1.0) for a, b in zip(clean, other)])
    )


def test_regret_is_psnr_zeros_and_dead_units_of_the_codes():
    data, trained = TinyData(), TinyModel()
    inputs = torch.cat([batch.inputs for batch in batches(data, "test", 50)])
    table = regret([trained], data, ResultCache(), num_images=50).table.set_index("codes")
    codes = trained.model.encode(inputs)
    row = table.loc["encoder"]
    expected = mean_psnr(pixels(inputs), pixels(trained.model.decode(codes)))
    assert row["psnr"] == pytest.approx(expected, abs=1e-4)
    assert row["zeros"] == pytest.approx(float((codes == 0).double().mean()))
    assert row["dead_units"] == int((codes == 0).all(0).sum())
    assert row["code_dim"] == 12
    inferred = trained.model.infer_alone(inputs)
    assert table.loc["inference", "zeros"] == pytest.approx(
        float((inferred == 0).double().mean()), abs=1e-3
    )
    assert table.loc["inference", "psnr"] > row["psnr"]


def test_inference_for_amortisation_is_free_of_encoder_and_batch():
    trained = TinyModel()
    inputs = torch.cat([batch.inputs for batch in batches(TinyData(), "test", 20)])
    expected = trained.model.infer_alone(inputs)
    pinned = TinyModel().model
    pinned.energy = dataclasses.replace(pinned.energy, encoder_weight=100.0, variance_weight=10.0)
    torch.testing.assert_close(pinned.infer_alone(inputs), expected)
    one_by_one = torch.cat([pinned.infer_alone(row) for row in inputs.split(1)])
    torch.testing.assert_close(one_by_one, expected, atol=1e-4, rtol=1e-3)
    assert not torch.allclose(pinned.infer(inputs).codes, expected, atol=1e-2)
    without_encoder = TinyModel(encoder=False).model
    with torch.autocast("cpu", torch.bfloat16):
        in_half = without_encoder.infer_alone(inputs)
    torch.testing.assert_close(in_half, without_encoder.infer_alone(inputs))


def test_families_without_an_encoder_are_judged_by_inference(capsys):
    trained_models = [TinyModel("sdl"), TinyModel("do", encoder=False)]
    table = regret(trained_models, TinyData(), ResultCache()).table
    chosen = own_codes(table).set_index("family")["codes"]
    assert chosen.to_dict() == {"sdl": "encoder", "do": "inference"}
    assert "No curve reaches 80 %, 90 %, 95 % zeros" in capsys.readouterr().out


def test_dead_units_are_part_of_the_table_of_models():
    models = [TinyModel(seed=0), TinyModel(seed=1, run="1"), TinyModel("do", encoder=False)]
    result = regret(models, TinyData(), ResultCache(), num_images=50)
    own = own_codes(result.table).set_index("family").loc["sdl"]
    row = result.more["models"].set_index("family").loc["sdl"]
    assert row["seeds"] == 2
    for name in ("psnr", "zeros", "dead_units"):
        assert row[name] == pytest.approx(own[name].mean())
    assert "do" in result.more["models"]["family"].to_list()


def test_principal_components_are_those_of_scikit_learn():
    data = TinyData()
    result = regret([TinyModel()], data, ResultCache(), num_components=(0, 3))
    psnr = result.more["references"].set_index("components")["psnr"]
    train, test = all_inputs(data, "train"), all_inputs(data, "test")
    pca = PCA(3).fit(train)
    rebuilt = pca.inverse_transform(pca.transform(test))
    clean = pixels(torch.from_numpy(test))
    assert psnr[3] == pytest.approx(mean_psnr(clean, rebuilt * 0.3 + 0.5), abs=1e-3)
    mean = np.broadcast_to(train.mean(0), test.shape)
    assert psnr[0] == pytest.approx(mean_psnr(clean, mean * 0.3 + 0.5), abs=1e-3)


def test_equal_sparsity_uses_own_codes_and_says_how_long_training_was():
    rows = [
        {"family": "sdl", "seed": seed, "sparsity_weight": 0.1, "codes": way, "run": f"{seed}",
         "zeros": 0.95 if way == "inference" else 0.9,
         "psnr": 16.0 + seed + (5.0 if way == "inference" else 0.0)}
        for way in ("encoder", "inference")
        for seed in (0, 1)
    ]  # fmt: skip
    curves = pd.DataFrame(
        {"family": "sdl", "seed": [0, 0, 1, 1], "epochs": [50, 100] * 2, "zeros": 0.9,
         "psnr": [15.0, 16.0, 16.0, 16.2]}
    )  # fmt: skip
    table = pd.DataFrame(rows)
    row = psnr_at_zeros(table, (0.9,), 2.5, curves).iloc[0]
    assert (row["psnr"], row["seeds"], row["epochs"]) == (16.5, 2, 100)
    assert row["std"] == pytest.approx(math.sqrt(0.5))
    assert row["change"] == pytest.approx(0.6)
    lost = amortisation(table).iloc[0]
    assert (lost["psnr_loss"], lost["seeds"]) == (5.0, 2)
    assert lost["more_zeros"] == pytest.approx(0.05)


def test_curves_over_epochs_average_all_seeds_or_none():
    summary = pd.DataFrame(
        {"family": "sdl", "zeros": 0.9, "epochs": [1, 2, 3, 4], "psnr": [9.0, 10, 11, 12],
         "std": 0.1, "seeds": [2, 3, 3, 2], "curves": 3, "weights": "best so far"}
    )  # fmt: skip
    last = summary.assign(psnr=summary["psnr"] - 1, weights="last")
    both = pd.concat([summary, last], ignore_index=True)
    of_last, of_best = psnr_against_epochs(both, "MNIST").axes[0].lines
    np.testing.assert_array_equal(of_best.get_ydata(), [np.nan, 10, 11, np.nan])
    np.testing.assert_array_equal(of_last.get_ydata(), [np.nan, 9, 10, np.nan])
    assert of_last.get_alpha() < 1


def test_one_seed_has_no_bar_and_epochs_are_read_from_the_runs(tmp_path: Path):
    history = {"epoch": [0, 1, 2], "val/psnr": [10.0, 11.0, 9.0], "val/zeros": 0.4,
               "val/energy": [2.0, 1.0, 1.5]}  # fmt: skip
    pd.DataFrame(history).to_csv(tmp_path / "metrics.csv", index=False)
    trained = TinyModel(run=str(tmp_path))
    result = regret([trained], TinyData(), ResultCache(), at_zeros=(0.4,))
    after = result.more["epochs"].groupby("weights")["psnr"].agg(list)
    assert after.to_dict() == {"best so far": [10.0, 11.0, 11.0], "last": [10.0, 11.0, 9.0]}
    assert result.more["at_zeros"]["seeds"].to_list() == [0]
    figures = dict(draw(result))
    # One point makes no curve, so that nothing stands at equal zeros.
    assert {"regret", "psnr_against_epochs", "amortisation"} == set(figures)
    bars = figures["regret"].axes[0].containers[0].lines[2]
    # A bar needs two ends.
    assert all(len(segment) < 2 for bar in bars for segment in bar.get_segments())
