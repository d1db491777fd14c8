"""A sweep of eight short jobs: two joblib workers against one after another, and what it costs.

The overhead of a job is the time from the end of the one before it in the same worker to its own
end, less the seconds of its epochs: settings, data, model, checks, test, checkpoints, figures,
logging. ``python -m benchmarks.sweep``.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

from benchmarks.timing import machine
from sparse_lightning.data.mnist import seed_mnist
from sparse_lightning.experiments.runs import RESULTS_FILE, Run, find_runs

JOBS = ("model=sdl", "seed=range(8)", "data.num_train=5000", "trainer.max_epochs=2")
WAYS = {
    "one after another": [],
    "joblib, 2 workers": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
}
SHOWN = {
    "metrics and checkpoints": ["logger=none", "~callbacks.figures"],
    "also figures and W&B offline": [],
}


def sweep(folder: Path, root: Path, *arguments: str) -> float:
    """Run a sweep and return its seconds from start to end."""
    command = [sys.executable, "-m", "sparse_lightning.train", "-m", "trainer=cpu", *JOBS]
    command += [f"data.root={root}", f"hydra.sweep.dir='{folder}'", *arguments]
    environment = os.environ | {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    start = time.perf_counter()
    subprocess.run(command, check=True, env=environment, capture_output=True)
    return time.perf_counter() - start


def overheads(folder: Path) -> list[float]:
    """Seconds of each job beyond its epochs, first jobs of workers left out."""
    by_worker: dict[str, list[tuple[float, Run]]] = defaultdict(list)
    for run in find_runs(folder):
        worker = (run.folder / "output.log").read_text().partition("process ")[2].split()[0]
        by_worker[worker].append(((run.folder / RESULTS_FILE).stat().st_mtime, run))
    found = []
    for jobs in by_worker.values():
        jobs.sort(key=lambda job: job[0])
        for (before, _), (end, run) in pairwise(jobs):
            found.append(end - before - run.metrics["seconds"])
    return found


def main() -> None:
    print(f"Eight jobs, SDL, 2 epochs of 5,000 digits; {machine()}")
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "data"
        seed_mnist(root / "MNIST" / "raw")
        for kept, arguments in SHOWN.items():
            for way, launcher in WAYS.items():
                folder = Path(name) / kept / way
                seconds = sweep(folder, root, *launcher, *arguments)
                training = sum(run.metrics["seconds"] for run in find_runs(folder))
                later = statistics.median(overheads(folder))
                print(
                    f"{kept}, {way}: {seconds:.0f} s, of which {training:.0f} s in epochs; "
                    f"a later job costs {later:.1f} s beyond its epochs",
                    flush=True,
                )


if __name__ == "__main__":
    main()
