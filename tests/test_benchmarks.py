"""Every benchmark runs through, and compares what it says it compares."""

from __future__ import annotations

import importlib

import pytest
import torch

from benchmarks import epoch, problems
from benchmarks.inference import textbook
from benchmarks.timing import median_ratio
from sparse_lightning import FISTA

QUICK = {
    "dictionary_learning": "SparseCoding, DO",
    "inference": "sdl",
    "lasso": "this package, adaptive",
    "memory": "peak of anonymous memory",
    "patches": "one at a time",
}


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("memory", "sweep")]


@pytest.mark.parametrize("name", [*(name for name in QUICK if name != "memory"), *SLOW])
def test_quick_run_prints_its_table(name, capsys):
    importlib.import_module(f"benchmarks.{name}").main(["--quick"])
    assert QUICK.get(name, "joblib, 2 workers") in capsys.readouterr().out


def test_a_ratio_is_the_median_within_turns():
    assert median_ratio([2.0, 4.0, 90.0], [1.0, 4.0, 30.0]) == 2.0


@pytest.mark.parametrize("family", ["vdl", "sdl_nl"])
def test_the_textbook_takes_the_steps_of_fista(family):
    case = problems.problem(family, steps=1, samples=20)
    theirs = textbook(case, 0.5, num_iterations=10, tolerance=0.0)
    ours = case.infer(FISTA(0.5, 10, 0.0))
    assert float(ours.norm()) > 0
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


OTHER_TRAIN = """
import sys
from pathlib import Path

words = dict(word.split("=", 1) for word in sys.argv if "=" in word)
run = Path(words["hydra.run.dir"].strip("'"))
run.mkdir()
(run / "metrics.csv").write_text("epoch,seconds\\n0,100\\n1,2\\n2,3\\n3,9\\n")
"""


def test_an_epoch_is_that_of_the_checkout_asked_for(tmp_path):
    package = tmp_path / "other" / "sparse_lightning"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "train.py").write_text(OTHER_TRAIN)
    given = epoch.command_line().parse_args(["--parts", "1", "10", "--epochs", "3"])
    for family, expected in (("sdl", 3), ("sdl_nl", 30)):
        seconds = epoch.epoch_seconds(
            tmp_path / "other", family, "paper", given, tmp_path, f"run-{family}"
        )
        assert seconds == expected


def test_an_epoch_against_something_else_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        epoch.main(["--against", str(tmp_path)])
    assert "holds no sparse_lightning" in capsys.readouterr().err


@pytest.mark.slow
def test_epochs_of_two_checkouts_side_by_side(capsys):
    epoch.main(["--quick", "--against", str(problems.ROOT)])
    printed = capsys.readouterr().out
    assert "there = 1" in printed
    assert "adaptive" in printed
