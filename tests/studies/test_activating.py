"""The most activating images, against a literal search."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_study import SIZE, TinyData, TinyModel

from sparse_lightning.errors import SettingError
from sparse_lightning.figures.activating import GAP, draw, sheet
from sparse_lightning.figures.tiles import TILE_GAP
from sparse_lightning.studies.activating import activating, most_activating
from sparse_lightning.studies.coding import all_codes, all_inputs
from sparse_lightning.studies.result_cache import ResultCache
from sparse_lightning.studies.study_result import StudyResult


def test_rows_are_the_largest_in_magnitude():
    codes = np.array([[0.0, -3.0, 0.0], [2.0, 1.0, 0.0], [5.0, 0.0, 0.0], [2.0, 2.0, 0.0]])
    found = most_activating(codes, 3)
    assert found[["unit", "rank", "image", "code"]].to_numpy().tolist() == [
        [0, 1, 2, 5], [0, 2, 1, 2], [0, 3, 3, 2], [1, 1, 0, -3], [1, 2, 3, 2], [1, 3, 1, 1],
    ]  # fmt: skip
    assert found.groupby("unit")["active"].first().tolist() == [0.75, 0.75]


def test_images_are_those_of_the_data(tmp_path):
    data, trained = TinyData(), TinyModel()
    result = activating([trained], data, ResultCache(), num_shown=4)
    codes = all_codes(trained.model, data, "val")
    images = all_inputs(data, "val") * 0.3 + 0.5
    for unit, own in result.table.groupby("unit"):
        best = sorted(range(len(codes)), key=lambda row: (-codes[row, unit], row))[:4]
        best = [row for row in best if codes[row, unit] > 0]
        assert own["image"].tolist() == best
        np.testing.assert_allclose(own["code"], codes[best, unit])
        assert own["label"].tolist() == [row % 3 for row in best]
        shown = result.pictures.where(unit=unit, kind="input").pixels
        np.testing.assert_allclose(shown, images[best].reshape(-1, SIZE, SIZE), atol=1e-6)
        (atom,) = result.pictures.where(unit=unit, kind="atom").pixels
        expected = codes[:, unit].max() * trained.model.decoder.weight.detach()[:, unit]
        torch.testing.assert_close(torch.from_numpy(atom).flatten(), expected)
    row = result.more["summary"].iloc[0]
    assert (row["units"], row["dead"]) == (12, int((codes == 0).all(0).sum()))
    whole = [own for _, own in result.table.groupby("unit") if len(own) == 4]
    assert 0 < len(whole) < result.table["unit"].nunique(), "a unit has fewer images"
    shares = [own["label"].value_counts().max() / 4 for own in whole]
    assert row["purity"] == pytest.approx(np.mean(shares))
    labels = np.random.default_rng(0).permutation(np.arange(len(codes)) % 3)
    by_chance = [np.bincount(labels[own["image"]]).max() / 4 for own in whole]
    assert row["purity_by_chance"] == pytest.approx(np.mean(by_chance))
    result.write(tmp_path)
    ((name, figure),) = draw(StudyResult.read(tmp_path))
    assert name == "activating_sdl_lambda0.05_seed0"
    assert "SDL, λ = 0.05, seed 0, tiny" in figure.axes[0].get_title()


def test_atoms_of_signed_codes_are_drawn_at_the_code_of_largest_magnitude():
    data, trained = TinyData(), TinyModel(signed=True)
    pictures = activating([trained], data, ResultCache(), num_shown=1).pictures
    codes = all_codes(trained.model, data, "val")
    largest = [max(own, key=abs) for own in codes.T.tolist()]
    assert min(largest) < 0 < max(largest)
    expected = trained.model.decoder.weight.detach() * torch.tensor(largest)
    found = torch.from_numpy(pictures.where(kind="atom").pixels).flatten(1)
    torch.testing.assert_close(found, expected.T)


def test_each_tile_is_in_its_place():
    result = activating([TinyModel()], TinyData(), ResultCache(), num_shown=2)
    picture, step = sheet(result.pictures), SIZE + TILE_GAP
    assert picture.shape == (12 * step, 3 * step + GAP - GAP, 3)
    unit = int(result.table.query("rank == 2")["unit"].max())
    tile = result.pictures.where(unit=unit, rank=2).pixels[0]
    found = picture[unit * step : unit * step + SIZE, 2 * step : 2 * step + SIZE]
    np.testing.assert_allclose(found[..., 1], np.clip(tile, 0, 1))


def test_a_model_whose_components_are_all_dead_and_data_without_labels():
    trained = TinyModel(encoder=False)
    with torch.no_grad():
        trained.model.decoder.weight.zero_()
    result = activating([trained], TinyData(labelled=False), ResultCache(), num_shown=2)
    assert len(result.table) == 0
    assert result.more["summary"]["dead"].tolist() == [12]
    assert "purity" not in result.more["summary"]
    assert len(list(draw(result))) == 1


def test_models_that_differ_in_the_order_of_samples_alone_have_a_page_each():
    models = [TinyModel(run="runs/b"), TinyModel(run="runs/a"), TinyModel(seed=1)]
    figures = dict(draw(activating(models, TinyData(), ResultCache(), num_shown=1)))
    name = "activating_sdl_lambda0.05_seed"
    assert list(figures) == [f"{name}0_1", f"{name}0_2", f"{name}1"]
    titles = [figure.axes[0].get_title() for figure in figures.values()]
    assert [title.partition("seed ")[2] for title in titles] == [
        "0, run a, tiny", "0, run b, tiny", "1, tiny"
    ]  # fmt: skip


def test_a_title_counts_components_where_the_encoder_does():
    trained = TinyModel("topk", sparsity_weight=16)
    ((_, figure),) = draw(activating([trained], TinyData(), ResultCache(), num_shown=2))
    assert "TopK SAE, k = 16, seed 0, tiny" in figure.axes[0].get_title()


def test_what_cannot_be_shown_is_refused():
    data = TinyData()
    with pytest.raises(SettingError, match=r"split=exam must be one of"):
        activating([TinyModel()], data, ResultCache(), split="exam")
    data.image_shape = None
    with pytest.raises(SettingError, match="tiny has none"):
        activating([TinyModel()], data, ResultCache())
