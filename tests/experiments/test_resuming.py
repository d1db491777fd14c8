"""A training that was interrupted goes on, and what cannot go on is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import Compose
from interruptions import Interrupted, StopAfter, assert_equal_runs, train_with, weights_of
from omegaconf import DictConfig

from sparse_lightning.data.mnist import MNIST
from sparse_lightning.errors import CheckpointError, DivergenceError, SettingError
from sparse_lightning.experiments.runs import Run, State
from sparse_lightning.train import start, train


@pytest.mark.parametrize("family", ["vdl_nl", "do"])
def test_interrupted_and_resumed_equals_uninterrupted(family, compose_small: Compose, tmp_path):
    """Bit for bit, learning-rate decay and shuffling included."""
    settings = (f"model={family}", "model.optimizer.decoder_decay_epochs=1", "data.num_train=230")
    whole = compose_small(*settings, "trainer.max_epochs=4", run_dir=tmp_path / "whole")
    parts = compose_small(*settings, "trainer.max_epochs=4", run_dir=tmp_path / "parts")
    train(whole)

    interrupt_at = StopAfter(epochs=2)
    with pytest.raises(Interrupted):
        train_with(parts, interrupt_at)
    parts.resume = True
    resumed = train(parts)

    expected = weights_of(tmp_path / "whole" / "checkpoints" / "last.ckpt")
    found = weights_of(tmp_path / "parts" / "checkpoints" / "last.ckpt")
    assert expected.keys() == found.keys()
    for name, weight in expected.items():
        assert torch.equal(weight, found[name]), name
    first, second = (
        pd.read_csv(tmp_path / run / "metrics.csv").drop(columns=["seconds", "cpu_seconds"])
        for run in ("whole", "parts")
    )
    pd.testing.assert_frame_equal(first, second)
    assert resumed["epochs"] == 4


@pytest.mark.parametrize(
    ("epochs", "hint"), [(0, "from the beginning"), (1, "from the last finished epoch")]
)
def test_an_interruption_says_how_to_go_on(compose_small: Compose, tmp_path, capsys, epochs, hint):
    config = compose_small("model=sdl")
    with pytest.raises(SystemExit) as stopped:
        train_with(config, StopAfter(epochs, KeyboardInterrupt), start)
    assert stopped.value.code == 130
    printed = capsys.readouterr().err
    assert hint in printed
    assert printed.endswith(f"hydra.run.dir={tmp_path / 'run'} resume=true\n")


def epochs_kept(run: Path) -> dict[str, int]:
    return {
        path.stem: torch.load(path, weights_only=True)["epoch"]
        for path in (run / "checkpoints").iterdir()
    }


def test_the_last_epoch_is_kept_whether_or_not_it_is_the_best(compose_small: Compose, tmp_path):
    # By the highest energy the first epoch is the best and stays it.
    train(compose_small("model=sdl", "callbacks.checkpoint.mode=max", "trainer.max_epochs=3"))
    assert epochs_kept(tmp_path / "run") == {"best": 0, "last": 2}


def test_a_moved_run_goes_on_and_keeps_its_best_model(compose_small: Compose, tmp_path: Path):
    settings = ("model=sdl", "callbacks.checkpoint.mode=max")
    train(compose_small(*settings, "trainer.max_epochs=2", run_dir=tmp_path / "here"))
    (tmp_path / "here").rename(tmp_path / "there")
    config = compose_small(
        *settings, "resume=true", "trainer.max_epochs=3", run_dir=tmp_path / "there"
    )
    train(config)
    assert epochs_kept(tmp_path / "there") == {"best": 0, "last": 2}
    assert not (tmp_path / "here").exists()
    # With nothing left to train its model is tested all the same.
    (tmp_path / "there").rename(tmp_path / "elsewhere")
    config.run_dir = str(tmp_path / "elsewhere")
    train(config)


@pytest.mark.filterwarnings("ignore:Inference found zeros alone")
def test_a_run_goes_on_with_its_own_numbers(compose_small: Compose, tmp_path: Path):
    run = tmp_path / "run"
    train(compose_small("model=sdl", "trainer.max_epochs=1"))
    (run / "config.yaml").rename(run / "away")
    for changed, part in (
        ("model.energy.sparsity_weight=0.1", "energy"),
        ("model.constraint.norm=2", "constraint"),
        ("model.optimizer.decoder_learning_rate=0.5", "optimizer"),
    ):
        told = f"has another model.{part} than .*, not .*another folder"
        with pytest.raises(CheckpointError, match=told):
            train(compose_small("model=sdl", "resume=true", changed))
    (run / "away").rename(run / "config.yaml")
    last = run / "checkpoints" / "last.ckpt"
    with pytest.raises(SettingError, match="holds an earlier run"):
        train(compose_small("model=sdl", f"ckpt_path={last}"))
    other = {"run_dir": tmp_path / "other"}
    with pytest.raises(SettingError, match="has 1 epochs behind it, which leaves none"):
        train(compose_small("model=sdl", f"ckpt_path={last}", "trainer.max_epochs=1", **other))
    final = train(
        compose_small("model=sdl", f"ckpt_path={last}", "model.energy.sparsity_weight=0.1", **other)
    )
    # The limit counts the epochs of the run that this one began from, and so do the results.
    assert (final["epochs"], final["max_epochs"]) == (2, 2)
    assert not Run(other["run_dir"]).covers(3)


@pytest.mark.filterwarnings("ignore:Inference found zeros alone")
def test_an_interrupted_run_goes_on_though_it_began_from_another(compose_small: Compose, tmp_path):
    one, other = ({"run_dir": tmp_path / name} for name in ("one", "other"))
    train(compose_small("model=sdl", "trainer.max_epochs=1", **one))
    # Of higher energy than the run that it starts from, whose best model it must forget.
    config = compose_small(
        "model=sdl", f"ckpt_path={tmp_path / 'one' / 'checkpoints' / 'last.ckpt'}",
        "model.energy.sparsity_weight=0.5", "trainer.max_epochs=4", **other,
    )  # fmt: skip
    with pytest.raises(Interrupted):
        train_with(config, StopAfter(epochs=2))
    assert epochs_kept(tmp_path / "other")["last"] == 1
    assert Run(tmp_path / "other").epochs_done == 2
    config.resume = True
    final = train(config)
    table = pd.read_csv(tmp_path / "other" / "metrics.csv").set_index("epoch")
    assert table.index.to_list() == [1, 2, 3]
    kept = epochs_kept(tmp_path / "other")
    assert kept == {"best": table["val/energy"].idxmin(), "last": 3}
    assert final["val/energy"] == table["val/energy"].min()


def test_results_are_of_the_model_that_was_kept(compose_small: Compose, tmp_path: Path):
    settings = ("model=sdl", "callbacks.checkpoint.mode=max")
    final = train(compose_small(*settings, "trainer.max_epochs=2"))
    first = pd.read_csv(tmp_path / "run" / "metrics.csv").set_index("epoch").loc[0]
    assert final["val/energy"] == pytest.approx(first["val/energy"])


def test_longer_goes_on_from_shorter_and_keeps_its_results_until_then(
    compose_small: Compose, tmp_path: Path
):
    def config(epochs: int, folder: str, *more: str) -> DictConfig:
        limit = f"trainer.max_epochs={epochs}"
        return compose_small("model=vdl", limit, *more, run_dir=tmp_path / folder)

    whole = train(config(4, "whole"))
    first = train(config(2, "parts"))
    run = Run(tmp_path / "parts")
    shorter = weights_of(run.best_checkpoint)
    assert (run.covers(2), run.covers(4), run.state) == (True, False, State.FINISHED)
    with pytest.raises(Interrupted):
        train_with(config(4, "parts", "resume=true"), StopAfter(epochs=3))
    # Results, and the model that they are of, are still those of two epochs.
    run = Run(tmp_path / "parts")
    assert (run.results, run.settings["trainer.max_epochs"], run.epochs_done) == (first, 2, 3)
    assert (run.state, run.state_of(4)) == (State.FINISHED, State.FAILED)
    kept = weights_of(run.best_checkpoint)
    assert all(torch.equal(shorter[name], kept[name]) for name in shorter)
    assert torch.load(run.best_checkpoint, weights_only=True)["epoch"] < 2

    longer = train(config(4, "parts", "resume=true"))
    times = {"seconds", "cpu_seconds"}
    assert {k: v for k, v in longer.items() if k not in times} == {
        k: v for k, v in whole.items() if k not in times
    }
    for name in ("best", "last"):
        expected, found = (
            weights_of(tmp_path / folder / "checkpoints" / f"{name}.ckpt")
            for folder in ("whole", "parts")
        )
        assert all(torch.equal(expected[key], found[key]) for key in expected)
    assert run.covers(4)
    assert run.best_checkpoint.name == "best.ckpt"
    assert longer["cpu_seconds"] > first["cpu_seconds"] > 0


def test_a_run_that_early_stopping_ended_is_done(compose_small: Compose, tmp_path: Path):
    settings = ("callbacks=early_stopping", "callbacks.early_stopping.patience=1")
    final = train(
        compose_small("model=sdl", *settings, "callbacks.early_stopping.mode=max",
                      "trainer.max_epochs=6")
    )  # fmt: skip
    assert (final["epochs"], final["max_epochs"]) == (2, 6)
    assert Run(tmp_path / "run").covers(100)


def test_no_patience_is_an_epoch_that_improves_nothing(compose_small: Compose):
    settings = ("callbacks=early_stopping", "callbacks.early_stopping.patience=0")
    final = train(
        compose_small("model=sdl", *settings, "callbacks.early_stopping.mode=max",
                      "trainer.max_epochs=4")
    )  # fmt: skip
    assert final["epochs"] == 2


def test_a_run_does_not_go_on_to_fewer_epochs(compose_small: Compose, tmp_path: Path):
    train(compose_small("model=sdl", "trainer.max_epochs=2"))
    before = (tmp_path / "run" / "metrics.json").read_bytes()
    with pytest.raises(SettingError, match=r"has 2 epochs behind it, more than .*max_epochs=1: "):
        train(compose_small("model=sdl", "resume=true", "trainer.max_epochs=1"))
    assert (tmp_path / "run" / "metrics.json").read_bytes() == before


def test_a_limit_of_steps_cannot_be_resumed(compose_small: Compose):
    train(compose_small("model=sdl", "trainer.max_epochs=1"))
    with pytest.raises(SettingError, match=r"trainer\.max_steps=9 and a checkpoint"):
        train(compose_small("model=sdl", "resume=true", "trainer.max_steps=9"))


def test_an_interruption_says_that_a_limit_of_steps_cannot_be_resumed(
    compose_small: Compose, capsys
):
    config = compose_small("model=sdl", "trainer.max_steps=9")
    with pytest.raises(SystemExit):
        train_with(config, StopAfter(1, KeyboardInterrupt), start)
    printed = capsys.readouterr().err
    assert "A run with trainer.max_steps=9 cannot be resumed" in printed
    assert "resume=true" not in printed


def test_earlier_run_is_not_overwritten(compose_small: Compose):
    config = compose_small("model=sdl", "trainer.max_epochs=1")
    train(config)
    with pytest.raises(SettingError, match="holds an earlier run: add resume=true"):
        train(config)


def test_divergence_keeps_the_last_good_checkpoint(compose_small: Compose, tmp_path: Path):
    run = tmp_path / "run"
    train(compose_small("model=vdl", "trainer.max_epochs=1"))
    before = weights_of(run / "checkpoints" / "last.ckpt")
    config = compose_small("model=vdl", "step_size=5000", "solver.safeguard=false", "resume=force")
    with pytest.raises(
        DivergenceError, match=r"at epoch 1, batch 0: solver\.step_size=5000 is too large"
    ):
        train(config)
    after = weights_of(run / "checkpoints" / "last.ckpt")
    assert all(torch.equal(before[name], after[name]) for name in before)


def changed_run(compose_small: Compose, *changed: str, resume: str = "true") -> dict:
    """Train for two epochs more settings than the run of the test began with."""
    return train(compose_small("model=do", "trainer.max_epochs=2", f"resume={resume}", *changed))


def test_a_run_goes_on_only_as_the_run_that_it_is(compose_small: Compose, tmp_path, mnist_root):
    """Nothing is lost where it is refused; what a run lasts, and where, may change."""
    run = Run(tmp_path / "run")
    train(compose_small("model=do", "trainer.max_epochs=1"))
    before = {path: path.read_bytes() for path in run.folder.glob("*.*") if path.is_file()}
    for changed, told in (
        ("data.split_seed=1", r"data\.split_seed=1 \(was 0\)"),
        ("data.mean=0.2", r"data\.mean=0\.2 \(was 0\.1307\)"),
        ("data=fashion_mnist", r"data\.name=FashionMNIST \(was MNIST\)"),
        ("seed=5", r"data\.shuffle_seed=5 \(was 31\), seed=5 \(was 31\)"),
        ("trainer.gradient_clip_val=1", r"trainer\.gradient_clip_val=1 \(was None\)"),
        ("resume=perhaps", "resume=perhaps must be true, false or force"),
    ):
        with pytest.raises(SettingError, match=told):
            changed_run(compose_small, changed)
    assert before == {path: path.read_bytes() for path in run.folder.glob("*.*") if path.is_file()}
    elsewhere = tmp_path / "data"
    elsewhere.symlink_to(mnist_root)
    changed_run(compose_small, f"data.root={elsewhere}", "logger=csv")
    final = changed_run(compose_small, "trainer.max_epochs=3", "data.mean=0.2", resume="force")
    assert final["epochs"] == 3
    assert run.config.data.mean == 0.2


def test_other_data_of_the_same_settings_are_noticed(compose_small: Compose, monkeypatch):
    train(compose_small("model=do", "trainer.max_epochs=1"))
    monkeypatch.setattr(MNIST, "fingerprint", lambda self: "other")
    with pytest.raises(SettingError, match="not those that the run was trained on"):
        changed_run(compose_small)


def test_a_fingerprint_is_of_the_contents(mnist_root: Path):
    def fingerprint(**settings) -> str:
        data = MNIST(mnist_root, **({"num_train": 3000, "num_val": 10, "num_test": 10} | settings))
        data.setup()
        assert data.state_dict() == {"fingerprint": data.fingerprint()}
        return data.fingerprint()

    assert fingerprint() == fingerprint(shuffle_seed=3, batch_size=7)
    others = [{"split_seed": 1}, {"std": 0.3}, {"num_train": 2999}, {"num_test": 9}]
    assert len({fingerprint(), *(fingerprint(**other) for other in others)}) == 5


def test_a_finished_run_loses_nothing(compose_small: Compose, tmp_path: Path):
    final = train(compose_small("model=do", "trainer.max_epochs=1"))
    run = Run(tmp_path / "run")
    kept = run.best_checkpoint.rename(tmp_path / "kept")
    with pytest.raises(CheckpointError, match=r"best\.ckpt, the best model of the run, is gone"):
        changed_run(compose_small)
    assert run.results == final
    kept.rename(run.best_checkpoint)
    run.last_checkpoint.write_bytes(run.last_checkpoint.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"is damaged.*or copy .*best\.ckpt over it"):
        changed_run(compose_small)
    run.last_checkpoint.unlink()
    for resume in ("true", "false"):
        with pytest.raises(SettingError, match=r"holds the results of .* without last\.ckpt"):
            changed_run(compose_small, resume=resume)
    assert run.results == final
    # What the message advises.
    shutil.copy(run.best_checkpoint, run.last_checkpoint)
    assert changed_run(compose_small)["epochs"] == 2


@pytest.mark.filterwarnings("ignore:target_zeros=0.9 was not reached")
@pytest.mark.filterwarnings("ignore:.*could not find the monitored key")
@pytest.mark.parametrize(
    ("epoch", "settings"),
    [
        pytest.param(1, ("trainer.check_val_every_n_epoch=2",), id="no validation yet"),
        pytest.param(
            2,
            ("target_zeros=0.9", "trainer.max_epochs=3", "callbacks.last.every_minutes=1e-9"),
            id="first epoch with the final λ",
        ),
    ],
)
def test_a_run_without_a_best_model_goes_on(epoch, settings, compose_small: Compose, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(compose_small("model=sdl", *settings, run_dir=whole))
    config = compose_small("model=sdl", *settings, run_dir=parts)
    with pytest.raises(Interrupted):
        train_with(config, StopAfter(epoch))
    assert not (parts / "checkpoints" / "best.ckpt").exists()
    config.resume = True
    train(config)
    assert_equal_runs(whole, parts)


def test_init_from_takes_weights_alone(compose_small: Compose, tmp_path: Path):
    first, second = tmp_path / "run", tmp_path / "second"
    train(compose_small("model=vdl", "trainer.max_epochs=1"))
    last = first / "checkpoints" / "last.ckpt"
    settings = (
        "model=sdl", f"init_from={last}", "trainer.max_epochs=1", "data.mean=0.2",
        "model.optimizer.decoder_learning_rate=1e-30", "model.constraint=null",
    )  # fmt: skip
    final = train(compose_small(*settings, run_dir=second))
    assert final["epochs"] == 1
    old, new = weights_of(last), weights_of(second / "checkpoints" / "last.ckpt")
    torch.testing.assert_close(old["decoder.weight"], new["decoder.weight"])
    other = {"run_dir": tmp_path / "other"}
    with pytest.raises(CheckpointError, match=r"another model\.decoder .*code_dim 128, not 64"):
        train(compose_small(*settings, "code_dim=64", **other))
    with pytest.raises(SettingError, match="are two beginnings"):
        train(compose_small(*settings, f"ckpt_path={last}", **other))


def test_a_run_that_stopped_early_stays_stopped(compose_small: Compose):
    settings = (
        "model=do", "callbacks=early_stopping",
        "callbacks.early_stopping.patience=1", "+callbacks.early_stopping.min_delta=1e9",
    )  # fmt: skip
    assert train(compose_small(*settings, "trainer.max_epochs=5"))["epochs"] == 2
    assert train(compose_small(*settings, "trainer.max_epochs=9", "resume=true"))["epochs"] == 2


def test_a_drawn_seed_is_on_record_and_stays(compose_small: Compose, tmp_path: Path):
    run = Run(tmp_path / "run")
    train(compose_small("model=do", "seed=null", "trainer.max_epochs=1"))
    seed = Run(run.folder).config.seed
    assert seed == run.config.data.shuffle_seed
    changed_run(compose_small, "seed=null")
    assert Run(run.folder).config.seed == seed
