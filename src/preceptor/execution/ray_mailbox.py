"""Mailbox of a study on a Ray cluster: an actor that stores what workers say until it is read.

An actor is a process of its own. This module and the messages are plain, so that it imports neither
torch nor the steps.
"""

from __future__ import annotations

import asyncio

Message = tuple[str, str, str]
"""Fields of an `Event`: kind, step, text."""


class Mailbox:
    """Actor that stores messages until they are read."""

    def __init__(self) -> None:
        self._messages: list[Message] = []
        self._some = asyncio.Event()

    async def put(self, message: Message) -> None:
        """Store a message."""
        self._messages.append(message)
        self._some.set()

    async def take(self) -> list[Message]:
        """All stored messages; waits for one if there are none."""
        await self._some.wait()
        self._some.clear()
        messages, self._messages = self._messages, []
        return messages
