"""A process that is ended by a signal says so by its exit code, and how it goes on."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import TINY
from lightning.pytorch.utilities.exceptions import SIGTERMException

from sparse_lightning.experiments.locks import is_locked
from sparse_lightning.signals import (
    Terminated,
    exit_codes_of_signals,
    terminated_behind_a_batch,
    terminated_in_order,
)


@pytest.mark.parametrize(
    ("error", "code"), [(SIGTERMException(), 143), (KeyboardInterrupt(), 130), (SystemExit(2), 2)]
)
def test_exit_codes(error, code):
    with pytest.raises(SystemExit) as stopped, exit_codes_of_signals():
        raise error
    assert stopped.value.code == code


def test_the_interruption_that_lightning_ends_with_one_is_of_sigint():
    @exit_codes_of_signals()
    def interrupted() -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            sys.exit(1)

    with pytest.raises(SystemExit) as stopped:
        interrupted()
    assert stopped.value.code == 130


def test_sigterm_closes_what_is_open_and_a_second_one_waits():
    closed = []

    @terminated_in_order()
    def terminated() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGTERM)
            closed.append(True)

    with pytest.raises(Terminated) as stopped:
        terminated()
    assert closed
    assert stopped.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_handler_of_others_is_left_alone():
    seen = []
    signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        with terminated_in_order():
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    assert seen == [signal.SIGTERM]


@pytest.fixture
def lightning_like():
    """A handler that notes the signal and calls the one before, as Lightning's does."""
    seen = []

    def install() -> list[int]:
        before = signal.getsignal(signal.SIGTERM)
        signal.signal(signal.SIGTERM, lambda *args: (seen.append(args[0]), before(*args)))
        return seen

    yield install
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def test_sigterm_waits_for_the_end_of_a_batch_and_is_never_lost(lightning_like):
    reached = []

    @terminated_in_order()
    def trained() -> None:
        with terminated_behind_a_batch(True):
            seen = lightning_like()
            signal.raise_signal(signal.SIGTERM)
            reached.extend(seen)
            # Whatever ends the training: no job of a sweep comes after this one.
            raise ValueError("diverged")

    with pytest.raises(Terminated):
        trained()
    assert reached == [signal.SIGTERM]


@pytest.mark.parametrize(("is_alone", "is_training"), [(False, True), (True, False)])
def test_sigterm_does_not_wait_for_what_is_no_batch(is_alone, is_training, lightning_like):
    @terminated_in_order()
    def ended() -> None:
        with terminated_behind_a_batch(is_alone):
            if is_training:
                lightning_like()
            signal.raise_signal(signal.SIGTERM)
            pytest.fail("SIGTERM was waited with.")

    with pytest.raises(Terminated):
        ended()


def test_a_terminated_run_is_no_success_and_can_be_continued(mnist_root: Path, tmp_path: Path):
    """It is saved inside its epoch, its folder is its own, and its last words can be pasted."""
    folder = tmp_path / "é 3"
    # Long enough for a signal in the first of a thousand batches.
    long = [*TINY, "data.num_train=50000"]
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "sparse_lightning.train", "model=do", *long),
            *(f"data.root={mnist_root}", f"hydra.run.dir='{folder}'"),
        ],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 300
        while not _has_trained_a_batch(folder) and time.monotonic() < deadline:
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.05)
        assert is_locked(folder)
        assert f"process {process.pid} on" in (folder / "run.owner").read_text()
        process.send_signal(signal.SIGTERM)
        errors = process.communicate(timeout=200)[1]
    finally:
        process.kill()
    assert process.returncode == 143, errors
    assert not is_locked(folder)
    assert re.search(r"Interrupted\. This goes on inside epoch 0:\n", errors), errors
    words = shlex.split(errors.strip().splitlines()[-1])
    assert words[1:4] == ["-m", "sparse_lightning.train", "model=do"]
    assert words[-2:] == [f'hydra.run.dir="{folder}"', "resume=true"]


def _has_trained_a_batch(folder: Path) -> bool:
    """By the sign of life that a run gives after its first batch, and then once in a while."""
    settings, sign = folder / "config.yaml", folder / "run.owner"
    there = settings.exists() and sign.exists()
    return there and sign.stat().st_mtime_ns > settings.stat().st_mtime_ns
