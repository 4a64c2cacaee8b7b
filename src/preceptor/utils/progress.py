"""Progress bars, shown only on terminals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Display

# Progress is written to standard error, so that standard output contains results only.
console = Console(stderr=True)

Item = TypeVar("Item")
Progress = Callable[[int, int], None]
"""Function called with (done, total) while items are worked on."""


def progress() -> Display:
    """Progress display, which prints nothing if the output is not a terminal."""
    return Display(
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
