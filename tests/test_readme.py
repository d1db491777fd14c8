"""The Python of the pages runs as it stands, and their commands compose."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from conftest import Compose, composed
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from sparse_lightning.train import train

ROOT = Path(__file__).parent.parent
# What a user reads first, and all others but extending.md, which has a test of its own.
FIRST = ("README", "index", "families", "own_data", "from_python", "dashboards")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
OTHERS = [page.stem for page in PAGES if page.stem not in (*FIRST, "extending")]


def test_python(compose_small: Compose, tmp_path: Path, monkeypatch, capsys):
    page = (ROOT / "docs" / "from_python.md").read_text()
    using, reading, _, sharing = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    train(compose_small("model=vdl", "trainer.max_epochs=1", run_dir=tmp_path / "runs" / "mine"))
    monkeypatch.chdir(tmp_path)
    for program in (using, reading, sharing):
        exec(compile(program, "from_python.md", "exec"), {})
    assert (tmp_path / "shared" / "config.json").is_file()
    assert "torch.Size([250, 128])" in capsys.readouterr().out


@pytest.mark.parametrize("names", [FIRST, pytest.param(OTHERS, marks=pytest.mark.slow)])
def test_commands(names, monkeypatch, tmp_path: Path):
    """Every command of a page composes, of a sweep its first job."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PWD", str(tmp_path))
    np.save("x.npy", np.zeros((3, 4)))
    found = [
        (command, words)
        for page in PAGES
        for command, words in re.findall(
            r"^ *python -m sparse_lightning\.(train|encode|evaluate|reproduce) (.*)$",
            page.read_text().replace("\\\n", " "),
            re.MULTILINE,
        )
        if page.stem in names
    ]
    assert {"train", "evaluate"} <= {command for command, _ in found}
    parser = OverridesParser.create()
    for command, text in found:
        words = shlex.split(os.path.expandvars(text), comments=True)
        # Neither what other lines of the page define, nor Hydra's own words.
        words = [word for word in words if not word.startswith(("-", "$", "hydra"))]
        if any("=$" in word for word in words):
            continue  # Inside a loop of the shell.
        values = [
            f"{word.partition('=')[0]}={next(override.sweep_string_iterator())}"
            if override.is_choice_sweep() or override.is_range_sweep()
            else word
            for word, override in zip(words, parser.parse_overrides(words))
            if not override.is_interval_sweep()
        ]
        OmegaConf.to_container(composed(command, *values), resolve=True)


def test_the_readme_is_short_and_its_links_lead_somewhere():
    readme = (ROOT / "README.md").read_text()
    assert len(readme.splitlines()) < 150
    targets = re.findall(r"\]\(([^)#]+)", readme)
    local = [target for target in targets if not target.startswith("http")]
    assert len(local) > 10
    assert [target for target in local if not (ROOT / target).is_file()] == []
