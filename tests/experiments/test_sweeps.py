"""Sweeps skip what is done, outlive their workers, and end with what went wrong."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from conftest import TINY
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

from hydra_plugins.resumable_sweeper import combined
from sparse_lightning.collect import main as collect_main
from sparse_lightning.errors import SettingError, SweepError
from sparse_lightning.experiments.fingerprint import digest, effective_settings
from sparse_lightning.experiments.jobs import OUTPUT_FILE, run_once
from sparse_lightning.experiments.locks import LOCK_FILE, held
from sparse_lightning.experiments.progress import SweepProgress, ending
from sparse_lightning.experiments.runs import (
    CONFIG_FILE,
    DIVERGED_AT,
    RESULTS_FILE,
    Run,
    State,
    find_runs,
    record_settings,
)
from sparse_lightning.experiments.sweeps import (
    ATTEMPTS,
    Job,
    Sweep,
    _record_failures_outside_training,
    recorded_runs,
    run_sweep,
)
from sparse_lightning.files import write_json
from sparse_lightning.signals import SIGINT_EXIT, SIGTERM_EXIT, Terminated
from sparse_lightning.train import main


@pytest.fixture
def sweep_command(monkeypatch, tmp_path: Path, mnist_root: Path):
    """Give the command line of a sweep of tiny trainings, into ``tmp_path / "sweep"``."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> None:
        GlobalHydra.instance().clear()
        folder = f"hydra.sweep.dir={tmp_path / 'sweep'}"
        command = ["train", "-m", *TINY, f"data.root={mnist_root}", folder, *arguments]
        monkeypatch.setattr(sys, "argv", command)
        main()

    yield run
    GlobalHydra.instance().clear()


def test_the_same_command_does_only_what_is_left(sweep_command, tmp_path: Path, capsys):
    with pytest.raises(SystemExit) as stopped:
        sweep_command("model=sdl", "step_size=0.5,5000", "solver.safeguard=false")
    message = str(stopped.value.code)
    assert "error: 1 of 2 jobs did not end well" in message
    assert "DivergenceError: Inference diverged at" in message
    assert "solver.step_size=5000 is too large" in message
    folder = tmp_path / "sweep"
    states = {run.folder: run.state for run in find_runs(folder)}
    assert sorted(states.values()) == [State.FAILED, State.FINISHED]
    finished = next(path for path, state in states.items() if state is State.FINISHED)
    printed = capsys.readouterr().err
    assert "Sweep of 2 jobs" in printed
    assert "1 done, 0 running, 1 failed, 0 left; failed: mnist-sdl" in printed

    written = (finished / RESULTS_FILE).stat().st_mtime_ns
    sweep_command("model=sdl", "step_size=0.5", "solver.safeguard=false")
    assert (finished / RESULTS_FILE).stat().st_mtime_ns == written
    assert "Sweep of 1 jobs" in capsys.readouterr().err
    table = pd.read_parquet(folder / "table.parquet").set_index("state")
    assert table.loc["failed", "failure"].startswith("DivergenceError")
    assert table.loc["finished", "run"] == finished.name
    assert pd.read_csv(folder / "summary.csv")["n"].tolist() == [1]
    assert (folder / "regret.png").exists()


@pytest.mark.slow
def test_a_job_is_found_by_its_record_whatever_its_folder_is_called(sweep_command, tmp_path: Path):
    sweep_command("model=sdl")
    (run,) = find_runs(tmp_path / "sweep")
    folder = run.folder.rename(run.folder.with_name("another name, isn't it"))
    (folder / RESULTS_FILE).unlink()
    sweep_command("model=sdl")
    (run,) = find_runs(tmp_path / "sweep")
    assert run.folder == folder
    assert run.is_finished
    assert (folder / OUTPUT_FILE).read_text().count("--- ") == 2
    sweep_command("model=sdl", "model.energy.encoder_weight=2")
    assert len(find_runs(tmp_path / "sweep")) == 2


def test_of_several_records_of_a_job_the_finished_one_counts(tmp_path: Path):
    records = [Run(tmp_path / name) for name in "abc"]
    for run in records:
        run.folder.mkdir()
        record_settings(OmegaConf.create({"seed": 1, "run_dir": str(run.folder)}), run.folder)
    write_json(records[1].folder / RESULTS_FILE, {})
    assert list(recorded_runs(tmp_path).values()) == [records[1]]


def test_a_longer_job_is_the_shorter_run_and_of_two_lengths_the_longer_counts(
    sweep_command, tmp_path: Path, capsys
):
    sweep_command("model=sdl", "trainer.max_epochs=1")
    (run,) = find_runs(tmp_path / "sweep")
    assert run.results["epochs"] == 1
    sweep_command("model=sdl", "trainer.max_epochs=1,2")
    printed = capsys.readouterr().err
    assert "Sweep of 1 jobs" in printed
    assert "1 interrupted" in printed
    (same,) = find_runs(tmp_path / "sweep")
    assert (same.folder, same.results["epochs"]) == (run.folder, 2)
    table = pd.read_parquet(tmp_path / "sweep" / "table.parquet")
    assert table["max_epochs"].to_list() == [2]
    assert table["cpu_seconds"].iloc[0] > 0
    epochs = pd.read_parquet(tmp_path / "sweep" / "epochs.parquet")
    assert epochs["epoch"].to_list() == [0, 1]


def test_groups_of_settings_are_swept_and_their_runs_are_read(
    sweep_command, tmp_path: Path, monkeypatch, capsys
):
    sweep_command("model=sdl", "callbacks=default,revive", "model/encoder=lista,gated_lista")
    configs = [run.config for run in find_runs(tmp_path / "sweep")]
    labels = {config.run_label.removeprefix(config.run_name) for config in configs}
    encoders = ("lista", "gated_lista")
    assert labels == {f"-callbacks{c}-encoder{e}" for c in ("default", "revive") for e in encoders}
    monkeypatch.setattr(sys, "argv", ["collect", str(tmp_path / "sweep")])
    collect_main()
    assert "4 of 4 runs finished" in capsys.readouterr().out


def test_of_a_setting_that_is_given_twice_the_last_counts():
    words = ["seed=1,2", "~callbacks.figures", "seed=range(2)", "tags=[a,b]", "+new='c,d'"]
    others = ["~callbacks.figures=null", "tags=[a,b]", "+new='c,d'"]
    jobs = combined(OverridesParser.create().parse_overrides(words))
    assert jobs == [[f"seed={seed}", *others] for seed in (0, 1)]


def test_a_sweep_may_bring_jobs_and_batches_of_its_own(sweep_command, monkeypatch):
    begun = []
    monkeypatch.setattr(
        "sparse_lightning.experiments.sweeps.run_sweep",
        lambda sweep, launcher, batch_size: begun.append((len(sweep.jobs), batch_size)),
    )
    own = ["hydra.sweeper.params={seed:'1,2'}", "hydra.sweeper.max_batch_size=3"]
    sweep_command("model=sdl", *own)
    assert begun == [(2, 3)]


@pytest.mark.parametrize(
    "content",
    [
        b"", b"- 1", b"3", b"\xff\xfe", b"a: [", b"seed: ${nowhere}", b"a: ${b}\nb: ${a}",
        b"model: sdl", b"1: 2", b"seed: [1, {1: 2, a: 3}]", b"a: !!binary aGk=", b"seed: ???",
        b"seed: ${settings_digest:}",
    ],
)  # fmt: skip
def test_a_folder_without_readable_settings_holds_no_job(content, tmp_path: Path):
    begun, damaged, good = (Run(tmp_path / name) for name in ("begun", "damaged", "good"))
    for run in (begun, damaged, good):
        run.folder.mkdir()
        (run.folder / LOCK_FILE).touch()
    (damaged.folder / CONFIG_FILE).write_bytes(content)
    record_settings(OmegaConf.create({"seed": 1, "run_dir": str(good.folder)}), good.folder)
    recorded = recorded_runs(tmp_path)
    assert recorded[digest(effective_settings(good.config))] == good
    assert begun not in recorded.values()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["trainer.devices=1,2"], "leave trainer=ddp out"),
        (["trainer.fast_dev_run=true"], "trainer.fast_dev_run=True leaves no results"),
        (["trainer.max_steps=9"], "trainer.max_steps=9 cannot be resumed"),
        (["sparsity_level=1,9"], "sparsity_level=9 must be between 0 and 5"),
        (["seed=range(3,3)"], "seed=range(3,3) has no value"),
        (["seed=0,1", "hydra.sweep.subdir=${hydra.job.num}"], "gives several jobs one folder, 0"),
        (["seed=0,1", "hydra.sweep.subdir=${model.family}/${seed}"], "which is not directly in"),
        # What is asked of data of one's own needs the module that they are in.
        (
            ["data._target_=own_here.Data", "imports=[own_here]", "trainer.max_steps=9"],
            "trainer.max_steps=9 cannot be resumed",
        ),
    ],
)
def test_a_mistake_in_any_job_shows_before_work_starts(
    sweep_command, arguments, expected, tmp_path: Path
):
    module = "from sparse_lightning.data.mnist import MNIST\n\n\nclass Data(MNIST):\n    pass\n"
    (tmp_path / "own_here.py").write_text(module)
    with pytest.raises(SystemExit) as stopped:
        sweep_command("model=sdl", *arguments)
    assert expected in str(stopped.value.code)
    assert find_runs(Path("sweep")) == []


def test_a_job_does_not_take_the_folder_of_another_run(sweep_command, tmp_path: Path):
    taken = tmp_path / "sweep" / "taken"
    taken.mkdir(parents=True)
    record_settings(OmegaConf.create({"seed": 1}), taken)
    with pytest.raises(SystemExit, match="taken, which holds a run with other settings"):
        sweep_command("model=sdl", "hydra.sweep.subdir=taken")


class FakeLauncher:
    """Does jobs in this process by ``work``, which may kill the worker."""

    def __init__(self, jobs: list[Job], work: Callable[[Run], None]) -> None:
        self.runs = {job.arguments: job.run for job in jobs}
        self.work, self.launched = work, []

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> list[JobReturn]:
        self.launched.append(len(job_overrides))
        return [self._do(self.runs[overrides]) for overrides in job_overrides]

    def _do(self, run: Run) -> JobReturn:
        def train(config) -> dict[str, float]:
            self.work(run)
            results = {"test/psnr": 1.0, "test/zeros": 0.5, "epochs": 1, "seconds": 1.0}
            write_json(run.folder / RESULTS_FILE, results)
            return results

        config = settings(run)
        returned = JobReturn()
        try:
            returned.return_value = run_once(train, config)
            returned.status = JobStatus.COMPLETED
        except SweepError as error:
            returned.return_value, returned.status = error, JobStatus.FAILED
        return returned


def settings(run: Run):
    energy = {"sparsity_weight": 1, "variance_weight": 0, "encoder_weight": 0}
    return OmegaConf.create(
        {
            "run_dir": str(run.folder),
            "seed": run.folder.name,
            "data_name": "mnist",
            "model": {"family": "sdl", "energy": energy},
            "trainer": {"strategy": "auto", "devices": 1, "num_nodes": 1, "max_epochs": 1},
            "sweep": {"threads": None},
            "logger": {},
        }
    )


class WorkerDied(BaseException):
    """Passes by what a job does with exceptions, as SIGKILL does."""


class Died(RuntimeError):
    """What a launcher says of that."""


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    jobs = [Job((f"seed={name}",), Run(tmp_path / name), 1) for name in "abc"]
    return Sweep(tmp_path, jobs, settings(jobs[0].run))


class Dying(FakeLauncher):
    def launch(self, *args, **kwargs) -> list[JobReturn]:
        try:
            return super().launch(*args, **kwargs)
        except WorkerDied:
            raise Died from None


def test_what_failed_before_keeps_its_results_until_it_is_tried_again(sweep: Sweep):
    first, _, last = (job.run for job in sweep.jobs)
    for run, content in ((last, {"test/psnr": 2.0, "epochs": 1, DIVERGED_AT: 1}), (first, None)):
        run.folder.mkdir()
        record_settings(settings(run), run.folder)
        if content is None:
            run.record_failure(SettingError("no"))
        else:
            write_json(run.folder / RESULTS_FILE, content)
    known = []

    def work(run: Run) -> None:
        known.append((run.folder.name, first.failure is not None, last.diverged_at_epoch))
        if len(known) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_sweep(sweep, FakeLauncher(sweep.jobs, work), None)
    assert known == [("a", False, 1), ("b", False, 1)]
    assert last.results["test/psnr"] == 2.0
    run_sweep(sweep, FakeLauncher(sweep.jobs, work), None)
    assert [name for name, *_ in known] == ["a", "b", "b", "c"]
    assert all(job.run.is_finished for job in sweep.jobs)


def test_jobs_go_on_after_a_worker_died(sweep: Sweep):
    deaths = iter(["b"])

    def work(run: Run) -> None:
        if run.folder.name == "b" and next(deaths, None):
            raise WorkerDied

    launcher = Dying(sweep.jobs, work)
    run_sweep(sweep, launcher, None)
    assert launcher.launched == [3, 2]
    assert all(job.run.is_finished for job in sweep.jobs)


def test_a_job_that_always_kills_its_worker_is_given_up(sweep: Sweep):
    def work(run: Run) -> None:
        if run.folder.name == "a":
            raise WorkerDied

    launcher = Dying(sweep.jobs, work)
    with pytest.raises(SweepError, match=r"1 of 3 jobs did not end well:\n  a: .*memory"):
        run_sweep(sweep, launcher, batch_size=1)
    assert launcher.launched == [1] * (3 + ATTEMPTS - 1)
    assert [job.run.state for job in sweep.jobs] == [State.FAILED, State.FINISHED, State.FINISHED]


def test_a_launcher_that_cannot_launch_says_so(sweep: Sweep):
    class NoCluster(FakeLauncher):
        def launch(self, *args, **kwargs):
            raise RuntimeError("no sbatch here")

    with pytest.raises(RuntimeError, match="no sbatch here"):
        run_sweep(sweep, NoCluster(sweep.jobs, print), None)


def test_what_another_process_has_is_waited_for_and_done_if_it_dies(sweep: Sweep, monkeypatch):
    other = sweep.jobs[0].run
    other.folder.mkdir()
    process = ExitStack()
    process.enter_context(held(other.folder))
    clock = SimpleNamespace(sleep=lambda seconds: process.close())
    monkeypatch.setattr("sparse_lightning.experiments.sweeps.time", clock)
    launcher = FakeLauncher(sweep.jobs, lambda run: None)
    run_sweep(sweep, launcher, None)
    assert launcher.launched == [2, 1]
    assert all(job.run.is_finished for job in sweep.jobs)


def test_what_fails_before_training_is_told(sweep: Sweep):
    class Failing(FakeLauncher):
        def _do(self, run: Run) -> JobReturn:
            returned = JobReturn()
            returned.return_value, returned.status = SettingError("no"), JobStatus.FAILED
            return returned

    with pytest.raises(SweepError, match=r"3 of 3 jobs did not end well:\n  a: SettingError: no"):
        run_sweep(sweep, Failing(sweep.jobs, print), None)


def test_what_another_process_trains_has_not_failed(sweep: Sweep):
    returned = JobReturn()
    returned.return_value, returned.status = SettingError("no"), JobStatus.FAILED
    job = sweep.jobs[0]
    job.run.folder.mkdir()
    with held(job.run.folder):
        _record_failures_outside_training([job], [returned], set())
    assert job.state is State.WAITING
    _record_failures_outside_training([job], [returned], set())
    assert job.run.reason == "SettingError: no"


@pytest.mark.parametrize(
    "error", [Terminated(SIGTERM_EXIT), KeyboardInterrupt(), SystemExit(SIGINT_EXIT)]
)
def test_a_sweep_that_is_ended_says_how_to_go_on(sweep: Sweep, error, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train", "-m", "tags=[a, b]"])

    def end(run: Run) -> None:
        raise error

    with pytest.raises(type(error)):
        run_sweep(sweep, FakeLauncher(sweep.jobs, end), None)
    assert {job.run.state for job in sweep.jobs} <= {State.WAITING, State.INTERRUPTED}
    told = "Interrupted. This command does what is left:\n  python -m sparse_lightning.train -m "
    assert told + "'tags=[a, b]'\n" in capsys.readouterr().err


def test_a_worker_that_is_ended_by_a_signal_is_a_worker_that_died(sweep: Sweep, monkeypatch):
    def end_once(run: Run) -> None:
        if len(launcher.launched) == 1:
            raise SystemExit(SIGTERM_EXIT)

    launcher = FakeLauncher(sweep.jobs, end_once)
    run_sweep(sweep, launcher, None)
    assert all(job.run.is_finished for job in sweep.jobs)


def test_a_job_without_test_batches_has_ended(tmp_path: Path):
    results = {"val/psnr": 17.0, "epochs": 1, "seconds": 2.0}
    write_json(tmp_path / RESULTS_FILE, results)
    assert ending(Run(tmp_path), State.FINISHED) == f"finished: {tmp_path.name}: 2 s"
    more = {"test/psnr": 16.0, "test/zeros": 0.5}
    write_json(tmp_path / RESULTS_FILE, results | more)
    told = f"finished: {tmp_path.name}: 16.00 dB, 50.0% zeros, 2 s"
    assert ending(Run(tmp_path), State.FINISHED) == told
    write_json(tmp_path / RESULTS_FILE, results | {DIVERGED_AT: 0})
    assert ending(Run(tmp_path), State.DIVERGED) == f"diverged: {tmp_path.name}"


def test_progress_counts_jobs_and_epochs(tmp_path: Path, monkeypatch):
    runs = [Run(tmp_path / name) for name in ("done", "running", "failed", "diverged", "left")]
    for run in runs:
        run.folder.mkdir()
    jobs = [(run, 10) for run in runs]
    progress = SweepProgress(jobs)
    assert progress.counts() == "0 done, 0 running, 0 failed, 5 left"
    assert progress.time_left() == "time left unknown"
    results = {"test/psnr": 1.0, "test/zeros": 0.5, "seconds": 1.0}
    write_json(runs[0].folder / RESULTS_FILE, results)
    runs[2].record_failure(ValueError("no"))
    runs[3].record_failure(ValueError("no"))
    write_json(runs[3].folder / RESULTS_FILE, results | {DIVERGED_AT: 7})
    (runs[1].folder / "metrics.csv").write_text("epoch\n0\n1\n2\n3\n4\n")
    with held(runs[1].folder):
        progress.update()
        assert progress.counts() == "1 done, 1 running, 2 failed, 1 left"
    # 35 of 50 epochs in 100 s leave 15.
    monkeypatch.setattr(time, "monotonic", lambda: progress.began + 100)
    assert progress.time_left() == "00:42 left"
