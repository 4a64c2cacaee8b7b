"""What HTTP servers share, without a library of servers: hosts, keys, refusals, replies."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import ipaddress
import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

from preceptor.errors import InputError, PreceptorError

LOCAL = ("127.0.0.1", "localhost", "::1")
_ANY = ("0.0.0.0", "::")
SHORTEST_KEY = 16


class RefusedError(PreceptorError):
    """Request that is not carried out."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        self.status, self.headers = status, headers or {}
        super().__init__(message)

    def __reduce__(self) -> tuple[type[RefusedError], tuple[int, str]]:
        return type(self), (self.status, str(self))


malformed = partial(RefusedError, 400)  # of a wrong shape
forbidden = partial(RefusedError, 403)  # without the right to it
unknown = partial(RefusedError, 404)  # for something that does not exist
conflict = partial(RefusedError, 409)  # contradicts what is stored


@dataclass(frozen=True)
class Reply:
    """Answer to a request."""

    content: bytes = b""
    kind: str = "application/json"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)  # further ones


def told(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """JSON answer, which no cache keeps."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    kept = {"cache-control": "no-store", **(headers or {})}
    return Reply(text.encode("utf-8", "replace"), status=status, headers=kept)


def refused(status: int, message: str, headers: Mapping[str, str] | None = None) -> Reply:
    """Answer to a request that is not carried out."""
    return told({"error": message}, status, headers)


def parse(body: bytes) -> dict[str, Any]:
    """Object of a JSON body; anything else is refused (400)."""
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise malformed("the body is no JSON") from error
    if not isinstance(value, dict):
        raise malformed("the body is no JSON object")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


@dataclass(frozen=True)
class Hosts:
    """Names under which the server answers; others may be a rebound DNS name."""

    names: frozenset[str]  # names and addresses
    addresses: bool  # whether any IP address is allowed: no DNS name leads there
    port: int

    @classmethod
    def of(cls, host: str, port: int, more: tuple[str, ...] = ()) -> Hosts:
        """Names of a server that listens at a host."""
        names = {host.lower(), *(name.lower() for name in more)}
        everywhere = host in _ANY
        if is_local(host) or everywhere:
            names |= set(LOCAL)
        if everywhere:
            names |= {socket.gethostname().lower(), socket.getfqdn().lower()}
        return cls(frozenset(names - set(_ANY)), everywhere, port)

    def allows(self, header: str) -> bool:
        """Whether a Host header names this server."""
        try:
            parts = urlsplit(f"//{header}")
            name, port = parts.hostname, parts.port
        except ValueError:
            return False
        if not name or parts.path or parts.query or parts.fragment or parts.username is not None:
            return False
        if name in self.names:
            # A proxy has a port of its own; only names that were allowed reach this.
            return name not in LOCAL or port in (None, self.port)
        return self.addresses and _address(name) is not None

    def allows_origin(self, origin: str, host: str) -> bool:
        """Whether an Origin header is that of the page, which was loaded from the host."""
        return origin.lower() in (f"http://{host.lower()}", f"https://{host.lower()}")


def is_local(host: str) -> bool:
    """Whether a host is reached from this machine alone."""
    address = _address(host)
    return host.lower() == "localhost" or (address is not None and address.is_loopback)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host)
    return None


def address_of(host: str, port: int) -> str:
    """Address of a server that listens at a host, as in a link."""
    if host in _ANY:
        host = socket.gethostname()
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


class ApiKeys:
    """Keys of which each request must have one, as hashes that are compared in constant time."""

    def __init__(self, keys: list[str]) -> None:
        self._digests = [_digest(key) for key in keys]

    @classmethod
    def read(cls, path: Path) -> ApiKeys:
        """Keys of a file: one per line; empty lines and lines that begin with # are left out."""
        try:
            text = path.read_text(encoding="utf-8-sig")  # editors of Windows write a mark
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
            raise InputError(f"{path}: {reason}") from error
        lines = {number: line.strip() for number, line in enumerate(text.splitlines(), 1)}
        keys = {number: key for number, key in lines.items() if key and key[0] != "#"}
        for number, key in keys.items():
            if len(key) < SHORTEST_KEY or not (key.isascii() and key.isprintable()) or " " in key:
                raise InputError(
                    f"{path}: line {number}: a key has at least {SHORTEST_KEY} ASCII characters "
                    "and no blanks; create one: openssl rand -hex 32"
                )
        if not keys:
            raise InputError(f"{path}: there are no keys; write one per line: openssl rand -hex 32")
        return cls(list(keys.values()))

    def allow(self, headers: Mapping[str, str]) -> bool:
        """Whether headers, with small letters, have a key: `Authorization: Bearer`, `X-API-Key`."""
        kind, _, token = headers.get("authorization", "").partition(" ")
        given = token.strip() if kind.lower() == "bearer" else headers.get("x-api-key", "")
        digest = _digest(given)
        return sum(hmac.compare_digest(digest, known) for known in self._digests) > 0


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="surrogatepass")).digest()
