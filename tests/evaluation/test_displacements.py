from __future__ import annotations

import pytest

from preceptor.evaluation.displacements import displacements


def test_annotators_without_common_images_are_compared_apart() -> None:
    """Of each of two pairs it is not known whose hand is displaced."""
    apart = {("a", "b"): (6.0, 0.0), ("c", "d"): (0.0, 0.0)}
    assert displacements("abcd", apart) == {}
    three = {("a", "b"): 6.0, ("a", "c"): 6.0, ("b", "c"): 0.0, ("d", "e"): 8.0}
    found = displacements("abcde", {pair: (dx, 0.0) for pair, dx in three.items()})
    assert list(found) == ["a", "b", "c"]
    assert found["a"][0] == pytest.approx(6)
    assert found["b"][0] == pytest.approx(0)
