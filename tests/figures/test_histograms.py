"""Histograms count what they are given."""

from __future__ import annotations

import numpy as np

from sparse_lightning.figures.histograms import unit_histograms


def test_histograms_count_every_component():
    deviation, activity = np.linspace(0, 1, 50), np.linspace(0, 1, 50)
    figure = unit_histograms(deviation, activity, 0.5, "codes")
    for axes in figure.axes:
        assert sum(patch.get_height() for patch in axes.patches) == 50
        assert axes.get_xlabel()
        assert axes.get_ylabel() == "code components"
