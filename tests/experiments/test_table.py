"""Runs add up to tables that average over the seed and nothing else."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import Compose

from sparse_lightning.collect import main
from sparse_lightning.errors import DataError
from sparse_lightning.experiments import fingerprint, moved
from sparse_lightning.experiments.runs import RESULTS_FILE, Run, record_settings
from sparse_lightning.experiments.table import (
    collect,
    epochs_of,
    record_plan,
    summarize,
    write_results,
)
from sparse_lightning.figures.sweep import regret_curve
from sparse_lightning.files import write_json


@pytest.fixture
def add_run(compose: Compose, tmp_path: Path):
    """Make the folder of a run as training would leave it, without training."""

    def add(name: str, *overrides: str, psnr: float | None = None, zeros: float = 0.9) -> Run:
        folder = tmp_path / "sweep" / name
        record_settings(compose(*overrides, "logger=none", run_dir=folder), folder)
        if psnr is not None:
            results = {"test/psnr": psnr, "test/zeros": zeros, "val/psnr": psnr, "epochs": 3}
            write_json(folder / RESULTS_FILE, results | {"seconds": 2.0})
        return Run(folder)

    return add


def test_mean_and_spread_over_seeds_alone(add_run, tmp_path: Path):
    values = [15.0, 16.0, 18.0]
    for seed, psnr in enumerate(values):
        add_run(f"a{seed}", "model=sdl", f"seed={seed}", psnr=psnr)
    add_run("b", "model=sdl", "seed=0", "solver.tolerance=0.01", psnr=99.0)
    add_run("c", "model=vdl", "seed=0", psnr=14.0)
    table = collect(tmp_path / "sweep")
    assert list(table["run"]) == ["a0", "a1", "a2", "b", "c"]
    assert set(table["state"]) == {"finished"}
    assert list(table["seed"]) == [0, 1, 2, 0, 0]
    assert list(table.loc[table["family"] == "sdl", "model.solver.tolerance"])[-1] == 0.01

    summary = summarize(table)
    assert len(summary) == 3
    whole = summary[summary["n"] == 3].iloc[0]
    assert whole["test/psnr_mean"] == pytest.approx(np.mean(values))
    assert whole["test/psnr_std"] == pytest.approx(np.std(values, ddof=1))
    assert (whole["data"], whole["family"], whole["sparsity_weight"]) == ("mnist", "sdl", 0.005)
    alone = summary[summary["n"] == 1]
    assert sorted(alone["test/psnr_mean"]) == [14.0, 99.0]
    assert alone["test/psnr_std"].isna().all()


def test_runs_of_different_lengths_are_never_averaged(add_run, tmp_path: Path):
    add_run("a", "model=sdl", "seed=0", "trainer.max_epochs=50", psnr=15.0)
    going_on = add_run("b", "model=sdl", "seed=1", "trainer.max_epochs=100", psnr=16.0)
    # It is to have 100 epochs, and its results are of 50.
    write_json(going_on.folder / RESULTS_FILE, going_on.results | {"max_epochs": 50})
    add_run("c", "model=sdl", "seed=2", "trainer.max_epochs=100", psnr=17.0)
    summary = summarize(collect(tmp_path / "sweep")).set_index("max_epochs")
    assert summary["n"].to_dict() == {50: 2, 100: 1}
    assert summary.loc[50, "test/psnr_mean"] == 15.5


def test_means_over_other_data_are_told(add_run, tmp_path: Path):
    for seed, data in enumerate((None, "one", "one", "other")):
        run = add_run(f"a{seed}", "model=sdl", f"seed={seed}", psnr=15.0)
        write_json(run.folder / RESULTS_FILE, run.results | {"data_fingerprint": data})
    table = collect(tmp_path / "sweep")
    with pytest.warns(UserWarning, match=r"1 of 1 means .* contents, such as a1 and a3 \(data_f"):
        summary = summarize(table)
    assert summary["n"].to_list() == [4]
    assert "data_fingerprint" not in summary
    # Results of earlier versions do not tell.
    assert len(summarize(table[:3])) == 1


def test_a_setting_that_differs_with_the_seed_is_told(add_run, tmp_path: Path):
    for seed, step in ((0, 0.5), (1, 1.0)):
        add_run(f"a{seed}", "model=sdl", f"seed={seed}", f"solver.step_size={step}", psnr=15.0)
    summary = summarize(collect(tmp_path / "sweep"))
    assert summary["n"].to_list() == [1, 1]
    assert sorted(summary["model.solver.step_size"]) == [0.5, 1.0]


def test_a_fixed_order_of_samples_does_not_split_seeds(add_run, tmp_path: Path):
    for seed in range(3):
        add_run(f"a{seed}", "model=sdl", f"seed={seed}", "data.shuffle_seed=0", psnr=15.0)
    # The same seed of the weights with another order is one more.
    add_run("b", "model=sdl", "seed=0", "data.shuffle_seed=7", psnr=15.0)
    add_run("copy", "model=sdl", "seed=0", "data.shuffle_seed=7", psnr=15.0)
    assert summarize(collect(tmp_path / "sweep"))["n"].to_list() == [4]


def test_columns_are_few_where_the_settings_follow_from_the_family(add_run, tmp_path: Path):
    for family in ("sdl", "vdl_nl"):
        add_run(family, f"model={family}", psnr=15.0)
    assert not [name for name in collect(tmp_path / "sweep") if "." in name]


def test_the_same_run_twice_counts_once(add_run, tmp_path: Path):
    for name in ("one", "again"):
        add_run(name, "model=sdl", psnr=15.0)
    assert list(summarize(collect(tmp_path / "sweep"))["n"]) == [1]


def test_old_and_new_runs_of_one_configuration_are_averaged(add_run, tmp_path: Path, monkeypatch):
    old = "sparse_lightning.decoders.LinearDecoder"
    monkeypatch.setattr(fingerprint, "ADDED", {"trainer.rounding": 2})
    monkeypatch.setitem(moved.MOVED, old, "package.New")
    add_run("old", "model=sdl", "seed=0", psnr=15.0)
    new = ("model=sdl", "model.decoder._target_=package.New")
    add_run("new", *new, "seed=1", "+trainer.rounding=2", psnr=17.0)
    add_run("other", *new, "seed=2", "+trainer.rounding=3", psnr=19.0)
    summary = summarize(collect(tmp_path / "sweep")).set_index("trainer.rounding")
    assert summary["n"].to_dict() == {2: 2, 3: 1}
    assert summary["test/psnr_mean"].to_dict() == {2: 16.0, 3: 19.0}
    assert set(summary["decoder"]) == {"New"}


def test_what_is_missing_and_why(add_run, tmp_path: Path):
    add_run("done", "model=sdl", psnr=15.0)
    add_run("begun", "model=sdl", "seed=1")
    add_run("broken", "model=sdl", "seed=2").record_failure(ValueError("out of luck"))
    record_plan(tmp_path / "sweep", {"done": ["seed=31"], "old": ["seed=4"]})
    record_plan(tmp_path / "sweep", {"broken": ["seed=2"]})
    # The same job under the name that it has today.
    record_plan(tmp_path / "sweep", {"never": ["seed=4"]})
    table = collect(tmp_path / "sweep").set_index("run")
    assert table["state"].to_dict() == {
        "begun": "interrupted",
        "broken": "failed",
        "done": "finished",
        "never": "waiting",
    }
    assert table.loc["broken", "failure"] == "ValueError: out of luck"
    above = collect(tmp_path).set_index("run")
    assert above.loc["sweep/never", "state"] == "waiting"
    assert len(above) == len(table)
    assert list(summarize(collect(tmp_path / "sweep"))["n"]) == [1]


def test_files_hold_the_tables(add_run, tmp_path: Path):
    add_run("a", "model=sdl", "data.root=here", psnr=15.0)
    add_run("b", "model=sdl", "data.root=7", psnr=16.0)
    add_run("c", "model=sdl", "+callbacks.extra=[1,2]")
    folder = tmp_path / "sweep"
    table = collect(folder)
    summary = summarize(table)
    write_results(folder, table, summary)
    for name, frame in (("table", table), ("summary", summary)):
        for stored in (
            pd.read_parquet(folder / f"{name}.parquet"),
            pd.read_csv(folder / f"{name}.csv", dtype={"settings": str, "data.root": str}),
        ):
            assert list(stored) == list(frame)
            pd.testing.assert_frame_equal(
                stored[["test/psnr" if name == "table" else "test/psnr_mean"]],
                frame[["test/psnr" if name == "table" else "test/psnr_mean"]],
            )
    assert (folder / "regret.png").exists()
    assert pd.read_parquet(folder / "epochs.parquet").empty


def test_regret_curve_has_a_line_per_family_and_dashes_for_linear(add_run, tmp_path: Path):
    for family in ("vdl", "vdl_nl"):
        for level in (1, 2):
            name = f"{family}{level}"
            add_run(
                name, f"model={family}", f"sparsity_level={level}", psnr=20.0 - level, zeros=0.1
            )
    add_run("beta", "model=vdl", "sparsity_level=1", "model.energy.variance_weight=1", psnr=9.0)
    figure = regret_curve(summarize(collect(tmp_path / "sweep")))
    (axes,) = figure.axes
    lines = {container.get_label(): container.lines[0] for container in axes.containers}
    assert set(lines) == {
        "VDL, variance_weight 1.0",
        "VDL, variance_weight 10.0",
        "VDL-NL, variance_weight 10.0",
    }
    assert sorted(lines["VDL, variance_weight 10.0"].get_ydata()) == [18.0, 19.0]
    assert lines["VDL, variance_weight 10.0"].get_xdata() == pytest.approx([10, 10])
    # One seed has no bar.
    assert len(axes.containers) == len(lines)
    assert not [bar for container in axes.containers for bar in container.lines[2]]
    styles = {name: line.get_linestyle() for name, line in lines.items()}
    assert styles["VDL-NL, variance_weight 10.0"] == "-"
    assert styles["VDL, variance_weight 10.0"] == "--"
    assert axes.get_xlabel() == "zeros in the codes (%)"
    assert axes.get_ylabel() == "PSNR (dB)"


def test_a_regret_curve_follows_the_weights_where_zeros_do_not(add_run, tmp_path: Path):
    for weight, zeros in ((0.01, 0.8), (0.02, 0.7), (0.04, 0.9)):
        setting = f"model.energy.sparsity_weight={weight}"
        add_run(f"run{weight}", "model=vdl", setting, psnr=20 - weight, zeros=zeros)
    (axes,) = regret_curve(summarize(collect(tmp_path / "sweep"))).axes
    (container,) = axes.containers
    assert container.lines[0].get_xdata() == pytest.approx([80, 70, 90])


def test_command_line(add_run, tmp_path: Path, monkeypatch, capsys):
    runs = [
        add_run("a", "model=sdl", "seed=0", psnr=15.0),
        add_run("b", "model=sdl", "seed=1", psnr=16.0),
        add_run("c", "model=sdl", "seed=2"),
    ]
    for run, last in zip(runs, (15.5, 16.5, 17.5)):
        (run.folder / "metrics.csv").write_text(f"epoch,val/psnr\n0,14.0\n1,{last}\n")
    # A run that goes on for more epochs has the results of the first two.
    of_two = {"epochs": 2, "data_fingerprint": "x"}
    write_json(runs[1].folder / RESULTS_FILE, runs[1].results | of_two)
    with (runs[1].folder / "metrics.csv").open("a") as rows:
        rows.write("2,99.0\n")
    monkeypatch.setattr(sys, "argv", ["collect", str(tmp_path / "sweep")])
    main()
    epochs = pd.read_parquet(tmp_path / "sweep" / "epochs.parquet")
    assert epochs["run"].to_list() == ["a", "a", "b", "b"], "c is not finished"
    assert epochs["val/psnr"].to_list() == [14.0, 15.5, 14.0, 16.5]
    printed = capsys.readouterr().out
    for text in ("15.50 ± 0.71", "90.0", "interrupted: c", "2 of 3 runs finished"):
        assert text in printed


def test_an_empty_folder_and_a_damaged_plan_are_named(tmp_path: Path, monkeypatch):
    with pytest.raises(DataError, match="holds no run"):
        collect(tmp_path)
    (tmp_path / "plan.json").write_text("{")
    with pytest.raises(DataError, match=r"plan\.json is damaged"):
        collect(tmp_path)
    monkeypatch.setattr(sys, "argv", ["collect", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"error: .*damaged"):
        main()


def test_settings_of_another_program_are_named(add_run, tmp_path: Path):
    add_run("own", "model=sdl", psnr=15.0)
    (tmp_path / "sweep" / "other").mkdir()
    (tmp_path / "sweep" / "other" / "config.yaml").write_text("optimizer: adam\n")
    with pytest.raises(DataError, match="other holds settings of another program"):
        collect(tmp_path / "sweep")


@pytest.mark.parametrize("content", ["", "a,b\n1,2\n", 'epoch\n"1'])
def test_a_damaged_record_of_epochs_is_named(tmp_path: Path, content):
    (tmp_path / "metrics.csv").write_text(content)
    with pytest.raises(DataError, match=r"metrics\.csv is damaged: put it back"):
        epochs_of(Run(tmp_path))


def test_runs_with_a_target_are_grouped_by_it_whatever_their_lambda(add_run, tmp_path: Path):
    for seed, (target, found) in enumerate([(0.8, 0.003), (0.8, 0.005), (0.9, 0.01)]):
        run = add_run(f"{target}-{seed}", "model=sdl", f"target_zeros={target}", f"seed={seed}")
        write_json(
            run.folder / RESULTS_FILE,
            {"test/psnr": 15.0, "test/zeros": target, "val/sparsity_weight": found, "epochs": 200},
        )
    add_run("without", "model=sdl", psnr=14.0)
    add_run("begun", "model=sdl", "target_zeros=0.9", "seed=7")
    table = collect(tmp_path / "sweep").set_index("run")
    assert table["sparsity_weight"].dropna().to_dict() == {
        "0.8-0": 0.003, "0.8-1": 0.005, "0.9-2": 0.01, "without": 0.005,
    }  # fmt: skip
    summary = summarize(table.reset_index())
    assert list(summary["target_zeros"].fillna(0)) == [0.8, 0, 0.9]
    assert list(summary["n"]) == [2, 1, 1]
    summary = summary.set_index("target_zeros")
    assert summary.loc[0.8, "sparsity_weight"] == pytest.approx(0.004)
    assert summary.loc[0.8, "val/sparsity_weight_std"] == pytest.approx(0.001 * 2**0.5)


def test_tables_without_targets_have_no_column_of_them(add_run, tmp_path: Path):
    add_run("a", "model=sdl", psnr=14.0)
    assert "target_zeros" not in collect(tmp_path / "sweep")
