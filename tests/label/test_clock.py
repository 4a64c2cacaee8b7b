"""A clock that is set back, or answers at the same instant, change no order."""

from __future__ import annotations

import pytest

from preceptor.label.db import Connection
from preceptor.label.figures import Remembered, figures
from preceptor.label.marks import Answer, newest_event, save_answer
from preceptor.label.queue import add_teacher
from preceptor.label.teacher import answers_before_newest, count_answers

ONE, TWO, THREE = (f"2026-01-01T00:0{minute}:00.000Z" for minute in (1, 2, 3))


def answer(connection: Connection, image: int) -> None:
    save_answer(connection, image, 1, Answer("nothing", None, None, 1.0, None, "never"))


@pytest.mark.parametrize("times", [(THREE, ONE, ONE), (TWO, TWO, TWO), (ONE, TWO, THREE)])
def test_the_next_teacher_counts_the_answers_since_the_newest_one(
    connection: Connection, clock: list[str], times: tuple[str, str, str]
) -> None:
    assert answers_before_newest(connection) == 0
    before, trained, after = times
    clock.append(before)
    answer(connection, 1)
    answer(connection, 2)
    known = newest_event(connection)
    answer(connection, 3)  # while the Teacher is trained
    clock.append(trained)
    add_teacher(connection, "teacher", 2, event=known)
    clock.append(after)
    answer(connection, 4)
    assert answers_before_newest(connection) == 2
    assert count_answers(connection) == 4
    answer(connection, 1)  # anew
    assert answers_before_newest(connection) == 1


def test_the_time_of_the_last_answer_is_that_of_the_latest_one(
    connection: Connection, clock: list[str]
) -> None:
    for image, time in ((1, ONE), (2, THREE), (3, TWO)):
        clock.append(time)
        answer(connection, image)
    ann, _ = figures(connection, Remembered())["people"]
    assert ann["last"] == TWO
