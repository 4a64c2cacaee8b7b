"""Photographs and the pools that they are drawn into."""

from __future__ import annotations

import numpy as np

from preceptor.benchmark.forged import PHOTOGRAPHS, draw_pools
from preceptor.benchmark.forgeries import Pixels, is_gray


def test_pools_hold_every_sort_and_every_photograph_once() -> None:
    for seed in range(20):
        pools = draw_pools(np.random.default_rng(seed))
        names = [photograph.name for pool in pools.values() for photograph in pool]
        assert sorted(names) == sorted(photograph.name for photograph in PHOTOGRAPHS)
        for pool in pools.values():
            assert {photograph.sort for photograph in pool} == {"everyday", "scientific", "gray"}


def test_the_sort_of_a_photograph_is_what_its_pixels_say(photographs: dict[str, Pixels]) -> None:
    for photograph in PHOTOGRAPHS:
        assert is_gray(photographs[photograph.name]) == (photograph.sort == "gray")
