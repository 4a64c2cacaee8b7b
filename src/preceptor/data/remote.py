"""Images behind URLs, of any file system of fsspec, as a manifest writes them.

A remote file is copied as a whole into the folder `remote` of the cache folder, under a name that
depends on its URL and its state (size and ETag, or date). A changed file is copied again.
"""

# os and open instead of Path: a million locations are looked at.
# ruff: noqa: PTH116, PTH123

from __future__ import annotations

import errno
import hashlib
import os
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from preceptor.errors import reason, without_secrets
from preceptor.utils.files import default_cache_dir, replacing

NETWORK_THREADS = 32
"""Number of requests at the same time: they wait for the network and not for a core."""
State = tuple[int, int, int]
"""Size of a file, and two numbers that change with its content."""

# Two letters at least: "C:" is a drive.
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_WAITS = (0.25, 0.5, 1.0, 2.0)  # seconds before each repetition of a request
_GONE = 8  # failed requests in a row, after which requests are not repeated
# The first of these stands for the content.
_MARKS = (
    *("ETag", "etag", "md5Hash", "content_md5", "blob_id", "sha", "CRC"),
    *("Last-Modified", "LastModified", "mtime", "modified", "modify"),
)
_TEMPORARY = {408, 425, 429}  # timeout, too early, too many requests
_failures = [0]

Result = TypeVar("Result")


class LocationError(OSError):
    """Location that cannot be read; `strerror` is the reason and the remedy, without secrets."""

    def __init__(self, reason: str) -> None:
        super().__init__(errno.EIO, reason)


def is_url(text: str) -> bool:
    """Whether a location starts with a scheme, such as `s3://`.

    Example:
        >>> is_url("s3://bucket/a.png"), is_url("./s3://a.png"), is_url("C://a.png")
        (True, False, False)
    """
    return "://" in text and _SCHEME.match(text) is not None


def urls_among(texts: Sequence[str]) -> list[int]:
    """Positions of the URLs among locations."""
    return [at for at, text in enumerate(texts) if is_url(text)]


def reading_threads(texts: Sequence[str], threads: int) -> int:
    """Number of threads that read locations: more than those that decode if any is a URL."""
    return max(threads, NETWORK_THREADS) if urls_among(texts) else threads


def read_content(text: str) -> bytes:
    """Content of a local or remote file."""
    with open(_copy(text) if is_url(text) else text, "rb") as stream:
        return stream.read()


def states_of(urls: Sequence[str]) -> list[State | OSError]:
    """State of each remote file, or why it cannot be read."""

    def look(url: str) -> State | OSError:
        try:
            size, mark = _info(url)
        except OSError as error:
            return error
        digest = hashlib.blake2b(mark.encode(errors="surrogatepass"), digest_size=16).digest()
        low, high = (int.from_bytes(digest[at : at + 8], "big", signed=True) for at in (0, 8))
        return (-1 if size is None else size), low, high

    distinct = list(dict.fromkeys(urls))
    with ThreadPoolExecutor(NETWORK_THREADS) as pool:
        states = dict(zip(distinct, pool.map(look, distinct), strict=True))
    return [states[url] for url in urls]


def file_state(path: str) -> State:
    """State of a local file."""
    state = os.stat(path)
    return state.st_size, state.st_mtime_ns, state.st_ctime_ns


def _info(url: str) -> tuple[int | None, str]:
    """Size of a remote file, None if unknown, and a mark that changes with its content."""
    info = _asked(url, lambda system, path: system.info(path))
    mark = next((f"{name} {info[name]}" for name in _MARKS if info.get(name)), "")
    return (None if info.get("size") is None else int(info["size"])), mark


def _copy(url: str) -> Path:
    """Local copy of a remote file in its state now."""
    state = size, mark = _info(url)
    text = f"{url}\n{size}\n{mark}"
    key = hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=20).hexdigest()
    path = default_cache_dir() / "remote" / key[:2] / key
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, flush=False) as partial:

        def fetch(system: Any, name: str) -> None:
            system.get_file(name, str(partial))
            if size is not None and (got := partial.stat().st_size) != size:
                raise TimeoutError(f"cut short after {got:,} of {size:,} bytes")

        _asked(url, fetch)
        if _info(url) != state:
            raise LocationError("it changes while it is read; repeat the command later")
    return path


def _asked(url: str, ask: Callable[[Any, str], Result]) -> Result:
    """Result of a request, repeated while its failures are temporary."""
    try:
        from fsspec.core import url_to_fs

        user = urlsplit(url).netloc.rpartition("@")[0]
        system, path = url_to_fs(url)
    except ImportError as error:
        said = f"{url.partition(':')[0]}:// needs a package; pip install '.[remote]'"
        raise LocationError(f"{said} in the source folder") from error
    except ValueError as error:
        told = without_secrets(str(error))
        raise LocationError(f"no URL that can be read ({told}); correct the path") from error
    except Exception as error:  # of an archive that the URL names, which is opened here
        raise LocationError(reason(error, 200)) from error
    password = user.partition(":")[2]
    secrets = [one for one in (user, password, unquote(password)) if one]
    waits = [*(_WAITS if _failures[0] < _GONE else ()), None]
    for wait in waits:
        try:
            result = ask(system, path)
        except Exception as error:  # each library has its own
            said, temporary = _meaning(error, secrets)
            if not temporary:
                raise LocationError(said) from None
            if wait is None:
                _failures[0] += 1
                raise LocationError(f"{said} ({len(waits)} attempts)") from None
            time.sleep(wait)
        else:
            _failures[0] = 0
            return result
    raise AssertionError("the last attempt returns or raises")


def _meaning(error: BaseException, secrets: Sequence[str]) -> tuple[str, bool]:
    """Reason of an error of a file system of fsspec, and whether it may pass."""
    if isinstance(error, FileNotFoundError) and error.__cause__ is not None:
        error = error.__cause__  # fsspec calls any failed HTTP request "not found"
    status = getattr(error, "status", None)
    if status in (404, 410) or isinstance(error, FileNotFoundError):
        return "there is no such file", False
    if status in (401, 403) or isinstance(error, PermissionError):
        number = f" (HTTP {status})" if status else ""
        return f"access denied{number}; set or renew the credentials", False
    if isinstance(status, int):
        said = f"the server answered with HTTP {status}"
        return said, status >= 500 or status in _TEMPORARY
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return "the disk of the cache folder is full", False
    lasting = isinstance(error, ImportError | ValueError | NotImplementedError | TypeError)
    return reason(error, 200, secrets), not lasting
