"""Single requests for remote files through fsspec; `requests` repeats those that fail."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import fsspec
from fsspec.core import url_to_fs

from preceptor.data.locations.failures import CutShortError, location_error

# The first of these that a file system tells stands for the content. It is the same from a single
# question and from a listing.
_MARKS = (
    "ETag",
    "etag",
    "Content-MD5",
    "Digest",
    "md5Hash",
    "generation",
    "blob_id",
    "content_md5",
    "Last-Modified",
    "LastModified",
    "last_modified",
    "mtime",
    "created",
)
# Listings with the marks of all files, a thousand at a time.
_LISTED = {"s3", "s3a", "gs", "gcs"}
# File systems that answer from an earlier listing unless they are told not to.
_FORGETFUL = {*_LISTED, "hf"}
_BYTES_PER_SECOND = 2**17  # a slower transfer is a failed one
_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs"}


def open_system(url: str) -> tuple[Any, str]:
    """File system of a URL, and the path in it.

    Raises:
        LocationError: The package of the file system is missing, or the scheme is unknown.
    """
    scheme = urlsplit(url).scheme.lower()
    try:
        return url_to_fs(url)  # type: ignore[no-any-return]
    except ImportError as error:
        package = _PACKAGES.get(scheme, "'.[remote]' in the source folder")
        raise location_error(f"{scheme}:// needs a package", f"pip install {package}") from error
    except ValueError as error:
        if scheme in fsspec.available_protocols():
            raise
        reason = f"{scheme}:// is no known file system"
        raise location_error(reason, "correct the path") from error


def state(url: str, timeout: float) -> tuple[int | None, str]:
    """Size of a file, None if unknown, and a mark that changes with its content, or ""."""
    system, path = open_system(url)
    fresh = {"refresh": True} if urlsplit(url).scheme.lower() in _FORGETFUL else {}
    return _state(system.info(path, **fresh, **_limit(system, timeout)))


def whole(url: str, size: int | None, timeout: float) -> bytes:
    """Content of a file.

    Raises:
        CutShortError: It has another size.
    """
    system, path = open_system(url)
    content = bytes(system.cat_file(path, **_limit(system, timeout, size or 0)))
    if size is not None and len(content) != size:
        raise CutShortError(f"cut short after {len(content):,} of {size:,} bytes")
    return content


def part(url: str, start: int, stop: int, size: int | None, timeout: float) -> bytes:
    """Bytes of a file from `start` to before `stop`.

    Raises:
        CutShortError: There are fewer.
        LocationError: The server sends whole files only.
    """
    if start >= stop:
        return b""
    system, path = open_system(url)
    limit = _limit(system, timeout, stop - start)
    content = bytes(system.cat_file(path, start=start, end=stop, **limit))
    if len(content) == size and size != stop - start:
        raise location_error(
            "the server does not send parts of files (HTTP range requests)",
            "copy the file to a local disk",
        )
    if len(content) != stop - start:
        raise CutShortError(
            f"cut short: {len(content):,} of {stop - start:,} bytes from byte {start:,}"
        )
    return content


def listing(folder: str, timeout: float) -> dict[str, tuple[int | None, str]]:
    """States of the files of a folder by name; empty if its file system has no listing of them."""
    if urlsplit(folder).scheme.lower() not in _LISTED:
        return {}
    system, path = open_system(folder)
    entries = system.ls(path, detail=True, refresh=True, **_limit(system, timeout))
    return {
        str(entry["name"]).rpartition("/")[2]: _state(entry)
        for entry in entries
        if entry.get("type") == "file"
    }


def _state(info: dict[str, Any]) -> tuple[int | None, str]:
    size = info.get("size")
    found = next((f"{name} {info[name]}" for name in _MARKS if info.get(name)), "")
    return (None if size is None else int(size)), found


def _limit(system: Any, timeout: float, size: int = 0) -> dict[str, float]:
    """Argument that limits the time of a request, where the file system takes it."""
    return {"timeout": timeout + size / _BYTES_PER_SECOND} if system.async_impl else {}
