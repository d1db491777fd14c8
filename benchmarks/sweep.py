"""What a sweep costs beyond its epochs, and what two workers gain: ``python -m benchmarks.sweep``.

Eight short jobs, one after another and by two joblib workers. Beyond its epochs a job takes time
for settings, data, model, checks, test, checkpoints, figures and logging. For jobs one after
another that time is measured from the end of the job before.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from benchmarks.timing import machine, parser, show

WAYS = {
    "one after another": [],
    "joblib, 2 workers": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
}
KEPT = {
    "metrics and checkpoints": ["logger=none", "~callbacks.figures"],
    "also figures and W&B offline": [],
}


def sweep(folder: Path, *overrides: str) -> float:
    """Run a sweep of SDL and return its seconds from start to end."""
    command = [sys.executable, "-m", "sparse_lightning.train", "-m", "trainer=cpu", "model=sdl"]
    command += [f"hydra.sweep.dir='{folder}'", *overrides]
    environment = os.environ | {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    start = time.perf_counter()
    subprocess.run(command, check=True, env=environment, capture_output=True)
    return time.perf_counter() - start


def jobs(folder: Path) -> list[tuple[float, float]]:
    """When each job ended, and the seconds of its epochs."""
    results = folder.glob("*/metrics.json")
    return sorted(
        (path.stat().st_mtime, json.loads(path.read_text())["seconds"]) for path in results
    )


def beyond_epochs(done: list[tuple[float, float]]) -> float:
    """Median seconds of a job beyond its epochs, of jobs one after another."""
    return statistics.median(end - before - epochs for (before, _), (end, epochs) in pairwise(done))


def compare(folder: Path, kept: str, overrides: list[str]) -> list[list[str]]:
    """One row per way."""
    rows: list[list[str]] = []
    unit = None
    for way, launcher in WAYS.items():
        seconds = sweep(folder / kept / way, *overrides, *launcher)
        unit = unit or seconds
        done = jobs(folder / kept / way)
        row = [f"{seconds:.0f}", f"{seconds / unit:.2f}", f"{sum(job[1] for job in done):.0f}"]
        rows.append([kept, way, *row, "" if launcher else f"{beyond_epochs(done):.1f}"])
    return rows


def main(words: Sequence[str] | None = None) -> None:
    """Command line."""
    given = parser(__doc__).parse_args(words)
    count, digits, epochs = (2, 500, 1) if given.quick else (8, 5_000, 2)
    kept = dict(list(KEPT.items())[:1]) if given.quick else KEPT
    common = [f"seed=range({count})", f"data.num_train={digits}", f"trainer.max_epochs={epochs}"]
    rows = []
    with tempfile.TemporaryDirectory() as name:
        common += [f"data.root={name}/data"]
        for shown, arguments in kept.items():
            rows += compare(Path(name), shown, [*common, *arguments])
    show(
        f"{count} jobs, SDL, {epochs} epochs of {digits:,} digits\n{machine()}",
        ("kept of a job", "way"),
        ("seconds", "ratio", "in epochs", "a later job beyond its epochs"),
        rows,
    )


if __name__ == "__main__":
    main()
