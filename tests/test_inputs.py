"""What callers give from Python: other types and shapes, NaN, parts of their own."""

from __future__ import annotations

import lightning
import numpy as np
import pytest
import scipy.sparse
import torch
from conftest import Compose
from hydra.utils import instantiate
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from sparse_lightning.data.batch import Batch, TensorSlices
from sparse_lightning.decoders import Decoder, LinearDecoder, MultiLayerDecoder, UnitColumns
from sparse_lightning.encoders import LISTA, Encoder
from sparse_lightning.energy import Energy
from sparse_lightning.errors import InputError, SettingError
from sparse_lightning.inputs import as_batch, as_inputs
from sparse_lightning.model import SparseAutoencoder
from sparse_lightning.optimizers import AdamSettings
from sparse_lightning.registry import describe
from sparse_lightning.solvers import FISTA, ISTA, Adaptive

CODE_DIM, INPUT_DIM = 4, 12


def model_of(decoder: Decoder, encoder: Encoder | None, **parts) -> SparseAutoencoder:
    settings = {
        "energy": Energy(0.01, encoder_weight=0.0 if encoder is None else 1.0),
        "solver": FISTA(0.3, 20, 1e-3),
        "optimizer": AdamSettings(1e-3, 1e-3),
    }
    return SparseAutoencoder(decoder, encoder, **(settings | parts)).eval()


@pytest.fixture(params=["encoder", "decoder_only"])
def model(request) -> SparseAutoencoder:
    encoder = LISTA(INPUT_DIM, CODE_DIM) if request.param == "encoder" else None
    return model_of(MultiLayerDecoder(CODE_DIM, [5], INPUT_DIM), encoder)


INPUTS = torch.linspace(-1, 1, 3 * INPUT_DIM).reshape(3, INPUT_DIM)
REVERSED = np.ascontiguousarray(INPUTS.numpy()[:, ::-1])[:, ::-1]


@pytest.mark.parametrize(
    "given",
    [
        INPUTS.double(), INPUTS.numpy(), INPUTS.numpy().astype(np.float64), REVERSED,
        INPUTS.numpy().astype(">f4"), INPUTS.reshape(3, 1, 3, 4), INPUTS.numpy().reshape(3, 4, 3),
    ],
)  # fmt: skip
def test_what_is_harmless_is_converted(model: SparseAutoencoder, given):
    with torch.no_grad():
        for method in (model.encode, model, lambda inputs: model.infer(inputs).codes):
            torch.testing.assert_close(method(given), method(INPUTS))


@pytest.mark.parametrize("shape", [(12,), (1, 12), (3, 4), (1, 3, 4), (1, 1, 3, 4)])
def test_a_single_image_is_a_batch_of_one(model: SparseAutoencoder, shape):
    codes = model.encode(INPUTS[0].reshape(shape))
    assert codes.shape == (1, CODE_DIM)
    torch.testing.assert_close(codes, model.encode(INPUTS[:1]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_of_inputs_and_of_models(model: SparseAutoencoder, dtype):
    assert model.encode(INPUTS.to(dtype)).dtype == torch.float32
    half = model.to(dtype)
    assert half.infer(INPUTS).codes.dtype == torch.float32
    assert half.encode(INPUTS).isfinite().all()
    wide = INPUTS.double()
    assert half.infer(wide).codes.dtype == half.infer(wide.numpy()).codes.dtype == torch.float32
    assert half.double().infer(INPUTS).codes.dtype == torch.float64


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (torch.ones(3, 5), r"shape \(3, 5\) do not fit MultiLayerDecoder, whose input_dim is 12"),
        (torch.ones(0, 12), r"shape \(0, 12\) do not fit"),
        (torch.ones(3, 2, 12), r"shape \(3, 2, 12\) do not fit"),
        (torch.ones(()), r"shape \(\) do not fit"),
        (torch.ones(3, 12, dtype=torch.uint8), r"kind torch\.uint8 are .*\(pixel - mean\) / std"),
        (np.ones((3, 12), dtype=np.int64), "kind int64 are no tensor or array of floating"),
        (np.array(["a"]), "are no tensor"),
        (torch.ones(3, 12, dtype=torch.complex64), "kind torch.complex64 are no"),
        ([[1.0] * 12], "kind list are no tensor"),
        (scipy.sparse.csr_array(np.ones((3, 12))), "kind csr_array are no tensor"),
    ],
)  # fmt: skip
def test_what_may_be_a_mistake_is_refused(model: SparseAutoencoder, given, told):
    for method in (model.encode, model.infer):
        with pytest.raises(InputError, match=told):
            method(given)


def test_codes_are_converted_and_checked(model: SparseAutoencoder):
    codes = torch.rand(3, CODE_DIM)
    torch.testing.assert_close(model.decode(codes.double().numpy()), model.decode(codes))
    with pytest.raises(InputError, match=r"shape \(3, 5\) do not fit .*whose code_dim is 4"):
        model.decode(torch.rand(3, 5))
    assert torch.equal(model.decode(codes[0]), model.decode(codes[:1]))
    with pytest.raises(InputError, match=r"shape \(1, 3, 4\) do not fit"):
        model.decode(codes[None])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("solver", [FISTA(0.3, 20, 1e-3), Adaptive(20, 1e-3)])
def test_numbers_that_are_none_are_named(value, solver):
    broken = INPUTS.clone()
    broken[1, 2:5] = broken[2, 0] = value
    told = r"2 of 3 inputs of this batch hold NaN or infinity, the first in row 1 \(3 of its 12"
    for encoder in (None, LISTA(INPUT_DIM, CODE_DIM)):
        model = model_of(LinearDecoder(CODE_DIM, INPUT_DIM), encoder, solver=solver)
        for method in (model.encode, model.infer):
            with pytest.raises(InputError, match=told):
                method(broken)


@pytest.mark.parametrize(
    ("split", "told"),
    [
        ("train", r"1 of 50 inputs of epoch 0, batch \d+ hold NaN"),
        ("val", r"1 of 50 inputs of validation batch 1 hold NaN or infinity, the first in row 10 "),
    ],
)
@pytest.mark.parametrize("family", ["vdl", "do"])
def test_numbers_that_are_none_are_named_in_training(family, split, told, compose_small: Compose):
    config = compose_small(f"model={family}", "trainer.max_epochs=1")
    data, model = instantiate(config.data), instantiate(config.model)
    data.prepare_data()
    data.setup()
    data.splits[split].tensors.inputs[60, 3] = float("nan")
    trainer = lightning.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    with pytest.raises(InputError, match=told):
        trainer.fit(model, data)


@pytest.mark.parametrize("solver", [FISTA(0.3, 5, 1e-3), ISTA(0.3, 5, 1e-3), Adaptive(5, 1e-3)])
@pytest.mark.parametrize("decoder", [LinearDecoder(4, 12), MultiLayerDecoder(4, [5], 12)])
@pytest.mark.parametrize("shape", [(3, 5), (2, 4), (4,), (1, 4)])
def test_start_codes_of_a_wrong_shape_are_refused(solver, decoder, shape):
    objective = Energy(0.01).bind(decoder, INPUTS)
    with pytest.raises(InputError, match=r"start from codes of shape \(3, 4\)"):
        solver(objective, torch.zeros(shape))


def test_an_energy_takes_arrays_and_images():
    decoder, codes = LinearDecoder(CODE_DIM, INPUT_DIM), torch.rand(3, CODE_DIM)
    expected = Energy(0.1).bind(decoder, INPUTS).value(codes)
    for given in (INPUTS.double(), INPUTS.numpy(), INPUTS.reshape(3, 1, 3, 4)):
        torch.testing.assert_close(Energy(0.1).bind(decoder, given).value(codes), expected)


def test_numbers_of_numpy_are_numbers():
    parts = (
        Energy(np.float32(0.1), np.float64(2), np.int64(1), np.float16(0.5)),
        AdamSettings(np.float32(1e-3), 1e-3, decoder_decay_epochs=np.int64(2)),
        UnitColumns(np.float32(2)),
        LinearDecoder(np.int64(4), np.int32(12)),
    )
    for part in parts:
        settings = [
            value
            for name, value in describe(part).items()
            if name not in ("name", "penalty", "betas")
        ]
        assert {type(value) for value in settings} <= {int, float, bool, type(None)}
    objective = parts[0].bind(parts[3], INPUTS, torch.zeros(3, 4))
    assert isinstance(objective.value(torch.rand(3, 4)), Tensor)
    for wrong in (np.float32("nan"), np.float64(-1), True, "1"):
        with pytest.raises(SettingError, match="must be a finite number"):
            Energy(wrong)


@pytest.mark.parametrize("wrong", [0, -1, 2.5, True])
def test_widths_are_counts(wrong):
    for make in (
        lambda: LinearDecoder(wrong, 12), lambda: LinearDecoder(4, wrong),
        lambda: MultiLayerDecoder(4, [wrong], 12), lambda: MultiLayerDecoder(4, [3, wrong], 12),
        lambda: LISTA(wrong, 4),
    ):  # fmt: skip
        with pytest.raises(SettingError, match=r"whole number of at least 1|positive width"):
            make()
    with pytest.raises(SettingError, match="hidden_dims=64 must list"):
        MultiLayerDecoder(4, "64", 12)


def quiet_trainer() -> lightning.Trainer:
    return lightning.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False
    )


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_prediction(model: SparseAutoencoder):
    slices = TensorSlices(INPUTS, torch.tensor(1.0), torch.tensor(0.0))
    loaders = {
        "tensors": DataLoader(INPUTS, batch_size=2),
        "tuples": DataLoader(TensorDataset(INPUTS, torch.arange(3)), batch_size=2),
        "batches": DataLoader(slices, batch_size=2, collate_fn=lambda batch: batch),
    }
    for loader in loaders.values():
        codes = torch.cat(quiet_trainer().predict(model, loader))
        assert codes.shape == (3, CODE_DIM)
    assert isinstance(slices[0], Batch)


class Squashed(Decoder):
    """A network that asks for codes in its own type."""

    def __init__(self, code_dim: int, input_dim: int) -> None:
        super().__init__()
        self.code_dim, self.input_dim = code_dim, input_dim
        self.linear = nn.Linear(code_dim, input_dim)

    def forward(self, codes: Tensor) -> Tensor:
        return torch.tanh(self.linear(codes))


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "32-true"])
@pytest.mark.parametrize("kind", [LinearDecoder, Squashed])
@pytest.mark.parametrize("has_encoder", [True, False])
def test_loaders_of_any_kind_in_any_precision(precision, kind, has_encoder):
    slices = TensorSlices(INPUTS.double(), torch.tensor(1.0), torch.tensor(0.0))
    loaders = (
        DataLoader(INPUTS, batch_size=3),
        DataLoader(slices, batch_size=3, collate_fn=lambda batch: batch),
    )
    found = []
    for loader in loaders:
        torch.manual_seed(1)
        encoder = LISTA(INPUT_DIM, CODE_DIM) if has_encoder else None
        trainer = lightning.Trainer(
            accelerator="cpu", logger=False, enable_progress_bar=False, max_epochs=1,
            enable_model_summary=False, enable_checkpointing=False, precision=precision,
        )  # fmt: skip
        model = model_of(kind(CODE_DIM, INPUT_DIM), encoder).train()
        trainer.fit(model, loader, loader)
        found.append(trainer.callback_metrics["val/energy"])
        assert model.decode(model.infer(INPUTS).codes).shape == INPUTS.shape
    assert found[0].isfinite()
    assert torch.equal(*found)


def test_a_batch_that_fits_stays_as_it_is_and_others_are_checked():
    decoder, scale = LinearDecoder(CODE_DIM, INPUT_DIM), torch.tensor(2.0)
    found = as_batch(Batch(INPUTS, scale), decoder)
    assert torch.equal(found.inputs, INPUTS)
    assert found.scale is scale
    assert as_batch(Batch(INPUTS.double()), decoder).inputs.dtype == torch.float32
    assert as_batch(INPUTS, decoder.half()).inputs.dtype == torch.float16
    with pytest.raises(InputError, match=r"shape \(3, 5\) do not fit"):
        as_batch(Batch(torch.ones(3, 5)), decoder)


class Scale(Decoder):
    """Draws a code as it is, times one number: there is no matrix in it."""

    def __init__(self, code_dim: int) -> None:
        super().__init__()
        self.code_dim = self.input_dim = code_dim
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, codes: Tensor) -> Tensor:
        return self.scale * codes


class Fixed(Scale):
    """Has nothing to learn at all."""

    def __init__(self, code_dim: int) -> None:
        super().__init__(code_dim)
        del self.scale

    def forward(self, codes: Tensor) -> Tensor:
        return codes + 0.0


def test_a_decoder_without_a_matrix_works_or_says_why_not():
    for kind in (Scale, Fixed):
        model = model_of(kind(INPUT_DIM), LISTA(INPUT_DIM, INPUT_DIM))
        assert model.infer(INPUTS).codes.shape == INPUTS.shape
        torch.testing.assert_close(model.decoder.atoms(), torch.eye(INPUT_DIM))
        assert model.configure_optimizers()["optimizer"].param_groups
        with pytest.raises(SettingError, match=f"{kind.__name__} has no columns"):
            model_of(kind(INPUT_DIM), None, constraint=UnitColumns())
    with pytest.raises(SettingError, match=r"model\.decoder=Fixed .*nothing to train"):
        model_of(Fixed(INPUT_DIM), None).configure_optimizers()


class Dictionary(Fixed):
    """A dictionary that is given, with a mask of its atoms before it."""

    def __init__(self, code_dim: int) -> None:
        super().__init__(code_dim)
        self.register_buffer("is_used", torch.ones(code_dim, dtype=torch.bool))
        self.register_buffer("atoms_of_columns", torch.eye(code_dim))

    def forward(self, codes: Tensor) -> Tensor:
        return (codes * self.is_used) @ self.atoms_of_columns


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_dictionary_that_is_given_has_a_type_and_a_device(dtype):
    model = model_of(Dictionary(INPUT_DIM), LISTA(INPUT_DIM, INPUT_DIM)).to(dtype)
    finer = torch.promote_types(dtype, torch.float32)
    with torch.no_grad():
        assert model.infer(INPUTS).codes.dtype == finer
        assert model.decode(INPUTS).dtype == dtype
    assert model.decoder.atoms().dtype == dtype
    model.decoder.to("meta")
    assert as_inputs(INPUTS, model.decoder).is_meta
    assert model.decoder.atoms().is_meta


class Forgetful(Scale):
    def __init__(self, code_dim: int, gain: float = 1.0) -> None:
        super().__init__(code_dim)


class Holding(Scale):
    def __init__(self, code_dim: int, held: object) -> None:
        super().__init__(code_dim)
        self.held = held


def test_an_argument_that_cannot_be_described_is_named():
    with pytest.raises(
        SettingError, match=r"Forgetful does not keep its argument 'gain'.*self\.gain"
    ):
        model_of(Forgetful(INPUT_DIM), None)
    for held in (torch.float32, torch.device("cpu"), torch.relu, lambda codes: codes):
        with pytest.raises(SettingError, match=r"the argument .*, which a checkpoint cannot"):
            model_of(Holding(INPUT_DIM, held), None)


def test_inputs_of_a_decoder_that_says_no_size():
    assert as_inputs(INPUTS, object()) is INPUTS


def test_codes_of_another_number_of_samples_have_no_energy():
    objective = Energy(0.1).bind(LinearDecoder(4, 6), torch.rand(3, 6))
    with pytest.raises(InputError, match=r"start from codes of shape \(3, 4\)"):
        objective.value(torch.ones(1, 4))
