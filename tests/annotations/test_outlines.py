from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage

from preceptor.annotations.shapes import Floats, fill, joined, outline


def filled(regions: list[list[Floats]], shape: tuple[int, ...], one_ring: bool) -> np.ndarray:
    canvas = np.zeros(shape, np.uint8)
    for rings in regions:
        own = np.zeros(shape, np.uint8)
        for ring in [joined(rings)] if one_ring else rings:
            part = np.zeros(shape, np.uint8)
            fill(part, ring)
            own ^= part
        canvas |= own
    return canvas > 0


def cloud(seed: int, size: int = 90, blur: float = 3) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal((size, size + 11))
    return ndimage.gaussian_filter(noise, blur) > 0


masks = arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=12))


@settings(max_examples=300, deadline=None)
@given(masks)
def test_filled_outlines_are_the_mask(mask: np.ndarray) -> None:
    regions = outline(mask)
    assert (filled(regions, mask.shape, one_ring=False) == mask).all()
    assert (filled(regions, mask.shape, one_ring=True) == mask).all()


@settings(max_examples=200, deadline=None)
@given(masks)
def test_numbers_of_regions_and_holes_are_those_of_opencv(mask: np.ndarray) -> None:
    found = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)[1]
    parents = [int(row[3]) for row in found[0]] if found is not None else []
    regions = outline(mask)
    assert len(regions) == sum(parent < 0 for parent in parents)
    assert sum(len(rings) - 1 for rings in regions) == sum(parent >= 0 for parent in parents)


@pytest.mark.parametrize("seed", range(3))
def test_outlines_are_opencvs_to_a_pixel(seed: int) -> None:
    """OpenCV's contours run through the centers of the outermost pixels, ours along their edge."""
    mask = cloud(seed)
    theirs = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]
    centers = np.concatenate([one.reshape(-1, 2) for one in theirs]) + 0.5
    outer = np.concatenate([rings[0] for rings in outline(ndimage.binary_fill_holes(mask))])
    away = np.hypot(*(outer[:, None] - centers[None]).transpose(2, 0, 1)).min(axis=1)
    assert away.max() <= 0.5**0.5 + 1e-9


@pytest.mark.parametrize("seed", range(3))
def test_points_lie_within_half_a_pixel_of_the_border(seed: int) -> None:
    mask = cloud(seed)
    padded = np.pad(mask, 1)
    # Midpoints and ends of all sides of pixels between inside and outside.
    border = []
    for axis, (dx, dy) in ((0, (1, 0)), (1, (0, 1))):
        rows, columns = np.nonzero(np.diff(padded.astype(int), axis=axis))
        x, y = columns - (axis == 0), rows - (axis == 1)
        border += [np.stack([x + t * dx, y + t * dy], 1) for t in (0, 0.25, 0.5, 0.75, 1)]
    points = np.concatenate(border)
    rings = [ring for rings in outline(mask) for ring in rings]
    for ring in rings:
        middle = (ring + np.roll(ring, 1, axis=0)) / 2
        for place in (ring, middle):
            away = np.hypot(*(place[:, None] - points[None]).transpose(2, 0, 1)).min(axis=1)
            assert away.max() <= 0.5


def test_simplified_outlines_keep_the_region() -> None:
    mask = cloud(1, 300, 8)
    exact, simple = outline(mask), outline(mask, 1.0)
    back = filled(simple, mask.shape, one_ring=True)
    points = [sum(len(ring) for rings in regions for ring in rings) for regions in (exact, simple)]
    assert points[1] < points[0] / 2
    assert (back & mask).sum() / (back | mask).sum() > 0.95
    off = ndimage.distance_transform_edt(mask) + ndimage.distance_transform_edt(~mask)
    assert off[back != mask].max() <= 2  # 1 of the outline, ½ of the ring, ½ of the pixel's center


def test_an_empty_mask_has_no_outline() -> None:
    assert outline(np.zeros((3, 4), bool)) == []
