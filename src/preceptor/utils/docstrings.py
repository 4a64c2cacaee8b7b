"""Descriptions of parameters and keys in the section Args of docstrings."""

from __future__ import annotations

import inspect
import re

_ENTRY = re.compile(r"(\w+(?:, \w+)*): (.*)")


def argument_descriptions(docstring: str) -> dict[str, str]:
    """Description of each argument in the section Args, each in one line."""
    _, _, section = inspect.cleandoc(docstring).partition("\nArgs:\n")
    entries: list[str] = []
    for line in section.split("\n"):
        if line and not line.startswith("    "):
            break
        if line.startswith("        "):
            entries[-1] += f" {line.strip()}"
        elif line:
            entries.append(line.strip())
    matches = [match for entry in entries if (match := _ENTRY.match(entry))]
    return {name: match[2] for match in matches for name in match[1].split(", ")}
