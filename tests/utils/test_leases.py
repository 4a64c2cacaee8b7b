"""A folder is one process's at a time, whoever dies, sleeps or shares a disk with whom."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from preceptor.errors import HeldError, InputError, LeaseLostError
from preceptor.utils import leases
from preceptor.utils.leases import holder_of, lease, lease_after_silence

HOLD = """
import sys, time
from pathlib import Path
from preceptor.utils import leases
leases.BEAT = float(sys.argv[2])
with leases.lease(Path(sys.argv[1])) as held:
    print("held", flush=True)
    for line in sys.stdin:
        try:
            held.check()
            print("mine", flush=True)
        except Exception as error:
            print(type(error).__name__, flush=True)
"""


def holding(folder: Path, beat: float = 0.05) -> subprocess.Popen[str]:
    """A process that holds a folder, and says for each line it is sent whether it still does."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), str(beat)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def asked(process: subprocess.Popen[str]) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def left(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.parent.iterdir())


def assert_free(folder: Path) -> None:
    """It can be held at once, and nothing is left of that."""
    with lease(folder, wait=0.0) as held:
        held.check()
    assert left(folder) == []


def test_one_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with lease(folder) as held:
        held.check()
        found = holder_of(folder)
        assert found is not None
        assert found.pid == os.getpid()
        with pytest.raises(HeldError, match=f"process {os.getpid()}"), lease(folder, wait=0.0):
            pass
        with lease(tmp_path / "other", wait=0.0):
            pass
    assert left(folder) == []
    with pytest.raises(ZeroDivisionError), lease(folder, wait=0.0):
        raise ZeroDivisionError  # it is given back whatever happens inside
    assert holder_of(folder) is None
    assert left(folder) == []


def test_a_file_system_without_hard_links_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(source: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted", str(source), None, str(target))

    monkeypatch.setattr(os, "link", refused)  # no such file system here
    with pytest.raises(InputError) as caught, lease(tmp_path / "study"):
        pass
    assert str(caught.value) == (
        f"{tmp_path}: its file system has no hard links, which the leases of a study and its runs "
        "need; choose another --out or store"
    )
    assert left(tmp_path / "study") == []


def test_another_process_is_waited_for(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with holding(folder) as process:
        with pytest.raises(HeldError, match=f"process {process.pid}"), lease(folder, wait=0.1):
            pass
        assert process.stdin is not None
        process.stdin.close()
        with lease(folder) as held:
            held.check()
    assert left(folder) == []


@pytest.mark.parametrize("reaped", [True, False])
def test_a_killed_holder_is_known_at_once(tmp_path: Path, reaped: bool) -> None:
    folder = tmp_path / "run"
    with holding(folder) as process:
        process.send_signal(signal.SIGKILL)
        if reaped:
            process.wait()
        else:  # a zombie still has its number
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert_free(folder)


def of_another_machine(folder: Path) -> Path:
    """Make the lease look as if it were held on another machine."""
    path = folder.parent / f".{folder.name}.lease"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"machine": "elsewhere", "host": "far", "pid": 1}))
    return path


def silent_for(path: Path, seconds: float) -> None:
    """Make the last heartbeat of a lease so old."""
    os.utime(path, (time.time() - seconds, time.time() - seconds))


def test_a_holder_elsewhere_is_alive_while_its_heart_beats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "DEAD_AFTER", 1000.0)
    folder = tmp_path / "run"
    with holding(folder) as process:
        path = of_another_machine(folder)
        before = path.stat().st_mtime
        while path.stat().st_mtime == before:  # it beats, since the token is its own
            pass
        with pytest.raises(HeldError, match="process 1 on far"), lease(folder, wait=0.0):
            pass
        process.kill()
    silent_for(path, 500)
    with pytest.raises(HeldError), lease(folder, wait=0.0):
        pass
    silent_for(path, 1500)
    assert holder_of(folder) is None
    assert_free(folder)


def test_a_sleeper_finds_its_lease_gone_and_leaves_the_others_alone(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with holding(folder) as process:
        assert asked(process) == "mine"
        path = of_another_machine(folder)
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        silent_for(path, 2 * leases.DEAD_AFTER)
        with lease(folder, wait=0.0) as held:
            process.send_signal(signal.SIGCONT)
            assert asked(process) == LeaseLostError.__name__
            held.check()
            assert process.stdin is not None
            process.stdin.close()
            process.wait()
            held.check()  # it did not take the lease away when it ended
    assert left(folder) == []


def test_a_lease_file_without_content_is_taken_over_when_it_is_silent(tmp_path: Path) -> None:
    """A machine that lost power leaves the name of a file whose content was not on the disk yet."""
    folder, path = tmp_path / "run", tmp_path / ".run.lease"
    path.touch()
    with pytest.raises(HeldError, match="in use by another process"), lease(folder, wait=0.0):
        pass
    silent_for(path, 2 * leases.DEAD_AFTER)
    assert_free(folder)


def test_who_finds_a_holder_dead_too_late_does_not_touch_its_successor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even for a moment, in which a third one could take the lease."""
    folder, path = tmp_path / "run", tmp_path / ".run.lease"
    with holding(folder) as process:
        dead = leases.read_holder(path)
        process.kill()
    looked = leases.read_holder

    def look(file: Path) -> leases.Holder | None:
        if file.name.startswith(f"{path.name}."):  # it is out of its place
            with pytest.raises(HeldError), lease(folder, wait=0.0):
                pass
        return looked(file)

    with lease(folder) as held:
        monkeypatch.setattr(leases, "read_holder", look)
        leases.remove_dead(path, dead)
        held.check()
    assert left(folder) == []


def test_one_process_at_a_time_removes_what_a_dead_one_left(tmp_path: Path) -> None:
    """Another one waits as for a living holder, unless the first one has died as well."""
    folder, path = tmp_path / "run", tmp_path / ".run.lease"
    with holding(folder) as process:
        process.kill()
    with holding(path) as first:
        with pytest.raises(HeldError), lease(folder, wait=0.0):
            pass
        first.kill()
    assert_free(folder)


RACE = """
import os, sys, time
from pathlib import Path
from preceptor.utils.leases import lease
folder = Path(sys.argv[1])
for _ in range(int(sys.argv[2])):
    with lease(folder / "run"):
        mark = os.open(folder / "inside", os.O_CREAT | os.O_EXCL)   # fails if two are inside
        os.close(mark)
        with (folder / "count").open("r+") as file:
            count = int(file.read() or 0)
            file.seek(0)
            file.write(str(count + 1))
        (folder / "inside").unlink()
"""


def test_many_processes_inherit_from_the_dead_and_never_meet(tmp_path: Path) -> None:
    (tmp_path / "count").touch()
    with holding(tmp_path / "run") as process:
        command = [sys.executable, "-c", RACE, str(tmp_path), "10"]
        processes = [subprocess.Popen(command) for _ in range(4)]
        process.kill()
        process.wait()
        assert [process.wait() for process in processes] == [0] * 4
    assert (tmp_path / "count").read_text() == "40"


def test_a_moment_without_an_answer_does_not_stop_the_heart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a network folder: the file is not to be read for a while, and then it is."""
    monkeypatch.setattr(leases, "BEAT", 0.01)
    looked, missed = leases.read_holder, threading.Event()

    def look(path: Path) -> leases.Holder | None:
        found = looked(path)
        if found is None:
            missed.set()
        return found

    folder = tmp_path / "run"
    others = set(threading.enumerate())
    with lease(folder) as held:
        (heart,) = set(threading.enumerate()) - others
        file = tmp_path / ".run.lease"
        away = tmp_path / "away"
        monkeypatch.setattr(leases, "read_holder", look)
        file.rename(away)
        missed.wait()  # a heartbeat has found nothing
        away.rename(file)
        before = file.stat().st_mtime_ns
        while file.stat().st_mtime_ns == before:
            assert heart.is_alive(), "the heart has stopped"
        held.check()
    assert not file.exists()


def test_a_lease_that_is_gone_for_good_is_lost(tmp_path: Path) -> None:
    with lease(tmp_path / "run") as held:
        (tmp_path / ".run.lease").unlink()
        with pytest.raises(LeaseLostError):
            held.check()


def test_a_holder_that_was_killed_elsewhere_is_waited_for_and_a_living_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    with holding(folder) as process:
        path = of_another_machine(folder)
        started = time.monotonic()
        with pytest.raises(HeldError, match="process 1 on far"), lease_after_silence(folder):
            pass
        assert time.monotonic() - started < leases.DEAD_AFTER / 2  # it beats
        process.kill()
    silent_for(path, leases.DEAD_AFTER - 1)
    with lease_after_silence(folder) as held:
        held.check()
    assert left(folder) == []
