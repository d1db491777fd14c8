"""Settings that fit neither each other nor this machine are refused."""

from __future__ import annotations

import pytest
import torch

from sparse_lightning.errors import SettingError
from sparse_lightning.training.preparation import usable_accelerator


def test_an_accelerator_without_float64_is_not_chosen(compose, monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert usable_accelerator(compose("trainer.accelerator=auto")) == "cpu"
    for asked in ("mps", "gpu"):
        with pytest.raises(SettingError, match=f"trainer.accelerator={asked} has no float64"):
            usable_accelerator(compose(f"trainer.accelerator={asked}"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for asked in ("auto", "gpu"):
        assert usable_accelerator(compose(f"trainer.accelerator={asked}")) == asked
