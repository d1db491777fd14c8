"""The examples in docstrings, which the reference shows, do what they say."""

from __future__ import annotations

import doctest
from importlib import import_module
from pathlib import Path

import pytest

import sparse_lightning

PACKAGE = Path(sparse_lightning.__file__).parent
MODULES = [
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted(PACKAGE.rglob("*.py"))
    if "    >>> " in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name: str):
    result = doctest.testmod(import_module(name))
    assert result.attempted > 0
    assert result.failed == 0


def test_the_main_modules_have_examples():
    main = ("energy", "penalties", "decoders", "encoders", "solvers.fista", "estimator")
    assert {f"sparse_lightning.{name}" for name in main} <= set(MODULES)
