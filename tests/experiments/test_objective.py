"""Sweepers of others, Hydra's and W&B's, run jobs and learn how well they did."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import yaml
from conftest import TINY, Compose
from hydra import version
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from sparse_lightning.config import CONFIG_DIR, register_resolvers
from sparse_lightning.errors import SettingError, SweepError
from sparse_lightning.experiments.jobs import objective_of
from sparse_lightning.experiments.runs import find_runs
from sparse_lightning.train import start, train

DOCS = (Path(__file__).parents[2] / "docs" / "sweeps.md").read_text()


@pytest.fixture
def multirun(tmp_path: Path, mnist_root: Path, monkeypatch: pytest.MonkeyPatch):
    """Run jobs as Hydra's command line does, in this process, and tell what its sweeper tells."""
    register_resolvers()
    version.setbase("1.3")
    monkeypatch.chdir(tmp_path)

    def run(*overrides: str) -> object:
        GlobalHydra.instance().clear()
        hydra = Hydra.create_main_hydra2("train", create_config_search_path(str(CONFIG_DIR)))
        common = [*TINY, f"data.root={mnist_root}", f"hydra.sweep.dir={tmp_path / 'sweep'}"]
        return hydra.multirun("train", start, [*common, *overrides], with_log_configuration=False)

    yield run
    GlobalHydra.instance().clear()


def test_a_job_returns_one_number_to_hydras_own_sweeper(multirun, tmp_path: Path):
    command = ("hydra/sweeper=basic", "model=sdl", "seed=1", "objective=val/energy")
    ((returned,),) = multirun(*command)
    (run,) = find_runs(tmp_path / "sweep")
    assert type(returned.return_value) is float
    assert returned.return_value == run.results["val/energy"]
    # Again: the job is done, and what it came to is known.
    ((again,),) = multirun(*command)
    assert again.return_value == returned.return_value


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Those of Optuna 2 and its own dependencies.
def test_optuna_finds_the_best_of_its_trials(multirun, tmp_path: Path):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    multirun(
        *("hydra/sweeper=optuna", "hydra.sweeper.n_trials=3", "hydra.sweeper.n_jobs=1"),
        *("model=sdl", "objective=val/energy"),
        "model.optimizer.encoder_learning_rate=tag(log,interval(1e-5,1e-2))",
    )
    told = yaml.safe_load((tmp_path / "sweep" / "optimization_results.yaml").read_text())
    runs = find_runs(tmp_path / "sweep")
    assert len(runs) == 3
    best = min(runs, key=lambda run: run.results["val/energy"])
    assert told["best_value"] == best.results["val/energy"]
    (rate,) = told["best_params"].values()
    assert best.config.model.optimizer.encoder_learning_rate == pytest.approx(rate)


def test_what_is_no_metric_is_refused_before_training(compose_small: Compose, tmp_path: Path):
    for name in ("val/enrgy", "energy", "train/energy", "val/iterations"):
        config = compose_small("model=sdl", f"objective={name}")
        with pytest.raises(
            SettingError, match=rf"objective={name} must be val/ or test/ and.*psnr"
        ):
            train(config)
    assert not (tmp_path / "run" / "config.yaml").exists()
    config = OmegaConf.create({"objective": "test/psnr", "run_dir": "here"})
    with pytest.raises(SettingError, match=r"no metric of this training: take one of val/psnr\."):
        objective_of(config, {"val/psnr": 1.0, "epochs": 3})
    with pytest.raises(SweepError, match="here is in use by another process"):
        objective_of(config, None)
    assert objective_of(config, {"test/psnr": 1}) == 1.0


def test_the_sweep_file_of_wandb_in_the_docs_works(compose: Compose):
    """The command that W&B's agent makes of it composes."""
    (text,) = re.findall(r"```yaml\n(.*?)```", DOCS, re.DOTALL)
    sweep = yaml.safe_load(text)
    drawn = {"model": "vdl", "model.optimizer.encoder_learning_rate": 3.2e-05}
    parameters = {
        name: drawn[name] if "value" not in how else how["value"]
        for name, how in sweep["parameters"].items()
    }
    # Within W&B, and only this test needs them.
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    words = create_sweep_command(list(sweep["command"]))
    words = [sys.executable if word == "${interpreter}" else word for word in words]
    assert words[-1] == "${args_no_hyphens}"
    values = {"args": {name: {"value": value} for name, value in parameters.items()}}
    arguments = create_sweep_command_args(values)["args_no_hyphens"]
    assert words[:-1][-2:] == ["-m", "sparse_lightning.train"]
    config = OmegaConf.to_container(compose(*arguments), resolve=True)
    assert config["model"]["family"] == "vdl"
    assert config["model"]["optimizer"]["encoder_learning_rate"] == 3.2e-05
    assert config["objective"] is None
    assert sweep["metric"]["name"].startswith("val/")
