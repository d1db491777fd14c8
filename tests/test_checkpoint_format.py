"""Checkpoints of others are refused, and no code in them is run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import Compose

from sparse_lightning.checkpoint_format import read_checkpoint
from sparse_lightning.errors import CheckpointError
from sparse_lightning.model import SparseAutoencoder
from sparse_lightning.train import train


def test_checkpoints_of_others_are_refused(compose_small: Compose, tmp_path: Path):
    train(compose_small("model=sdl", "trainer.max_epochs=1", run_dir=tmp_path / "sdl"))
    checkpoint = tmp_path / "sdl" / "checkpoints" / "last.ckpt"
    with pytest.raises(CheckpointError, match=r"is of family sdl, not vdl: set model=sdl"):
        train(compose_small("model=vdl", f"ckpt_path={checkpoint}", run_dir=tmp_path / "a"))
    told = r"has another model.decoder than the settings \(code_dim 128, not 64\)"
    with pytest.raises(CheckpointError, match=told):
        train(compose_small("model=sdl", "code_dim=64", f"ckpt_path={checkpoint}"))
    for content in (b"not a checkpoint", checkpoint.read_bytes()[:2000]):
        bad = tmp_path / "bad.ckpt"
        bad.write_bytes(content)
        with pytest.raises(CheckpointError, match="is not a checkpoint of sparse_lightning"):
            SparseAutoencoder.load_from_checkpoint(bad)
    for contents in ({"state_dict": {}}, {"hyper_parameters": {"family": "sdl"}}):
        torch.save(contents, bad)
        with pytest.raises(CheckpointError, match="is not a checkpoint of sparse_lightning"):
            SparseAutoencoder.load_from_checkpoint(bad)


def test_checkpoint_that_would_run_code_is_refused(tmp_path: Path):
    marker, path = tmp_path / "ran", tmp_path / "evil.ckpt"

    class Evil:
        def __reduce__(self):
            return (marker.write_text, ("gotcha",))

    torch.save({"hyper_parameters": {"family": Evil()}}, path)
    with pytest.raises(CheckpointError, match="is not a checkpoint"):
        SparseAutoencoder.load_from_checkpoint(path)
    assert not marker.exists()


@pytest.mark.parametrize("content", [b"Na", b".", b"", b"PK"])
def test_damage_of_any_kind_is_one_sentence(content, tmp_path: Path):
    (path := tmp_path / "x.ckpt").write_bytes(content)
    with pytest.raises(CheckpointError, match="is not a checkpoint of sparse_lightning"):
        read_checkpoint(path)


def test_a_bare_tensor_is_no_checkpoint(tmp_path: Path):
    torch.save(torch.zeros(3), path := tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="is not a checkpoint of sparse_lightning"):
        read_checkpoint(path)
