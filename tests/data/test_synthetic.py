"""Synthetic data against their formula, written out."""

from __future__ import annotations

import pytest
import torch

from sparse_lightning.data.synthetic import SyntheticDictionary
from sparse_lightning.errors import SettingError

SMALL = {"input_dim": 10, "num_atoms": 15, "num_active": 3, "batch_size": 20}
SIZES = {"num_train": 200, "num_val": 30, "num_test": 40}


def made(**settings) -> SyntheticDictionary:
    data = SyntheticDictionary(**{**SMALL, **SIZES, **settings})
    data.setup()
    return data


def test_codes_have_so_many_active_components_of_bounded_size():
    for signed in (False, True):
        codes = made(signed=signed).codes["train"]
        assert set((codes != 0).sum(1).tolist()) == {3}
        sizes = codes[codes != 0].abs()
        assert 0.5 <= float(sizes.min()) < 0.55
        assert 1.45 < float(sizes.max()) <= 1.5
        assert bool((codes < 0).any()) is signed
        assert (codes != 0).any(0).all()


def test_inputs_are_sums_of_atoms_but_for_noise():
    clean, noisy = made(noise=0.0), made(noise=0.5)
    for split, count in (("train", 200), ("test", 40)):
        signals = [data.splits[split].tensors.inputs / data.scale for data in (clean, noisy)]
        expected = clean.codes[split] @ clean.atoms()
        torch.testing.assert_close(signals[0], expected)
        noise = float((signals[1] - signals[0]).std())
        assert noise == pytest.approx(0.5 / clean.scale, rel=0.1)
        assert len(signals[0]) == count
    assert float(noisy.splits["train"].tensors.inputs.std()) == pytest.approx(1.0, abs=1e-5)
    torch.testing.assert_close(torch.linalg.vector_norm(clean.atoms(), dim=1), torch.ones(15))


def test_a_hidden_layer_is_a_relu_between_two_matrices():
    data = made(noise=0.0, hidden_dim=7)
    below, above = data.weights
    assert (below.shape, above.shape) == ((7, 15), (10, 7))
    signals = data.splits["val"].tensors.inputs / data.scale
    expected = (data.codes["val"] @ below.T).clamp_min(0) @ above.T
    torch.testing.assert_close(signals, expected)
    alone = below[:, 4].clamp_min(0) @ above.T
    torch.testing.assert_close(data.atoms()[4], alone / alone.norm())


def test_seeds_and_sizes():
    data, longer = made(), made(num_train=300)
    assert torch.equal(data.codes["test"], longer.codes["test"])
    assert torch.equal(data.atoms(), made(shuffle_seed=5).atoms())
    assert not torch.equal(data.atoms(), made(generator_seed=1).atoms())
    assert not torch.equal(data.codes["val"][:30], data.codes["train"][:30])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_active": 16}, r"data\.num_active=16 must not exceed data\.num_atoms=15"),
        ({"noise": -1}, r"data\.noise=-1"),
        ({"num_atoms": 0}, r"data\.num_atoms=0"),
        ({"hidden_dim": 5, "signed": True}, r"data\.signed=true with data\.hidden_dim=5"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(SettingError, match=message):
        SyntheticDictionary(**{**SMALL, **settings})
