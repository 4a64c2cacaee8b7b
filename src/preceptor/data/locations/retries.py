"""Repetition of requests that fail for a time, with growing waits."""

from __future__ import annotations

import os
import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from preceptor.data.locations.failures import failure_of, location_error
from preceptor.errors import InputError, quoted

Result = TypeVar("Result")

# A server that failed so many requests in a row, each with all attempts, gets one attempt, and
# after further ones none for a time: a server that is gone is reported soon for a million images.
_DOUBTED = 8
_GONE = 64
_REST = 30.0
# Random numbers of their own: a training that reads images draws from the common ones.
_RANDOM = random.Random()


@dataclass(frozen=True)
class Patience:
    """How long a request is repeated.

    Args:
        attempts: Number of attempts.
        first_wait: Seconds before the second attempt; each further wait is twice as long.
        longest_wait: Longest wait in seconds.
        timeout: Seconds without an answer after which an attempt has failed.
    """

    attempts: int = 6
    first_wait: float = 0.25
    longest_wait: float = 8.0
    timeout: float = 60.0

    @staticmethod
    def from_environment() -> Patience:
        """Patience with the values of PRECEPTOR_REMOTE_ATTEMPTS, _WAIT and _TIMEOUT.

        Raises:
            InputError: A value is no such number.
        """
        usual = Patience()
        return Patience(
            attempts=int(_number("PRECEPTOR_REMOTE_ATTEMPTS", usual.attempts, 1)),
            first_wait=_number("PRECEPTOR_REMOTE_WAIT", usual.first_wait, 0),
            timeout=_number("PRECEPTOR_REMOTE_TIMEOUT", usual.timeout, 0.01),
        )


def _number(name: str, usual: float, least: float) -> float:
    text = os.environ.get(name, "")
    try:
        value = float(text or usual)
    except ValueError:
        value = -1.0
    if not least <= value < 1e9:
        raise InputError(f"{name} is {quoted(text)}; set a number from {least:g} to below 1e9")
    return value


@dataclass
class _Record:
    """Failures of a server since its last answer."""

    failures: int = 0
    last: float = 0.0


class Servers:
    """Records of servers, shared by the threads of a process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._records: dict[str, _Record] = defaultdict(_Record)

    def attempts(self, server: str, attempts: int) -> int:
        """Number of attempts that a server gets now."""
        with self._lock:
            record = self._records[server]
            # A monotonic clock: that of the day can jump.
            if record.failures >= _GONE and time.monotonic() - record.last < _REST:
                return 0
            return 1 if record.failures >= _DOUBTED else attempts

    def answered(self, server: str) -> None:
        """Note an answer, of whatever kind."""
        with self._lock:
            self._records[server].failures = 0

    def failed(self, server: str) -> None:
        """Note a request whose attempts have all failed."""
        with self._lock:
            record = self._records[server]
            record.failures += 1
            record.last = time.monotonic()


SERVERS = Servers()


def repeated(
    ask: Callable[[], Result],
    server: str,
    patience: Patience,
    servers: Servers = SERVERS,
    wait: Callable[[float], None] = time.sleep,
    secrets: Sequence[str] = (),
) -> Result:
    """Result of a request, which is repeated while its failures are temporary.

    Args:
        ask: The request.
        server: Name of the server.
        patience: Number of attempts and waits.
        servers: Records of the servers.
        wait: Function that waits for a number of seconds.
        secrets: Texts that no message must contain.

    Raises:
        FileNotFoundError: There is no such file.
        LocationError: It failed; the message has no secrets.
    """
    attempts = servers.attempts(server, patience.attempts)
    if not attempts:
        raise location_error(f"{server} does not answer; {_GONE} requests in a row have failed")
    for attempt in range(attempts):
        if attempt:
            longest = min(patience.longest_wait, patience.first_wait * 2 ** (attempt - 1))
            wait(longest * _RANDOM.uniform(0.5, 1))  # many threads do not ask at once again
        try:
            result = ask()
        except Exception as error:  # each library has its own
            failure = failure_of(error, secrets)
            if not failure.temporary:
                servers.answered(server)
                if failure.missing:
                    raise FileNotFoundError(2, failure.reason) from None
                raise location_error(failure.reason, failure.remedy) from None
        else:
            servers.answered(server)
            return result
    servers.failed(server)
    tried = "" if attempts == 1 else f" ({attempts} attempts)"
    raise location_error(f"{failure.reason}{tried}", failure.remedy)
