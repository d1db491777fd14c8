"""Runs are found and read back from their folders."""

from __future__ import annotations

import io
import sys

import pytest
import torch

from sparse_lightning import runs
from sparse_lightning.errors import DataError
from sparse_lightning.experiments.runs import Run, find_runs, record_settings
from sparse_lightning.metrics import image_psnr
from sparse_lightning.train import train


def test_a_run_is_read_back(compose_small, tmp_path):
    folder = tmp_path / "sweep" / "job"
    config = compose_small("model=sdl", "sparsity_level=1", "trainer.max_epochs=1", run_dir=folder)
    final = train(config)
    (run,) = find_runs(tmp_path)
    assert run.folder == folder
    assert run.is_finished
    assert run.results == final
    assert run.config.model.energy.sparsity_weight == config.model.energy.sparsity_weight
    assert run.config.data_name == "mnist"
    data = run.data()
    data.prepare_data()
    data.setup("test")
    model, psnr, energy, zeros = run.model(), [], 0.0, 0
    with torch.no_grad():
        for batch in data.test_dataloader():
            codes = model.encode(batch.inputs)
            rebuilt = model.decode(codes)
            psnr.append(image_psnr(batch.to_pixels(rebuilt), batch.to_pixels(batch.inputs)))
            errors = (rebuilt - batch.inputs).square().mean(1)
            # The codes are the encoder's, so that the encoder term is 0.
            energy += float((errors + model.energy.sparsity_weight * codes.sum(1)).sum())
            zeros += int((codes == 0).sum())
    assert zeros / (100 * codes.shape[1]) == pytest.approx(final["test/zeros"], abs=1e-6)
    assert float(torch.cat(psnr).mean()) == pytest.approx(final["test/psnr"], abs=1e-3)
    assert energy / 100 == pytest.approx(final["test/energy"], rel=1e-5)


@pytest.mark.parametrize(
    "target",
    [
        "os.getcwd",
        "sparse_lightning.data.patch_pipeline.build.os.getcwd",
        "sparse_lightning.data.mnist.torch",
        "sparse_lightning.data.mnist.read_idx",
        "torchvision.datasets.MNIST",
    ],
)
def test_what_a_run_names_as_its_data_is_not_just_called(target, tmp_path):
    (tmp_path / "config.yaml").write_text(f"data:\n  _target_: {target}\n")
    with pytest.raises(DataError, match=r"names data of another package .*set data="):
        Run(tmp_path).data()


def test_tables_say_where_sample_photographs_stand_in(compose, tmp_path):
    for root in ("null", "photos"):
        record_settings(compose("data=imagenet_patches", f"data.root={root}"), tmp_path / root)
    labels = {root: Run(tmp_path / root).data_label for root in ("null", "photos")}
    assert labels["null"].endswith(" (sample photographs)")
    assert "(" not in labels["photos"]


def test_what_loggers_keep_beside_runs_is_no_run(tmp_path):
    for folder in ("job", "wandb/run-1/files", ".hydra"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "config.yaml").write_text("a: 1\n")
    assert [run.folder.name for run in find_runs(tmp_path)] == ["job"]


def test_a_folder_without_a_run_is_named(tmp_path):
    assert find_runs(tmp_path) == []
    with pytest.raises(DataError, match=str(tmp_path)):
        _ = Run(tmp_path).config


@pytest.mark.parametrize("content", ['{"test/psnr": 1', "[1, 2]", "3"])
def test_damaged_results_are_named(tmp_path, content):
    (tmp_path / "metrics.json").write_text(content)
    with pytest.raises(DataError, match=r"metrics\.json is damaged: delete it, and resume"):
        _ = Run(tmp_path).is_finished


def test_a_damaged_failure_is_named(tmp_path):
    (tmp_path / "failure.json").write_text('{"error": "Val')
    with pytest.raises(DataError, match=r"failure\.json is damaged: delete it, and give the sweep"):
        _ = Run(tmp_path).state


def test_a_list_is_shown_on_a_terminal_that_lacks_a_character(monkeypatch):
    shown = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", shown)
    monkeypatch.setattr(sys, "argv", ["runs"])
    monkeypatch.setattr(runs, "list_runs", lambda arguments: print("\u03bb"))
    runs.main()
    shown.flush()
    assert shown.buffer.getvalue() == b"?\n"
