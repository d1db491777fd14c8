"""What a training rule makes of a batch, against the formulas written out."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from sparse_lightning.data.batch import Batch
from sparse_lightning.data.own import data_of
from sparse_lightning.decoders import LinearDecoder, MultiLayerDecoder, UnitColumns
from sparse_lightning.distributed import Processes
from sparse_lightning.encoders import LISTA, Encoder
from sparse_lightning.energy import Energy
from sparse_lightning.errors import SettingError
from sparse_lightning.model import SparseAutoencoder
from sparse_lightning.optimizers import AdamSettings
from sparse_lightning.penalties import NonNegativeL0, NonNegativeLogSum
from sparse_lightning.registry import build, describe, register
from sparse_lightning.solvers import FISTA
from sparse_lightning.sparse_encoders import (
    BatchTopKEncoder,
    JumpReLUEncoder,
    ReLUEncoder,
    TopKEncoder,
)
from sparse_lightning.training.preparation import made_model, require_metric
from sparse_lightning.training_rules import (
    AuxK,
    EndToEnd,
    InferThenRegress,
    TrainingRule,
    TrainingStep,
)

D, L, N = 6, 8, 10


def model_of(encoder, energy=None, decoder=None, **settings) -> SparseAutoencoder:
    rule = settings.pop("training_rule", None) or EndToEnd()
    return SparseAutoencoder(
        decoder=decoder or LinearDecoder(L, D, has_bias=True),
        encoder=encoder,
        energy=energy or Energy(0.05),
        solver=FISTA(0.5),
        optimizer=AdamSettings(1e-3, 1e-3),
        training_rule=rule,
        **settings,
    ).double()


def batch_of(inputs: Tensor) -> Batch:
    return Batch(inputs, torch.tensor(1.0), torch.tensor(0.0))


@pytest.fixture
def inputs() -> Tensor:
    return torch.randn(N, D).double()


def gradients(model: SparseAutoencoder, loss: Tensor) -> dict[str, Tensor]:
    named = dict(model.named_parameters())
    found = torch.autograd.grad(loss, list(named.values()), retain_graph=True, allow_unused=True)
    return dict(zip(named, found))


def assert_same_gradients(model: SparseAutoencoder, ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)
    expected = gradients(model, theirs)
    for name, gradient in gradients(model, ours).items():
        assert gradient is not None, name
        torch.testing.assert_close(gradient, expected[name], rtol=1e-10, atol=1e-13)


def test_l1_sae_of_bricken_et_al(inputs):
    model = model_of(ReLUEncoder(D, L, subtracts_decoder_bias=True))
    with torch.no_grad():
        model.decoder.bias.normal_()
    step = model.training_rule(model, batch_of(inputs))
    encoder, decoder = model.encoder.input, model.decoder
    codes = torch.relu((inputs - decoder.bias) @ encoder.weight.T + encoder.bias)
    rebuilt = codes @ decoder.weight.T + decoder.bias
    squared, l1 = (inputs - rebuilt).square().sum(1), codes.sum(1)
    assert_same_gradients(model, step.loss, (squared / D + 0.05 * l1).mean())
    torch.testing.assert_close(step.terms["reconstruction"], squared.sum() / D)
    torch.testing.assert_close(step.terms["sparsity"], 0.05 * l1.sum())
    torch.testing.assert_close(model.encode(inputs), codes)
    assert step.solution is None
    assert not step.codes.requires_grad


def test_jump_relu_of_rajamanoharan_et_al(inputs):
    encoder = JumpReLUEncoder(D, L, 0.6, 0.3)
    model = model_of(encoder, Energy(0.05, penalty=NonNegativeL0()))
    step = model.training_rule(model, batch_of(inputs))
    codes, drive = encoder.encode_with_preactivations(inputs)
    rebuilt = model.decoder(codes)
    norms = encoder.penalize(codes, drive, NonNegativeL0())
    expected = ((inputs - rebuilt).square().mean(1) + 0.05 * norms).mean()
    assert_same_gradients(model, step.loss, expected)
    assert float(step.terms["sparsity"]) == pytest.approx(0.05 * int((codes != 0).sum()))


def test_top_k_learns_through_what_is_active_alone(inputs):
    model = model_of(TopKEncoder(D, L, 2), Energy(0.0))
    step = model.training_rule(model, batch_of(inputs))
    rebuilt = model.decoder(model.encode(inputs))
    assert_same_gradients(model, step.loss, mse_loss(rebuilt, inputs))


def test_the_error_of_the_decoder_reaches_an_encoder_of_any_kind_and_depth(inputs):
    model = model_of(LISTA(D, L, 2), decoder=MultiLayerDecoder(L, [7, 9], D))
    step = model.training_rule(model, batch_of(inputs))
    codes = model.encoder(inputs)
    expected = mse_loss(model.decoder(codes), inputs) + 0.05 * codes.sum(1).mean()
    assert_same_gradients(model, step.loss, expected)


def test_sparsity_warms_up_linearly(inputs, monkeypatch):
    model = model_of(ReLUEncoder(D, L), training_rule=EndToEnd(sparsity_warmup_steps=4))
    full = 0.05 * float(model.encode(inputs).detach().sum())
    monkeypatch.setattr(model, "_trainer", object())
    for done, share in ((0, 0.0), (1, 0.25), (3, 0.75), (4, 1.0), (40, 1.0)):
        monkeypatch.setattr(SparseAutoencoder, "global_step", done)
        terms = model.training_rule(model, batch_of(inputs)).terms
        assert float(terms["sparsity"]) == pytest.approx(share * full)


def literal_auxk(model, inputs, dead: list[int], num_units: int) -> Tensor:
    """Gao et al. 2024, appendix A.2, one sample after another."""
    total = 0.0
    for x in inputs:
        drive = model.encoder.input.weight @ x + model.encoder.input.bias
        code = model.encode(x[None])[0]
        error = (x - model.decoder.weight @ code - model.decoder.bias).detach()
        values = drive.tolist()
        strongest = sorted(dead, key=lambda j, own=values: -own[j])[:num_units]
        rebuilt = sum(model.decoder.weight[:, j] * drive[j].clamp(min=0) for j in strongest)
        total = total + (error - rebuilt).square().mean()
    return total / len(inputs)


@pytest.mark.parametrize("num_units", [2, 50])
def test_dead_units_learn_from_what_is_left(inputs, num_units):
    rule = EndToEnd(auxiliary=AuxK(0.25, num_units, dead_after=3 * N))
    model = model_of(TopKEncoder(D, L, 2), Energy(0.0), training_rule=rule)
    with torch.no_grad():
        model.encoder.input.bias[:4] = -0.5 * model.encoder.input.weight[:4].abs().sum(1)
        model.encoder.input.bias[4:] = 5
    for _ in range(2):
        step = rule(model, batch_of(inputs))
        assert step.terms["auxiliary"] == 0, "no unit is dead yet"
        torch.testing.assert_close(step.loss, mse_loss(model(inputs), inputs))
    step = rule(model, batch_of(inputs))
    dead = (model.encode(inputs) == 0).all(0).nonzero().flatten().tolist()
    assert len(dead) >= 4
    drive = inputs @ model.encoder.input.weight.T + model.encoder.input.bias
    assert (drive[:, dead] > 0).any(), "the case that is meant"
    expected = mse_loss(model(inputs), inputs)
    expected = expected + 0.25 * literal_auxk(model, inputs, dead, num_units)
    assert_same_gradients(model, step.loss, expected)
    assert model.training_rule.auxiliary.idle.tolist() == [3 * N * (j in dead) for j in range(L)]


def test_auxk_of_public_programs(inputs):
    """dictionary_learning's, without the division by the variance of what is left."""
    model = model_of(TopKEncoder(D, L, 2), Energy(0.0))
    codes, drive = model.encoder.encode_with_preactivations(inputs)
    rebuilt = model.decoder(codes)
    auxiliary = AuxK(1 / 32, 3, dead_after=1)
    auxiliary.begin(L)
    dead = (codes == 0).all(0)
    dead[:3] = True
    auxiliary.idle.copy_(dead * 5)
    auxiliary.count = lambda codes: auxiliary.idle
    found = auxiliary(model.decoder, inputs, rebuilt, codes, drive)
    theirs = torch.where(dead[None], drive.relu(), -torch.inf)
    top = theirs.topk(min(3, int(dead.sum())), sorted=False)
    own = torch.zeros_like(drive).scatter(-1, top.indices, top.values)
    error = (inputs - rebuilt).detach() - own @ model.decoder.weight.T
    torch.testing.assert_close(found, error.square().mean(1) / 32)


def test_what_is_idle_is_counted_over_samples_and_kept_in_checkpoints(inputs):
    rule = EndToEnd(auxiliary=AuxK(0.1, 4, 100))
    model = model_of(BatchTopKEncoder(D, L, 2), Energy(0.0), training_rule=rule)
    idle = [0] * L
    for _ in range(4):
        codes = rule(model, batch_of(torch.randn(N, D).double())).codes
        active = (codes != 0).any(0).tolist()
        idle = [0 if active[j] else idle[j] + N for j in range(L)]
        assert model.training_rule.auxiliary.idle.tolist() == idle
    assert "training_rule.auxiliary.idle" in model.state_dict()
    again = SparseAutoencoder(**model.hparams).double()
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.encode(inputs), model.encode(inputs))
    assert describe(again.training_rule) == describe(rule)


class OneOther(Processes):
    """Another process, in this one, whose codes are given."""

    def __init__(self, codes: Tensor) -> None:
        self.codes = codes

    def total(self, part: Tensor) -> Tensor:
        if part.ndim == 0:
            return part + len(self.codes) * 2
        return part + torch.cat([(self.codes != 0).sum(0), torch.tensor([len(self.codes)])])

    def gather(self, part: Tensor) -> Tensor:
        return torch.cat([part, self.codes.flatten().topk(len(part)).values])


def test_processes_share_what_a_batch_keeps_and_what_is_idle(inputs, monkeypatch):
    encoder = BatchTopKEncoder(D, L, 2).double()
    whole, _ = encoder.encode_with_preactivations(inputs)
    half, auxiliary = N // 2, AuxK(0.1, 3, 100)
    auxiliary.begin(L)
    with torch.no_grad():
        positive = torch.relu(encoder.input(inputs))
    monkeypatch.setattr(Processes, "present", lambda: OneOther(positive[half:]))
    part, _ = encoder.encode_with_preactivations(inputs[:half])
    torch.testing.assert_close(part, whole[:half])
    monkeypatch.setattr(Processes, "present", lambda: OneOther(whole[half:].detach()))
    idle = auxiliary.count(part)
    assert idle.tolist() == [0 if active else N for active in (whole != 0).any(0).tolist()]


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float64])
def test_sums_are_fine_whatever_the_precision_of_training(inputs, kind):
    rule = EndToEnd(auxiliary=AuxK(0.1, 3, 1))
    model = model_of(TopKEncoder(D, L, 2), training_rule=rule).to(kind)
    step = rule(model, batch_of(inputs.to(kind)))
    expected = torch.promote_types(kind, torch.float32)
    assert {step.loss.dtype, step.codes.dtype} == {expected}
    assert {term.dtype for term in step.terms.values()} == {expected}


def test_the_papers_rule_has_no_state_of_its_own():
    model = model_of(LISTA(D, L), training_rule=InferThenRegress())
    assert not [name for name in model.state_dict() if name.startswith("training_rule")]


def test_the_regression_leaves_the_decoders_bias_alone(inputs):
    encoder = BatchTopKEncoder(D, L, 2, subtracts_decoder_bias=True)
    model = model_of(encoder, Energy(0.05, encoder_weight=1.0), training_rule=InferThenRegress())
    with torch.no_grad():
        model.decoder.bias.normal_()
    prediction, _ = copy.deepcopy(encoder).encode_with_preactivations(inputs - model.decoder.bias)
    step = model.training_rule(model, batch_of(inputs))
    expected = mse_loss(model.decoder(step.codes), inputs)
    found = gradients(model, step.loss)
    torch.testing.assert_close(found["decoder.bias"], gradients(model, expected)["decoder.bias"])
    torch.testing.assert_close(step.loss, expected + mse_loss(prediction, step.codes))
    assert found["encoder.input.weight"].any()
    assert encoder.threshold > 0


def test_filters_begin_as_atoms():
    rule = EndToEnd(starts_transposed=True)
    model = model_of(ReLUEncoder(D, L), constraint=UnitColumns(), training_rule=rule)
    torch.testing.assert_close(model.encoder.input.weight, model.decoder.weight.T)
    assert not model.encoder.input.bias.any()


def test_gradients_along_unit_columns_are_taken_off(inputs):
    rule = EndToEnd(projects_gradients=True)
    model = model_of(ReLUEncoder(D, L), constraint=UnitColumns(0.5), training_rule=rule)
    with torch.no_grad():
        model.decoder.weight[:, 2] = 0
    model.training_step(batch_of(inputs), 0).backward()
    weight, given = model.decoder.weight, model.decoder.weight.grad.clone()
    model.on_before_optimizer_step(None)
    for j in range(L):
        direction = weight[:, j].detach() / weight[:, j].detach().norm().clamp_min(1e-30)
        expected = given[:, j] - (given[:, j] @ direction) * direction
        torch.testing.assert_close(weight.grad[:, j], expected, rtol=1e-10, atol=1e-14)


class Regress(TrainingRule):
    """A rule of a user's own."""

    metric = "val/reconstruction"

    def forward(self, model, batch):
        codes = model.predict_codes(batch.inputs).detach()
        rebuilt = model.decoder(codes)
        zero = codes.new_zeros(())
        terms = dict.fromkeys(("reconstruction", "sparsity", "variance", "encoder"), zero)
        return TrainingStep(mse_loss(rebuilt, batch.inputs), codes, terms, rebuilt)


def test_a_rule_of_ones_own(inputs):
    model = model_of(LISTA(D, L), training_rule=Regress())
    expected = mse_loss(model.decoder(model.encode(inputs).detach()), inputs)
    torch.testing.assert_close(model.training_step(batch_of(inputs), 0), expected)


def test_descriptions_of_rules_build_them_again():
    for rule in (InferThenRegress("val/psnr"), EndToEnd(AuxK(0.1, 3, 7), 5, True, True)):
        again = build(copy.deepcopy(describe(rule)))
        assert type(again) is type(rule)
        assert describe(again) == describe(rule)


@pytest.mark.parametrize(
    ("encoder", "energy", "message"),
    [
        (None, Energy(0.1), r"EndToEnd needs an encoder"),
        (ReLUEncoder(D, L), Energy(0.1, 1.0), r"model\.energy\.variance_weight=1\.0 belongs to"),
        (LISTA(D, L), Energy(0.1, encoder_weight=2.0), r"model\.energy\.encoder_weight=2\.0"),
        (
            ReLUEncoder(D, L),
            Energy(0.1, penalty=NonNegativeL0()),
            r"penalty=NonNegativeL0 has no gradient by which model\.encoder=ReLUEncoder",
        ),
    ],
)
def test_parts_that_do_not_fit_the_rule_are_refused(encoder, energy, message):
    with pytest.raises(SettingError, match=message):
        model_of(encoder, energy)


def test_filters_that_cannot_begin_as_atoms_are_refused():
    class Dense(Encoder):
        """Its filters have no name that the rule knows."""

        def __init__(self) -> None:
            super().__init__()
            self.input_dim, self.code_dim = D, L
            self.dense = torch.nn.Linear(D, L)

        def forward(self, inputs: Tensor) -> Tensor:
            return self.dense(inputs).relu()

    with pytest.raises(SettingError, match=r"starts_transposed=true needs .*encoder=Dense has not"):
        model_of(Dense(), Energy(0.1), training_rule=EndToEnd(starts_transposed=True))


def test_a_penalty_without_gradient_is_refused_only_where_it_is_to_teach():
    assert model_of(ReLUEncoder(D, L), Energy(0.0, penalty=NonNegativeL0()))
    with torch.no_grad():
        assert model_of(JumpReLUEncoder(D, L, 0.6, 0.3), Energy(0.1, penalty=NonNegativeL0()))
        assert model_of(ReLUEncoder(D, L), Energy(0.1, penalty=NonNegativeLogSum()))


def test_a_bias_that_is_not_there_cannot_be_subtracted():
    with pytest.raises(SettingError, match=r"model\.decoder\.has_bias=true"):
        model_of(ReLUEncoder(D, L, subtracts_decoder_bias=True), decoder=LinearDecoder(L, D))


def test_a_rule_of_an_encoder_is_not_lost_with_its_forward(inputs):
    class Scaled:
        def forward(self, inputs):
            return super().forward(2 * inputs)

    class Whole(Scaled):
        def encode_with_preactivations(self, inputs):
            return super().encode_with_preactivations(2 * inputs)

    for base, settings in ((BatchTopKEncoder, (2,)), (JumpReLUEncoder, (0.6, 0.3))):
        for rule in (EndToEnd(), InferThenRegress()):
            lost = type("Lost", (Scaled, base), {})(D, L, *settings)
            with pytest.raises(SettingError, match=r"Lost .* encode_with_preactivations\(\)"):
                model_of(lost, training_rule=rule)
            whole = type("Whole", (Whole, base), {})(D, L, *settings)
            model_of(whole, training_rule=rule).training_step(batch_of(inputs), 0)


def test_an_encoder_without_pre_activations_cannot_teach_dead_units():
    with pytest.raises(SettingError, match=r"needs pre-activations, which model\.encoder=LISTA"):
        model_of(LISTA(D, L), training_rule=EndToEnd(auxiliary=AuxK(0.1, 3, 1)))


def test_a_warm_up_without_a_trainer_is_refused(inputs):
    """Nobody would count its steps, and λ would stay 0."""
    model = model_of(ReLUEncoder(D, L), training_rule=EndToEnd(sparsity_warmup_steps=5))
    with pytest.raises(SettingError, match="sparsity_warmup_steps=5 counts the steps of a Trainer"):
        model.training_step(batch_of(inputs), 0)


def test_a_rule_of_ones_own_names_the_metric_of_the_best_model(compose_small):
    rule = f"model.training_rule._target_={__name__}.Regress"
    config = compose_small("model=sdl", rule)
    assert config.callbacks.checkpoint.monitor == Regress.metric
    model, data = made_model(config), data_of(config.data)
    require_metric(config, model, data)
    assert model.training_rule.metric == Regress.metric
    other = compose_small("model=sdl", rule, "model.training_rule.metric=val/energy")
    with pytest.raises(SettingError, match=f"metric=val/energy is not {Regress.metric}.*imports="):
        require_metric(other, made_model(other), data)


@pytest.mark.parametrize(
    "metric", ["val/psnr", "val/r2", "val/enrgy", "train/energy", "val/relative_error"]
)
def test_a_metric_that_does_not_tell_the_best_model_is_refused(compose_small, metric):
    config = compose_small("model=l1_sae", f"model.training_rule.metric={metric}")
    with pytest.raises(SettingError, match=rf"metric={metric}.*take val/ and one of .*energy"):
        require_metric(config, made_model(config), data_of(config.data))


@register
class Listed(LinearDecoder):
    def __init__(self, code_dim: int, input_dim: int, widths: list) -> None:
        super().__init__(code_dim, input_dim)
        self.widths = widths


def test_a_part_of_ones_own_may_take_a_list(compose_small):
    settings = (
        "model=sdl",
        f"model.decoder._target_={__name__}.Listed",
        "+model.decoder.widths=[3,4]",
    )
    assert made_model(compose_small(*settings)).descriptions["decoder"]["widths"] == [3, 4]
