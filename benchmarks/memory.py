"""Memory of training on a file larger than it: ``python -m benchmarks.memory --gigabytes 20``.

Writes an ``.npy`` of noise in float32, trains SDL with 16 atoms on it for an epoch, and reads from
``/proc`` how much anonymous memory the process holds meanwhile. Pages of the file that the system
keeps are not anonymous: it drops them where memory is short. Linux alone tells this.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.timing import machine, parser, show

DIM = 784
ROWS_AT_A_TIME = 100_000


def write_noise(path: Path, num_rows: int) -> None:
    """An array (num_rows, 784) of Gaussian noise, written piece by piece."""
    generator = np.random.default_rng(0)
    piece = generator.standard_normal((ROWS_AT_A_TIME, DIM), np.float32)
    whole = np.lib.format.open_memmap(path, "w+", np.float32, (num_rows, DIM))
    for start in range(0, num_rows, ROWS_AT_A_TIME):
        rows = whole[start : start + ROWS_AT_A_TIME]
        rows[:] = piece[: len(rows)] * np.float32(1 + start / num_rows)
    whole.flush()


def anonymous_bytes(process: int) -> int:
    """Memory of a process that no file stands behind, 0 once it has ended."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except FileNotFoundError:
        return 0
    found = re.search(r"RssAnon:\s+(\d+) kB", status)
    return 1024 * int(found[1]) if found else 0


def train(data: Path, folder: Path) -> tuple[int, float]:
    """Peak of anonymous memory in bytes, and seconds, of a training of one epoch."""
    command = [sys.executable, "-m", "sparse_lightning.train", "data=arrays", f"data.path={data}"]
    command += ["model=sdl", "code_dim=16", "trainer=cpu", "trainer.max_epochs=1"]
    command += ["logger=none", "~callbacks.figures", f"hydra.run.dir='{folder}'"]
    environment = os.environ | {"SPARSE_LIGHTNING_CACHE": str(folder / "cache")}
    start, peak = time.perf_counter(), 0
    with open(os.devnull, "w") as unread:
        process = subprocess.Popen(command, env=environment, stdout=unread)
        while process.poll() is None:
            peak = max(peak, anonymous_bytes(process.pid))
            time.sleep(0.2)
    if process.returncode:
        sys.exit(f"error: the training ended with {process.returncode}.")
    return peak, time.perf_counter() - start


def main(words: Sequence[str] | None = None) -> None:
    """Command line."""
    known = parser(__doc__)
    known.add_argument("--gigabytes", type=float, default=20, help="size of the file")
    known.add_argument("--folder", type=Path, help="where to write it; default: a temporary one")
    given = known.parse_args(words)
    rows = []
    for gigabytes in (0.002, 0.01 if given.quick else given.gigabytes):
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            num_rows = int(gigabytes * 1e9 / (4 * DIM))
            write_noise(Path(folder) / "x.npy", num_rows)
            peak, seconds = train(Path(folder) / "x.npy", Path(folder) / "run")
        rows.append([f"{gigabytes:g}", f"{num_rows:,}", f"{peak / 1e9:.2f}", f"{seconds:.0f}"])
    numbers = ("GB", "rows", "peak of anonymous memory, GB", "seconds")
    show(f"Training on an array from disk\n{machine()}", (), numbers, rows)


if __name__ == "__main__":
    main()
