"""Shuffled maps, a control: every map goes to an image of its class, and takes its worth along."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from preceptor.config.run import MapSource
from preceptor.data.loader import Rows
from tests.maps.guided_rows import (
    COUNT,
    LABELS,
    ROWS,
    SIZES,
    guides,
    manifest,
    must,
    owners,
    write_maps,
)


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
