"""Hosts and origins that requests may name."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

LOCAL = ("127.0.0.1", "localhost", "::1")
_ANY = ("0.0.0.0", "::")


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
