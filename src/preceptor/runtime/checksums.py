"""Checksums of files, and the file `checksums.json` of a folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from preceptor.errors import InputError
from preceptor.runtime.replace_file import replacing

CHECKSUMS = "checksums.json"
"""File with the checksums of other files of its folder."""


DIGEST_BYTES = 16
"""Size of the hashes of files."""


def content_hash(content: bytes) -> bytes:
    """BLAKE2b hash of bytes."""
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest()


def content_digest(content: bytes) -> str:
    """`content_hash`, hexadecimal."""
    return content_hash(content).hex()


def file_digest(path: Path) -> str:
    """`content_digest` of a file, which is read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(
            file, lambda: hashlib.blake2b(digest_size=DIGEST_BYTES)
        ).hexdigest()


def files_that_differ(folder: Path, checksums: Mapping[str, Any]) -> list[str]:
    """Files that are missing or do not match their checksums.

    Args:
        folder: Folder of the files.
        checksums: Checksum of each file, by its path from the folder.

    Raises:
        OSError: A file cannot be read; nothing is known of its content.
    """
    return [name for name, checksum in checksums.items() if not _is(folder / name, checksum)]


def _is(path: Path, checksum: Any) -> bool:
    try:
        return file_digest(path) == str(checksum)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return False


def write_checksums(folder: Path, names: Iterable[str]) -> None:
    """Write `checksums.json` with the checksums of files of a folder."""
    values = {name: file_digest(folder / name) for name in names}
    with replacing(folder / CHECKSUMS) as partial:
        partial.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def read_checksums(folder: Path) -> dict[str, str]:
    """Checksums of the files of a folder by name; {} if it has no `checksums.json`.

    Raises:
        InputError: The file is damaged.
    """
    file = folder / CHECKSUMS
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError):  # errors of JSON and of UTF-8
        values = None
    if not isinstance(values, dict) or not values:
        raise InputError(f"{file}: damaged; copy the folder again")
    return {str(name): str(value) for name, value in values.items()}
