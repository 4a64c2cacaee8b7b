"""Commands in the documents: each exists, with its options."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from preceptor.cli import main
from tests.documents import PAGES, ROOT

COMMAND = re.compile(r"^(?:\s{4,})?\$? ?(?:[A-Z_]+=\S+ )*(preceptor .*)$")
INLINE = re.compile(r"`(preceptor [^`]*)`")


def commands_of(page: Path) -> Iterator[str]:
    """Lines of shell blocks that call the program, with their continuations."""
    lines = iter(page.read_text(encoding="utf-8").splitlines())
    for line in lines:
        if match := COMMAND.match(line):
            command = match[1]
            while command.endswith("\\"):
                command = command[:-1] + next(lines).strip()
            yield re.split(r"\s+(?:#|\||&&|>|;)\s?", command)[0].rstrip(" &")
        else:
            yield from INLINE.findall(line)


FOUND = [(page.relative_to(ROOT), one) for page in PAGES for one in commands_of(page)]


def problem_of(words: list[str]) -> str | None:
    """What is wrong with a command; None if it exists and has these options."""
    command: Any = main.command()
    names: list[str] = []
    rest = words[1:]
    while (inner := getattr(command, "commands", None)) is not None:
        if not rest:
            return None  # a group: it prints its help
        if rest == ["--version"]:
            return None
        if rest[0] not in inner:
            if "run" in inner and re.search(r"[./A-Z]", rest[0]):  # `study FILE`
                command = inner["run"]
                break
            return f"{' '.join(['preceptor', *names])} has no command {rest[0]}"
        names.append(rest[0])
        command, rest = inner[rest[0]], rest[1:]
    known = {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
    options = [word.partition("=")[0] for word in rest if re.match(r"--?[a-z]", word)]
    missing = [name for name in options if name not in {*known, "--help"}]
    return f"{' '.join(names)} has no option {missing[0]}" if missing else None


# Named by the page, so that tests/slow.txt stays true when another page gets a command.
@pytest.mark.parametrize(
    ("page", "command"), FOUND, ids=[f"{page}: {command}" for page, command in FOUND]
)
def test_it_exists(page: Path, command: str) -> None:
    assert problem_of(shlex.split(command)) is None


def test_variables_for_data_are_absolute_paths() -> None:
    """Relative paths in a study file start at its folder, also those in variables."""
    relative = re.compile(r"\b(?:FORGED|SPOTS|PLANTED|PLANTED_CRACKS|CORNER|DATA)=[a-z.]\S* ")
    files = [*PAGES, *(ROOT / "examples").glob("*.yaml")]
    assert not [str(file) for file in files if relative.search(file.read_text(encoding="utf-8"))]
    assert relative.search("    FORGED=forged preceptor study x.yaml")


def test_wrong_commands_are_found() -> None:
    assert len(FOUND) > 80
    assert problem_of(["preceptor", "studdy", "x"]) == "preceptor has no command studdy"
    assert problem_of(["preceptor", "data", "chek"]) == "preceptor data has no command chek"
    assert problem_of(["preceptor", "study", "plam", "x"]) == "preceptor study has no command plam"
    assert (
        problem_of(["preceptor", "study", "x.yaml", "--outt", "y"]) == "study has no option --outt"
    )
