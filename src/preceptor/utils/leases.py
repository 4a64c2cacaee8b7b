"""Leases of folders with a heartbeat, for processes and machines that share a file system.

A lease is a file next to the folder with its holder, touched every few seconds. It needs only hard
links and renames, which network file systems have, too. A holder that died on this machine is
detected at once, one on another machine after some time without a heartbeat, by the clock of the
file system. A process that was suspended may lose its lease: it calls `Lease.check` before it
writes results.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from preceptor.errors import HeldError, InputError, LeaseLostError

BEAT = 5.0  # seconds between two heartbeats
DEAD_AFTER = 60.0  # seconds without a heartbeat after which a holder elsewhere counts as dead
# Errors of file systems without hard links, such as exFAT and mounted buckets.
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


@dataclass(frozen=True)
class Holder:
    """Holder of a lease."""

    token: str  # unique token of the lease
    machine: str  # identifier of the process id namespace: host, boot and namespace
    host: str
    pid: int
    started: int  # start time of the process in kernel ticks, since process ids are reused

    @property
    def is_here(self) -> bool:
        """Whether the holder is or was a process of this machine."""
        return self.machine == _machine()


class Lease:
    """Lease held by this process, with a heartbeat until it is released."""

    def __init__(self, path: Path, holder: Holder) -> None:
        self._path, self._holder = path, holder
        self._ended = threading.Event()
        self._heart = threading.Thread(target=self._beat, daemon=True)
        self._heart.start()

    def held(self) -> bool:
        """Whether this process still holds the lease; reading the file is retried."""
        for pause in (0.05, 0.2, 0.5, 0.0):
            holder = read_holder(self._path)
            if holder is not None:
                return holder.token == self._holder.token
            time.sleep(pause)
        return False

    def check(self) -> None:
        """Raise LeaseLostError if another process took the lease over."""
        if not self.held():
            what = "another process took over, since this one had no heartbeat for too long"
            raise LeaseLostError(f"{self._path.name}: {what}; the other continues the work")

    def _give_back(self) -> None:
        self._ended.set()
        self._heart.join()
        if self.held():
            self._path.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            holder = read_holder(self._path)
            if holder is None:  # temporarily unreadable, or lost, which `check` will detect
                continue
            if holder.token != self._holder.token:
                return
            with contextlib.suppress(OSError):
                os.utime(self._path)


@contextlib.contextmanager
def lease(folder: Path, *, wait: float | None = None) -> Iterator[Lease]:
    """Context that holds the lease of a folder, which need not exist.

    It waits at most `wait` seconds for another holder (None = forever), then raises HeldError.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    path = _lease_file(folder)
    pid = os.getpid()
    holder = Holder(uuid.uuid4().hex, _machine(), socket.gethostname(), pid, _start_of(pid))
    until = math.inf if wait is None else time.monotonic() + wait
    pause = 0.02
    while not _take(path, holder):
        other = read_holder(path)
        if _is_dead(path, other) and remove_dead(path, other):
            continue
        if time.monotonic() >= until:
            who = f"process {other.pid} on {other.host}" if other else "another process"
            raise HeldError(f"{folder}: in use by {who}")
        time.sleep(pause)
        pause = min(2 * pause, 1.0)
    held = Lease(path, holder)
    try:
        yield held
    finally:
        held._give_back()


@contextlib.contextmanager
def lease_after_silence(folder: Path) -> Iterator[Lease]:
    """Context that holds the lease of a folder whose holder may have died on another machine."""
    path = _lease_file(folder)
    last, until = _last_beat(path), time.monotonic() + DEAD_AFTER + BEAT
    with contextlib.ExitStack() as stack:
        held = None
        while held is None:
            try:
                held = stack.enter_context(lease(folder, wait=BEAT))
            except HeldError:  # a heartbeat: it is alive
                if _last_beat(path) != last or time.monotonic() >= until:
                    raise
        yield held


def holder_of(folder: Path) -> Holder | None:
    """Holder of the lease of a folder, unless it is known to be dead."""
    path = _lease_file(folder)
    holder = read_holder(path)
    return None if holder is None or _is_dead(path, holder) else holder


def read_holder(path: Path) -> Holder | None:
    """Holder in a lease file, if there is one."""
    try:
        return Holder(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _lease_file(folder: Path) -> Path:
    return folder.parent / f".{folder.name}.lease"


def _take(path: Path, holder: Holder) -> bool:
    """Create the lease file atomically, only if it does not exist."""
    own = path.with_name(f"{path.name}.{holder.token}")
    try:
        own.write_text(json.dumps(asdict(holder)), encoding="utf-8")
        os.link(own, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno in _NO_LINKS and error.filename2 is not None:  # of the link
            what = (
                "its file system has no hard links, which the leases of a study and its runs need"
            )
            raise InputError(f"{path.parent}: {what}; choose another --out or store") from error
        raise
    finally:
        own.unlink(missing_ok=True)
    return True


def remove_dead(path: Path, dead: Holder | None) -> bool:
    """Remove the lease file of a dead holder; False if another process is doing that.

    Only the process that holds the lease of this lease file removes it. It reads the file again
    first. If a new holder has written it meanwhile, the file is restored.
    """
    moved = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    try:
        with lease(path, wait=0.0), contextlib.suppress(FileNotFoundError):
            if read_holder(path) == dead and _is_dead(path, dead):
                path.rename(moved)
                holder = read_holder(moved)
                if holder is not None and (dead is None or holder.token != dead.token):
                    with contextlib.suppress(FileExistsError):
                        os.link(moved, path)
                moved.unlink()
    except HeldError:
        return False
    return True


def _is_dead(path: Path, holder: Holder | None) -> bool:
    """Whether the holder of a lease file died here, or had no heartbeat for too long."""
    if holder is not None and holder.is_here and _start_of(holder.pid) not in (holder.started, 0):
        return True
    # Seconds since the last heartbeat, by the clock of the file system.
    probe = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    try:
        probe.touch()
        return probe.stat().st_mtime - path.stat().st_mtime > DEAD_AFTER
    except OSError:
        return False
    finally:
        probe.unlink(missing_ok=True)


def _last_beat(path: Path) -> float | None:
    """Time of the last heartbeat, by the clock of the file system."""
    try:
        return path.stat().st_mtime
    except OSError:
        return None


@cache
def _machine() -> str:
    """Identifier of the process id namespace of this process."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip())
    with contextlib.suppress(OSError):  # of a container
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts)


def _start_of(pid: int) -> int:
    """Start time of a process in ticks since boot; 0 if unknown, −1 if there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
        fields = text.rpartition(")")[2].split()
        return -1 if fields[0] in "ZX" else int(fields[19])  # a zombie: killed, but not yet reaped
    except OSError:  # not Linux, or hidden by the system
        with contextlib.suppress(OSError):  # of another user
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                return -1
    return 0
