"""Files with a checksum at their end, which are ONNX files nevertheless.

An ONNX file is a protocol buffer: a sequence of fields in any order, of which the metadata is one
that may be repeated. A sealed file starts with a metadata field that names the format and ends
with one that holds the SHA-256 of all bytes before it. Other programs read it as usual, and a file
that is cut short or changed is told without a library for ONNX.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from preceptor.errors import InputError

INFO_KEY, CARD_KEY, EXPORT_KEY = "preceptor", "model_card", "preceptor_export"
"""Keys of the metadata: description of the model, model card, settings of the export."""
_METADATA = 14  # number of the field metadata_props in ModelProto


def sealed(content: bytes) -> bytes:
    """Content of an ONNX file with the marks of a sealed file around it.

    Args:
        content: Serialized ModelProto.

    Example:
        >>> checked(sealed(b""), Path("model.onnx")) == sealed(b"")
        True
    """
    marked = _HEAD + content
    return marked + _tail(hashlib.sha256(marked).hexdigest())


def read_sealed(path: Path) -> bytes:
    """Content of a sealed file, whose checksum is right.

    Raises:
        InputError: The file cannot be read, or see `checked`.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
    return checked(content, path)


def checked(content: bytes, path: Path) -> bytes:
    """Content of a sealed file, unchanged.

    Args:
        content: Content of the file.
        path: Path of the file, for messages.

    Raises:
        InputError: It is not a sealed file, is cut short, or has changed.
    """
    if not content.startswith(_HEAD):
        raise InputError(
            f"{path}: not a file of preceptor export, or changed by another program; export the "
            "model with preceptor export"
        )
    place = len(content) - len(_tail("0" * 64))
    if place < len(_HEAD) or content[place:] != _tail(
        hashlib.sha256(memoryview(content)[:place]).hexdigest()
    ):
        raise InputError(
            f"{path}: cut short or changed since its export (its checksum does not match); copy "
            "or export it again"
        )
    return content


def _entry(key: str, value: str) -> bytes:
    """Serialized metadata field; its key and value together have fewer than 120 bytes."""
    pair = b"".join(
        bytes((field << 3 | 2, len(text))) + text
        for field, text in ((1, key.encode()), (2, value.encode()))
    )
    return bytes((_METADATA << 3 | 2, len(pair))) + pair


def _tail(digest: str) -> bytes:
    return _entry("preceptor_sha256", digest)


_HEAD = _entry("preceptor_file", "1")
