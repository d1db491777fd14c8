"""One process at a time works in a folder; the second is told which one does."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import pytest
from conftest import Compose
from filelock import FileLock
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from omegaconf import OmegaConf

from sparse_lightning.config import register_resolvers
from sparse_lightning.errors import SettingError
from sparse_lightning.experiments.locks import LOCK_FILE, held, held_alone, is_locked
from sparse_lightning.experiments.runs import Run, State
from sparse_lightning.train import train


def test_the_second_run_in_a_folder_is_told_who_has_it(compose: Compose, tmp_path: Path):
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    with held(run.folder):
        assert run.state is State.RUNNING
        before = {path.name for path in run.folder.iterdir()}
        told = rf"hydra\.run\.dir=.*run is in use by process {os.getpid()} on .*, since "
        with pytest.raises(SettingError, match=told):
            train(compose("model=do"))
        assert {path.name for path in run.folder.iterdir()} == before
    assert not is_locked(run.folder)
    with held_alone("hydra.run.dir", run.folder):
        assert is_locked(run.folder)
        # A process that was killed may have left no word, or that of an earlier one.
        (run.folder / "run.owner").unlink()
        with (
            pytest.raises(SettingError, match="in use by another process: wait"),
            held_alone("hydra.run.dir", run.folder),
        ):
            pass


def test_a_lock_that_may_not_be_tried_is_judged_by_the_owners_word(tmp_path: Path, monkeypatch):
    def refuse(self, timeout: float) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", self.lock_file)

    monkeypatch.setattr(FileLock, "acquire", refuse)
    (tmp_path / LOCK_FILE).touch()
    assert not is_locked(tmp_path)
    (tmp_path / "run.owner").touch()
    assert is_locked(tmp_path)


def test_other_processes_of_one_training_share_its_folder(tmp_path: Path, monkeypatch):
    with held(tmp_path):
        monkeypatch.setattr(rank_zero_only, "rank", 1)
        with held_alone("hydra.run.dir", tmp_path):
            pass
    monkeypatch.setattr(rank_zero_only, "rank", 0)
    assert not is_locked(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} <= {LOCK_FILE}


def test_default_folders_differ_and_each_keeps_its_name():
    register_resolvers()
    runs = [OmegaConf.create({"a": "${unique:}", "b": "${unique:}"}) for _ in range(2)]
    assert re.fullmatch(r"[0-9a-f]{6}", runs[0].a)
    assert runs[0].a == runs[0].b != runs[1].a
