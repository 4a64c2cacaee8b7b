from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from preceptor.annotations.shapes import (
    POINT_RADIUS,
    Box,
    Ellipse,
    Floats,
    Mask,
    Pixels,
    Points,
    Polygon,
    Polyline,
    fill,
    joined,
    outline,
    rasterize,
)


def slow(rings: list[Floats], width: int, height: int) -> Pixels:
    """The even-odd rule at the center of each pixel."""
    out = np.zeros((height, width), np.uint8)
    for row in range(height):
        for column in range(width):
            x, y, inside = column + 0.5, row + 0.5, False
            for ring in rings:
                for (x0, y0), (x1, y1) in pairwise([*ring, ring[0]]):
                    crosses = (y0 <= y) != (y1 <= y)
                    if crosses and x0 + (y - y0) * (x1 - x0) / (y1 - y0) <= x:
                        inside = not inside
            out[row, column] = 255 * inside
    return out


POINT = st.tuples(st.integers(-20, 80), st.integers(-20, 80))
RING = st.lists(POINT, min_size=1, max_size=7).map(lambda points: np.array(points) / 4.0)


@settings(max_examples=150, deadline=None)
@given(st.lists(RING, min_size=1, max_size=3), st.integers(1, 18), st.integers(1, 18))
@example([np.array([(10, 34), (69, 55)]) / 4.0], 3, 9)  # an edge there and back, over a center
def test_polygons_are_filled_by_the_even_odd_rule(
    rings: list[Floats], width: int, height: int
) -> None:
    for ring in rings:
        found = rasterize([Polygon((ring,))], width, height)
        assert (found == slow([ring], width, height)).all()


@settings(max_examples=50, deadline=None)
@given(st.lists(RING, min_size=1, max_size=4))
def test_parts_are_united(rings: list[Floats]) -> None:
    found = rasterize([Polygon(tuple(rings))], 15, 12)
    apart = [slow([ring], 15, 12) for ring in rings]
    assert (found == np.max(apart, axis=0)).all()
    assert (found == rasterize([Polygon((ring,)) for ring in rings], 15, 12)).all()


@pytest.mark.parametrize("degrees", [0, 30, 90, -45, 180, 725])
def test_a_box_turns_clockwise_about_its_center(degrees: float) -> None:
    found = rasterize([Box(30, 40, 60, 20, degrees)], 120, 100)
    corners = cv2.boxPoints(((60, 50), (60, 20), degrees))  # clockwise as well
    assert (found == rasterize([Polygon((corners.astype(np.float64),))], 120, 100)).mean() > 0.999
    assert abs(int((found > 0).sum()) - 1200) <= 40


def test_an_ellipse_has_its_area_and_direction() -> None:
    found = rasterize([Ellipse(60.5, 50.5, 40, 15, 30)], 120, 100) > 0
    assert abs(found.sum() - np.pi * 600) < 20
    y, x = np.nonzero(found)
    turned = np.cov(x, y)
    assert turned[0, 1] > 0  # down to the right: clockwise
    assert np.degrees(np.arctan2(2 * turned[0, 1], turned[0, 0] - turned[1, 1]) / 2) == (
        pytest.approx(30, abs=0.5)
    )


def test_lines_have_a_width_and_points_a_radius() -> None:
    line = np.array([[10.5, 10.5], [40.5, 10.5], [40.5, 40.5]])
    found = rasterize([Polyline(line)], 60, 60)
    assert found[9:12, 20].all()
    assert not found[8, 20]
    assert not found[12, 20]
    assert found[25, 39:42].all()
    dots = Points(np.array([[15.5, 20.5], [50.5, 50.5]]))
    area = (rasterize([dots], 80, 60) > 0).sum()
    assert abs(area - 2 * np.pi * (POINT_RADIUS * 60) ** 2) < 12


def test_parts_outside_are_cut_off() -> None:
    assert rasterize([Box(-5, -5, 1e12, 7)], 4, 3).tolist() == [[255] * 4, [255] * 4, [0] * 4]
    mask = Mask(np.full((4, 4), 200, np.uint8), -2, 1)
    assert rasterize([mask], 3, 3).tolist() == [[0] * 3, [200, 200, 0], [200, 200, 0]]
    assert not rasterize([Box(10, 10, 2, 2), Mask(mask.pixels, 9, 9)], 4, 3).any()


def test_shapes_of_no_pixel_center_draw_nothing() -> None:
    assert not rasterize([Box(1.6, 1.6, 0.8, 0.8), Polygon((np.zeros((4, 2)),))], 4, 4).any()


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


masks = arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=12))


@settings(max_examples=300, deadline=None)
@given(masks)
def test_filled_outlines_are_the_mask(mask: np.ndarray) -> None:
    regions = outline(mask)
    assert (filled(regions, mask.shape, one_ring=False) == mask).all()
    assert (filled(regions, mask.shape, one_ring=True) == mask).all()
