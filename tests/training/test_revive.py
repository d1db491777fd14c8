"""Dead atoms begin anew as what the worst rebuilt inputs lack, and nothing else changes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import Compose
from interruptions import Interrupted, StopAfter, assert_equal_runs, train_with
from tiny_study import TinyData
from torch import nn
from torch.nn.functional import normalize

from sparse_lightning import (
    FISTA,
    LISTA,
    AdamSettings,
    Energy,
    GatedLISTA,
    LinearDecoder,
    MultiLayerDecoder,
    SignedLISTA,
    SparseAutoencoder,
)
from sparse_lightning.decoders import Decoder, UnitColumns
from sparse_lightning.encoders import Encoder
from sparse_lightning.errors import SettingError
from sparse_lightning.penalties import L1, NonNegativeL1
from sparse_lightning.train import train
from sparse_lightning.training import revive as module
from sparse_lightning.training.callbacks import model_figures
from sparse_lightning.training.revive import (
    Revive,
    dead_units,
    hard_inputs,
    missing_columns,
    require_revivable,
    revive,
)

DEAD = torch.tensor([1, 4])


def model_with(decoder: Decoder, encoder: Encoder | None, constraint=None) -> SparseAutoencoder:
    is_signed = encoder is not None and encoder.is_signed
    energy = Energy(
        0.01,
        encoder_weight=0.0 if encoder is None else 1.0,
        penalty=L1() if is_signed else NonNegativeL1(),
    )
    adam = AdamSettings(1e-3, 1e-3)
    return SparseAutoencoder(decoder, encoder, energy, FISTA(0.5), adam, constraint).double()


def with_moments(model: SparseAutoencoder) -> torch.optim.Optimizer:
    """Its optimizer, after a step that every weight took part in."""
    optimizer, _ = model.optimizer_settings.build(model.decoder, model.encoder)
    sum((weight**2).sum() for weight in model.parameters()).backward()
    optimizer.step()
    return optimizer


@pytest.mark.parametrize("hidden", [(), (7,), (7, 5)], ids=str)
def test_a_new_atom_lowers_the_error_of_its_input_fastest(hidden: tuple[int, ...]):
    """Against differences of the error itself, column by column."""
    decoder = MultiLayerDecoder(6, hidden, 10) if hidden else LinearDecoder(6, 10)
    model = model_with(decoder, None)
    weight = decoder.hidden[0].weight if hidden else decoder.weight
    before, inputs = weight.detach().clone(), torch.randn(2, 10).double()
    columns, lacking = missing_columns(model, DEAD, inputs)
    assert torch.equal(weight, before)

    codes = model.encode(inputs)
    codes[:, DEAD] = 0
    torch.testing.assert_close(lacking, inputs - decoder(codes))
    for row, unit in enumerate(DEAD):
        code = codes[row].clone()
        code[unit] = 1

        def error(column: torch.Tensor, row=row, unit=unit, code=code) -> torch.Tensor:
            with torch.no_grad():
                weight[:, unit] = column
                return (inputs[row] - decoder(code[None])[0]).square().sum() / 2

        steps = 1e-6 * torch.eye(len(weight)).double()
        slope = torch.stack([(error(step) - error(-step)) / 2e-6 for step in steps])
        torch.testing.assert_close(columns[row], -slope, rtol=1e-5, atol=1e-8)
        weight.data.copy_(before)
    if not hidden:
        torch.testing.assert_close(columns, lacking)


@pytest.mark.parametrize("constraint", [None, UnitColumns()], ids=["free", "unit columns"])
@pytest.mark.parametrize("hidden", [(), (7,)], ids=["linear", "hidden layer"])
@pytest.mark.parametrize("kind", [LISTA, GatedLISTA, SignedLISTA])
def test_only_what_belongs_to_dead_units_changes(constraint, hidden, kind):
    decoder = MultiLayerDecoder(6, hidden, 10) if hidden else LinearDecoder(6, 10)
    model = model_with(decoder, kind(10, 6), constraint)
    optimizer = with_moments(model)
    if constraint is not None:
        constraint(decoder)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    inputs = torch.randn(2, 10).double()
    columns, lacking = missing_columns(model, DEAD, inputs)
    revive(model, optimizer, DEAD, inputs, 0.2)

    dead = torch.zeros(6, dtype=torch.bool)
    dead[DEAD] = True
    bottom = "decoder.hidden.0.weight" if hidden else "decoder.weight"
    counted = {
        bottom: [1],
        "encoder.input.weight": [0],
        "encoder.input.bias": [0],
        "encoder.lateral.weight": [0, 1],
        "encoder.gate_input.weight": [0],
        "encoder.gate_input.bias": [0],
        "encoder.gate_lateral.weight": [0, 1],
        "encoder.gain_rate": [1],
    }
    for name, weight in model.named_parameters():
        changed = torch.zeros_like(weight, dtype=torch.bool)
        for axis in counted.get(name, ()):
            changed |= dead.reshape([-1 if d == axis else 1 for d in range(weight.ndim)])
        torch.testing.assert_close(weight[~changed], before[name][~changed])
        for moment in ("exp_avg", "exp_avg_sq"):
            assert torch.equal(optimizer.state[weight][moment] == 0, changed), (name, moment)

    weights = dict(model.named_parameters())
    found = weights[bottom][:, DEAD]
    torch.testing.assert_close(normalize(found, dim=0), normalize(columns.T, dim=0))
    mean = before[bottom][:, ~dead].norm(dim=0).mean() if constraint is None else 1.0
    torch.testing.assert_close(found.norm(dim=0), torch.ones(2).double() * mean)
    rows = weights["encoder.input.weight"][DEAD]
    mean = before["encoder.input.weight"][~dead].norm(dim=1).mean()
    torch.testing.assert_close(rows, 0.2 * mean * normalize(lacking, dim=1))
    others = counted.keys() & weights.keys() - {bottom, "encoder.input.weight"}
    for name in others:
        for axis in counted[name]:
            assert not weights[name].index_select(axis, DEAD).any()


def test_one_hard_input_is_enough_where_the_hinge_has_no_encoder():
    """The hinge needs two samples, and one unit may be dead."""
    decoder, adam = MultiLayerDecoder(6, [8], 10), AdamSettings(1e-3, 1e-3)
    model = SparseAutoencoder(decoder, None, Energy(0.01, 10.0, 0.5), FISTA(0.1), adam, None)
    optimizer = torch.optim.Adam(model.parameters())
    inputs = torch.randn(1, 10)
    assert len(hard_inputs(model, iter([inputs]), 1, torch.Generator().manual_seed(0))) == 1
    weight = decoder.column_groups()[0][0]
    before = weight.detach().clone()
    revive(model, optimizer, torch.tensor([2]), inputs, 1.0)
    changed = (weight != before).any(0)
    assert changed.tolist() == [False, False, True, False, False, False]


def test_inputs_are_drawn_by_the_square_of_their_errors():
    model = model_with(LinearDecoder(6, 10), None)
    model.decoder.weight.data.zero_()
    inputs = torch.eye(10).double() * torch.tensor([0.0] * 5 + [1, 1, 1, 1, 2]).double()[:, None]
    generator = torch.Generator().manual_seed(0)
    drawn = torch.cat([hard_inputs(model, iter([inputs]), 1, generator) for _ in range(400)])
    # Errors are the squares of the inputs: 1 and 4, squared 1 and 16.
    shares = (drawn != 0).double().mean(0)
    expected = torch.tensor([0] * 5 + [1, 1, 1, 1, 16]).double() / 20
    torch.testing.assert_close(shares, expected, rtol=0, atol=0.07)
    assert len(hard_inputs(model, iter([inputs[:4], inputs[4:]]), 8, generator)) == 5


def test_what_processes_share_is_drawn_as_by_one(monkeypatch: pytest.MonkeyPatch):
    """Both halves of a batch, one after the other in this process."""
    model = model_with(LinearDecoder(6, 10), LISTA(10, 6))
    inputs = torch.randn(40, 10).double()
    whole = hard_inputs(model, iter([inputs]), 7, torch.Generator().manual_seed(3))
    errors = (model.decode(model.encode(inputs)) - inputs).square().mean(1).detach()
    monkeypatch.setattr(module.distributed, "get_world_size", lambda: 2)

    class Half:
        def gather(self, part: torch.Tensor) -> torch.Tensor:
            return torch.cat([errors[0::2], errors[1::2]])

        def total(self, part: torch.Tensor) -> torch.Tensor:
            return part

    monkeypatch.setattr(module.Processes, "present", Half)
    parts = []
    for rank in range(2):
        monkeypatch.setattr(module.distributed, "get_rank", lambda rank=rank: rank)
        generator = torch.Generator().manual_seed(3)
        parts.append(hard_inputs(model, iter([inputs[rank::2]]), 7, generator))
    torch.testing.assert_close(parts[0] + parts[1], whole, rtol=0, atol=0)
    assert ((parts[0] == 0).all(1) ^ (parts[1] == 0).all(1)).all()


def test_dead_are_those_that_no_sample_used():
    model = model_with(LinearDecoder(4, 10), None)
    meter = model.meters["train_meters"]["codes"]
    meter.update(torch.tensor([[0.0, 1, 0, 0], [0, 0, 2, 0]]))
    assert dead_units(model) == [0, 3]


SETTINGS = (
    "callbacks=revive", "code_dim=24", "hidden_dim=32",
    "model.energy.sparsity_weight=0.1", "solver.max_iterations=8", "data.num_val=50",
)  # fmt: skip


# So large a λ leaves no validation code active, of which training warns.
@pytest.mark.filterwarnings("ignore:All validation codes are zero")
@pytest.mark.parametrize(
    "model", ["sdl_nl", pytest.param("do", marks=pytest.mark.slow)], ids=lambda name: name
)
def test_a_training_that_revives_goes_on_bit_for_bit(
    model, compose_small: Compose, tmp_path: Path, monkeypatch
):
    revived = []

    def counted(model, optimizer, units, *args) -> None:
        revived.append(units.tolist())
        revive(model, optimizer, units, *args)

    monkeypatch.setattr(module, "revive", counted)
    whole, parts = (
        compose_small(f"model={model}", *SETTINGS, "trainer.max_epochs=3", run_dir=tmp_path / name)
        for name in ("whole", "parts")
    )
    train(whole)
    assert len(revived) == 2
    assert all(revived)
    with pytest.raises(Interrupted):
        train_with(parts, StopAfter(epochs=2))
    parts.resume = True
    train(parts)
    assert_equal_runs(tmp_path / "whole", tmp_path / "parts")


class Shared(Decoder):
    """One weight for all components."""

    code_dim, input_dim = 6, 10

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(10, 1))

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        return codes.sum(1, keepdim=True) @ self.weight.T


class Silent(Encoder):
    code_dim, input_dim = 6, 10

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 10))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return torch.relu(inputs @ self.weight.T)


def test_what_cannot_be_revived_is_refused_by_name():
    require_revivable(model_with(LinearDecoder(6, 10), LISTA(10, 6)))
    energy, adam = Energy(0.01), AdamSettings(1e-3, 1e-3)
    with pytest.raises(SettingError, match="those of Shared are not"):
        require_revivable(SparseAutoencoder(Shared(), None, energy, FISTA(0.5), adam))
    silent = SparseAutoencoder(LinearDecoder(6, 10), Silent(), energy, FISTA(0.5), adam)
    with pytest.raises(SettingError, match=r"weights of Silent .* a unit_slices\(\)"):
        require_revivable(silent)
    revive = Revive(1, 10, 0.2)
    with pytest.raises(SettingError, match=r"callbacks=revive draws inputs from a data module"):
        revive.on_fit_start(
            SimpleNamespace(datamodule=None), model_with(LinearDecoder(6, 10), None)
        )
    for wrong in ({"every_epochs": 0}, {"num_inputs": 0}, {"encoder_scale": 0.0}):
        (name,) = wrong
        with pytest.raises(SettingError, match=rf"callbacks\.revive\.{name}=0"):
            Revive(**{"every_epochs": 1, "num_inputs": 10, "encoder_scale": 0.2} | wrong)


class Normalised(LISTA):
    """Inputs are normalised over the batch."""

    def __init__(self, input_dim: int, code_dim: int) -> None:
        super().__init__(input_dim, code_dim)
        self.norm = nn.BatchNorm1d(input_dim)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return super().forward(self.norm(inputs))


def test_statistics_of_batches_are_those_of_training_alone():
    model, data = model_with(LinearDecoder(12, 64), Normalised(64, 12)).float(), TinyData()
    model.decoder.eval()
    before = {name: value.clone() for name, value in model.named_buffers()}
    callback = Revive(every_epochs=1, num_inputs=40, encoder_scale=0.2)
    callback.dead = [3]
    adam = torch.optim.Adam(model.parameters())
    trainer = SimpleNamespace(
        current_epoch=1, datamodule=data, world_size=1, optimizers=[adam],
        strategy=SimpleNamespace(batch_to_device=lambda batch: batch),
        precision_plugin=SimpleNamespace(convert_input=lambda batch: batch),
    )  # fmt: skip
    callback.on_train_epoch_start(trainer, model)
    assert callback.dead == []
    batch = next(iter(data.val_dataloader()))
    assert len(list(model_figures(model, [batch], data, 4, "tiny"))) > 0
    for name, value in model.named_buffers():
        assert torch.equal(value, before[name]), name
    assert model.encoder.norm.training
    assert not model.decoder.training
