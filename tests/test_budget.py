"""The size of the project: what a new colleague has to read, and what a user has to know.

The limits are upper bounds of today's size. They may be lowered freely; raising one is a decision.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from functools import cache
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from preceptor.cli import main
from preceptor.study.config import StudyConfig
from tests.documents import ROOT

LIMITS = {
    "lines of source": 38_000,
    "modules of source": 154,
    "lines of the longest module": 593,
    "lines of benchmarks": 3_110,
    "lines of documentation": 3_520,
    "lines of RESULTS": 115,
    "lines of the changelog": 45,
    "lines of the README": 150,
    "tracked files": 845,
    "keys of a study": 65,
    "commands": 28,
    "options": 65,
}


@cache
def tracked() -> tuple[str, ...]:
    """Tracked files of the project."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout")
    return tuple(name for name in done.stdout.split("\0") if (ROOT / name).is_file())


def lines(folder: str, suffix: str) -> list[int]:
    """Lines of the tracked files of a folder with a suffix."""
    names = [name for name in tracked() if name.startswith(folder) and name.endswith(suffix)]
    return [len((ROOT / name).read_bytes().splitlines()) for name in names]


def keys_of(
    model: type[BaseModel], above: str = "", seen: set[type[BaseModel]] | None = None
) -> Iterator[str]:
    """Distinct dotted keys of a config; a section that occurs twice is counted once."""
    seen = set() if seen is None else seen
    for name, field in model.model_fields.items():
        yield f"{above}{name}"
        for section in _models(field.annotation):
            if section not in seen:
                seen.add(section)
                yield from keys_of(section, f"{above}{name}.", seen)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def commands(command: Any) -> Iterator[Any]:
    """Commands of the program, without groups."""
    inner = getattr(command, "commands", None)
    if inner is None:
        yield command
    for one in (inner or {}).values():
        yield from commands(one)


def sizes() -> dict[str, int]:
    """Today's sizes, by the names of `LIMITS`."""
    source = lines("src/", ".py")
    found = list(commands(main.command()))
    options = {name for one in found for option in one.params for name in option.opts}
    return {
        "lines of source": sum(source),
        "modules of source": len(source),
        "lines of the longest module": max(source),
        "lines of benchmarks": sum(lines("benchmarks/", ".py")),
        "lines of documentation": sum(lines("docs/", ".md")),
        "lines of RESULTS": sum(lines("benchmarks/RESULTS.md", "")),
        "lines of the changelog": sum(lines("CHANGELOG.md", "")),
        "lines of the README": sum(lines("README.md", "")),
        "tracked files": len(tracked()),
        "keys of a study": len(list(keys_of(StudyConfig))),
        "commands": len(found),
        "options": len([name for name in options if name.startswith("--")]),
    }


def test_the_project_is_no_larger_than_its_budget() -> None:
    over = {name: size for name, size in sizes().items() if size > LIMITS[name]}
    assert not over


def test_tests_are_no_larger_than_the_source() -> None:
    assert sum(lines("tests/", ".py")) <= sum(lines("src/", ".py"))
