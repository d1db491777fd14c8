"""Trainings as data: each line is a sweep."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sparse_lightning.errors import SettingError, SweepError
from sparse_lightning.experiments.runs import State, find_runs
from sparse_lightning.experiments.sweep_commands import commands, run_all

EVERYWHERE = {"mnist": ["data.root=/d"], "imagenet_patches": []}


def test_each_line_is_a_sweep_into_the_folder_of_its_data(tmp_path: Path):
    lines = [["data=mnist", "model=sdl,vdl", "seed=0,1"], ["data=imagenet_patches", "model=sdl"]]
    first, second = commands(lines, EVERYWHERE, tmp_path, jobs=1)
    assert first[:3] == ["-m", "sparse_lightning.train", "-m"]
    assert {*lines[0], "data.root=/d", f"hydra.sweep.dir={tmp_path / 'mnist'}"} <= set(first)
    assert {*lines[1], f"hydra.sweep.dir={tmp_path / 'imagenet_patches'}"} <= set(second)
    assert not any("launcher" in word or "data.root" in word for word in second)
    two = commands(lines, EVERYWHERE, tmp_path, jobs=2)[0]
    assert {"hydra/launcher=joblib", "hydra.launcher.n_jobs=2"} <= set(two)
    with pytest.raises(SettingError, match="must choose data="):
        commands([["model=sdl"]], EVERYWHERE, tmp_path, jobs=1)


@pytest.mark.slow
def test_finished_trainings_are_skipped_and_failures_named(tmp_path: Path, mnist_root: Path, capfd):
    small = ["data.num_train=100", "data.num_val=50", "data.num_test=50", "data.batch_size=50"]
    small += ["trainer=cpu", "trainer.max_epochs=1", f"data.root={mnist_root}"]
    lines = [
        ["data=mnist", "model=sdl", f"step_size={step}", "solver.safeguard=false"]
        for step in ("0.5", "0.5,5000")
    ]
    with pytest.raises(SweepError, match=r"1 of 2 sweeps failed.*step_size=0\.5,5000"):
        run_all(commands(lines, {"mnist": small}, tmp_path, jobs=1))
    states = sorted(run.state for run in find_runs(tmp_path))
    assert states == [State.FAILED, State.FINISHED]
    printed = capfd.readouterr().err
    assert "Sweep of 1 jobs" in printed
    assert "1 finished, 1 waiting" in printed
    assert "solver.step_size=5000 is too large" in printed


CHILD = """
import os, signal, sys, time
def end(*_):
    os.write(1, b"saved\\n")
    sys.exit(143)
signal.signal(signal.SIGTERM, end)
os.write(1, b"begun\\n")
time.sleep(60)
"""
# On a busy machine a child may begin before its parent waits for it. Each line is one write, since
# both have one pipe.
PARENT = """
import os, subprocess, sys
from sparse_lightning.experiments.sweep_commands import exit_code
from sparse_lightning.signals import terminated_in_order
wait = subprocess.Popen.wait
def told(*given):
    os.write(1, b"waiting\\n")
    return wait(*given)
subprocess.Popen.wait = told
with terminated_in_order():
    exit_code(["-c", sys.argv[1]])
"""


def test_a_command_is_told_of_the_end_and_waited_for():
    """A sweep that is killed leaves its workers behind."""
    program = [sys.executable, "-c", PARENT, CHILD]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as parent:
        assert {parent.stdout.readline() for _ in range(2)} == {"begun\n", "waiting\n"}
        parent.terminate()
        assert [line for line in parent.stdout if line != "waiting\n"] == ["saved\n"]
    assert parent.returncode == 143
