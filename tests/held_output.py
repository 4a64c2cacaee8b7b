"""A stream whose writer waits after a line, so that a test ends it at that place."""

from __future__ import annotations

import time
from pathlib import Path
from typing import IO


def wait_after(stream: IO[str], beginning: str, go: Path) -> None:
    """Let whoever writes a line that begins so wait until a file exists."""
    write, unfinished = stream.write, ""

    def written(text: str) -> int:
        nonlocal unfinished
        count = write(text)
        *lines, unfinished = (unfinished + text).split("\n")
        if any(line.startswith(beginning) for line in lines):
            stream.flush()
            while not go.exists():
                time.sleep(0.01)
        return count

    stream.write = written  # type: ignore[method-assign]
