"""The command `preceptor predict`, killed before it makes a row or writes to the disk."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any
from unittest import mock

from tests.forked import command

AT = "PREDICT_KILLED_AT"
"""Environment variable: number of the call, from 0, before which the process is killed."""


def killed_command() -> None:
    """The command."""
    left = int(os.environ.get(AT, -1))

    def counted(function: Any) -> Any:
        def call(*arguments: Any, **words: Any) -> Any:
            nonlocal left
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
            return function(*arguments, **words)

        return call

    with (
        mock.patch.object(json, "dumps", counted(json.dumps)),
        mock.patch.object(os, "fsync", counted(os.fsync)),
        mock.patch.object(Path, "replace", counted(Path.replace)),
        mock.patch.object(Path, "unlink", counted(Path.unlink)),
    ):
        command()
