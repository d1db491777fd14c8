"""Trainings that studies need, as data: each line is one sweep of ``sparse_lightning.train``.

Sweeps know which of their jobs are finished, interrupted or failed, and sweeps may share a folder
(`sparse_lightning.experiments.sweeps`): the same lines given again do only what is left.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from sparse_lightning.errors import SettingError, SweepError
from sparse_lightning.experiments.command_line import hydra_value


def commands(
    multiruns: Sequence[Sequence[str]],
    everywhere: Mapping[str, Sequence[str]],
    folder: Path,
    jobs: int,
    before: Sequence[str] = (),
) -> list[list[str]]:
    """The command line of each sweep, in order.

    Args:
        multiruns: each the overrides of one ``sparse_lightning.train --multirun``, such as
            ``["data=mnist", "model=sdl,vdl", "seed=0,1"]``.
        everywhere: overrides for the trainings of each data set, by its name.
        folder: runs go below ``folder/DATA``.
        jobs: how many at a time, each in a process of its own.
        before: what stands before the overrides, see `handed_on`.

    Raises:
        SettingError: a multirun without a data set that ``everywhere`` knows.
    """
    launcher = ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={jobs}"] if jobs > 1 else []
    found = []
    for multirun in multiruns:
        data = next((s.removeprefix("data=") for s in multirun if s.startswith("data=")), None)
        if data not in everywhere:
            raise SettingError(
                f"trainings={list(multirun)} must choose data= one of {', '.join(everywhere)}."
            )
        found.append(
            [
                *("-m", "sparse_lightning.train", "-m", *before),
                *(*multirun, *everywhere[data], *launcher),
                f"hydra.sweep.dir={hydra_value(str((folder / data).absolute()))}",
                "logger=none",
                *("trainer.enable_progress_bar=false", "callbacks.figures.every_epochs=1000000"),
            ]
        )
    return found


def exit_code(command: Sequence[str]) -> int:
    """Run Python with these arguments to its end, also where this process is interrupted.

    A sweep that was killed would leave its workers behind: it is told, and waited for.
    """
    with subprocess.Popen([sys.executable, *command]) as process:
        try:
            return process.wait()
        except BaseException as error:
            # Ctrl-C reaches both.
            if not isinstance(error, KeyboardInterrupt):
                process.terminate()
            process.wait()
            raise


def run_all(sweeps: Sequence[Sequence[str]]) -> None:
    """Run sweeps one after another, all of them also where one fails.

    Raises:
        SweepError: some failed; each has said which of its jobs and why.
    """
    failed = [sweep for sweep in sweeps if exit_code(sweep) != 0]
    if failed:
        raise SweepError(
            f"{len(failed)} of {len(sweeps)} sweeps failed, the first of them "
            f"{shlex.join(failed[0])}: its jobs and reasons are above; mend them and give the same "
            "command again."
        )
