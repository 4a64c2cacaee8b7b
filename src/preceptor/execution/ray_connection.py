"""Connection to a Ray cluster, or a local Ray instance."""

from __future__ import annotations

import logging
import os
import socket
from typing import Any
from urllib.parse import urlsplit

from preceptor.errors import InputError, RunFailedError

# Seconds within which a machine must answer.
_REACHED_WITHIN = 10.0


def imported_ray() -> Any:
    """Module of Ray, with its messages and its control of the GPUs that tasks see switched off."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    return ray


def _check_reachable(where: str) -> None:
    """Check that something listens at an address with a port; Ray itself waits for many minutes.

    Raises:
        InputError: Nothing does.
    """
    parts = urlsplit(where if "://" in where else f"//{where}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise InputError(f"--address {where}: {error}; write HOST:PORT or auto") from error
    if host is None or port is None:  # such as auto
        return
    try:
        socket.create_connection((host, port), timeout=_REACHED_WITHIN).close()
    except OSError as error:
        told = error.strerror or str(error)
        raise InputError(
            f"--address {where}: no Ray cluster there ({told}); start one with `ray start --head`"
        ) from error


def connect(ray: Any, address: str | None) -> None:
    """Connect to a cluster, or start a local Ray instance."""
    where = address or os.environ.get("RAY_ADDRESS") or "local"
    _check_reachable(where)
    try:
        ray.init(
            address=where,
            log_to_driver=False,
            logging_level=logging.ERROR,
            **({"include_dashboard": False} if where == "local" else {}),
        )
    except (
        Exception
    ) as error:  # Ray raises plain exceptions as well, for example on a timeout at its start
        told = " ".join(str(error).split())[:200]
        if where == "local":
            raise RunFailedError(f"Ray could not be started on this machine ({told})") from error
        raise InputError(
            f"--address {where}: no Ray cluster there ({told}); start one with `ray start --head`"
        ) from error
