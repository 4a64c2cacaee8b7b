"""Requests for remote files, repeated while their failures are temporary."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import unquote, urlsplit

from preceptor.data.locations.failures import location_error
from preceptor.data.locations.retries import Patience, repeated

Result = TypeVar("Result")

State = tuple[int, int, int]
"""Size, and two numbers that change with the content, for a `FileIndex`."""


@dataclass(frozen=True)
class RemoteState:
    """State of a remote file.

    Args:
        size: Size in bytes; None if unknown.
        mark: Text that changes with the content, such as an ETag; "" if the server has none.
    """

    size: int | None
    mark: str

    @property
    def numbers(self) -> State:
        """State as numbers; without a mark they are never the same, so that it is read again."""
        text = self.mark or secrets.token_hex()
        digest = hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest()
        low, high = (int.from_bytes(digest[at : at + 8], "big", signed=True) for at in (0, 8))
        return (-1 if self.size is None else self.size), low, high


def remote_state(url: str) -> RemoteState:
    """State of a remote file now.

    Raises:
        OSError: It does not exist or cannot be reached.
    """

    def ask(patience: Patience) -> RemoteState:
        from preceptor.data.locations import remote_files

        return RemoteState(*remote_files.state(url, patience.timeout))

    return _asked(url, ask)


def remote_content(url: str, size: int | None) -> bytes:
    """Content of a remote file of a size; None = unknown, so that a cut is not noticed here.

    Raises:
        OSError: It cannot be read.
    """

    def ask(patience: Patience) -> bytes:
        from preceptor.data.locations import remote_files

        return remote_files.whole(url, size, patience.timeout)

    return _asked(url, ask)


def remote_part(url: str, start: int, stop: int, size: int | None) -> bytes:
    """Bytes of a remote file from `start` to before `stop`.

    Raises:
        OSError: They cannot be read.
    """

    def ask(patience: Patience) -> bytes:
        from preceptor.data.locations import remote_files

        return remote_files.part(url, start, stop, size, patience.timeout)

    return _asked(url, ask)


def remote_listing(folder: str) -> dict[str, RemoteState]:
    """States of the files of a remote folder by name, where its file system lists them at once.

    Raises:
        OSError: It cannot be listed.
    """

    def ask(patience: Patience) -> dict[str, RemoteState]:
        from preceptor.data.locations import remote_files

        found = remote_files.listing(folder, patience.timeout)
        return {name: RemoteState(*state) for name, state in found.items()}

    return _asked(folder, ask)


def _asked(url: str, ask: Callable[[Patience], Result]) -> Result:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise location_error(f"it is no valid URL ({error})", "correct the path") from error
    user, _, host = parts.netloc.rpartition("@")
    password = user.partition(":")[2]
    # A bucket is no host: libraries tell the whole as its name.
    hidden = [one for one in (user, password, unquote(password)) if one]
    patience = Patience.from_environment()
    server = f"{parts.scheme}://{host}"
    return repeated(lambda: ask(patience), server, patience, secrets=hidden)
