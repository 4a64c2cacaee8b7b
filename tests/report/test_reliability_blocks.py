"""Reliability of the scores of several seeds."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pandas as pd
import pytest

from preceptor.report.reliability_blocks import reliability_of_seeds

CLASSES = ("real", "fake")


def _calibrated(seed: int, images: int = 400) -> pd.DataFrame:
    """Scores of a calibrated model on images of their own."""
    random = np.random.default_rng(seed)
    score = random.uniform(size=images)
    labels = np.where(random.uniform(size=images) < score, "fake", "real")
    return pd.DataFrame(
        {
            "path": [f"{seed}/{index}.png" for index in range(images)],
            "label": labels,
            "split": "test",
            "source": "",
            "group": "",
            "score_real": 1 - score,
            "score_fake": score,
        }
    )


@pytest.mark.parametrize("positive", ["fake", None])
def test_seeds_of_their_own_images_keep_their_own_labels(positive: str | None) -> None:
    parts = [_calibrated(seed, 400 + 10 * seed) for seed in range(5)]
    error, bins = reliability_of_seeds(parts, CLASSES, positive, draws=True)
    assert error.value < 0.05  # labels of another draw give 0.2
    assert error.low == 0
    assert bins.counts.sum() == sum(map(len, parts))


def test_images_of_several_seeds_are_resampled_together() -> None:
    part = _calibrated(0, 100)
    once, _ = reliability_of_seeds([part], CLASSES, "fake", draws=False)
    together, _ = reliability_of_seeds([part] * 4, CLASSES, "fake", draws=False)
    apart, _ = reliability_of_seeds([part] * 4, CLASSES, "fake", draws=True)
    assert astuple(together) == pytest.approx(astuple(once))
    # Four times as many independent images: less of the error is noise.
    assert apart.expected == pytest.approx(once.expected / 2, rel=0.1)
