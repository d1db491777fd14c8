"""Peak resident memory of making patches and of training on them, each in a process of its own.

``python -m benchmarks.memory --root FOLDER`` makes the patches in one process and trains VDL on
them for one epoch in another, with validation, test and figures, as the command line does. The
number is the largest resident set that the operating system saw of the process (``ru_maxrss``),
memory-mapped patches included.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile

from rich.console import Console
from rich.table import Table

BUILD = """
import sys
from sparse_lightning.data.patches import ImagePatches

root, cache, count = sys.argv[1:]
ImagePatches(root or None, cache, num_train=int(count)).prepare_data()
"""


def peak_memory(*arguments: str) -> float:
    """Largest resident set of a Python process with these arguments, in bytes."""
    process = subprocess.Popen([sys.executable, *arguments])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"error: {' '.join(arguments)} failed, see above")
    # Kilobytes, but on macOS bytes.
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def training(root: str, cache: str, count: int, run_dir: str) -> list[str]:
    """Arguments that train VDL on patches for an epoch."""
    settings = {
        "model": "vdl",
        "data": "imagenet_patches",
        "data.root": root or "null",
        "data.cache_dir": cache,
        "data.num_train": count,
        "trainer.max_epochs": 1,
        "logger": "none",
        "hydra.run.dir": run_dir,
    }
    overrides = [f"{name}={value}" for name, value in settings.items()]
    return ["-m", "sparse_lightning.train", *overrides]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--root", default="", help="images; none: sample photographs")
    parser.add_argument("--count", type=int, default=200_000, help="training patches")
    arguments = parser.parse_args()
    root, count = arguments.root, arguments.count
    with tempfile.TemporaryDirectory() as folder:
        cache = f"{folder}/cache"
        peaks = {
            "making the patches": peak_memory("-c", BUILD, root, cache, str(count)),
            "an epoch of VDL": peak_memory(*training(root, cache, count, f"{folder}/run")),
        }
    table = Table(title=f"{count:,} training patches, 20,000 for validation and test each")
    table.add_column("process")
    table.add_column("peak resident (GB)", justify="right")
    for name, peak in peaks.items():
        table.add_row(name, f"{peak / 1e9:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
