"""The examples of docs/extending.md, from a folder of a user's own."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import hydra
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import Compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from sparse_lightning import registry
from sparse_lightning.code_files import read_codes
from sparse_lightning.config import CONFIG_DIR
from sparse_lightning.decoders import LinearDecoder, UnitColumns
from sparse_lightning.energy import Energy
from sparse_lightning.errors import SettingError
from sparse_lightning.evaluate import evaluate
from sparse_lightning.experiments.command_line import handed_on
from sparse_lightning.experiments.runs import Run, State, find_runs
from sparse_lightning.experiments.sweep_commands import commands
from sparse_lightning.experiments.table import collect
from sparse_lightning.imports import import_parts
from sparse_lightning.solvers import Adaptive
from sparse_lightning.train import train

REPOSITORY = Path(__file__).parent.parent
EXAMPLES = REPOSITORY / "examples" / "extending"
MODULES = sorted(path.stem for path in EXAMPLES.glob("*.py"))
SIDE = 8


def bars(count: int, seed: int) -> np.ndarray:
    """Images of a few horizontal and vertical bars (Földiák 1990)."""
    chosen = np.random.default_rng(seed).random((count, 2, SIDE)) < 0.15
    images = np.maximum(chosen[:, 0, :, None], chosen[:, 1, None, :])
    return np.broadcast_to(images, (count, SIDE, SIDE)).astype(np.float32)


@pytest.fixture(scope="module")
def arrays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("arrays")
    for seed, (split, count) in enumerate({"train": 200, "val": 100, "test": 100}.items()):
        np.save(root / f"{split}.npy", bars(count, seed))
    return root


@pytest.fixture
def examples(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, ModuleType]]:
    """The examples, imported for one test."""
    monkeypatch.setattr(registry, "REGISTRY", dict(registry.REGISTRY))
    monkeypatch.setattr("sparse_lightning.experiments.runs.REGISTRY", registry.REGISTRY)
    monkeypatch.syspath_prepend(EXAMPLES)
    yield {name: import_module(name) for name in MODULES}
    for name in MODULES:
        del sys.modules[name]


# What each example computes.


def test_a_component_of_the_convolutional_decoder_draws_its_kernel_at_its_place(examples):
    decoder = examples["convolutional_decoder"].ConvolutionalDictionary(2 * 16, SIDE**2, 2, 4)
    kernels = decoder.kernels.weight.detach()
    atoms = decoder.atoms().reshape(2, 4, 4, SIDE, SIDE)
    for unit, row, column in np.ndindex(2, 4, 4):
        expected = torch.zeros(SIDE + 2, SIDE + 2)
        expected[2 * row : 2 * row + 4, 2 * column : 2 * column + 4] = kernels[unit, 0]
        torch.testing.assert_close(atoms[unit, row, column], expected[1:-1, 1:-1])
    UnitColumns()(decoder)
    (norms,) = decoder.column_norms()
    torch.testing.assert_close(norms, torch.ones(2))
    with pytest.raises(SettingError, match=r"model\.decoder\.code_dim=33"):
        examples["convolutional_decoder"].ConvolutionalDictionary(33, SIDE**2)


def test_the_topk_encoder_keeps_the_largest(examples):
    encoder = examples["topk_encoder"].KLargest(7, 6, 2)
    inputs = torch.randn(50, 7)
    for code, response in zip(encoder(inputs), encoder.input(inputs)):
        best = sorted(response.tolist())[-2:]
        kept = [max(value, 0) if value in best else 0 for value in response.tolist()]
        assert code.tolist() == kept
    with pytest.raises(SettingError, match=r"model\.encoder\.k=7"):
        examples["topk_encoder"].KLargest(7, 6, 7)


def test_the_proximal_step_of_the_ordered_norm_minimises(examples):
    penalty = examples["weighted_l1"].OrderedL1(growth=2.0)
    points = torch.randn(20, 5, dtype=torch.float64)
    grid = torch.linspace(0, 3, 30001, dtype=torch.float64)
    found = penalty.prox(points, 0.3)
    for j, weight in enumerate((1, 1.5, 2, 2.5, 3)):
        costs = (grid - points[:, j, None]).square() / 2 + 0.3 * weight * grid
        torch.testing.assert_close(found[:, j], grid[costs.argmin(1)], atol=1e-4, rtol=0)
    assert float(penalty.value(torch.eye(5)[[4]])) == 3


@pytest.mark.parametrize("variance_weight", [0.0, 1.0])
def test_the_locally_competitive_algorithm_finds_the_minimum(examples, variance_weight):
    decoder = LinearDecoder(12, 30).double()
    UnitColumns()(decoder)
    inputs = torch.randn(40, 30, dtype=torch.float64)
    objective = Energy(0.02, variance_weight, 0.5).bind(decoder, inputs)
    start = torch.rand(40, 12, dtype=torch.float64)
    # The hinge pulls at components that are nearly constant, as a spring of growing stiffness.
    lca = examples["lca"].LCA(step_size=0.5, rate=0.5, max_iterations=5_000, tolerance=1e-7)
    found = lca(objective, start)
    best = Adaptive(max_iterations=5_000, tolerance=1e-7)(objective, start)
    assert found.converged.all()
    assert (found.iterations < 5_000).all()
    torch.testing.assert_close(objective.value(found.codes), objective.value(best.codes))
    if variance_weight == 0:
        torch.testing.assert_close(found.codes, best.codes, atol=1e-4, rtol=0)


# Through the commands.


def settings_of_a_study(study: str, *overrides: str, run_dir: Path) -> DictConfig:
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return hydra.compose("evaluate", [f"study={study}", *overrides, f"run_dir={run_dir}"])


SEARCH_PATH = f"hydra.searchpath=[file://{EXAMPLES / 'conf'}]"


def test_all_in_one(examples, compose: Compose, arrays: Path, tmp_path: Path):
    """A model, data and solver of a user's own: trained, resumed, studied, collected."""
    words = [
        SEARCH_PATH,
        f"imports=[{','.join(MODULES)}]",
        *("model=ordered", "model/decoder=conv_dictionary", "model/encoder=k_largest"),
        *("solver=lca", "solver.max_iterations=20"),
        *("data=own_arrays", f"data.root={arrays}"),
        *("trainer=cpu", "trainer.enable_progress_bar=false", "logger=none"),
    ]
    run_dir = tmp_path / "runs" / "own"
    train(compose(*words, "trainer.max_epochs=1", run_dir=run_dir))
    results = train(compose(*words, "trainer.max_epochs=2", "resume=true", run_dir=run_dir))
    assert results["epochs"] == 2
    run = Run(run_dir)
    parts = [run.model().decoder, run.model().encoder, run.model().energy.penalty]
    kinds = [type(part).__name__ for part in (*parts, run.model().solver)]
    assert kinds == ["ConvolutionalDictionary", "KLargest", "OrderedL1", "LCA"]
    assert (run_dir / "figures" / "atoms.png").exists()
    config = settings_of_a_study(
        "features", f"runs={tmp_path / 'runs'}", "study.compute.gabors=false",
        run_dir=tmp_path / "study",
    )  # fmt: skip
    assert len(evaluate(config).table) == 32
    assert collect(tmp_path / "runs")["decoder"].tolist() == ["ConvolutionalDictionary"]


def test_a_part_that_no_checkpoint_could_name_is_refused_before_training(
    examples, compose: Compose, tmp_path: Path
):
    config = compose(SEARCH_PATH, "model=k_largest", "trainer=cpu", f"data.root={tmp_path}")
    del registry.REGISTRY["KLargest"]
    with pytest.raises(SettingError, match=r"model\.encoder=KLargest is not registered.*@register"):
        train(config)


@pytest.mark.parametrize(
    ("imports", "expected"),
    [
        ("nowhere_to_be_found", r"imports=nowhere_to_be_found cannot be imported \(ModuleNotFound"),
        (["own/parts.py"], r"imports=\['own/parts.py'\] must list modules by their dotted names"),
        (["7up"], "must list modules"),
        ([3], "must list modules"),
        (["broken_part"], r"imports=broken_part cannot be imported \(ZeroDivisionError"),
    ],
)
def test_modules_that_cannot_be_imported_get_one_sentence(
    imports, expected, tmp_path: Path, monkeypatch
):
    (tmp_path / "broken_part.py").write_text("1 / 0")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(SettingError, match=expected):
        import_parts(OmegaConf.create({"imports": imports}))


def test_modules_are_found_in_the_folder_of_the_command(tmp_path: Path, monkeypatch):
    (tmp_path / "found_here.py").write_text("number = 7")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    for nothing in ({}, {"imports": None}, {"imports": []}):
        import_parts(OmegaConf.create(nothing))
    import_parts(OmegaConf.create({"imports": "found_here"}))
    assert sys.modules.pop("found_here").number == 7


def test_commands_that_a_command_starts_know_the_same_parts(tmp_path: Path, monkeypatch):
    folder = tmp_path / "conf, with a comma"
    folder.mkdir()
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        config = hydra.compose(
            "train", [f'hydra.searchpath=["file://{folder}"]'], return_hydra_config=True
        )
    HydraConfig.instance().set_config(config)
    words = handed_on(["own_data", "lca"])
    assert words == [f'hydra.searchpath=["file://{folder}"]', "imports=[own_data,lca]"]
    everywhere: dict[str, list[str]] = {"mnist": []}
    (command,) = commands([["data=mnist", "model=k_largest"]], everywhere, tmp_path, 1, words)
    assert command[:5] == ["-m", "sparse_lightning.train", "-m", *words]
    GlobalHydra.instance().clear()


def test_the_commands_of_the_page_compose(compose: Compose):
    page = (REPOSITORY / "docs" / "extending.md").read_text()
    found = re.findall(r"^python -m sparse_lightning\.train (.*)$", page, re.MULTILINE)
    assert len(found) == 6
    for words in map(shlex.split, found):
        if "-m" in words:  # A sweep.
            continue
        assert words[:2] == ["--config-dir", "conf"]
        overrides = [word for word in words[2:] if not word.startswith("hydra.")]
        OmegaConf.to_container(compose(SEARCH_PATH, *overrides), resolve=True)


# From a folder outside the package, each command a process of its own.


@pytest.fixture(scope="module")
def home(arrays: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The user's own folder: modules, configurations and data."""
    folder = tmp_path_factory.mktemp("user") / "home"
    shutil.copytree(EXAMPLES, folder)
    shutil.copytree(arrays, folder / "arrays")
    return folder


def command(home: Path, module: str, *words: str) -> subprocess.CompletedProcess:
    paths = [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {
        "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, "-m", f"sparse_lightning.{module}", *words],
        cwd=home, env=environment, capture_output=True, text=True, timeout=550,
    )  # fmt: skip


def done(home: Path, module: str, *words: str) -> str:
    process = command(home, module, *words)
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout + process.stderr


OWN = ("data=own_arrays", "data.root=arrays")
SMALL = (
    *OWN, "trainer=cpu", "trainer.enable_progress_bar=false", "trainer.max_epochs=1",
    "logger=none", "solver.max_iterations=20", "callbacks.figures.every_epochs=1000",
)  # fmt: skip
IMPORTS = f"imports=[{','.join(MODULES)}]"


@pytest.mark.slow
def test_train_resume_evaluate_encode_collect(home: Path):
    training = ["--config-dir", "conf", *SMALL, "model=conv_dictionary", "solver=lca"]
    done(home, "train", *training, "hydra.run.dir=runs/one")
    more = ["hydra.run.dir=runs/one", "resume=true", "trainer.max_epochs=2", IMPORTS]
    done(home, "train", *training, *more)
    assert Run(home / "runs" / "one").results["epochs"] == 2
    study = ["study=activating", "runs=runs", "hydra.run.dir=study"]
    # What the run's record and its checkpoint name is not imported.
    refused = command(home, "evaluate", *study)
    assert refused.returncode == 1
    assert re.search(r"error: .*imports=\[convolutional_decoder\]", refused.stderr)
    assert "Traceback" not in refused.stderr
    refused = command(home, "evaluate", *study, "imports=[convolutional_decoder,lca]")
    assert re.search(r"error: .*imports=\[own_data\]", refused.stderr)
    done(home, "evaluate", *study, IMPORTS)
    # The data may be named as well.
    named = ["--config-dir", "conf", *OWN, "imports=[convolutional_decoder,lca]"]
    done(home, "evaluate", *named, "study=activating", "runs=runs", "hydra.run.dir=again")
    one, other = (pd.read_csv(home / name / "table.csv") for name in ("study", "again"))
    # Data that are not imported are known by the name that the run gave them.
    pd.testing.assert_frame_equal(one.drop(columns="data"), other.drop(columns="data"))
    checkpoint = "checkpoint=runs/one/checkpoints/best.ckpt"
    done(home, "encode", checkpoint, "output=codes", IMPORTS)
    assert read_codes(home / "codes", "train").shape == (200, 32)
    assert "1 of 1 runs finished" in done(home, "collect", "runs")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("package", "launcher"),
    [
        ("hydra", []),
        ("hydra_plugins.hydra_joblib_launcher", ["joblib", "hydra.launcher.n_jobs=2"]),
        ("hydra_plugins.hydra_submitit_launcher", ["submitit_local"]),
        ("hydra_plugins.hydra_ray_launcher", ["ray", "+hydra.launcher.ray.init.num_cpus=2"]),
    ],
    ids=["basic", "joblib", "submitit", "ray"],
)
def test_jobs_of_a_sweep_import_as_well(package: str, launcher: list[str], home: Path):
    pytest.importorskip(package)
    chosen = [f"hydra/launcher={launcher[0]}", *launcher[1:]] if launcher else []
    # A module that no configuration names says in which processes it was imported.
    (home / "witness.py").write_text(
        "import os, pathlib\npathlib.Path(f'witness-{os.getpid()}').touch()\n"
    )
    for path in home.glob("witness-*"):
        path.unlink()
    sweep = f"sweeps/{launcher[0] if launcher else 'basic'}"
    words = ["-m", "--config-dir", "conf", *SMALL, *chosen, "model=k_largest,ordered"]
    done(home, "train", *words, "imports=[witness]", f"hydra.sweep.dir={sweep}")
    logs = [(run.folder / "output.log").read_text() for run in find_runs(home / sweep)]
    workers = {line.split()[-1] for log in logs for line in log.splitlines() if line[:3] == "---"}
    assert workers <= {path.name.removeprefix("witness-") for path in home.glob("witness-*")}
    assert [run.state for run in find_runs(home / sweep)] == [State.FINISHED] * 2
