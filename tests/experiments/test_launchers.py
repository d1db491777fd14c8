"""Sweeps for real: processes, clusters, and the power cut."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
import torch

from sparse_lightning.experiments.runs import CONFIG_FILE, RESULTS_FILE, Run, State, find_runs

REPOSITORY = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


def command(folder: Path, mnist_root: Path, *arguments: str, epochs: int = 4) -> list[str]:
    return [
        *(sys.executable, "-m", "sparse_lightning.train", "-m", "trainer=cpu", "logger=none"),
        *("model=sdl,vdl", "seed=0,1", "data.num_train=1000", "data.num_val=200"),
        *("data.num_test=200", "solver.max_iterations=20", f"trainer.max_epochs={epochs}"),
        *("~callbacks.figures", f"data.root={mnist_root}", f"hydra.sweep.dir={folder}"),
        *arguments,
    ]


def environment() -> dict[str, str]:
    # Ray tells its makers how it is used unless it is asked not to.
    return os.environ | {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}


def start(words: Sequence[str]) -> subprocess.Popen:
    return subprocess.Popen(
        words,
        cwd=REPOSITORY,
        env=environment(),
        stderr=subprocess.STDOUT,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def require_one_at_a_time(runs: list[Run]) -> None:
    """No two jobs were on one of the two devices at a time, by when they wrote their files."""
    stays = sorted((run.config.sweep.device, *time_on_device(run)) for run in runs)
    assert {device for device, _, _ in stays} <= {0, 1}
    for (device, _, end), (next_device, begin, _) in pairwise(stays):
        assert device != next_device or end <= begin


def time_on_device(run: Run) -> tuple[float, float]:
    """From settings to results; a failure is recorded when the device may have another job."""
    begin, result = (run.folder / CONFIG_FILE).stat().st_mtime, run.folder / RESULTS_FILE
    return begin, result.stat().st_mtime if run.is_finished else begin


@pytest.mark.parametrize(
    ("package", "arguments"),
    [
        ("hydra_plugins.hydra_joblib_launcher", ["joblib", "hydra.launcher.n_jobs=2"]),
        ("hydra_plugins.hydra_submitit_launcher", ["submitit_local"]),
        ("hydra_plugins.hydra_ray_launcher", ["ray", "+hydra.launcher.ray.init.num_cpus=2"]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_launchers(package, arguments, mnist_root: Path, tmp_path: Path):
    pytest.importorskip(package)
    launcher, *rest = arguments
    places = ["sweep.devices=[0,1]", "sweep.jobs_per_device=1"]
    words = command(tmp_path / "sweep", mnist_root, f"hydra/launcher={launcher}", *rest, *places)
    # Of the two jobs with each step size, both of the large one fail.
    process = start([*words, "step_size=0.5,5000", "solver.safeguard=false", "model=vdl"])
    output = process.communicate(timeout=500)[0]
    assert process.returncode == 1, output
    assert "2 of 4 jobs did not end well" in output
    table = pd.read_parquet(tmp_path / "sweep" / "table.parquet")
    assert sorted(table["state"]) == ["failed", "failed", "finished", "finished"]
    assert table["failure"].dropna().str.startswith("DivergenceError").all()
    require_one_at_a_time(find_runs(tmp_path / "sweep"))
    if launcher == "joblib":
        logs = [(run.folder / "output.log").read_text() for run in find_runs(tmp_path / "sweep")]
        assert len({log.split("process ")[1].split()[0] for log in logs}) == 2


def test_workers_go_on_in_the_folders_that_hold_their_jobs(mnist_root: Path, tmp_path: Path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    words = [*command(tmp_path, mnist_root, epochs=1), "model=vdl"]
    parallel = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    for arguments in ([], parallel):
        process = start([*words, *arguments])
        output = process.communicate(timeout=300)[0]
        assert process.returncode == 0, output
        runs = find_runs(tmp_path)
        assert len(runs) == 2
        for run in runs:
            seed = run.config.seed
            (run.folder / RESULTS_FILE).unlink()
            run.folder.rename(tmp_path / f"renamed{seed}")
    logs = [(tmp_path / f"renamed{seed}" / "output.log").read_text() for seed in (0, 1)]
    assert [log.count("--- ") for log in logs] == [2, 2]


def test_killed_twice_and_continued_equals_uninterrupted(mnist_root: Path, tmp_path: Path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    process = start(command(whole, mnist_root))
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 0, output
    for _ in range(2):
        process = start(command(parts, mnist_root))
        # In the middle of some job's training.
        enough = len(list(parts.rglob("last.ckpt"))) + 1
        deadline = time.monotonic() + 200
        while len(list(parts.rglob("last.ckpt"))) < enough and time.monotonic() < deadline:
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert State.RUNNING not in {run.state for run in find_runs(parts)}
    finished = {run.folder.name for run in find_runs(parts) if run.is_finished}
    process = start(command(parts, mnist_root))
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 0, output
    assert f"{len(finished)} finished" in output or not finished

    runs = {run.folder.name: run for run in find_runs(whole)}
    assert len(runs) == 4
    for run in find_runs(parts):
        expected, found = weights(runs[run.folder.name].folder), weights(run.folder)
        assert all(torch.equal(weight, found[name]) for name, weight in expected.items())
        results = [
            json.loads((r.folder / RESULTS_FILE).read_text())
            for r in (run, runs.pop(run.folder.name))
        ]
        for final in results:
            del final["seconds"], final["cpu_seconds"]
        assert results[0] == results[1]
    assert runs == {}


def test_two_processes_share_the_work(mnist_root: Path, tmp_path: Path):
    # Jobs long enough that the first process is not done before the second has begun.
    processes = [start(command(tmp_path, mnist_root, epochs=60)) for _ in range(2)]
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    for process, output in zip(processes, outputs):
        assert process.returncode == 0, output
        assert "4 of 4 jobs finished" in output
    logs = [(run.folder / "output.log").read_text() for run in find_runs(tmp_path)]
    workers = [line.split()[-1] for log in logs for line in log.splitlines() if line[:3] == "---"]
    assert len(workers) == 4
    assert set(workers) == {str(process.pid) for process in processes}
