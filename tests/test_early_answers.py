"""Help and mistakes are answered before torch is imported, by every command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from sparse_lightning.config import CONFIG_DIR

# Answers commands one after another in one process, which saves the start of Python.
CHILD = """
import contextlib, importlib, io, json, os, sys
from hydra.core.global_hydra import GlobalHydra
answers = []
for command, *arguments in json.loads(sys.argv[1]):
    sys.argv = [command, *arguments]
    module = importlib.import_module(f"sparse_lightning.{command}")
    GlobalHydra.instance().clear()
    os.environ["HYDRA_FULL_ERROR"] = "0"
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        try:
            module.main()
        except SystemExit as ended:
            printed.write(str(ended.code))
    loaded = [name for name in ("torch", "lightning", "numba") if name in sys.modules]
    answers.append([printed.getvalue(), loaded])
print(json.dumps(answers))
"""
COMMANDS = ("train", "evaluate", "reproduce", "collect")
MISTAKES = [
    (["train", "modle=sdl"], "Nearest valid names: model"),
    (["train", "model=vdl_ln_"], "Nearest valid names: model="),
    (["train", "model.energy.sparsity_wieght=1"], "names: model.energy.sparsity_weight"),
    (["train", "code_dim=2.5"], "code_dim=2.5 must be"),
    (["train", "sparsity_level=77"], "sparsity_level=77 must be between"),
    (["train", "resume=perhaps"], "resume=perhaps must be"),
    (["train", "init_from=/nowhere/best.ckpt"], "init_from=/nowhere/best.ckpt: there is no"),
    (["train", "data=imagenet_patches", "data.root=/nowhere"], "data.root=/nowhere cannot be read"),
    (["train", "-m", "modle=sdl,vdl"], "Nearest valid names: model"),
    (["train", "-m", "model=sdl,vdl", "hydra.launcher.n_jobs=2"], "add hydra/launcher=joblib"),
    (["train", "-m", "model=sdl,vdl", "sparsity_level=0,77"], "sparsity_level=77 must be between"),
    (["train", "model.energy.variance_weight=inf"], "variance_weight=inf must be a finite"),
    (
        ["train", "-m", "model.energy.sparsity_weight=0.01,-0.01"],
        "model.energy.sparsity_weight=-0.01 must be a finite number, 0 or more",
    ),
    (["train", "-m", "model.energy.encoder_weight=1,nan"], "encoder_weight=nan must be a finite"),
    (["evaluate", "study=regret"], "set either checkpoint=PATH"),
    (["evaluate", "study=regrt"], "Nearest valid names: study=regret"),
    (["evaluate", "runs=/nowhere"], "runs=/nowhere is no folder"),
    (["evaluate", "checkpoint=/nowhere"], "checkpoint=/nowhere: there is no checkpoint"),
    (["reproduce", "scale=smal"], "Nearest valid names: scale=small"),
    (["reproduce", "jobs=0"], "jobs=0 must be"),
    (["collect", "/nowhere"], "/nowhere is no folder"),
    (["collect", "."], "holds no run"),
]


def answers(commands: list[list[str]], folder: Path) -> list[list]:
    child = subprocess.run(
        [sys.executable, "-c", CHILD, json.dumps(commands)],
        cwd=folder,
        env=os.environ | {"WANDB_MODE": "offline"},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(child.stdout.splitlines()[-1])


def choices_in(text: str) -> dict[str, set[str]]:
    """The names that each line shows below ``Choices``, by group."""
    lines = text.partition("Choices (NAME=ONE_OF):\n")[2].partition("\n\n")[0].splitlines()
    named = (line.partition(";")[0].split(maxsplit=1) for line in lines)
    return {group: {*names.split(", ")} for group, names in named}


def test_help_shows_choices_and_the_settings_of_a_newcomer(tmp_path: Path):
    helped = answers([[command, "--help"] for command in COMMANDS], tmp_path)
    for text, loaded in helped:
        assert loaded == []
        assert len(text.splitlines()) < 60
    choices = choices_in(helped[0][0])
    assert {"model", "data", "solver", "trainer", "logger"} <= choices.keys()
    for group, shown in choices.items():
        known = {path.stem for path in (CONFIG_DIR / group).glob("*.yaml")} - {"base"}
        assert shown == known, group
    for told in ("model.energy.sparsity_weight", "trainer.max_epochs", "needs no -m", "--cfg job"):
        assert told in helped[0][0]


def test_mistakes_are_answered_before_torch_is_imported(tmp_path: Path):
    said = answers([arguments for arguments, _ in MISTAKES], tmp_path)
    for (arguments, expected), (text, loaded) in zip(MISTAKES, said, strict=True):
        assert expected in text, arguments
        assert loaded == [], arguments
