"""Codes on disk: those of the model, in whole shards, and none that are of something else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import lightning
import numpy as np
import pytest
import scipy.sparse
import torch
from conftest import composed as composed_by_hydra
from omegaconf import DictConfig, OmegaConf
from tiny_study import SIZE, TinyData
from torch.utils.data import DataLoader, TensorDataset

from sparse_lightning import registry
from sparse_lightning.code_files import ABOUT_FILE, CodeFiles, read_codes, read_rows
from sparse_lightning.data.own import data_of
from sparse_lightning.decoders import LinearDecoder
from sparse_lightning.encode import encode
from sparse_lightning.encoders import LISTA
from sparse_lightning.energy import Energy
from sparse_lightning.errors import CheckpointError, DataError, SettingError
from sparse_lightning.model import SparseAutoencoder
from sparse_lightning.optimizers import AdamSettings
from sparse_lightning.solvers import FISTA
from sparse_lightning.sparse_encoders import TopKEncoder
from sparse_lightning.studies.coding import all_inputs
from sparse_lightning.studies.shared_data import shared_data
from sparse_lightning.studies.trained_models import find_trained_models
from sparse_lightning.training_rules import EndToEnd


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Data of a user's own, as `imports` would make them known."""
    monkeypatch.setitem(registry.REGISTRY, "TinyData", TinyData)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's best model; its weights are as drawn."""
    folder = tmp_path_factory.mktemp("run")
    settings = {
        "seed": 0, "data_name": "tiny", "model": {"family": "vdl"}, "trainer": {"max_epochs": 1},
        "data": {"_target_": "tiny_study.TinyData", "count": 70},
    }  # fmt: skip
    OmegaConf.save(OmegaConf.create(settings), folder / "config.yaml")
    torch.manual_seed(0)
    model = SparseAutoencoder(
        LinearDecoder(12, SIZE**2),
        LISTA(SIZE**2, 12),
        Energy(0.01, 10.0, 0.5, 1.0),
        FISTA(0.5, max_iterations=20),
        AdamSettings(1e-3, 1e-3),
    )
    contents = {
        "hyper_parameters": dict(model.hparams), "state_dict": model.state_dict(), "epoch": 0,
        "pytorch-lightning_version": "2.6.6",
    }  # fmt: skip
    (folder / "checkpoints").mkdir()
    torch.save(contents, folder / "checkpoints" / "best.ckpt")
    return folder / "checkpoints" / "best.ckpt"


Composed = Callable[..., DictConfig]


@pytest.fixture
def composed(tmp_path: Path, checkpoint: Path) -> Composed:
    def compose(*overrides: str) -> DictConfig:
        given = (f"checkpoint={checkpoint}", f"output={tmp_path / 'codes'}", *overrides)
        return composed_by_hydra("encode", "shard_size=40", "device=cpu", *given)

    return compose


def expected(checkpoint: Path, split: str, shard_size: int, infer: bool) -> np.ndarray:
    """The codes, batch by batch of each shard."""
    (trained,) = find_trained_models(checkpoint=str(checkpoint))
    inputs = torch.from_numpy(all_inputs(shared_data([trained]), split))
    found = []
    for shard in inputs.split(shard_size):
        for batch in np.array_split(shard.numpy(), max(1, round(len(shard) / 25))):
            model = trained.model
            found.append(model.infer(batch).codes if infer else model.encode(batch).detach())
    return torch.cat(found).numpy()


@pytest.mark.parametrize(
    ("suffix", "layout", "kind"),
    [
        ("npz", "sparse", "encoder"),
        ("npz", "dense", "inference"),
        ("safetensors", "sparse", "inference"),
        ("safetensors", "dense", "encoder"),
    ],
)
def test_codes_are_those_of_the_model(suffix, layout, kind, composed, checkpoint, tmp_path: Path):
    files = encode(composed(f"format={suffix}", f"layout={layout}", f"codes={kind}"))
    shards = sorted(path.name for path in (tmp_path / "codes").glob(f"*.{suffix}"))
    assert shards == [
        *(f"test-0000{k}-of-00002.{suffix}" for k in range(2)),
        *(f"train-0000{k}-of-00002.{suffix}" for k in range(2)),
        *(f"val-0000{k}-of-00002.{suffix}" for k in range(2)),
    ]
    for split in ("train", "val", "test"):
        codes = read_codes(files.folder, split)
        assert codes.shape == (70, 12)
        assert codes.dtype == np.float32
        assert scipy.sparse.issparse(codes) == (layout == "sparse")
        whole = codes.toarray() if layout == "sparse" else codes
        np.testing.assert_array_equal(
            whole, expected(checkpoint, split, 40, kind == "inference"), strict=True
        )
        if layout == "sparse":
            assert codes.nnz == np.count_nonzero(whole) < whole.size
    if (suffix, layout) == ("npz", "sparse"):
        assert scipy.sparse.load_npz(files.folder / shards[0]).shape == (40, 12)


def test_only_what_is_missing_is_written_again(composed, tmp_path: Path, monkeypatch):
    config = composed("codes=inference")
    files = encode(config)
    before = {path: path.read_bytes() for path in files.folder.glob("*.npz")}
    codes = read_codes(files.folder, "train").toarray()
    gone = sorted(before)[2]
    gone.unlink()
    with pytest.raises(DataError, match=f"{gone.name} is missing"):
        read_codes(files.folder, "train")
    written = []
    write = CodeFiles.write
    monkeypatch.setattr(
        CodeFiles,
        "write",
        lambda self, path, codes: (written.append(path), write(self, path, codes)),
    )
    encode(config)
    assert written == [gone]
    np.testing.assert_array_equal(read_codes(files.folder, "train").toarray(), codes)


def test_a_shard_is_whole_or_not_there(composed, tmp_path: Path, monkeypatch):
    def power_cut(path, *args, **kwargs):
        Path(path).write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(scipy.sparse, "save_npz", power_cut)
        with pytest.raises(KeyboardInterrupt):
            encode(composed())
    assert list((tmp_path / "codes").glob("*.npz")) == []
    assert read_codes(encode(composed()).folder, "test").shape == (70, 12)


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        (["layout=thick"], SettingError, "layout=thick must be sparse or dense"),
        (["format=pickle"], SettingError, "format=pickle must be npz or safetensors"),
        (["codes=both"], SettingError, "codes=both must be encoder or inference or null"),
        (["shard_size=0"], SettingError, "shard_size=0 must be a whole number"),
        (["splits=[exam]"], SettingError, r"splits=\['exam'\] must be some of"),
        (["splits=[]"], SettingError, r"splits=\[\] must be some of"),
        (["device=toaster"], SettingError, "device=toaster is not here"),
        (["checkpoint=null"], SettingError, "set checkpoint=PATH"),
        (["checkpoint=nothing.ckpt"], CheckpointError, "no checkpoint at nothing.ckpt"),
    ],
)
def test_a_mistake_gets_one_sentence(overrides, error, message, composed):
    with pytest.raises(error, match=message):
        encode(composed(*overrides))


def test_codes_of_something_else_are_not_mixed_in(composed, tmp_path: Path):
    encode(composed("splits=[val]"))
    for change, name in {
        "layout=dense": "layout sparse",
        "codes=inference": "codes encoder",
    }.items():
        with pytest.raises(SettingError, match=rf"holds codes of something else \({name}\)"):
            encode(composed("splits=[val]", change))


def test_a_sweep_is_several_models(composed, checkpoint, tmp_path: Path):
    run = checkpoint.parent.parent
    for name in ("a", "b"):
        (tmp_path / "sweep" / name).mkdir(parents=True)
        shutil.copy(run / "config.yaml", tmp_path / "sweep" / name)
    (tmp_path / "sweep" / "b" / "checkpoints").mkdir()
    shutil.copy(checkpoint, tmp_path / "sweep" / "b" / "checkpoints")
    sweep = tmp_path / "sweep"
    told = rf"={sweep} is a folder of runs, 2 in all: give one of them, .*={sweep}/b\."
    with pytest.raises(SettingError, match=told):
        encode(composed(f"checkpoint={sweep}"))
    with pytest.raises(SettingError, match=told):
        find_trained_models(checkpoint=str(sweep))


def test_a_shared_model_takes_data_that_are_named(composed, checkpoint, tmp_path: Path):
    (trained,) = find_trained_models(checkpoint=str(checkpoint))
    trained.model.save_pretrained(tmp_path / "shared")
    shared = f"checkpoint={tmp_path / 'shared'}"
    with pytest.raises(SettingError, match="does not tell its data"):
        encode(composed(shared))
    encode(composed(shared, "+data._target_=tiny_study.TinyData", "+data.count=70"))
    np.testing.assert_array_equal(
        read_codes(tmp_path / "codes", "test").toarray(), expected(checkpoint, "test", 40, False)
    )


def test_codes_by_inference_are_refused_where_the_model_has_none(composed, tmp_path: Path):
    SparseAutoencoder(
        LinearDecoder(12, SIZE**2), TopKEncoder(SIZE**2, 12, 2), Energy(0.0), FISTA(0.5),
        AdamSettings(1e-3, 1e-3), training_rule=EndToEnd(),
    ).save_pretrained(tmp_path / "shared")  # fmt: skip
    of_shared = (f"checkpoint={tmp_path / 'shared'}", "+data._target_=tiny_study.TinyData")
    with pytest.raises(SettingError, match=r"codes=inference, .* by EndToEnd, .*codes=encoder"):
        encode(composed(*of_shared, "codes=inference"))


class OwnModule(lightning.LightningDataModule):
    """Says nothing of itself."""

    inputs = torch.randn(70, SIZE**2, generator=torch.Generator().manual_seed(0))

    def train_dataloader(self) -> DataLoader:
        return DataLoader(TensorDataset(self.inputs), batch_size=20)

    val_dataloader = test_dataloader = train_dataloader


def test_a_shared_model_takes_a_data_module_of_ones_own(composed, checkpoint, tmp_path: Path):
    (trained,) = find_trained_models(checkpoint=str(checkpoint))
    trained.model.save_pretrained(tmp_path / "shared")
    encode(composed(f"checkpoint={tmp_path / 'shared'}", "+data._target_=test_encode.OwnModule"))
    with torch.no_grad():
        codes = trained.model.encode(OwnModule.inputs)
    found = read_codes(tmp_path / "codes", "test").toarray()
    np.testing.assert_allclose(found, codes.numpy(), atol=1e-6)


def test_damaged_files_get_one_sentence(composed, tmp_path: Path):
    folder = encode(composed("splits=[val,test]")).folder
    with pytest.raises(DataError, match="no codes of split 'train'"):
        read_codes(folder, "train")
    path = folder / "val-00000-of-00002.npz"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match="is damaged"):
        read_codes(folder, "val")
    path.write_bytes(b"")
    with pytest.raises(DataError, match="is damaged"):
        read_codes(folder, "val")
    path.write_bytes((folder / "test-00001-of-00002.npz").read_bytes())
    with pytest.raises(DataError, match=r"its shape is \(30, 12\), not \(40, 12\)"):
        read_codes(folder, "val")
    shard = scipy.sparse.load_npz(folder / "test-00001-of-00002.npz")
    shard.indices[0] = 10_000
    scipy.sparse.save_npz(folder / "test-00001-of-00002.npz", shard)
    with pytest.raises(DataError, match="is damaged"):
        read_codes(folder, "test")
    about = json.loads((folder / ABOUT_FILE).read_text())
    for text in ("{", "[]", json.dumps(about | {"layout": "thick"})):
        (folder / ABOUT_FILE).write_text(text)
        with pytest.raises(DataError, match=ABOUT_FILE):
            read_codes(folder, "val")


def test_each_code_tells_its_row_of_the_file(composed, checkpoint, tmp_path: Path):
    rows = np.random.default_rng(0).normal(size=(300, SIZE**2)).astype(np.float32)
    np.save(tmp_path / "x.npy", rows)
    trained = find_trained_models(checkpoint=str(checkpoint))[0]
    trained.model.save_pretrained(tmp_path / "shared")
    config = composed(
        f"checkpoint={tmp_path / 'shared'}", "data=arrays", f"data.path={tmp_path / 'x.npy'}",
        "data.standardise=none", f"data.cache_dir={tmp_path}", "data.batch_size=50", "seed=0",
    )  # fmt: skip
    folder = encode(config).folder
    numbers = {split: read_rows(folder, split) for split in config.splits}
    assert sorted(np.concatenate([*numbers.values()])) == list(range(300))
    for split, own in numbers.items():
        expected = trained.model.encode(torch.from_numpy(rows[own])).detach().numpy()
        np.testing.assert_allclose(read_codes(folder, split).toarray(), expected, atol=1e-6)


def test_data_that_are_no_rows_of_a_file_have_no_numbers(composed, tmp_path: Path):
    with pytest.raises(DataError, match="only codes of data that are rows of"):
        read_rows(encode(composed()).folder, "test")


@pytest.fixture
def run_on_rows(checkpoint, tmp_path: Path) -> Path:
    """The model in a run on rows of a file, whose mean and deviation its checkpoint has."""
    rows = np.random.default_rng(0).normal(3, 2, (300, SIZE**2)).astype(np.float32)
    np.save(tmp_path / "x.npy", rows)
    settings = {
        "_target_": "sparse_lightning.data.arrays.Arrays", "path": str(tmp_path / "x.npy"),
        "cache_dir": str(tmp_path / "cache"), "batch_size": 50,
    }  # fmt: skip
    run = OmegaConf.load(checkpoint.parents[1] / "config.yaml")
    run.data_name, run.data = "arrays", settings
    data = data_of(OmegaConf.create(settings))
    data.setup()
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    OmegaConf.save(run, folder / "config.yaml")
    contents = torch.load(checkpoint, weights_only=True) | {"Arrays": data.state_dict()}
    torch.save(contents, folder / "checkpoints" / "best.ckpt")
    return folder / "checkpoints" / "best.ckpt"


@pytest.mark.parametrize("kind", ["run", "none", "shared"])
def test_other_rows_are_standardised_as_those_of_training(
    kind, run_on_rows: Path, composed, tmp_path: Path, capsys
):
    new = np.random.default_rng(1).normal(-5, 9, (200, SIZE**2)).astype(np.float32)
    np.save(tmp_path / "new.npy", new)
    model = find_trained_models(checkpoint=str(run_on_rows))[0].model
    named = tmp_path / "shared" if kind == "shared" else run_on_rows
    model.save_pretrained(tmp_path / "shared")
    folder = encode(
        composed(
            f"checkpoint={named}", "data=arrays", f"data.path={tmp_path / 'new.npy'}",
            f"data.cache_dir={tmp_path}", "data.batch_size=50", "seed=0",
            *(["data.standardise=none"] if kind == "none" else []),
        )
    ).folder  # fmt: skip
    state = torch.load(run_on_rows, weights_only=True)["Arrays"]
    train = new[read_rows(folder, "train")]
    mean, std, told = {
        "run": (state["mean"].numpy(), state["std"].numpy(), "by the checkpoint's mean"),
        "none": (0, 1, ""),
        "shared": (train.mean(0), train.std(0), "by their own mean"),
    }[kind]
    for split in ("train", "val", "test"):
        inputs = (new[read_rows(folder, split)] - mean) / std
        expected = model.encode(torch.from_numpy(inputs).float()).detach().numpy()
        np.testing.assert_allclose(read_codes(folder, split).toarray(), expected, atol=1e-4)
    shown = capsys.readouterr().out
    assert told in shown
    assert ("standardised" in shown) == bool(told)


@pytest.mark.parametrize("kind", ["training", "new", "shared"])
def test_all_rows_are_kept_together(kind, run_on_rows: Path, composed, tmp_path: Path, capsys):
    """In the order of their file, standardised as in training, however few they are."""
    state = torch.load(run_on_rows, weights_only=True)["Arrays"]
    mean, std = state["mean"].numpy(), state["std"].numpy()
    path = tmp_path / ("x.npy" if kind == "training" else "new.npy")
    np.save(tmp_path / "new.npy", np.random.default_rng(1).normal(size=(3, SIZE**2)))
    named, rows = run_on_rows, np.load(path)
    model = find_trained_models(checkpoint=str(run_on_rows))[0].model
    if kind == "shared":
        named, mean, std = tmp_path / "shared", rows.mean(0), rows.std(0)
        model.save_pretrained(named)
    other = ["data=arrays", f"data.path={path}", f"data.cache_dir={tmp_path}", "seed=0"]
    overrides = [f"checkpoint={named}", "splits=[all]", *(other if kind != "training" else [])]
    folder = encode(composed(*overrides)).folder
    expected = model.encode(torch.from_numpy((rows - mean) / std).float()).detach().numpy()
    np.testing.assert_allclose(read_codes(folder, "all").toarray(), expected, atol=1e-4)
    assert read_rows(folder, "all").tolist() == list(range(len(rows)))
    assert f"all {len(rows)} rows" in capsys.readouterr().out


def test_only_rows_of_a_file_can_be_kept_together(composed):
    with pytest.raises(SettingError, match=r"splits=\[all\] needs data=arrays or"):
        encode(composed("splits=[all]"))
    with pytest.raises(SettingError, match=r"must be some of .*, or \[all\]"):
        encode(composed("splits=[all,test]"))


def test_a_run_is_named_by_its_folder(run_on_rows: Path, composed, tmp_path: Path):
    of_file = encode(composed(f"checkpoint={run_on_rows}")).about
    of_run = encode(composed(f"checkpoint={tmp_path / 'run'}", f"output={tmp_path / 'again'}"))
    assert of_run.about == of_file
    (trained,) = find_trained_models(checkpoint=str(tmp_path / "run"))
    assert trained.checkpoint == run_on_rows


def test_a_checkpoint_that_is_in_no_run_is_refused_in_a_sentence(
    run_on_rows: Path, composed, tmp_path: Path
):
    (tmp_path / "copy.ckpt").write_bytes(run_on_rows.read_bytes())
    with pytest.raises(CheckpointError, match=r"copy\.ckpt lies in no folder of a run"):
        encode(composed(f"checkpoint={tmp_path / 'copy.ckpt'}"))


def test_files_that_have_changed_since_training_are_refused(
    run_on_rows: Path, composed, tmp_path: Path
):
    encode(composed(f"checkpoint={run_on_rows}"))
    rows = np.load(tmp_path / "x.npy")
    np.save(tmp_path / "x.npy", rows + 1)
    told = rf"was trained on other contents of data\.path={tmp_path / 'x.npy'} than are there now"
    with pytest.raises(SettingError, match=told):
        encode(composed(f"checkpoint={run_on_rows}", f"output={tmp_path / 'other'}"))
    settings = ["data=arrays", f"data.path={tmp_path / 'x.npy'}", f"data.cache_dir={tmp_path}"]
    others = ["data.batch_size=50", f"output={tmp_path / 'other'}"]
    encode(composed(f"checkpoint={run_on_rows}", *settings, *others))


class TinyFiles(TinyData):
    """As from the files of a folder."""

    def __init__(self, root: str | None, count: int) -> None:
        super().__init__(count)


@pytest.mark.parametrize("root", ["photographs", None])
def test_contents_of_any_files_are_those_of_training(
    root, composed, checkpoint, tmp_path: Path, monkeypatch
):
    monkeypatch.setitem(registry.REGISTRY, "TinyFiles", TinyFiles)
    shutil.copytree(checkpoint.parents[1], tmp_path / "run")
    config = OmegaConf.load(tmp_path / "run" / "config.yaml")
    config.data = {"_target_": "test_encode.TinyFiles", "root": root, "count": 70}
    OmegaConf.save(config, tmp_path / "run" / "config.yaml")
    path = tmp_path / "run" / "checkpoints" / "best.ckpt"
    contents = torch.load(path, weights_only=True)
    torch.save(contents | {"TinyFiles": {"fingerprint": TinyFiles(root, 70).fingerprint()}}, path)
    encode(composed(f"checkpoint={path}"))
    torch.save(contents | {"TinyFiles": {"fingerprint": "another"}}, path)
    told = rf"was trained on other contents of data\.root={root or 'null'} than are there now"
    with pytest.raises(SettingError, match=told):
        encode(composed(f"checkpoint={path}", f"output={tmp_path / 'other'}"))


def test_last_bits_of_data_that_are_computed_do_not_count(composed, checkpoint, tmp_path: Path):
    shutil.copytree(checkpoint.parents[1], tmp_path / "run")
    path = tmp_path / "run" / "checkpoints" / "best.ckpt"
    contents = torch.load(path, weights_only=True)
    torch.save(contents | {"TinyData": {"fingerprint": "of another machine"}}, path)
    encode(composed(f"checkpoint={path}"))


@pytest.mark.parametrize("named", ["run", "shared"])
def test_settings_of_data_get_the_kinds_that_they_want(
    named, run_on_rows: Path, composed, tmp_path: Path
):
    path = run_on_rows
    if named == "shared":
        path = tmp_path / "shared"
        find_trained_models(checkpoint=str(run_on_rows))[0].model.save_pretrained(path)
    rows = ["data=arrays", f"data.path={tmp_path / 'x.npy'}", f"data.cache_dir={tmp_path}"]
    with pytest.raises(SettingError, match=r"data\.image_shape=4 must be a list, as in \[64,32\]"):
        encode(composed(f"checkpoint={path}", *rows, "data.image_shape=4"))
    assert encode(composed(f"checkpoint={path}", *rows, "data.batch_size=5e1"))


@pytest.mark.parametrize("shard_size", [69, 34])
def test_a_short_last_shard_is_coded_in_a_whole_batch(
    shard_size, composed, checkpoint, tmp_path: Path
):
    config = composed("codes=inference", f"shard_size={shard_size}", "splits=[test]")
    folder = encode(config).folder
    codes = read_codes(folder, "test").toarray()
    (trained,) = find_trained_models(checkpoint=str(checkpoint))
    inputs = torch.from_numpy(all_inputs(shared_data([trained]), "test"))
    whole = trained.model.infer(inputs[-25:]).codes.numpy()
    rest = 70 % shard_size
    np.testing.assert_array_equal(codes[-rest:], whole[-rest:])
    for path in sorted(folder.glob("*.npz"))[-1:]:
        path.unlink()
        encode(config)
    np.testing.assert_array_equal(read_codes(folder, "test").toarray(), codes)


def test_a_split_of_one_sample_has_no_codes_that_depend_on_a_variance(composed):
    data = ("+data._target_=tiny_study.TinyData", "+data.count=1", "splits=[test]")
    with pytest.raises(SettingError, match=r"splits=\['test'\]: test has 1 sample"):
        encode(composed("codes=inference", *data))
    encode(composed("codes=encoder", *data))
