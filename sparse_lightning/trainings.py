"""Trainings that a study needs, as data: a list of multirun settings, run one process each.

A training's folder follows from its settings, so that the same list given again skips what is
finished and resumes what was interrupted.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from tqdm import tqdm

from sparse_lightning.errors import SettingError, SweepError
from sparse_lightning.runs import Run

LOG_FILE = "output.log"


@dataclass(frozen=True)
class Training:
    """One training: its settings, and where it runs.

    Args:
        settings: overrides of ``train.yaml``, in the order that names the folder.
        everywhere: overrides that say where things are; not part of its name.
        folder: of its run.
    """

    settings: tuple[str, ...]
    everywhere: tuple[str, ...]
    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    def command(self) -> list[str]:
        """The command line that runs it, or goes on with it."""
        return [
            sys.executable, "-m", "sparse_lightning.train", *self.settings, *self.everywhere,
            f"hydra.run.dir='{self.folder}'", "resume=true", "trainer.enable_progress_bar=false",
            "logger=none", "callbacks.figures.every_epochs=1000000",
        ]  # fmt: skip

    def run(self, threads: int) -> bool:
        """Run it to the end unless it is there already; false where it failed."""
        if Run(self.folder).is_finished:
            return True
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / LOG_FILE).open("ab") as log:
            finished = subprocess.run(
                self.command(),
                stdout=log,
                stderr=log,
                env={"OMP_NUM_THREADS": str(threads), **os.environ},
                check=False,
            )
        return finished.returncode == 0


def expand(
    multiruns: Sequence[Sequence[str]], everywhere: Mapping[str, Sequence[str]], folder: Path
) -> list[Training]:
    """The trainings of a list of multiruns, in order.

    Args:
        multiruns: each the overrides of one ``sparse_lightning.train --multirun``, such as
            ``["data=mnist", "model=sdl,vdl", "seed=0,1"]``.
        everywhere: overrides for the trainings of each data set, by its name.
        folder: ``folder/DATA/SETTINGS`` is made for each training.

    Raises:
        SettingError: a multirun without a data set that ``everywhere`` knows.
    """
    trainings = {}
    for multirun in multiruns:
        parsed = OverridesParser.create().parse_overrides(list(multirun))
        choices = [
            [f"{override.key_or_group}={value}" for value in _values(override)]
            for override in parsed
        ]
        for settings in product(*choices):
            named = dict(setting.split("=", 1) for setting in settings)
            data = named.get("data")
            if data not in everywhere:
                raise SettingError(
                    f"trainings={list(multirun)} must choose data= one of {', '.join(everywhere)}."
                )
            name = ",".join(settings)
            trainings[name] = Training(settings, tuple(everywhere[data]), folder / data / name)
    return list(trainings.values())


def _values(override) -> list[str]:
    if override.is_sweep_override():
        return list(override.sweep_string_iterator())
    return [override.get_value_element_as_str()]


def run_all(trainings: Sequence[Training], jobs: int) -> None:
    """Run trainings, ``jobs`` at a time, with a progress bar; those that are finished are skipped.

    Raises:
        SweepError: some failed; the others have run.
    """
    threads = max(1, (os.cpu_count() or 1) // jobs)
    left = [training for training in trainings if not Run(training.folder).is_finished]
    failed = []
    with (
        ThreadPoolExecutor(jobs) as pool,
        tqdm(total=len(trainings), initial=len(trainings) - len(left), unit="training") as bar,
    ):
        futures = {pool.submit(training.run, threads): training for training in left}
        for future in as_completed(futures):
            bar.update()
            if not future.result():
                failed.append(futures[future])
    if failed:
        raise SweepError(
            f"{len(failed)} of {len(trainings)} trainings failed, the first of them "
            f"{failed[0].name}: see {failed[0].folder / LOG_FILE}, and give the same command again."
        )
