"""Taps and weighted rows, against loops and torch's own resizing."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as vision

from preceptor.data.resampling import (
    blur_radius,
    gaussian_taps,
    taps_needed,
    triangle_taps,
    weighted_rows,
)


@settings(deadline=None)
@given(
    start=st.integers(0, 9),
    extent=st.integers(1, 60),
    count=st.integers(1, 40),
    more=st.integers(0, 3),
)
def test_triangle_taps_resize_as_torch_does(start: int, extent: int, count: int, more: int) -> None:
    rows = torch.rand(start + extent + 5, 1, dtype=torch.float64)
    taps = triangle_taps(
        torch.tensor([float(start)]),
        torch.tensor([float(extent)]),
        count,
        taps_needed(extent, count) + more,
    )
    index, weight = taps
    assert start <= index.min() <= index.max() < start + extent
    found = weighted_rows(rows[None].float(), index, weight)[0, :, 0]
    part = rows[start : start + extent].T[None, None]
    expected = vision.resize(part, [1, count], antialias=True)[0, 0, 0].float()
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)


@given(sigmas=st.lists(st.floats(0.1, 2), min_size=1, max_size=4), count=st.integers(1, 30))
def test_gaussian_taps_sum_to_one_within_the_image(sigmas: list[float], count: int) -> None:
    radius = max(map(blur_radius, sigmas))
    index, weight = gaussian_taps(torch.tensor(sigmas), count, radius, 6)
    assert 0 <= index.min() <= index.max() < count
    torch.testing.assert_close(weight.sum(2), torch.ones(len(sigmas), count))
    alone = gaussian_taps(torch.tensor(sigmas[:1]), count, blur_radius(sigmas[0]), 6)[1]
    assert torch.equal(alone[0, 0], weight[0, 0][weight[0, 0] > 0])


def test_weighted_rows_are_sums_of_rows() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(3, 7, 4, generator=generator)
    index = torch.randint(0, 7, (3, 5, 2), generator=generator)
    weight = torch.rand(3, 5, 2, generator=generator)
    found = weighted_rows(images, index, weight)
    for n in range(3):
        for row in range(5):
            expected = sum(weight[n, row, k] * images[n, index[n, row, k]] for k in range(2))
            torch.testing.assert_close(found[n, row], expected)
