"""Exceptions of the library, whose messages name the problem, its location and a remedy."""

from __future__ import annotations

import re
import traceback
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import get_args

_USER = re.compile(r"(?<=://)[^\s/]*@")
# A signature is as good as a password. The name of a member follows the address of its shard.
_QUERY = re.compile(r"[?#][^\s?'\"]*?=[^\s'\"]*?(?=::|[:;,)]?(?:\s|$)|['\"])")


def without_secrets(text: str, known: Iterable[str] = ()) -> str:
    """Text whose URLs have no user name, password or query, and without known secrets.

    Example:
        >>> without_secrets("https://me:secret@host/a.tar?sig=1&x=2::b.png: there is no such file")
        'https://host/a.tar::b.png: there is no such file'
    """
    for secret in known:
        text = text.replace(secret, "…")
    return _QUERY.sub("", _USER.sub("", text)) if "://" in text else text


class PreceptorError(Exception):
    """Base class: an error reported in one line; the command exits with `exit_code`.

    Credentials in URLs are removed from the message.
    """

    exit_code = 1

    def __init__(self, *parts: object) -> None:
        super().__init__(*(without_secrets(one) if isinstance(one, str) else one for one in parts))


class InputError(PreceptorError):
    """Invalid input of the user (path, table, config); the command exits with 2."""

    exit_code = 2


class RunFailedError(PreceptorError):
    """A computation failed after its start (it diverged, or ran out of disk space)."""


class HeldError(PreceptorError):
    """Another process holds the lease."""


class LeaseLostError(PreceptorError):
    """Another process took over the lease of this one."""


def check_choice(name: str, value: object, choices: object) -> None:
    """Refuse an argument that is not one of the values of its `Literal` type."""
    if value not in get_args(choices):
        raise InputError(f"{name} {value!r}: write {', '.join(get_args(choices))}")


def is_control(letter: str) -> bool:
    """Whether a character is a control character, a line separator or a surrogate."""
    return unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp")


def one_line(text: str) -> str:
    """Text with escaped control characters, so that it is one line on any terminal."""
    return "".join(repr(one)[1:-1] if is_control(one) else one for one in text)


def _short(text: str) -> str:
    """Text without its middle if it is too long (a cell may contain a whole file)."""
    return text if len(text) <= 500 else f"{text[:300]} … {text[-150:]}"


def raise_all(problems: Sequence[InputError]) -> None:
    """Raise collected problems as one error; a single one as it is."""
    if len(problems) > 1:
        raise InputError("\n".join(map(str, problems)))
    if problems:
        raise problems[0]


def quoted(value: str) -> str:
    """Value of a user in quotation marks, in one line and without its middle if it is too long."""
    return repr(_short(without_secrets(value)))


@dataclass(frozen=True)
class Problem:
    """One problem of an input."""

    where: str  # row, key or file ("row 12", "training.lr")
    what: str  # with the invalid value
    fix: str

    def __str__(self) -> str:
        parts = (_short(without_secrets(part)) for part in (self.where, self.what))
        return one_line(f"{': '.join(parts)}; {_short(self.fix)}")


_LISTED = 20


def listed(items: Sequence[object]) -> list[str]:
    """Indented lines of the first 20 items, and of the number of the others."""
    lines = [f"  {item}" for item in items[:_LISTED]]
    more = len(items) - len(lines)
    return [*lines, f"  and {more:,} more"] if more else lines


class ProblemsError(InputError):
    """All problems of one input, of which the first ones are listed."""

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        self.source = source
        self.problems = list(problems)
        count = len(self.problems)
        lines = [f"{one_line(_short(source))}: {count:,} problem{'s' if count != 1 else ''}"]
        lines += listed(self.problems)
        super().__init__("\n".join(lines))

    def __reduce__(self) -> tuple[type[ProblemsError], tuple[str, list[Problem]]]:
        """Pickle by its attributes, so that it can be sent by a worker process."""
        return type(self), (self.source, self.problems)


def reason(error: BaseException, limit: int = 300, known: Iterable[str] = ()) -> str:
    """Message of another library's exception in one line, or its type if the message is empty."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", str(error))  # without colors
    text = " ".join(plain.split())
    if not text:
        text = type(error).__name__
        lines = [frame.line or "" for frame in traceback.extract_tb(error.__traceback__)]
        asserted = [line for line in lines if re.match(r"(torch\.)?_?assert\b", line)]
        if asserted:
            text += f": {asserted[-1]}"
    return without_secrets(text, known)[:limit]  # half a secret could not be told from other text
