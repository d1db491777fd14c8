"""Bits against a literal count, and what quantised codes rebuild."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_study import TinyData, TinyModel

from sparse_lightning.errors import SettingError
from sparse_lightning.figures.rate import draw, front
from sparse_lightning.studies.coding import all_inputs
from sparse_lightning.studies.rate import bits, rate
from sparse_lightning.studies.regret import regret
from sparse_lightning.studies.result_cache import ResultCache


def literal_bits(symbols: np.ndarray) -> float:
    """The entropy of each unit's symbols, zeros and all, one by one."""
    total = 0.0
    for unit in symbols.T.tolist():
        for count in Counter(unit).values():
            total -= count / len(unit) * math.log2(count / len(unit))
    return total


def test_support_and_amplitudes_make_up_the_entropy_of_the_symbols():
    symbols = np.random.default_rng(0).poisson(0.7, (200, 9)) * np.array([1, -1, 0] * 3)
    support, amplitudes = bits(symbols)
    assert support + amplitudes == pytest.approx(literal_bits(symbols))
    assert bits(np.zeros((5, 3), int)) == (0.0, 0.0)
    # A fair coin is one bit; of two equally likely sizes the active half says half a bit.
    assert bits(np.array([[0], [1]] * 8)) == (1.0, 0.0)
    assert bits(np.array([[0], [0], [1], [3]])) == (1.0, 0.5)
    assert bits(np.array([[7], [7]])) == (0.0, 0.0)


def test_fine_steps_rebuild_what_the_codes_do_and_cost_more_bits():
    data, trained = TinyData(), TinyModel()
    result = rate([trained], data, ResultCache(), steps=(1e-4, 0.5, 1.0), num_components=(3,))
    table = result.table.set_index("step")
    exact = regret([trained], data, ResultCache()).table.set_index("codes").loc["encoder"]
    assert table.loc[1e-4, "psnr"] == pytest.approx(exact["psnr"], abs=1e-3)
    assert table["bits"].is_monotonic_decreasing
    assert table["bits"].to_list() == pytest.approx(
        (table["support_bits"] + table["amplitude_bits"]).to_list()
    )
    inputs = torch.from_numpy(all_inputs(data, "test"))
    codes = trained.model.encode(inputs).detach().numpy()
    delta = 0.5 * math.sqrt((codes[codes != 0].astype(float) ** 2).mean())
    assert table.loc[0.5, "delta"] == pytest.approx(delta, rel=1e-6)
    symbols = np.rint(codes / delta)
    assert table.loc[0.5, "bits"] == pytest.approx(literal_bits(symbols))
    assert table.loc[0.5, "zeros"] == pytest.approx((symbols == 0).mean())
    rebuilt = trained.model.decode(torch.from_numpy(symbols * delta).float()).detach().numpy()
    errors = ((rebuilt - inputs.numpy()) * 0.3) ** 2
    expected = -10 * np.log10(errors.mean(1)).mean()
    assert table.loc[0.5, "psnr"] == pytest.approx(expected, abs=1e-4)


def test_inputs_that_are_no_images_have_r2():
    data, trained = TinyData(), TinyModel()
    for split in data.splits.values():
        split.tensors = split.tensors._replace(scale=None, shift=None)
    result = rate([trained], data, ResultCache(), steps=(1e-4,), num_components=(3,))
    train, test = all_inputs(data, "train"), all_inputs(data, "test")
    centred = test - train.mean(0)
    rebuilt = trained.model(test).detach().numpy()
    expected = 1 - ((rebuilt - test) ** 2).sum() / (centred**2).sum()
    assert result.table["r2"][0] == pytest.approx(expected, abs=1e-4)
    assert next(draw(result))[1].axes[0].get_ylabel() == "R²"


def test_components_are_rebuilt_as_by_the_reference_of_regret():
    data = TinyData()
    result = rate([TinyModel()], data, ResultCache(), steps=(1e-4,), num_components=(3, 1000))
    row = result.more["references"].iloc[0]
    psnr = regret([TinyModel()], data, ResultCache(), num_components=(3,)).more["references"]
    assert row["psnr"] == pytest.approx(psnr["psnr"][0], abs=1e-3)
    assert len(result.more["references"]) == 1
    assert {"rate", "rate_parts"} == set(dict(draw(result)))


def test_the_front_is_what_nothing_else_beats():
    points = pd.DataFrame({"bits": [1, 2, 3, 4, 2], "psnr": [10.0, 9.0, 12.0, 12.0, 11.0]})
    best = front(points, "psnr")[["bits", "psnr"]]
    assert best.to_numpy().tolist() == [[1, 10], [2, 11], [3, 12]]


def test_steps_are_checked():
    with pytest.raises(SettingError, match=r"steps=\[0\.0\] must all be above 0"):
        rate([], TinyData(), ResultCache(), steps=(0.0,))
