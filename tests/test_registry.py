"""Parts as plain descriptions, and checkpoints with parts of a user's own."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from problems import SignedL1

from sparse_lightning import registry
from sparse_lightning.decoders import LinearDecoder, MultiLayerDecoder, UnitColumns
from sparse_lightning.encoders import LISTA
from sparse_lightning.energy import Energy
from sparse_lightning.errors import CheckpointError, SettingError
from sparse_lightning.model import SparseAutoencoder
from sparse_lightning.optimizers import AdamSettings
from sparse_lightning.penalties import NonNegativeL1
from sparse_lightning.registry import build, describe, register, require_registered
from sparse_lightning.solvers import FISTA, ISTA, Adaptive

PARTS = [
    Energy(0.1, 2.0, 0.3, 4.0, penalty=NonNegativeL1()),
    FISTA(0.3, 20, 1e-2, safeguard=False),
    ISTA(0.3),
    Adaptive(7, 0.0),
    LinearDecoder(3, 5),
    MultiLayerDecoder(3, [4, 6], 5),
    LISTA(5, 3, 2),
    UnitColumns(0.5),
    AdamSettings(1e-3, 1e-4),
]


@pytest.fixture(autouse=True)
def registered_for_one_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "REGISTRY", dict(registry.REGISTRY))


@pytest.mark.parametrize("part", PARTS, ids=lambda part: type(part).__name__)
def test_a_description_is_plain_and_builds_the_part_again(part: Any):
    description = describe(part)
    again = build(json.loads(json.dumps(description)))
    assert type(again) is type(part)
    assert describe(again) == description
    if not isinstance(part, torch.nn.Module):
        assert again == part


def test_parts_of_parts_are_described_as_well():
    register(SignedL1)
    energy = Energy(0.1, penalty=SignedL1())
    assert describe(energy)["penalty"] == {"name": "SignedL1", "import": "problems"}
    assert build(describe(energy)) == energy


@register
@dataclass(frozen=True)
class Tabled:
    """A part with a setting that is a mapping."""

    table: dict[str, float] = field(default_factory=dict)


def test_mappings_that_describe_no_part_pass_through():
    assert build(describe(Tabled({"a": 1.0}))) == Tabled({"a": 1.0})


def test_descriptions_of_older_versions_build():
    """Before penalties were parts, and before solvers had a safeguard."""
    weights = {"sparsity_weight": 0.1, "variance_weight": 1.0}
    old = {"name": "Energy", **weights, "variance_threshold": 0.5, "encoder_weight": 0.0}
    assert build(old) == Energy(0.1, 1.0, penalty=NonNegativeL1())
    settings = {"step_size": 0.5, "max_iterations": 9, "tolerance": 1e-3}
    assert build({"name": "FISTA", **settings}) == FISTA(**settings)


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("never_imported_here", r"if you trust its module, add imports=\[never_imported_here\]"),
        ("__main__", "of a notebook or a script"),
        (7, "import the module that registers it"),
    ],
)
def test_who_lacks_a_part_is_told_what_to_import(module: Any, expected: str):
    with pytest.raises(CheckpointError, match=expected):
        build({"name": "Theirs", "import": module})
    assert "never_imported_here" not in sys.modules


def test_a_part_of_this_package_does_not_stand_for_one_of_another():
    with pytest.raises(CheckpointError, match=r"named 'LISTA'.*add imports=\[theirs\]"):
        build({"name": "LISTA", "import": "theirs", "input_dim": 3, "code_dim": 2})


def test_a_part_cannot_have_an_argument_that_is_the_name_of_its_class():
    class Named:
        def __init__(self, name: str) -> None:
            self.name = name

    with pytest.raises(SettingError, match="Named has an argument 'name'"):
        describe(Named("a"))


@pytest.mark.parametrize("name", ["os.system", "SignedL1", ["Energy"], None])
def test_what_is_not_registered_is_not_built(name: Any):
    with pytest.raises(CheckpointError, match="which is not registered"):
        build({"name": name})


def test_settings_that_nobody_knows_are_of_another_version():
    told = r"NonNegativeL1 has settings that this .*use the version of sparse_lightning that"
    with pytest.raises(CheckpointError, match=told):
        build({"name": "NonNegativeL1", "power": 0.5})


def test_an_error_inside_a_part_is_its_own(monkeypatch):
    class Broken:
        def __init__(self, size: int) -> None:
            raise TypeError("inside")

    monkeypatch.setitem(registry.REGISTRY, "Broken", Broken)
    with pytest.raises(TypeError, match=r"^inside$"):
        build({"name": "Broken", "size": 3})


def test_a_number_that_is_a_tensor_is_described_as_a_number():
    assert describe(Energy(torch.tensor(0.25)))["sparsity_weight"] == 0.25


def test_one_name_is_one_part():
    assert register(Energy) is Energy, "once more does no harm"
    with pytest.raises(SettingError, match=r"named Energy is registered .* by sparse_lightning\."):
        register(type("Energy", (), {}))


def saved(path: Path) -> SparseAutoencoder:
    """A model with a penalty of a user's own, and its checkpoint as training writes it."""
    energy = Energy(0.05, penalty=SignedL1())
    settings = AdamSettings(1e-3, 1e-3)
    model = SparseAutoencoder(LinearDecoder(6, 10), None, energy, Adaptive(), settings)
    trainer = lightning.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    trainer.strategy.connect(model)
    trainer.save_checkpoint(path)
    return model


def test_a_users_part_must_be_registered_or_given(tmp_path: Path):
    model, path = saved(tmp_path / "own.ckpt"), tmp_path / "own.ckpt"
    message = r"holds a part named 'SignedL1', which is not registered .* put @register .* problems"
    with pytest.raises(CheckpointError, match=message):
        SparseAutoencoder.load_from_checkpoint(path)
    with pytest.raises(SettingError, match=r"^model\.energy\.penalty=SignedL1 is not registered"):
        require_registered({"model.energy": describe(model.energy)})
    given = SparseAutoencoder.load_from_checkpoint(path, energy=model.energy)
    register(SignedL1)
    registered = SparseAutoencoder.load_from_checkpoint(path)
    inputs = torch.randn(5, 10)
    expected = model.infer(inputs).codes
    assert (expected < 0).any()
    for loaded in (given, registered):
        assert loaded.energy == model.energy
        assert torch.equal(loaded.infer(inputs).codes, expected)


def test_parts_and_numbers_inside_lists_are_described_and_built():
    described = describe([np.float64(0.5), {"one": np.int64(3)}, (FISTA(0.25), 7)])
    assert described[:2] == [0.5, {"one": 3}]
    assert type(described[0]) is float
    assert build(described)[2] == (FISTA(0.25), 7)


def test_a_part_inside_a_list_that_is_not_registered_is_named():
    inner = {"name": "Nobody", "import": "elsewhere"}
    with pytest.raises(SettingError, match=r"model\.parts\[1\]=Nobody is not registered"):
        require_registered({"model.parts": [1, inner]})
