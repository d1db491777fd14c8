"""What a report asks of its trainings, and what it tells of their cost."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pandas as pd
import pytest
from omegaconf import OmegaConf

from sparse_lightning.errors import NoModelsError, SweepError
from sparse_lightning.experiments.records import DIVERGED_AT, FAILURE_FILE
from sparse_lightning.experiments.runs import RESULTS_FILE, Run, record_settings
from sparse_lightning.experiments.sweep_commands import exit_code
from sparse_lightning.files import write_json
from sparse_lightning.paper import reproduction
from sparse_lightning.paper.report import NOT_TRAINED
from sparse_lightning.paper.reproduction import (
    cpu_hours,
    require_one_commit,
    require_studies,
    write_pages,
)


def trained(folder: Path, family: str, **results: object) -> Run:
    record_settings(OmegaConf.create({"model": {"family": family}}), folder)
    write_json(folder / RESULTS_FILE, results)
    return Run(folder)


@pytest.mark.parametrize("other", ["b" * 40, "a" * 40 + "-dirty", None])
def test_trainings_of_two_commits_are_refused(tmp_path: Path, other):
    first = trained(tmp_path / "first", "sdl", commit="a" * 40)
    second = trained(tmp_path / "second", "sdl", commit="a" * 40)
    require_one_commit([first, second])
    third = trained(tmp_path / "third", "sdl", commit=other)
    with pytest.raises(SweepError, match=f"first was trained by commit a*.*third by {other}"):
        require_one_commit([first, second, third])


def test_a_study_is_done_again_with_other_code(tmp_path: Path, monkeypatch):
    code, ran = {"commit": "a"}, []

    def run(command):
        ran.append(command)
        return 0

    monkeypatch.setattr(reproduction, "code_identity", lambda: code)
    monkeypatch.setattr(reproduction, "exit_code", run)
    study = OmegaConf.create({"data": None, "settings": ["study=regret"], "figures": []})
    for commit, times in (("a", 1), ("a", 1), ("b", 2)):
        code["commit"] = commit
        reproduction.run_study("regret", study, {}, tmp_path)
        assert len(ran) == times


def test_a_study_is_done_again_where_a_training_went_on_and_kept_its_best_model(
    tmp_path: Path, monkeypatch
):
    ran = []
    monkeypatch.setattr(reproduction, "exit_code", lambda command: ran.append(command) or 0)
    study = OmegaConf.create({"data": "mnist", "settings": ["study=regret"], "figures": []})
    for epochs, times in ((50, 1), (50, 1), (100, 2)):
        run = trained(tmp_path / "trainings" / "mnist" / "run", "sdl", epochs=epochs)
        reproduction.run_study("regret", study, {run.folder: "digest"}, tmp_path)
        assert len(ran) == times


@pytest.mark.parametrize(("data", "code"), [("mnist", None), (None, 3)])
def test_a_study_without_models_is_told_and_stops_nothing(
    tmp_path: Path, monkeypatch, rules, data, code
):
    monkeypatch.setattr(reproduction, "exit_code", lambda command: code)
    settings = ["study=denoising", "where.family=[vdl]"]
    study = OmegaConf.create({"data": data, "settings": settings, "figures": ["*"]})
    found = reproduction.run_study("denoising", study, {}, tmp_path)
    assert found.missing == NOT_TRAINED
    require_studies([found])
    report = write_pages([found], [], tmp_path, "Title", rules).read_text()
    assert "No training that the study asks for is finished" in report
    claims = pd.read_csv(tmp_path / "claims.csv")
    assert set(claims["verdict"]) == {"open"}
    assert len(claims) == 3


def test_a_study_that_fails_leaves_a_report_without_it(tmp_path: Path, monkeypatch, rules):
    """Also where pictures of an earlier study lie in its folder."""
    monkeypatch.setattr(reproduction, "exit_code", lambda command: 1)
    sections = []
    for title in ("regret", "denoising"):
        (tmp_path / "studies" / title).mkdir(parents=True)
        (tmp_path / "studies" / title / "old.png").write_bytes(b"")
        study = {"data": None, "settings": [f"study={title}"], "figures": ["*"]}
        section = reproduction.run_study(title, OmegaConf.create(study), {}, tmp_path)
        sections.append(section)
    report = write_pages(sections, [], tmp_path, "Title", rules).read_text()
    assert report.count("<p>The study failed.</p>") == 2
    assert "<img" not in report
    assert set(pd.read_csv(tmp_path / "claims.csv")["verdict"]) == {"open"}
    told = "2 of 2 studies failed, .*: regret, denoising.* python -m .*evaluate study=regret"
    with pytest.raises(SweepError, match=told):
        require_studies(sections)


def test_a_program_without_models_ends_with_its_own_code(tmp_path: Path, monkeypatch):
    (tmp_path / "empty").mkdir()
    words = ["study=regret", f"runs={tmp_path / 'empty'}", f"hydra.run.dir={tmp_path / 'out'}"]
    for asked in ("0", "1"):
        monkeypatch.setenv("HYDRA_FULL_ERROR", asked)
        code = exit_code(["-m", "sparse_lightning.evaluate", *words])
        assert code == (NoModelsError.exit_code if asked == "0" else 1)


def test_trainings_that_are_in_no_table_are_named(tmp_path: Path, rules):
    runs = [trained(tmp_path / "whole", "sdl", cpu_seconds=3600)]
    for name in ("begun", "fallen"):
        record_settings(OmegaConf.create({"model": {"family": "sdl"}}), tmp_path / name)
        runs.append(Run(tmp_path / name))
    write_json(tmp_path / "fallen" / FAILURE_FILE, {DIVERGED_AT: 7})
    report = write_pages([], runs, tmp_path, "Title", rules).read_text()
    assert "Finished trainings: 1; CPU hours: sdl 1.0." in report
    assert "Not finished, and in no table: begun, fallen (diverged in epoch 7)." in report


def test_digests_build_no_model(tmp_path: Path):
    run = trained(tmp_path / "run", "sdl")
    run.best_checkpoint.parent.mkdir()
    run.best_checkpoint.write_bytes(b"weights")
    content = hashlib.sha256(b"weights").hexdigest()
    assert reproduction.digests_of([run]) == {tmp_path / "run": content}


def test_hours_are_those_of_each_family(tmp_path: Path):
    runs = [
        trained(tmp_path / f"{i}", family, cpu_seconds=seconds)
        for i, (family, seconds) in enumerate([("sdl", 3600), ("vdl", 7200), ("sdl", 1800)])
    ]
    assert cpu_hours(runs) == "sdl 1.5, vdl 2.0"
