"""Errors of reading a location: reason in one line without secrets, and whether to try again."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from preceptor.errors import reason as reason_in_one_line

_TRY_AGAIN = {408, 425, 429}  # timeout, too early, too many requests
_NO_CREDENTIALS = {
    "NoCredentialsError",
    "PartialCredentialsError",
    "CredentialRetrievalError",
    "TokenRetrievalError",
    "DefaultCredentialsError",
    "LocalTokenNotFoundError",
    "GatedRepoError",
}


class LocationError(OSError):
    """Location that cannot be read; `strerror` is the reason and the remedy, without secrets."""

    reason = ""
    """Reason alone, without the location."""
    remedy = ""
    """What to do about it; "" if that depends on what the location is for."""


class ContainerError(LocationError):
    """Tar or Parquet file that is damaged as a whole."""


Error = TypeVar("Error", bound=LocationError)


class CutShortError(Exception):
    """Content that is shorter than announced."""


@dataclass(frozen=True)
class Failure:
    """What an error of another library means.

    Args:
        reason: Reason in one line, without secrets.
        temporary: Whether another attempt can succeed.
        missing: Whether there is no such file.
        remedy: What to do about it, or "".
    """

    reason: str
    temporary: bool
    missing: bool = False
    remedy: str = ""


def location_error(reason: str, remedy: str = "") -> LocationError:
    """Error with a reason, and what to do about it."""
    return _told(LocationError(errno.EIO, _joined(reason, remedy)), reason, remedy)


def container_error(reason: str, remedy: str = "") -> ContainerError:
    """Error of a tar or Parquet file with a reason, and what to do about it."""
    return _told(ContainerError(errno.EIO, _joined(reason, remedy)), reason, remedy)


def _joined(reason: str, remedy: str) -> str:
    return f"{reason}; {remedy}" if remedy else reason


def _told(error: Error, reason: str, remedy: str) -> Error:
    error.reason, error.remedy = reason, remedy
    return error


def failure_of(error: BaseException, secrets: Iterable[str] = ()) -> Failure:
    """What an error of a file system of fsspec means.

    Args:
        error: The error.
        secrets: Texts that the reason must not contain, beside those that URLs show.
    """
    if isinstance(error, LocationError):
        return Failure(error.reason, False, remedy=error.remedy)
    status = _status(error)
    if isinstance(error, FileNotFoundError) and error.__cause__ is not None:
        status = _status(error.__cause__)  # fsspec calls any failed HTTP request "not found"
    if _is_about_credentials(error):
        remedy = "set those of this file system"
        return Failure("no valid credentials were found", False, remedy=remedy)
    if status in (401, 403) or (status is None and isinstance(error, PermissionError)):
        number = "" if status is None else f" (HTTP {status})"
        return Failure(f"access denied{number}", False, remedy="set or renew the credentials")
    if status in (404, 410):
        return Failure("there is no such file", False, missing=True)
    if status is not None and status >= 400:
        temporary = status >= 500 or status in _TRY_AGAIN
        return Failure(f"the server answered with HTTP {status}", temporary)
    if isinstance(error, FileNotFoundError) and not _is_of_network(error.__cause__):
        return Failure("there is no such file", False, missing=True)
    if isinstance(error, TimeoutError):
        return Failure("the server did not answer in time", True)
    if isinstance(error, CutShortError):
        return Failure(str(error), True)
    if isinstance(error, FileNotFoundError):
        assert error.__cause__ is not None
        return failure_of(error.__cause__, secrets)
    told = reason_in_one_line(error, 200, secrets)
    if isinstance(error, IsADirectoryError):
        return Failure("it is a folder", False)
    if isinstance(error, ModuleNotFoundError):
        remedy = "pip install '.[remote]' in the source folder"
        return Failure(f"{error.name} is missing", False, remedy=remedy)
    if isinstance(error, ImportError | ValueError | NotImplementedError):
        return Failure(told, False)  # wrong arguments stay wrong
    kind = type(error).__name__
    told = told if told.startswith(kind) else f"{kind}: {told}"
    return Failure(told, not isinstance(error, TypeError))  # the rest is a matter of the network


def _status(error: BaseException) -> int | None:
    """HTTP status of an error, in the ways in which libraries keep it."""
    response = getattr(error, "response", None)
    own = "status" if hasattr(error, "status") else "code"  # aiohttp warns of its other name
    candidates = [getattr(error, own, None), getattr(response, "status_code", None)]
    if isinstance(response, dict):
        candidates.append(response.get("ResponseMetadata", {}).get("HTTPStatusCode"))
    for value in candidates:
        if isinstance(value, int | str) and str(value).isdigit() and 100 <= int(value) <= 599:
            return int(value)
    return None


def _is_about_credentials(error: BaseException) -> bool:
    causes = [error, error.__cause__]
    return any(type(one).__name__ in _NO_CREDENTIALS for one in causes if one is not None)


def _is_of_network(cause: BaseException | None) -> bool:
    return cause is not None and not isinstance(cause, FileNotFoundError | KeyError)
