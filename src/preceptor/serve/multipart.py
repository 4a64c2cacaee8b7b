"""Bodies of the type multipart/form-data (RFC 7578), parsed in memory.

The size of a body is limited before, so that a parser of streams has no advantage here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from preceptor.errors import one_line
from preceptor.web.refusal import RefusedError, malformed

_PARAMETER = re.compile(r';\s*([A-Za-z*]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;\s"]*)')
_LARGEST_HEAD = 16 * 1024
_LONGEST_BOUNDARY = 70
_LONGEST_NAME = 200


@dataclass(frozen=True)
class Part:
    """One part of a body.

    Args:
        field: Name of the field.
        filename: Name of the file, in one line; "" for a plain field.
        content: Content.
    """

    field: str
    filename: str
    content: bytes


def parts_of(content_type: str, body: bytes, most: int) -> list[Part]:
    """Parts of a body.

    Args:
        content_type: Header Content-Type, with the boundary.
        body: Body.
        most: Largest number of parts.

    Raises:
        RefusedError: There is no boundary, the body is malformed or cut off (400), or it has too
            many parts (413).

    Example:
        >>> head = b'--x\\r\\nContent-Disposition: form-data; name="a"\\r\\n\\r\\n'
        >>> parts_of("multipart/form-data; boundary=x", head + b"hello\\r\\n--x--", 1)
        [Part(field='a', filename='', content=b'hello')]
    """
    boundary = parameter(content_type, "boundary")
    if not 1 <= len(boundary) <= _LONGEST_BOUNDARY or not boundary.isascii():
        raise malformed("the type multipart/form-data needs a boundary of 1 to 70 characters")
    line = b"--" + boundary.encode("ascii")
    end = b"\r\n" + line
    at = 0 if body.startswith(line) else body.find(end) + 2
    if at == 1:
        raise malformed("the body does not contain its boundary")
    found: list[Part] = []
    while True:
        at += len(line)
        if body[at : at + 2] == b"--":
            return found
        if body[at : at + 2] != b"\r\n":
            raise malformed("the body has no line break after a boundary")
        if len(found) == most:
            raise RefusedError(413, f"the body has more than {most} parts")
        head_end = body.find(b"\r\n\r\n", at, at + _LARGEST_HEAD)
        stop = -1 if head_end < 0 else body.find(end, head_end + 2)
        if stop < 0:
            raise malformed("the body ends within a part")
        disposition = _disposition(body[at:head_end])
        name, filename = (parameter(disposition, key) for key in ("name", "filename"))
        found.append(Part(one_line(name), _short(filename), body[head_end + 4 : stop]))
        at = stop + 2


def parameter(header: str, name: str) -> str:
    """Parameter of a header; "" if it has none.

    Example:
        >>> parameter('form-data; name="a b"; filename=c.png', "name")
        'a b'
    """
    for key, value in _PARAMETER.findall(header):
        if key.lower() == name:
            text: str = value
            return re.sub(r"\\(.)", r"\1", text[1:-1]) if text.startswith('"') else text
    return ""


def _disposition(head: bytes) -> str:
    """Header Content-Disposition of a part; "" if it has none."""
    for one in head.decode("utf-8", "replace").split("\r\n"):
        key, _, value = one.partition(":")
        if key.strip().lower() == "content-disposition":
            return value
    return ""


def _short(name: str) -> str:
    text = one_line(name)
    return text if len(text) <= _LONGEST_NAME else f"{text[:_LONGEST_NAME]}…"
