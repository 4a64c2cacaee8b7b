"""The bootstrap over seeds and images, and the share of the way: what they resample and cover."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest
from scipy import stats

from preceptor.errors import InputError
from preceptor.metrics import bootstrap as resampling
from preceptor.metrics.auc import auc, auc_weighted
from preceptor.metrics.bootstrap import Side, bootstrap_difference, share_of_draws, share_of_the_way


def study(rng, seeds=5, images=200, effect=0.3, seed_sd=0.1, own_sd=0.4, image_sd=0.9):
    """Scores of two sides on shared images: image, seed and seed-by-image effects."""
    labels = rng.random(images) < 0.4
    shared = image_sd * rng.normal(size=images)

    def side(shift):
        strength = shift + seed_sd * rng.normal(size=(seeds, 1))
        return shared + own_sd * rng.normal(size=(seeds, images)) + labels * strength

    a, b = side(0.7 + effect), side(0.7)
    spread = np.sqrt(2 * (image_sd**2 + own_sd**2) + seed_sd**2)
    truth = stats.norm.cdf((0.7 + effect) / spread) - stats.norm.cdf(0.7 / spread)
    return labels, a, b, truth


def difference(labels, a, b, groups=None, **how):
    """Difference of one model a side on the same images."""
    return bootstrap_difference(Side(labels, [a], groups), Side(labels, [b], groups), **how)


def test_the_bootstrap_of_one_seed_is_the_plain_one():
    rng = np.random.default_rng(1)
    labels, a, b, _ = study(rng, seeds=1, images=60)
    result = difference(labels, a, b, resamples=4_000, seed=3)
    assert result.estimate == auc(labels, a[0]) - auc(labels, b[0])
    twin = []
    while len(twin) < 4_000:
        pick = rng.integers(0, 60, 60)
        twin.append(auc(labels[pick], a[0][pick]) - auc(labels[pick], b[0][pick]))
    tails = [0.025, 0.25, 0.5, 0.75, 0.975]
    expected = np.nanquantile(twin, tails)
    np.testing.assert_allclose(np.quantile(result.replicates, tails), expected, atol=0.015)


def test_the_bootstrap_pairs_the_sides():
    rng = np.random.default_rng(2)
    labels, a, b, _ = study(rng)
    same = difference(labels, a, a.copy(), resamples=50)
    assert (same.estimate, same.low, same.high) == (0, 0, 0)
    one_way = difference(labels, a, b, resamples=50)
    other_way = difference(labels, b, a, resamples=50)
    np.testing.assert_allclose(one_way.replicates, -other_way.replicates, atol=1e-12)
    per_seed = [auc(labels, x) - auc(labels, y) for x, y in zip(a, b, strict=True)]
    assert one_way.estimate == pytest.approx(np.mean(per_seed))
    again = difference(labels, a, b, resamples=50)
    np.testing.assert_array_equal(again.replicates, one_way.replicates)
    several = bootstrap_difference(
        Side(labels, [a, a, a]), Side(labels, [b, b, b]), same_images=True, resamples=50
    )
    np.testing.assert_allclose(several.replicates, one_way.replicates)


def test_whole_groups_are_drawn():
    rng = np.random.default_rng(4)
    labels = np.repeat(np.arange(40) % 2 == 0, 10)
    gain = np.repeat(rng.normal(size=40), 10) + labels
    noise = rng.normal(size=400)
    a, b = (gain + noise + 0.1 * rng.normal(size=(3, 400))), noise + np.zeros((3, 400))
    groups = np.repeat([f"subject {k}" for k in range(40)], 10)
    by_image = difference(labels, a, b, resamples=300)
    by_group = difference(labels, a, b, groups, resamples=300)
    assert by_group.estimate == by_image.estimate
    assert by_group.replicates.std() > 1.3 * by_image.replicates.std()
    for missing in (None, ""):
        alone = difference(labels, a, b, [missing] * 400, resamples=300)
        np.testing.assert_array_equal(alone.replicates, by_image.replicates)
    with pytest.raises(InputError, match="groups for"):
        difference(labels, a, b, groups[1:])


def test_resamples_without_a_class_are_redrawn_or_given_up():
    rng = np.random.default_rng(6)
    labels = np.array([True] + [False] * 29)
    a, b = rng.normal(size=(2, 2, 30))
    result = difference(labels, a, b, resamples=400)
    assert len(result.replicates) == 400  # though a third lacks the one positive when first drawn
    assert np.isfinite(result.replicates).all()
    single = difference(np.ones(30, dtype=bool), a, b, resamples=20)
    assert np.isnan([single.estimate, single.low, single.high]).all()
    assert not len(single.replicates)


def test_a_model_is_measured_once_on_the_same_resamples(monkeypatch):
    rng = np.random.default_rng(11)
    labels, a, b, _ = study(rng, seeds=3, images=60)
    groups = np.arange(60) // 3

    def results():
        return [
            difference(labels, a, b, resamples=100),
            difference(labels, b, a, resamples=100),
            difference(labels, a, b, resamples=100, seed=1),
            difference(labels, a, b, groups, resamples=100),
            difference(~labels, a, b, resamples=100),
            difference(labels, a[:2], b[:2], resamples=100),
        ]

    # Nothing is known of each: what is kept of one must not be taken for another's.
    monkeypatch.setattr(resampling, "_KNOWN", OrderedDict())
    with monkeypatch.context() as without_room:
        without_room.setattr(resampling, "_ROOM", 0)
        alone = results()
    measured = []

    def counted(given, row, counts):
        measured.append(len(counts))
        return auc_weighted(given, row, counts)

    monkeypatch.setattr(resampling, "auc_weighted", counted)
    for one, other in zip(results(), alone, strict=True):
        np.testing.assert_array_equal(one.replicates, other.replicates)
        assert (one.estimate, one.low, one.high) == (other.estimate, other.low, other.high)
    # Six rows of each of four kinds of resamples, and four of two seeds; estimates are apart.
    assert sum(count == 100 for count in measured) == 4 * 6 + 4


def test_bad_bootstrap_input_is_refused():
    labels, fine = np.array([True, False]), np.zeros((2, 2))
    with pytest.raises(InputError, match="must have the same shape"):
        difference(labels, fine, np.zeros((3, 2)))
    with pytest.raises(InputError, match="same seeds"):
        bootstrap_difference(
            Side(labels, [fine]), Side(labels, [np.zeros((3, 2))]), same_images=False
        )
    with pytest.raises(InputError, match="NaN"):
        difference(labels, fine, np.full((2, 2), np.nan))
    with pytest.raises(InputError, match="resamples"):
        difference(labels, fine, fine, resamples=0)


def test_share_of_the_way():
    rng = np.random.default_rng(7)
    labels = rng.random(400) < 0.5
    base = rng.normal(size=(5, 400))
    student, ceiling = base + labels, base + 2 * labels
    result = share_of_the_way(labels, student, base, ceiling, resamples=300)
    values = [np.mean([auc(labels, r) for r in side]) for side in (student, base, ceiling)]
    assert result.share == pytest.approx((values[0] - values[1]) / (values[2] - values[1]))
    assert result.low < result.share < result.high
    assert result.reason == ""
    whole = share_of_the_way(labels, ceiling, base, ceiling, resamples=300)
    assert (whole.share, whole.low, whole.high) == (1, 1, 1)


def test_share_of_the_way_needs_a_distance():
    rng = np.random.default_rng(8)
    labels = rng.random(100) < 0.5
    base = rng.normal(size=(5, 100))
    student, near = base + labels, base + 0.01 * rng.normal(size=(5, 100))
    for ceiling, truth, reason in (
        (near, labels, "includes 0"),
        (base - 2 * labels, labels, "below the baseline"),
        (near, np.ones(100, dtype=bool), "one class only"),
    ):
        result = share_of_the_way(truth, student, base, ceiling, resamples=100)
        assert (result.share, result.low, result.high) == (None, None, None)
        assert reason in result.reason


def test_share_of_draws_is_the_ratio_of_means_and_covers():
    rng = np.random.default_rng(0)
    truth, covered, trials = 0.6, 0, 300
    for _ in range(trials):
        draw = rng.normal(0.7, 0.05, 10)  # an easy draw is easy for all three
        base, ceiling = draw + rng.normal(0, 0.01, 10), draw + 0.1 + rng.normal(0, 0.01, 10)
        student = draw + truth * 0.1 + rng.normal(0, 0.02, 10)
        found = share_of_draws(student, base, ceiling, resamples=400)
        expected = (student - base).mean() / (ceiling - base).mean()
        assert found.share == pytest.approx(expected)
        covered += found.low <= truth <= found.high
    assert 0.91 <= covered / trials <= 0.985


def test_share_of_one_draw_has_no_interval_and_is_not_given():
    found = share_of_draws([0.7], [0.6], [0.8])
    assert (found.share, found.low, found.high) == (None, None, None)
    assert found.reason == "one seed has no interval over seeds"


def test_share_of_draws_needs_a_distance_and_pairs():
    found = share_of_draws([0.6, 0.7, 0.8], [0.7, 0.7, 0.7], [0.6, 0.8, 0.71])
    assert found.share is None
    assert "includes 0" in found.reason
    with pytest.raises(InputError, match="paired"):
        share_of_draws([0.6, 0.7], [0.5, 0.6, 0.7], [0.8, 0.8, 0.8])
