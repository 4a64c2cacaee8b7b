"""API keys from a file."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from pathlib import Path

from preceptor.errors import InputError

SHORTEST = 16
"""Smallest number of characters of a key."""


class ApiKeys:
    """Keys of which each request must have one.

    Only hashes are kept. All of them are compared, each in a time that does not depend on where
    two differ, so that the time of an answer tells nothing about a key.

    Args:
        keys: Keys.
    """

    def __init__(self, keys: list[str]) -> None:
        self._digests = [_digest(key) for key in keys]

    @classmethod
    def read(cls, path: Path) -> ApiKeys:
        """Keys of a file: one per line; empty lines and those that begin with # are left out.

        Raises:
            InputError: The file cannot be read, has no keys, or a key is short or not ASCII.
        """
        try:
            text = path.read_text(encoding="utf-8-sig")  # editors of Windows write a mark
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
            raise InputError(f"{path}: {reason}") from error
        keys = []
        for number, line in enumerate(text.splitlines(), 1):
            key = line.strip()
            if not key or key.startswith("#"):
                continue
            if len(key) < SHORTEST or not (key.isascii() and key.isprintable()) or " " in key:
                raise InputError(
                    f"{path}: line {number}: a key has at least {SHORTEST} ASCII characters and no "
                    "blanks; create one: openssl rand -hex 32"
                )
            keys.append(key)
        if not keys:
            raise InputError(f"{path}: there are no keys; write one per line: openssl rand -hex 32")
        return cls(keys)

    def allow(self, headers: Mapping[str, str]) -> bool:
        """Whether a request has one of the keys, in `Authorization: Bearer` or `X-API-Key`.

        Args:
            headers: Headers, with small letters.
        """
        kind, _, token = headers.get("authorization", "").partition(" ")
        given = token.strip() if kind.lower() == "bearer" else headers.get("x-api-key", "")
        digest, found = _digest(given), False
        for known in self._digests:
            found |= hmac.compare_digest(digest, known)
        return found


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="surrogatepass")).digest()
