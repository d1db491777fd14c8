"""A run that diverges ends with what it has, counts as finished nowhere, and may go on."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace

import lightning
import pandas as pd
import pytest
import torch
from conftest import TINY, Compose
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate
from wandb_records import records

from sparse_lightning.collect import main as collect_main
from sparse_lightning.decoders import LinearDecoder
from sparse_lightning.energy import Energy
from sparse_lightning.errors import DivergenceError, SettingError
from sparse_lightning.experiments.runs import DIVERGED_AT, Run, State, find_runs
from sparse_lightning.experiments.table import collect, summarize, write_results
from sparse_lightning.inference import require_descent
from sparse_lightning.model import SparseAutoencoder
from sparse_lightning.solvers import FISTA
from sparse_lightning.studies.trained_models import find_trained_models
from sparse_lightning.train import main, train


class Explode(lightning.Callback):
    """Take the decoder's weights out of the range of finite numbers, as a decoder that grows does.

    Attributes:
        epoch: before which.
        above: a λ; models of smaller ones are left alone.
        begun: the first epoch of each training.
    """

    def __init__(self, epoch: int, above: float = 0.0) -> None:
        self.epoch, self.above, self.begun = epoch, above, []

    def on_train_start(self, trainer, model: SparseAutoencoder) -> None:
        self.begun.append(trainer.current_epoch)

    def on_train_epoch_start(self, trainer, model: SparseAutoencoder) -> None:
        if trainer.current_epoch == self.epoch and model.energy.sparsity_weight >= self.above:
            model.decoder.weight.data.mul_(math.inf)


@contextmanager
def trainings_with(callback: lightning.Callback) -> Iterator[None]:
    """All trainings have one callback more than their configuration says."""
    original = lightning.Trainer.__init__

    def extended(self, *args, callbacks=(), **kwargs):
        original(self, *args, callbacks=[*callbacks, callback], **kwargs)

    with pytest.MonkeyPatch().context() as patch:
        patch.setattr(lightning.Trainer, "__init__", extended)
        yield


def diverge(config, epoch: int) -> str:
    """Train until inference diverges; the error's message."""
    with trainings_with(Explode(epoch)), pytest.raises(DivergenceError) as caught:
        train(config)
    return str(caught.value)


def results(folder: Path) -> dict[str, float]:
    return json.loads((folder / "metrics.json").read_text())


def test_the_best_model_is_tested_and_the_run_marked(compose_small: Compose, tmp_path: Path):
    settings = ("model=vdl", "logger=[csv,tensorboard]")
    expected = train(compose_small(*settings, run_dir=tmp_path / "two_epochs"))
    folder = tmp_path / "diverged"
    message = diverge(compose_small(*settings, "trainer.max_epochs=4", run_dir=folder), epoch=2)
    assert message.startswith("Inference diverged at epoch 2, batch 0: ")
    assert "the best model before has been tested, and resume=true" in message
    assert message.count(". ") == 0

    found = results(folder)
    assert found.pop(DIVERGED_AT) == 2
    assert found.keys() == expected.keys()
    assert (found["max_epochs"], expected["max_epochs"]) == (4, 2)
    for name in ("max_epochs", "seconds", "cpu_seconds"):
        del found[name], expected[name]
    assert found == expected
    assert pd.read_csv(folder / "metrics.csv")["epoch"].tolist() == [0, 1]
    run = Run(folder)
    assert (run.state, run.is_finished, run.diverged_at_epoch) == (State.DIVERGED, False, 2)
    assert run.failure["error"] == "DivergenceError"
    told = pd.read_csv(folder / "csv" / "version_0" / "metrics.csv")
    assert told[DIVERGED_AT].dropna().tolist() == [2]
    assert "test/psnr" not in told
    assert "test/psnr" in pd.read_csv(tmp_path / "two_epochs/csv/version_0/metrics.csv")


def test_a_run_that_diverged_before_it_had_a_model_has_no_results(compose_small, tmp_path: Path):
    message = diverge(compose_small("model=vdl"), epoch=0)
    assert message.startswith("Inference diverged at epoch 0, batch 0: ")
    assert "best model" not in message
    assert not (tmp_path / "run" / "metrics.json").exists()
    run = Run(tmp_path / "run")
    assert (run.state, run.reason) == (State.FAILED, f"DivergenceError: {message}")


def test_a_diverged_run_goes_on_with_another_solver(compose_small: Compose, tmp_path: Path):
    diverge(compose_small("model=vdl"), epoch=1)
    final = train(compose_small("model=vdl", "solver=adaptive", "resume=true"))
    run = Run(tmp_path / "run")
    assert run.state is State.FINISHED
    assert run.failure is None
    assert results(run.folder) == final
    assert final["epochs"] == 2
    assert DIVERGED_AT not in final


def test_a_finished_run_whose_further_epochs_diverge_keeps_its_results(
    compose_small: Compose, tmp_path: Path
):
    finished = train(compose_small("model=vdl"))
    longer = ("model=vdl", "trainer.max_epochs=4", "resume=true")
    message = diverge(compose_small(*longer), epoch=3)
    assert "; the results of the 2 epochs before stay, and resume=true with" in message
    run = Run(tmp_path / "run")
    assert (run.results, run.is_finished, run.diverged_at_epoch) == (finished, True, 3)
    assert (run.state_of(2), run.state_of(4)) == (State.FINISHED, State.DIVERGED)
    assert torch.load(run.best_checkpoint, weights_only=True)["epoch"] < 2
    assert [trained.run for trained in find_trained_models(runs=str(run.folder))] == [run]

    final = train(compose_small(*longer, "solver=adaptive"))
    assert (results(run.folder), run.diverged_at_epoch) == (final, None)
    assert final["epochs"] == 4


class Rates(lightning.Callback):
    """What Adam has for the decoder's weights at the start of each epoch."""

    def __init__(self) -> None:
        self.seen = []

    def on_train_epoch_start(self, trainer, model: SparseAutoencoder) -> None:
        group = trainer.optimizers[0].param_groups[0]
        self.seen.append([group[name] for name in ("lr", "weight_decay", "betas", "eps")])


def test_a_diverged_run_goes_on_with_other_learning_rates(compose_small: Compose, tmp_path: Path):
    common = ("model=vdl", "model.optimizer.decoder_decay_epochs=1", "trainer.max_epochs=4")
    changed = [
        "model.optimizer.decoder_learning_rate=1e-5", "model.optimizer.decoder_weight_decay=0.25",
        "+model.optimizer.betas=[0.8,0.9]", "+model.optimizer.epsilon=1e-7",
    ]  # fmt: skip
    diverge(compose_small(*common), epoch=2)
    with trainings_with(rates := Rates()):
        train(compose_small(*common, *changed, "resume=true"))
    learning_rates, weight_decays, betas, epsilons = zip(*rates.seen, strict=True)
    assert learning_rates == pytest.approx([1e-5 / 4, 1e-5 / 8])
    assert weight_decays == (0.25, 0.25)
    assert (betas, epsilons) == (((0.8, 0.9),) * 2, (1e-7,) * 2)
    last = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["hyper_parameters"]["optimizer"]["decoder_learning_rate"] == 1e-5
    assert Run(tmp_path / "run").is_finished
    # Once it has gone on well, its numbers are its own again.
    with pytest.raises(SettingError, match=r"decoder_learning_rate=.* \(was 1e-05\)"):
        train(compose_small(*common, "trainer.max_epochs=5", "resume=true"))


def test_wandb_shows_no_result_of_a_diverged_run(compose_small: Compose, tmp_path: Path):
    diverge(compose_small("model=vdl", "logger=wandb"), epoch=1)
    written = records(tmp_path / "run")
    keys = {item.key or "/".join(item.nested_key) for r in written for item in r.history.item}
    assert {DIVERGED_AT, "train/iterations", "train/converged", "val/psnr"} <= keys
    assert not any(key.startswith("test/") for key in keys)
    assert [r.exit.exit_code for r in written if r.HasField("exit")] == [1]


@pytest.fixture
def command_line(monkeypatch, tmp_path: Path, mnist_root: Path):
    """Give a command of tiny trainings."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, epochs: int = 2) -> None:
        GlobalHydra.instance().clear()
        # A command before has changed it.
        monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
        length = f"trainer.max_epochs={epochs}"
        command = ["train", *arguments, *TINY, f"data.root={mnist_root}", length]
        monkeypatch.setattr(sys, "argv", command)
        main()

    yield run
    GlobalHydra.instance().clear()


def test_the_command_line_says_one_sentence(command_line, tmp_path: Path, capsys):
    with trainings_with(Explode(epoch=1)), pytest.raises(SystemExit) as stopped:
        command_line("model=sdl", f"hydra.run.dir={tmp_path / 'run'}")
    # With a message Python exits with code 1.
    assert stopped.value.code.startswith("\nerror: Inference diverged at epoch 1, batch 0: ")
    assert results(tmp_path / "run")[DIVERGED_AT] == 1
    printed = capsys.readouterr().out
    assert "Best model: epoch 1 of 1" in printed
    assert "codes by encoder" in printed
    assert "sparsity" in printed
    assert "variance" not in printed, "SDL has no such term"


@pytest.mark.slow
def test_a_sweep_tries_a_diverged_job_once_per_command(command_line, tmp_path: Path, capsys):
    folder = tmp_path / "sweep"
    command = ("-m", "model=sdl", "sparsity_level=0,2", f"hydra.sweep.dir={folder}")
    with trainings_with(explode := Explode(epoch=1, above=0.001)), pytest.raises(SystemExit) as end:
        command_line(*command)
    assert explode.begun == [0, 0]
    assert "1 of 2 jobs did not end well" in end.value.code
    assert "DivergenceError: Inference diverged at epoch 1" in end.value.code
    assert sorted(run.state for run in find_runs(folder)) == [State.DIVERGED, State.FINISHED]
    printed = capsys.readouterr().err
    assert "1 done, 0 running, 1 failed, 0 left; diverged: mnist-sdl" in printed
    table = pd.read_parquet(folder / "table.parquet").set_index("state")
    assert table.loc["diverged", DIVERGED_AT] == 1
    assert table.loc["diverged", "test/psnr"] > 0
    assert table.loc["diverged", "failure"].startswith("DivergenceError")
    assert pd.read_csv(folder / "summary.csv")["n"].tolist() == [1]

    with trainings_with(mended := Explode(epoch=9)):
        command_line(*command)
    assert mended.begun == [1]
    assert "1 finished, 1 diverged" in capsys.readouterr().err
    assert {run.state for run in find_runs(folder)} == {State.FINISHED}
    assert all(run.failure is None for run in find_runs(folder))
    assert pd.read_csv(folder / "summary.csv")["n"].tolist() == [1, 1]


def test_a_sweep_whose_further_epochs_diverge_stays_done(command_line, tmp_path: Path, capsys):
    command = ("-m", "model=sdl", f"hydra.sweep.dir={tmp_path / 'sweep'}")
    command_line(*command)
    (run,) = find_runs(tmp_path / "sweep")
    finished = run.results
    with trainings_with(Explode(epoch=3)), pytest.raises(SystemExit) as end:
        command_line(*command, epochs=4)
    assert "DivergenceError: Inference diverged at epoch 3" in end.value.code
    assert (run.results, run.diverged_at_epoch) == (finished, 3)
    with trainings_with(idle := Explode(epoch=9)):
        command_line(*command)
        assert idle.begun == []
        capsys.readouterr()
        command_line(*command, epochs=4)
    assert "Sweep of 1 jobs" in (printed := capsys.readouterr().err)
    assert "1 diverged" in printed
    assert idle.begun == [3]
    assert (run.results["epochs"], run.failure) == (4, None)


def test_studies_and_tables_leave_diverged_runs_out(
    compose_small: Compose, tmp_path: Path, monkeypatch, capsys
):
    runs = tmp_path / "runs"
    diverge(compose_small("model=sdl", "seed=1", run_dir=runs / "diverged"), epoch=1)
    with pytest.raises(SettingError, match=r"no finished run: .*diverged \(epoch 1\); give check"):
        find_trained_models(runs=str(runs))
    # Where nothing else has a result there is a table, and no summary.
    table = collect(runs)
    summary = summarize(table)
    assert summary.empty
    write_results(runs, table, summary)

    train(compose_small("model=sdl", "seed=2", "trainer.max_epochs=1", run_dir=runs / "good"))
    with pytest.warns(UserWarning, match=r"runs that diverged are not studied: .*diverged \(epo"):
        found = find_trained_models(runs=str(runs))
    assert [subject.run.folder.name for subject in found] == ["good"]
    best = runs / "diverged" / "checkpoints" / "best.ckpt"
    assert [subject.checkpoint for subject in find_trained_models(checkpoint=str(best))] == [best]

    monkeypatch.setattr(sys, "argv", ["collect", str(runs)])
    collect_main()
    printed = capsys.readouterr().out
    assert "diverged: diverged: DivergenceError: Inference diverged at epoch 1" in printed
    assert "1 of 2 runs finished" in printed
    summary = pd.read_csv(runs / "summary.csv")
    assert summary["n"].tolist() == [1]
    assert not [name for name in summary if DIVERGED_AT in name]


def test_a_process_whose_part_went_well_stops_with_the_others(compose_small: Compose):
    """Or it would wait for the one that diverged."""
    model, inputs = instantiate(compose_small("model=vdl").model), torch.rand(8, 784)
    objective, initial, solution = model.infer_batch(inputs, model.encoder(inputs))
    terms = objective.terms(solution.codes)
    for all_agree in (True, False):
        others = SimpleNamespace(agree=lambda holds, device, agree=all_agree: holds and agree)
        with nullcontext() if all_agree else pytest.raises(DivergenceError, match="this batch"):
            require_descent(inputs, objective, initial, terms, model.solver, "this batch", others)


@pytest.mark.parametrize(("growth", "is_refused"), [(1.9, False), (2.1, True)])
def test_inference_may_end_at_up_to_twice_the_energy_of_its_start(growth, is_refused):
    inputs, initial = torch.zeros(2, 4), torch.rand(2, 3)
    objective = Energy(0.1).bind(LinearDecoder(3, 4), inputs)
    terms = {"reconstruction": growth * objective.value(initial)}
    with pytest.raises(DivergenceError, match="this batch") if is_refused else nullcontext():
        require_descent(inputs, objective, initial, terms, FISTA(0.1), "this batch")


@pytest.mark.slow
def test_two_processes_end_with_what_they_have(mnist_root: Path, tmp_path: Path):
    program = tmp_path / "program.py"
    program.write_text(
        "from sparse_lightning.train import main\n"
        "from test_divergence import Explode, trainings_with\n"
        "with trainings_with(Explode(epoch=1)):\n    main()\n"
    )
    command = [
        *(sys.executable, str(program), "model=vdl", *TINY, "trainer=ddp", "trainer.devices=2"),
        *("trainer.accelerator=cpu", f"data.root={mnist_root}", "trainer.max_epochs=2"),
        *("trainer.enable_progress_bar=false", f"hydra.run.dir={tmp_path / 'run'}"),
    ]
    path = os.pathsep.join([str(Path(__file__).parent.parent), str(Path(__file__).parent)])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        command, env=environment, timeout=300, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert "error: Inference diverged at epoch 1, batch 0: " in ended.stderr
    assert results(tmp_path / "run")[DIVERGED_AT] == 1
    assert Run(tmp_path / "run").state is State.DIVERGED
