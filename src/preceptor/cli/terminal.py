"""Live view of a study on a terminal, and output of `preceptor study status`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from preceptor.execution.status import Status, StudyStatus
from preceptor.utils.text import as_time

Tell = Callable[[str], None]


@contextlib.contextmanager
def live(board: StudyStatus, console: Console) -> Iterator[Tell]:
    """Show a board on a terminal while the study runs; yields what tells lines above it."""
    with Live(
        get_renderable=lambda: render(board.status),
        console=console,
        refresh_per_second=2,
        transient=True,
    ) as shown:
        yield lambda line: shown.console.print(line, markup=False, highlight=False)


def render(status: Status, now: float | None = None) -> RenderableType:
    """Status as a rich renderable: progress bar, time left, running steps and failures.

    Args:
        status: Status of the study.
        now: Current time in seconds since the epoch; None = now.
    """
    now = time.time() if now is None else now
    head = Table.grid(padding=(0, 1))
    left = ""
    if status.left is not None and status.done < status.total:
        left = f"about {as_time(status.left)} left"
    head.add_row(
        f"{status.done} of {status.total} steps",
        ProgressBar(total=max(status.total, 1), completed=status.done, width=30),
        left,
    )
    steps = Table(box=None, pad_edge=False, show_header=False)
    steps.add_column(no_wrap=True, overflow="ellipsis", max_width=56)
    steps.add_column(justify="right", no_wrap=True)
    steps.add_column(no_wrap=True, overflow="ellipsis")
    cluster = any(one.where for one in status.running)
    if cluster:
        steps.add_column(no_wrap=True, overflow="ellipsis", max_width=24)
    for one in status.running:
        waits = cluster and not one.where
        took = "waits" if waits else f"{now - one.since:.0f} s"
        places = [Text(one.where)] if cluster else []
        steps.add_row(Text(one.title), took, Text(one.line), *places)
    failed = [
        Text(f"failed: {one.title}: {one.reason}", style="red")
        for one in list(status.failed.values())[:5]
    ]
    more = len(status.failed) - len(failed)
    return Group(head, steps, *failed, *([Text(f"and {more} more")] if more else []))


def tell_status(status: Status, held: bool, console: Console) -> None:
    """Print the status of a study from another shell."""
    age = time.time() - status.updated
    if held:
        where = f"running on {status.host}, process {status.pid}; last update {as_time(age)} ago"
    elif status.done >= status.total and not status.failed:
        where = "finished"
    else:
        status.running = []  # running steps ended with the process
        where = "not running; repeat the command to resume"
    console.print(where, markup=False, highlight=False)
    console.print(render(status))
