"""Metrics against NumPy, whole and in batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torchmetrics.functional.image import peak_signal_noise_ratio

from sparse_lightning.data.batch import Batch
from sparse_lightning.energy import TERMS
from sparse_lightning.metrics import (
    CodeStatistics,
    EnergyTerms,
    ImagePSNR,
    InferenceEffort,
    image_psnr,
    psnr_of,
)
from sparse_lightning.solvers import Solution


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(6, 20), (6, 1, 4, 5)])
def test_psnr_is_the_formula(dtype, shape):
    target, prediction = torch.rand(shape, dtype=dtype), torch.rand(shape, dtype=dtype)
    errors = (prediction.double() - target.double()).flatten(1).square().mean(1)
    expected = -10 * np.log10(errors.numpy())
    np.testing.assert_allclose(image_psnr(prediction, target), expected, rtol=1e-5)
    assert image_psnr(prediction, target).dtype == dtype


def test_psnr_is_that_of_torchmetrics():
    target, prediction = torch.rand(6, 20), torch.rand(6, 20)
    theirs = peak_signal_noise_ratio(prediction, target, data_range=1.0, reduction="none", dim=(1,))
    torch.testing.assert_close(image_psnr(prediction, target), theirs)


@pytest.mark.parametrize("scale", [torch.tensor(0.3), 0.1 + torch.rand(6, 20)])
def test_errors_of_pixels(scale):
    """The shift does not matter, the scale does."""
    batch = Batch(torch.randn(6, 20), scale, torch.rand(6, 20))
    rebuilt = torch.randn(6, 20)
    expected = image_psnr(batch.to_pixels(rebuilt), batch.to_pixels(batch.inputs))
    errors = batch.squared_errors(rebuilt - batch.inputs)
    torch.testing.assert_close(psnr_of(errors), expected)


def test_exact_reconstruction_counts_as_40():
    target = torch.rand(3, 5)
    prediction = target.clone()
    prediction[1] += 0.1
    psnr = image_psnr(prediction, target)
    assert psnr[0] == psnr[2] == 40
    assert float(psnr[1]) == pytest.approx(20, abs=1e-4)
    worse_than_exact_yet_above = image_psnr(target[:1] + 1e-4, target[:1])
    assert float(worse_than_exact_yet_above) > 40


def test_what_is_not_a_number_stays_so():
    assert psnr_of(torch.tensor([torch.nan, torch.inf, 0.01])).tolist() == pytest.approx(
        [float("nan"), float("-inf"), 20.0], nan_ok=True
    )


def test_mean_psnr_does_not_depend_on_batches():
    target, prediction = torch.rand(10, 8), torch.rand(10, 8)
    whole, parts = ImagePSNR(), ImagePSNR()
    errors = (prediction - target).square().mean(1)
    whole.update(errors)
    for rows in (slice(0, 7), slice(7, 10)):
        parts.update(errors[rows])
    expected = image_psnr(prediction, target).double().mean()
    for metric in (whole, parts):
        assert float(metric.compute()["psnr"]) == pytest.approx(float(expected), rel=1e-6)


def test_a_negative_code_is_active():
    metric = CodeStatistics(2)
    metric.update(torch.tensor([[1.0, -1], [0, 2], [0, -3]]))
    assert metric.active.tolist() == [1, 3]
    assert float(metric.compute()["code_l1"]) == pytest.approx(7 / 3)


def test_code_statistics_against_numpy():
    codes = torch.relu(torch.randn(40, 6))
    codes[:, 3] = 0
    codes[0, 4] += 3
    metric = CodeStatistics(6, variance_threshold=0.55)
    for part in codes.split(17):
        metric.update(part)
    array = codes.double().numpy()
    deviation = array.std(0, ddof=1)
    np.testing.assert_allclose(metric.standard_deviation(), deviation, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(metric.activity(), (array > 0).mean(0))
    np.testing.assert_allclose(metric.largest, array.max(0))
    expected = {
        "zeros": (array == 0).mean(),
        "dead_units": 1,
        "code_l1": array.sum(1).mean(),
        "code_std": deviation.mean(),
        "below_threshold": (deviation < 0.55).mean(),
    }
    found = {name: float(value) for name, value in metric.compute().items()}
    assert found == pytest.approx(expected, rel=1e-9)
    assert 0 < expected["below_threshold"] < 1


def test_energy_terms_are_per_sample():
    metric = EnergyTerms()
    for factor, samples in ((1.0, 3), (2.0, 5)):
        metric.update({name: torch.tensor(factor * i) for i, name in enumerate(TERMS)}, samples)
    found = metric.compute()
    for i, name in enumerate(TERMS):
        assert float(found[name]) == pytest.approx(3 * i / 8)
    assert float(found["energy"]) == pytest.approx(3 * (1 + 2 + 3) / 8)


def test_effort():
    metric = InferenceEffort()
    metric.update(
        Solution(torch.zeros(3, 2), torch.tensor([1, 2, 200]), torch.tensor([True, True, False]))
    )
    metric.update(Solution(torch.zeros(1, 2), torch.tensor([5]), torch.tensor([True])))
    found = {name: float(value) for name, value in metric.compute().items()}
    assert found == {"iterations": 52.0, "converged": 0.75}


@pytest.mark.parametrize("metric", [ImagePSNR(), EnergyTerms(), CodeStatistics(3)])
def test_sums_keep_their_precision_where_a_model_takes_half(metric):
    nn.ModuleList([metric]).to(torch.bfloat16)
    metric.reset()
    sums = [value for value in metric.metric_state.values() if value.is_floating_point()]
    assert {value.dtype for value in sums} == {torch.float64}
