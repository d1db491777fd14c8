"""PSNR at equal sparsity, on curves whose values are known."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from sparse_lightning.studies.equal_sparsity import (
    against_epochs,
    curves_at_zeros,
    interpolate,
    last_doubling,
    over_seeds,
)


def logarithmic(zeros: np.ndarray) -> np.ndarray:
    return 20 + 3 * np.log(1 - zeros)


@pytest.mark.parametrize("at", [0.82, 0.9, 0.93])
def test_a_curve_that_is_linear_in_the_logarithm_is_read_exactly(at):
    zeros = np.array([0.94, 0.8, 0.88])
    found = interpolate(zeros, logarithmic(zeros), at, 2.5)
    assert found == pytest.approx(logarithmic(np.array(at)))


def test_the_logarithm_matters():
    zeros, psnr = np.array([0.9, 0.96]), np.array([17.0, 14.0])
    # Linear in zeros it would be 14.5 dB.
    share = math.log(0.05 / 0.1) / math.log(0.04 / 0.1)
    assert interpolate(zeros, psnr, 0.95, 3.0) == pytest.approx(17 - 3 * share)
    assert 17 - 3 * share == pytest.approx(14.73, abs=0.01)


def test_nothing_is_read_beyond_the_ends():
    zeros = np.array([0.95, 0.9])
    psnr = np.array([14.0, 17.0])
    assert interpolate(zeros, psnr, 0.95, 2.5) == 14.0
    assert interpolate(zeros, psnr, 0.9, 2.5) == 17.0
    assert math.isnan(interpolate(zeros, psnr, 0.951, 2.5))
    assert math.isnan(interpolate(zeros, psnr, 0.899, 2.5))


def test_nothing_is_read_in_a_hole():
    zeros, psnr = np.array([0.5, 0.7, 0.9]), np.array([20.0, 18.0, 14.0])
    assert math.isnan(interpolate(zeros, psnr, 0.8, 2.5))
    # A measured point at the edge of the hole stands, and so does the other side.
    assert interpolate(zeros, psnr, 0.9, 2.5) == 14.0
    assert 18 < interpolate(zeros, psnr, 0.6, 2.5) < 20
    # Just closer than the factor.
    assert not math.isnan(interpolate(zeros, psnr, 0.8, 3.1))


def test_a_dead_model_is_no_point_of_a_curve():
    zeros, psnr = np.array([1.0, 0.9, 0.95]), np.array([9.0, 17.0, 14.0])
    assert interpolate(zeros, psnr, 0.95, 2.5) == 14.0
    assert math.isnan(interpolate(zeros, psnr, 0.99, 2.5))


def test_seeds_are_averaged_where_their_curves_reach():
    rows = [("sdl", 0, 0.1, 0.8, 20.0), ("sdl", 0, 0.2, 0.9, 16.0), ("sdl", 1, 0.1, 0.8, 22.0)]
    points = pd.DataFrame(rows, columns=["family", "seed", "sparsity_weight", "zeros", "psnr"])
    curves = curves_at_zeros(points, (0.8, 0.9, 0.95), 2.5, ["family", "seed"])
    found = over_seeds(curves, ["zeros", "family"]).set_index("zeros")
    assert found["seeds"].to_list() == [2, 1, 0]
    assert found.loc[0.8, "psnr"] == 21.0
    assert found.loc[0.8, "std"] == pytest.approx(math.sqrt(2))
    assert found.loc[0.9, "psnr"] == 16.0
    assert math.isnan(found.loc[0.9, "std"])
    assert math.isnan(found.loc[0.95, "psnr"])


def history(seed: int, weight: float, zeros: float, psnr: list[float]) -> pd.DataFrame:
    return pd.DataFrame(
        {"family": "sdl", "seed": seed, "sparsity_weight": weight, "zeros": zeros, "psnr": psnr,
         "epochs": range(1, len(psnr) + 1)}
    )  # fmt: skip


def test_the_last_doubling_is_counted_in_epochs_that_all_points_have():
    histories = pd.concat(
        [history(0, 0.1, 0.9, [10.0, 12.0, 13.0, 15.0, 99.0]), history(0, 0.2, 0.95, [8.0] * 4)]
    )
    curves = against_epochs(histories, (0.9, 0.95, 0.99), 2.5)
    assert curves["epochs"].max() == 4
    ends = last_doubling(curves).set_index("zeros")
    assert ends["epochs"].to_list() == [4, 4, 4]
    # From the second epoch to the fourth.
    assert ends.loc[0.9, "change"] == 3.0
    assert ends.loc[0.95, "change"] == 0.0
    assert math.isnan(ends.loc[0.99, "change"])


def test_the_change_is_a_mean_over_seeds_and_none_may_be_unknown():
    first, second = history(0, 0.1, 0.9, [10.0, 12.0]), history(1, 0.1, 0.9, [10.0, 11.0])
    both = last_doubling(against_epochs(pd.concat([first, second]), (0.9,), 2.5))
    assert both["change"].to_list() == [1.5]
    second.loc[0, "zeros"] = 0.8
    lost = last_doubling(against_epochs(pd.concat([first, second]), (0.9,), 2.5))
    assert math.isnan(lost["change"].iloc[0])


def test_without_histories_nothing_is_known_of_epochs():
    curves = against_epochs(pd.DataFrame(), (0.9,), 2.5)
    assert last_doubling(curves).empty
    assert over_seeds(curves, ["zeros", "family", "epochs"]).empty
