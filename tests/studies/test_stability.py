"""Seeds that agree by construction, and seeds that do not."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_study import FlatValidation, TinyData, TinyModel

from sparse_lightning.errors import SettingError
from sparse_lightning.figures.stability import draw
from sparse_lightning.studies.coding import all_codes
from sparse_lightning.studies.result_cache import ResultCache
from sparse_lightning.studies.stability import MEASURES, deranged, stability, summary


def permuted(trained: TinyModel, seed: int) -> TinyModel:
    """One model with its units in another order."""
    other, order = TinyModel(seed=seed), torch.randperm(12)
    other.model.load_state_dict(trained.model.state_dict())
    encoder, decoder = other.model.encoder, other.model.decoder
    with torch.no_grad():
        decoder.weight.copy_(decoder.weight[:, order])
        encoder.input.weight.copy_(encoder.input.weight[order])
        encoder.input.bias.copy_(encoder.input.bias[order])
        encoder.lateral.weight.copy_(encoder.lateral.weight[order][:, order])
    return other


def test_units_in_another_order_agree_wholly_and_other_weights_do_not():
    one, stranger = TinyModel(seed=0), TinyModel(seed=2)
    models = [one, permuted(one, 1), stranger]
    result = stability(models, TinyData(), ResultCache(), num_images=None)
    table = result.table.set_index(["seed", "other_seed"])
    equal = table.loc[(0, 1)]
    used = (one.model.encode(torch.cat([TinyData().splits["val"].tensors.inputs])) != 0).double()
    assert equal["used"] == equal["other_used"] == int((used.mean(0) >= 0.01).sum())
    assert (equal["mean_cosine"], equal["shared"]) == (pytest.approx(1), 1)
    assert equal["correlation"] > 0.9
    assert equal["null_mismatched"] < equal["correlation"]
    for pair in ((0, 2), (1, 2)):
        other = table.loc[pair]
        assert other["shared"] == 0
        # Random weights are as alike as random atoms are.
        assert other["mean_cosine"] == pytest.approx(other["null_white"], abs=0.1)
    assert table["null_white"].between(0, 0.5).all()
    (row,) = result.more["summary"].to_dict("records")
    assert row["pairs"] == 3
    assert row["shared"] == pytest.approx(1 / 3)
    ((name, figure),) = draw(result)
    assert name == "stability"
    assert "tiny" in figure.get_suptitle()


def test_the_coloured_null_knows_where_inputs_vary():
    """Inputs that vary in one direction only make all random atoms alike, up to their sign."""
    data = TinyData()
    for split in data.splits.values():
        direction = split.tensors.inputs[:1]
        split.tensors = split.tensors._replace(
            inputs=torch.linspace(-1, 1, len(split))[:, None] * direction
        )
    models = [TinyModel(seed=seed) for seed in (0, 1)]
    row = stability(models, data, ResultCache()).table.iloc[0]
    assert abs(row["null_coloured"]) > 0.6
    assert row["null_white"] < 0.5


def test_units_of_signed_codes_agree_up_to_their_sign():
    one, other = (TinyModel(seed=seed, signed=True) for seed in (0, 1))
    other.model.load_state_dict(one.model.state_dict())
    encoder, signs = other.model.encoder, torch.tensor([1.0, -1.0]).repeat(6)
    with torch.no_grad():
        other.model.decoder.weight.mul_(signs)
        encoder.input.weight.mul_(signs[:, None])
        encoder.lateral.weight.mul_(signs[:, None] * signs)
    row = stability([one, other], TinyData(), ResultCache()).table.iloc[0]
    assert row["shared"] == 1
    assert (row["mean_cosine"], row["correlation"]) == pytest.approx((1, 1))


def test_the_coloured_null_does_not_know_the_mean_of_inputs():
    models, found = [TinyModel(seed=seed) for seed in (0, 1)], []
    for mean in (0.0, 100.0):
        data = TinyData()
        train = data.splits["train"]
        train.tensors = train.tensors._replace(inputs=train.tensors.inputs + mean)
        found.append(stability(models, data, ResultCache()).table["null_coloured"].item())
    assert found[1] == pytest.approx(found[0], abs=1e-3)


def test_units_in_use_are_those_of_validation_samples():
    data, models = FlatValidation(), [TinyModel(seed=seed) for seed in (0, 1)]
    row = stability(models, data, ResultCache()).table.iloc[0]
    val, test = (
        [int((all_codes(trained.model, data, split) != 0).any(0).sum()) for trained in models]
        for split in ("val", "test")
    )
    assert [row["used"], row["other_used"]] == val
    assert max(val) < min(test)


def test_what_is_shared_is_a_share_of_the_fewer_units_in_use():
    one = TinyModel(seed=0)
    other = permuted(one, 1)
    with torch.no_grad():
        for weight in other.model.encoder.parameters():
            weight[6:] = 0
    row = stability([one, other], TinyData(), ResultCache()).table.iloc[0]
    assert row["other_used"] < row["used"]
    assert row["shared"] == 1


def test_another_number_of_samples_for_the_null_is_measured_again(tmp_path, monkeypatch):
    models = [TinyModel(seed=seed) for seed in (0, 1)]
    for samples in (60, 10):
        monkeypatch.setattr("sparse_lightning.studies.stability.COVARIANCE_SAMPLES", samples)
        known, new = (
            stability(models, TinyData(), cache).table["null_coloured"].item()
            for cache in (ResultCache(tmp_path), ResultCache())
        )
        assert known == new


def test_pairs_are_of_seeds_in_order_wherever_their_runs_are(tmp_path):
    models = [TinyModel(seed=seed) for seed in (1, 0)]
    table = stability(models, TinyData(), ResultCache(tmp_path)).table
    assert table[["seed", "other_seed"]].to_numpy().tolist() == [[0, 1]]
    known = {path.name for path in tmp_path.glob("*.json")}
    stability(models[::-1], TinyData(), ResultCache(tmp_path))
    assert {path.name for path in tmp_path.glob("*.json")} == known


def test_one_seed_of_each_is_refused():
    models = [TinyModel("sdl"), TinyModel("vdl")]
    with pytest.raises(SettingError, match="no family and λ here has two of them"):
        stability(models, TinyData(), ResultCache())


def test_means_and_deviations_are_over_pairs():
    keys = {"data": "d", "family": "sdl", "sparsity_weight": 0.1, "max_epochs": None}
    table = pd.DataFrame([keys | dict.fromkeys(MEASURES, value) for value in (0.2, 0.4)])
    row = summary(table).iloc[0]
    assert (row["mean_cosine"], row["pairs"]) == (pytest.approx(0.3), 2)
    assert row["mean_cosine_std"] == pytest.approx(0.02**0.5)
    # A pair with a model that has no atom in use has no value.
    table.loc[1, MEASURES] = math.nan
    assert summary(table).iloc[0]["pairs"] == 1


@pytest.mark.parametrize("count", [0, 1, 2, 3, 20])
def test_the_null_pairs_no_unit_with_its_own_partner(count):
    for seed in range(20):
        partners = deranged(count, np.random.default_rng(seed))
        assert sorted(partners) == (list(range(count)) if count > 1 else [])
        assert (partners != np.arange(len(partners))).all()


def test_random_atoms_have_the_covariance_of_training_inputs():
    def null(*splits: str) -> float:
        data = TinyData()
        for split in splits:
            noisy = data.splits[split]
            white = torch.randn(60, 64, generator=torch.manual_seed(1))
            noisy.tensors = noisy.tensors._replace(inputs=white)
        models = [TinyModel(seed=seed) for seed in (0, 1)]
        return stability(models, data, ResultCache()).table["null_coloured"].item()

    assert null("test") == pytest.approx(null())
    assert null("train") < null() - 0.1
