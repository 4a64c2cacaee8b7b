"""Post-processing of maps: slow twins, SciPy and scikit-image, invariance to flips and turns."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull

from preceptor.config.maps import PostProcessing
from preceptor.data.geometry import TURNS
from preceptor.data.resampling import turn_all
from preceptor.saliency.normalise import informative, normalise
from preceptor.saliency.postprocess import post_process


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
    return slow_normalise(slow_shape(slow_dilate(cut, settings.dilate), settings.shape))


def slow_dilate(grid: list[list[float]], share: float) -> list[list[float]]:
    if share == 0:
        return grid
    height, width = len(grid), len(grid[0])
    up, along = (max(1, math.floor(share * side + 0.5)) for side in (height, width))
    return [
        [
            max(
                grid[y][x]
                for y in range(max(0, i - up), min(height, i + up + 1))
                for x in range(max(0, j - along), min(width, j + along + 1))
            )
            for j in range(width)
        ]
        for i in range(height)
    ]


def slow_shape(grid: list[list[float]], shape: str) -> list[list[float]]:
    height, width = len(grid), len(grid[0])
    marked = [(i, j) for i in range(height) for j in range(width) if grid[i][j] > 0]
    if shape == "map":
        return grid
    inside = slow_box if shape == "box" else slow_hull
    return [[float(inside(marked, i, j)) for j in range(width)] for i in range(height)]


def slow_box(marked: list[tuple[int, int]], i: int, j: int) -> bool:
    rows, columns = [y for y, _ in marked], [x for _, x in marked]
    return bool(marked) and min(rows) <= i <= max(rows) and min(columns) <= j <= max(columns)


def slow_hull(marked: list[tuple[int, int]], i: int, j: int) -> bool:
    """Whether no line through two lattice points parts the cell from all marked ones.

    A convex polygon of lattice points is the intersection of the half-planes along its edges, and
    edges run along lattice directions no longer than the grid.
    """
    reach = max([1, *(abs(a - b) for p in marked for q in marked for a, b in zip(p, q))])  # noqa: B905
    return bool(marked) and all(
        a * i + b * j <= max(a * y + b * x for y, x in marked)
        for a in range(-reach, reach + 1)
        for b in range(-reach, reach + 1)
    )


post_settings = st.builds(
    lambda **words: PostProcessing(**words),
    blur=st.sampled_from([0.0, 0.05, 0.2, 1.0]),
    power=st.sampled_from([0.5, 1.0, 2.0]),
    threshold=st.sampled_from([0.0, 0.3, 0.9]),
    dilate=st.sampled_from([0.0, 0.01, 0.2, 0.3, 1.0]),
) | st.builds(
    lambda **words: PostProcessing(**words),
    blur=st.sampled_from([0.0, 0.2]),
    threshold=st.sampled_from([0.3, 0.7, 0.95]),
    dilate=st.sampled_from([0.0, 0.0, 0.2]),
    shape=st.sampled_from(["box", "hull"]),
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
        if post.shape != "map":
            assert set(one.unique().tolist()) <= {0.0, 1.0}


def test_no_post_processing_is_normalisation() -> None:
    maps = 7 * torch.rand(4, 5, 5) - 2
    assert torch.equal(post_process(maps, PostProcessing()), normalise(maps))


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 9999), post=post_settings, turn=st.sampled_from(TURNS))
def test_flips_and_turns_may_come_before_or_after(
    seed: int, post: PostProcessing, turn: object
) -> None:
    maps = torch.rand(2, 7, 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    before = post_process(turn_all(maps, turn), post)  # type: ignore[arg-type]
    after = turn_all(post_process(maps, post), turn)  # type: ignore[arg-type]
    torch.testing.assert_close(before, after, atol=1e-9, rtol=0)


def blobs() -> torch.Tensor:
    """Three maps with a grey block off the border, so that no box or hull of it is everything."""
    maps = torch.zeros(3, 7, 7)
    block = torch.rand(3, 3, 2, generator=torch.Generator().manual_seed(0))
    maps[:, 2:5, 3:5] = 0.4 + 0.6 * block
    return maps


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
@pytest.mark.parametrize("blur", [0.0, 0.1])
@pytest.mark.parametrize("shape", ["map", "box", "hull"])
@pytest.mark.parametrize("dilate", [0.0, 0.1])
def test_post_processing_does_not_hide_a_map_that_cannot_be_used(
    bad: float, blur: float, shape: Any, dilate: float
) -> None:
    maps = blobs()
    post = PostProcessing(blur=blur, power=2, threshold=0.3, shape=shape, dilate=dilate)
    alone = post_process(maps, post)
    maps[1, 2, 2] = bad
    found = post_process(maps, post)
    assert informative(found).tolist() == [True, False, True]
    assert not (found[1].isfinite() & (found[1] != 0)).any()
    assert bool(found[1].isnan().all()) == math.isnan(bad)  # with an infinity it is constant: zeros
    torch.testing.assert_close(found[[0, 2]], alone[[0, 2]])
    assert post_process(torch.zeros(0, 4, 4), post).shape == (0, 4, 4)


# Dilation, box and hull of masks, against other libraries.

MARK: dict[str, Any] = {"threshold": 0.5}


def shaped(masks: Any, **words: Any) -> NDArray[np.bool_]:
    """Which cells of each mask are marked after post-processing; none where all would be."""
    maps = torch.from_numpy(np.asarray(masks)).double()
    return post_process(maps, PostProcessing(**(MARK | words))).numpy() == 1


@pytest.mark.parametrize("share", [0.001, 0.1, 0.15, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("shape", [(7, 7), (10, 6), (1, 5), (9, 1)])
def test_dilation_is_scipys(share: float, shape: tuple[int, int]) -> None:
    generator = np.random.default_rng(0)
    maps = generator.random((4, *shape)) ** 3
    maps[0] = 0
    sides = tuple(2 * max(1, math.floor(share * side + 0.5)) + 1 for side in shape)
    start = normalise(torch.from_numpy(maps)).numpy()
    grey = np.stack([ndimage.grey_dilation(one, sides, mode="constant") for one in start])
    found = post_process(torch.from_numpy(maps), PostProcessing(dilate=share))
    np.testing.assert_allclose(found, normalise(torch.from_numpy(grey)), atol=1e-12)


def test_any_dilation_reaches_the_next_cell_and_a_whole_one_all() -> None:
    mark = np.zeros((1, 7, 7), bool)
    mark[0, 3, 4] = True
    for share, reach in ((1e-9, 1), (0.1, 1), (0.2, 1), (0.22, 2), (0.35, 2), (0.36, 3)):
        expected = np.zeros((7, 7), bool)
        expected[max(0, 3 - reach) : 4 + reach, max(0, 4 - reach) : 5 + reach] = True
        np.testing.assert_array_equal(shaped(mark, dilate=share)[0], expected)
    everything = post_process(torch.from_numpy(mark).double(), PostProcessing(dilate=1.0, **MARK))
    assert not informative(everything).any()


def random_masks(seed: int, shape: tuple[int, int], count: int = 12) -> NDArray[np.bool_]:
    """From a single cell to half of them; the last is empty."""
    generator = np.random.default_rng(seed)
    masks = np.zeros((count, *shape), bool)
    for number in range(count - 1):
        cells = generator.permutation(math.prod(shape))[: 1 + number**2 // 2]
        masks[number].flat[cells] = True
    return masks


@pytest.mark.parametrize("shape", [(7, 7), (10, 6), (5, 12), (1, 6), (6, 1)])
@pytest.mark.parametrize("seed", range(4))
def test_the_box_is_scipys(shape: tuple[int, int], seed: int) -> None:
    for mask, found in zip(random_masks(seed, shape), boxes(seed, shape), strict=True):
        expected = np.zeros(shape, bool)
        for part in ndimage.find_objects(mask.astype(int)):
            expected[part] = True
        if not expected.all():  # a box of everything says nothing
            np.testing.assert_array_equal(found, expected)
        else:
            assert not found.any()


def boxes(seed: int, shape: tuple[int, int]) -> NDArray[np.bool_]:
    return shaped(random_masks(seed, shape), shape="box")


def inside_hull(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """By Qhull: the cells where no facet's inequality fails; of masks that have an area."""
    places = np.argwhere(mask)
    every = np.argwhere(np.ones_like(mask))
    facets = ConvexHull(places).equations
    return (every @ facets[:, :2].T + facets[:, 2] <= 1e-9).all(1).reshape(mask.shape)


@pytest.mark.parametrize("shape", [(7, 7), (10, 6), (5, 12), (20, 20)])
@pytest.mark.parametrize("seed", range(6))
def test_the_hull_is_qhulls(shape: tuple[int, int], seed: int) -> None:
    skimage = pytest.importorskip("skimage.morphology", reason="the second oracle")
    masks = random_masks(seed, shape)
    checked = 0
    for mask, found in zip(masks, shaped(masks, shape="hull"), strict=True):
        places = np.argwhere(mask)
        if len(places) < 3 or np.linalg.matrix_rank(places - places[0]) < 2:
            continue
        expected = inside_hull(mask)
        assert expected[mask].all()
        if not expected.all():
            np.testing.assert_array_equal(found, expected)
            scikit = skimage.convex_hull_image(mask, offset_coordinates=False)
            np.testing.assert_array_equal(found, scikit)
            checked += 1
    assert checked >= 4


@pytest.mark.parametrize("side", [2, 7, 10])
def test_the_hull_of_one_cell_and_of_two(side: int) -> None:
    """Of two it is the cells whose centres lie on the line between theirs, no others."""
    generator = np.random.default_rng(side)
    for _ in range(40):
        one, other = generator.integers(0, side, (2, 2))
        mask = np.zeros((1, side, side), bool)
        mask[0, one[0], one[1]] = mask[0, other[0], other[1]] = True
        expected = np.zeros((side, side), bool)
        step = math.gcd(*(other - one).tolist())
        for number in range(step + 1):
            y, x = one + (other - one) * number // max(step, 1)
            expected[y, x] = True
        np.testing.assert_array_equal(shaped(mask, shape="hull")[0], expected)


@settings(deadline=None, max_examples=60)
@given(
    start=st.tuples(st.integers(0, 8), st.integers(0, 8)),
    step=st.tuples(st.integers(-4, 4), st.integers(-4, 4)),
    kept=st.sets(st.integers(0, 8), min_size=1),
)
def test_the_hull_of_cells_in_a_line(
    start: tuple[int, int], step: tuple[int, int], kept: set[int]
) -> None:
    mask = np.zeros((1, 9, 9), bool)
    for number in kept:
        y, x = start[0] + number * step[0], start[1] + number * step[1]
        if 0 <= y < 9 and 0 <= x < 9:
            mask[0, y, x] = True
    marked = [(int(y), int(x)) for y, x in np.argwhere(mask[0])]
    slow = [[slow_hull(marked, i, j) for j in range(9)] for i in range(9)]
    np.testing.assert_array_equal(shaped(mask, shape="hull")[0], slow)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 9999),
    shape=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    share=st.floats(0.05, 0.6),
)
def test_a_hull_holds_its_cells_lies_in_the_box_and_is_its_own(
    seed: int, shape: tuple[int, int], share: float
) -> None:
    masks = np.random.default_rng(seed).random((3, *shape)) < share
    hull, box = (shaped(masks, shape=word) for word in ("hull", "box"))
    for mask, inner, outer in zip(masks, hull, box, strict=True):
        if inner.any():
            assert (inner >= mask).all()
        if outer.any():
            assert (outer >= inner).all()
    again = shaped(hull, shape="hull")
    np.testing.assert_array_equal(again, hull)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 9999),
    side=st.integers(1, 9),
    share=st.floats(0.02, 0.5),
    dilate=st.sampled_from([0.0, 0.01, 0.25]),
    shape=st.sampled_from(["map", "box", "hull"]),
    turn=st.sampled_from(TURNS),
)
def test_masks_may_be_turned_before_or_after(
    seed: int, side: int, share: float, dilate: float, shape: str, turn: Any
) -> None:
    masks = torch.from_numpy(np.random.default_rng(seed).random((3, side, side)) < share).double()
    post = PostProcessing(dilate=dilate, shape=shape, **MARK)  # type: ignore[arg-type]
    before = post_process(turn_all(masks, turn), post)
    assert torch.equal(before, turn_all(post_process(masks, post), turn))


@pytest.mark.parametrize("shape", ["map", "box", "hull"])
@pytest.mark.parametrize("dilate", [0.0, 0.2])
def test_an_empty_map_stays_empty(shape: Any, dilate: float) -> None:
    maps = blobs()
    maps[1] = 0
    found = post_process(maps, PostProcessing(shape=shape, dilate=dilate, **MARK))
    assert not found[1].any()
    assert found[[0, 2]].amax((1, 2)).eq(1).all()
    assert found.dtype == maps.dtype


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("shape", ["map", "box", "hull"])
def test_a_map_does_not_depend_on_its_batch(shape: Any, dtype: torch.dtype) -> None:
    maps = torch.rand(9, 6, 6, generator=torch.Generator().manual_seed(1)).to(dtype)
    post = PostProcessing(threshold=0.8, dilate=0.2 if shape == "map" else 0.0, shape=shape)
    together = post_process(maps, post)
    for number, one in enumerate(together):
        assert torch.equal(post_process(maps[number : number + 1], post)[0], one)
