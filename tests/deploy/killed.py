"""The command `preceptor predict`, killed at one of its calls that write to the disk."""

from __future__ import annotations

import functools
import os
import signal
from pathlib import Path
from typing import Any
from unittest import mock

from preceptor.deploy import predict_files
from tests.forked import command

AT = "PREDICT_KILLED_AT"
"""Environment variable: number of the call, from 0, before which the process is killed."""


def killed_command() -> None:
    """The command; a state is kept after every batch."""
    left = int(os.environ.get(AT, -1))

    def counted(function: Any) -> Any:
        def call(*arguments: Any, **words: Any) -> Any:
            nonlocal left
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
            return function(*arguments, **words)

        return call

    often = functools.partial(predict_files.predict_files, keep_every=0.0)
    with (
        mock.patch.object(predict_files, "predict_files", often),
        mock.patch.object(os, "fsync", counted(os.fsync)),
        mock.patch.object(Path, "replace", counted(Path.replace)),
        mock.patch.object(Path, "unlink", counted(Path.unlink)),
    ):
        command()
