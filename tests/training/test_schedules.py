"""Learning rates, step by step."""

from __future__ import annotations

import math

import numpy as np
import pytest

from preceptor.config.training import Training
from preceptor.training.loop import learning_rate, period_ends


def test_learning_rates() -> None:
    def rates(kind: str) -> list[float]:
        settings = Training(schedule=kind, lr=1.0)
        return [learning_rate(settings, step, 100, step // 5) for step in range(100)]

    assert set(rates("constant")) == {1.0}
    assert set(rates("step")) == {1.0, 0.1}
    cosine = rates("cosine")
    assert cosine == sorted(cosine, reverse=True)
    assert math.isclose(cosine[0], 1, abs_tol=1e-3)
    assert 0 < cosine[-1] < 1e-3
    cycle = rates("one_cycle")
    assert math.isclose(max(cycle), 1, abs_tol=0.03)
    assert int(np.argmax(cycle)) in (24, 25)
    assert min(cycle) > 0


@pytest.mark.parametrize(("steps", "periods"), [(7, 2), (9, 3), (10, 10)])
def test_periods_cover_all_steps_evenly(steps: int, periods: int) -> None:
    ends = period_ends(Training(length="steps", steps=steps, epochs=periods), 999)
    assert ends[-1] == steps
    lengths = np.diff([0, *ends])
    assert lengths.min() >= 1
    assert lengths.max() - lengths.min() <= 1
    assert period_ends(Training(epochs=periods), steps) == [
        steps * k for k in range(1, periods + 1)
    ]
