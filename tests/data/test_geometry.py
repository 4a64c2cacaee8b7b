"""Images and maps through one geometry: marks stay where they are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from preceptor.config.run import MapSource, RunConfig
from preceptor.config.settings import Fit
from preceptor.config.training import Augmentation
from preceptor.data import augment
from preceptor.data.geometry import OUTSIDE_COLOUR, content_pixels, fit_box, render
from preceptor.data.loader import Batch, MapTargets, Rows
from preceptor.data.resampling import MAP_SIDE, resample
from preceptor.maps.sources import build_map_targets
from preceptor.maps.store import MapStore, StoreInfo, write_store
from preceptor.saliency.maps import informative
from tests.data.map_twin import twin

FITS: list[Fit] = ["squash", "letterbox", "crop"]
UNIT = torch.tensor([[0.0, 0.0, 1.0, 1.0]], dtype=torch.float64)


@dataclass
class Pictures:
    """An `ImageSource` in memory: pictures of any size, each its own human map."""

    pictures: list[NDArray[np.uint8]]
    side: int
    fit: Fit

    @property
    def sizes(self) -> NDArray[np.int32]:
        return np.array([picture.shape[1::-1] for picture in self.pictures], np.int32)

    def canvases(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        return np.stack(
            [render(self.pictures[row][..., None], self.fit, self.side) for row in rows]
        )

    def human_maps(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        grids = [
            resample(
                torch.from_numpy(self.pictures[row])[None].float(), UNIT, UNIT, (MAP_SIDE,) * 2
            )
            for row in rows
        ]
        return torch.cat(grids).round().to(torch.uint8).numpy()


def cone(width: int, height: int, x: float, y: float, rx: float, ry: float) -> NDArray[np.uint8]:
    """A picture, black but for a mark at (x, y) (of the unit square) that falls off linearly."""
    across = ((np.arange(width) + 0.5) / width - x) / rx
    down = ((np.arange(height) + 0.5) / height - y) / ry
    distance = np.hypot(across[None], down[:, None])
    return np.rint(255 * np.clip(1 - distance, 0, 1)).astype(np.uint8)


def marked(width: int, height: int, fit: Fit, u: float, v: float) -> NDArray[np.uint8]:
    """A picture with a mark that is round on the canvas, well inside the image, at share u, v."""
    radius = 0.1
    box = fit_box(width, height, fit, 1000)
    rx, ry = radius * (box.x1 - box.x0), radius * (box.y1 - box.y0)
    return cone(width, height, rx + u * (1 - 2 * rx), ry + v * (1 - 2 * ry), rx, ry)


def assert_mark_on_its_pixel(batch: Batch, slack: float = 1.5) -> int:
    """The hottest cell holds the brightest pixel; where the mark left the view, both are blank.

    Args:
        batch: Grey images and their maps.
        slack: Pixels by which a mark may cross a cell's border (resampling of the image).

    Returns:
        How many marks were in view.
    """
    assert batch.maps is not None
    size, (h, w) = batch.images.shape[-1], batch.maps.shape[-2:]
    seen = 0
    for image, grid in zip(batch.images[:, 0].float(), batch.maps, strict=True):
        if grid.max() == 0:
            assert image.max() <= max(OUTSIDE_COLOUR)
            continue
        if image.max() < 200:  # the top of the mark is outside
            continue
        seen += 1
        row, column = divmod(int(image.argmax()), size)
        i, j = divmod(int(grid.argmax()), w)
        assert i * size / h - slack <= row + 0.5 <= (i + 1) * size / h + slack
        assert j * size / w - slack <= column + 0.5 <= (j + 1) * size / w + slack
    return seen


def guided_rows(source: Pictures, size: int, grid: tuple[int, int]) -> Rows:
    count = len(source.pictures)
    targets = MapTargets(np.ones(count, np.float32), None, np.full(count, -1, np.int64))
    return Rows(
        source, np.arange(count), np.zeros(count, np.int64), size, source.fit, None, targets, grid
    )


unit = st.floats(0, 1)
sides = st.integers(24, 160)


@settings(deadline=None, max_examples=60)
@given(data=st.data(), fit=st.sampled_from(FITS), seed=st.integers(0, 2**16))
def test_a_mark_stays_on_its_pixel(data: st.DataObject, fit: Fit, seed: int) -> None:
    pictures = []
    for _ in range(4):
        width = data.draw(sides)
        height = max(
            24, min(160, round(width * data.draw(st.sampled_from([0.4, 0.8, 1, 1.5, 2.5]))))
        )
        pictures.append(marked(width, height, fit, data.draw(unit), data.draw(unit)))
    changes = Augmentation(
        flip=data.draw(st.booleans()),
        quarter_turns=data.draw(st.booleans()),
        crop_area=data.draw(st.sampled_from([1.0, 0.6, 0.25])),
    )
    size = 56
    side = size if changes.crop_area == 1 else 2 * size
    rows = guided_rows(Pictures(pictures, side, fit), size, (7, 7))
    chosen = np.arange(4)
    assert_mark_on_its_pixel(rows.batch(chosen))
    numbers = augment.draw(seed, 0, np.arange(4))
    assert_mark_on_its_pixel(rows.batch(chosen, changes, numbers))


@pytest.mark.parametrize("fit", FITS)
def test_marks_are_seen_and_lost(fit: Fit) -> None:
    """The property above is not empty: many marks are in view, and crops lose some."""
    pictures = [marked(90, 40 + 5 * k, fit, k % 5 / 4, k % 3 / 2) for k in range(20)]
    rows = guided_rows(Pictures(pictures, 112, fit), 56, (7, 7))
    changes = Augmentation(flip=True, quarter_turns=True, crop_area=0.25)
    batch = rows.batch(np.arange(20), changes, augment.draw(3, 0, np.arange(20)))
    seen = assert_mark_on_its_pixel(batch)
    assert batch.maps is not None
    assert seen >= 5
    assert not informative(batch.maps).all()


@given(width=st.integers(1, 4000), height=st.integers(1, 4000), side=st.integers(8, 320))
def test_letterbox_box_says_exactly_where_the_content_is(
    width: int, height: int, side: int
) -> None:
    left, top, inner_width, inner_height = content_pixels(width, height, "letterbox", side)
    box = fit_box(width, height, "letterbox", side)
    assert max(inner_width, inner_height) == side
    scale_x, scale_y = side / (box.x1 - box.x0), side / (box.y1 - box.y0)
    assert -box.x0 * scale_x == pytest.approx(left)
    assert -box.y0 * scale_y == pytest.approx(top)
    assert (1 - box.x0) * scale_x == pytest.approx(left + inner_width)
    assert (1 - box.y0) * scale_y == pytest.approx(top + inner_height)


def test_render_fits() -> None:
    picture = np.zeros((40, 80, 3), np.uint8)
    picture[:, 20:60] = 200  # the centred square
    assert (render(picture, "crop", 16)[:, 1:-1] == 200).all()  # borders mix with neighbours
    squashed = render(picture, "squash", 16)
    assert (squashed[:, 5:11] == 200).all()
    assert (squashed[:, :3] == 0).all()
    boxed = render(picture, "letterbox", 16)
    assert (boxed[:4] == OUTSIDE_COLOUR).all()
    assert (boxed[12:] == OUTSIDE_COLOUR).all()
    assert (boxed[4:12, 6:10] == 200).all()
    grey = render(picture[..., :1], "letterbox", 16)
    assert grey.shape == (16, 16, 1)
    assert (grey[0] == round(sum(OUTSIDE_COLOUR) / 3)).all()


def test_a_constant_map_says_nothing_even_beside_margins() -> None:
    white = np.full((30, 90), 255, np.uint8)
    half = white.copy()
    half[:, :45] = 0
    rows = guided_rows(Pictures([white, half], 56, "letterbox"), 56, (7, 7))
    maps = rows.batch(np.arange(2)).maps
    assert maps is not None
    assert informative(maps).tolist() == [False, True]


# A Teacher at 299 px with a grid of 10 × 10 guides a Student at 224 px with one of 7 × 7.

ASPECTS = [(120, 120), (160, 90), (80, 150), (200, 100)]


def students_rows(
    folder: Path,
    pictures: list[NDArray[np.uint8]],
    maps: NDArray[np.float16],
    teacher: Fit,
    student: Fit,
) -> Rows:
    """Store → map targets → rows, as a run does it."""
    count = len(pictures)
    names = np.array([f"images/{k}.png" for k in range(count)], object)
    info = StoreInfo("t", "cam", teacher, 299, ("a", "b"), {})
    zeros = np.zeros(count)
    # In another order than the manifest: maps are found by name.
    order = np.arange(count)[::-1]
    write_store(
        folder,
        MapStore(info, names[order], maps[order], zeros.astype(np.int32), zeros.astype(np.float32)),
    )
    table = pd.DataFrame({"name": names, "label": "a", "saliency": "", "map_weight": 1.0})
    source = Pictures(pictures, 224, student)
    config = RunConfig(manifest=Path("m"), backbone="b", maps=MapSource(kind="store", path=folder))
    targets = build_map_targets(
        config,
        SimpleNamespace(table=table),
        source,
        np.arange(count),
        np.zeros(count, bool),  # type: ignore[arg-type]
    )
    return Rows(
        source, np.arange(count), np.zeros(count, np.int64), 224, student, None, targets, (7, 7)
    )


@pytest.mark.parametrize("student", FITS)
@pytest.mark.parametrize("teacher", FITS)
def test_a_teachers_map_is_integrated_exactly(tmp_path: Path, teacher: Fit, student: Fit) -> None:
    """The Student's grid, against walking points back through turn, crop and both fits."""
    generator = np.random.default_rng(1)
    pictures = [np.zeros(size[::-1], np.uint8) for size in ASPECTS]
    maps = generator.random((4, 10, 10)).astype(np.float16)
    rows = students_rows(tmp_path, pictures, maps, teacher, student)
    changes = Augmentation(flip=True, quarter_turns=True, crop_area=0.5)
    numbers = augment.draw(8, 0, np.arange(4))
    drawn = augment.changes_of(changes, numbers, 224)
    got = rows.batch(np.arange(4), changes, numbers).maps
    assert got is not None
    for position, (width, height) in enumerate(ASPECTS):
        left, top, size = drawn.crops[position]
        canvas = fit_box(width, height, student, 224)
        across, down = (canvas.x1 - canvas.x0) / 224, (canvas.y1 - canvas.y0) / 224
        low = canvas.x0 + left * across, canvas.y0 + top * down
        view = *low, low[0] + size * across, low[1] + size * down
        expected = twin(
            maps[position].astype(np.float64),
            fit_box(width, height, teacher, 299),
            view,
            (7, 7),
            bool(drawn.flips[position]),
            int(drawn.quarters[position]),
        )
        np.testing.assert_allclose(got[position].numpy(), expected, atol=0.06)
        assert np.abs(got[position].numpy() - expected).mean() < 0.01
