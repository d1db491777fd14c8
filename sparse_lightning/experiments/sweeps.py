"""A sweep is a list of jobs, and what is done is seen in their folders.

The same command, given again or in several processes at once, goes on with what is left. The
launchers (one after another, joblib, submitit, Ray) only carry jobs to where they run: which of
them remain is asked of the folders before each round, so that a worker that is killed costs what
it had not yet saved, and no more.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from tqdm import tqdm

from sparse_lightning.errors import DataError, SettingError, SweepError
from sparse_lightning.experiments import wandb_summary
from sparse_lightning.experiments.command_line import hydra_value, same_command
from sparse_lightning.experiments.fingerprint import digest, effective_settings, of_any_length
from sparse_lightning.experiments.job_settings import job_settings
from sparse_lightning.experiments.jobs import OUTPUT_FILE, require_one_device
from sparse_lightning.experiments.progress import SweepProgress
from sparse_lightning.experiments.runs import CONFIG_FILE, Run, State
from sparse_lightning.experiments.seeds import require_seed
from sparse_lightning.experiments.settings import convert_settings
from sparse_lightning.experiments.table import (
    collect,
    record_plan,
    summarize,
    told_of_results,
    write_results,
)
from sparse_lightning.files import require_writable
from sparse_lightning.signals import SIGTERM_EXIT, Terminated

log = logging.getLogger(__name__)

# A job that so many launches did not bring to an end is given up.
ATTEMPTS = 3
LEFT = (State.WAITING, State.INTERRUPTED)
FAILED = (State.FAILED, State.DIVERGED)
POLL = 1.0  # seconds
# What a run's usual name tells already.
TOLD_BY_NAME = (
    "model",
    "data",
    "seed",
    "sparsity_level",
    "model.energy.sparsity_weight",
    "target_zeros",
)


@dataclass(frozen=True)
class Job:
    """One run of a sweep, and the overrides that make it."""

    overrides: tuple[str, ...]
    run: Run
    max_epochs: int | None

    @property
    def state(self) -> State:
        """How the run stands as one that is to have so many epochs."""
        return self.run.state_of(self.max_epochs)

    @property
    def arguments(self) -> tuple[str, ...]:
        """What a launcher is given: the overrides, and the folder, which was chosen before."""
        return *self.overrides, f"hydra.sweep.subdir={hydra_value(self.run.folder.name)}"


@dataclass(frozen=True)
class Sweep:
    """Jobs in a folder.

    Attributes:
        folder: where the jobs' folders are.
        jobs: no two of them the same.
        example: the composed settings of one job.
    """

    folder: Path
    jobs: list[Job]
    example: DictConfig

    @classmethod
    def compose(
        cls,
        config: DictConfig,
        loader: Any,
        combinations: list[list[str]],
        swept: Iterable[str],
    ) -> Sweep:
        """Compose every combination of overrides, so that mistakes show before work starts.

        A job whose settings a run in the folder has on record is that run, whatever its name and
        its number of epochs: a longer job goes on from a shorter one, and of two the longer counts.
        Any other job has a new folder, whose name follows from its settings, so that processes
        which begin one sweep at once agree on it. No two jobs have one folder.

        Args:
            config: Hydra's configuration of the whole sweep.
            loader: Hydra's loader of configurations.
            combinations: overrides of each job.
            swept: names of the settings that differ between jobs.

        Raises:
            SettingError: a job that cannot work, or that ``hydra.sweep.subdir`` gives no folder of
                its own.
        """
        folder = Path(config.hydra.sweep.dir).absolute()
        require_writable("hydra.sweep.dir", folder)
        untold = [name for name in swept if name not in TOLD_BY_NAME]
        common = [
            # Workers may be at home in another folder.
            f"hydra.sweep.dir={hydra_value(str(folder))}",
            f"sweep.group={hydra_value(folder.name)}",
            f"sweep.swept=[{','.join(untold)}]",
        ]
        recorded = recorded_runs(folder)
        jobs: dict[str, Job] = {}
        for overrides in tqdm(combinations, "Checking the settings", disable=None, leave=False):
            overrides = [*overrides, *common]
            settings = _checked_settings(config, loader, overrides)
            fingerprint = _fingerprint(settings)
            run = recorded.get(fingerprint) or _new_run(Path(settings.run_dir), folder)
            job = Job(tuple(overrides), run, settings.trainer.max_epochs)
            other = jobs.get(fingerprint)
            if other is None or (job.max_epochs or 0) > (other.max_epochs or 0):
                jobs[fingerprint] = job
        _require_own_folders(jobs.values())
        return cls(folder, list(jobs.values()), settings)


def _checked_settings(config: DictConfig, loader: Any, overrides: list[str]) -> DictConfig:
    """The settings of a job, which can be trained as one of a sweep."""
    settings = job_settings(config, loader, overrides)
    convert_settings(settings)
    require_seed(settings)
    require_one_device(settings)
    _require_results(settings)
    return settings


def _fingerprint(settings: DictConfig) -> str:
    """What stands for a job, however long it is."""
    return digest(of_any_length(effective_settings(settings)))


def _new_run(run_dir: Path, folder: Path) -> Run:
    """The run of a job that is not on record in the sweep's folder.

    Raises:
        SettingError: its folder is not directly in the sweep's, or is another run's.
    """
    if run_dir.parent != folder:
        raise SettingError(
            f"hydra.sweep.subdir puts a job into {run_dir}, which is not directly in {folder}, "
            "where jobs are looked for: let it be one name without a slash, or leave it out."
        )
    run = Run(run_dir)
    if _fingerprint_on_record(run) is not None:
        raise SettingError(
            f"hydra.sweep.subdir gives a job {run_dir}, which holds a run with other settings: "
            "leave it out, or choose another hydra.sweep.dir."
        )
    return run


def _require_own_folders(jobs: Iterable[Job]) -> None:
    """Raise `SettingError` if two jobs have one folder."""
    folders = Counter(job.run.folder for job in jobs)
    shared = [folder.name for folder, count in folders.items() if count > 1]
    if shared:
        raise SettingError(
            f"hydra.sweep.subdir gives several jobs one folder, {shared[0]}: leave it out, or let "
            "it tell every swept setting."
        )


def _require_results(settings: DictConfig) -> None:
    """Raise `SettingError` if a job would leave no results, by which a sweep knows its end.

    Or if it could not go on after an interruption.
    """
    if fast := settings.trainer.get("fast_dev_run"):
        raise SettingError(
            f"trainer.fast_dev_run={fast} leaves no results, which every job of a sweep must: "
            "leave it out, or train without -m."
        )
    if (steps := settings.trainer.max_steps) != -1:
        raise SettingError(
            f"trainer.max_steps={steps} cannot be resumed, which every job of a sweep must: set "
            "trainer.max_epochs instead, or train without -m."
        )


def recorded_runs(folder: Path) -> dict[str, Run]:
    """The runs in a sweep's folder that have readable settings, by the digest of these."""
    runs = (Run(path.parent) for path in folder.glob(f"*/{CONFIG_FILE}"))
    recorded: dict[str, Run] = {}
    # Of several with the same settings the one that has come furthest counts.
    for run in sorted(runs, key=lambda run: (run.epochs_done, run.is_finished, run.folder)):
        if (fingerprint := _fingerprint_on_record(run)) is not None:
            recorded[fingerprint] = run
    return recorded


def _fingerprint_on_record(run: Run) -> str | None:
    """What stands for the settings of a run, None where it has none that can be read."""
    with contextlib.suppress(DataError, OmegaConfBaseException):
        return _fingerprint(run.config)
    return None


def run_sweep(sweep: Sweep, launcher: Launcher, batch_size: int | None) -> list[JobReturn]:
    """Do what is left of a sweep, and bring all of it together.

    Args:
        sweep: what is to be done.
        launcher: carries jobs to where they run.
        batch_size: jobs given to the launcher at a time, None for all.

    Raises:
        SweepError: some jobs did not end well; it says which and why.
    """
    record_plan(sweep.folder, {job.run.folder.name: list(job.overrides) for job in sweep.jobs})
    _announce(sweep)
    failed = {job.run.folder for job in sweep.jobs if job.state in FAILED}
    rounds = _Rounds(launcher, batch_size, failed)
    with (
        _interruption_explained(),
        _launchers_quiet(),
        SweepProgress([(j.run, max(j.max_epochs or 1, 1)) for j in sweep.jobs]),
    ):
        while (jobs := [job for job in sweep.jobs if rounds.is_open(job)]) or _any_running(
            sweep.jobs
        ):
            if jobs:
                rounds.launch(jobs)
            else:
                # Other processes have the rest. Should one of them die, its job is open again.
                time.sleep(POLL)
    _conclude(sweep)
    return rounds.returns


def _announce(sweep: Sweep) -> None:
    counts = Counter(job.state for job in sweep.jobs)
    detail = ", ".join(f"{counts[state]} {state}" for state in State if counts[state])
    print(f"Sweep of {len(sweep.jobs)} jobs in {sweep.folder}: {detail}", file=sys.stderr)


@contextlib.contextmanager
def _interruption_explained() -> Iterator[None]:
    """Say how to go on, where somebody ends the sweep."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        message = f"Interrupted. This command does what is left:\n  {same_command()}"
        print(message, file=sys.stderr)
        raise


@contextlib.contextmanager
def _launchers_quiet() -> Iterator[None]:
    """Without the launchers' own lists of jobs."""
    loggers = [logging.getLogger(name) for name in ("hydra", "hydra_plugins")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)


@dataclass
class _Rounds:
    """Launches jobs until none is left, however workers end.

    Attributes:
        launcher: carries jobs to where they run.
        batch_size: jobs given to it at a time, None for all.
        again: folders of jobs that failed earlier and are to be tried again. What they have left
            stays until that begins.
        returns: what came back.
        vain: how often a job was launched and came to no end.
    """

    launcher: Launcher
    batch_size: int | None
    again: set[Path]
    returns: list[JobReturn] = field(default_factory=list)
    vain: Counter[Path] = field(default_factory=Counter)

    def is_open(self, job: Job) -> bool:
        """Whether a job is still to be launched; one launched in vain too often has failed."""
        if not _is_left(job, self.again):
            return False
        if self.vain[job.run.folder] < ATTEMPTS:
            return True
        job.run.record_failure(
            SweepError(
                f"{ATTEMPTS} processes ended without a result or an error, as they do when "
                f"memory runs out: see {job.run.folder / OUTPUT_FILE}"
            )
        )
        return False

    def launch(self, jobs: list[Job]) -> None:
        """Launch jobs, batch by batch."""
        size = self.batch_size or len(jobs)
        for batch in (jobs[start : start + size] for start in range(0, len(jobs), size)):
            before = {job.run.folder: _output_size(job) for job in batch}
            try:
                results = self.launcher.launch(
                    [job.arguments for job in batch], initial_job_idx=len(self.returns)
                )
            except (Exception, SystemExit) as error:
                if isinstance(error, SystemExit) and not _is_of_a_worker(error):
                    raise
                while _any_running(batch):
                    time.sleep(POLL)
                if all(_output_size(job) == before[job.run.folder] for job in batch):
                    raise  # It could launch nothing at all.
                log.warning(f"A worker died ({type(error).__name__}): going on with what is left.")
                tried = [job for job in batch if _output_size(job) != before[job.run.folder]]
            else:
                self.returns += results
                _record_failures_outside_training(batch, results, self.again)
                tried = batch
            self.again -= {job.run.folder for job in tried}
            for job in batch:
                if job.state in LEFT:
                    self.vain[job.run.folder] += _output_size(job) != before[job.run.folder]


def _is_of_a_worker(error: SystemExit) -> bool:
    """Whether a worker got the SIGTERM that ends a job, and not this process."""
    return error.code == SIGTERM_EXIT and not isinstance(error, Terminated)


def _output_size(job: Job) -> int:
    """Grows with each attempt at a job."""
    path = job.run.folder / OUTPUT_FILE
    return path.stat().st_size if path.exists() else 0


def _is_left(job: Job, again: set[Path]) -> bool:
    """Whether a job has not ended, or has failed earlier and is to be tried again."""
    return job.state in LEFT or (job.state in FAILED and job.run.folder in again)


def _any_running(jobs: Iterable[Job]) -> bool:
    return any(job.state is State.RUNNING for job in jobs)


def _record_failures_outside_training(
    jobs: list[Job], results: Sequence[JobReturn], again: set[Path]
) -> None:
    for job, result in zip(jobs, results):
        if result.status is JobStatus.FAILED and _is_left(job, again):
            job.run.folder.mkdir(parents=True, exist_ok=True)
            try:
                _ = result.return_value
            except Exception as error:
                job.run.record_failure(error)


def _conclude(sweep: Sweep) -> None:
    """Tables and figure of the whole folder, and an error where jobs did not end well."""
    table = collect(sweep.folder)
    summary = summarize(table)
    write_results(sweep.folder, table, summary)
    wandb_summary.log(sweep.example, sweep.folder, table, summary)
    bad = [job for job in sweep.jobs if not job.run.covers(job.max_epochs)]
    print(
        f"{len(sweep.jobs) - len(bad)} of {len(sweep.jobs)} jobs finished; "
        f"{told_of_results(summary)} in {sweep.folder}",
        file=sys.stderr,
    )
    if bad:
        reasons = "\n".join(
            f"  {job.run.folder.name}: {job.run.reason or job.state}" for job in bad
        )
        raise SweepError(
            f"{len(bad)} of {len(sweep.jobs)} jobs did not end well:\n{reasons}\n"
            "Once mended, the same command again does only these."
        )
