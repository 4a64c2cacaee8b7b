"""What a Teacher's maps are worth: those that have settled, by score, agreement or entropy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from preceptor.config.maps import MapSource
from preceptor.data.loader import MapTargets
from preceptor.errors import InputError
from preceptor.maps.store import StoreInfo
from tests.maps.guided_rows import (
    COUNT,
    ROWS,
    SCORES,
    guides,
    manifest,
    must,
    numbers,
    owners,
    write_image,
    write_maps,
)

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


# What a Teacher's maps are worth.


def trusted(folder: Path, trust: Any, **values: Any) -> MapTargets:
    config = {name: values.pop(name) for name in ("guide_classes", "table") if name in values}
    return must(guides(MapSource(kind="store", path=folder, trust=trust, **values), **config))


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
    with pytest.raises(InputError, match="none of the 8 training images: it has no map"):
        trusted(tmp_path, "entropy")


def test_a_folder_of_map_images_has_no_scores(tmp_path: Path) -> None:
    for row in ROWS:
        write_image(tmp_path / f"d{row % 2}" / f"{row}.png", int(row) % 8)
    for trust in ("score", "agreement"):
        with pytest.raises(InputError, match=f"trust: {trust} needs a"):
            trusted(tmp_path, trust)
    found = trusted(tmp_path, "entropy")  # one column each: all alike
    np.testing.assert_allclose(found.weight, 1 + 0.1 * ROWS, rtol=1e-5)
