"""Is an outcome what a user may meet: accepted, or refused in lines that say what and where?"""

from __future__ import annotations

import re
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from io import StringIO

from preceptor.cli.main import reported_errors
from preceptor.errors import is_control
from tests.commands import Outcome

_COUNT = re.compile(r"(?:: | has )([\d,]+) problems?$")
# In the place of a key: a line of the config, the path of a table, a variable.
_PLACE = re.compile(r"\bline \d|: 1 problem\n  the file: |not set in the environment")
LONGEST = 12_000


@dataclass
class Tally:
    """How many inputs ended how."""

    accepted: int = 0
    refused: int = 0
    tracebacks: dict[str, str] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def inputs(self) -> int:
        return self.accepted + self.refused + len(self.tracebacks) + len(self.wrong)

    def __str__(self) -> str:
        return (
            f"{self.inputs:,} inputs: {self.accepted:,} accepted, {self.refused:,} refused, "
            f"{len(self.tracebacks)} tracebacks, {len(self.wrong)} other failures"
        )

    def failures(self) -> str:
        """Each failure with what reproduces it."""
        found = [*self.tracebacks.items(), *self.wrong.items()]
        return "\n\n".join(f"{name}\n{what}" for name, what in found[:20])

    def enter(self, name: str, call: Callable[[], Outcome], keys: Iterable[str] = ()) -> None:
        """Count what comes of a call."""
        try:
            outcome = call()
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            self.tracebacks[name] = "".join(traceback.format_exception(error)[-6:])
            return
        if outcome.code == 0 and not outcome.err:
            self.accepted += 1
            return
        wrong = faults(outcome) or unnamed(outcome, keys)
        if wrong:
            self.wrong[name] = f"{wrong}\n{outcome.code}: {outcome.err[:1500]}"
        else:
            self.refused += 1
            self.reasons[re.sub(r"\S*[\d'\"/]\S*", "…", outcome.err.split("; ")[0])[:90]] += 1


def guarded(call: Callable[[], object]) -> Outcome:
    """A part of a command behind the command's own handler of errors."""
    err = StringIO()
    code = 0
    with redirect_stderr(err):
        try:
            with reported_errors():
                call()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
    return Outcome(code, "", err.getvalue())


def faults(outcome: Outcome) -> str:
    """What is wrong with a refusal, or ""."""
    if outcome.code != 2:
        return f"exit code {outcome.code}"
    if not outcome.err.startswith("error: ") or not outcome.err.endswith("\n"):
        return "no error line"
    lines = outcome.err[:-1].split("\n")
    due = 0  # lines that the last header has announced
    for line in lines:
        if len(line) > LONGEST:
            return f"a line of {len(line):,} characters"
        if odd := [letter for letter in line if is_control(letter)]:
            return f"unprintable {odd[0]!r}"
        if line.startswith("  "):
            due -= 1
        elif due:
            return f"{due} problems are not told"
        elif count := _COUNT.search(line):
            told_of = int(count[1].replace(",", ""))
            due = told_of if told_of <= 20 else 21
        if due < 0:
            return f"more lines than problems: {line!r}"
    return f"{due} problems are not told" if due else ""


def unnamed(outcome: Outcome, keys: Iterable[str]) -> str:
    """Whether a refusal names none of these words, or ""."""
    words = {key.strip("\"' ") for key in keys} - {""}
    text = outcome.err
    if not words or any(word in text for word in words) or _PLACE.search(text):
        return ""
    return f"none of {sorted(words)} is named"
