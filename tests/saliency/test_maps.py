"""Min-max normalisation and post-processing: range, invariances, slow twins, finite differences."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from preceptor.config import PostProcessing
from preceptor.data.geometry import TURNS, turn_all
from preceptor.saliency.maps import informative, normalise, post_process

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


# Post-processing.


def slow_normalise(grid: list[list[float]]) -> list[list[float]]:
    flat = [cell for row in grid for cell in row]
    low, high = min(flat), max(flat)
    return [[(cell - low) / (high - low) if high > low else 0.0 for cell in row] for row in grid]


def slow_post_process(grid: list[list[float]], settings: PostProcessing) -> list[list[float]]:
    """One cell at a time: a weighted mean over all cells, then the curve, then the threshold."""
    grid = slow_normalise(grid)
    height, width = len(grid), len(grid[0])
    if settings.blur:
        blurred = [[0.0] * width for _ in range(height)]
        for i in range(height):
            for j in range(width):
                total = weights = 0.0
                for y in range(height):
                    for x in range(width):
                        up = (y - i) / (settings.blur * height)
                        along = (x - j) / (settings.blur * width)
                        weight = math.exp(-(up**2 + along**2) / 2)
                        total += weight * grid[y][x]
                        weights += weight
                blurred[i][j] = total / weights
        grid = slow_normalise(blurred)
    curved = [[value**settings.power for value in row] for row in grid]
    cut = [[0.0 if value < settings.threshold else value for value in row] for row in curved]
    return slow_normalise(cut)


post_settings = st.builds(
    PostProcessing,
    blur=st.sampled_from([0.0, 0.05, 0.2, 1.0]),
    power=st.sampled_from([0.5, 1.0, 2.0]),
    threshold=st.sampled_from([0.0, 0.3, 0.9]),
)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 9999),
    shape=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    post=post_settings,
)
def test_post_processing_is_the_loop(
    seed: int, shape: tuple[int, int], post: PostProcessing
) -> None:
    generator = torch.Generator().manual_seed(seed)
    maps = 10 * torch.rand(3, *shape, generator=generator, dtype=torch.float64) - 4
    found = post_process(maps, post)
    for one, expected in zip(found, maps.tolist(), strict=True):
        slow = torch.tensor(slow_post_process(expected, post), dtype=torch.float64)
        torch.testing.assert_close(one, slow, atol=1e-9, rtol=0)


def test_no_post_processing_is_normalisation() -> None:
    maps = 7 * torch.rand(4, 5, 5) - 2
    assert torch.equal(post_process(maps, PostProcessing()), normalise(maps))


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 9999), post=post_settings, turn=st.sampled_from(TURNS))
def test_flips_and_turns_may_come_before_or_after(
    seed: int, post: PostProcessing, turn: object
) -> None:
    maps = torch.rand(2, 6, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    before = post_process(turn_all(maps, turn), post)  # type: ignore[arg-type]
    after = turn_all(post_process(maps, post), turn)  # type: ignore[arg-type]
    torch.testing.assert_close(before, after, atol=1e-9, rtol=0)


@pytest.mark.parametrize("value", [0.0, 0.3, -5.0, 1234.5])
def test_a_constant_map_stays_one(value: float) -> None:
    maps = torch.rand(3, 7, 7, generator=torch.Generator().manual_seed(0))
    maps[1] = value
    found = post_process(maps, PostProcessing(blur=0.1, power=0.5, threshold=0.1))
    assert informative(found).tolist() == [True, False, True]
    assert not found[1].any()


def test_a_blur_keeps_a_constant_at_the_border() -> None:
    half = torch.zeros(1, 8, 8)
    half[:, :, 4:] = 1
    found = post_process(half, PostProcessing(blur=0.1))
    # Along the edge nothing changes from row to row, at the border either.
    torch.testing.assert_close(found, found[:, :1].expand_as(found), atol=1e-6, rtol=0)
    assert ((found[0, 0, 1:] - found[0, 0, :-1]) > 0).all()


def test_a_threshold_keeps_the_peak_of_a_blurred_map() -> None:
    peak = torch.zeros(1, 7, 7)
    peak[0, 3, 3] = 1
    found = post_process(peak, PostProcessing(blur=0.3, threshold=0.5))
    assert found[0, 3, 3] == 1
    assert 0 < (found == 0).sum() < 49


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_post_processing_does_not_hide_a_map_that_cannot_be_used(bad: float) -> None:
    maps = torch.rand(3, 5, 5, generator=torch.Generator().manual_seed(0))
    post = PostProcessing(blur=0.1, power=2, threshold=0.1)
    alone = post_process(maps, post)
    maps[1, 2, 2] = bad
    found = post_process(maps, post)
    assert informative(found).tolist() == [True, False, True]
    torch.testing.assert_close(found[[0, 2]], alone[[0, 2]])
    assert post_process(torch.zeros(0, 4, 4), post).shape == (0, 4, 4)
