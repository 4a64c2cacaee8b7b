import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preceptor.benchmark.forgeries import (
    KINDS,
    PRESETS,
    STAMP_MARGIN,
    STAMP_SHAPE,
    Strengths,
    add_noise,
    draw_region,
    forge,
    is_gray,
    pixelate,
    random_place,
    shift_color,
    splice,
    stamp,
)

TINY = PRESETS["tiny"]


def crop_of(photographs, name, size=64, top=100, left=100):
    return photographs[name][top : top + size, left : left + size]


@pytest.mark.parametrize("name", ["coffee", "grass"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_forgery_changes_its_region_and_nothing_else(photographs, kind, name):
    generator = np.random.default_rng(1)
    crop = crop_of(photographs, name)
    region = draw_region(64, (0.15, 0.3), 4.0, generator)
    donor = crop_of(photographs, "astronaut")
    forged = forge(crop, region, kind, Strengths(), generator, donor)
    assert (forged == crop)[region == 0].all()
    assert (forged != crop)[region == 255].any()
    assert is_gray(forged) == is_gray(crop) == (name == "grass")


def test_a_region_equals_its_slow_twin():
    size, radius, edge = 48, (0.15, 0.3), 4.0
    region = draw_region(size, radius, edge, np.random.default_rng(5))
    generator = np.random.default_rng(5)
    short, long = sorted(generator.uniform(*radius, size=2) * size)
    angle = generator.uniform(0, np.pi)
    margin = long * (1 + edge / (2 * short)) + 0.5
    centre_x, centre_y = generator.uniform(margin, size - margin, size=2)
    for row in range(size):
        for column in range(size):
            x, y = column + 0.5 - centre_x, row + 0.5 - centre_y
            along = (x * np.cos(angle) + y * np.sin(angle)) / long
            across = (-x * np.sin(angle) + y * np.cos(angle)) / short
            share = 0.5 + (1 - np.sqrt(along**2 + across**2)) * short / edge
            assert abs(region[row, column] - 255 * min(max(share, 0), 1)) <= 0.5 + 1e-6


@pytest.mark.parametrize("block", [2, 3, 5])
def test_pixelation_equals_its_slow_twin(photographs, block):
    crop = crop_of(photographs, "coffee", size=32)
    result = pixelate(crop, block)
    for row in range(32):
        for column in range(32):
            top, left = row // block * block, column // block * block
            mean = crop[top : top + block, left : left + block].mean(axis=(0, 1))
            np.testing.assert_allclose(result[row, column], mean)


def test_noise_has_the_asked_deviation_and_leaves_gray_grey(photographs):
    color, gray = crop_of(photographs, "coffee"), crop_of(photographs, "grass")
    added = add_noise(color, 12.0, np.random.default_rng(0)) - color
    assert added.std() == pytest.approx(12.0, rel=0.05)
    assert not np.allclose(added[..., 0], added[..., 1])
    added = add_noise(gray, 12.0, np.random.default_rng(0)) - gray
    assert np.allclose(added[..., 0], added[..., 1])


def test_a_splice_leaves_the_asked_share_of_the_difference_in_color(photographs):
    crop, donor = crop_of(photographs, "coffee"), crop_of(photographs, "astronaut")
    region = draw_region(64, (0.2, 0.3), 4.0, np.random.default_rng(0))

    def mean(image):
        return (image * (region / region.sum())[..., None]).sum(axis=(0, 1))

    for strength in (0.0, 0.5, 1.0):
        left = mean(splice(crop, donor, region, strength)) - mean(crop)
        np.testing.assert_allclose(left, strength * (mean(donor) - mean(crop)), atol=1e-9)


def test_a_colour_shift_has_the_asked_length(photographs):
    for name in ("coffee", "grass"):
        crop = crop_of(photographs, name)
        moved = shift_color(crop, 30.0, np.random.default_rng(0)) - crop
        np.testing.assert_allclose(np.linalg.norm(moved, axis=2), 30.0)


def test_every_place_beside_the_region_is_drawn_and_no_other():
    region = np.zeros((32, 32), np.uint8)
    region[10:, 4] = 1
    crop = np.full((32, 32, 3), 100, np.uint8)
    drawn = {random_place(region, np.random.default_rng(seed)) for seed in range(3000)}
    height, width = STAMP_SHAPE
    margin = STAMP_MARGIN
    expected = set()
    for row in range(margin, 32 - height - margin + 1):
        for column in range(margin, 32 - width - margin + 1):
            around = region[
                row - margin : row + height + margin, column - margin : column + width + margin
            ]
            if not around.any():
                expected.add((row, column))
    assert drawn == expected
    for place in drawn:
        changed = np.argwhere((stamp(crop, 20, place) != crop).any(axis=2))
        assert tuple(changed.min(axis=0)) == place
        assert tuple(np.ptp(changed, axis=0) + 1) == STAMP_SHAPE


def test_a_region_without_a_place_beside_it_is_an_error():
    with pytest.raises(ValueError, match="no place for the stamp"):
        random_place(np.full((32, 32), 255, np.uint8), np.random.default_rng(0))


@given(st.integers(0, 2**32), st.sampled_from([PRESETS["demo"], PRESETS["spots"]]))
def test_regions_of_presets_with_a_moving_stamp_leave_it_a_place(seed, settings):
    generator = np.random.default_rng(seed)
    region = draw_region(settings.size, settings.radius, settings.edge, generator)
    random_place(region, generator)


@pytest.mark.parametrize("name", ["demo", "spots", "full"])
def test_presets_for_studies_have_every_kind_and_a_stamp(name: str) -> None:
    settings = PRESETS[name]
    assert {*settings.kinds, *settings.unseen_kinds} == set(KINDS)
    assert settings.stamp_strength > 0
    assert settings.stamp_rate == 1
