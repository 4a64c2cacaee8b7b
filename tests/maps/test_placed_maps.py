from __future__ import annotations

import numpy as np

from preceptor.maps.placed_maps import trust_weights


def test_worth_is_finite_and_not_negative() -> None:
    values = np.array([0.5, -1, np.nan, np.inf, -np.inf], np.float32)
    maps = np.zeros((5, 2, 2), np.float32)
    for trust in ("score", "agreement"):
        found = trust_weights(trust, maps, scores=values, agreement=values)  # type: ignore[arg-type]
        assert found is not None
        assert found.tolist() == [0.5, 0, 0, 0, 0]
    assert trust_weights("none", maps) is None
