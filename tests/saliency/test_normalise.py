"""Min-max normalisation: range, invariances, a slow twin, finite differences."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from preceptor.saliency.normalise import informative, normalise

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
    out = normalise(values)
    assert ((out >= 0) & (out <= 1)).all()
    assert torch.equal(normalise(out), out)
    if informative(values).item():
        assert out.min() == 0
        assert out.max() == 1
        flat = [cell for row in grid for cell in row]
        low, high = min(flat), max(flat)
        slow = torch.tensor([(cell - low) / (high - low) for cell in flat]).double()
        torch.testing.assert_close(out.flatten(), slow, atol=1e-6, rtol=1e-6)
    else:
        assert not out.any()


@settings(deadline=None, max_examples=100)
@given(seed=st.integers(0, 9999), scale=st.floats(1e-3, 1e3), offset=st.floats(-100, 100))
def test_scale_and_offset_do_not_matter(seed: int, scale: float, offset: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(2, 5, 5, generator=generator, dtype=torch.float64)
    offset *= scale
    torch.testing.assert_close(
        normalise(scale * values + offset), normalise(values), atol=1e-9, rtol=0
    )
    torch.testing.assert_close(normalise(-values), 1 - normalise(values), atol=1e-12, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.0, 1e-4, -0.3, 1234.5])
def test_constants_become_zeros_without_gradient(dtype: torch.dtype, value: float) -> None:
    values = torch.full((2, 3, 3), value, dtype=dtype, requires_grad=True)
    out = normalise(values)
    assert out.dtype == dtype
    assert not out.any()
    out.sum().backward()
    assert values.grad is not None
    assert not values.grad.any()
    assert not informative(values).any()


def test_rounding_around_a_constant_is_no_information() -> None:
    values = torch.full((1, 7, 7), 0.7)
    values[0, 3, 3] += 1e-7
    assert not informative(values).any()
    assert not normalise(values).any()
    values[0, 3, 3] += 1e-3
    assert informative(values).all()


def test_tiny_maps_count_by_their_shape_not_their_size() -> None:
    values = 1e-20 * torch.rand(1, 4, 4)
    assert informative(values).all()
    assert normalise(values).max() == 1


@pytest.mark.parametrize("scale", [1e-45, 1e-41, 1e-38, 1e-36, 1e-32, 1e-28, 1e-12])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_map_is_so_small_that_its_gradient_is_no_number(scale: float, dtype: Any) -> None:
    values = (scale * torch.rand(2, 14, 14, dtype=torch.float64)).to(dtype).requires_grad_()
    out = normalise(values)
    (out - torch.rand(14, 14)).square().sum().sqrt().backward()
    assert values.grad is not None
    assert values.grad.isfinite().all()
    assert informative(values.detach()).tolist() == [scale > 1e-30] * 2
    assert values.grad.flatten(1).any(1).tolist() == [scale > 1e-30] * 2


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64])
def test_masks_are_maps(dtype: torch.dtype) -> None:
    mask = torch.tensor([[[0, 1], [0, 0]], [[1, 1], [1, 1]]]).to(dtype)
    assert informative(mask).tolist() == [True, False]
    assert torch.equal(normalise(mask), normalise(mask.float()))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_non_finite_maps_say_nothing(bad: float) -> None:
    values = torch.rand(3, 4, 4)
    values[1, 2, 2] = bad
    values[2] = bad
    assert informative(values).tolist() == [True, False, False]


def test_maps_do_not_touch_each_other() -> None:
    values = torch.rand(3, 4, 4)
    alone = normalise(values)
    values[1] = float("nan")
    together = normalise(values)
    assert torch.equal(alone[[0, 2]], together[[0, 2]])
    assert normalise(torch.zeros(0, 4, 4)).shape == (0, 4, 4)


def test_gradient_goes_through_minimum_and_maximum() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(2, 3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(normalise, values)

    # By hand: the sum of cells moves with the minimum and the maximum as well.
    weights = torch.rand(2, 3, 4, generator=generator, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((weights * normalise(values)).sum(), values)
    for index in (values[0].argmin().item(), values[0].argmax().item(), 5):
        moved = values.detach().clone()
        moved[0].view(-1)[index] += 1e-6
        slope = (weights * (normalise(moved) - normalise(values.detach()))).sum() / 1e-6
        assert gradient[0].view(-1)[index].item() == pytest.approx(slope.item(), abs=1e-4)
        assert abs(slope) > 1e-3
