"""What a training prints at its end."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparse_lightning.training.results import Results


@pytest.mark.parametrize("r2", [-0.1, 0.1])
def test_epochs_are_counted_from_1_and_r2_below_0_is_told(r2: float, tmp_path: Path, capsys):
    metrics = {"val/r2": 0.5, "test/r2": r2, "epochs": 3, "seconds": 1.0}
    Results(metrics, "encoder", 1, True, {"epoch": 0, "val/r2": 0.2}).show(tmp_path)
    printed = " ".join(capsys.readouterr().out.split())
    assert "Best model: epoch 2 of 3" in printed
    assert "validation, epoch 1" in printed
    assert ("R² is below 0" in printed) == (r2 < 0)
