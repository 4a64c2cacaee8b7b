"""Normalization and correlation of maps."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from preceptor.errors import InputError
from preceptor.saliency.maps import correlation, informative, normalize


def maps(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random maps of few levels, none of them constant."""
    rng = np.random.default_rng(seed)
    a, b = (rng.integers(0, 4, (6, 4, 5)) / 3 for _ in range(2))
    for each in (a, b):
        each[:, 0, 0], each[:, 0, 1] = 0, 1
    return torch.from_numpy(a), torch.from_numpy(b)


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_correlation_is_scipys(seed: int) -> None:
    a, b = maps(seed)
    values, valid = correlation(a, b)
    assert valid.all()
    pairs = zip(a, b, strict=True)
    expected = [stats.pearsonr(x.numpy().ravel(), y.numpy().ravel()).statistic for x, y in pairs]
    np.testing.assert_allclose(values.numpy(), expected, atol=1e-9)
    assert correlation(a, 3 * a).values.numpy() == pytest.approx(1, abs=1e-6)


def test_maps_that_say_nothing_are_nan_and_not_valid() -> None:
    a, b = maps(2)
    whole = correlation(a, b).values
    a[0], b[1], a[2, 1, 1], b[3, 2, 2], b[4] = 0.3, 1.0, math.nan, math.inf, 0.0
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        values, valid = correlation(a.to(dtype), b.to(dtype))
        assert valid.tolist() == [False] * 5 + [True]
        assert values[:5].isnan().all()
        assert values[5].item() == pytest.approx(whole[5].item(), abs=0.05)
    empty = correlation(a[:0], b[:0])
    assert empty.values.shape == empty.valid.shape == (0,)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_map_that_is_constant_up_to_rounding_is_not_valid(dtype: torch.dtype) -> None:
    """As guidance takes it: its correlation would be that of its rounding errors."""
    generator = torch.Generator().manual_seed(0)
    rounded = 3 + 2e-7 * torch.randn(2, 7, 7, generator=generator)
    other = torch.rand(2, 7, 7, generator=generator)
    assert (rounded != rounded[:, :1, :1]).any()
    for pair in ((rounded, other), (other, rounded)):
        found = correlation(*(one.to(dtype) for one in pair))
        assert not found.valid.any()
        assert found.values.isnan().all()


def test_unlike_shapes_are_refused() -> None:
    for a, b in (((2, 7, 7), (2, 1, 7)), ((2, 7, 7), (1, 7, 7)), ((7, 7), (7, 7))):
        with pytest.raises(InputError, match="must have the same shape"):
            correlation(torch.rand(a), torch.rand(b))


cells = st.floats(-1e6, 1e6, allow_subnormal=False)
grids = st.integers(1, 6).flatmap(
    lambda w: st.lists(st.lists(cells, min_size=w, max_size=w), min_size=1, max_size=5)
)


def as_map(grid: list[list[float]]) -> torch.Tensor:
    return torch.tensor([grid], dtype=torch.float64)


@settings(deadline=None, max_examples=100)
@given(grid=grids)
def test_range_order_and_idempotence(grid: list[list[float]]) -> None:
    values = as_map(grid)
    out = normalize(values)
    assert ((out >= 0) & (out <= 1)).all()
    assert torch.equal(normalize(out), out)
    if informative(values).item():
        assert out.min() == 0
        assert out.max() == 1
        flat = [cell for row in grid for cell in row]
        low, high = min(flat), max(flat)
        slow = torch.tensor([(cell - low) / (high - low) for cell in flat]).double()
        torch.testing.assert_close(out.flatten(), slow, atol=1e-6, rtol=1e-6)
    else:
        assert not out.any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.0, 1e-4, -0.3, 1234.5])
def test_constants_become_zeros_without_gradient(dtype: torch.dtype, value: float) -> None:
    values = torch.full((2, 3, 3), value, dtype=dtype, requires_grad=True)
    out = normalize(values)
    assert out.dtype == dtype
    assert not out.any()
    out.sum().backward()
    assert values.grad is not None
    assert not values.grad.any()
    assert not informative(values).any()


@pytest.mark.parametrize("scale", [1e-45, 1e-41, 1e-38, 1e-36, 1e-32, 1e-28, 1e-12])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_map_is_so_small_that_its_gradient_is_no_number(scale: float, dtype: Any) -> None:
    values = (scale * torch.rand(2, 14, 14, dtype=torch.float64)).to(dtype).requires_grad_()
    out = normalize(values)
    (out - torch.rand(14, 14)).square().sum().sqrt().backward()
    assert values.grad is not None
    assert values.grad.isfinite().all()
    assert informative(values.detach()).tolist() == [scale > 1e-30] * 2
    assert values.grad.flatten(1).any(1).tolist() == [scale > 1e-30] * 2


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_non_finite_maps_say_nothing(bad: float) -> None:
    values = torch.rand(3, 4, 4)
    values[1, 2, 2] = bad
    values[2] = bad
    assert informative(values).tolist() == [True, False, False]
