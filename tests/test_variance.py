"""The variance hinge and its moments, against their definitions and autograd."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sparse_lightning.variance import Moments, VarianceHinge


def codes_of(deviations: list[float], count: int = 9) -> Tensor:
    """Codes whose components have these standard deviations, about means of their own."""
    codes = torch.randn(count, len(deviations)).double()
    codes = (codes - codes.mean(0)) / codes.std(0)
    return codes * torch.tensor(deviations).double() + torch.arange(len(deviations))


def value(hinge: VarianceHinge, codes: Tensor) -> Tensor:
    return hinge.value(Moments.of(codes))


def test_moments_merge_exactly():
    """Also of one sample, and of samples that lie far from 0."""
    codes = codes_of([1e-3] * 6) + 5
    for first in (1, 2, 8):
        merged = Moments.of(codes[:first]).merge(Moments.of(codes[first:]))
        assert merged.count == 9
        torch.testing.assert_close(merged.standard_deviation(), codes.std(0), rtol=1e-9, atol=0)
        torch.testing.assert_close(merged.mean, codes.mean(0))
    assert Moments.of(codes).merge(None).count == 9


def test_value_is_the_formula():
    codes = codes_of([0.0, 0.1, 0.49, 0.51, 3.0])
    expected = 7 * (0.5**2 + 0.4**2 + 0.01**2)
    assert float(value(VarianceHinge(7.0, 0.5), codes)) == pytest.approx(expected)


def test_gradient_is_that_of_autograd():
    """Of components below the threshold, of those above, and, by definition 0, of constant ones."""
    hinge = VarianceHinge(7.0, 0.5)
    codes = codes_of([0.1, 0.4, 0.6, 3.0, 0.0]).requires_grad_()
    (expected,) = torch.autograd.grad(value(hinge, codes[:, :4]), codes)
    found = hinge.gradient(codes.detach(), Moments.of(codes.detach()))
    torch.testing.assert_close(found, expected)
    assert found[:, :2].all()
    assert not found[:, 2:].any()


@pytest.mark.parametrize("mean", [0.3, 1.0, 7.7])
def test_a_component_of_small_relative_deviation_has_a_gradient_in_float32(mean: float):
    """Its σ is 1e-5 of its mean: five times what passes for rounding, 16 · 2⁻²³."""
    hinge, codes = VarianceHinge(7.0, 0.5), mean * (1 + codes_of([1e-5], count=250)).float()
    expected = hinge.gradient(codes.double(), Moments.of(codes.double()))
    found = hinge.gradient(codes, Moments.of(codes))
    assert float((found - expected).norm() / expected.norm()) < 0.03


def test_gradient_of_some_samples_has_the_moments_of_all():
    hinge, codes = VarianceHinge(7.0, 0.5), codes_of([0.1, 0.4, 0.6])
    moments = Moments.of(codes)
    torch.testing.assert_close(
        hinge.gradient(codes[2:5], moments), hinge.gradient(codes, moments)[2:5]
    )


@pytest.mark.parametrize("size", [1e-3, 0.1, 1.0, 10.0])
def test_curvature_bound_holds(size: float):
    """f(y) ≤ f(x) + ⟨∇f(x), y − x⟩ + L/2 ‖y − x‖², near and far, on both sides of T."""
    hinge = VarianceHinge(50.0, 0.5)
    bound = hinge.curvature_bound(9)
    for _ in range(20):
        codes, step = codes_of([0.05, 0.3, 0.49, 0.51, 2.0]), size * torch.randn(9, 5).double()
        slope = (hinge.gradient(codes, Moments.of(codes)) * step).sum()
        highest = value(hinge, codes) + slope + bound / 2 * step.square().sum()
        assert value(hinge, codes + step) <= highest * (1 + 1e-9)


def test_curvature_bound_is_reached():
    """Where a component is stretched: σ grows as the stretch does."""
    hinge, codes = VarianceHinge(50.0, 5.0), codes_of([1.0])
    step = 1e-3 * (codes - codes.mean(0))
    turned = value(hinge, codes + step) + value(hinge, codes - step) - 2 * value(hinge, codes)
    assert float(turned / step.square().sum()) == pytest.approx(hinge.curvature_bound(9), rel=1e-6)


def test_nothing_merges_into_anything():
    codes = torch.rand(5, 3)
    some, none = Moments.of(codes), Moments.of(codes[:0])
    for merged in (some.merge(none), none.merge(some)):
        assert merged.count == 5
        torch.testing.assert_close(merged.standard_deviation(), codes.std(0))


def test_one_sample_has_no_deviation():
    assert Moments.of(torch.rand(1, 3)).standard_deviation().tolist() == [0, 0, 0]
