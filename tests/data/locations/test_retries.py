"""Repetition of requests, without waiting, and values that are computed once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from preceptor.data.locations.failures import CutShortError, LocationError
from preceptor.data.locations.once import Once
from preceptor.data.locations.retries import Patience, Servers, repeated


class Failing:
    """Request that fails a number of times."""

    def __init__(self, times: int, error: Callable[[], Exception]) -> None:
        self.times, self.error, self.asked = times, error, 0

    def __call__(self) -> str:
        self.asked += 1
        if self.asked <= self.times:
            raise self.error()
        return "answer"


def cut() -> Exception:
    return CutShortError("cut short")


def test_waits_grow_up_to_the_longest() -> None:
    waits: list[float] = []
    ask = Failing(7, cut)
    patience = Patience(attempts=8, first_wait=1, longest_wait=10)
    assert repeated(ask, "s", patience, Servers(), waits.append) == "answer"
    limits = [1, 2, 4, 8, 10, 10, 10]
    assert len(waits) == len(limits)
    for wait, limit in zip(waits, limits, strict=True):
        assert limit / 2 <= wait <= limit


@pytest.mark.parametrize("error", [PermissionError, FileNotFoundError, ValueError, TypeError])
def test_what_cannot_succeed_is_not_repeated(error: type[Exception]) -> None:
    ask = Failing(1, error)
    with pytest.raises(OSError, match=r"access denied|no such file|Error"):
        repeated(ask, "s", Patience(), Servers(), [].append)
    assert ask.asked == 1


def test_an_answer_restores_the_trust_in_a_server() -> None:
    servers, patience, waits = Servers(), Patience(attempts=2), list[float]()
    for _ in range(10):
        with pytest.raises(LocationError):
            repeated(Failing(9, cut), "s", patience, servers, waits.append)
    assert len(waits) == 8  # then there is one attempt
    assert repeated(Failing(0, cut), "s", patience, servers, waits.append) == "answer"
    assert repeated(Failing(1, cut), "s", patience, servers, waits.append) == "answer"
    assert servers.attempts("another", 2) == 2


def test_values_are_computed_once() -> None:
    once, computed, begun = Once[int, int](kept=10), [], threading.Event()

    def compute() -> int:
        begun.wait(10)
        computed.append(1)
        return 7

    with ThreadPoolExecutor(4) as pool:
        found = [pool.submit(once.get, 1, compute) for _ in range(4)]
        begun.set()
        assert [one.result() for one in found] == [7] * 4
    assert computed == [1]


def test_errors_are_not_kept() -> None:
    once = Once[int, str](kept=1)
    ask = Failing(1, cut)
    with pytest.raises(CutShortError):
        once.get(1, ask)
    assert once.get(1, ask) == "answer"
    once.get(2, lambda: "other")
    assert once.get(1, lambda: "again") == "again"  # one value is kept
