"""Whose map guides which image: every kind of source, and the controls."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from preceptor.config.maps import MapSource, PostProcessing
from preceptor.config.run import RunConfig
from preceptor.config.training import Augmentation
from preceptor.data.geometry import fit_box
from preceptor.data.map_geometry import turn_maps
from preceptor.data.rows import MapTargets, Rows
from preceptor.errors import InputError
from preceptor.maps.placed_maps import CENTRE_SIDE
from preceptor.maps.principal_components import principal_maps, thumbnails
from preceptor.maps.store import MapStore, StoreInfo, write_store
from preceptor.maps.targets import build_map_targets
from preceptor.saliency.postprocess import post_process

COUNT = 10
SIZES = np.array([[40 + 10 * row, 60] for row in range(COUNT)], np.int32)
IMAGES: Any = SimpleNamespace(sizes=SIZES, side=32)
ROWS = np.array([1, 2, 3, 5, 6, 7, 8, 9])  # manifest rows that are trained on
LABELS = np.array(["a", "b"] * 5)
ANNOTATED = np.isin(np.arange(COUNT), [0, 1, 2, 3, 5])


def manifest(**columns: Any) -> Any:
    """Ten rows; 0 to 4 and 9 have human maps."""
    table = pd.DataFrame(
        {
            "name": [f"d{row % 2}/{row}.png" for row in range(COUNT)],
            "label": LABELS,
            "saliency": [f"/m/{row}.png" if row < 5 or row == 9 else "" for row in range(COUNT)],
            "map_weight": 1 + 0.1 * np.arange(COUNT),
        }
    )
    return SimpleNamespace(table=table.assign(**columns))


def guides(
    maps: MapSource, annotated: Any = ANNOTATED, table: Any = None, **config: Any
) -> MapTargets | None:
    run = RunConfig(manifest=Path("m"), backbone="b", maps=maps, **config)
    return build_map_targets(run, table or manifest(), IMAGES, ROWS, annotated)


def must(found: MapTargets | None) -> MapTargets:
    assert found is not None
    return found


def write_maps(folder: Path, rows: Any, fit: Any = "squash", grid: int = 5, **columns: Any) -> None:
    """Row r's map has the value r + 1 in one cell, r % grid."""
    maps = np.zeros((len(rows), grid, grid), np.float16)
    for position, row in enumerate(rows):
        maps[position, 0, row % grid] = row + 1
    names = np.array([f"d{row % 2}/{row}.png" for row in rows], object)
    zeros = np.zeros(len(rows))
    info = StoreInfo("t", "cam", fit, 50, ("a", "b"), {})
    store = MapStore(info, names, maps, zeros.astype(np.int32), zeros.astype(np.float32))
    write_store(folder, replace(store, **columns))


def owners(found: MapTargets) -> list[int]:
    """Whose store map each row is guided by: −1 = its human map, −2 = not guided."""
    assert found.array is not None
    return [
        -2 if weight == 0 else -1 if index < 0 else round(float(found.array.maps[index].max())) - 1
        for weight, index in zip(found.weight, found.index, strict=True)
    ]


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


def test_a_map_weight_of_zero_is_no_guidance() -> None:
    weights = np.where(np.arange(COUNT) == 2, 0.0, 1.0)
    found = must(guides(MapSource(kind="human"), table=manifest(map_weight=weights)))
    assert found.weight.tolist() == [1, 0, 1, 0, 0, 0, 0, 0]


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
    """Also a shuffled map: it is laid over the image that receives it."""
    write_maps(tmp_path, range(COUNT), fit)
    found = must(guides(MapSource(kind="store", path=tmp_path, shuffle_seed=shuffle_seed)))
    assert found.array is not None
    for position, row in enumerate(ROWS):
        region = found.array.regions[found.index[position]]
        box = fit_box(int(SIZES[row][0]), int(SIZES[row][1]), fit, 50)
        np.testing.assert_allclose(region, box.as_tuple())


def test_human_maps_are_kept_or_replaced(tmp_path: Path) -> None:
    write_maps(tmp_path, [1, 3, 6, 9])
    keep = must(guides(MapSource(kind="store", path=tmp_path, human="keep")))
    assert owners(keep) == [-1, -1, -1, -2, 6, -2, -2, 9]
    replaced = must(guides(MapSource(kind="store", path=tmp_path)))
    assert owners(replaced) == [1, -2, 3, -2, 6, -2, -2, 9]
    centre = must(guides(MapSource(kind="centre", human="keep")))
    assert centre.index.tolist() == [-1, -1, -1, 0, 0, 0, 0, 0]


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


@pytest.mark.parametrize("seed", range(5))
def test_kept_human_maps_are_shuffled_with_the_others(tmp_path: Path, seed: int) -> None:
    """Every map that guides, whoever made it, goes to an image of its class, none is lost."""
    write_maps(tmp_path, range(COUNT), scores=numbers(range(COUNT), SCORES))
    source = MapSource(kind="store", path=tmp_path, shuffle_seed=seed, human="keep", trust="score")
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
    for position, (human, _) in enumerate(received):
        if human:
            assert found.weight[position] == pytest.approx(1 + 0.1 * ROWS[position])


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
    for part in (rows, rows.part(slice(0, 5)), rows.part(slice(5, len(ROWS)))):
        assert part.targets is not None
        own = np.flatnonzero(part.targets.index < 0)
        maps = part.maps_on_grid(own)
        assert part.targets.human_rows is not None
        columns = maps[:, 0].argmax(1).tolist()
        assert columns == (part.targets.human_rows[own] % 8).tolist()


def test_shuffling_moves_maps_and_depends_on_its_seed(tmp_path: Path) -> None:
    write_maps(tmp_path, range(COUNT))
    orders = {
        tuple(owners(must(guides(MapSource(kind="store", path=tmp_path, shuffle_seed=seed)))))
        for seed in range(5)
    }
    assert len(orders) > 2
    assert orders != {tuple(ROWS.tolist())}


def test_the_centre_is_one_gaussian_for_all() -> None:
    found = must(guides(MapSource(kind="centre")))
    assert found.array is not None
    assert found.array.maps.shape == (1, CENTRE_SIDE, CENTRE_SIDE)
    assert (found.index == 0).all()
    assert (found.weight > 0).all()
    grid = found.array.maps[0]
    np.testing.assert_allclose(grid, grid[::-1])
    np.testing.assert_allclose(grid, grid.T)
    assert grid.argmax() in [(15 + i) * 32 + 15 + j for i in (0, 1) for j in (0, 1)]


def test_maps_of_principal_components_lie_on_their_images() -> None:
    """One map an image, of all images that are trained on, over what the canvas shows of each."""
    generator = np.random.default_rng(0)
    canvases = generator.integers(0, 256, (COUNT, 32, 32, 3)).astype(np.uint8)
    images: Any = SimpleNamespace(sizes=SIZES, side=32, canvases=lambda rows: canvases[rows])
    run = RunConfig.model_validate(
        {
            "manifest": "m",
            "backbone": "b",
            "maps": {"kind": "pca", "components": 2},
            "guide_classes": ("b",),
            "training": {"fit": "crop"},
        }
    )
    found = must(build_map_targets(run, manifest(), images, ROWS, ANNOTATED))
    small, regions = thumbnails(images, ROWS, "crop")
    assert found.array is not None
    np.testing.assert_array_equal(found.array.maps, principal_maps(small, 2))
    np.testing.assert_array_equal(found.array.regions, regions)
    assert found.index.tolist() == list(range(len(ROWS)))
    assert (found.weight > 0).tolist() == [LABELS[row] == "b" for row in ROWS]
    many = run.model_copy(update={"maps": MapSource(kind="pca", components=8)})
    with pytest.raises(InputError, match="8 training images have fewer than 8 principal compone"):
        build_map_targets(many, manifest(), images, ROWS, ANNOTATED)


def test_maps_of_principal_components_are_masks_from_0_to_1() -> None:
    """They are stored as whole numbers, and distances of evidence take masks in [0, 1]."""
    generator = np.random.default_rng(0)
    canvases = generator.integers(0, 256, (COUNT, 32, 32, 3)).astype(np.uint8)
    images: Any = SimpleNamespace(sizes=SIZES, side=32, canvases=lambda rows: canvases[rows])
    table = manifest(annotated=True, split="train")
    table.map_mask = (table.table["saliency"] != "").to_numpy()
    table.annotated_mask = table.train_mask = np.ones(COUNT, bool)
    training = {"distance": "cells", "cam_class": "decision"}
    values = {"manifest": "m", "backbone": "b", "maps": {"kind": "pca"}, "training": training}
    found = build_map_targets(RunConfig.model_validate(values), table, images, ROWS, ANNOTATED)
    assert found is not None
    assert found.array is not None
    assert found.masks is not None
    assert not found.masks.whole.any()  # both classes have marks
    rows = Rows(images, ROWS, np.zeros(8, np.int64), 32, "squash", None, found, (16, 16))
    masks = rows.maps_on_grid(np.arange(8)).numpy()
    np.testing.assert_allclose(masks, found.array.maps / 255, atol=1e-6)


def test_a_map_in_input_space_is_the_persons_or_else_the_teachers(tmp_path: Path) -> None:
    """Every image has one, or the change outside it would tell the class."""
    write_maps(tmp_path, range(COUNT))
    source = MapSource(kind="store", path=tmp_path, human="keep")
    training = {"augmentation": {"outside": "mean", "outside_rate": 1.0}}
    found = must(guides(source, alpha=1.0, training=training))
    assert owners(found) == [-1, -1, -1, 5, 6, 7, 8, 9]


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
    again = must(guides(MapSource(kind="human", shuffle_seed=seed), annotated=every))
    np.testing.assert_array_equal(found.human_rows, again.human_rows)


# Maps that have not settled.


def errors(*unsettled: int) -> dict[str, Any]:
    """Columns of `write_maps` of all rows for maps by RISE, some of which are noise."""
    error = np.full(COUNT, 0.01, np.float32)
    error[list(unsettled)] = [0.06, 1.0, np.nan, 0.3][: len(unsettled)]
    return {"error": error, "info": StoreInfo("t", "rise", "squash", 50, ("a", "b"), TOLERANCE)}


TOLERANCE: dict[str, float | str] = {"tolerance": 0.05}


def test_a_map_that_has_not_settled_does_not_guide(tmp_path: Path) -> None:
    write_maps(tmp_path, range(COUNT), **errors(2, 6, 7))
    found = must(guides(MapSource(kind="store", path=tmp_path)))
    assert owners(found) == [1, -2, 3, 5, -2, -2, 8, 9]
    assert found.weight.tolist() == [
        pytest.approx(0 if row in (2, 6, 7) else 1 + 0.1 * row) for row in ROWS
    ]
    keep = must(guides(MapSource(kind="store", path=tmp_path, human="keep")))
    assert owners(keep) == [-1, -1, -1, 5, -2, -2, 8, 9]  # a person's map is no noise
    assert keep.weight[1] == pytest.approx(1.2)


@pytest.mark.parametrize("seed", range(5))
def test_a_map_that_has_not_settled_is_not_shuffled_either(tmp_path: Path, seed: int) -> None:
    write_maps(tmp_path, range(COUNT), **errors(2, 6, 7))
    found = owners(must(guides(MapSource(kind="store", path=tmp_path, shuffle_seed=seed))))
    assert [found[position] for position in (1, 4, 5)] == [-2, -2, -2]
    for label, rows in (("a", [8]), ("b", [1, 3, 5, 9])):
        places = [k for k, row in enumerate(ROWS) if row in rows]
        assert sorted(found[k] for k in places) == rows, label


def test_what_a_map_is_worth_is_among_those_that_settled(tmp_path: Path) -> None:
    write_maps(tmp_path, range(COUNT), scores=numbers(range(COUNT), SCORES), **errors(2, 6, 7))
    found = trusted(tmp_path, "score")
    np.testing.assert_allclose(found.weight, slow_weights(SCORES, [1, 3, 5, 8, 9], []), rtol=1e-6)


def test_maps_of_which_none_has_settled_are_refused(tmp_path: Path) -> None:
    write_maps(tmp_path, range(COUNT), **(errors() | {"error": np.full(COUNT, 0.4, np.float32)}))
    source = MapSource(kind="store", path=tmp_path)
    with pytest.raises(
        InputError, match=r"none of the 8 maps .* reached the tolerance; use more mask"
    ):
        guides(source)
    kept = must(guides(source.model_copy(update={"human": "keep"})))
    assert owners(kept) == [-1, -1, -1] + [-2] * 5
    write_maps(tmp_path, range(COUNT), **errors(2, 6, 8))
    with pytest.raises(InputError, match=r"none of the 3 maps .* reached the tolerance"):
        guides(source, guide_classes=("a",))
    with pytest.raises(InputError, match="none of the 8 training images has a map"):
        guides(source, guide_classes=("c",))


# Folders of map images.


def write_image(path: Path, column: int) -> None:
    """A map with one bright column of eight."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.zeros((6, 8), np.uint8)
    values[:, column] = 255
    Image.fromarray(values).save(path)


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


def test_a_flat_folder_that_fits_two_images_is_refused(tmp_path: Path) -> None:
    names = [f"{folder}/{row}.png" for row in range(COUNT // 2) for folder in ("x", "y")]
    write_image(tmp_path / "3.png", 3)
    with pytest.raises(InputError, match=r"3\.png matches both x/3\.png and y/3\.png"):
        guides(MapSource(kind="store", path=tmp_path), table=manifest(name=names))
    write_image(tmp_path / "x" / "3.png", 5)
    write_image(tmp_path / "y" / "3.png", 6)
    found = must(guides(MapSource(kind="store", path=tmp_path), table=manifest(name=names)))
    assert columns(found) == [-2, -2, -2, -2, 5, 6, -2, -2]


def test_a_damaged_map_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "7.png").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"7\.png"):
        guides(MapSource(kind="store", path=tmp_path))


def test_no_map_at_all_is_refused(tmp_path: Path) -> None:
    none = "none of the 8 training images has a map"
    with pytest.raises(InputError, match=none):
        guides(MapSource(kind="human"), annotated=np.zeros(COUNT, bool))
    with pytest.raises(InputError, match=none):
        guides(MapSource(kind="store", path=tmp_path))  # an empty folder
    write_maps(tmp_path, [0, 4])  # rows that are not trained on
    with pytest.raises(InputError, match=none):
        guides(MapSource(kind="store", path=tmp_path))
    with pytest.raises(InputError, match=none):
        guides(MapSource(kind="centre"), guide_classes=("c",))
    with pytest.raises(InputError, match="is not a folder"):
        guides(MapSource(kind="store", path=tmp_path / "nowhere"))


# What a Teacher's maps are worth.


def trusted(folder: Path, trust: Any, **values: Any) -> MapTargets:
    config = {name: values.pop(name) for name in ("guide_classes", "table") if name in values}
    return must(guides(MapSource(kind="store", path=folder, trust=trust, **values), **config))


def numbers(rows: Any, values: Any) -> Any:
    return np.array([values[row] for row in rows], np.float32)


# What the Teacher says of each manifest row.
SCORES = np.array([0.3, 0.9, 0.8, 0.1, 0.6, 0.5, 0.7, 0.2, 0.4, 0.95])


def slow_weights(values: Any, from_store: Any, human: Any, weights: Any = None) -> list[float]:
    """Row by row: map weight times value over the mean of all values that guide."""
    weights = 1 + 0.1 * np.arange(COUNT) if weights is None else weights
    mean = sum(values[row] for row in from_store) / len(from_store)
    return [
        weights[row] * (1 if row in human else values[row] / mean if row in from_store else 0)
        for row in ROWS
    ]


def test_a_map_counts_by_its_teachers_score(tmp_path: Path) -> None:
    rows = [9, 3, 1, 0, 6, 7]
    write_maps(tmp_path, rows, scores=numbers(rows, SCORES))
    found = trusted(tmp_path, "score")
    expected = slow_weights(SCORES, [1, 3, 6, 7, 9], [])
    np.testing.assert_allclose(found.weight, expected, rtol=1e-6)
    assert found.weight.dtype == np.float32
    plain = must(guides(MapSource(kind="store", path=tmp_path)))
    np.testing.assert_array_equal(plain.index, found.index)
    weights = 1 + 0.1 * ROWS
    assert (found.weight / weights)[found.weight > 0].mean() == pytest.approx(1)


def test_the_factors_are_of_the_rows_that_the_store_guides(tmp_path: Path) -> None:
    """Human maps that are kept, other classes and map weights of 0 stay out of the mean."""
    rows = range(COUNT)
    write_maps(tmp_path, rows, scores=numbers(rows, SCORES))
    kept = trusted(tmp_path, "score", human="keep")  # 1, 2, 3 keep theirs
    expected = slow_weights(SCORES, [5, 6, 7, 8, 9], [1, 2, 3])
    np.testing.assert_allclose(kept.weight, expected, rtol=1e-6)
    odd = trusted(tmp_path, "score", guide_classes=("b",))
    np.testing.assert_allclose(odd.weight, slow_weights(SCORES, [1, 3, 5, 7, 9], []), rtol=1e-6)
    weights = np.where(np.arange(COUNT) == 9, 0.0, 2.0)
    some = trusted(tmp_path, "score", table=manifest(map_weight=weights))
    expected = slow_weights(SCORES, [1, 2, 3, 5, 6, 7, 8], [], weights)
    np.testing.assert_allclose(some.weight, expected, rtol=1e-6)


def test_all_human_maps_kept_need_no_factor(tmp_path: Path) -> None:
    write_maps(tmp_path, [1, 2], scores=np.zeros(2, np.float32))
    kept = trusted(tmp_path, "score", human="keep")
    np.testing.assert_allclose(kept.weight, [1.1, 1.2, 1.3, 0, 0, 0, 0, 0], rtol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_a_shuffled_map_takes_its_worth_along(tmp_path: Path, seed: int) -> None:
    rows = [1, 2, 3, 5, 6, 7, 9]  # 8 has none
    write_maps(tmp_path, rows, scores=numbers(rows, SCORES))
    source = MapSource(kind="store", path=tmp_path, shuffle_seed=seed, trust="score")
    found = must(guides(source))
    owner = owners(found)
    assert owner == owners(must(guides(source.model_copy(update={"trust": "none"}))))
    assert owner != [1, 2, 3, 5, 6, 7, -2, 9]
    mean = sum(SCORES[row] for row in rows) / len(rows)
    for position, row in enumerate(ROWS):
        expected = 0 if row == 8 else (1 + 0.1 * row) * SCORES[owner[position]] / mean
        assert found.weight[position] == pytest.approx(expected, rel=1e-5)


def test_a_map_counts_by_the_agreement_of_a_committee(tmp_path: Path) -> None:
    values = np.array([0.5, 0.9, -0.4, 0.3, 0, np.nan, 0.2, 0.8, 0.1, 0.6], np.float32)
    write_maps(tmp_path, range(COUNT), agreement=values)
    found = trusted(tmp_path, "agreement")
    clean = [0 if not value > 0 else float(value) for value in values]
    np.testing.assert_allclose(found.weight, slow_weights(clean, list(ROWS), []), rtol=1e-6)
    write_maps(tmp_path, range(COUNT))
    with pytest.raises(InputError, match="agreement needs a committee's"):
        trusted(tmp_path, "agreement")


def test_a_map_counts_by_how_little_it_spreads(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    maps = generator.random((COUNT, 5, 5)) ** generator.uniform(0.5, 20, COUNT)[:, None, None]
    maps[5] = 0.5  # constant
    maps[6] = 0
    maps[7] = np.nan
    maps -= maps.min((1, 2), keepdims=True)
    maps = maps.astype(np.float16)
    write_maps(tmp_path, range(COUNT), maps=maps)
    slow = []
    for grid in maps.astype(np.float64):
        shares = [cell / grid.sum() for cell in grid.flat if grid.sum() > 0]
        spread = -sum(share * np.log(share) for share in shares if share > 0) / np.log(25)
        slow.append(1 - spread if shares else 0.0)
    found = trusted(tmp_path, "entropy")
    np.testing.assert_allclose(found.weight, slow_weights(slow, list(ROWS), []), rtol=1e-3)
    assert np.isfinite(found.weight).all()
    assert (found.weight[3:6] == 0).all()


def test_what_no_map_is_worth_is_refused(tmp_path: Path) -> None:
    write_maps(tmp_path, range(COUNT))  # scores of 0
    with pytest.raises(InputError, match="trust: score is 0 for all 8 maps"):
        trusted(tmp_path, "score")
    write_maps(tmp_path, range(COUNT), maps=np.ones((COUNT, 5, 5), np.float16))
    with pytest.raises(InputError, match="trust: entropy is 0 for all 8 maps"):
        trusted(tmp_path, "entropy")
    write_maps(tmp_path, [])
    with pytest.raises(InputError, match="none of the 8 training images has a map"):
        trusted(tmp_path, "entropy")


def test_a_folder_of_map_images_has_no_scores(tmp_path: Path) -> None:
    for row in ROWS:
        write_image(tmp_path / f"d{row % 2}" / f"{row}.png", int(row) % 8)
    for trust in ("score", "agreement"):
        with pytest.raises(InputError, match=f"trust: {trust} needs a"):
            trusted(tmp_path, trust)
    found = trusted(tmp_path, "entropy")  # one column each: all alike
    np.testing.assert_allclose(found.weight, 1 + 0.1 * ROWS, rtol=1e-5)


# What is done to guiding maps.

POST = PostProcessing(blur=0.15, power=2, threshold=0.05)
HUMAN_POST = PostProcessing(threshold=0.6, dilate=0.1, shape="hull")


def on_grid(found: MapTargets, images: Any = IMAGES) -> Any:
    rows = Rows(images, ROWS, np.zeros(8, np.int64), 32, "squash", None, found, (4, 4))
    return rows.maps_on_grid(np.arange(8))


def with_human_maps() -> Any:
    """The images, whose human maps are noise that is dark in the last columns."""
    maps = np.random.default_rng(2).integers(0, 256, (COUNT, 16, 16)).astype(np.uint8)
    maps[:, :, 9:] = 0
    return SimpleNamespace(sizes=SIZES, side=32, human_maps=lambda rows: maps[rows])


def test_post_processing_comes_after_the_grid(tmp_path: Path) -> None:
    maps = np.random.default_rng(0).random((COUNT, 7, 7)).astype(np.float16)
    write_maps(tmp_path, range(COUNT), maps=maps)
    source = MapSource(kind="store", path=tmp_path)
    plain, changed = must(guides(source)), must(guides(source, post=POST))
    assert plain.post is None
    assert torch.equal(on_grid(changed), post_process(on_grid(plain), POST))
    assert not torch.equal(on_grid(changed), on_grid(plain))


def test_human_maps_and_those_of_a_store_are_changed_each_in_their_own_way(tmp_path: Path) -> None:
    maps = np.random.default_rng(0).random((COUNT, 7, 7)).astype(np.float16)
    write_maps(tmp_path, range(COUNT), maps=maps)
    source, images = MapSource(kind="store", path=tmp_path, human="keep"), with_human_maps()
    plain = must(guides(source))
    assert plain.human_post is None
    both = must(guides(source, post=POST, human_post=HUMAN_POST))
    human = torch.from_numpy(plain.index < 0)  # rows 1, 2 and 3
    assert human.sum() == 3
    before, after = on_grid(plain, images), on_grid(both, images)
    torch.testing.assert_close(after[human], post_process(before[human], HUMAN_POST))
    torch.testing.assert_close(after[~human], post_process(before[~human], POST))
    assert after[human].unique().tolist() == [0, 1]
    assert (after != before).flatten(1).any(1).all()
    # Each alone leaves the other's maps as they are.
    alone = on_grid(must(guides(source, post=POST)), images)
    assert torch.equal(alone[human], before[human])
    alone = on_grid(must(guides(source, human_post=HUMAN_POST)), images)
    assert torch.equal(alone[~human], before[~human])


@pytest.mark.parametrize("kind", ["human", "centre", "store"])
def test_what_is_done_to_maps_that_do_not_guide_changes_nothing(tmp_path: Path, kind: Any) -> None:
    write_maps(tmp_path, range(COUNT))
    source = MapSource(kind=kind, path=tmp_path if kind == "store" else None)
    own, other = ("human_post", "post") if kind == "human" else ("post", "human_post")
    images = with_human_maps()
    plain = on_grid(must(guides(source)), images)
    assert torch.equal(on_grid(must(guides(source, **{other: HUMAN_POST})), images), plain)
    assert not torch.equal(on_grid(must(guides(source, **{own: HUMAN_POST})), images), plain)


def test_flips_and_turns_commute_with_post_processing(tmp_path: Path) -> None:
    maps = np.random.default_rng(0).random((COUNT, 8, 8)).astype(np.float16)
    write_maps(tmp_path, range(COUNT), maps=maps)
    found = must(guides(MapSource(kind="store", path=tmp_path), post=POST))
    canvases = np.zeros((COUNT, 32, 32, 3), np.uint8)
    images: Any = SimpleNamespace(sizes=SIZES, side=32, canvases=lambda rows: canvases[rows])
    rows = Rows(images, ROWS, np.zeros(8, np.int64), 32, "squash", None, found, (4, 4))
    draws = np.random.default_rng(1).random((8, 12))
    batch = rows.batch(np.arange(8), Augmentation(flip=True, quarter_turns=True), draws)
    flips, quarters = torch.from_numpy(draws[:, 0] < 0.5), torch.from_numpy(draws[:, 1] * 4).long()
    assert len({*zip(flips.tolist(), quarters.tolist(), strict=True)}) > 3
    assert found.post is not None
    raw = turn_maps(on_grid(replace(found, post=None)), flips, quarters)
    assert batch.maps is not None
    torch.testing.assert_close(batch.maps, post_process(raw, POST), atol=1e-6, rtol=0)
