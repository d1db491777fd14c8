"""What the LightningModule does with parts of a user's own, and in Lightning's modes."""

from __future__ import annotations

from pathlib import Path

import lightning
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from sparse_lightning.data.batch import Batch
from sparse_lightning.decoders import Decoder, LinearDecoder
from sparse_lightning.encoders import LISTA
from sparse_lightning.energy import Energy
from sparse_lightning.errors import SettingError
from sparse_lightning.model import SparseAutoencoder
from sparse_lightning.optimizers import AdamSettings
from sparse_lightning.solvers import FISTA
from sparse_lightning.training_rules import InferThenRegress

CODE_DIM, INPUT_DIM = 4, 12
INPUTS = torch.linspace(-1, 1, 3 * INPUT_DIM).reshape(3, INPUT_DIM)


def model_of(decoder: Decoder | None = None, **parts) -> SparseAutoencoder:
    settings = {
        "encoder": LISTA(INPUT_DIM, CODE_DIM),
        "energy": Energy(0.01, encoder_weight=1.0),
        "solver": FISTA(0.3, 20, 1e-3),
        "optimizer": AdamSettings(1e-3, 1e-3),
    }
    return SparseAutoencoder(decoder or LinearDecoder(CODE_DIM, INPUT_DIM), **(settings | parts))


class Grouped(Decoder):
    """Columns of its weight are parts that nobody wrote down."""

    def __init__(self) -> None:
        super().__init__()
        self.code_dim, self.input_dim = CODE_DIM, INPUT_DIM
        self.convolution = nn.Conv1d(CODE_DIM, INPUT_DIM, 1, groups=2)

    def forward(self, codes: Tensor) -> Tensor:
        return self.convolution(codes[..., None])[..., 0]


class Plain(nn.Linear):
    """Has all that a decoder, an encoder and a solver are asked for by name, and is none."""

    code_dim, input_dim, is_signed = CODE_DIM, INPUT_DIM, False


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("decoder", "decoders.Decoder"),
        ("encoder", "encoders.Encoder"),
        ("solver", "solvers.base.Solver"),
        ("training_rule", "training_rules.TrainingRule"),
        ("energy", "penalties.Penalty"),
    ],
)
def test_parts_that_inherit_nothing_are_refused(name, base):
    part = Plain(CODE_DIM, INPUT_DIM)
    if name == "energy":
        name, part = "energy.penalty", Energy(0.01, encoder_weight=1.0, penalty=part)
    told = rf"model\.{name}=Plain is no {base.split('.')[-1]}: .* from sparse_lightning\.{base}"
    with pytest.raises(SettingError, match=told):
        model_of(**{name.split(".")[0]: part})


def test_columns_that_nobody_wrote_down_are_not_logged(monkeypatch):
    logged: dict[str, Tensor] = {}
    monkeypatch.setattr(
        SparseAutoencoder, "log", lambda _, name, value, **__: logged.update({name: value})
    )
    for decoder in (LinearDecoder(CODE_DIM, INPUT_DIM), Grouped()):
        logged.clear()
        model = model_of(decoder)
        model.training_step(INPUTS, 0)
        model.on_train_epoch_end()
        assert "train/energy" in logged
        assert ("train/column_norm" in logged) is isinstance(decoder, LinearDecoder)


def test_training_goes_on_after_validation_within_an_epoch_of_several_processes():
    model = model_of()
    meter = model.meters["train_meters"]["r2"]
    meter.distributed_available_fn = lambda: True
    meter.dist_sync_fn = lambda state, group: [state, state]
    model.training_step(Batch(INPUTS), 0)
    with torch.inference_mode():
        assert torch.allclose(model._mean_of_training("val"), INPUTS.double().mean(0))
    model.training_step(Batch(INPUTS), 1)
    assert int(meter.count) == 2 * len(INPUTS)


class Weighted(InferThenRegress):
    """A rule that would learn a weight of its loss."""

    def __init__(self) -> None:
        super().__init__()
        self.log_weight = nn.Parameter(torch.zeros(()))


def test_what_no_optimizer_trains_is_refused():
    with pytest.raises(SettingError, match=r"model\.training_rule=Weighted has parameters"):
        model_of(training_rule=Weighted())
    rule = Weighted()
    rule.log_weight.requires_grad_(False)
    assert model_of(training_rule=rule)


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.parametrize(("precision", "kind"), [("64-true", "float64"), ("bf16-true", "float32")])
def test_a_checkpoint_is_read_no_coarser_than_it_is(precision, kind, tmp_path: Path):
    trainer = lightning.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, max_epochs=1,
        enable_model_summary=False, enable_checkpointing=False, precision=precision,
    )  # fmt: skip
    model = model_of()
    loader = DataLoader(INPUTS, batch_size=3)
    trainer.fit(model, loader, loader)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    again = SparseAutoencoder.load_from_checkpoint(tmp_path / "last.ckpt")
    assert again.decoder.weight.dtype == getattr(torch, kind)
    for name, weight in model.state_dict().items():
        assert torch.equal(again.state_dict()[name].to(weight.dtype), weight), name
