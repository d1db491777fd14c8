"""Data from outside, end to end: arrays, image folders, data modules and loaders."""

from __future__ import annotations

import json
import re
from pathlib import Path

import lightning
import numpy as np
import pytest
import torch
from conftest import FAMILIES, Compose
from hydra.errors import InstantiationException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

from sparse_lightning.config import user_message
from sparse_lightning.data import cache, own
from sparse_lightning.data.arrays import Arrays
from sparse_lightning.data.image_folder import ImageFolder
from sparse_lightning.data.own import OwnData, data_of, input_dim_of
from sparse_lightning.decoders import LinearDecoder
from sparse_lightning.encoders import LISTA
from sparse_lightning.energy import Energy
from sparse_lightning.errors import DataError, InputError, SettingError
from sparse_lightning.experiments.runs import Run
from sparse_lightning.experiments.table import collect, summarize
from sparse_lightning.figures.regret import draw
from sparse_lightning.figures.sweep import regret_curve
from sparse_lightning.metrics import ExplainedVariance
from sparse_lightning.model import SparseAutoencoder
from sparse_lightning.optimizers import AdamSettings
from sparse_lightning.solvers import FISTA
from sparse_lightning.studies.ablation import ablation
from sparse_lightning.studies.denoising import denoising
from sparse_lightning.studies.features import features
from sparse_lightning.studies.regret import regret
from sparse_lightning.studies.result_cache import ResultCache
from sparse_lightning.studies.shared_data import shared_data
from sparse_lightning.studies.trained_models import find_trained_models
from sparse_lightning.train import train
from sparse_lightning.training import revive as module_of_revive

COUNT, DIM = 120, 6


def rows(seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    atoms = generator.normal(size=(10, DIM))
    codes = generator.exponential(size=(COUNT, 10)) * (generator.random((COUNT, 10)) < 0.3)
    return (5 + codes @ atoms).astype(np.float32)


class OwnModule(lightning.LightningDataModule):
    """Says nothing of itself."""

    def __init__(self, with_labels: bool = False) -> None:
        super().__init__()
        inputs = torch.from_numpy(rows()).reshape(COUNT, 2, 3)
        labels = [torch.arange(COUNT) % 3] if with_labels else []
        self.samples = TensorDataset(inputs, *labels)

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.samples, batch_size=30, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.samples, batch_size=30)

    test_dataloader = val_dataloader


class Staged(OwnModule):
    """Has the data of a stage once that is set up, as Lightning's documentation has it."""

    input_dim = DIM

    def __init__(self) -> None:
        super().__init__()
        self.prepared, self.stages = self.samples, []
        del self.samples

    def setup(self, stage: str) -> None:
        self.stages.append(stage)
        if stage == "fit":
            self.samples = self.prepared
        if stage == "test":
            self.tested = self.prepared

    def test_dataloader(self) -> DataLoader:
        return DataLoader(self.tested, batch_size=30)


class LateToKnow(OwnModule):
    """Knows its mean, and that its rows are images, once it has its data."""

    def setup(self, stage: str) -> None:
        self.image_shape, self.training_mean = (2, 3), torch.ones(DIM)


class WithoutItsFile(OwnModule):
    """Opens a file that is not there."""

    def __init__(self, path: str) -> None:
        Path(path).read_bytes()


class WithoutTest(OwnModule):
    """Leaves a loader to Lightning, which has none."""

    test_dataloader = lightning.LightningDataModule.test_dataloader


def small(path: Path, *overrides: str) -> list[str]:
    return [
        "data=arrays", f"data.path={path}", f"data.cache_dir={path.parent / 'cache'}",
        "data.batch_size=24", "trainer=cpu", "trainer.enable_progress_bar=false",
        "trainer.max_epochs=1", "logger=none", "hidden_dim=16", "solver.max_iterations=20",
        *overrides,
    ]  # fmt: skip


def explained(inputs: torch.Tensor, rebuilt: torch.Tensor, mean: torch.Tensor) -> float:
    return float(1 - (inputs - rebuilt).square().sum() / (inputs - mean).square().sum())


def test_explained_variance_is_the_formula_however_rows_are_cut():
    inputs, rebuilt = 100 + torch.randn(50, 5).double(), 100 + torch.randn(50, 5).double()
    metric = ExplainedVariance(5)
    metric.reference = torch.full((5,), 99.0)
    for part in (slice(0, 7), slice(7, 50)):
        metric.update(inputs[part], (inputs - rebuilt)[part].square().sum(1))
    found = {name: float(value) for name, value in metric.compute().items()}
    assert found["r2"] == pytest.approx(explained(inputs, rebuilt, metric.reference), rel=1e-9)
    error = float((inputs - rebuilt).norm() / inputs.norm())
    assert found["relative_error"] == pytest.approx(error, rel=1e-9)


@pytest.mark.filterwarnings("ignore:All validation codes are zero")
def test_an_array_becomes_a_regret_curve(compose: Compose, tmp_path: Path):
    np.save(tmp_path / "x.npy", rows())
    for level in (1, 4):
        settings = small(tmp_path / "x.npy", "model=sdl", f"sparsity_level={level}")
        config = compose(*settings, "data_name=arrays", run_dir=tmp_path / "runs" / str(level))
        results = train(config)
    assert "test/psnr" not in results
    run = Run(tmp_path / "runs" / "4")
    data, model = run.data(), run.model()
    data.setup()
    test = data.splits["test"].__getitems__(list(range(12)))
    with torch.no_grad():
        expected = explained(test.inputs, model(test.inputs), data.training_mean.float())
    assert results["test/r2"] == pytest.approx(expected, rel=1e-4)
    assert [path.name for path in (run.folder / "figures").glob("*.png")].count("codes.png") == 1
    assert (run.folder / "figures" / "atoms.png").exists()

    summary = summarize(collect(tmp_path / "runs"))
    assert regret_curve(summary).axes[0].get_ylabel() == "R²"
    trained = find_trained_models(runs=str(tmp_path / "runs"))
    shared = shared_data(trained)
    result = regret(trained, shared, ResultCache(), at_zeros=(0.5,), num_components=(0, 3, DIM))
    table = result.table.set_index(["sparsity_weight", "codes"])
    weight = model.energy.sparsity_weight
    assert table.loc[(weight, "encoder"), "r2"] == pytest.approx(expected, rel=1e-4)
    references = result.more["references"].set_index("components")["r2"]
    assert references[0] == pytest.approx(0, abs=1e-6)
    assert references[DIM] == pytest.approx(1, abs=1e-6)
    # Nothing stands at equal zeros: one point makes no curve.
    assert {"regret", "amortisation"} == set(dict(draw(result)))
    assert "r2" in ablation(trained).table
    for study, name in ((denoising, "denoising"), (features, "features")):
        with pytest.raises(SettingError, match=f"study={name} needs images, and x has none"):
            study(trained, shared, ResultCache())


def test_a_run_goes_on_with_its_own_data_alone(compose: Compose, tmp_path: Path):
    np.save(tmp_path / "x.npy", rows())
    settings = small(tmp_path / "x.npy", "model=vdl", "~callbacks.figures")
    train(compose(*settings))
    moved = tmp_path / "elsewhere.npy"
    (tmp_path / "x.npy").rename(moved)
    more = ("trainer.max_epochs=2", "resume=true")
    settings = [*small(moved, "model=vdl", "~callbacks.figures"), *more]
    assert train(compose(*settings))["epochs"] == 2
    np.save(moved, rows(seed=1))
    with pytest.raises(SettingError, match="not those that the run was trained on"):
        train(compose(*settings, "trainer.max_epochs=3"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:All validation codes are zero")
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_trains_on_an_array(family, compose: Compose, tmp_path: Path):
    np.save(tmp_path / "x.npy", rows())
    results = train(compose(*small(tmp_path / "x.npy", f"model={family}")))
    assert np.isfinite(results["test/r2"])


def own_model(encoder: bool = True) -> SparseAutoencoder:
    return SparseAutoencoder(
        LinearDecoder(8, DIM),
        LISTA(DIM, 8) if encoder else None,
        Energy(0.02, encoder_weight=float(encoder)),
        FISTA(0.3, 20),
        AdamSettings(1e-2, 1e-2),
    )


INPUTS = torch.from_numpy(rows())
LOADERS = {
    "tensors": DataLoader(INPUTS.double(), batch_size=30),
    "tuples": DataLoader(TensorDataset(INPUTS, torch.arange(COUNT)), batch_size=30),
    "images": DataLoader(TensorDataset(INPUTS.reshape(COUNT, 1, 2, 3)), batch_size=30),
}


def plain_trainer(**settings) -> lightning.Trainer:
    return lightning.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False,
        enable_model_summary=False, **settings,
    )  # fmt: skip


@pytest.mark.parametrize("name", LOADERS)
def test_any_loader_trains_with_a_plain_trainer(name, tmp_path: Path):
    model, trainer = own_model(name != "images"), plain_trainer(max_epochs=1)
    trainer.fit(model, LOADERS[name], LOADERS[name])
    torch.testing.assert_close(model.training_mean, INPUTS.double().mean(0))
    with torch.no_grad():
        expected = explained(INPUTS, model(INPUTS), INPUTS.mean(0))
    assert float(trainer.callback_metrics["val/r2"]) == pytest.approx(expected, rel=1e-3)
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    again = SparseAutoencoder.load_from_checkpoint(tmp_path / "x.ckpt")
    assert torch.equal(again.training_mean, model.training_mean)


def test_testing_alone_takes_the_mean_of_the_training_data():
    model, data = own_model(), OwnData(OwnModule())
    data.training_mean = INPUTS.mean(0) + 1
    plain_trainer().test(model, datamodule=data)
    assert torch.equal(model.training_mean, data.training_mean)


def test_batches_that_are_no_inputs_are_refused():
    for batch, told in (
        ({"x": INPUTS}, "kind dict with the keys x is no input"),
        ([INPUTS.numpy()], "kind list is no input"),
        (INPUTS.long(), r"kind torch\.int64"),
        (INPUTS[:, :4], "do not fit LinearDecoder"),
    ):
        with pytest.raises(InputError, match=told):
            own_model().training_step(batch, 0)


def test_a_data_module_of_ones_own_trains_and_is_studied(compose: Compose, tmp_path: Path):
    outside = tmp_path / "conf" / "data"
    outside.mkdir(parents=True)
    (outside / "mine.yaml").write_text("_target_: test_own.OwnModule\n")
    settings = small(tmp_path / "x.npy")[3:]
    settings = [s for s in settings if not s.startswith("data.")]
    config = compose(
        f"hydra.searchpath=[file://{tmp_path / 'conf'}]", "data=mine", "model=do", "data_name=mine",
        "model.energy.sparsity_weight=0.01", *settings,
    )  # fmt: skip
    assert config.model.decoder.input_dim == DIM
    results = train(config)
    assert np.isfinite(results["test/r2"])
    trained = find_trained_models(runs=str(tmp_path / "run"))
    with pytest.raises(DataError, match="names data of another package"):
        shared_data(trained)
    data = shared_data(trained, config.data)
    assert data.title == "OwnModule"
    table = regret(trained, data, ResultCache(), num_components=(0,)).table
    assert table["r2"][0] == pytest.approx(results["test/r2"], rel=1e-3)
    # A second fit of the adopted module sees equal splits, although its loader shuffles.
    other = OwnData(OwnModule())
    first, second = (d.splits["train"].__getitems__([0, 5]).inputs for d in (data, other))
    assert torch.equal(first, second)


def test_a_split_is_set_up_with_its_own_stage_and_once():
    data = OwnData(Staged())
    # As a study does.
    data.setup("test")
    assert data.fingerprint()
    assert {len(split) for split in data.splits.values()} == {COUNT}
    assert data.inner.stages == ["test", "fit"]


def test_atoms_are_revived_by_data_of_ones_own(compose: Compose, tmp_path: Path, monkeypatch):
    settings = [s for s in small(tmp_path / "x.npy")[3:] if not s.startswith("data.")]
    config = compose(
        "data=arrays", f"data.path={tmp_path / 'x.npy'}", "model=sdl", "callbacks=revive",
        "data_name=mine", "code_dim=12", "model.energy.sparsity_weight=0.01", *settings,
        "trainer.max_epochs=2",
    )  # fmt: skip
    monkeypatch.setattr(module_of_revive, "dead_units", lambda model: [1, 4])
    revived = []
    revive = module_of_revive.revive
    monkeypatch.setattr(
        module_of_revive, "revive", lambda *args: (revived.append(args[3].shape), revive(*args))
    )
    for with_labels in (False, True):
        config.data = {"_target_": "test_own.OwnModule", "with_labels": with_labels}
        config.model.decoder.input_dim = config.model.encoder.input_dim = DIM
        config.run_dir = str(tmp_path / f"run {with_labels}")
        train(config)
    assert revived == [(2, DIM)] * 2


def test_what_cannot_be_data_is_refused():
    for target in ("no_such_package.Data", None):
        with pytest.raises(SettingError, match=f"data._target_={target} cannot be imported"):
            input_dim_of(OmegaConf.create({"_target_": target}))
    with pytest.raises(SettingError, match="gives a Fraction, which is no LightningDataModule"):
        data_of(OmegaConf.create({"_target_": "fractions.Fraction"}))
    with pytest.raises(SettingError, match=r"data\.path=null: set data\.path"):
        input_dim_of(
            OmegaConf.create(
                {"_target_": "sparse_lightning.data.arrays.Arrays", "path": None, "cache_dir": "x"}
            )
        )


def test_what_a_module_raises_while_it_is_made_is_told_in_a_sentence():
    config = OmegaConf.create(
        {
            "data": {"_target_": "test_own.WithoutItsFile", "path": "gone"},
            "input_dim": "${input_dim:}",
        }
    )
    told = r"data\._target_=test_own\.WithoutItsFile cannot be made \(FileNotFoundError: .*'gone'\)"
    for made in (data_of, input_dim_of):
        with pytest.raises(SettingError, match=rf"{told}: .*\(data\.path=gone\)"):
            made(config.data)
    with pytest.raises(OmegaConfBaseException) as refused:
        OmegaConf.to_container(config, resolve=True)
    assert re.fullmatch(rf"{told}: .*\.", user_message(refused.value, "train"))


def test_a_module_without_a_loader_is_refused_before_it_is_used():
    told = "WithoutTest, a data module of your own, does not define test_dataloader: "
    with pytest.raises(SettingError, match=told):
        data_of(OmegaConf.create({"_target_": "test_own.WithoutTest"}))
    with pytest.raises(SettingError, match="train_dataloader and val_dataloader and test_dataload"):
        OwnData(lightning.LightningDataModule())
    loaders = {f"{split}_dataset": TensorDataset(INPUTS) for split in ("train", "val", "test")}
    OwnData(lightning.LightningDataModule.from_datasets(**loaders))


def test_a_module_of_ones_own_is_made_once_for_its_size(monkeypatch):
    monkeypatch.setattr(own, "_INPUT_DIMS", {})
    made = []
    init = OwnModule.__init__
    monkeypatch.setattr(
        OwnModule, "__init__", lambda self, **kwargs: (made.append(1), init(self, **kwargs))[1]
    )
    settings = {"_target_": "test_own.OwnModule", "with_labels": "${labels}"}
    for labels, count in ((True, 1), (True, 1), (False, 2)):
        config = OmegaConf.create({"labels": labels, "data": settings})
        assert input_dim_of(config.data) == DIM
        assert len(made) == count


def test_a_file_is_opened_for_its_size_once_until_it_changes(monkeypatch, tmp_path: Path):
    opened, size_of = [], Arrays.input_dim.fget
    monkeypatch.setattr(Arrays, "input_dim", property(lambda s: opened.append(1) or size_of(s)))
    target = "sparse_lightning.data.arrays.Arrays"
    for path in (tmp_path / "x.npy", tmp_path):
        opened.clear()
        settings = OmegaConf.create({"_target_": target, "path": str(path), "cache_dir": "x"})
        for dim, count in ((3, 1), (3, 1), (4, 2)):
            if count > len(opened):
                np.save(tmp_path / "x.npy", np.zeros((5, dim)))
            assert input_dim_of(settings) == dim
            assert len(opened) == count


@pytest.mark.filterwarnings("ignore:The number of training batches")
def test_the_page_about_loaders_runs_as_it_stands(tmp_path: Path, monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "own_data.md").read_text()
    (program,) = re.findall(r"```python\n(import lightning.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    found: dict = {}
    exec(compile(program.replace("max_epochs=10", "max_epochs=1"), "own_data.md", "exec"), found)
    assert found["trainer"].global_step == 4


def test_a_record_makes_nothing(tmp_path: Path):
    """What is interpolated could be made: a folder from elsewhere must not say what."""
    text = "model: {decoder: {input_dim: '${input_dim:}'}}\ndata: {_target_: os.getcwd}\n"
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(DataError, match="settings that are not resolved"):
        _ = Run(tmp_path).config


@pytest.fixture
def images(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(20):
        pixels = generator.integers(0, 256, (14, 10 + number, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")
    (folder / "broken.png").write_bytes(b"no image")
    return folder


def folder_of(root: Path, **settings) -> ImageFolder:
    return ImageFolder(root, root.parent / "cache", batch_size=4, **settings)


def test_whole_images_are_those_of_pillow_in_colour_and_grey(images: Path):
    data = folder_of(images, size=10)
    data.setup()
    assert data.input_dim == 300
    batch = data.splits["test"].__getitems__([0, 1])
    names = json.loads((data._folder / "images.json").read_text())
    assert list(names["skipped"]) == ["broken.png"]
    for row, found in zip(data.splits["test"].order, batch.to_pixels(batch.inputs)):
        with Image.open(images / names["images"][row]) as image:
            width, height = image.size
            shorter = min(width, height)
            size = (10 * width // shorter, 10 * height // shorter)
            expected = np.asarray(image.resize(size, Image.Resampling.BILINEAR), float) / 255
        left, top = ((side - 10) // 2 for side in size)
        expected = expected[top : top + 10, left : left + 10].transpose(2, 0, 1)
        assert np.abs(found.numpy().reshape(3, 10, 10) - expected).max() < 0.02
    grey = folder_of(images, size=10, channels="grey")
    grey.setup()
    assert grey.splits["test"].__getitems__([0]).inputs.shape == (1, 100)


@pytest.mark.parametrize("crop", ["whole", "patch"])
def test_the_class_of_an_image_is_the_folder_that_it_is_in(crop, images: Path):
    for number, path in enumerate(sorted(images.glob("??.png"))):
        folder = images / ["owl", "cat", "cow/calf"][number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        path.rename(folder / path.name)
    data = folder_of(images, size=8, crop=crop, crops_per_image=2)
    data.setup()
    names = json.loads((data._folder / "images.json").read_text())["images"]
    of_row = np.load(data._folder / "image_of_row.npy")
    for samples in data.splits.values():
        labels = samples.__getitems__(list(range(len(samples)))).labels
        folders = [Path(names[of_row[row]]).parts[0] for row in samples.order]
        assert [["cat", "cow", "owl"][label] for label in labels] == folders
    (images / "owl").rename(images.parent / "owl")
    for path in (images.parent / "owl").glob("*.png"):
        path.rename(images / path.name)
    assert folder_of(images, size=8, crop=crop)._labels() == {}


def test_a_disk_has_room_for_one_copy_of_images(images: Path, monkeypatch):
    files = len(list(images.iterdir()))
    usage = type("Usage", (), {"free": files * 300 - 1})
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DataError, match=rf"cache_dir={images.parent / 'cache'} is on a disk with"):
        folder_of(images, size=10).setup()
    usage.free += 1
    folder_of(images, size=10).setup()


def test_whole_images_are_decoded_once_for_any_split(images: Path):
    for seed in (0, 1):
        data = folder_of(images, size=10, split_seed=seed)
        data.setup()
    assert len(list((images.parent / "cache").glob("images-*"))) == 1


def test_messages_name_the_folder_of_images(images: Path):
    with pytest.raises(SettingError, match=rf"^data\.root={images} gives"):
        folder_of(images, size=10, num_train=3).setup()


def test_patches_of_an_image_are_in_one_split(images: Path):
    data = folder_of(images, size=4, crop="patch", shorter_side=10, crops_per_image=3)
    data.setup()
    owners = data._groups()
    found = [set(owners[samples.order]) for samples in data.splits.values()]
    assert sum(map(len, found)) == len(set.union(*found)) == 20
    assert sum(map(len, data.splits.values())) == 60


def test_atoms_of_colour_images_are_drawn_in_colour(compose: Compose, images: Path, tmp_path: Path):
    settings = small(tmp_path / "x.npy")[3:]
    config = compose(
        "data=image_folder", f"data.root={images}", "data.size=4", "model=sdl",
        f"data.cache_dir={tmp_path / 'cache'}", *settings[1:], "data.batch_size=8",
    )  # fmt: skip
    results = train(config)
    assert "test/psnr" in results
    assert "test/r2" not in results
    drawn = np.asarray(Image.open(tmp_path / "run" / "figures" / "atoms.png").convert("RGB"))
    assert (drawn.max(-1).astype(int) - drawn.min(-1) > 30).any()


def test_folders_that_cannot_be_used(tmp_path: Path):
    for settings, told in (
        ({"size": 1}, r"data\.size=1"), ({"channels": "cmyk"}, "must be rgb or grey"),
        ({"crop": "no"}, "must be whole or patch"),
        ({"crop": "patch", "shorter_side": 3}, r"shorter_side=3 must be at least data\.size=32"),
    ):  # fmt: skip
        with pytest.raises(SettingError, match=told):
            folder_of(tmp_path, **settings)
    with pytest.raises((SettingError, InstantiationException), match=r"data\.root=null"):
        ImageFolder(None, tmp_path)


def test_what_a_module_knows_after_its_setup_is_taken():
    data = OwnData(LateToKnow())
    assert data.image_shape is None
    data.setup("fit")
    assert data.image_shape == (2, 3)
    assert torch.equal(data.training_mean, torch.ones(DIM))
