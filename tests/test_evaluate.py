"""The command from end to end: tables, figures, W&B, taking up again, and refusals."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import Compose, composed
from hydra.core.global_hydra import GlobalHydra
from matplotlib.figure import Figure
from omegaconf import DictConfig, OmegaConf
from wandb_records import records

from sparse_lightning.checkpoint_format import FORMAT_KEY
from sparse_lightning.config import CONFIG_DIR
from sparse_lightning.errors import CheckpointError, DataError, NoModelsError, SettingError
from sparse_lightning.evaluate import evaluate, main
from sparse_lightning.experiments import fingerprint
from sparse_lightning.experiments.runs import Run, record_settings
from sparse_lightning.files import write_json
from sparse_lightning.studies.evaluation import draw
from sparse_lightning.studies.shared_data import shared_data
from sparse_lightning.studies.study_result import StudyResult
from sparse_lightning.studies.trained_models import TrainedModel, find_trained_models
from sparse_lightning.train import train

# Of what they refuse of these runs.
REFUSING = {
    "recovery": "data whose atoms are known",
    "settings": "differ in the seed alone",
    "stability": "compares seeds",
}
STUDIES = sorted(path.stem for path in (CONFIG_DIR / "study").glob("*.yaml"))
SMALL = {
    "regret": [
        "study.compute.num_images=60", "study.compute.at_zeros=[0.5]",
        "study.compute.classics=null", "study.compute.most_pursued=0",
    ],
    "denoising": ["study.compute.num_images=30", "study.compute.num_peer_images=2"],
    "features": ["study.compute.gabors=false"],
    "low_data": [
        "study.compute.labels_per_class=[1,2]", "study.compute.num_draws=[1,1]",
        "study.compute.pca_dim=8", "study.compute.lista.steps=5",
        "study.compute.inverse_penalties=[0.1]",
    ],
}  # fmt: skip

Evaluated = Callable[..., DictConfig]


@pytest.fixture(scope="module")
def sweep(mnist_root: Path, tmp_path_factory) -> Path:
    """Two finished runs of the smallest size, SDL and DO-NL, and one that is not finished."""
    folder = tmp_path_factory.mktemp("sweep")
    for family in ("sdl", "do_nl"):
        config = composed(
            "train", f"model={family}", "trainer=cpu", "trainer.enable_progress_bar=false",
            "trainer.max_epochs=1", "logger=none", f"data.root={mnist_root}", "data.num_train=200",
            "data.num_val=100", "data.num_test=100", "data.batch_size=50", "code_dim=16",
            "hidden_dim=24", "sparsity_level=3", "solver.max_iterations=10", "~callbacks.figures",
            "data_name=mnist", run_dir=folder / family,
        )  # fmt: skip
        torch.manual_seed(0)
        train(config)
    shutil.copytree(folder / "sdl", folder / "unfinished")
    (folder / "unfinished" / "metrics.json").unlink()
    GlobalHydra.instance().clear()
    return folder


@pytest.fixture
def compose_study(tmp_path: Path) -> Evaluated:
    """Compose ``evaluate.yaml`` with overrides into ``tmp_path``."""

    def compose(study: str, *overrides: str, run_dir: Path = tmp_path / "study") -> DictConfig:
        given = (f"study={study}", *SMALL.get(study, []), *overrides)
        return composed("evaluate", *given, run_dir=run_dir)

    return compose


@pytest.mark.parametrize("study", STUDIES)
def test_every_study_leaves_tables_and_figures(study, compose_study, sweep: Path, tmp_path: Path):
    overrides = [] if study == "hinge_surface" else [f"runs={sweep}"]
    config = compose_study(study, *overrides)
    if study in REFUSING:
        with pytest.raises(SettingError, match=REFUSING[study]):
            evaluate(config)
        return
    result = evaluate(config)
    table = pd.read_csv(tmp_path / "study" / "table.csv")
    assert len(table) == len(result.table) > 0
    if study != "hinge_surface":
        expected = {"sdl"} if study == "filters" else {"sdl", "do_nl"}  # DO-NL has no encoder.
        assert set(table["family"].dropna()) == expected
    drawn = {path.stem for path in (tmp_path / "study").glob("*.png")}
    assert drawn
    # What was written says all that the figures show, and each says of which data.
    figures = dict(draw(config, StudyResult.read(tmp_path / "study")))
    assert set(figures) == drawn
    if study != "hinge_surface":
        for name, figure in figures.items():
            titles = [figure.get_suptitle(), *(axes.get_title() for axes in figure.axes)]
            assert any("MNIST" in title for title in titles), name


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("at_zeros=0.9", r"at_zeros=0\.9 must be a list, such as \[0\.9\]"),
        ("num_components=4", r"num_components=4 must be a list"),
        ("at_zeros=[0.9,95]", r"at_zeros=\[0\.9,95\] must each be a share from 0 to below 1"),
        ("at_zeros=[1.0]", r"must each be a share from 0 to below 1"),
        ("num_components=[]", r"num_components=\[\] must not be empty"),
        ("num_images=0", r"num_images=0 must be a whole number of at least 1"),
    ],
)
def test_settings_that_are_no_shares_or_no_list_are_named(compose_study, sweep: Path, given, told):
    with pytest.raises(SettingError, match=told):
        evaluate(compose_study("regret", f"runs={sweep}", f"study.compute.{given}"))


def test_runs_that_have_not_ended_are_told_of(sweep: Path):
    with pytest.raises(NoModelsError, match="holds no finished run: 1 have not ended"):
        find_trained_models(runs=sweep / "unfinished")


def test_a_checkpoint_alone_or_several(compose_study, sweep: Path):
    best = [sweep / family / "checkpoints" / "best.ckpt" for family in ("sdl", "do_nl")]
    one = evaluate(compose_study("regret", f"checkpoint={best[0]}"))
    assert one.table["family"].unique().tolist() == ["sdl"]
    two = evaluate(compose_study("regret", f"checkpoint=[{best[0]},{best[1]}]"))
    assert set(two.table["family"]) == {"sdl", "do_nl"}
    kept = evaluate(compose_study("regret", f"runs={sweep}", "where.family=[do_nl]"))
    assert set(kept.table["family"]) == {"do_nl"}


def test_values_to_keep_may_differ_between_families(sweep: Path):
    own = {
        t.columns["family"]: t.columns["sparsity_weight"] for t in find_trained_models(runs=sweep)
    }
    kept = find_trained_models(runs=sweep, where={"sparsity_weight": {"sdl": [own["sdl"]]}})
    assert {t.columns["family"] for t in kept} == {"sdl", "do_nl"}
    kept = find_trained_models(runs=sweep, where={"sparsity_weight": {"sdl": [7.0]}})
    assert {t.columns["family"] for t in kept} == {"do_nl"}
    with pytest.raises(
        SettingError, match=r"where\.sparsity_weight=\{'sdl': \[7\.0\], .* leaves no"
    ):
        find_trained_models(runs=sweep, where={"sparsity_weight": {"sdl": [7.0], "do_nl": [7.0]}})


def test_what_is_known_is_not_computed_again(compose_study, sweep: Path, monkeypatch):
    config = compose_study("regret", f"runs={sweep}")
    first = evaluate(config)

    def computed_again(*args, **kwargs):
        raise AssertionError("this was known")

    monkeypatch.setattr("sparse_lightning.studies.regret._measure", computed_again)
    pd.testing.assert_frame_equal(evaluate(config).table, first.table)
    with pytest.raises(AssertionError, match="this was known"):
        evaluate(compose_study("regret", f"runs={sweep}", "study.compute.num_images=50"))


def changed_copy(run: Path, folder: Path, **settings: object) -> None:
    """The run as one of other settings."""
    shutil.copytree(run, folder)
    config = OmegaConf.load(folder / "config.yaml")
    for name, value in settings.items():
        OmegaConf.update(config, name, value)
    OmegaConf.save(config, folder / "config.yaml")


MEASURED = set(STUDIES) - {*REFUSING, "activating", "hinge_surface"} | {"settings"}


@pytest.mark.parametrize("study", sorted(MEASURED))
def test_a_model_that_was_measured_counts_without_its_weights(
    study, compose_study, sweep: Path, tmp_path: Path
):
    trained = tmp_path / "trained"
    shutil.copytree(sweep, trained)
    folder = tmp_path / "study"
    if study == "settings":  # It compares models of one family.
        changed = {"model.energy.variance_weight": 3.0, "data.root": "elsewhere"}
        changed_copy(sweep / "sdl", trained / "other", **changed)
    first = evaluate(compose_study(study, f"runs={trained}"))
    # Where the digits are is no setting.
    assert "data.root" not in first.table
    for path in {*trained.rglob("*.ckpt"), *folder.rglob("*.npy"), *folder.glob("*.*")}:
        path.unlink()
    without = evaluate(compose_study(study, f"runs={trained}"))
    for name, table in first.tables.items():
        pd.testing.assert_frame_equal(table, without.tables[name])
    assert without.pictures is None
    assert len(dict(draw(compose_study(study), without))) > 0


def test_a_model_without_weights_that_was_never_measured_is_refused(
    compose_study, sweep: Path, tmp_path: Path
):
    shutil.copytree(sweep, trained := tmp_path / "trained")
    shutil.rmtree(trained / "sdl" / "checkpoints")
    with pytest.raises(CheckpointError, match=r"sdl/checkpoints/best\.ckpt"):
        evaluate(compose_study("rate", f"runs={trained}"))


def test_a_model_without_weights_is_left_out_where_it_was_not_measured(
    compose_study, sweep: Path, tmp_path: Path
):
    shutil.copytree(sweep, trained := tmp_path / "trained")
    evaluate(compose_study("rate", f"runs={trained}"))
    (trained / "sdl" / "checkpoints" / "best.ckpt").unlink()
    others = [f"runs={trained}", "study.compute.steps=[0.3]"]
    expected = r"sdl/checkpoints/best\.ckpt is gone, and this study has not measured its model"
    with pytest.warns(UserWarning, match=expected):
        kept = evaluate(compose_study("rate", *others))
    assert set(kept.table["family"]) == {"do_nl"}
    with pytest.raises(NoModelsError, match=expected):
        evaluate(compose_study("rate", *others, "where.family=[sdl]"))


@pytest.fixture
def noted(sweep: Path, tmp_path: Path) -> Run:
    """A finished run whose model has been studied."""
    run = Run(tmp_path / "noted")
    shutil.copytree(sweep / "sdl", run.folder)
    find_trained_models(runs=str(run.folder))
    return run


@pytest.mark.parametrize("content", ["{", "[]", "3", '{"digest": "a"}'])
def test_a_damaged_note_is_refused(content, noted: Run):
    note = noted.folder / "checkpoints" / "best.json"
    note.write_text(content)
    # What it says does not matter while the weights are there.
    assert find_trained_models(runs=str(noted.folder))[0].columns["family"] == "sdl"
    note.write_text(content)
    noted.best_checkpoint.unlink()
    with pytest.raises(CheckpointError, match=r"best\.json is damaged .*: put .*best\.ckpt back"):
        find_trained_models(runs=str(noted.folder))


def test_a_note_is_of_the_results_that_it_was_written_with(noted: Run):
    results = noted.results
    noted.best_checkpoint.unlink()
    find_trained_models(runs=str(noted.folder))
    noted.replace_results(results | {"epochs": 2, "max_epochs": 2})
    expected = r"best\.json is of another model than .*metrics\.json.*: put .*best\.ckpt back"
    with pytest.raises(CheckpointError, match=expected):
        find_trained_models(runs=str(noted.folder))


def test_a_run_has_one_note_whatever_its_checkpoint_is_called(noted: Run):
    (before,) = find_trained_models(runs=str(noted.folder))
    noted.keep_results()
    (extended,) = find_trained_models(runs=str(noted.folder))
    assert (before.checkpoint.name, extended.checkpoint.name) == ("best.ckpt", "finished.ckpt")
    folder = noted.folder / "checkpoints"
    assert [path.name for path in folder.glob("*.json")] == ["best.json"]
    for path in (before.checkpoint, extended.checkpoint):
        path.unlink()
    (alone,) = find_trained_models(runs=str(noted.folder))
    assert (alone.digest, alone.columns) == (before.digest, before.columns)


def test_a_checkpoint_that_is_given_by_name_writes_no_note(noted: Run):
    folder = noted.folder / "checkpoints"
    shutil.copy(noted.best_checkpoint, folder / "last.ckpt")
    for name in ("best", "last"):
        (folder / f"{name}.json").write_text("mine")
        (found,) = find_trained_models(checkpoint=str(folder / f"{name}.ckpt"))
        assert found.columns["family"] == "sdl"
        assert (folder / f"{name}.json").read_text() == "mine"


def test_figures_that_are_drawn_no_more_do_not_stay(compose_study, tmp_path: Path, monkeypatch):
    names = ["a", "b"]
    monkeypatch.setattr(
        "sparse_lightning.studies.evaluation.draw",
        lambda config, result: ((name, Figure()) for name in names),
    )
    evaluate(compose_study("hinge_surface"))
    (tmp_path / "study" / "mine.png").touch()
    names.remove("b")
    evaluate(compose_study("hinge_surface"))
    assert {path.stem for path in (tmp_path / "study").glob("*.png")} == {"a", "mine"}


def test_wandb_gets_tables_and_images(compose_study, tmp_path: Path):
    evaluate(compose_study("hinge_surface", "logger=wandb"))
    written = records(tmp_path / "study")
    run = next(record.run for record in written if record.HasField("run"))
    assert (run.job_type, list(run.tags)) == ("study", ["hinge_surface"])
    keys = {
        item.key or "/".join(item.nested_key) for record in written for item in record.history.item
    }
    assert any(key.startswith("hinge_surface/table") for key in keys)
    assert any(key.startswith("hinge_surface/hinge_gradient") for key in keys)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], "set either checkpoint=PATH"),
        (["runs=/nowhere"], "runs=/nowhere is no folder"),
        (["runs={sweep}", "where.family=[vdl]"], r"where.family=\['vdl'\] leaves no model"),
        (["runs={sweep}", "checkpoint=a.ckpt"], "set either checkpoint=PATH"),
    ],
)
def test_a_mistake_gets_one_sentence(overrides, expected, compose_study, sweep: Path):
    with pytest.raises(SettingError, match=expected):
        evaluate(compose_study("regret", *(text.format(sweep=sweep) for text in overrides)))


def test_a_command_without_models_says_so_by_its_exit_code(sweep: Path, tmp_path, monkeypatch):
    words = ["study=regret", f"runs={sweep}", "where.family=[vdl]", f"hydra.run.dir={tmp_path}"]
    monkeypatch.setattr(sys, "argv", ["evaluate", *words])
    GlobalHydra.instance().clear()
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == NoModelsError.exit_code


def test_mixed_data_are_refused(compose_study, sweep: Path, tmp_path: Path):
    shutil.copytree(sweep / "sdl", tmp_path / "runs" / "a")
    shutil.copytree(sweep / "do_nl", tmp_path / "runs" / "b")
    config = tmp_path / "runs" / "b" / "config.yaml"
    config.write_text(config.read_text().replace("split_seed: 0", "split_seed: 5"))
    with pytest.raises(SettingError, match=r"different data \(data.split_seed\)"):
        evaluate(compose_study("regret", f"runs={tmp_path / 'runs'}"))
    # Where the digits are, and how they are cut into batches, does not matter.
    moved = OmegaConf.load(config)
    moved.data.update(split_seed=0, batch_size=9, root="elsewhere")
    OmegaConf.save(moved, config)
    evaluate(compose_study("regret", f"runs={tmp_path / 'runs'}"))


def test_photographs_of_another_folder_are_other_data(compose: Compose, tmp_path: Path):
    trained_models = []
    for root in ("one", "two"):
        record_settings(compose("data=imagenet_patches", f"data.root={root}"), tmp_path / root)
        trained_models.append(TrainedModel(Run(tmp_path / root), tmp_path))
    with pytest.raises(SettingError, match=r"different data \(data.root\)"):
        shared_data(trained_models)


@pytest.mark.parametrize(
    ("setting", "value", "expected"),
    [
        ("model.energy.variance_weight", 3.0, r"differ in model.energy.variance_weight"),
        ("trainer.max_epochs", 7, r"differ in trainer.max_epochs \(1 and 7\)"),
        ("seed", 31, "have one family, λ and seed: give one of them"),
    ],
)
def test_models_that_are_no_seeds_of_one_another_are_refused(
    setting, value, expected, compose_study, sweep: Path, tmp_path: Path
):
    for name in "ab":
        shutil.copytree(sweep / "sdl", tmp_path / "runs" / name)
    path = tmp_path / "runs" / "b" / "config.yaml"
    config = OmegaConf.load(path)
    OmegaConf.update(config, setting, value)
    OmegaConf.save(config, path)
    if setting == "trainer.max_epochs":
        results = path.with_name("metrics.json")
        results.write_text(json.dumps(json.loads(results.read_text()) | {"max_epochs": value}))
    with pytest.raises(SettingError, match=expected):
        evaluate(compose_study("regret", f"runs={tmp_path / 'runs'}"))
    if setting == "trainer.max_epochs":
        kept = evaluate(
            compose_study("regret", f"runs={tmp_path / 'runs'}", "where.max_epochs=[7]")
        )
        assert set(kept.table["run"]) == {str(path.parent)}


def test_seeds_of_one_model_are_taken_together(compose_study, sweep: Path, tmp_path: Path):
    for seed in (31, 32):
        shutil.copytree(sweep / "sdl", tmp_path / "runs" / str(seed))
        path = tmp_path / "runs" / str(seed) / "config.yaml"
        config = OmegaConf.load(path)
        config.seed = config.data.shuffle_seed = seed
        OmegaConf.save(config, path)
    result = evaluate(compose_study("regret", f"runs={tmp_path / 'runs'}"))
    assert set(result.more["amortisation"]["seeds"]) == {2}
    pair = evaluate(
        compose_study("stability", f"runs={tmp_path / 'runs'}", run_dir=tmp_path / "stability")
    )
    # One model under two names agrees with itself.
    assert pair.table["mean_cosine"].tolist() == [pytest.approx(1.0)]
    assert (tmp_path / "stability" / "stability.png").is_file()


def test_an_older_record_is_of_the_same_model_and_data(
    compose_study, sweep: Path, tmp_path: Path, monkeypatch
):
    added = {"data.split_seed": 0, "model.energy.variance_threshold": 0.5}
    for seed in (31, 32):
        shutil.copytree(sweep / "sdl", tmp_path / "runs" / str(seed))
        path = tmp_path / "runs" / str(seed) / "config.yaml"
        config = OmegaConf.load(path)
        config.seed = config.data.shuffle_seed = seed
        if seed == 31:
            del config.data["split_seed"], config.model.energy["variance_threshold"]
        OmegaConf.save(config, path)
    study = compose_study("regret", f"runs={tmp_path / 'runs'}")
    with pytest.raises(SettingError, match=r"differ in data.split_seed \(None and 0\)"):
        evaluate(study)
    monkeypatch.setattr(fingerprint, "ADDED", added)
    assert set(evaluate(study).more["amortisation"]["seeds"]) == {2}


def test_data_can_be_chosen_and_must_fit(compose_study, sweep: Path, mnist_root: Path):
    chosen = ["data=mnist", f"data.root={mnist_root}", "data.num_test=50"]
    evaluate(compose_study("regret", f"runs={sweep}", *chosen))
    with pytest.raises(SettingError, match="takes inputs of 784 values, and the data have 100"):
        evaluate(
            compose_study("regret", f"runs={sweep}", "data=imagenet_patches", "data.patch_size=10")
        )


def test_tables_name_the_data_that_were_measured(compose_study, sweep: Path, tmp_path: Path):
    np.save(tmp_path / "rows.npy", np.random.default_rng(0).normal(size=(90, 784)))
    other = ["data=arrays", f"data.path={tmp_path / 'rows.npy'}", "data.batch_size=50"]
    config = compose_study("regret", f"runs={sweep}", *other)
    trained = TrainedModel(Run(sweep / "sdl"), Run(sweep / "sdl").best_checkpoint)
    assert trained.columns["data"] == "MNIST"
    data = shared_data([trained], config.data)
    assert trained.columns["data"] == data.title == "rows"


def test_a_run_that_was_stopped_early_has_the_epochs_that_it_did(sweep: Path, tmp_path: Path):
    shutil.copytree(sweep / "sdl", tmp_path / "sdl")
    path = tmp_path / "sdl" / "metrics.json"
    write_json(path, json.loads(path.read_text()) | {"epochs": 60, "max_epochs": 200})
    (trained,) = find_trained_models(runs=str(tmp_path), where={"max_epochs": [200]})
    assert (trained.columns["epochs"], trained.columns["max_epochs"]) == (60, 200)


def test_data_of_another_package_are_only_used_when_asked_for(
    compose_study, sweep: Path, mnist_root: Path, tmp_path: Path
):
    shutil.copytree(sweep / "sdl", tmp_path / "run")
    path = tmp_path / "run" / "config.yaml"
    path.write_text(path.read_text().replace("sparse_lightning.data.mnist.MNIST", "theirs.Digits"))
    with pytest.raises(DataError, match=r"data of another package \(theirs.Digits\).*set data="):
        evaluate(compose_study("regret", f"runs={tmp_path / 'run'}"))
    chosen = ["data=mnist", f"data.root={mnist_root}", "data.num_test=50"]
    evaluate(compose_study("regret", f"runs={tmp_path / 'run'}", *chosen))


def test_a_checkpoint_of_another_version_is_refused(compose_study, sweep: Path, tmp_path: Path):
    shutil.copytree(sweep / "sdl", tmp_path / "later")
    path = tmp_path / "later" / "checkpoints" / "best.ckpt"
    contents = torch.load(path, weights_only=True)
    assert contents[FORMAT_KEY] == 1
    torch.save(contents | {FORMAT_KEY: 7}, path)
    with pytest.raises(CheckpointError, match=r"another version .* \(its format is 7"):
        evaluate(compose_study("regret", f"checkpoint={path}"))
    contents["hyper_parameters"]["solver"]["warmth"] = 3.0
    torch.save(contents, path)
    with pytest.raises(CheckpointError, match="settings that this version does not know"):
        evaluate(compose_study("regret", f"checkpoint={path}"))
    shutil.move(path, tmp_path / "alone.ckpt")
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        evaluate(compose_study("regret", f"checkpoint={path}"))


def test_a_checkpoint_without_its_run_is_refused(compose_study, sweep: Path, tmp_path: Path):
    (tmp_path / "x" / "checkpoints").mkdir(parents=True)
    path = tmp_path / "x" / "checkpoints" / "best.ckpt"
    shutil.copy(sweep / "sdl" / "checkpoints" / "best.ckpt", path)
    with pytest.raises(CheckpointError, match=r"best\.ckpt lies in no folder of a run"):
        evaluate(compose_study("regret", f"checkpoint={path}"))


def test_training_configurations_know_the_tags_of_the_logger(compose: Compose):
    config = compose("model=vdl", "logger=wandb")
    assert (config.job_type, list(config.logger.wandb.tags)) == ("train", ["vdl", "mnist"])
