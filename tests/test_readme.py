"""The README's Python runs as it stands, and its commands compose."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
from conftest import Compose
from omegaconf import OmegaConf

from sparse_lightning.train import train

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_python(compose_small: Compose, tmp_path: Path, monkeypatch, capsys):
    (program,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    train(compose_small("model=vdl", "trainer.max_epochs=1", run_dir=tmp_path / "runs" / "mine"))
    monkeypatch.chdir(tmp_path)
    exec(compile(program, "README.md", "exec"), {})
    assert "torch.Size([250, 128])" in capsys.readouterr().out


def test_commands(compose: Compose, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.zeros((3, 4)))
    commands = re.findall(r"^python -m sparse_lightning\.train (.*)$", README, re.MULTILINE)
    assert len(commands) >= 8
    for command in commands:
        words = shlex.split(command, comments=True)
        if "-m" in words or any(word.startswith("hydra/launcher") for word in words):
            continue  # A sweep; its launcher is an extra.
        overrides = [word for word in words if not word.startswith("hydra.run")]
        OmegaConf.to_container(compose(*overrides), resolve=True)
