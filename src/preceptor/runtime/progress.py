"""Progress bars, shown only on terminals."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

# Progress is written to standard error, so that standard output contains results only.
console = Console(stderr=True)

Item = TypeVar("Item")


def progress() -> Progress:
    """Progress display, which prints nothing if the output is not a terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def silence() -> None:
    """Disable progress bars in this process; used by workers, which share a terminal."""
    global console
    console = Console(stderr=True, force_terminal=False)


def track(items: Iterable[Item], *, total: int, title: str) -> Iterator[Item]:
    """Yield items under a progress bar."""
    with progress() as bar:
        task = bar.add_task(title, total=total, note="")
        for item in items:
            yield item
            bar.advance(task)
