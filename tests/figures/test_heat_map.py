"""Atoms of data that are no images, as a heat map."""

from __future__ import annotations

import numpy as np
import pytest

from sparse_lightning.figures.heat_map import MOST_ATOMS, MOST_NAMES, atom_heat_map


def test_atoms_are_shown_by_activity_under_the_names_of_their_columns():
    atoms = np.arange(12.0).reshape(3, 4) - 5
    axes = atom_heat_map(atoms, np.array([0.1, 0.5, 0.2]), "Title", list("abcd")).axes[0]
    (image,) = axes.images
    np.testing.assert_array_equal(image.get_array(), atoms[[1, 2, 0]])
    least, most = image.get_clim()
    assert least == -most < 0
    assert [label.get_text() for label in axes.get_xticklabels()] == list("abcd")
    assert [label.get_text() for label in axes.get_yticklabels()] == ["1 (50 %)", "2 (20 %)",
                                                                      "0 (10 %)"]  # fmt: skip


@pytest.mark.parametrize("count", [1, 200])
def test_of_many_atoms_and_columns_some_are_named(count):
    figure = atom_heat_map(np.zeros((count, 10 * count)), np.zeros(count), "Title")
    axes, (image,) = figure.axes[0], figure.axes[0].images
    shown = min(count, MOST_ATOMS)
    assert image.get_array().shape == (shown, 10 * count)
    assert 0 < len(axes.get_xticks()) <= MOST_NAMES
    assert (f"{shown} of {count}" in axes.get_ylabel()) == (count > MOST_ATOMS)
