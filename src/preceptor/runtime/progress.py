"""Progress for people: a bar on a terminal, nothing elsewhere."""

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

# Progress goes to standard error, so that standard output carries results alone.
console = Console(stderr=True)

Item = TypeVar("Item")


def progress() -> Progress:
    """A progress display that is silent where there is no terminal."""
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
    """Show no bars from here on: of a worker, whose terminal is its parent's to draw on."""
    global console
    console = Console(stderr=True, force_terminal=False)


def track(items: Iterable[Item], *, total: int, title: str) -> Iterator[Item]:
    """Yield items under a progress bar."""
    with progress() as bar:
        task = bar.add_task(title, total=total, note="")
        for item in items:
            yield item
            bar.advance(task)
