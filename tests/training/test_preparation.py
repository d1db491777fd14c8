"""Settings that fit neither each other nor this machine are refused."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import Compose

from sparse_lightning.errors import SettingError
from sparse_lightning.experiments.runs import Run
from sparse_lightning.experiments.table import collect, summarize, write_results
from sparse_lightning.experiments.training_run import _made
from sparse_lightning.train import train
from sparse_lightning.training.preparation import quieten, require_trainable, usable_accelerator


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


def test_what_is_null_is_left_out(compose):
    config = compose("callbacks.figures=null", "logger.wandb=null")
    require_trainable(config)
    assert _made(config.logger) == []
    assert len(_made(config.callbacks)) == len(config.callbacks) - 1
    config = compose("callbacks.sparsity_target=null", "target_zeros=0.9")
    with pytest.raises(SettingError, match=r"needs callbacks\.sparsity_target"):
        require_trainable(config)


def ending(compose_small: Compose, *settings: str) -> dict[str, float]:
    return train(compose_small("model=do", "trainer.max_epochs=1", *settings))


def named_files(printed: str, folder: Path) -> set[str]:
    lines = printed.splitlines()
    return {Path(line).name for line in lines if line.startswith(str(folder))}


def test_without_test_batches_there_are_validation_results(compose_small, tmp_path, capsys):
    final = ending(compose_small, "trainer.limit_test_batches=0")
    assert "val/psnr" in final
    assert not any(name.startswith("test/") for name in final)
    run = Run(tmp_path / "run")
    assert run.is_finished
    files = {"metrics.json", "metrics.csv", "best.ckpt"}
    assert named_files(capsys.readouterr().out, run.folder) == files
    table = collect(run.folder)
    write_results(tmp_path / "tables", table, summarize(table))
    assert table["val/psnr"].tolist() == [final["val/psnr"]]


def test_without_checkpoints_the_last_model_is_tested(compose_small, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, settings in {
        "off": ["trainer.enable_checkpointing=false"],
        "no_callback": ["~callbacks.checkpoint", "~callbacks.last"],
    }.items():
        folder = tmp_path / name
        config = compose_small("model=do", *settings, run_dir=folder)
        final = train(config)
        rows = pd.read_csv(folder / "metrics.csv").set_index("epoch")
        assert final["val/energy"] == rows["val/energy"][1]
        assert "test/psnr" in final
        printed = capsys.readouterr().out
        assert "Last model: epoch 2 of 2" in printed
        assert named_files(printed, folder) == {"metrics.json", "metrics.csv"}
        assert not list(tmp_path.rglob("*.ckpt"))


def test_without_validation_the_last_model_is_the_one(compose_small, tmp_path: Path, capsys):
    settings = ("trainer.limit_val_batches=0", "~callbacks.checkpoint")
    final = ending(compose_small, *settings)
    assert "test/psnr" in final
    assert not any(name.startswith("val/") for name in final)
    assert "best.ckpt" not in named_files(capsys.readouterr().out, tmp_path / "run")


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("limit_train_batches=0", r"trainer\.limit_train_batches=0 leaves nothing to train on"),
        ("limit_train_batches=0.0", "leaves nothing to train on"),
        ("limit_val_batches=0", r"leaves no val/energy, by which callbacks\.checkpoint chooses"),
        ("limit_val_batches=0.0", r"at least 1 batch, or add '~callbacks\.checkpoint'"),
        ("max_epochs=0", r"max_epochs=0 trains nothing"),
        (
            "check_val_every_n_epoch=3",
            r"epoch=3 validates none of .*max_epochs=1",
        ),
    ],
)
def test_what_a_training_needs_is_not_switched_off(setting, told, compose_small, tmp_path: Path):
    with pytest.raises(SettingError, match=told):
        ending(compose_small, f"trainer.{setting}")
    assert not list((tmp_path / "run").rglob("*.json"))


def test_lines_of_lightning_are_told_once(monkeypatch: pytest.MonkeyPatch):
    """By the handlers that Hydra set up, whenever Lightning was imported."""
    stream = io.StringIO()
    root, own = logging.getLogger(), logging.getLogger("lightning")
    for log in (root, own):
        monkeypatch.setattr(log, "handlers", [logging.StreamHandler(stream)])
    line = logging.LogRecord("lightning.pytorch", logging.INFO, "", 0, "Restoring", None, None)
    own.callHandlers(line)
    assert stream.getvalue() == "Restoring\nRestoring\n"
    quieten()
    own.callHandlers(line)
    assert stream.getvalue() == 3 * "Restoring\n"
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(own, "handlers", [logging.StreamHandler(stream)])
    quieten()
    own.callHandlers(line)
    assert stream.getvalue() == 4 * "Restoring\n"
