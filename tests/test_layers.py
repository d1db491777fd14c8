"""A file imports only from the layers above it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "sparse_lightning"

LAYERS = [
    {"compiling", "errors", "host", "moved", "products"},
    {"moments", "smooth"},
    {"files", "identity", "peers", "family_style"},
    {"least_squares"},
    {"reconstruction"},
    {"pieces"},
    {"checkpoints", "energy"},
    {"decoders", "encoders", "solvers"},
    {"optimizers", "data", "metrics"},
    {"parts"},
    {"model"},
    {"plots", "plots_pipeline", "plots_sweep", "features", "gabor", "findings", "runs"},
    {"callbacks", "loggers", "config", "collect", "jobs", "progress", "drawing"},
    {"aggregate", "dashboard", "studies", "claims", "trainings"},
    {"sweeps", "report"},
    {"train", "evaluate", "reproduce"},
]
HEIGHT = {name: height for height, names in enumerate(LAYERS) for name in names}


def imported_modules(path: Path) -> set[str]:
    """Second part of every ``sparse_lightning.X`` that a file imports."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "sparse_lightning":
                modules |= {alias.name for alias in node.names}
            elif node.module.startswith("sparse_lightning."):
                modules.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("sparse_lightning."):
                    modules.add(alias.name.split(".")[1])
    return modules


@pytest.mark.parametrize(
    "path",
    [
        path
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.parent != PACKAGE or path.stem != "__init__"
    ],
    ids=lambda path: path.relative_to(PACKAGE).as_posix(),
)
def test_imports_go_one_way(path: Path):
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for other in imported_modules(path) - {own}:
        assert HEIGHT[other] < HEIGHT[own], f"{path.name} must not import {other}"


def test_solvers_know_no_model():
    for path in (PACKAGE / "solvers").glob("*.py"):
        assert imported_modules(path) <= {"compiling", "errors", "moments", "smooth", "solvers"}
