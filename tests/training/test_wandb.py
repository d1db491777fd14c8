"""W&B offline, read back from the file that it leaves."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import wandb
from conftest import Compose
from wandb_records import recorded_settings, records

from sparse_lightning.config import wandb_mode
from sparse_lightning.data.patches import SAMPLE_TITLE
from sparse_lightning.errors import DivergenceError
from sparse_lightning.experiments import wandb_summary
from sparse_lightning.files import write_figure
from sparse_lightning.train import train
from sparse_lightning.training import callbacks


def test_offline_run_holds_config_metrics_and_images(compose: Compose, mnist_root, tmp_path):
    config = compose(
        "model=vdl",
        "trainer=cpu",
        "trainer.enable_progress_bar=false",
        "trainer.max_epochs=2",
        f"data.root={mnist_root}",
        "data.num_train=100",
        "data.num_val=50",
        "data.num_test=50",
        "data.batch_size=50",
        "seed=7",
    )
    train(config)
    assert wandb.run is None
    written = records(tmp_path / "run")
    run = next(record.run for record in written if record.HasField("run"))
    assert run.display_name == "mnist-vdl-lambda0.02-seed7"
    assert run.run_group == "mnist-vdl-lambda0.02"
    assert run.job_type == "train"
    assert set(run.tags) == {"vdl", "mnist"}
    assert run.project == "sparse_lightning"

    settings = recorded_settings(written)
    assert settings["model"]["energy"]["sparsity_weight"] == 0.02
    assert settings["data"]["num_train"] == 100
    assert settings["data_title"] == "MNIST"

    history: dict[str, list] = {}
    for record in written:
        for item in record.history.item:
            key = item.key or "/".join(item.nested_key)
            history.setdefault(key, []).append(json.loads(item.value_json))
    for name in ("val/psnr", "train/energy", "val/zeros"):
        assert len(history[name]) == 2, name
    assert "test/psnr" in history
    assert history["figures/atoms/_type"] == ["images/separated"] * 2
    media = list((tmp_path / "run" / "wandb").glob("offline-run-*/files/media/images/figures/*"))
    assert any(path.name.startswith("atoms_") for path in media)
    exits = [record.exit.exit_code for record in written if record.HasField("exit")]
    assert exits == [0]


def test_a_resumed_run_is_the_same_run(compose_small: Compose, tmp_path: Path):
    settings = ("model=sdl", "logger=wandb", "data.num_train=100")
    ids = set()
    for epochs, resume in ((1, "false"), (2, "true")):
        train(compose_small(*settings, f"trainer.max_epochs={epochs}", f"resume={resume}"))
        # Two that begin in the same second are told apart by a number at the end.
        folders = (tmp_path / "run").glob("wandb/offline-run-*")
        ids |= {folder.name.split("-")[3] for folder in folders}
    assert ids == {(tmp_path / "run" / "wandb_id").read_text()}


@pytest.mark.slow
def test_a_sweeps_runs_share_a_group_and_nothing_else(compose_small: Compose, tmp_path: Path):
    found = []
    for weight in (1, 10):
        folder = tmp_path / f"job{weight}"
        config = compose_small(
            "model=vdl",
            "logger=wandb",
            "seed=3",
            "data.num_train=100",
            "trainer.max_epochs=1",
            f"model.energy.variance_weight={weight}",
            "sweep.group=beta",
            "sweep.swept=[model.energy.variance_weight]",
            run_dir=folder,
        )
        train(config)
        found.append(next(r.run for r in records(folder) if r.HasField("run")))
    assert {run.run_group for run in found} == {"beta"}
    assert len({run.run_id for run in found}) == 2
    names = [run.display_name for run in found]
    assert names == [f"mnist-vdl-lambda0.02-seed3-variance_weight{weight}" for weight in (1, 10)]
    wandb_summary.log(config, tmp_path / "beta", *tables())
    written = records(tmp_path / "beta")
    run = next(record.run for record in written if record.HasField("run"))
    assert (run.run_group, run.job_type) == ("beta", "aggregate")
    keys = {item.key or item.nested_key[0] for r in written for item in r.history.item}
    assert {"runs", "summary"} <= {key.partition("/")[0] for key in keys}


def tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    table = pd.DataFrame({"run": ["a", "b"], "test/psnr": [15.0, None], "failure": [None, "no"]})
    return table, table.drop(columns="failure")


def test_sample_photographs_are_named_in_config_tags_and_figures(
    compose: Compose, monkeypatch, tmp_path
):
    titles = []

    def titled(figure, path):
        titles.append(figure.get_suptitle() or figure.axes[0].get_title())
        return write_figure(figure, path)

    monkeypatch.setattr(callbacks, "write_figure", titled)
    config = compose(
        "model=sdl",
        "data=imagenet_patches",
        "trainer=cpu",
        "trainer.enable_progress_bar=false",
        "trainer.max_epochs=1",
        f"data.cache_dir={tmp_path / 'cache'}",
        "data.num_train=40",
        "data.num_val=20",
        "data.num_test=20",
        "data.batch_size=20",
        "code_dim=16",
    )
    train(config)
    written = records(tmp_path / "run")
    # The tags of the data are added to a run that has begun.
    run = [record.run for record in written if record.HasField("run")][-1]
    assert set(run.tags) == {"sdl", "imagenet_patches", "sample photographs"}
    assert recorded_settings(written)["data_title"] == SAMPLE_TITLE
    assert len(titles) == 10
    assert all(SAMPLE_TITLE in title for title in titles)


def test_run_is_finished_when_training_fails(compose_small: Compose, tmp_path: Path):
    config = compose_small("model=vdl", "logger=wandb", "step_size=5000", "solver.safeguard=false")
    with pytest.raises(DivergenceError):
        train(config)
    assert wandb.run is None
    exits = [r.exit.exit_code for r in records(tmp_path / "run") if r.HasField("exit")]
    assert exits == [1]


def test_mode_follows_the_key(monkeypatch, tmp_path: Path):
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert wandb_mode() == "offline"
    (tmp_path / "netrc").write_text("machine other.example.org login user password key\n")
    assert wandb_mode() == "offline"
    (tmp_path / "netrc").write_text("machine wandb.example.org login user password key\n")
    assert wandb_mode() == "online"
    (tmp_path / "netrc").unlink()
    monkeypatch.setenv("WANDB_API_KEY", "key")
    assert wandb_mode() == "online"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert wandb_mode() == "disabled"
