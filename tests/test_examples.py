"""The notebooks run as they stand, and show what their text says."""

from __future__ import annotations

import runpy
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import matplotlib
import pytest

ROOT = Path(__file__).parent.parent


def run(name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names that a notebook defines."""
    matplotlib.use("Agg")
    monkeypatch.chdir(ROOT)
    return runpy.run_path(str(ROOT / "examples" / f"{name}.py"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_inference_lowers_the_energy_and_fista_is_sooner(monkeypatch):
    made = run("digits", monkeypatch)
    gaps = {
        name: [float(made["objective"].value(codes)) - made["least"] for codes in path]
        for name, path in made["paths"].items()
    }
    at = made["counts"].index(30)
    assert gaps["FISTA"][at] < gaps["ISTA"][at] < gaps["ISTA"][0]
    assert gaps["FISTA"][-1] >= -1e-3
    active = list(made["active"].values())
    assert active[-1] < max(active)
    assert made["metrics"]["val/psnr"].iloc[-1] > made["metrics"]["val/psnr"].iloc[0]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_codes_collapse_where_nothing_prevents_it(monkeypatch):
    metrics = run("collapse", monkeypatch)["metrics"]
    nothing, unit, hinge = (metrics[name] for name in ("nothing", "unit columns", "variance hinge"))
    assert nothing["train/code_l1"].iloc[-1] < 0.5 * nothing["train/code_l1"].max()
    assert nothing["train/column_norm"].iloc[-1] > 2 * nothing["train/column_norm"].iloc[0]
    assert unit["train/column_norm"].iloc[-1] == pytest.approx(1, abs=1e-4)
    assert hinge["train/code_l1"].iloc[-1] > 1.5 * nothing["train/code_l1"].iloc[-1]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_sweep_is_read(monkeypatch):
    made = run("sweep", monkeypatch)
    assert len(made["rows"]) == len(made["table"]) == 6
    assert set(made["summary"]["n"]) == {1}


def test_every_page_is_in_the_navigation():
    index = (ROOT / "docs" / "index.md").read_text()
    blocks = index.split("```{toctree}")[1:]
    named = {line for block in blocks for line in block.partition("```")[0].splitlines()}
    pages = {
        path.relative_to(ROOT / "docs").with_suffix("").as_posix()
        for path in (ROOT / "docs").rglob("*.md")
        if "_build" not in path.parts
    }
    lost = [page for page in pages - {"index"} if not any(fnmatch(page, name) for name in named)]
    assert lost == []
