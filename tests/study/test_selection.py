"""Choosing by validation scores: which candidate wins, and what ties do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from preceptor.errors import InputError
from preceptor.study.config import Setting
from preceptor.study.selection import Candidate, choose

CLASSES = ["real", "fake"]
SEEDS = 4


def scores(separation: dict[str, float], seed: int, images: int = 200) -> pd.DataFrame:
    """Scores of one seed; `separation` of the classes by set, in standard deviations."""
    generator = np.random.default_rng(seed)
    frames = []
    for name, apart in separation.items():
        label = np.tile(CLASSES, images // 2)
        score = generator.normal(apart * (label == "fake"), 1)
        frames.append(
            pd.DataFrame(
                {
                    "path": [f"{name}-{i}.png" for i in range(images)],
                    "label": label,
                    "split": name,
                    "source": "",
                    "group": "",
                    "score_real": -score,
                    "score_fake": score,
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def candidate(
    name: str, separation: dict[str, float], agreement: float = 0.5, alpha: float = 0.5
) -> Candidate:
    frames = [scores(separation, seed) for seed in range(SEEDS)]
    return Candidate(name, Setting(alpha), frames, agreement)


@pytest.mark.parametrize("draws", [False, True])
@pytest.mark.parametrize("worst", ["val", "val-unseen"])
def test_a_tie_is_judged_on_the_worst_set_of_each(worst: str, draws: bool) -> None:
    shortcut = candidate("shortcut", {"val": 4.0, "val-unseen": 0.1}, agreement=0.9, alpha=0.1)
    apart = {"val": 1.8, "val-unseen": 1.8} | {worst: 1.2}
    sound = candidate("sound", apart)
    found = choose([shortcut, sound], classes=CLASSES, positive="fake", draws=draws)
    assert found.table[1]["worst_set"] == worst
    assert found.winner == "sound"
    assert found.table[0]["high"] < 0
    assert f"highest AUC on the worst validation set ({worst});" in found.reason
    assert ", best " not in found.reason  # it is the best


def test_equal_scores_go_to_the_smaller_alpha_in_any_order() -> None:
    three = [candidate(f"α {alpha}", {"val": 1.0}, alpha=alpha) for alpha in (0.5, 0.1, 0.9)]
    for several in (three, three[::-1]):
        found = choose(several, classes=CLASSES, positive="fake")
        assert found.winner == "α 0.1"
        assert "first of 3 with this AUC, by α;" in found.reason
        assert all(row["tied"] for row in found.table)


def of_positives(one: Candidate, name: str) -> Candidate:
    """A candidate whose set `name` has no negatives."""
    frames = [frame[(frame["split"] != name) | (frame["label"] == "fake")] for frame in one.scores]
    return Candidate(one.name, one.setting, frames, one.agreement)


@pytest.mark.parametrize("draws", [False, True])
def test_a_set_of_one_class_never_decides_by_nan(draws: bool) -> None:
    bad = of_positives(candidate("bad", {"val": 0.0, "val-unseen": 0.0}), "val-unseen")
    good = of_positives(candidate("good", {"val": 2.9, "val-unseen": 2.9}), "val-unseen")
    settings: Any = {"classes": CLASSES, "positive": "fake", "draws": draws}
    with pytest.raises(InputError, match="bad has no AUC on val-unseen"):
        choose([bad, good], **settings)
    found = choose([bad, good], **settings, negatives="val")
    assert found.winner == "good"
    low, high = (row["value"] for row in found.table)
    assert low == pytest.approx(0.5, abs=0.06)
    assert high == pytest.approx(0.98, abs=0.01)
    for row, one in zip(found.table, (bad, good), strict=True):
        slow = []
        for frame in one.scores:
            ours = frame["score_fake"][frame["split"] == "val-unseen"]
            theirs = frame["score_fake"][(frame["split"] == "val") & (frame["label"] == "real")]
            slow.append((ours.to_numpy()[:, None] > theirs.to_numpy()).mean())
        if row["worst_set"] == "val-unseen":
            assert row["value"] == pytest.approx(np.mean(slow))
