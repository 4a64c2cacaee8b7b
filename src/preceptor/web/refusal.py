"""Refusals of the server: a request that is answered by a status and one line."""

from __future__ import annotations

from preceptor.errors import PreceptorError


class RefusedError(PreceptorError):
    """Request that is not carried out.

    Args:
        status: HTTP status.
        message: Reason, in one line, without paths.
    """

    def __init__(self, status: int, message: str) -> None:
        self.status = status
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
