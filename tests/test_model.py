"""What the LightningModule does with parts of a user's own, and in Lightning's modes."""

from __future__ import annotations

import copy
from pathlib import Path

import lightning
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from sparse_lightning.data.batch import Batch
from sparse_lightning.decoders import (
    ConvolutionalDecoder,
    Decoder,
    LinearDecoder,
    MultiLayerDecoder,
)
from sparse_lightning.encoders import LISTA, Encoder
from sparse_lightning.energy import Energy, Objective
from sparse_lightning.errors import DivergenceError, InputError, SettingError
from sparse_lightning.learner import Learner
from sparse_lightning.model import SparseAutoencoder
from sparse_lightning.optimizers import AdamSettings
from sparse_lightning.penalties import NonNegativeL0, NonNegativeL1, NonNegativeLogSum
from sparse_lightning.solvers import FISTA, ISTA, Solution
from sparse_lightning.sparse_encoders import BatchTopKEncoder, JumpReLUEncoder, TopKEncoder
from sparse_lightning.training_rules import EndToEnd, InferThenRegress

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


class SizelessDecoder(Decoder):
    def forward(self, codes: Tensor) -> Tensor:
        return codes


class SizelessEncoder(Encoder):
    code_dim = CODE_DIM

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs[:, :CODE_DIM].relu()


@pytest.mark.parametrize(
    ("part", "size"), [(SizelessDecoder(), "code_dim"), (SizelessEncoder(), "input_dim")]
)
@pytest.mark.parametrize("rule", [InferThenRegress(), EndToEnd()])
def test_parts_that_do_not_tell_their_sizes_are_named(part, size, rule):
    name = "decoder" if isinstance(part, Decoder) else "encoder"
    told = rf"model\.{name}={type(part).__name__} does not tell its {size}: set self\.{size} in"
    with pytest.raises(SettingError, match=told):
        model_of(**{name: part}, training_rule=rule)


@pytest.mark.parametrize("layer", [nn.Dropout(0.1), nn.BatchNorm1d(INPUT_DIM)])
def test_a_decoder_that_is_no_function_of_a_code_alone_is_refused(layer):
    """Inference would minimise something else at each step; without inference it may be."""
    decoder = LinearDecoder(CODE_DIM, INPUT_DIM)
    decoder.layer = layer
    with pytest.raises(SettingError, match=rf"LinearDecoder has a {type(layer).__name__}, with"):
        model_of(decoder=decoder)
    model_of(decoder=decoder, training_rule=EndToEnd(), energy=Energy(0.01))


def test_a_solver_that_gives_too_few_codes_is_named():
    class Halving(ISTA):
        def __call__(self, objective: Objective, initial_codes: Tensor) -> Solution:
            found = super().__call__(objective, initial_codes)
            return Solution(found.codes[:, :1], found.iterations, found.converged)

    model = model_of(solver=Halving(0.1, 5))
    with pytest.raises(InputError, match=r"solver=Halving gives codes of shape \(3, 1\) for a"):
        model.infer(torch.randn(3, INPUT_DIM))


def test_a_copy_for_inference_is_made_inside_of_inference_mode():
    decoder = ConvolutionalDecoder(CODE_DIM, [2], 16, [4, 4])
    model = model_of(decoder=decoder, encoder=LISTA(16, CODE_DIM))
    inputs = torch.randn(3, 16)
    expected = model.infer_alone(inputs, torch.float64)
    with torch.inference_mode():
        assert torch.equal(model.infer_alone(inputs, torch.float64), expected)


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """What models log, by name."""
    values: dict[str, Tensor] = {}
    monkeypatch.setattr(
        SparseAutoencoder, "log", lambda _, name, value, **__: values.update({name: value})
    )
    return values


def test_norms_of_columns_are_logged_over_all_layers_and_of_each(logged):
    decoder = MultiLayerDecoder(CODE_DIM, [7], INPUT_DIM)
    with torch.no_grad():
        decoder.output.weight.mul_(3)
    model = model_of(decoder)
    model.training_step(INPUTS, 0)
    model.on_train_epoch_end()
    below, above = decoder.column_norms()
    assert (len(below), len(above)) == (CODE_DIM, 7)
    norms = {name: value for name, value in logged.items() if "column_norm" in name}
    assert norms == {
        "train/column_norm": torch.cat([below, above]).mean(),
        "train/column_norm_1": below.mean(),
        "train/column_norm_2": above.mean(),
    }


def test_columns_that_nobody_wrote_down_are_not_logged(logged):
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


def quiet_trainer(**settings) -> lightning.Trainer:
    return lightning.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, max_epochs=1,
        enable_model_summary=False, enable_checkpointing=False, **settings,
    )  # fmt: skip


def loader_of(inputs: Tensor) -> DataLoader:
    return DataLoader(inputs, batch_size=2)


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_a_phase_that_an_error_ended_does_not_count_in_the_next():
    model, trainer = model_of(), quiet_trainer()
    inputs = torch.linspace(-1, 1, 4 * INPUT_DIM).reshape(4, INPUT_DIM)
    good, damaged = (
        loader_of(inputs),
        loader_of(torch.cat([1000 * inputs[:2], torch.nan * inputs[2:]])),
    )
    (expected,) = trainer.validate(model, good, verbose=False)
    with pytest.raises(InputError, match="validation batch 1 hold NaN"):
        trainer.validate(model, damaged, verbose=False)
    assert trainer.validate(model, good, verbose=False) == [expected]
    with pytest.raises(InputError, match="epoch 0, batch 1 hold NaN"):
        quiet_trainer().fit(model.train(), damaged, good)
    trainer = quiet_trainer()
    trainer.fit(model.train(), good, good)
    assert trainer.callback_metrics["train/energy"] < 10


def test_an_epoch_in_memory_that_was_interrupted_does_not_count():
    model, batches = model_of(), [[0, 1], [1, 2]]
    expected = Learner(copy.deepcopy(model), 0, None).epoch(INPUTS, batches)
    model.training_step(1000 * INPUTS, 0)
    assert Learner(model, 0, None).epoch(INPUTS, batches) == expected


def test_the_decoders_learning_rate_decays_from_epoch_to_epoch_in_memory():
    settings = AdamSettings(1e-2, 1e-3, decoder_decay_factor=0.1, decoder_decay_epochs=1)
    learner = Learner(model_of(optimizer=settings), 0, None)
    for decoders in (1e-2, 1e-3, 1e-4):
        for group in learner.optimizer.param_groups:
            expected = decoders if group["name"].startswith("decoder") else 1e-3
            assert group["lr"] == pytest.approx(expected)
        learner.epoch(INPUTS, [[0, 1], [1, 2]])


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_a_fit_on_other_data_compares_with_the_mean_of_these():
    model = model_of()
    for shift in (0.0, 5.0):
        inputs = INPUTS + shift
        quiet_trainer().fit(model, loader_of(inputs), loader_of(inputs))
        assert torch.allclose(model.training_mean, inputs.double().mean(0))


def with_lost_weights(part: nn.Module) -> nn.Module:
    with torch.no_grad():
        for weight in part.parameters():
            weight.fill_(torch.nan)
    return part


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.parametrize(
    "encoder",
    [TopKEncoder(INPUT_DIM, CODE_DIM, 2), BatchTopKEncoder(INPUT_DIM, CODE_DIM, 2),
     JumpReLUEncoder(INPUT_DIM, CODE_DIM, 0.1, 0.1)],
    ids=lambda encoder: type(encoder).__name__,
)  # fmt: skip
def test_an_encoder_whose_weights_are_lost_is_told(encoder):
    model = model_of(encoder=with_lost_weights(encoder), energy=Energy(0.0),
                     training_rule=EndToEnd())  # fmt: skip
    told = r"encoder's codes are no finite numbers at validation batch 0: .*encoder_learning_rate"
    with pytest.raises(DivergenceError, match=told):
        quiet_trainer().validate(model, loader_of(INPUTS))


@pytest.mark.parametrize(
    "penalty", [NonNegativeL0(), NonNegativeLogSum(), NonNegativeL1()], ids=lambda p: str(p)
)
def test_a_step_that_is_too_large_is_told_whatever_the_penalty(penalty):
    decoder = LinearDecoder(CODE_DIM, INPUT_DIM)
    with torch.no_grad():
        decoder.weight.mul_(100)
    solver = FISTA(10.0, 100, 1e-3, safeguard=False)
    energy = Energy(0.01, variance_weight=0.0, penalty=penalty)
    model = model_of(decoder, encoder=None, energy=energy, solver=solver)
    for infer in (model.infer, model.infer_alone):
        with pytest.raises(DivergenceError, match=r"at this batch: solver\.step_size=10"):
            infer(INPUTS)


class Single(LISTA):
    """It returns a number for each input."""

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs).sum(1, keepdim=True)


def test_an_encoder_that_returns_another_shape_is_named():
    told = r"Single gives codes of shape \(3, 1\) for inputs of shape \(3, 12\): .*\(n, 4\)"
    for rule in (InferThenRegress(), EndToEnd()):
        encoder_weight = 1.0 if isinstance(rule, InferThenRegress) else 0.0
        model = model_of(encoder=Single(INPUT_DIM, CODE_DIM), training_rule=rule,
                         energy=Energy(0.01, encoder_weight=encoder_weight))  # fmt: skip
        for call in (model.encode, lambda x, m=model: m.training_step(x, 0)):
            with pytest.raises(InputError, match=told):
                call(INPUTS)


def test_a_model_can_be_compiled():
    model = model_of().eval()
    with torch.no_grad():
        expected = model(INPUTS), model.infer(INPUTS).codes
        # Graphs without machine code: what is asked is whether they can be drawn.
        found = [torch.compile(call, backend="eager")(INPUTS) for call in (model, model.infer)]
    torch.testing.assert_close((found[0], found[1].codes), expected)
