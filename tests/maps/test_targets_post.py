"""What is done to guiding maps: post-processing, flips and turns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from preceptor.config.maps import MapSource, PostProcessing
from preceptor.config.training import Augmentation
from preceptor.data.loader import MapTargets, Rows
from preceptor.data.resampling import turn_maps
from preceptor.saliency.postprocess import post_process
from tests.maps.guided_rows import (
    COUNT,
    IMAGES,
    ROWS,
    SIZES,
    guides,
    must,
    write_maps,
)

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
