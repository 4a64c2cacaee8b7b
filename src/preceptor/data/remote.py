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
# The first of these stands for the content.
_MARKS = ("ETag", "etag", "md5Hash", "content_md5", "Last-Modified", "LastModified", "mtime")
_TEMPORARY = {408, 425, 429}  # timeout, too early, too many requests
_failures = [0]
_copies: dict[
    str, Path
] = {}  # of remote tar files, as `states_of` saw them or they were first read
_index_lock = threading.Lock()

Result = TypeVar("Result")


class LocationError(OSError):
    """Location that cannot be read; `strerror` is the reason and the remedy, without secrets."""

    def __init__(self, reason: str) -> None:
        super().__init__(errno.EIO, reason)


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
        offset, size = _member(_members(path), name)
        with open(path, "rb") as stream:
            stream.seek(offset)
            return stream.read(size)
    with open(_copy(file) if is_url(file) else text, "rb") as stream:
        return stream.read()


def states_of(texts: Sequence[str]) -> list[State | OSError]:
    """State of each location, a member's from its tar file, or why it cannot be read.

    All members of a tar file that cannot be read have one error.
    """
    parsed = [parse(text) for text in texts]
    shards = {file for file, name in parsed if name}

    def look(file: str) -> tuple[State | OSError, dict[str, tuple[int, int]]]:
        try:
            _copies.pop(file, None)
            return _state(file), _members(_shard(file)) if file in shards else {}
        except OSError as error:
            return error, {}

    files = list(dict.fromkeys(file for file, _ in parsed))
    with ThreadPoolExecutor(NETWORK_THREADS) as pool:
        seen = dict(zip(files, pool.map(look, files), strict=True))
    states: list[State | OSError] = []
    for file, name in parsed:
        state, members = seen[file]
        try:
            if name and not isinstance(state, OSError):
                _member(members, name)
        except LocationError as error:
            state = error
        states.append(state)
    return states


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


def _shard(file: str) -> Path:
    """Local path of a tar file; a remote one is copied by one thread or process for all."""
    if not is_url(file):
        return Path(file)
    if file not in _copies:
        locks = default_cache_dir() / "remote"
        locks.mkdir(parents=True, exist_ok=True)
        name = hashlib.blake2b(file.encode(errors="surrogatepass"), digest_size=8).hexdigest()
        with FileLock(locks / f"{name}.lock"):
            _copies[file] = _copy(file)
    return _copies[file]


def _members(path: Path) -> dict[str, tuple[int, int]]:
    """Offset and size of each member of a tar file."""
    state = path.stat()
    with _index_lock:  # one thread makes the index for all
        return _index(str(path), (state.st_size, state.st_mtime_ns))


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
        raise LocationError("the tar file is damaged or cut short; copy it again") from error
    return index


def _member(members: dict[str, tuple[int, int]], name: str) -> tuple[int, int]:
    if name not in members:
        raise LocationError(f"there is no member {name!r} in the tar file")
    return members[name]


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
