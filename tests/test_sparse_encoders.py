"""The encoders of sparse autoencoders against loops, and against public programs' formulas.

Those of SAELens, dictionary_learning and overcomplete are written out here on hand-made numbers.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap

from sparse_lightning.errors import SettingError
from sparse_lightning.penalties import NonNegativeL0, NonNegativeL1
from sparse_lightning.sparse_encoders import (
    BatchTopKEncoder,
    JumpReLUEncoder,
    ReLUEncoder,
    SparseEncoder,
    TopKEncoder,
)

INPUT_DIM, CODE_DIM = 5, 7
ENCODERS = {
    "relu": lambda: ReLUEncoder(INPUT_DIM, CODE_DIM),
    "topk": lambda: TopKEncoder(INPUT_DIM, CODE_DIM, 2),
    "batchtopk": lambda: BatchTopKEncoder(INPUT_DIM, CODE_DIM, 2),
    "jumprelu": lambda: JumpReLUEncoder(INPUT_DIM, CODE_DIM, 0.4, 0.2),
}


def identity(encoder: SparseEncoder) -> SparseEncoder:
    """The encoder, whose pre-activations are then its inputs."""
    with torch.no_grad():
        encoder.input.weight.copy_(torch.eye(encoder.code_dim))
    return encoder.double()


def preactivations(encoder: SparseEncoder, inputs: Tensor) -> Tensor:
    return inputs @ encoder.input.weight.T + encoder.input.bias


@pytest.mark.parametrize("make", ENCODERS.values(), ids=ENCODERS)
def test_codes_of_a_sample_do_not_depend_on_its_batch(make):
    encoder = make()
    encoder.encode_with_preactivations(torch.randn(9, INPUT_DIM))
    inputs = torch.randn(9, INPUT_DIM)
    together = encoder(inputs)
    alone = torch.cat([encoder(row[None]) for row in inputs])
    torch.testing.assert_close(together, alone)
    assert (together >= 0).all()
    assert encoder.filters().shape == (CODE_DIM, INPUT_DIM)


def test_top_k_by_a_loop():
    encoder = TopKEncoder(INPUT_DIM, CODE_DIM, 3)
    inputs = torch.randn(20, INPUT_DIM)
    expected = torch.zeros(20, CODE_DIM)
    for row, values in enumerate(preactivations(encoder, inputs).tolist()):
        best = sorted(range(CODE_DIM), key=lambda j, own=values: -own[j])[:3]
        for j in best:
            expected[row, j] = max(values[j], 0.0)
    torch.testing.assert_close(encoder(inputs), expected)


def test_top_k_of_public_programs():
    """SAELens takes the relu behind the k largest, dictionary_learning before: the same codes."""
    encoder = identity(TopKEncoder(4, 4, 3))
    inputs = torch.tensor([[0.5, -1.0, 2.0, 0.25], [-3.0, 1.0, -0.5, -2.0]]).double()
    saelens = torch.zeros_like(inputs)
    top = inputs.topk(3, dim=-1, sorted=False)
    saelens.scatter_(-1, top.indices, top.values.relu())
    assert torch.equal(encoder(inputs), saelens)
    assert encoder(inputs).tolist() == [[0.5, 0.0, 2.0, 0.25], [0.0, 1.0, 0.0, 0.0]]


def test_batch_top_k_by_a_loop():
    encoder = BatchTopKEncoder(INPUT_DIM, CODE_DIM, 2)
    inputs = torch.randn(6, INPUT_DIM)
    values = preactivations(encoder, inputs)
    kept = sorted(values.flatten().tolist(), reverse=True)[: 2 * 6]
    assert kept[-1] > 0, "the case that is meant"
    codes, given = encoder.encode_with_preactivations(inputs)
    torch.testing.assert_close(given, values)
    expected = torch.where(values >= kept[-1] * (1 - 1e-6), values, 0.0)
    torch.testing.assert_close(codes, expected)
    assert int((codes != 0).sum()) == 2 * 6
    assert len(set((codes != 0).sum(1).tolist())) > 1, "samples share what is active unevenly"


def test_batch_top_k_of_public_programs():
    """Bussmann et al., SAELens and dictionary_learning: the k n largest of the flat relu."""
    encoder = identity(BatchTopKEncoder(3, 3, 1, threshold_decay=0.75))
    first = torch.tensor([[5.0, 4.0, -1.0], [1.0, 0.5, -2.0]]).double()
    second = torch.tensor([[0.5, 2.0, 1.0], [-1.0, 0.25, 8.0]]).double()
    thresholds, codes = [], []
    for inputs in (first, second):
        flat = inputs.relu().flatten()
        top = flat.topk(1 * len(inputs))
        theirs = torch.zeros_like(flat).scatter(-1, top.indices, top.values).view(inputs.shape)
        codes.append(encoder.encode_with_preactivations(inputs)[0])
        assert torch.equal(codes[-1], theirs)
        smallest = float(theirs[theirs > 0].min())
        # dictionary_learning begins with the first batch's, and then averages.
        before = thresholds[-1] if thresholds else smallest
        thresholds.append(0.75 * before + 0.25 * smallest)
        assert float(encoder.threshold) == pytest.approx(thresholds[-1])
    assert thresholds == [4.0, 3.5]
    assert encoder(second).tolist() == [[0.0, 0.0, 0.0], [0.0, 0.0, 8.0]]


def test_fewer_positive_components_than_a_batch_may_have():
    encoder = identity(BatchTopKEncoder(3, 3, 2))
    inputs = torch.tensor([[5.0, -4.0, -1.0], [-1.0, 0.5, -2.0]]).double()
    codes, _ = encoder.encode_with_preactivations(inputs)
    assert torch.equal(codes, inputs.relu())
    assert torch.equal(encoder(inputs), inputs.relu())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_the_threshold_of_a_half_type_moves_by_small_steps(dtype):
    encoder = identity(BatchTopKEncoder(3, 3, 1)).to(dtype)
    inputs = torch.tensor([[1.0, 0.5, -1.0]], dtype=dtype)
    for scale in (1.0, *500 * (0.75,)):
        encoder.encode_with_preactivations(scale * inputs)
    assert float(encoder.threshold) == pytest.approx(0.75, abs=0.01)


def test_the_threshold_has_the_type_of_the_weights_and_float32_at_least():
    encoder = BatchTopKEncoder(3, 3, 1).double().float()
    assert encoder.threshold.dtype == torch.float32
    assert encoder.double().half().threshold.dtype == torch.float32


def test_reading_codes_does_not_move_the_threshold():
    encoder = BatchTopKEncoder(INPUT_DIM, CODE_DIM, 2)
    encoder.encode_with_preactivations(torch.randn(6, INPUT_DIM))
    before = encoder.threshold.clone()
    encoder.train()(torch.randn(6, INPUT_DIM) * 10)
    assert torch.equal(encoder.threshold, before)
    assert "threshold" in encoder.state_dict()


class TheirJumpReLU(torch.autograd.Function):
    """SAELens and dictionary_learning: by hand, with the gradient of each threshold."""

    @staticmethod
    def forward(ctx, x, threshold, bandwidth):
        ctx.save_for_backward(x, threshold)
        ctx.bandwidth = bandwidth
        return x * (x > threshold)

    @staticmethod
    def backward(ctx, grad):
        x, threshold = ctx.saved_tensors
        u = (x - threshold) / ctx.bandwidth
        rectangle = ((u > -0.5) & (u < 0.5)).to(x)
        by_threshold = (-(threshold / ctx.bandwidth) * rectangle * grad).sum(0)
        return (x > threshold) * grad, by_threshold, None


class TheirStep(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, threshold, bandwidth):
        ctx.save_for_backward(x, threshold)
        ctx.bandwidth = bandwidth
        return (x > threshold).to(x)

    @staticmethod
    def backward(ctx, grad):
        x, threshold = ctx.saved_tensors
        u = (x - threshold) / ctx.bandwidth
        rectangle = ((u > -0.5) & (u < 0.5)).to(x)
        return torch.zeros_like(x), (-(1 / ctx.bandwidth) * rectangle * grad).sum(0), None


def test_jump_relu_and_both_pseudo_derivatives_of_public_programs():
    encoder = JumpReLUEncoder(INPUT_DIM, CODE_DIM, 0.4, 0.2).double()
    with torch.no_grad():
        encoder.log_threshold.copy_(torch.linspace(-2.5, -0.5, CODE_DIM))
    inputs, slopes = torch.randn(40, INPUT_DIM).double(), torch.randn(40, CODE_DIM).double()
    weight, bias, log_threshold = (
        p.detach().clone().requires_grad_()
        for p in (encoder.input.weight, encoder.input.bias, encoder.log_threshold)
    )
    drive, threshold = inputs @ weight.T + bias, log_threshold.exp()
    their_codes = TheirJumpReLU.apply(drive, threshold, 0.4)
    their_norms = TheirStep.apply(drive, threshold, 0.4).sum(-1)
    codes, given = encoder.encode_with_preactivations(inputs)
    norms = encoder.penalize(codes, given, NonNegativeL0())
    torch.testing.assert_close(codes, their_codes)
    torch.testing.assert_close(norms, their_norms)
    assert torch.equal(norms, (codes != 0).double().sum(-1))
    parameters = [encoder.input.weight, encoder.input.bias, encoder.log_threshold]
    for ours, theirs in (
        ((codes * slopes).sum(), (their_codes * slopes).sum()),
        ((norms * slopes[:, 0]).sum(), (their_norms * slopes[:, 0]).sum()),
    ):
        found = torch.autograd.grad(ours, parameters, retain_graph=True, allow_unused=True)
        expected = torch.autograd.grad(
            theirs, [weight, bias, log_threshold], retain_graph=True, allow_unused=True
        )
        for one, other in zip(found, expected):
            one, other = (torch.zeros(()) if g is None else g for g in (one, other))
            if not one.any() and not other.any():
                continue
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)
        assert found[2].abs().max() > 0


def test_the_pseudo_derivative_estimates_that_of_the_expected_norm():
    """By finite differences of the mean over many samples (section 4 of the paper)."""
    encoder = identity(JumpReLUEncoder(1, 1, 0.2, 1.0))
    samples = torch.randn(400_000, 1).double()
    norms = encoder.penalize(encoder(samples), samples, NonNegativeL0())
    found = torch.autograd.grad(norms.mean(), encoder.log_threshold)[0]
    above, below = (float((samples > 1 + shift).double().mean()) for shift in (0.1, -0.1))
    assert float(found) == pytest.approx((above - below) / 0.2, rel=1e-6)
    assert float(found) == pytest.approx(-0.24197, rel=0.03), "the density at 1, negative"


def test_other_penalties_have_their_own_gradient():
    encoder = JumpReLUEncoder(INPUT_DIM, CODE_DIM, 0.4, 0.2)
    codes, given = encoder.encode_with_preactivations(torch.randn(4, INPUT_DIM))
    penalty = NonNegativeL1()
    assert torch.equal(encoder.penalize(codes, given, penalty), penalty.value(codes))


@pytest.mark.parametrize("name", ["relu", "topk", "jumprelu"])
def test_stacked_encoders_have_the_codes_that_they_have_one_by_one(name):
    encoders = [ENCODERS[name]().double() for _ in range(3)]
    inputs = torch.randn(3, 4, INPUT_DIM).double()

    def call(state: dict[str, Tensor], own: Tensor) -> Tensor:
        return functional_call(encoders[0], state, own)

    parameters, buffers = stack_module_state(encoders)
    found = vmap(call)(parameters | buffers, inputs)
    expected = torch.stack([encoder(own) for encoder, own in zip(encoders, inputs)])
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TopKEncoder(5, 7, 8), r"model\.encoder\.k=8 is more than"),
        (lambda: TopKEncoder(5, 7, 0), r"model\.encoder\.k=0"),
        (lambda: BatchTopKEncoder(5, 7, 2, 1.0), r"model\.encoder\.threshold_decay=1\.0"),
        (lambda: BatchTopKEncoder(5, 7, 2, "0.9"), r"model\.encoder\.threshold_decay=0\.9 must"),
        (lambda: JumpReLUEncoder(5, 7, 0.0, 0.1), r"model\.encoder\.bandwidth=0\.0"),
        (lambda: JumpReLUEncoder(5, 7, 0.1, -1), r"model\.encoder\.initial_threshold=-1"),
    ],
)
def test_bad_settings(make, message):
    with pytest.raises(SettingError, match=message):
        make()


class Scaled(TopKEncoder):
    """It sees what it is given times 3."""

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(3 * inputs)


def test_a_subclass_trains_by_its_own_forward():
    encoder, inputs = Scaled(INPUT_DIM, CODE_DIM, 2), torch.randn(4, INPUT_DIM)
    codes, preactivations = encoder.encode_with_preactivations(inputs)
    assert torch.equal(codes, encoder(inputs))
    assert preactivations is codes
    # One whose pre-activations are its own still has them.
    torch.testing.assert_close(
        TopKEncoder.encode_with_preactivations(encoder, inputs)[1], encoder.input(inputs)
    )
