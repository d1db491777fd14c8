"""Models written as safetensors and JSON, and read again; files of other people's."""

from __future__ import annotations

import copy
import functools
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from sparse_lightning.decoders import LinearDecoder, MultiLayerDecoder, UnitColumns
from sparse_lightning.encoders import LISTA
from sparse_lightning.energy import Energy
from sparse_lightning.errors import CheckpointError, SettingError
from sparse_lightning.model import SparseAutoencoder
from sparse_lightning.optimizers import AdamSettings
from sparse_lightning.registry import REGISTRY
from sparse_lightning.shared_model import SETTINGS_FILE, WEIGHTS_FILE, SharedModel
from sparse_lightning.solvers import FISTA
from sparse_lightning.sparse_encoders import BatchTopKEncoder, ReLUEncoder, TopKEncoder
from sparse_lightning.training_rules import AuxK, EndToEnd

DECODERS = {
    "linear": lambda: LinearDecoder(6, 10),
    "one hidden layer": lambda: MultiLayerDecoder(6, [8], 10),
}


def made(decoder: str = "linear", has_encoder: bool = True, **parts: Any) -> SparseAutoencoder:
    usual = {
        "encoder": LISTA(10, 6) if has_encoder else None,
        "energy": Energy(0.05, encoder_weight=1.0 if has_encoder else 0.0),
        "solver": FISTA(0.5),
        "optimizer": AdamSettings(1e-3, 1e-3),
        "constraint": UnitColumns(),
        "family": "mine",
    }
    return SparseAutoencoder(DECODERS[decoder](), **usual | parts)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made().save_pretrained(tmp_path / "shared")
    return tmp_path / "shared"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("encoder", [True, False])
@pytest.mark.parametrize("decoder", DECODERS)
def test_a_model_that_is_read_again_is_the_same(decoder, encoder, dtype, tmp_path: Path):
    model = made(decoder, encoder)
    model.to(dtype)
    model.save_pretrained(tmp_path)
    again = SparseAutoencoder.from_pretrained(tmp_path)
    assert again.descriptions == model.descriptions
    assert (again.family, again.training) == ("mine", False)
    inputs = torch.randn(20, 10, dtype=dtype)
    assert torch.equal(again.infer(inputs).codes, model.infer(inputs).codes)
    assert torch.equal(again.encode(inputs), model.encode(inputs))
    assert torch.equal(again(inputs), model(inputs))
    assert all(weight.requires_grad for weight in again.parameters())
    assert sorted(path.name for path in tmp_path.iterdir()) == [SETTINGS_FILE, WEIGHTS_FILE]


def with_checkpoint(model: SparseAutoencoder, path: Path, **changes: Any) -> Path:
    """A checkpoint as training writes it, as far as a model needs it."""
    contents = {
        "hyper_parameters": dict(model.hparams), "state_dict": model.state_dict(),
        "pytorch-lightning_version": "2.6.6",
    }  # fmt: skip
    torch.save(contents | changes, path)
    return path


@pytest.fixture(params=["folder", "checkpoint"])
def read(request, folder: Path, tmp_path: Path) -> Callable[..., SparseAutoencoder]:
    """Reads the model of `folder`, of its folder or of a checkpoint."""
    if request.param == "folder":
        return functools.partial(SparseAutoencoder.from_pretrained, folder)
    model = SparseAutoencoder.from_pretrained(folder)
    path = with_checkpoint(model, tmp_path / "last.ckpt")
    return functools.partial(SparseAutoencoder.load_from_checkpoint, path)


def test_a_part_can_be_given_in_place_of_that_in_the_file(read):
    energy = Energy(0.5, encoder_weight=1.0)
    assert read(energy=energy).energy == energy
    alone = read(energy=Energy(0.01), encoder=None)
    assert torch.equal(alone.decoder.weight, read().decoder.weight)
    assert alone.encoder is None
    rule = EndToEnd()
    assert read(training_rule=rule, energy=Energy(0.01)).training_rule is rule
    # Half of the weights is no model.
    told = r"no model that can be made .* check the given parts \(encoder\)"
    with pytest.raises(CheckpointError, match=told):
        read(encoder=ReLUEncoder(10, 6))


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ({"encoder": None}, r"^model\.energy\.encoder_weight=1\.0 needs an encoder"),
        ({"decoder": LinearDecoder(6, 11)}, r"^model\.decoder\.input_dim=11 and model\.encoder"),
    ],
    ids=["no encoder", "another size"],
)
def test_given_parts_that_do_not_fit_are_no_damage_of_the_file(parts, told, read):
    with pytest.raises(SettingError, match=told):
        read(**parts)


def test_counters_of_a_rule_stay_behind_with_the_rule(tmp_path: Path):
    parts = {"encoder": TopKEncoder(10, 6, 2), "energy": Energy(0.0)}
    model = made(**parts, training_rule=EndToEnd(AuxK(0.1, 2, 10)))
    path = with_checkpoint(model, tmp_path / "last.ckpt")
    assert SparseAutoencoder.load_from_checkpoint(path).training_rule.auxiliary is not None
    again = SparseAutoencoder.load_from_checkpoint(path, training_rule=EndToEnd())
    assert torch.equal(again.encoder.input.weight, model.encoder.input.weight)


class Normalised(LinearDecoder):
    """Codes are normalised over the batch."""

    def __init__(self, code_dim: int, input_dim: int) -> None:
        super().__init__(code_dim, input_dim)
        self.norm = nn.BatchNorm1d(code_dim)
        self.register_buffer("scale", torch.ones(input_dim, input_dim), persistent=False)

    def forward(self, codes: Tensor) -> Tensor:
        return super().forward(self.norm(codes)) @ self.scale


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_buffers_are_read_in_their_own_type(dtype, tmp_path: Path, monkeypatch):
    monkeypatch.setitem(REGISTRY, "Normalised", Normalised)
    monkeypatch.setitem(DECODERS, "normalised", lambda: Normalised(6, 10))
    parts = {"encoder": BatchTopKEncoder(10, 6, 2), "energy": Energy(0.0)}
    model = made("normalised", constraint=None, training_rule=EndToEnd(), **parts).to(dtype)
    model.encoder.threshold.fill_(0.1)
    model.save_pretrained(tmp_path)
    models = {SparseAutoencoder.from_pretrained(tmp_path): dtype}
    # Of a checkpoint weights in half precision are read in float32.
    path = with_checkpoint(model, tmp_path / "last.ckpt")
    wide = torch.promote_types(dtype, torch.float32)
    models[SparseAutoencoder.load_from_checkpoint(path).eval()] = wide
    for again, kind in models.items():
        assert torch.equal(again.encoder.threshold, model.encoder.threshold)
        assert {p.dtype for p in again.parameters()} == {kind}
        inputs = torch.randn(5, 10, dtype=kind)
        assert torch.equal(again(inputs), model.eval().to(kind)(inputs))
        model.to(dtype)


WRONG: dict[str, tuple[Callable[[dict, dict], Any], str]] = {
    "no weights": (lambda parts, weights: weights.clear(), "weights of the decoder"),
    "other sizes": (
        lambda parts, weights: weights.update({k: v[:2] for k, v in weights.items()}),
        "weights of the decoder",
    ),
    "a size that no memory has": (
        lambda parts, weights: parts["decoder"].update(code_dim=10**13), "weights of the decoder"),
    "layers without end": (
        lambda parts, weights: parts["encoder"].update(num_layers=10**9), "num_layers=1000000000"),
    "a missing part": (lambda parts, weights: parts.pop("solver"), "missing 1 required"),
    "a part too many": (lambda parts, weights: parts.update(oil=1), "unexpected keyword"),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_a_checkpoint_that_makes_no_model_gets_one_sentence(wrong: str, tmp_path: Path):
    change, told = WRONG[wrong]
    model = made()
    parts, weights = copy.deepcopy(dict(model.hparams)), dict(model.state_dict())
    change(parts, weights)
    path = with_checkpoint(
        model, tmp_path / "last.ckpt", hyper_parameters=parts, state_dict=weights
    )
    with pytest.raises(CheckpointError, match=told) as raised:
        SparseAutoencoder.load_from_checkpoint(path)
    assert "\n" not in str(raised.value)


class Scaled(LinearDecoder):
    """Looks at its weights when it is made."""

    def __init__(self, code_dim: int, input_dim: int) -> None:
        super().__init__(code_dim, input_dim)
        self.largest = self.weight.abs().max().item()


def test_a_part_whose_making_needs_numbers_is_read_again(tmp_path: Path, monkeypatch):
    monkeypatch.setitem(REGISTRY, "Scaled", Scaled)
    monkeypatch.setitem(DECODERS, "scaled", lambda: Scaled(6, 10))
    model = made("scaled")
    model.save_pretrained(tmp_path)
    again = SparseAutoencoder.from_pretrained(tmp_path)
    assert isinstance(again.decoder, Scaled)
    assert torch.equal(again.decoder.weight, model.decoder.weight)


def edited(change: Callable[[dict], Any]) -> Callable[[Path], None]:
    """Edits ``config.json``."""

    def edit(folder: Path) -> None:
        path = folder / SETTINGS_FILE
        settings = json.loads(path.read_text())
        change(settings)
        path.write_text(json.dumps(settings))

    return edit


def of_other_sizes(folder: Path) -> None:
    shared = SharedModel.read(folder)
    weights = {name: tensor[:2].clone() for name, tensor in shared.weights.items()}
    SharedModel(shared.parts, shared.family, weights).write(folder)


def flip_a_bit(folder: Path) -> None:
    content = bytearray((folder / WEIGHTS_FILE).read_bytes())
    content[-3] ^= 1
    (folder / WEIGHTS_FILE).write_bytes(content)


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no settings": (lambda f: (f / SETTINGS_FILE).unlink(), r"config.json cannot be read"),
    "no weights": (lambda f: (f / WEIGHTS_FILE).unlink(), r"safetensors cannot be read"),
    "half of the weights": (
        lambda f: (f / WEIGHTS_FILE).write_bytes((f / WEIGHTS_FILE).read_bytes()[:200]),
        "SHA-256",
    ),
    "a bit of the weights": (flip_a_bit, "SHA-256"),
    "no JSON": (lambda f: (f / SETTINGS_FILE).write_text("{"), "config.json cannot be read"),
    "deep JSON": (
        lambda f: (f / SETTINGS_FILE).write_text("[" * 100_000),
        "config.json cannot be read",
    ),
    "a list": (lambda f: (f / SETTINGS_FILE).write_text("[]"), "config.json cannot be read"),
    "another library's": (edited(lambda s: s.update(library_name="diffusers")), "no model of"),
    "no family": (edited(lambda s: s.update(family=["mine"])), "no model of"),
    "a later version": (edited(lambda s: s.update(format=2)), "its format is 2"),
    "other sizes": (of_other_sizes, r"weights of the decoder .* different models"),
    "a size that no memory has": (
        edited(lambda s: s["parts"]["decoder"].update(code_dim=10**13)),
        r"weights of the decoder .* different models",
    ),
    "another decoder": (
        edited(lambda s: s["parts"].update(decoder={
            "name": "MultiLayerDecoder", "code_dim": 6, "hidden_dims": [3], "input_dim": 10})),
        r"hidden\.0\.bias",
    ),
    "layers without end": (
        edited(lambda s: s["parts"]["encoder"].update(num_layers=10**9)),
        r"num_layers=1000000000, and at most 1000 are read",
    ),
    "a size that is none": (
        edited(lambda s: s["parts"]["decoder"].update(code_dim="6")), "code_dim=6 must be"),
    "a negative weight": (
        edited(lambda s: s["parts"]["energy"].update(sparsity_weight=-1)), "sparsity_weight=-1"),
    "a missing part": (edited(lambda s: s["parts"].pop("solver")), "missing 1 required"),
    "a part too many": (edited(lambda s: s["parts"].update(oil=1)), "unexpected keyword"),
    "a setting too many": (
        edited(lambda s: s["parts"]["energy"].update(oil=1)), "settings that this version"),
    "a part that is a number": (edited(lambda s: s["parts"].update(energy=3)), "no model that"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_files_that_are_damaged_or_hostile_get_one_sentence(damage: str, folder: Path):
    change, expected = DAMAGE[damage]
    change(folder)
    with pytest.raises(CheckpointError, match=expected) as raised:
        SparseAutoencoder.from_pretrained(folder)
    assert "\n" not in str(raised.value)


def test_nothing_is_imported_because_a_file_names_it(folder: Path, tmp_path: Path, monkeypatch):
    (tmp_path / "trap.py").write_text("raise SystemExit('it was imported')")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("Trap", "trap.Trap", "os.system"):
        edited(lambda s, n=name: s["parts"].update(energy={"name": n, "import": "trap"}))(folder)
        with pytest.raises(CheckpointError, match=r"not registered .* imports=\[trap\]"):
            SparseAutoencoder.from_pretrained(folder)
    assert "trap" not in sys.modules


@pytest.mark.parametrize("name", ["no/such/folder", "/nowhere", "nowhere", "./here", "../a"])
def test_a_folder_that_is_not_there_is_not_looked_for_on_the_hub(name: str, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError, match=f"There is no folder {name}"):
        SparseAutoencoder.from_pretrained(name)


def test_without_the_optional_package_a_name_gets_a_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for act in (SparseAutoencoder.from_pretrained, made().push_to_hub):
        with pytest.raises(SettingError, match=r"pip install 'sparse-lightning\[hub\]'"):
            act("somebody/model")


def test_what_is_pushed_is_what_is_pulled(monkeypatch, tmp_path: Path):
    hub = pytest.importorskip("huggingface_hub")
    calls: list[tuple] = []

    def create_repo(self, name: str, *, private: bool | None, exist_ok: bool) -> str:
        calls.append((name, private, exist_ok))
        return f"https://huggingface.co/{name}"

    def upload_folder(self, *, repo_id: str, folder_path: str, commit_message: str) -> None:
        shutil.copytree(folder_path, tmp_path / repo_id)

    def snapshot_download(name: str, *, allow_patterns: list[str], revision, **others) -> str:
        assert revision == "v1"
        assert set(allow_patterns) == {SETTINGS_FILE, WEIGHTS_FILE}
        if not (tmp_path / name).exists():
            raise hub.errors.LocalEntryNotFoundError("not here")
        return str(tmp_path / name)

    monkeypatch.setattr(hub.HfApi, "create_repo", create_repo)
    monkeypatch.setattr(hub.HfApi, "upload_folder", upload_folder)
    monkeypatch.setattr(hub, "snapshot_download", snapshot_download)
    model = made("one hidden layer")
    assert model.push_to_hub("me/digits", private=True) == "https://huggingface.co/me/digits"
    assert calls == [("me/digits", True, True)]
    page = (tmp_path / "me" / "digits" / "README.md").read_text()
    assert 'from_pretrained("me/digits")' in page
    again = SparseAutoencoder.from_pretrained("me/digits", revision="v1")
    inputs = torch.randn(5, 10)
    assert torch.equal(again(inputs), model(inputs))
    with pytest.raises(CheckpointError, match=r"no such model can be had .*LocalEntryNotFound"):
        SparseAutoencoder.from_pretrained("me/letters", revision="v1")


@pytest.mark.parametrize("name", ["digits", "me/my/digits", "/digits", "me/", ""])
def test_a_name_that_is_none_on_the_hub_is_refused_first(name: str, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(SettingError, match=rf"^push_to_hub\('{name}'\) .* give owner/model"):
        made().push_to_hub(name)


def test_whatever_the_hubs_client_raises_is_one_sentence(monkeypatch):
    hub = pytest.importorskip("huggingface_hub")

    class ConnectError(Exception):
        """As that of httpx, which is neither an OSError nor a ValueError."""

    def fail(*args: Any, **settings: Any) -> None:
        raise ConnectError("no route\nto host.")

    monkeypatch.setattr(hub.HfApi, "create_repo", fail)
    monkeypatch.setattr(hub, "snapshot_download", fail)
    with pytest.raises(SettingError, match=r"refused \(ConnectError: no route to host\): check"):
        made().push_to_hub("me/digits")
    with pytest.raises(CheckpointError, match=r"\(ConnectError\): check its name"):
        SparseAutoencoder.from_pretrained("me/digits")


def test_the_weights_are_a_plain_safetensors_file(folder: Path):
    weights = safetensors.torch.load_file(folder / WEIGHTS_FILE)
    expected = SparseAutoencoder.from_pretrained(folder).state_dict()
    assert weights.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights.items())
