"""Random changes of whole batches, against slow twins, torchvision and one image at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional as vision

from preceptor.config.training import Augmentation
from preceptor.data import augment
from preceptor.data.augment import prepare
from tests.data.map_twin import turned_array
from tests.no_reads import NoReads

ALL = Augmentation(flip=True, quarter_turns=True, crop_area=0.3, color=0.5, blur=0.5)
seeds = st.integers(0, 2**31)


def draw(count: int, seed: int = 0) -> NDArray[np.float64]:
    return augment.draw(seed, 0, np.arange(count))


def pictures(count: int, side: int, channels: int = 3, seed: int = 0) -> Tensor:
    """Smooth uint8 images that differ from each other, (count, side, side, channels)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, channels, 5, 5))
    images = vision.resize(torch.from_numpy(coarse).to(torch.uint8), [side, side])
    return images.permute(0, 2, 3, 1).contiguous()


def change(
    canvases: Tensor, options: Augmentation, numbers: NDArray[np.float64], size: int
) -> Tensor:
    changes = augment.changes_of(options, numbers, canvases.shape[1])
    return augment.apply(canvases, prepare(changes, canvases.shape[1], size))


@given(seed=seeds, side=st.integers(1, 300))
def test_nothing_changes_with_everything_off(seed: int, side: int) -> None:
    changes = augment.changes_of(Augmentation(), draw(1, seed), side)
    assert changes.crops.tolist() == [[0, 0, side]]
    assert not changes.flips.any()
    assert not changes.quarters.any()
    canvas = np.array([[-0.5, 0.0, 1.5, 1.0]])
    np.testing.assert_array_equal(changes.boxes(canvas, side), canvas)
    images = pictures(2, 16)
    assert torch.equal(change(images, Augmentation(), draw(2, seed), 16), images)


@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
def test_flips_and_turns_move_every_pixel(kind: torch.dtype) -> None:
    images = torch.randint(0, 256, (64, 9, 9, 3)).to(kind)
    options = Augmentation(flip=True, quarter_turns=True)
    changes = augment.changes_of(options, draw(64), 9)
    found = change(images, options, draw(64), 9)
    assert len({*zip(changes.flips, changes.quarters, strict=True)}) == 8
    for image, result, flip, quarters in zip(
        images.numpy(), found.numpy(), changes.flips, changes.quarters, strict=True
    ):
        np.testing.assert_array_equal(result, turned_array(image, bool(flip), int(quarters)))


@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
@pytest.mark.parametrize(("side", "size"), [(30, 20), (20, 30), (20, 15)])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_crops_are_resized_as_torch_does(
    kind: torch.dtype, side: int, size: int, channels: int
) -> None:
    """A crop of exactly the result's size too, where the canvas is larger."""
    levels = 1.0 if kind == torch.uint8 else 1 / 255
    canvases = pictures(12, side, channels)
    options, numbers = Augmentation(flip=True, quarter_turns=True, crop_area=0.3), draw(12)
    numbers[0, 2] = min(((size / side) ** 2 - 0.3) / 0.7, 0.999)
    changes = augment.changes_of(options, numbers, side)
    found = change((canvases * levels).to(kind), options, numbers, size)
    assert (found.shape, found.dtype) == ((12, size, size, channels), kind)
    for place, (left, top, extent) in enumerate(changes.crops.tolist()):
        crop = canvases[place, top : top + extent, left : left + extent].permute(2, 0, 1).float()
        sized = vision.resize(crop, [size, size], antialias=True).permute(1, 2, 0).numpy()
        turn = bool(changes.flips[place]), int(changes.quarters[place])
        # One level for the 8-bit arithmetic of each axis.
        slack = 1.01 if kind == torch.uint8 else 0.01
        result = found[place].float().numpy() / levels
        np.testing.assert_allclose(result, turned_array(sized, *turn), atol=slack)


def test_a_blur_is_the_gaussian_of_torchvision() -> None:
    images = pictures(16, 24)
    changes = augment.changes_of(Augmentation(blur=1), draw(16), 24)
    found = change(images, Augmentation(blur=1), draw(16), 24)
    for image, result, sigma in zip(images, found, changes.sigmas, strict=True):
        kernel = [2 * int(3 * sigma + 0.5) + 1] * 2
        expected = vision.gaussian_blur(image.permute(2, 0, 1), kernel, [float(sigma)] * 2)
        difference = result.permute(2, 0, 1).int() - expected.int()
        assert difference.abs().max() <= 1  # half levels may be rounded either way
    assert not torch.equal(found, images)


def test_colours_follow_the_formula() -> None:
    images = pictures(16, 12)
    options = Augmentation(color=0.3)
    changes = augment.changes_of(options, draw(16), 12)
    found = change(images, options, draw(16), 12)
    assert changes.factors is not None
    luma_of = np.array([0.299, 0.587, 0.114])
    for image, result, (b, c, s) in zip(
        images.double().numpy(), found.numpy(), changes.factors, strict=True
    ):
        luma = (image @ luma_of)[..., None]
        expected = b * (c * (s * image + (1 - s) * luma) + (1 - c) * luma.mean())
        np.testing.assert_allclose(result, expected.clip(0, 255), atol=0.501)


@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
@pytest.mark.parametrize("side", [32, 47])
def test_an_image_does_not_depend_on_its_batch(kind: torch.dtype, side: int) -> None:
    """To the bit, for every change, alone or among others, in any order."""
    canvases = pictures(40, side).to(kind)
    canvases = canvases / 255 if kind == torch.float32 else canvases
    together = change(canvases, ALL, draw(40), 32)
    for chosen in ([7], [3, 39, 4], list(range(39, -1, -1)), list(range(11, 29))):
        found = change(canvases[chosen], ALL, draw(40)[chosen], 32)
        assert torch.equal(found, together[chosen])


def test_threads_do_not_change_the_bits() -> None:
    canvases = pictures(40, 47)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = change(canvases, ALL, draw(40), 32)
        torch.set_num_threads(3)
        assert torch.equal(change(canvases, ALL, draw(40), 32), one)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])  # the two ways of resizing
def test_no_change_waits_for_the_device(kind: torch.dtype) -> None:
    canvases = pictures(16, 47).to(kind)
    prepared = prepare(augment.changes_of(ALL, draw(16), 47), 47, 32)
    reads: Any = NoReads()
    with reads:
        augment.apply(canvases, prepared)


# Random numbers of images, and the changes that they decide.

DRAWN = ALL.model_copy(update={"outside": "mean"})


def test_draws_are_of_seed_epoch_and_position_alone() -> None:
    drawn = draw(100, 3)
    assert drawn.shape == (100, 14)
    assert ((drawn >= 0) & (drawn < 1)).all()
    some = np.array([70, 3, 3, 99])
    np.testing.assert_array_equal(augment.draw(3, 0, some), drawn[some])
    assert not np.isin(drawn, augment.draw(3, 1, np.arange(100))).any()
    assert not np.isin(drawn, draw(100, 4)).any()
    assert len(np.unique(drawn)) == drawn.size


def test_the_generator_is_split_mix() -> None:
    # The first outputs of the published C code for the seed 1234567.
    found = augment.split_mix(np.uint64(1234567), np.arange(3, dtype=np.uint64))
    assert found.tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_flips_turns_areas_and_chances_have_their_frequencies() -> None:
    changes = augment.changes_of(DRAWN, draw(4000), 200)
    quarters = np.bincount(changes.quarters, minlength=4) / 4000
    areas = (changes.crops[:, 2] / 200) ** 2
    chances = changes.flips, changes.sigmas > 0, changes.outside
    for chosen in chances:
        assert abs(chosen.mean() - 0.5) < 0.032  # four standard errors
    assert np.abs(quarters - 0.25).max() < 0.03
    assert abs(areas.mean() - 0.65) < 0.015
    assert areas.min() >= 0.29
    sigmas = changes.sigmas[changes.sigmas > 0]
    assert 0.1 <= sigmas.min() <= sigmas.max() <= 2
    assert changes.factors is not None
    assert 0.5 <= changes.factors.min() <= changes.factors.max() <= 1.5


def test_the_outside_has_numbers_of_its_own() -> None:
    """Whether it is changed changes nothing else; its keys are those of SplitMix64's range."""
    plain = DRAWN.model_copy(update={"outside": "none"})
    one, other = (augment.changes_of(options, draw(500), 50) for options in (DRAWN, plain))
    for name in ("crops", "flips", "quarters", "factors", "sigmas"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert not other.outside.any()
    assert len(np.unique(one.keys)) == 500
    assert one.keys.max() < 2**53
    for rate in (0.0, 1.0):
        changes = DRAWN.model_copy(update={"outside_rate": rate})
        assert (augment.changes_of(changes, draw(500), 50).outside == (rate == 1)).all()
