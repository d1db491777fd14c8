"""Tiles show what they are given."""

from __future__ import annotations

import numpy as np
import pytest

from sparse_lightning.figures.tiles import TILE_GAP, feature_tiles, image_rows, tile_grid


def test_tiles_are_where_they_belong():
    tiles = np.arange(6)[:, None, None] + np.zeros((6, 2, 3))
    grid = tile_grid(tiles, columns=3, fill=-1)
    gap = TILE_GAP
    assert grid.shape == (2 * 2 + gap, 3 * 3 + 2 * gap)
    for index in range(6):
        top, left = divmod(index, 3)
        tile = grid[top * (2 + gap) :, left * (3 + gap) :][:2, :3]
        assert (tile == index).all()
    assert (grid[2] == -1).all()


def test_grids_have_full_rows_where_they_can():
    assert tile_grid(np.zeros((128, 28, 28))).shape[1] == 16 * 30 - 2
    assert tile_grid(np.zeros((256, 28, 28))).shape[1] == 16 * 30 - 2
    assert np.isnan(tile_grid(np.zeros((7, 2, 2)))).any()


@pytest.mark.parametrize("own_scale", [True, False])
def test_scales_of_features(own_scale):
    tiles = np.stack([np.eye(4), -3 * np.eye(4), np.zeros((4, 4))])
    figure = feature_tiles(tiles, "three", own_scale)
    shown = figure.axes[0].images[0].get_array()
    assert shown.max() == pytest.approx(1 if own_scale else 1 / 3)
    assert shown.min() == pytest.approx(-1)
    assert figure.axes[0].get_title() == "three"
    assert ("own" in figure.axes[1].get_ylabel()) is own_scale


def test_rows_of_images_are_named():
    figure = image_rows({"input": np.ones((3, 4, 4)), "other": np.zeros((3, 4, 4))}, "t")
    assert [axes.get_ylabel() for axes in figure.axes] == ["input", "other"]
