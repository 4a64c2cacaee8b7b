"""Batches: pure functions of seed and step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from preceptor.config.training import Augmentation, Length
from preceptor.data.loader import (
    Batch,
    MapArray,
    MapTargets,
    Rows,
    TrainingStream,
    epoch_order,
    split_batches,
)
from tests.datasets import Noise

CHANGES = Augmentation(flip=True, quarter_turns=True, crop_area=0.5, color=0.3, blur=0.5)


def rows_of(count: int = 23, side: int = 16, size: int = 16, **options: Any) -> Rows:
    labels = (np.arange(count) % 3 == 0).astype(np.int64)
    targets = MapTargets(np.ones(count, np.float32), None, np.full(count, -1, np.int64))
    options = {"targets": targets, "grid": (4, 4)} | options
    return Rows(Noise(count, side), np.arange(count), labels, size, "squash", **options)


def assert_equal(one: Batch, other: Batch) -> None:
    for a, b in zip(one, other, strict=True):
        assert (a is None) == (b is None)
        assert a is None or torch.equal(a, b)


def stream(seed: int = 1, **options: Any) -> TrainingStream:
    return TrainingStream(
        rows_of(side=22), 5, seed=seed, settings=options.pop("settings", CHANGES), **options
    )


@pytest.mark.parametrize("settings", [Augmentation(crop_area=0.9), CHANGES])
@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("length", ["epochs", "steps"])
def test_a_batch_depends_on_seed_and_step_alone(
    settings: Augmentation, balanced: bool, length: Length
) -> None:
    options = {"settings": settings, "balanced": balanced, "length": length}
    whole = list(stream(**options).steps(0, 13))
    assert len(whole) == 13
    for start in (1, 4, 5, 12):
        resumed = list(stream(**options).steps(start, 13))
        for batch, same in zip(resumed, whole[start:], strict=True):
            assert_equal(batch, same)
    used = stream(**options)
    list(used.steps(9, 11))  # another history
    assert_equal(next(iter(used.steps(2, 3))), whole[2])
    assert not torch.equal(next(iter(stream(2, **options).steps(0, 1))).images, whole[0].images)
    assert list(used.steps(4, 4)) == []


def test_the_size_of_batches_changes_no_image() -> None:
    def seen(size: int, steps: int) -> list[torch.Tensor]:
        source = TrainingStream(rows_of(side=22), size, seed=1, settings=CHANGES, length="steps")
        batches = list(source.steps(0, steps))
        maps = [batch.maps for batch in batches if batch.maps is not None]
        return [torch.cat([batch.images for batch in batches]), torch.cat(maps)]

    torch.testing.assert_close(seen(7, 10), seen(5, 14))


@given(
    count=st.integers(1, 60),
    size=st.integers(1, 70),
    steps=st.integers(1, 40),
    length=st.sampled_from(["epochs", "steps"]),
    start=st.integers(0, 39),
)
def test_every_index_comes_as_often_as_it_should(
    count: int, size: int, steps: int, length: Length, start: int
) -> None:
    """Over any number of rows, batches and steps, and from any step on."""
    rows = rows_of(count, 2, 2, targets=None)
    source = TrainingStream(rows, size, seed=3, settings=Augmentation(), length=length)
    known = {pixels.tobytes(): index for index, pixels in enumerate(rows.images.pixels)}  # type: ignore[attr-defined]
    assert len(known) == count

    def indices(first: int) -> list[list[int]]:
        return [
            [known[image.permute(1, 2, 0).contiguous().numpy().tobytes()] for image in batch.images]
            for batch in source.steps(first, steps)
        ]

    seen = indices(0)
    assert {len(batch) for batch in seen} <= set(source.sizes)
    joined = [index for batch in seen for index in batch]
    if length == "steps":
        assert len(joined) == steps * size
    orders = [
        epoch_order(3, epoch, rows.labels, balanced=False)
        for epoch in range(len(joined) // count + 1)
    ]
    assert joined == np.concatenate(orders)[: len(joined)].tolist()
    assert indices(min(start, steps)) == seen[min(start, steps) :]


@given(count=st.integers(1, 200), size=st.integers(1, 30))
def test_batches_partition_and_no_image_is_alone(count: int, size: int) -> None:
    parts = split_batches(count, size)
    joined = [position for part in parts for position in range(part.start, part.stop)]
    assert joined == list(range(count))
    lengths = [part.stop - part.start for part in parts]
    assert all(length == size for length in lengths[:-1])
    assert lengths[-1] <= size + 1
    if count > 1 and size > 1:
        assert min(lengths) > 1


def test_balanced_draws_show_every_class_equally() -> None:
    labels = np.repeat([0, 1, 2], [900, 90, 10])
    counts = np.zeros(3)
    for epoch in range(20):
        order = epoch_order(0, epoch, labels, balanced=True)
        assert len(order) == 1000
        counts += np.bincount(labels[order], minlength=3)
    # 20,000 draws at 1/3 each: a standard error of 67.
    assert np.abs(counts - 20_000 / 3).max() < 270
    plain = epoch_order(0, 0, labels, balanced=False)
    assert sorted(plain) == list(range(1000))


def test_weights_maps_and_labels_follow_their_images() -> None:
    count = 12
    weights = np.linspace(0.5, 2, count).astype(np.float32)
    maps = np.zeros((count, 4, 4), np.float32)
    maps[np.arange(count), np.arange(count) % 4, np.arange(count) // 4] = np.arange(count) + 1
    array = MapArray(maps, np.tile([0.0, 0.0, 1.0, 1.0], (count, 1)))
    index = np.arange(count)
    index[3] = -1  # guided by its human map
    guide_weight = np.arange(count, dtype=np.float32)  # row 0 is not guided
    rows = rows_of(
        count, sample_weight=weights, targets=MapTargets(guide_weight, array, index), grid=(4, 4)
    )
    chosen = np.array([7, 0, 3, 11])
    batch = rows.batch(chosen)
    assert batch.maps is not None
    assert batch.map_weight is not None
    assert batch.sample_weight is not None
    np.testing.assert_array_equal(batch.sample_weight.numpy(), weights[chosen])
    np.testing.assert_array_equal(batch.map_weight.numpy(), guide_weight[chosen])
    np.testing.assert_array_equal(batch.labels.numpy(), rows.labels[chosen])
    np.testing.assert_allclose(batch.maps[0].numpy(), maps[7])
    np.testing.assert_allclose(batch.maps[3].numpy(), maps[11])
    assert not batch.maps[1].any()
    # The human map of row 3 is line 3 of 128, so the top row of four.
    assert (batch.maps[2][0] > 0).all()
    assert not batch.maps[2][1:].any()


def test_images_are_channels_last_and_resized_where_the_canvas_is_larger() -> None:
    plain = rows_of().batch(np.arange(4))
    assert plain.images.shape == (4, 3, 16, 16)
    assert plain.images.is_contiguous(memory_format=torch.channels_last)
    larger = rows_of(side=20).batch(np.arange(4))
    assert larger.images.shape == (4, 3, 16, 16)
    assert rows_of(targets=None).batch(np.arange(2)).maps is None
