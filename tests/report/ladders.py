"""Ladders and comparisons with given gains, for tests of words, figures and tables."""

from __future__ import annotations

import math
from typing import Any

from preceptor.metrics.paired_tests import PairedResult, p_floor
from preceptor.results.ladder import AnyMap, ControlGain, Gain, Ladder, Rung, RungName
from preceptor.study.config import Setting


def ladder(
    place: float,
    half: float,
    *,
    n: int = 8,
    backbone: str = "test_byobnet",
    shuffled: float | None = None,
) -> Ladder:
    """Ladder on the set "test" of which the Teacher's maps are better than any map by `place`.

    Args:
        place: Gain of the Teacher's maps over any map.
        half: Half width of its interval; NaN for one seed.
        n: Number of seeds.
        backbone: Backbone of all models.
        shuffled: Gain over the control with shuffled maps, of the same half width; None = 0.01 more
            than over any map, the centred map.
    """
    names: dict[RungName, tuple[str, float]] = {
        "none": ("baseline2", 0.6),
        "any": ("centre", 0.7),
        "teacher": ("student", 0.7 + place),
        "human": ("ceiling", 0.85),
    }
    rungs: list[Rung] = []
    for name, (key, mean) in names.items():
        gain = None
        if rungs:
            more = mean - rungs[-1].mean
            own = half if name == "teacher" else 0.01
            std = math.nan if n < 2 else 0.02
            paired = PairedResult(more, std, more - own, more + own, p_floor(n), p_floor(n), n)
            gain = Gain(rungs[-1].name, paired, (more,) * n)
        alpha = 1.0 if name == "none" else 0.25
        spread = math.nan if n < 2 else 0.03
        low, high = mean - spread, mean + spread
        rungs.append(
            Rung(name, key, f"Title of {key}", Setting(alpha), n, mean, spread, low, high, gain)
        )
    chosen = AnyMap("centre", ("shuffled", "centre", "pca"), "centre: it is the best.")
    over = []
    for control, gain_over in (
        ("shuffled", place + 0.01 if shuffled is None else shuffled),
        ("centre", place),
        ("pca", place + 0.1),
    ):
        std = math.nan if n < 2 else 0.02
        low, high = gain_over - half, gain_over + half
        paired = PairedResult(gain_over, std, low, high, p_floor(n), p_floor(n), n)
        over.append(ControlGain(control, paired))
    return Ladder(backbone, "test", tuple(rungs), chosen, tuple(over))


def compared(mean: float, half: float = 0.05, /, **more: Any) -> dict[str, Any]:
    """Comparison of a Student that is ahead by `mean`, over 8 seeds."""
    low, high = mean - half, mean + half
    sides = {"a": "Student", "key_a": "student", "key_b": "", "alpha_a": 0.1, "alpha_b": 0.9}
    interval = {"low": low, "high": high, "image_low": low, "image_high": high}
    tested = {"n": 8, "p_floor": 2 / 2**8, "p": 0.01, "p_holm": 0.5}
    return {"backbone": "net", "mean": mean, **sides, **interval, **tested} | more
