"""Images that a person answered before, in the order of the answers."""

from __future__ import annotations

from preceptor.label.db import Connection
from preceptor.label.marks import Answer, save_answer
from preceptor.label.queue import (
    Claims,
    answered_before,
    open_images,
    skipped,
    still_open,
)


def answer(
    connection: Connection, image: int, person: int = 1, state: str = "cannot_judge"
) -> None:
    save_answer(connection, image, person, Answer(state, None, None, 1.0, None, "never"))


def at(minute: int) -> str:
    return f"2026-01-01T00:{minute:02d}:00.000Z"


def test_a_clock_that_is_set_back_changes_no_order(
    connection: Connection, clock: list[str]
) -> None:
    for image, minute in ((3, 10), (1, 20), (4, 5), (2, 5), (5, 6)):
        clock.append(at(minute))
        answer(connection, image)
        answer(connection, 6 - image, person=2)
    assert answered_before(connection, 1, None, 9) == [5, 2, 4, 1, 3]
    assert answered_before(connection, 1, 4, 9) == [1, 3]
    assert answered_before(connection, 1, 4, 1) == [1]
    assert answered_before(connection, 1, 3, 9) == []
    assert answered_before(connection, 2, None, 9) == [1, 4, 2, 5, 3]
    clock.append(at(7))
    answer(connection, 3)  # anew: it is the latest now
    assert answered_before(connection, 1, None, 9) == [3, 5, 2, 4, 1]


def test_skipped_images_come_back_in_the_order_of_skipping(
    connection: Connection, clock: list[str]
) -> None:
    for image, minute in ((3, 10), (1, 20), (4, 5)):
        clock.append(at(minute))
        answer(connection, image, state="skipped")
    assert skipped(connection, 1, 9) == [3, 1, 4]


def test_skipped_images_that_nobody_is_needed_for_do_not_come_back(
    connection: Connection,
) -> None:
    for image in range(1, 6):
        answer(connection, image, state="skipped")
    answer(connection, 1, person=2)
    connection.execute("UPDATE images SET listed = 0 WHERE id = 2")
    connection.execute("UPDATE images SET problem = 'damaged' WHERE id = 3")
    assert skipped(connection, 1, 9) == [4, 5]


def test_images_that_may_still_be_answered(connection: Connection) -> None:
    claims = Claims()
    answer(connection, 1)
    answer(connection, 2, state="skipped")
    answer(connection, 3, person=2)
    claims.take([4], 2)
    claims.take([5], 1)
    assert still_open(connection, 1, claims, range(7)) == [2, 5]


def test_images_of_splits_that_are_not_asked_for_stay_out(connection: Connection) -> None:
    claims = Claims()
    answer(connection, 1)
    connection.execute("UPDATE images SET asked = 0, places = 0 WHERE id = 1")
    answer(connection, 1, state="skipped")
    assert connection.execute("SELECT places FROM images WHERE id = 1").fetchone()[0] == 0
    assert 1 not in open_images(connection, 2, claims, 9)
