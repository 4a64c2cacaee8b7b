"""Locations of images and maps, as written in a manifest.

/data/a.png                    local file
s3://bucket/a.png              remote file: any URL of a file system of fsspec
/data/shard.tar::a.png         member of a tar file, local or remote
https://host/t.parquet::17     row of a Parquet file, counted from 0
/data/t.parquet::mask/17       the same of a named column
"""

# os.path and not Path: a million locations are parsed, and Path joins the slashes of a URL.

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from preceptor.errors import without_secrets

# Two letters at least: "C:" is a drive.
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_BLOCK = 1024
_MEMBER = re.compile(
    r"(?P<file>.*?\.(?P<kind>tar|parquet)(?:\?.*?)?)::(?P<name>.+)", re.DOTALL | re.IGNORECASE
)


@dataclass(frozen=True)
class LocalFile:
    """File of this machine.

    Args:
        path: Path.
    """

    path: str

    def __str__(self) -> str:
        return self.path


@dataclass(frozen=True)
class RemoteFile:
    """File behind a URL.

    Args:
        url: URL as written.
    """

    url: str

    def __str__(self) -> str:
        return without_secrets(self.url)


Container = LocalFile | RemoteFile
"""Tar or Parquet file."""


@dataclass(frozen=True)
class TarMember:
    """Member of a tar file.

    Args:
        container: The tar file.
        name: Name of the member.
    """

    container: Container
    name: str


@dataclass(frozen=True)
class ParquetCell:
    """Image in a row of a Parquet file.

    Args:
        container: The Parquet file.
        name: Row, counted from 0; after COLUMN/ if there are several columns with images.
    """

    container: Container
    name: str


Member = TarMember | ParquetCell
Location = LocalFile | RemoteFile | Member


def is_plain(text: str) -> bool:
    """Whether a location can only be a local file; it then needs no parsing.

    Example:
        >>> is_plain("/data/a.png"), is_plain("s3://bucket/a.png"), is_plain("a.tar::b.png")
        (True, False, False)
    """
    return "://" not in text and "::" not in text


def not_plain(texts: Sequence[str]) -> list[int]:
    """Positions of the locations that are not plain.

    Example:
        >>> not_plain(["/data/a.png", "s3://bucket/a.png"])
        [1]
    """
    found: list[int] = []
    for start in range(0, len(texts), _BLOCK):
        # A million plain texts are looked through at once five times as fast as one by one.
        block = texts[start : start + _BLOCK]
        if not is_plain("\n".join(block)):
            found += [start + at for at, text in enumerate(block) if not is_plain(text)]
    return found


def is_url(text: str) -> bool:
    """Whether a location starts with a scheme, such as `s3://`.

    Example:
        >>> is_url("s3://bucket/a.png"), is_url("./s3://a.png"), is_url("C://a.png")
        (True, False, False)
    """
    return "://" in text and _SCHEME.match(text) is not None


def is_local(text: str) -> bool:
    """Whether a location is a local file, and no member of one."""
    return isinstance(parse(text), LocalFile)


def split_member(text: str) -> tuple[str, str]:
    """Container and name of a member; the name is "" for files.

    Example:
        >>> split_member("/data/a.tar::b::c.png")
        ('/data/a.tar', 'b::c.png')
    """
    found = _MEMBER.fullmatch(text) if "::" in text else None
    return (found["file"], found["name"]) if found else (text, "")


def parse(text: str, is_file: Callable[[str], bool] = os.path.isfile) -> Location:
    """Location of a text.

    Args:
        text: Path or URL, or CONTAINER::NAME. A local file may have `::` in its name: there is a
            member only if the container is a file.
        is_file: Function that tells whether a local container exists.

    Example:
        >>> parse("s3://bucket/shard.tar::a.png")
        TarMember(container=RemoteFile(url='s3://bucket/shard.tar'), name='a.png')
        >>> parse("/nowhere/shard.tar::a.png")
        LocalFile(path='/nowhere/shard.tar::a.png')
    """
    if is_plain(text):
        return LocalFile(text)
    found = _MEMBER.fullmatch(text)
    remote = is_url(text)
    if found is None or not (remote or is_file(found["file"])):
        return RemoteFile(text) if remote else LocalFile(text)
    container = RemoteFile(found["file"]) if remote else LocalFile(found["file"])
    kind = TarMember if found["kind"].lower() == "tar" else ParquetCell
    return kind(container, found["name"])
