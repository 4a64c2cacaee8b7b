"""Tasks of a Ray cluster: a step, in a process that Ray has started.

The process imports torch when it receives its first task, because Ray looks up the function by the
name of this module.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Any

from preceptor.utils.process import bulk_import

with bulk_import():
    from preceptor.execution.events import Event, WorkerContext
    from preceptor.execution.worker import carry_out
    from preceptor.study.steps import Step
    from preceptor.utils.memory import keep_freed_memory
    from preceptor.utils.text import silence

_known: dict[str, WorkerContext] = {}  # by study: a worker process keeps its manifests open


def do(token: str, context: WorkerContext, step: Step, mailbox: Any, exclusive: bool) -> Event:
    """Execute one step in a worker process of the cluster.

    Args:
        token: Of the study: the context of its first step is kept.
        context: Data and settings of the study.
        step: Any step except a selection.
        mailbox: Handle of the `Mailbox` of the study.
        exclusive: Whether no other step uses the device.
    """
    silence()
    keep_freed_memory()
    context = _known.setdefault(token, context)

    def say(event: Event) -> None:
        with contextlib.suppress(Exception):  # messages are informative only and may be lost
            mailbox.put.remote((event.kind, event.step, event.text))

    say(Event("assigned", step.id, socket.gethostname()))
    return carry_out(step, context, say, exclusive=exclusive)
