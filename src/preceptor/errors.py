"""The one exception family: what was wrong, where, and what to do about it."""

from __future__ import annotations

import re
import traceback
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass


class PreceptorError(Exception):
    """A failure that is told to the user in one line; the command exits with `exit_code`."""

    exit_code = 1


class InputError(PreceptorError):
    """The user's input (a path, a table, a config) cannot be used; the command exits with 2."""

    exit_code = 2


class RunFailedError(PreceptorError):
    """A computation was started and could not be finished (it diverged, or ran out of disk)."""


class HeldError(PreceptorError):
    """Another process works on what was asked for."""


class CrowdedError(PreceptorError):
    """A device that several computations share has no room for this one."""


class LeaseLostError(PreceptorError):
    """Another process took over what this one was working on."""


def is_control(letter: str) -> bool:
    """Whether a character is a control character, ends a line or is half of one.

    Example:
        >>> [is_control(letter) for letter in ("a", "é", "\\n", "\\x1b", "\\u2028")]
        [False, False, True, True, True]
    """
    return unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp")


def one_line(text: str) -> str:
    """A text with its control characters written out, so that it is one line on any terminal.

    Example:
        >>> one_line("a\\nb")
        'a\\\\nb'
    """
    return "".join(repr(one)[1:-1] if is_control(one) else one for one in text)


def _short(text: str) -> str:
    """A text without its middle where it is too long: a cell may hold a whole file."""
    return text if len(text) <= 500 else f"{text[:300]} … {text[-150:]}"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with an input.

    Args:
        where: The row, key or file, as a reader finds it ("row 12", "training.lr").
        what: What is wrong, with the value.
        fix: Remedy.
    """

    where: str
    what: str
    fix: str

    def __str__(self) -> str:
        return one_line(f"{_short(self.where)}: {_short(self.what)}; {_short(self.fix)}")


class ProblemsError(InputError):
    """Everything that is wrong with one input, listed at once, up to a limit."""

    limit = 20

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        self.source = source
        self.problems = list(problems)
        count = len(self.problems)
        lines = [f"{one_line(_short(source))}: {count:,} problem{'s' if count != 1 else ''}"]
        lines += [f"  {problem}" for problem in self.problems[: self.limit]]
        if count > self.limit:
            lines.append(f"  and {count - self.limit:,} more")
        super().__init__("\n".join(lines))

    def __reduce__(self) -> tuple[type[ProblemsError], tuple[str, list[Problem]]]:
        """Pickled by its parts, so that it survives the way out of a worker process."""
        return type(self), (self.source, self.problems)


def reason(error: BaseException, limit: int = 300) -> str:
    """What another library's exception says, in one line; where it says nothing, what it raised.

    Args:
        error: Any.
        limit: Most characters.

    Example:
        >>> reason(ValueError("two   words")), reason(KeyError())
        ('two words', 'KeyError')
    """
    text = " ".join(str(error).split())
    if not text:
        text = type(error).__name__
        lines = [frame.line or "" for frame in traceback.extract_tb(error.__traceback__)]
        asserted = [line for line in lines if re.match(r"(torch\.)?_?assert\b", line)]
        if asserted:
            text += f": {asserted[-1]}"
    return text[:limit]
