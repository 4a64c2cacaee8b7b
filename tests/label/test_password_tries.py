"""Limit on wrong passwords, by a clock of the test."""

from __future__ import annotations

from preceptor.label.people import OF_ADDRESS, OF_ALL, WITHIN, PasswordTries


def test_ten_wrong_passwords_lock_one_address_out_for_a_minute() -> None:
    now = [0.0]
    tries = PasswordTries(lambda: now[0])
    for at in range(OF_ADDRESS):
        assert tries.are_left("a")
        now[0] = float(at)
        tries.add_wrong("a")
    assert not tries.are_left("a")
    assert tries.are_left("b")
    now[0] = WITHIN
    assert tries.are_left("a")  # the first one does not count any more
    tries.add_wrong("a")
    assert not tries.are_left("a")


def test_many_addresses_have_a_limit_in_common() -> None:
    now = [0.0]
    tries = PasswordTries(lambda: now[0])
    for at in range(OF_ALL):
        assert tries.are_left(str(at))
        tries.add_wrong(str(at))
    assert not tries.are_left("new")
    now[0] = WITHIN
    assert tries.are_left("new")
