"""Matrix products by oneDNN: what torch's own give, only where they are to be had."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sparse_lightning import products
from sparse_lightning.products import relu_layer, through_relu, times, times_less

needs_onednn = pytest.mark.skipif(
    not products._is_as_expected(), reason="this torch comes without oneDNN"
)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, ...]]]:
    """The shapes of what oneDNN is asked for, on a machine where it is the faster one."""
    shapes, linear = [], products._linear

    def recorded(inputs: Tensor, weight: Tensor, *more: object) -> Tensor:
        shapes.append((*inputs.shape, len(weight)))
        return linear(inputs, weight, *more)

    monkeypatch.setattr(products, "onednn_is_faster", lambda: True)
    monkeypatch.setattr(products, "_linear", recorded)
    with torch.no_grad():
        yield shapes


def layouts(rows: int, columns: int) -> list[Tensor]:
    """Random numbers, stored row by row, column by column, and as a part of something larger."""
    larger = torch.randn(rows + 3, columns + 5)
    return [
        torch.randn(rows, columns),
        torch.randn(columns, rows).T,
        larger[2:-1, 4:-1],
        torch.randn(1, columns).expand(rows, columns),
    ]


def assert_rounded(product: Tensor, exact: Tensor, scale: Tensor) -> None:
    """Within the rounding of float32, ``scale`` being the sum of what was added up, unsigned."""
    assert product.dtype == torch.float32
    assert ((product.double() - exact).abs() <= 1e-6 * scale + 1e-12).all()


@needs_onednn
@pytest.mark.parametrize("sizes", [(130, 128, 160), (1, 1500, 1500), (1500, 1500, 1)])
def test_products_of_any_layout(sizes: tuple[int, int, int], asked: list) -> None:
    torch.manual_seed(0)
    n, k, m = sizes
    for left in layouts(n, k):
        for right in layouts(k, m):
            exact = left.double() @ right.double()
            scale = left.double().abs() @ right.double().abs()
            assert_rounded(times(left, right), exact, scale)
            out = torch.empty(n, m)
            assert times(left, right, out) is out
            assert_rounded(out, exact, scale)
            less = torch.randn(n, m)
            assert_rounded(times_less(left, right, less), exact - less, scale + less.abs())
            assert times_less(left, right, less, out) is out
            assert_rounded(out, exact - less, scale + less.abs())
            bias = torch.randn(m)
            layer = relu_layer(left, right.T, bias)
            assert_rounded(layer, (exact + bias).relu(), scale + bias.abs())
    assert len(asked) >= 4 * 5, "of the two layouts that are dense, at least"


@needs_onednn
def test_inputs_are_left_alone(asked: list) -> None:
    left, right, less = torch.randn(200, 150), torch.randn(150, 140), torch.randn(200, 140)
    copies = [tensor.clone() for tensor in (left, right, less)]
    times(left, right)
    times_less(left, right, less)
    relu_layer(left, right.T, less[0])
    assert len(asked) == 3
    for tensor, copy in zip((left, right, less), copies):
        assert torch.equal(tensor, copy)


@needs_onednn
def test_infinities_and_nan_stay(asked: list) -> None:
    left, right = torch.ones(200, 150), torch.ones(150, 140)
    left[3, 4], left[5, 6] = torch.inf, torch.nan
    product, layer = times(left, right), relu_layer(left, right.T, torch.zeros(140))
    assert len(asked) == 2
    for tensor in (product, layer):
        assert tensor[3].isinf().all()
        assert tensor[5].isnan().all()
        assert torch.isfinite(tensor).sum() == 198 * 140


def test_the_rest_is_torchs_own(asked: list) -> None:
    left, right = torch.randn(130, 128), torch.randn(128, 160)
    assert torch.equal(times(left.double(), right.double()), left.double() @ right.double())
    assert torch.equal(times(left[:2], right), left[:2] @ right), "too small to pay"
    wide = torch.randn(128, 300)
    assert torch.equal(times(left, wide[:, :160]), left @ wide[:, :160]), "part of a larger matrix"
    assert torch.equal(times(wide[:, :160].T, wide), wide[:, :160].T @ wide)
    assert times(left[:0], right).shape == (0, 160)
    with torch.enable_grad():
        weight = right.clone().requires_grad_()
        times(left, weight).sum().backward()
        torch.testing.assert_close(weight.grad, left.sum(0)[:, None].expand(128, 160))
    assert asked == []


def test_gradients_pass_where_a_unit_is_active() -> None:
    activation, gradient = torch.randn(7, 9).relu_(), torch.randn(7, 9)
    activation[2, 3] = 0
    expected = gradient * (activation > 0)
    result = through_relu(gradient, activation)
    assert result is gradient
    assert torch.equal(gradient, expected)


@needs_onednn
@pytest.mark.parametrize("change", ["intel", "no cpuinfo", "no avx512", "no operator", "other"])
def test_only_where_it_is_faster(
    change: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: object) -> Tensor:
        raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute")

    info = tmp_path / "cpuinfo"
    info.write_text("vendor_id\t: AuthenticAMD\n")
    monkeypatch.setattr(products, "CPU_INFO", info)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    is_faster = products.onednn_is_faster.__wrapped__
    assert is_faster()
    if change == "intel":
        info.write_text("vendor_id\t: GenuineIntel\n")
    elif change == "no cpuinfo":
        info.unlink()
    elif change == "no avx512":
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    elif change == "no operator":
        monkeypatch.setattr(products, "_linear", fail)
    else:
        monkeypatch.setattr(products, "_linear", lambda inputs, *_: torch.zeros(2, 4))
    assert not is_faster()


@needs_onednn
def test_the_default_dtype_does_not_matter() -> None:
    torch.set_default_dtype(torch.float64)
    try:
        assert products._is_as_expected()
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("is_faster", [True, False])
def test_advantage(is_faster: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "onednn_is_faster", lambda: is_faster)
    assert (products.advantage() > 1) == is_faster
