"""Names of modules that a config or a model folder refers to."""

from __future__ import annotations

from pathlib import Path


def parents_of(name: str) -> set[str]:
    """A dotted name and those of the packages that contain it.

    Example:
        >>> sorted(parents_of("a.b.c"))
        ['a', 'a.b', 'a.b.c']
    """
    parts = name.split(".")
    return {".".join(parts[: count + 1]) for count in range(len(parts))}


def missing_module(name: str) -> str:
    """What is wrong with a module that is not found, and what to do."""
    top = name.partition(".")[0]
    if Path(f"{top}.py").is_file() or Path(top, "__init__.py").is_file():
        return (
            f"there is no module {name} here, and {top} is in the current folder, which Python "
            "does not search; write PYTHONPATH=. before the command"
        )
    return f"there is no module {name} here; install it, or add the folder with it to PYTHONPATH"
