"""Reading of the content of a location."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from preceptor.data.locations.containers import (
    ATTEMPTS,
    CHANGED,
    OpenContainer,
    read_unchanged,
)
from preceptor.data.locations.failures import location_error
from preceptor.data.locations.local_copies import copy_key, local_copies
from preceptor.data.locations.location import (
    LocalFile,
    Member,
    RemoteFile,
    TarMember,
    is_plain,
    not_plain,
    parse,
)
from preceptor.data.locations.parquet_images import cell_content
from preceptor.data.locations.requests import remote_content, remote_state
from preceptor.data.locations.tar_index import member_place
from preceptor.runtime.checksums import content_digest, file_digest

NETWORK_THREADS = 32
"""Number of requests at the same time: they wait for the network and not for a core."""


def read_content(text: str) -> bytes:
    """Content of a local file, a remote file or a member.

    Remote content is complete and of one state of its file, and is kept as a local copy.

    Args:
        text: Location, see `location.parse`.

    Raises:
        OSError: It does not exist or cannot be read; the message has no secrets.
    """
    if is_plain(text):
        with open(text, "rb") as file:  # noqa: PTH123 (a Path takes as long as the reading)
            return file.read()
    location = parse(text)
    if isinstance(location, LocalFile):
        return Path(location.path).read_bytes()
    if isinstance(location, RemoteFile):
        return _remote_file(location.url)
    return _member(location)


def location_digest(text: str) -> str:
    """`content_digest` of the content of a location; a local file is read in blocks.

    Raises:
        OSError: It does not exist or cannot be read.
    """
    return file_digest(Path(text)) if is_plain(text) else content_digest(read_content(text))


def reading_threads(texts: Sequence[str], threads: int) -> int:
    """Number of threads that read locations: more than those that decode if any is not plain."""
    return max(threads, NETWORK_THREADS) if not_plain(texts) else threads


def _remote_file(url: str) -> bytes:
    state = remote_state(url)
    copies = local_copies()
    for _ in range(ATTEMPTS):
        key = copy_key("file", url, state.numbers)
        if state.mark and (copy := copies.read(key)) is not None:
            return copy
        content = remote_content(url, state.size)
        after = remote_state(url)
        if after == state:
            if state.mark:
                copies.write(key, content)
            return content
        state = after
    raise location_error(*CHANGED)


def _member(location: Member) -> bytes:
    def read(container: OpenContainer) -> bytes:
        copies = local_copies()
        key = copy_key("member", *container.key, location.name)
        kept = container.is_remote and container.is_marked
        if kept and (copy := copies.read(key)) is not None:
            return copy
        if isinstance(location, TarMember):
            start, size = member_place(container, location.name)
            content = container.part(start, start + size)
        else:
            content = cell_content(container, location.name)
        if kept:
            copies.write(key, content)
        return content

    return read_unchanged(location.container, read)
