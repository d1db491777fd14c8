"""Files are written whole or not at all."""

from __future__ import annotations

import errno
import os
import resource
import stat
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure

from sparse_lightning.errors import SettingError, StorageError
from sparse_lightning.files import (
    replaced_whole,
    require_writable,
    storage_message,
    write_figure,
    write_json,
)
from sparse_lightning.signals import SIGTERM_EXIT, Terminated
from sparse_lightning.training.checkpoints import WholeFiles


def interrupted_write(path):
    with replaced_whole(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("power cut")


def test_files_are_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "deep" / "table.json"
    write_json(path, {"a": 1})
    with pytest.raises(RuntimeError, match="power cut"):
        interrupted_write(path)
    assert path.read_text() == '{\n  "a": 1\n}\n'
    assert [p.name for p in path.parent.iterdir()] == ["table.json"]
    assert write_figure(Figure(), tmp_path / "figure.png").stat().st_size > 1000


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_files_may_be_read_by_whom_the_umask_allows(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        write_json(tmp_path / "a.json", 1)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.json").stat().st_mode) == mode


def test_what_cannot_be_written_is_told_with_its_place(tmp_path):
    long = tmp_path / f"{'n' * 300}.json"
    with pytest.raises(StorageError, match=r"n\.json cannot be written \(File name too long\)"):
        write_json(long, 1)
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="Not a directory"):
        write_json(tmp_path / "file" / "a.json", 1)
    # A name that is not too long does not become so on the way.
    write_json(tmp_path / f"{'n' * 250}.json", 1)
    with pytest.raises(SettingError, match=r"hydra\.run\.dir=.*too long\): choose a shorter name"):
        require_writable("hydra.run.dir", long)
    for number, expected in ((errno.ENOSPC, "with room"), (errno.ENAMETOOLONG, "a shorter name")):
        assert expected in storage_message(OSError(number, os.strerror(number), "place"))
    assert storage_message(OSError(errno.ENOENT, "No such file", "place")) is None


def test_a_disk_that_fills_while_a_checkpoint_is_written(tmp_path):
    path = tmp_path / "last.ckpt"
    WholeFiles().save_checkpoint({"weights": torch.zeros(10)}, path)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Stands for the end of the disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, limits[1]))
    try:
        with pytest.raises(StorageError, match=r"last\.ckpt cannot be written \(File too large\)"):
            WholeFiles().save_checkpoint({"weights": torch.zeros(10**6)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_signal_while_a_checkpoint_is_written_is_no_full_disk(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    WholeFiles().save_checkpoint({"weights": torch.zeros(10)}, path)
    before = path.read_bytes()

    def interrupted(checkpoint, temporary):
        try:
            raise Terminated(SIGTERM_EXIT)
        finally:
            # What torch's writer says when it is closed in the midst of a record.
            raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 2 vs 1")

    monkeypatch.setattr(torch, "save", interrupted)
    with pytest.raises(Terminated):
        WholeFiles().save_checkpoint({"weights": torch.zeros(10)}, path)
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_figure_is_a_picture_whatever_its_name(tmp_path: Path):
    write_figure(Figure(figsize=(1, 1)), tmp_path / "speech")
    assert (tmp_path / "speech").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["speech"]
