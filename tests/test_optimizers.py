"""One Adam with groups against two Adams."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import mse_loss
from torch.optim import Adam

from sparse_lightning.decoders import LinearDecoder, MultiLayerDecoder
from sparse_lightning.encoders import LISTA, GatedLISTA, SignedLISTA
from sparse_lightning.errors import SettingError
from sparse_lightning.optimizers import AdamSettings
from sparse_lightning.sparse_encoders import JumpReLUEncoder

SETTINGS = AdamSettings(
    decoder_learning_rate=3e-3,
    encoder_learning_rate=1e-3,
    decoder_weight_decay=5e-4,
    decoder_bias_weight_decay=1e-2,
    encoder_bias_weight_decay=2e-2,
    decoder_decay_factor=0.5,
    decoder_decay_epochs=3,
)


def test_one_adam_equals_two():
    decoder, encoder = MultiLayerDecoder(6, [8], 10).double(), LISTA(10, 6).double()
    other_decoder, other_encoder = copy.deepcopy(decoder), copy.deepcopy(encoder)
    one, _ = SETTINGS.build(decoder, encoder)
    hidden, encode = other_decoder.hidden[0], other_encoder.input
    two = [
        Adam(
            [
                {"params": [hidden.weight, other_decoder.output.weight], "weight_decay": 5e-4},
                {"params": [hidden.bias], "weight_decay": 1e-2},
            ],
            lr=3e-3,
            fused=True,
        ),
        Adam(
            [
                {"params": [encode.weight, other_encoder.lateral.weight]},
                {"params": [encode.bias], "weight_decay": 2e-2},
            ],
            lr=1e-3,
            fused=True,
        ),
    ]
    for _ in range(20):
        inputs, codes = torch.randn(12, 10).double(), torch.rand(12, 6).double()
        one.zero_grad()
        (mse_loss(decoder(codes), inputs) + mse_loss(encoder(inputs), codes)).backward()
        one.step()
        for optimizer, loss in zip(
            two,
            [mse_loss(other_decoder(codes), inputs), mse_loss(other_encoder(inputs), codes)],
        ):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        for ours, theirs in zip(
            [*decoder.parameters(), *encoder.parameters()],
            [*other_decoder.parameters(), *other_encoder.parameters()],
        ):
            assert torch.equal(ours, theirs)


def test_one_loop_takes_adams_steps():
    decoder = MultiLayerDecoder(6, [8], 10).double()
    other = copy.deepcopy(decoder)
    ours, _ = SETTINGS.build(decoder, None)
    assert ours.param_groups[0]["fused"]
    hidden, output = other.hidden[0], other.output
    theirs = Adam(
        [
            {"params": [hidden.weight, output.weight], "weight_decay": 5e-4},
            {"params": [hidden.bias], "weight_decay": 1e-2},
        ],
        lr=3e-3,
        foreach=False,
    )
    for _ in range(20):
        inputs, codes = torch.randn(12, 10).double(), torch.rand(12, 6).double()
        for optimizer, network in ((ours, decoder), (theirs, other)):
            optimizer.zero_grad()
            mse_loss(network(codes), inputs).backward()
            optimizer.step()
    for one, two in zip(decoder.parameters(), other.parameters()):
        torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("encoder", "vectors"),
    [
        (LISTA(10, 6), set()),
        (GatedLISTA(10, 6), {"gain", "overshoot"}),
        (SignedLISTA(10, 6), {"threshold"}),
        (JumpReLUEncoder(10, 6, 0.1, 0.1), {"log_threshold"}),
    ],
)
@pytest.mark.parametrize("bias_decay", [0.0, 2e-2])
def test_of_vectors_only_biases_decay(encoder, vectors, bias_decay):
    settings = replace(SETTINGS, encoder_bias_weight_decay=bias_decay)
    optimizer, _ = settings.build(LinearDecoder(6, 10, has_bias=True), encoder)
    decays = {p: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in encoder.named_parameters():
        is_bias = parameter.ndim == 1 and name not in vectors
        assert decays.pop(parameter) == (bias_decay if is_bias else 0)
    assert sorted(decays.values()) == [5e-4, 1e-2]


def test_only_the_decoders_rate_decays():
    optimizer, schedule = SETTINGS.build(MultiLayerDecoder(6, [8], 10), LISTA(10, 6))
    rates = []
    for _ in range(7):
        rates.append({group["name"]: group["lr"] for group in optimizer.param_groups})
        optimizer.step()
        schedule.step()
    assert [r["decoder_weights"] for r in rates] == pytest.approx(
        [3e-3] * 3 + [1.5e-3] * 3 + [75e-5]
    )
    assert [r["decoder_biases"] for r in rates] == [r["decoder_weights"] for r in rates]
    assert {r["encoder_weights"] for r in rates} == {r["encoder_biases"] for r in rates} == {1e-3}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("decoder_learning_rate", 0.0),
        ("encoder_learning_rate", -1e-3),
        ("decoder_weight_decay", -1.0),
        ("encoder_bias_weight_decay", float("nan")),
        ("decoder_decay_epochs", 0),
        ("decoder_decay_epochs", "ten"),
        ("betas", 0.9),
    ],
)
def test_bad_settings(name, value):
    settings = {"decoder_learning_rate": 1e-3, "encoder_learning_rate": 1e-3, name: value}
    with pytest.raises(SettingError, match=rf"model\.optimizer\.{name}=.*{value}"):
        AdamSettings(**settings)
