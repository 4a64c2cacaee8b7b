"""What a start of Python imports, seen from a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True)
class Start:
    """How a start ended: those of the modules in question that it imported, and its output."""

    imported: frozenset[str]
    out: str


def imported_by(code: str, modules: Collection[str]) -> Start:
    """Run code in a new process, and look for modules."""
    ask = f"print(*(set({sorted(modules)!r}) & set(sys.modules)), file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", f"import atexit, sys\natexit.register(lambda: {ask})\n{code}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Start(frozenset(done.stderr.split()), done.stdout)


def imported_by_command(arguments: Collection[object], modules: Collection[str]) -> Start:
    """Run a `preceptor` command in a new process, and look for modules."""
    given = ["preceptor", *map(str, arguments)]
    code = f"sys.argv = {given!r}\nfrom preceptor.cli.main import main\nmain()"
    return imported_by(code, modules)
