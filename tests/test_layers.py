"""Arrows point one way: a module imports from its own floor and from those below, in no circle."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

import sparse_lightning

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "sparse_lightning"

# From the ground up. What is named nowhere belongs to the method.
METHOD = "the method"
COMMANDS = {"config", "train", "evaluate", "encode", "collect", "reproduce", "runs"}
FLOORS = [
    {"errors", "files", "checkpoint_format", "quality", "instantiation"}
    # Figures of arrays and tables alone, which training and sweeps draw as well.
    | {"figures.style", "figures.tiles", "figures.histograms", "figures.heat_map", "figures.sweep"},
    {"data"},
    {METHOD},
    {"training"},
    {"experiments"},
    {"studies"},
    {"figures"},
    {"paper"},
    # The face for scikit-learn composes settings as the commands do.
    COMMANDS | {"estimator", "estimator_settings", "learner", "pretrained.make"},
]
HEIGHT = {name: height for height, names in enumerate(FLOORS) for name in names}


def module_name(path: Path) -> str:
    """``solvers.fista`` for ``solvers/fista.py``, ``solvers`` for its ``__init__``."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


FILES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
FACE = ""  # sparse_lightning/__init__.py


def height(module: str) -> int:
    """Floor of a module, by the longest part of its name that is on one."""
    parts = module.split(".")
    names = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
    return next((HEIGHT[name] for name in names if name in HEIGHT), HEIGHT[METHOD])


def runs_on_import(node: ast.AST) -> bool:
    """Whether it is no block for type checkers, and none of a script."""
    if not isinstance(node, ast.If):
        return True
    return ast.unparse(node.test) not in ("TYPE_CHECKING", "__name__ == '__main__'")


def imports(node: ast.AST, late: bool = False) -> Iterator[tuple[str, bool]]:
    """Full name of every module that is imported, and whether a function does it."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from ((alias.name, late) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert not child.level, f"write out {ast.unparse(child)}"
            for alias in child.names:
                whole = f"{child.module}.{alias.name}"
                yield (whole if ours(whole) in FILES else child.module), late
        elif runs_on_import(child):
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from imports(child, late or inside)


def ours(name: str) -> str | None:
    """The name inside this package, None for other packages."""
    package, _, module = name.partition(".")
    return module if package == "sparse_lightning" else None


def imported(module: str) -> list[tuple[str, bool]]:
    return list(imports(ast.parse(FILES[module].read_text())))


def own_imports(module: str) -> set[str]:
    """Modules of this package that are imported with a module."""
    return {ours(name) for name, late in imported(module) if not late} - {None}


def optional_packages() -> set[str]:
    """What a user may not have installed."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = [name for extra in extras["optional-dependencies"].values() for name in extra]
    return {re.split(r"[^\w-]", name)[0].replace("-", "_") for name in names}


@pytest.mark.parametrize("module", sorted(FILES.keys() - {FACE}))
def test_imports_go_one_way(module: str):
    for other in {ours(name) for name, _ in imported(module)} - {None}:
        assert other != FACE, f"{module} must not import the face of the package"
        assert height(other) <= height(module), f"{module} must not import {other}"


def test_no_circles():
    graph = {module: own_imports(module) for module in FILES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"modules import each other: {' ← '.join(error.args[1])}")


@pytest.mark.parametrize("module", sorted(FILES.keys() - COMMANDS))
def test_no_imports_inside_functions(module: str):
    allowed = optional_packages()
    for name in (name for name, late in imported(module) if late):
        assert name.split(".")[0] in allowed, f"{module} imports {name} late"


def test_the_face_of_the_package_is_lazy():
    packages = {name.partition(".")[0] for name, _ in imported(FACE)}
    assert packages <= sys.stdlib_module_names
    (block,) = (
        node for node in ast.parse(FILES[FACE].read_text()).body if not runs_on_import(node)
    )
    for_checkers = {alias.name: node.module for node in block.body for alias in node.names}
    assert sorted(for_checkers) == sorted(sparse_lightning.__all__)
    for name, module in for_checkers.items():
        assert getattr(sparse_lightning, name) is getattr(import_module(module), name)
    assert set(sparse_lightning.__all__) <= set(dir(sparse_lightning))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = sparse_lightning.nothing


def test_solvers_know_no_model():
    for module in FILES:
        if module.startswith("solvers"):
            assert not own_imports(module) & {"model", "decoders", "encoders"}
