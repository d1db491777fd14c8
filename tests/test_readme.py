"""The Python of the pages runs as it stands, and their commands compose."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
from conftest import Compose
from omegaconf import OmegaConf

from sparse_lightning.train import train

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", "docs/index.md", "docs/families.md", "docs/dashboards.md")


def test_python(compose_small: Compose, tmp_path: Path, monkeypatch, capsys):
    page = (ROOT / "docs" / "from_python.md").read_text()
    using, reading, _, sharing = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    train(compose_small("model=vdl", "trainer.max_epochs=1", run_dir=tmp_path / "runs" / "mine"))
    monkeypatch.chdir(tmp_path)
    for program in (using, reading, sharing):
        exec(compile(program, "from_python.md", "exec"), {})
    assert (tmp_path / "shared" / "config.json").is_file()
    assert "torch.Size([250, 128])" in capsys.readouterr().out


def test_commands(compose: Compose, tmp_path: Path, monkeypatch):
    text = "\n".join((ROOT / page).read_text() for page in PAGES)
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.zeros((3, 4)))
    commands = re.findall(r"^python -m sparse_lightning\.train (.*)$", text, re.MULTILINE)
    assert len(commands) >= 8
    for command in commands:
        words = shlex.split(command, comments=True)
        if "-m" in words or any(word.startswith("hydra/launcher") for word in words):
            continue  # A sweep; its launcher is an extra.
        overrides = [word for word in words if not word.startswith("hydra.run")]
        OmegaConf.to_container(compose(*overrides), resolve=True)


def test_the_readme_is_short_and_its_links_lead_somewhere():
    readme = (ROOT / "README.md").read_text()
    assert len(readme.splitlines()) < 150
    targets = re.findall(r"\]\(([^)#]+)", readme)
    local = [target for target in targets if not target.startswith("http")]
    assert len(local) > 10
    assert [target for target in local if not (ROOT / target).is_file()] == []
