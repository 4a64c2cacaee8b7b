"""Images behind URLs and in tar files, as a manifest writes them.

/data/a.png               local file
s3://bucket/a.png         remote file: any URL of a file system of fsspec
/data/shard.tar::a.png    member of a tar file, local or remote

A remote file is copied as a whole into the folder `remote` of the cache folder, under a name that
depends on its URL and its state (size and ETag, or date). A changed file is copied again.
"""

# os and open instead of Path: a million locations are looked at.
# ruff: noqa: PTH113, PTH116, PTH123

from __future__ import annotations

import errno
import hashlib
import os
import re
import tarfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from filelock import FileLock

from preceptor.errors import reason, without_secrets
from preceptor.utils.files import default_cache_dir, replacing

NETWORK_THREADS = 32
"""Number of requests at the same time: they wait for the network and not for a core."""
State = tuple[int, int, int]
"""Size of a file, and two numbers that change with its content."""

# Two letters at least: "C:" is a drive.
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_MEMBER = re.compile(r"(?P<file>.*?\.tar(?:\?.*?)?)::(?P<name>.+)", re.DOTALL | re.IGNORECASE)
_WAITS = (0.25, 0.5, 1.0, 2.0)  # seconds before each repetition of a request
_GONE = 8  # failed requests in a row, after which requests are not repeated
_TIMEOUT = 60.0
_BYTES_PER_SECOND = 2**17  # a slower transfer has failed
# The first of these stands for the content.
_MARKS = ("ETag", "etag", "md5Hash", "content_md5", "Last-Modified", "LastModified", "mtime")
_CACHING = {"s3", "s3a", "gs", "gcs", "hf"}  # file systems of fsspec that keep what they know
_TEMPORARY = {408, 425, 429}  # timeout, too early, too many requests
_CREDENTIALS = re.compile("Credential|TokenNotFound|GatedRepo")
_MOMENT = 30.0  # seconds for which the state of a shard is known
_failures = [0]
_recent: dict[str, tuple[float, Path]] = {}
_index_lock = threading.Lock()

Result = TypeVar("Result")


class LocationError(OSError):
    """Location that cannot be read; `strerror` is the reason and the remedy, without secrets."""

    def __init__(self, reason: str, container: str = "", number: int = errno.EIO) -> None:
        super().__init__(number, reason)
        self.container = container


def is_plain(text: str) -> bool:
    """Whether a location can only be a local file."""
    return "://" not in text and "::" not in text


def not_plain(texts: Sequence[str]) -> list[int]:
    """Positions of the locations that are not plain."""
    return [at for at, text in enumerate(texts) if "::" in text or "://" in text]


def is_url(text: str) -> bool:
    """Whether a location starts with a scheme, such as `s3://`.

    Example:
        >>> is_url("s3://bucket/a.png"), is_url("./s3://a.png"), is_url("C://a.png")
        (True, False, False)
    """
    return "://" in text and _SCHEME.match(text) is not None


def split_member(text: str) -> tuple[str, str]:
    """Tar file and name of a member; the name is "" for other locations.

    Example:
        >>> split_member("/data/a.tar::b::c.png")
        ('/data/a.tar', 'b::c.png')
    """
    match = _MEMBER.fullmatch(text) if "::" in text else None
    return (match["file"], match["name"]) if match else (text, "")


def parse(text: str) -> tuple[str, str]:
    """File or URL, and the name of a member or ""."""
    file, name = split_member(text)
    return (file, name) if not name or is_url(file) or os.path.isfile(file) else (text, "")


def is_local(text: str) -> bool:
    """Whether a location is a local file, and no member of one."""
    file, name = parse(text)
    return not name and not is_url(file)


def reading_threads(texts: Sequence[str], threads: int) -> int:
    """Number of threads that read locations: more than those that decode if any is not plain."""
    return max(threads, NETWORK_THREADS) if not_plain(texts) else threads


def read_content(text: str) -> bytes:
    """Content of a local file, a remote file or a member of a tar file."""
    file, name = ("", "") if is_plain(text) else parse(text)
    if name:
        path = _shard(file)
        offset, size = _member(path, name)
        with open(path, "rb") as stream:
            stream.seek(offset)
            return stream.read(size)
    with open(_copy(file) if is_url(file) else text, "rb") as stream:
        return stream.read()


def states_of(texts: Sequence[str]) -> list[State | OSError]:
    """State of each location, a member's from its tar file, or why it cannot be read."""
    parsed = [parse(text) for text in texts]
    files = list(dict.fromkeys(file for file, _ in parsed))

    def attempt(ask: Callable[[], State]) -> State | OSError:
        try:
            return ask()
        except OSError as error:
            return error

    with ThreadPoolExecutor(NETWORK_THREADS) as pool:
        found = pool.map(lambda file: attempt(lambda: _state(file)), files)
        states = dict(zip(files, found, strict=True))

    def member(file: str, name: str) -> State:
        state = states[file]
        if isinstance(state, OSError):
            told = state.strerror or type(state).__name__
            raise LocationError(told, file, state.errno or errno.EIO)
        _member(_shard(file), name)
        return state

    return [
        attempt(lambda file=file, name=name: member(file, name)) if name else states[file]  # type: ignore[misc]
        for file, name in parsed
    ]


def file_state(path: str) -> State:
    """State of a local file."""
    state = os.stat(path)
    return state.st_size, state.st_mtime_ns, state.st_ctime_ns


def _state(file: str) -> State:
    if not is_url(file):
        return file_state(file)
    size, mark = _info(file)
    digest = hashlib.blake2b(mark.encode(errors="surrogatepass"), digest_size=16).digest()
    low, high = (int.from_bytes(digest[at : at + 8], "big", signed=True) for at in (0, 8))
    return (-1 if size is None else size), low, high


def _info(url: str) -> tuple[int | None, str]:
    """Size of a remote file, None if unknown, and a mark that changes with its content."""
    fresh = {"refresh": True} if url.partition("://")[0].lower() in _CACHING else {}
    info = _asked(url, lambda system, path: system.info(path, **fresh, **_limit(system)))
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
            system.get_file(name, str(partial), **_limit(system, size or 0))
            if size is not None and (got := partial.stat().st_size) != size:
                raise TimeoutError(f"cut short after {got:,} of {size:,} bytes")

        _asked(url, fetch)
        if _info(url) != state:
            raise LocationError("it changes while it is read; repeat the command later")
    return path


def _shard(file: str) -> Path:
    """Local path of a tar file; a remote one is copied by one thread or process for all."""
    if not is_url(file):
        return Path(file)
    asked, path = _recent.get(file, (-_MOMENT, Path()))
    if time.monotonic() - asked >= _MOMENT:
        locks = default_cache_dir() / "remote"
        locks.mkdir(parents=True, exist_ok=True)
        name = hashlib.blake2b(file.encode(errors="surrogatepass"), digest_size=8).hexdigest()
        with FileLock(locks / f"{name}.lock"):
            path = _copy(file)
        _recent[file] = time.monotonic(), path
    return path


def _member(path: Path, name: str) -> tuple[int, int]:
    """Offset and size of a member of a tar file."""
    state = path.stat()
    with _index_lock:  # one thread makes the index for all
        index = _index(str(path), (state.st_size, state.st_mtime_ns))
    if name not in index:
        raise LocationError(f"there is no member {name!r} in the tar file")
    return index[name]


@lru_cache(maxsize=64)
def _index(path: str, state: tuple[int, int]) -> dict[str, tuple[int, int]]:
    index: dict[str, tuple[int, int]] = {}
    try:
        with tarfile.open(path, "r:", errors="surrogateescape") as archive:
            for member in archive:
                if member.size < 0 or member.offset_data + member.size > state[0]:
                    raise tarfile.ReadError
                if member.isfile():
                    index[member.name] = member.offset_data, member.size
    except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
        said = "the tar file is damaged or cut short; copy it again"
        raise LocationError(said, path) from error
    return index


def _asked(url: str, ask: Callable[[Any, str], Result]) -> Result:
    """Result of a request, repeated while its failures are temporary."""
    try:
        from fsspec.core import url_to_fs

        parts = urlsplit(url)
        system, path = url_to_fs(url)
    except ImportError as error:
        said = f"{url.partition(':')[0]}:// needs a package; pip install '.[remote]'"
        raise LocationError(f"{said} in the source folder") from error
    except ValueError as error:
        told = without_secrets(str(error))
        raise LocationError(f"no URL that can be read ({told}); correct the path") from error
    user = parts.netloc.rpartition("@")[0]
    password = user.partition(":")[2]
    secrets = [one for one in (user, password, unquote(password)) if one]
    waits = _WAITS if _failures[0] < _GONE else ()
    for wait in (*waits, None):
        try:
            result = ask(system, path)
        except Exception as error:  # each library has its own
            said, temporary, number = _meaning(error, secrets)
            if not temporary:
                raise LocationError(said, number=number) from None
            if wait is None:
                _failures[0] += 1
                tried = f" ({len(waits) + 1} attempts)" if waits else ""
                raise LocationError(f"{said}{tried}") from None
            time.sleep(wait)
        else:
            _failures[0] = 0
            return result
    raise AssertionError("the last attempt returns or raises")


def _limit(system: Any, size: int = 0) -> dict[str, float]:
    """Argument that limits the time of a request, where the file system takes it."""
    return {"timeout": _TIMEOUT + size / _BYTES_PER_SECOND} if system.async_impl else {}


def _meaning(error: BaseException, secrets: Sequence[str]) -> tuple[str, bool, int]:
    """What an error of a file system of fsspec means: reason, whether it may pass, and number."""
    if isinstance(error, LocationError):
        return str(error.strerror), False, errno.EIO
    cause = error.__cause__
    # fsspec calls any failed HTTP request "not found".
    hidden = isinstance(error, FileNotFoundError) and cause is not None
    status = _status(cause if hidden and cause is not None else error)
    if any(_CREDENTIALS.search(type(one).__name__) for one in (error, cause)):
        return "no valid credentials were found; set those of this system", False, errno.EACCES
    if status in (401, 403) or (status is None and isinstance(error, PermissionError)):
        number = "" if status is None else f" (HTTP {status})"
        return f"access denied{number}; set or renew the credentials", False, errno.EACCES
    if status in (404, 410) or (isinstance(error, FileNotFoundError) and not hidden):
        return "there is no such file", False, errno.ENOENT
    if status is not None and status >= 400:
        said = f"the server answered with HTTP {status}"
        return said, status >= 500 or status in _TEMPORARY, errno.EIO
    if hidden and isinstance(cause, FileNotFoundError | KeyError):
        return "there is no such file", False, errno.ENOENT
    if hidden and cause is not None:
        return _meaning(cause, secrets)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk of the cache folder is full", False, errno.ENOSPC
    if isinstance(error, TimeoutError) and not str(error).startswith("cut short"):
        return "the server did not answer in time", True, errno.EIO
    if isinstance(error, IsADirectoryError):
        return "it is a folder", False, errno.EISDIR
    wrong = isinstance(error, ImportError | ValueError | NotImplementedError | TypeError)
    return reason(error, 200, secrets), not wrong, errno.EIO


def _status(error: BaseException) -> int | None:
    """HTTP status of an error, in the ways in which libraries keep it."""
    response = getattr(error, "response", None)
    own = "status" if hasattr(error, "status") else "code"  # aiohttp warns of its other name
    values = [getattr(error, own, None), getattr(response, "status_code", None)]
    if isinstance(response, dict):
        values.append(response.get("ResponseMetadata", {}).get("HTTPStatusCode"))
    for value in values:
        if isinstance(value, int | str) and str(value).isdigit() and 100 <= int(value) <= 599:
            return int(value)
    return None
