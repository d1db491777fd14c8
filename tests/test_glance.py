"""Runs at a glance: states, ranking, filters, exports, without torch."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import Compose

from sparse_lightning.errors import DataError, SettingError
from sparse_lightning.experiments import heartbeat
from sparse_lightning.experiments.glance import Glance, Standing, kept, ranked, standing, sweeps
from sparse_lightning.experiments.locks import OWNER_FILE, beat, held, is_locked, seconds_since_beat
from sparse_lightning.experiments.records import Record
from sparse_lightning.runs import list_runs, parser
from sparse_lightning.train import train

ROOT = Path(__file__).parent.parent
HOLD = """
import sys, time
from pathlib import Path
from sparse_lightning.experiments.locks import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def make_run(folder: Path, family: str, weight: float, results: dict | None, **extra) -> Path:
    """The files of a run as training leaves them."""
    folder.mkdir(parents=True)
    settings = {
        "data_name": "mnist",
        "seed": extra.get("seed", 0),
        "trainer": {"max_epochs": 4},
        "model": {"family": family, "energy": {"sparsity_weight": weight}},
    }
    (folder / "config.yaml").write_text(json.dumps(settings))
    rows = extra.get("rows", "")
    if rows:
        (folder / "metrics.csv").write_text("epoch,val/psnr,val/zeros\n" + rows)
    if results is not None:
        (folder / "metrics.json").write_text(json.dumps(results))
    return folder


def results(psnr: float, **more) -> dict:
    return {"val/psnr": psnr, "test/psnr": psnr + 1, "val/zeros": 0.8, "max_epochs": 4} | more


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sweep of runs that stand in several ways."""
    sweep = tmp_path / "sweep"
    make_run(sweep / "good", "vdl", 0.01, results(17.0, epochs=4))
    make_run(sweep / "better", "sdl", 0.02, results(18.0, epochs=2), seed=1)
    make_run(sweep / "diverged", "sdl", 1e-3, results(99.0, epochs=1, diverged_at_epoch=1))
    make_run(sweep / "cut", "vdl_nl", 0.03, None, rows="0,11,0.5\n1,12.5,0.6\n")
    (sweep / "plan.json").write_text(json.dumps({"good": [], "later": ["model=do", "seed=7"]}))
    return sweep


def test_rows_tell_how_runs_stand(folder: Path):
    rows = {Path(row["run"]).name: row for row in Glance([folder]).rows()}
    states = {name: row["state"] for name, row in rows.items()}
    assert states == {
        "good": "finished",
        "better": "stopped early",
        "diverged": "diverged",
        "cut": "interrupted",
        "later": "waiting",
    }
    assert rows["good"]["test/psnr"] == 18.0
    # Of a run that goes on: the latest epoch, and nothing of the test images.
    assert (rows["cut"]["val/psnr"], rows["cut"]["epochs"]) == (12.5, 2)
    assert "test/psnr" not in rows["cut"]
    assert (rows["later"]["family"], rows["later"]["seed"]) == ("do", "7")
    (sweep,) = sweeps(list(rows.values()))
    assert (sweep["runs"], sweep["finished"], sweep["best"]) == (5, 1, "better")


def test_overrides_that_no_column_tells_tell_runs_apart(folder: Path, capsys):
    told = ["model=sdl", "seed=1", "max_epochs=4", "sweep.name=s", "hydra/launcher=joblib"]
    told += ["sparsity_level=2", "model.encoder.k=3"]  # Of which λ and k are known by now.
    told += ["trainer.enable_progress_bar=false", "~callbacks.figures", "+sweep.name=s"]
    further = {"good": ["data.batch_size=50"], "better": ["data.batch_size=50", "solver=adaptive"]}
    for name, own in further.items():
        (folder / name / ".hydra").mkdir()
        (folder / name / ".hydra" / "overrides.yaml").write_text(json.dumps(told + own))
    ours = [str(folder / name) for name in further]
    rows = Glance([Path(run) for run in ours]).rows()
    assert [row["overrides"] for row in rows] == list(further.values())
    shown = run_command(capsys, *ours)
    assert "solver=adaptive" in shown
    assert "batch_size" not in shown
    # Of a run that came without the file nothing is known.
    assert "batch_size" not in run_command(capsys, *ours, str(folder / "diverged"))
    table = csv.DictReader(io.StringIO(run_command(capsys, *ours, "--format", "csv")))
    assert "data.batch_size=50 solver=adaptive" in [row["overrides"] for row in table]
    adaptive = run_command(capsys, *ours, "--where", "overrides=solver=adaptive")
    assert "1 run" in adaptive
    assert "better" in adaptive
    (folder / "plan.json").write_text(json.dumps({"later": ["sparsity_level=2"]}))
    (waiting,) = kept(Glance([folder]).rows(), ["state=waiting"])
    assert waiting["overrides"] == ["sparsity_level=2"]


@pytest.mark.parametrize("damaged", ["", "5", "[a", "a: b"])
def test_damaged_overrides_cost_their_column_alone(folder: Path, damaged: str):
    (folder / "good" / ".hydra").mkdir()
    (folder / "good" / ".hydra" / "overrides.yaml").write_text(damaged)
    glance = Glance([folder / "good"])
    (row,) = glance.rows()
    assert row["state"] == "finished"
    assert "overrides" not in row
    # What is written later is seen.
    (folder / "good" / ".hydra" / "overrides.yaml").write_text("[solver=ista]")
    assert glance.rows()[0]["overrides"] == ["solver=ista"]


def test_the_runs_of_a_sweep_one_by_one_stand_as_they_do_together(folder: Path):
    together = {row["run"]: row["state"] for row in Glance([folder]).rows()}
    begun = {run: state for run, state in together.items() if state != "waiting"}
    alone = Glance([Path(run) for run in begun]).rows()
    assert {row["run"]: row["state"] for row in alone} == begun
    above = Glance([folder.parent]).rows()
    assert {row["run"]: row["state"] for row in above} == together


def test_a_run_that_diverged_before_it_had_results_is_told(folder: Path):
    failure = {"error": "DivergenceError", "message": "too far", "diverged_at_epoch": 2}
    (folder / "cut" / "failure.json").write_text(json.dumps(failure))
    (row,) = Glance([folder / "cut"]).rows()
    assert (row["state"], row["failure"]) == ("diverged", "DivergenceError: too far")
    assert row["val/psnr"] == 12.5


def test_the_lock_alone_tells_running_from_dead(folder: Path):
    record = Record(folder / "cut")
    program = [sys.executable, "-c", HOLD, str(record.folder)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True, env=environment) as holder:
        assert holder.stdout.readline() == "held\n"
        os.utime(record.folder / OWNER_FILE, (0, 0))  # However long it has been silent.
        assert standing(record) is Standing.RUNNING
        holder.send_signal(signal.SIGKILL)
    beat(record.folder)  # However fresh its last sign of life is.
    assert standing(record) is Standing.DEAD
    with held(record.folder):
        assert standing(record) is Standing.RUNNING
    assert standing(record) is Standing.INTERRUPTED
    assert seconds_since_beat(record.folder) is None


def test_training_leaves_signs_of_life(compose_small: Compose, tmp_path: Path, monkeypatch):
    ages = []

    def beat_and_look(folder: Path) -> None:
        os.utime(folder / OWNER_FILE, (0, 0))
        beat(folder)
        ages.append(seconds_since_beat(folder))

    monkeypatch.setattr(heartbeat, "beat", beat_and_look)
    monkeypatch.setattr(heartbeat, "EVERY", 0)
    train(compose_small("model=vdl", "trainer.max_epochs=1"))
    assert len(ages) == 4 + 2 + 2  # Batches of training, validation and test.
    assert max(ages) < 3600
    assert standing(Record(tmp_path / "run")) is Standing.FINISHED


def test_best_first_and_those_that_went_wrong_last(folder: Path):
    rows = ranked(Glance([folder]).rows(), "val/psnr")
    names = [Path(row["run"]).name for row in rows]
    assert names == ["better", "good", "cut", "diverged", "later"]
    by_weight = ranked(rows, "sparsity_weight")
    assert [row.get("sparsity_weight") for row in by_weight] == [0.001, 0.01, 0.02, 0.03, None]


def test_the_worst_first_has_missing_values_last_too(folder: Path):
    rows = ranked(Glance([folder]).rows(), "val/psnr", worst_first=True)
    assert [Path(row["run"]).name for row in rows] == ["cut", "good", "better", "diverged", "later"]
    errors = [{"state": "finished", "val/relative_error": error} for error in (0.2, 0.1)]
    assert ranked(errors, "val/relative_error")[0]["val/relative_error"] == 0.1


def test_the_weight_that_was_found_the_k_that_is_kept_and_the_whole_seed(tmp_path: Path, capsys):
    sought = results(17.0, epochs=4) | {"val/sparsity_weight": 0.0155}
    make_run(tmp_path / "a", "sdl", 0.005, sought, seed=1_837_465_012)
    make_run(tmp_path / "b", "sdl", 0.005, results(17.0, epochs=4), seed=1_837_465_013)
    settings = json.loads((tmp_path / "b" / "config.yaml").read_text())
    settings["model"]["encoder"] = {"k": 12}
    (tmp_path / "b" / "config.yaml").write_text(json.dumps(settings))
    table = run_command(capsys, str(tmp_path))
    assert {"0.0155", "12", "1837465012", "1837465013"} <= set(table.split())


def test_conditions(folder: Path):
    rows = Glance([folder]).rows()
    assert len(kept(rows, ["family=[sdl,vdl]"])) == 3
    assert [Path(row["run"]).name for row in kept(rows, ["family=sdl", "λ=2e-2"])] == ["better"]
    assert kept(rows, ["seed=0", "state=running"]) == []
    with pytest.raises(SettingError, match=r"famly is no column of these runs: choose one of run"):
        kept(rows, ["famly=sdl"])
    with pytest.raises(SettingError, match=r"--where sdl is no condition"):
        kept(rows, ["sdl"])


def test_data_without_pictures_are_ranked_by_r2(tmp_path: Path):
    for name, r2 in (("a", 0.5), ("b", 0.75)):
        make_run(tmp_path / name, "vdl", 0.1, {"val/r2": r2, "test/r2": r2, "epochs": 4})
    (sweep,) = sweeps(Glance([tmp_path]).rows())
    assert (sweep["best"], sweep["val/r2"]) == ("b", 0.75)


def run_command(capsys, *arguments: str) -> str:
    list_runs(parser().parse_args(arguments))
    return capsys.readouterr().out


def test_table_csv_and_json(folder: Path, tmp_path: Path, capsys):
    table = run_command(capsys, str(folder), "--where", "family=sdl,vdl,vdl_nl")
    lines = table.splitlines()
    assert "stopped early" in lines[1]
    assert {"18.00", "19.00", "80.0%", "2/4", "better"} <= set(lines[1].split())
    assert lines[-1].startswith("4 runs: 1 finished, 1 stopped early, 1 diverged, 1 interrupted;")
    assert lines[-1].endswith("all: data mnist")
    rows = list(csv.DictReader(io.StringIO(run_command(capsys, str(folder), "--format", "csv"))))
    assert len(rows) == 5
    assert (rows[0]["family"], rows[0]["test/psnr"], rows[-1]["test/psnr"]) == ("sdl", "19.0", "")
    (top,) = json.loads(run_command(capsys, str(folder), "--format", "json", "--top", "1"))
    assert (top["seed"], top["val/psnr"], top["state"]) == (1, 18.0, "stopped early")
    run_command(capsys, str(folder), "--output", str(tmp_path / "out.json"))
    assert len(json.loads((tmp_path / "out.json").read_text())) == 5
    run_command(capsys, str(folder), "--format", "csv", "--output", str(tmp_path / "csv.json"))
    assert len([*csv.DictReader((tmp_path / "csv.json").read_text().splitlines())]) == 5
    assert "sweep" in run_command(capsys, str(folder), "--sweeps")
    other = make_run(folder.parent / "other" / "run", "sdl", 0.01, results(1.0, epochs=4)).parent
    both = str(folder), str(other), "--sweeps", "--format", "json"
    (top,) = json.loads(run_command(capsys, *both, "--top", "1"))
    assert (Path(top["sweep"]), top["runs"]) == (folder, 5)


def test_folders_may_be_relative_and_absolute(folder: Path, capsys, monkeypatch):
    monkeypatch.chdir(folder.parent)
    table = run_command(capsys, folder.name, str(folder))
    assert f"run, in {folder}" in table
    assert table.count(" good") == 2
    table = run_command(capsys, folder.name)
    assert f"run, in {folder.name}" in table
    assert "1 waiting" in table
    make_run(Path("other") / "run", "sdl", 0.01, None)
    assert "run, in ." in run_command(capsys, folder.name, "other")


def test_watching_ends_when_nothing_runs(folder: Path, capsys):
    (folder / "plan.json").unlink()
    assert "4 runs" in run_command(capsys, str(folder), "--watch")


def test_a_finished_run_that_goes_on_is_running(folder: Path, capsys, monkeypatch):
    (folder / "plan.json").unlink()
    process = ExitStack()
    process.enter_context(held(folder / "good"))
    assert standing(Record(folder / "good")) is Standing.RUNNING
    clock = SimpleNamespace(sleep=lambda seconds: process.close())
    monkeypatch.setattr("sparse_lightning.runs.time", clock)
    run_command(capsys, str(folder), "--watch")
    assert not is_locked(folder / "good"), "it watches until the end"
    assert standing(Record(folder / "good")) is Standing.FINISHED


def test_one_sentence_where_it_cannot_work(folder: Path, tmp_path: Path, monkeypatch):
    for arguments, told in (
        ([str(tmp_path / "none")], r"none is no folder"),
        ([str(folder), "--top", "0"], r"--top 0 must be at least 1"),
        ([str(folder), "--watch", "--format", "csv"], r"leave --format and --output out"),
    ):
        with pytest.raises((SettingError, DataError), match=told):
            list_runs(parser().parse_args(arguments))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="no run in runs or sweeps"):
        list_runs(parser().parse_args([]))
    (folder / "good" / "config.yaml").write_text("a: [")
    with pytest.raises(DataError, match=r"good/config\.yaml cannot be read"):
        Glance([folder]).rows()


def test_it_needs_no_torch(folder: Path):
    program = (
        "import sys; sys.argv = ['runs', sys.argv[1]]\n"
        "from sparse_lightning.runs import main; main()\n"
        "print([name for name in ('torch', 'lightning', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.stdout.splitlines()[-1] == "[]"
