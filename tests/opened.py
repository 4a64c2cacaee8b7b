"""Which files processes open, by Python's own audit events: those of child processes too."""

from __future__ import annotations

import os
import pickle
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.forked import SpawnedProcess

# The log is no handle that stays open: a process may close all that it has inherited.
_HOOK = """\
import os, sys
def _note(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, os.PathLike)):
        path = os.path.abspath(os.fspath(arguments[0]))
        if path.startswith({folder!r}):
            log = os.open({log!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(log, (path + "\\n").encode())
            os.close(log)
sys.addaudithook(_note)
"""


class OpenedFiles:
    """Counts how often files below a folder are opened by processes."""

    def __init__(self, folder: Path, work: Path) -> None:
        self._folder, self._work, self._log = folder, work, work / "opened.txt"
        self._hook = _HOOK.format(log=str(self._log), folder=f"{folder}{os.sep}")
        self.hook = work / "hook.py"
        self.hook.write_text(self._hook)

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """The result of a function in a new process, which is watched."""
        result = self._work / "result.pickle"
        process = SpawnedProcess(self._watch, (result, function, arguments), daemon=False)
        process.start()
        process.join()
        assert process.exitcode == 0
        return pickle.loads(result.read_bytes())

    def _watch(
        self, result: Path, function: Callable[..., Any], arguments: tuple[Any, ...]
    ) -> None:
        exec(self._hook, {})
        result.write_bytes(pickle.dumps(function(*arguments)))

    def take(self) -> Counter[str]:
        """How often each file was opened since the last call, by its path below the folder."""
        text = self._log.read_text() if self._log.exists() else ""
        self._log.write_text("")
        return Counter(str(Path(line).relative_to(self._folder)) for line in text.splitlines())
