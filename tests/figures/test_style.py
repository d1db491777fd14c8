"""What all figures share."""

from __future__ import annotations

from math import nan

import pytest
from matplotlib.figure import Figure

from sparse_lightning.figures.style import curve_with_bars, sparsity_label


@pytest.mark.parametrize(("spread", "bars"), [([nan, nan], 0), ([0.1, nan], 1), ([0.1, 0.2], 2)])
def test_one_seed_has_no_bar_and_a_legend_tells_of_none_without_any(spread, bars):
    axes = Figure().subplots()
    curve_with_bars(axes, [1, 2], [3.0, 4.0], xerr=[nan, nan], yerr=spread, label="SDL")
    (curve,) = axes.containers
    assert not curve.has_xerr
    assert curve.has_yerr == (bars > 0)
    drawn = [segment for lines in curve.lines[2] for segment in lines.get_segments()]
    assert sum(len(segment) == 2 for segment in drawn) == bars


def test_an_axis_over_lambda_or_k_says_what_they_are():
    assert sparsity_label("vdl_nl") == "sparsity weight λ"
    assert sparsity_label("topk") == "active components k"
