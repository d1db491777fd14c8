"""LISTA against its formula."""

from __future__ import annotations

import pytest
import torch

from sparse_lightning.encoders import LISTA
from sparse_lightning.errors import SettingError


@pytest.mark.parametrize("num_layers", [0, 1, 3])
def test_formula(num_layers):
    encoder = LISTA(7, 4, num_layers)
    inputs = torch.randn(5, 7)
    drive = inputs @ encoder.input.weight.T + encoder.input.bias
    codes = drive.clamp(min=0)
    for _ in range(num_layers):
        codes = (drive + codes @ encoder.lateral.weight.T).clamp(min=0)
    torch.testing.assert_close(encoder(inputs), codes)


def test_parts():
    encoder = LISTA(7, 4)
    assert encoder.lateral.bias is None
    assert torch.equal(encoder.filters(), encoder.input.weight)
    with pytest.raises(SettingError, match=r"model\.encoder\.num_layers=-1"):
        LISTA(7, 4, -1)
