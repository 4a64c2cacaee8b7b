"""What HTTP servers share, without a library of servers: hosts, refusals, replies."""

from __future__ import annotations

import ipaddress
import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn
from urllib.parse import urlsplit

from preceptor.errors import PreceptorError

LOCAL = ("127.0.0.1", "localhost", "::1")
_ANY = ("0.0.0.0", "::")


class RefusedError(PreceptorError):
    """Request that is not carried out.

    Args:
        status: HTTP status.
        message: Reason, in one line, without paths.
        headers: Further headers of the answer.
    """

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        self.status, self.headers = status, headers or {}
        super().__init__(message)

    def __reduce__(self) -> tuple[type[RefusedError], tuple[int, str]]:
        return type(self), (self.status, str(self))


def malformed(message: str) -> RefusedError:
    """Refusal of a request of a wrong shape (400)."""
    return RefusedError(400, message)


def forbidden(message: str) -> RefusedError:
    """Refusal of a request without the right to it (403)."""
    return RefusedError(403, message)


def unknown(message: str) -> RefusedError:
    """Refusal of a request for something that does not exist (404)."""
    return RefusedError(404, message)


def conflict(message: str) -> RefusedError:
    """Refusal of a request that contradicts what is stored (409)."""
    return RefusedError(409, message)


@dataclass(frozen=True)
class Reply:
    """Answer to a request.

    Args:
        content: Body.
        kind: Content type.
        status: HTTP status.
        headers: Further headers.
    """

    content: bytes = b""
    kind: str = "application/json"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


def told(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """JSON answer, which no cache keeps."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Reply(
        text.encode("utf-8", "replace"),
        "application/json",
        status,
        {"cache-control": "no-store", **(headers or {})},
    )


def refused(status: int, message: str, headers: Mapping[str, str] | None = None) -> Reply:
    """Answer to a request that is not carried out."""
    return told({"error": message}, status, headers)


def parse(body: bytes) -> dict[str, Any]:
    """Object of a JSON body.

    Raises:
        RefusedError: It is no JSON object (400).
    """
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
    """Names under which the server answers; others may be a rebound DNS name.

    Args:
        names: Names and addresses.
        addresses: Whether any IP address is allowed: no DNS name leads there.
        port: Port.
    """

    names: frozenset[str]
    addresses: bool
    port: int

    @classmethod
    def of(cls, host: str, port: int, more: tuple[str, ...] = ()) -> Hosts:
        """Names of a server that listens at a host.

        Args:
            host: Address or name.
            port: Port.
            more: Further names, of a proxy for example.
        """
        names = {host.lower(), *(name.lower() for name in more)}
        everywhere = host in _ANY
        if is_local(host) or everywhere:
            names |= set(LOCAL)
        if everywhere:
            names |= {socket.gethostname().lower(), socket.getfqdn().lower()}
        return cls(frozenset(names - set(_ANY)), everywhere, port)

    def allows(self, header: str) -> bool:
        """Whether a Host header names this server.

        Example:
            >>> hosts = Hosts.of("127.0.0.1", 80)
            >>> [hosts.allows(name) for name in ("localhost", "127.0.0.1:80", "example.org")]
            [True, True, False]
        """
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
        if not self.addresses:
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def allows_origin(self, origin: str, host: str) -> bool:
        """Whether an Origin header is that of the page, which was loaded from the host."""
        return origin.lower() in (f"http://{host.lower()}", f"https://{host.lower()}")


def is_local(host: str) -> bool:
    """Whether a host is reached from this machine alone."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def address_of(host: str, port: int) -> str:
    """Address of a server that listens at a host, as in a link.

    Example:
        >>> address_of("127.0.0.1", 80), address_of("::1", 8000)
        ('http://127.0.0.1:80/', 'http://[::1]:8000/')
    """
    if host in _ANY:
        host = socket.gethostname()
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
