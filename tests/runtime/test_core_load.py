"""The load on other cores is there within its block, and nowhere after it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from preceptor.errors import RunFailedError
from preceptor.runtime.core_load import core_load

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="no /proc here")


def children(of: int) -> list[int]:
    """Processes that this process has started and not yet waited for."""
    found = []
    for task in Path(f"/proc/{of}/task").iterdir():
        found += map(int, (task / "children").read_text().split())
    return found


def ticks(process: int) -> int:
    """Processor time of a process."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_processes_compute_until_the_end_of_the_block() -> None:
    before = set(children(os.getpid()))
    with core_load(2):
        started = set(children(os.getpid())) - before
        assert len(started) == 2
        for process in started:
            already = ticks(process)
            while ticks(process) <= already:
                time.sleep(0.01)
    assert set(children(os.getpid())) == before


def test_no_process_is_left_where_the_measuring_one_is_killed() -> None:
    code = (
        "import time\n"
        "from preceptor.runtime.core_load import core_load\n"
        "with core_load(1):\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(1000)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as measuring:
        assert measuring.stdout is not None
        measuring.stdout.readline()
        (load,) = children(measuring.pid)
        measuring.send_signal(signal.SIGKILL)
    # Ended processes for which nobody waits yet have state Z.
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        while Path(f"/proc/{load}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            time.sleep(0.01)


def test_a_process_that_does_not_start_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A measurement without the load would be too fast."""
    failing = shutil.which("false")
    assert failing is not None
    monkeypatch.setattr(sys, "executable", failing)
    before = set(children(os.getpid()))
    with pytest.raises(RunFailedError, match=r"ended with exit code 1"), core_load(2):
        pass
    assert set(children(os.getpid())) == before
