"""What the command line says: one sentence for a mistake, the result for a run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from sparse_lightning.train import main


@pytest.fixture
def command(monkeypatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> None:
        GlobalHydra.instance().clear()
        monkeypatch.setattr(sys, "argv", ["train", *arguments])
        main()

    yield run
    GlobalHydra.instance().clear()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["model=vdl_nll"], "Nearest valid names: model=vdl_nl"),
        (["model.energy.sparsity_weight=-1"], "model.energy.sparsity_weight=-1 must be"),
        (["model=do", "model.energy.encoder_weight=1"], "needs an encoder"),
    ],
)
def test_a_mistake_that_a_part_finds_gets_one_sentence(command, arguments, expected):
    with pytest.raises(SystemExit) as stopped:
        command("logger=none", *arguments)
    message = str(stopped.value.code)
    assert message.startswith("\nerror: ")
    assert expected in message
    assert "Traceback" not in message


def test_a_run_shows_its_result(command, mnist_root: Path, tmp_path: Path, capsys):
    command(
        "model=sdl",
        "trainer=cpu",
        "trainer.max_epochs=1",
        "trainer.enable_progress_bar=false",
        "logger=none",
        f"data.root={mnist_root}",
        "data.num_train=100",
        "data.num_val=50",
        "data.num_test=50",
        "hydra.run.dir=here",
    )
    printed = capsys.readouterr().out
    for text in ("psnr", "zeros", "validation", "test", "1 epochs in", "figures"):
        assert text in printed
    found = {path.name for path in (tmp_path / "here").iterdir()}
    records = {path.name for path in (tmp_path / "here" / ".hydra").iterdir()}
    assert records == {"config.yaml", "hydra.yaml", "overrides.yaml"}
    assert {".hydra", "metrics.csv", "metrics.json", "checkpoints", "figures"} <= found
