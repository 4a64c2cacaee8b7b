"""Command that ends with the process that has started it, also if that is killed.

    python -m preceptor.runtime.tied_command MODULE [ARGUMENTS]

runs a module as `python -m MODULE` does. The other process holds the pipe of the standard input.
"""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
import threading
from collections.abc import Sequence


def start_tied(arguments: Sequence[str]) -> subprocess.Popen[str]:
    """Process of a module with a pipe of its output, out of the reach of Ctrl-C in the terminal.

    Args:
        arguments: Module, and its arguments.
    """
    return subprocess.Popen(
        [sys.executable, "-m", "preceptor.runtime.tied_command", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _follow() -> None:
    """Terminate this process when the pipe is closed."""
    while os.read(0, 1024):
        pass
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_follow, daemon=True).start()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
