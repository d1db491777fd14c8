"""What must hold for every family, whatever its parts."""

from __future__ import annotations

import pytest
import torch
from conftest import FAMILIES
from hydra.utils import instantiate

from sparse_lightning.data.batch import Batch
from sparse_lightning.decoders import LinearDecoder, MultiLayerDecoder
from sparse_lightning.errors import CheckpointError, DivergenceError, SettingError
from sparse_lightning.model import SparseAutoencoder
from sparse_lightning.registry import build, describe
from sparse_lightning.train import train

SAMPLES = 40


@pytest.fixture(params=FAMILIES)
def model(request, compose) -> SparseAutoencoder:
    # White noise has no structure to find: at the paper's λ its codes would be zero.
    small = ("hidden_dim=48", "model.energy.sparsity_weight=0.0005")
    return instantiate(compose(f"model={request.param}", *small).model)


@pytest.fixture
def batch() -> Batch:
    return Batch(torch.randn(SAMPLES, 784), torch.tensor(0.3081), torch.tensor(0.1307))


def test_parts_are_those_of_the_family(model: SparseAutoencoder):
    name = model.family
    assert isinstance(model.decoder, MultiLayerDecoder if name.endswith("_nl") else LinearDecoder)
    assert (model.encoder is None) is name.startswith("do")
    assert (model.constraint is not None) is name.startswith(("sdl", "do"))
    assert (model.energy.hinge is not None) is name.startswith("vdl")
    decays = model.optimizer_settings.decoder_weight_decay
    assert decays == (5e-4 if name.startswith("wdl") else 0)


def test_shapes_and_signs(model: SparseAutoencoder, batch: Batch):
    codes = model.encode(batch.inputs)
    assert codes.shape == (SAMPLES, 128)
    assert (codes >= 0).all()
    assert model.decode(codes).shape == model(batch.inputs).shape == (SAMPLES, 784)
    solution = model.infer(batch.inputs)
    assert (solution.codes >= 0).all()
    assert not solution.codes.requires_grad


def test_energy_falls_during_inference(model: SparseAutoencoder, batch: Batch):
    with torch.no_grad():
        prediction = None if model.encoder is None else model.encoder(batch.inputs)
        objective = model.energy.bind(model.decoder, batch.inputs, prediction)
        start = torch.zeros(SAMPLES, 128) if prediction is None else prediction
        found = model.infer(batch.inputs).codes
        assert objective.value(found) < objective.value(start)


def test_every_parameter_gets_a_gradient(model: SparseAutoencoder, batch: Batch):
    model.training_step(batch, 0).backward()
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert trainable
    for name, parameter in trainable.items():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("family", FAMILIES)
def test_checkpoint_round_trip(family, compose_small, batch: Batch, tmp_path):
    config = compose_small(f"model={family}", "trainer.max_epochs=1")
    train(config)
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    first = SparseAutoencoder.load_from_checkpoint(path)
    second = SparseAutoencoder.load_from_checkpoint(path)
    assert first.family == family
    assert torch.equal(first.encode(batch.inputs), second.encode(batch.inputs))
    trained = instantiate(config.model)
    trained.load_state_dict(torch.load(path, weights_only=True)["state_dict"], strict=False)
    assert torch.equal(trained.encode(batch.inputs), first.encode(batch.inputs))
    assert torch.equal(trained.infer(batch.inputs).codes, first.infer(batch.inputs).codes)
    if first.constraint is not None:
        for norms in first.decoder.column_norms():
            torch.testing.assert_close(norms, torch.ones_like(norms))


def test_checkpoints_hold_descriptions_of_the_packages_own_parts(model: SparseAutoencoder):
    for part in (model.decoder, model.energy, model.solver, model.optimizer_settings):
        again = build(describe(part))
        assert type(again) is type(part)
        assert describe(again) == describe(part)
    with pytest.raises(CheckpointError, match=r"a part named 'os\.system'"):
        build({"name": "os.system", "command": "true"})


def test_a_step_size_that_diverges_stops_the_run(compose, batch: Batch):
    for family in ("sdl", "vdl", "sdl_nl"):
        small = ("code_dim=16", "hidden_dim=24", "step_size=5000", "solver.safeguard=false")
        config = compose(f"model={family}", *small)
        model = instantiate(config.model)
        with pytest.raises(DivergenceError, match=r"solver\.step_size=5000"):
            model.training_step(batch, 0)
        with pytest.raises(DivergenceError, match=r"solver\.step_size=5000"):
            model.infer(batch.inputs)


def test_parts_that_do_not_fit_are_refused(compose):
    with pytest.raises(SettingError, match=r"model\.energy\.encoder_weight=2.0 needs an encoder"):
        SparseAutoencoder(**{**parts_of("sdl", compose), "encoder": None})
    config = compose("model=sdl", "model.encoder.code_dim=5")
    with pytest.raises(SettingError, match=r"code_dim=128 and model\.encoder\.code_dim=5"):
        instantiate_directly(config.model)


def parts_of(family: str, compose) -> dict:
    model = instantiate(compose(f"model={family}", "model.energy.encoder_weight=2.0").model)
    return {name: value for name, value in model.hparams.items() if name != "family"}


def instantiate_directly(config):
    """Instantiate, and raise the cause that Hydra wraps."""
    try:
        return instantiate(config)
    except Exception as error:
        raise error.__cause__ from error
