"""Whose map guides which image: every kind of source, and shuffled maps."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from preceptor.config.run import MapSource, RunConfig
from preceptor.data.geometry import fit_box
from preceptor.data.loader import MapTargets, Rows
from preceptor.errors import InputError
from preceptor.maps.sources import CENTRE_SIDE, build_map_targets, principal_maps, thumbnails
from tests.maps.guided_rows import (
    ANNOTATED,
    COUNT,
    IMAGES,
    LABELS,
    ROWS,
    SIZES,
    guides,
    manifest,
    must,
    owners,
    write_image,
    write_maps,
)


def test_no_guidance() -> None:
    assert guides(MapSource(kind="none")) is None
    assert guides(MapSource(kind="human"), alpha=1.0) is None


def test_human_maps_of_annotated_images() -> None:
    found = must(guides(MapSource(kind="human")))
    # Of the training rows 1, 2, 3 have a map and are annotated; 5 has none, 9 is not annotated.
    expected = [1.1, 1.2, 1.3, 0, 0, 0, 0, 0]
    np.testing.assert_allclose(found.weight, expected, rtol=1e-6)
    assert (found.index == -1).all()
    assert found.array is None
    assert found.weight.dtype == np.float32


def test_guided_classes() -> None:
    found = must(guides(MapSource(kind="human"), guide_classes=("a",)))
    assert (found.weight > 0).tolist() == [False, True] + [False] * 6
    found = must(guides(MapSource(kind="centre"), guide_classes=("b",)))
    assert (found.weight > 0).tolist() == [LABELS[row] == "b" for row in ROWS]


def test_a_store_guides_by_name(tmp_path: Path) -> None:
    write_maps(tmp_path, [9, 3, 1, 0, 6, 7])
    found = must(guides(MapSource(kind="store", path=tmp_path)))
    assert owners(found) == [1, -2, 3, -2, 6, 7, -2, 9]
    np.testing.assert_allclose(found.weight, [1.1, 0, 1.3, 0, 1.6, 1.7, 0, 1.9], rtol=1e-6)
    assert found.array is not None
    assert found.array.maps.dtype == np.float16


@pytest.mark.parametrize("fit", ["squash", "letterbox", "crop"])
@pytest.mark.parametrize("shuffle_seed", [None, 0])
def test_a_map_lies_where_its_fit_put_the_canvas(
    tmp_path: Path, fit: Any, shuffle_seed: int | None
) -> None:
    """Also a shuffled map: it is laid over the image that receives it. Row 1 has none."""
    write_maps(tmp_path, range(2, COUNT), fit)
    found = must(guides(MapSource(kind="store", path=tmp_path, shuffle_seed=shuffle_seed)))
    assert found.array is not None
    for position, row in enumerate(ROWS[1:], 1):
        region = found.array.regions[found.index[position]]
        box = fit_box(int(SIZES[row][0]), int(SIZES[row][1]), fit, 50)
        np.testing.assert_allclose(region, box)


def test_human_maps_are_kept_or_replaced(tmp_path: Path) -> None:
    write_maps(tmp_path, [1, 3, 6, 9])
    keep = must(guides(MapSource(kind="store", path=tmp_path, human="keep")))
    assert owners(keep) == [-1, -1, -1, -2, 6, -2, -2, 9]
    replaced = must(guides(MapSource(kind="store", path=tmp_path)))
    assert owners(replaced) == [1, -2, 3, -2, 6, -2, -2, 9]
    centre = must(guides(MapSource(kind="centre", human="keep")))
    assert centre.index.tolist() == [-1, -1, -1, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("human", ["keep", "replace"])
def test_a_source_with_maps_of_other_images_is_refused(tmp_path: Path, human: Any) -> None:
    """With human maps as well, which would guide alone."""
    write_maps(tmp_path / "store", [0, 4])  # none of these is trained on
    with pytest.raises(InputError, match=r"none of the 8 .* image is 'd0/0.png', .* 'd1/1.png'"):
        guides(MapSource(kind="store", path=tmp_path / "store", human=human))
    write_image(tmp_path / "folder" / "other.png", 2)
    with pytest.raises(InputError, match="none of the 8 training images: no map has the name"):
        guides(MapSource(kind="store", path=tmp_path / "folder", human=human))


def test_images_that_a_store_lacks_are_counted(tmp_path: Path) -> None:
    write_maps(tmp_path, [1, 3, 6, 9])  # 1, 2 and 3 have human maps
    store = MapSource(kind="store", path=tmp_path)
    assert must(guides(store)).unmatched == 4
    assert must(guides(store.model_copy(update={"human": "keep"}))).unmatched == 3
    assert must(guides(store, guide_classes=("b",))).unmatched == 2
    write_maps(tmp_path, range(COUNT))
    assert must(guides(store)).unmatched == 0


def test_the_centre_is_one_gaussian_for_all() -> None:
    found = must(guides(MapSource(kind="centre")))
    assert found.array is not None
    assert found.array.maps.shape == (1, CENTRE_SIDE, CENTRE_SIDE)
    assert (found.index == 0).all()
    assert (found.weight > 0).all()
    x, y = np.meshgrid(*[(np.arange(32) + 0.5) / 32 - 0.5] * 2)
    np.testing.assert_allclose(found.array.maps[0], np.exp(-8 * (x**2 + y**2)), rtol=1e-5)


@pytest.fixture
def images() -> Any:
    """Canvases of noise."""
    canvases = np.random.default_rng(0).integers(0, 256, (COUNT, 32, 32, 3)).astype(np.uint8)
    return SimpleNamespace(sizes=SIZES, side=32, canvases=lambda rows: canvases[rows])


def test_maps_of_principal_components_lie_on_their_images(images: Any) -> None:
    """One map an image, of all images that are trained on, over what the canvas shows of each."""
    run = RunConfig.model_validate(
        {
            "manifest": "m",
            "backbone": "b",
            "maps": {"kind": "pca"},
            "guide_classes": ("b",),
            "training": {"fit": "crop"},
        }
    )
    found = must(build_map_targets(run, manifest(), images, ROWS, ANNOTATED))
    small, regions = thumbnails(images, ROWS, "crop")
    assert found.array is not None
    np.testing.assert_array_equal(found.array.maps, principal_maps(small, 5))
    np.testing.assert_array_equal(found.array.regions, regions)
    assert found.index.tolist() == list(range(len(ROWS)))
    assert (found.weight > 0).tolist() == [LABELS[row] == "b" for row in ROWS]
    with pytest.raises(InputError, match="5 training images have fewer than 5 principal compone"):
        build_map_targets(run, manifest(), images, ROWS[:5], ANNOTATED)


def test_a_map_in_input_space_is_the_persons_or_else_the_teachers(tmp_path: Path) -> None:
    """Every image has one, or the change outside it would tell the class."""
    write_maps(tmp_path, range(COUNT))
    source = MapSource(kind="store", path=tmp_path, human="keep")
    training = {"augmentation": {"outside": "mean", "outside_rate": 1.0}}
    found = must(guides(source, alpha=1.0, training=training))
    assert owners(found) == [-1, -1, -1, 5, 6, 7, 8, 9]


def columns(found: MapTargets) -> list[int]:
    """The bright column of each row's map, −2 = not guided."""
    rows = Rows(IMAGES, ROWS, np.zeros(8, np.int64), 32, "squash", None, found, (2, 8))
    grids = rows.maps_on_grid(np.arange(8))
    return [
        -2 if weight == 0 else int(grid.sum(0).argmax())
        for weight, grid in zip(found.weight, grids, strict=True)
    ]


def test_a_folder_of_map_images(tmp_path: Path) -> None:
    write_image(tmp_path / "d1" / "1.png", 1)  # the image's own place
    write_image(tmp_path / "d0" / "6.bmp", 6)  # another suffix
    write_image(tmp_path / "7.png", 7)  # by file name alone
    (tmp_path / "d1" / "1.txt").write_text("notes beside the map")
    (tmp_path / "d1" / ".1.png").write_text("a system's leftover")
    (tmp_path / "readme.md").write_text("more notes")
    found = must(guides(MapSource(kind="store", path=tmp_path)))
    assert columns(found) == [1, -2, -2, -2, 6, 7, -2, -2]


def test_a_damaged_map_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "7.png").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"7\.png"):
        guides(MapSource(kind="store", path=tmp_path))


def test_no_map_at_all_is_refused(tmp_path: Path) -> None:
    none = "none of the 8 training images"
    with pytest.raises(InputError, match=none):
        guides(MapSource(kind="human"), annotated=np.zeros(COUNT, bool))
    with pytest.raises(InputError, match=none):
        guides(MapSource(kind="store", path=tmp_path))  # an empty folder
    with pytest.raises(InputError, match=none):
        guides(MapSource(kind="centre"), guide_classes=("c",))
    with pytest.raises(InputError, match="is not a folder"):
        guides(MapSource(kind="store", path=tmp_path / "nowhere"))


# Shuffled maps, a control: each map goes to an image of its class, and takes its weight along.


@pytest.mark.parametrize("seed", range(5))
def test_shuffling_stays_within_the_class(tmp_path: Path, seed: int) -> None:
    write_maps(tmp_path, [1, 2, 3, 5, 6, 7, 9])  # 8 has none
    source = MapSource(kind="store", path=tmp_path, shuffle_seed=seed)
    found = owners(must(guides(source)))
    assert found[6] == -2
    for label in "ab":
        members = [k for k, row in enumerate(ROWS) if LABELS[row] == label and row != 8]
        assert sorted(found[k] for k in members) == [ROWS[k] for k in members]
    assert found == owners(must(guides(source)))
    assert found != owners(must(guides(source.model_copy(update={"shuffle_seed": seed + 1}))))


@pytest.mark.parametrize("seed", range(5))
def test_a_map_of_weight_0_goes_to_no_image(tmp_path: Path, seed: int) -> None:
    write_maps(tmp_path, range(COUNT))
    weights = np.where(np.arange(COUNT) == 6, 0.0, 1.0)
    source = MapSource(kind="store", path=tmp_path, shuffle_seed=seed)
    found = owners(must(guides(source, table=manifest(map_weight=weights))))
    assert sorted(found) == [-2, *sorted(row for row in ROWS.tolist() if row != 6)]
    assert found[ROWS.tolist().index(6)] == -2


@pytest.mark.parametrize("seed", range(5))
def test_kept_human_maps_are_shuffled_with_the_others(tmp_path: Path, seed: int) -> None:
    """Every map that guides, whoever made it, goes to an image of its class, none is lost."""
    write_maps(tmp_path, range(COUNT))
    source = MapSource(kind="store", path=tmp_path, shuffle_seed=seed, human="keep")
    found = must(guides(source))
    assert found.human_rows is not None
    stored = owners(found)
    # (whether a person made it, whose it is) by receiving row.
    received = [
        (index < 0, int(row) if index < 0 else store)
        for index, row, store in zip(found.index, found.human_rows, stored, strict=True)
    ]
    for label in "ab":
        members = [k for k, row in enumerate(ROWS) if LABELS[row] == label]
        kept = [(bool(ROWS[k] in (1, 2, 3)), int(ROWS[k])) for k in members]
        assert sorted(received[k] for k in members) == sorted(kept)


def test_a_shuffled_human_map_is_read_from_the_image_that_it_is_of(tmp_path: Path) -> None:
    """And laid over the one that receives it, in each share of the rows."""
    write_maps(tmp_path, range(COUNT))
    source = MapSource(kind="store", path=tmp_path, shuffle_seed=1, human="keep")
    found = must(guides(source, annotated=np.ones(COUNT, bool)))
    assert found.human_rows is not None

    def human_maps(rows: Any) -> Any:
        maps = np.zeros((len(rows), 8, 8), np.uint8)
        maps[np.arange(len(rows)), 0, np.asarray(rows) % 8] = 255
        return maps

    images: Any = SimpleNamespace(sizes=SIZES, side=32, human_maps=human_maps)
    rows = Rows(
        images, ROWS, np.zeros(len(ROWS), np.int64), 32, "squash", targets=found, grid=(8, 8)
    )
    human = np.flatnonzero(found.index < 0)
    assert set(found.human_rows[human]) == {1, 2, 3, 9}
    columns = rows.maps_on_grid(human)[:, 0].argmax(1).tolist()
    assert columns == (found.human_rows[human] % 8).tolist()


@pytest.mark.parametrize("seed", range(5))
def test_human_maps_are_shuffled_within_the_class(seed: int) -> None:
    """Images without a human map get none; the weight is that of the image."""
    every = np.ones(COUNT, bool)
    plain = must(guides(MapSource(kind="human"), annotated=every))
    found = must(guides(MapSource(kind="human", shuffle_seed=seed), annotated=every))
    np.testing.assert_array_equal(found.weight, plain.weight)
    assert found.human_rows is not None
    guided = found.weight > 0
    assert ROWS[guided].tolist() == [1, 2, 3, 9]
    for label in "ab":
        members = guided & (LABELS[ROWS] == label)
        assert sorted(found.human_rows[members]) == ROWS[members].tolist()
        kept = found.human_rows[members] == ROWS[members]
        assert not kept.any() or members.sum() == 1  # no image keeps its own map, but one alone


@pytest.mark.parametrize("seed", range(5))
def test_no_image_receives_a_map_of_its_own_group(tmp_path: Path, seed: int) -> None:
    write_maps(tmp_path, range(COUNT))
    groups = np.array(["", "p", "q", "p", "", "", "", "r", "r", "r"], object)
    source = MapSource(kind="store", path=tmp_path, shuffle_seed=seed, shuffle_groups=True)
    found = owners(must(guides(source, table=manifest(group=groups))))
    assert sorted(found) == ROWS.tolist()
    for row, owner in zip(ROWS, found, strict=True):
        assert LABELS[owner] == LABELS[row]
        assert owner != row
        assert groups[owner] != groups[row] or groups[row] == ""


@pytest.mark.parametrize("seed", range(5))
def test_a_group_with_most_maps_of_a_class_keeps_as_few_as_possible(
    tmp_path: Path, seed: int
) -> None:
    write_maps(tmp_path, range(COUNT))
    groups = np.array(["p" if row % 2 and row != 9 else "" for row in range(COUNT)], object)
    source = MapSource(kind="store", path=tmp_path, shuffle_seed=seed, shuffle_groups=True)
    found = owners(must(guides(source, table=manifest(group=groups))))
    assert sorted(found) == ROWS.tolist()
    within = [
        row for row, owner in zip(ROWS, found, strict=True) if groups[row] == "p" == groups[owner]
    ]
    assert len(within) == 3  # of 1, 3, 5 and 7, with 9 the only other image of the class
