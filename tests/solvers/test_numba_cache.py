"""Compiled code whose files are damaged, or cannot be written, is compiled again."""

from __future__ import annotations

import errno
import importlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numba
import pytest

from sparse_lightning.solvers import numba_cache

SOURCE = """
from numba import njit
from sparse_lightning.solvers.numba_cache import keep_on_disk

@keep_on_disk
@njit
def double(number):
    return 2 * number
"""


@pytest.fixture
def load(tmp_path: Path, monkeypatch):
    """A function that imports the module above anew, and one that lists its files."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    monkeypatch.setattr(numba_cache, "TOLD", set())
    monkeypatch.setattr(numba_cache.ForgivingCache, "compiles_apart", False)
    path = tmp_path / "compiled_for_a_test.py"
    path.write_text(SOURCE)

    def loaded():
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, path.stem, module)
        spec.loader.exec_module(module)
        return module.double

    return loaded


def files(folder: Path, kind: str) -> list[Path]:
    return sorted(folder.rglob(f"*.{kind}"))


@pytest.mark.parametrize("kind", ["nbi", "nbc"])
@pytest.mark.parametrize("content", [b"", b"\x80", b"not a pickle at all", b"\x80\x04K\x07."])
def test_damaged_files_are_made_anew(load, tmp_path: Path, kind, content):
    assert load()(3) == 6
    (path,) = files(tmp_path, kind)
    path.write_bytes(content)
    if kind == "nbi" and content == b"\x80\x04K\x07.":
        # Another version of numba wrote it, as far as numba can see.
        assert load()(3) == 6
    else:
        with pytest.warns(UserWarning, match=r"Compiled code in .* is damaged"):
            assert load()(3) == 6
    again = load()
    assert again(3) == 6
    assert sum(again.stats.cache_hits.values()) == 1


def test_a_truncated_file_is_made_anew(load, tmp_path: Path):
    assert load()(3) == 6
    (path,) = files(tmp_path, "nbc")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.warns(UserWarning, match=r"Compiled code in .* is damaged"):
        assert load()(3) == 6


def test_a_full_disk_costs_the_cache_alone(load, tmp_path: Path, monkeypatch):
    def full(*arguments, **settings):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("numba.core.caching.IndexDataCacheFile._save_data", full)
    with pytest.warns(UserWarning, match=r"cannot be kept \(No space left.*NUMBA_CACHE_DIR"):
        assert load()(3) == 6
    monkeypatch.undo()
    assert files(tmp_path, "nbc") == []


def test_no_folder_for_a_cache_is_no_error(load, monkeypatch):
    monkeypatch.setattr("numba.core.caching.FunctionCache._impl_class._locator_classes", [])
    assert load()(3) == 6


def test_what_is_not_compiled_is_left_as_it_is():
    """NUMBA_DISABLE_JIT=1 makes ``njit`` return the function itself."""

    def double(number: float) -> float:
        return 2 * number

    assert numba_cache.keep_on_disk(double) is double


def test_another_process_compiles(tmp_path: Path, monkeypatch):
    """So that the first process, too, runs what it finds on disk."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "compiled_apart.py").write_text(SOURCE)
    double = importlib.import_module("compiled_apart").double
    assert double(3) == 6
    assert (sum(double.stats.cache_hits.values()), len(double.stats.cache_misses)) == (1, 0)


SOLVE = """
import hashlib, torch
from sparse_lightning import FISTA, Energy, LinearDecoder
torch.manual_seed(0)
objective = Energy(sparsity_weight=0.005).bind(LinearDecoder(32, 64), torch.randn(40, 64))
codes = FISTA(step_size=1.0)(objective, torch.zeros(40, 32)).codes
print(hashlib.sha256(codes.numpy().tobytes()).hexdigest())
"""


@pytest.mark.slow  # It compiles for half a minute.
def test_the_first_run_on_a_machine_has_the_numbers_of_all_others(tmp_path: Path):
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", SOLVE]
    first, second = (
        subprocess.run(command, env=environment, capture_output=True, check=True).stdout
        for _ in range(2)
    )
    assert first == second
