"""Changes outside maps: the formula in float64, and what must not change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import norm
from torch import Tensor

from preceptor.config.training import Augmentation, OutsideKind
from preceptor.data import augment
from preceptor.data.augment import Outside, change_outside, partners_of
from preceptor.data.geometry import MAP_SIDE
from preceptor.data.loader import MapTargets, Rows, TrainingStream
from tests.datasets import Noise
from tests.no_reads import NoReads

KINDS: tuple[OutsideKind, ...] = ("noise", "other", "mean")
MOVES = {"flip": True, "quarter_turns": True, "crop_area": 0.5}
REST = {"color": 0.3, "blur": 0.5}
Array = NDArray[np.float64]


@dataclass
class Marked(Noise):
    """Noise with a marked rectangle; every fifth image has a constant map."""

    def human_maps(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        maps = np.zeros((len(rows), MAP_SIDE, MAP_SIDE), np.uint8)
        for position, row in enumerate(rows.tolist()):
            top, left = 8 * (row % 5), 16 * (row % 3)
            maps[position, top : top + 48, left : left + 72] = 240
            if row % 5 == 4:
                maps[position] = 240
        return maps


def rows_of(count: int = 23, side: int = 32, size: int = 32, **options: Any) -> Rows:
    """The even images have a map weight."""
    weight = (np.arange(count) % 2 == 0).astype(np.float32)
    labels = (np.arange(count) % 3 == 0).astype(np.int64)
    options = {"targets": MapTargets.human(weight), "grid": (4, 4)} | options
    return Rows(Marked(count, side), np.arange(count), labels, size, "squash", **options)


def stream_of(kind: OutsideKind, size: int = 5, **options: Any) -> TrainingStream:
    settings = Augmentation.model_validate(MOVES | REST | {"outside": kind, "outside_rate": 0.7})
    rows = options.pop("rows", None) or rows_of(side=45)
    return TrainingStream(rows, size, seed=1, settings=settings, length="steps", **options)


def images_of(stream: TrainingStream, steps: int) -> Tensor:
    return torch.cat([batch.images for batch in stream.steps(0, steps)])


def drawn(count: int) -> NDArray[np.float64]:
    return augment.draw(0, 0, np.arange(count))


# The formula, an image at a time.


def enlarged(mask: Array, size: int) -> Array:
    """Bilinear, from the centers of the cells."""
    for axis in (0, 1):
        at = ((np.arange(size) + 0.5) * mask.shape[axis] / size - 0.5).clip(0)
        low = at.astype(int)
        high = np.minimum(low + 1, mask.shape[axis] - 1)
        share = (at - low).reshape((-1, 1) if axis == 0 else (1, -1))
        mask = (1 - share) * mask.take(low, axis) + share * mask.take(high, axis)
    return mask


def noisy(image: Array, std: float, key: int) -> Array:
    numbers = augment.split_mix(np.uint64(key), np.arange(image.size, dtype=np.uint64))
    share = ((numbers >> np.uint64(41)).astype(np.float64) + 0.5) / 2**23
    return (image + std * norm.ppf(share).reshape(image.shape)).clip(0, 255)


def outside_of(kind: OutsideKind, places: Any, masks: Tensor, keys: NDArray[np.uint64]) -> Outside:
    start = torch.from_numpy(keys.astype(np.int64))
    return Outside(kind, torch.from_numpy(places), masks, start)


def pictures(count: int, size: int, channels: int, seed: int) -> Tensor:
    shape = (count, size, size, channels)
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [1, 3])
def test_the_formula(kind: OutsideKind, channels: int) -> None:
    images, others = pictures(7, 32, channels, 0), pictures(4, 32, channels, 1)
    masks = torch.rand(4, 16, 16, generator=torch.Generator().manual_seed(0))
    masks[1, 4:12, 4:12], masks[2] = 1, 0
    places, keys = np.array([5, 0, 3, 6]), np.array([1, 2**52 + 7, 2**53 - 1, 12345], np.uint64)
    found = images.clone()
    outside = outside_of(kind, places, masks, keys)
    change_outside(found, outside, others if kind == "other" else None, 3)
    for index, place in enumerate(places):
        image, mask = images[place].double().numpy(), masks[index].double().numpy()
        replacement = {
            "noise": lambda: noisy(image, 0.25 * 255, int(keys[index])),  # noqa: B023
            "other": lambda: others[index].double().numpy(),  # noqa: B023
            "mean": lambda: np.broadcast_to(image.mean((0, 1)), image.shape),  # noqa: B023
        }[kind]()
        m = enlarged(mask, 32)[..., None]
        expected = m * image + (1 - m) * replacement
        np.testing.assert_allclose(found[place].numpy(), expected, atol=0.505)
        whole = np.broadcast_to(m, image.shape) >= 1
        assert whole.any() == (index == 1)
        np.testing.assert_array_equal(found[place].numpy()[whole], images[place].numpy()[whole])
        assert not torch.equal(found[place], images[place])
    untouched = [1, 2, 4]
    assert torch.equal(found[untouched], images[untouched])


@pytest.mark.parametrize("kind", KINDS)
def test_images_of_floats_have_the_same_changes(kind: OutsideKind) -> None:
    expected, others = pictures(3, 30, 3, 0), pictures(3, 30, 3, 1)
    masks, keys = torch.rand(3, 5, 5), np.arange(3, dtype=np.uint64)
    outside = outside_of(kind, np.arange(3), masks, keys)
    scaled, more = expected / 255, others / 255
    change_outside(expected, outside, others, 2)
    change_outside(scaled, outside, more, 2)
    np.testing.assert_allclose(scaled * 255, expected.float(), atol=0.51)


# What stays as it is.


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_without_a_map_keeps_its_bits(kind: OutsideKind) -> None:
    rows, chosen = rows_of(45, 45), np.arange(45)
    plain = Augmentation.model_validate(MOVES | REST)
    changed = plain.model_copy(update={"outside": kind, "outside_rate": 1.0})
    before = rows.batch(chosen, plain, drawn(45))
    after = rows.batch(chosen, changed, drawn(45))
    same = (before.images == after.images).flatten(1).all(1).numpy()
    np.testing.assert_array_equal(same, (chosen % 2 == 1) | (chosen % 5 == 4))
    assert before.maps is not None
    assert after.maps is not None
    assert torch.equal(before.maps, after.maps)
    none = rows.batch(chosen, changed.model_copy(update={"outside_rate": 0.0}), drawn(45))
    assert torch.equal(none.images, before.images)
    without = rows_of(45, 45, targets=None)
    assert torch.equal(without.batch(chosen, changed, drawn(45)).images, before.images)


# Geometry.


def test_the_mask_is_cropped_with_its_image() -> None:
    """Images that show their own maps: brightness is the mask, up to the filters of both."""
    rows = rows_of(24, 48, 32)
    places = np.arange(48) * MAP_SIDE // 48
    shown = rows.images.human_maps(np.arange(24))[:, places][:, :, places]
    rows.images.pixels[:] = np.where(shown > 0, 255, 0)[..., None]  # type: ignore[attr-defined]
    chosen = np.array([0, 2, 6, 8, 10, 12, 16, 18])
    plain = Augmentation.model_validate(MOVES)
    settings = plain.model_copy(update={"outside": "mean", "outside_rate": 1.0})
    before = rows.batch(chosen, plain, drawn(8)).images.double()
    after = rows.batch(chosen, settings, drawn(8)).images.double()
    expected = torch.where(before > 127, before, before.mean((2, 3), keepdim=True))
    inner = torch.nn.functional.max_pool2d(before, 5, 1, 2) == -torch.nn.functional.max_pool2d(
        -before, 5, 1, 2
    )  # not on a border of the rectangle
    assert inner.double().mean() > 0.3
    assert (expected - after)[inner].abs().max() < 1


# Random numbers.


@pytest.mark.parametrize("kind", KINDS)
def test_the_size_of_batches_changes_no_image(kind: OutsideKind) -> None:
    images = images_of(stream_of(kind), 14)
    assert torch.equal(images_of(stream_of(kind, 7), 10), images)
    assert torch.equal(torch.cat([b.images for b in stream_of(kind).steps(9, 14)]), images[45:])
    other = stream_of(kind)
    other.seed = 2
    assert not torch.equal(images_of(other, 14), images)


@pytest.mark.parametrize("kind", KINDS)
def test_no_change_waits_for_the_device(kind: OutsideKind) -> None:
    settings = Augmentation.model_validate(MOVES | REST | {"outside": kind, "outside_rate": 1})
    staged = rows_of(side=45).stage(np.arange(16), settings, drawn(16))
    assert staged.changes is not None
    assert staged.changes.outside is not None
    reads: Any = NoReads()
    with reads:
        staged.finished()


def test_the_partner_is_a_training_image_moved_like_the_image() -> None:
    rows, chosen = rows_of(16, 45), np.array([0, 2, 6])
    rows.images.human_maps = lambda which: np.pad(  # type: ignore[method-assign]
        np.full((len(which), 2, 2), 255, np.uint8), ((0, 0), (63, 63), (63, 63))
    )
    settings = Augmentation.model_validate(MOVES | {"outside": "other", "outside_rate": 1})
    numbers = drawn(3)
    found = rows.batch(chosen, settings, numbers).images
    plain = Augmentation.model_validate(MOVES)
    keys = augment.changes_of(settings, numbers, 45).keys
    expected = rows.batch(partners_of(keys, chosen, 16), plain, numbers).images
    assert (found == expected).double().mean() > 0.95
    assert not torch.equal(found, expected)
