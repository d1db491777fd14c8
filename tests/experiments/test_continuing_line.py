"""What is printed to go on with can be pasted into a shell."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from sparse_lightning.experiments.command_line import (
    continuing_command,
    hydra_value,
    same_command,
)


@pytest.mark.parametrize(
    "text",
    [
        "runs/é 3", "a'b", 'a"b', "a\\b", "a\\", 'a\\"b', "a=b,c", "${seed}", "a${b", "(x)[1]{2}",
        "$HOME", "%x:y", "a\nb", "plain/name-1.2_3", "*?!~;&|<>#",
    ],
)  # fmt: skip
def test_a_folder_comes_back_from_the_shell_and_from_hydra(text, monkeypatch):
    command = ["python", "-m", "sparse_lightning.train"]
    arguments = ["model=sdl", "resume=false", "hydra.run.dir=other", "tags=[a, b]"]
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    monkeypatch.setattr(sys, "orig_argv", [*command, *arguments])
    words = shlex.split(continuing_command(Path(text)))
    assert words[:5] == [*command, "model=sdl", "tags=[a, b]"]
    assert words[6:] == ["resume=true"]
    override = OverridesParser.create().parse_override(words[5])
    assert override.key_or_group == "hydra.run.dir"
    assert OmegaConf.create({"folder": str(override.value())}).folder == text
    assert shlex.split(same_command()) == [*command, *arguments]


def test_a_plain_name_has_no_quotes():
    assert hydra_value("runs/2026-01-01/12_mnist") == "runs/2026-01-01/12_mnist"


def test_a_program_within_another_names_the_module(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train", "-m", "seed=0,1"])
    monkeypatch.setattr(sys, "orig_argv", ["pytest", "-x"])
    assert same_command() == "python -m sparse_lightning.train -m seed=0,1"
