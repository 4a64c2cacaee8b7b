"""Leases of folders with a heartbeat, for processes and machines that share a file system.

A lease is a small file next to the folder. It contains the holder and is touched every few seconds.
It requires only exclusive links and renames, and thus works on network file systems, where the
locks of the kernel may not. If the holder died on this machine, this is detected at once. A holder
on another machine is considered dead if there was no heartbeat for some time, measured by the clock
of the file system, so that the clocks of the machines need not agree.

A process that was suspended may lose its lease, and must then stop its work: it calls `Lease.check`
before it writes results. Between the check and the write, two processes may write the same file.
This is harmless: finished folders have checksums, and mismatching files are computed again.
"""

from __future__ import annotations

import contextlib
import errno
import json
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

BEAT = 5.0
"""Seconds between two heartbeats."""
PAUSES = (0.05, 0.2, 0.5)
"""Seconds between looks at a lease that cannot be read, before it counts as lost."""
DEAD_AFTER = 60.0
"""Seconds without a heartbeat after which a holder on another machine is taken for dead."""
_UNKNOWN = 0  # start time of a process
# Errors of file systems without hard links, such as exFAT and mounted buckets.
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


@dataclass(frozen=True)
class Holder:
    """Holder of a lease.

    Args:
        token: Unique token of the lease.
        machine: Identifier of the process id namespace: host, boot and namespace.
        host, pid: Host name and process id, for messages.
        started: Start time of the process in kernel ticks, since process ids are reused.
    """

    token: str
    machine: str
    host: str
    pid: int
    started: int

    @property
    def died_here(self) -> bool:
        """Whether the holder was a process of this machine that no longer exists."""
        return self.is_here and _start_of(self.pid) not in (self.started, _UNKNOWN)

    @property
    def is_here(self) -> bool:
        """Whether the holder is or was a process of this machine."""
        return self.machine == _machine()


class Lease:
    """Lease held by this process, with a heartbeat until it is released.

    Args:
        holder: This process.
    """

    def __init__(self, path: Path, holder: Holder) -> None:
        self._path, self._holder = path, holder
        self._ended = threading.Event()
        self._heart = threading.Thread(target=self._beat, daemon=True)
        self._heart.start()

    def held(self) -> bool:
        """Whether this process still holds the lease; reading the file is retried."""
        for pause in (*PAUSES, 0.0):
            found = read_holder(self._path)
            if found is not None:
                return found.token == self._holder.token
            time.sleep(pause)
        return False

    def check(self) -> None:
        """Check that this process still holds the lease.

        Raises:
            LeaseLostError: Another process took it over while this one was suspended.
        """
        if not self.held():
            raise LeaseLostError(
                f"{self._path.name}: another process took over, since this one had no heartbeat "
                "for too long; the other process continues the work"
            )

    def give_back(self) -> None:
        """Release the lease."""
        self._ended.set()
        self._heart.join()
        if self.held():
            self._path.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            found = read_holder(self._path)
            if found is None:  # temporarily unreadable, or lost, which `check` will detect
                continue
            if found.token != self._holder.token:
                return
            with contextlib.suppress(OSError):
                os.utime(self._path)


@contextlib.contextmanager
def lease(folder: Path, *, wait: float | None = None) -> Iterator[Lease]:
    """Context that holds the lease of a folder, waiting for another holder if necessary.

    Args:
        folder: Folder, which need not exist; the lease file is next to it.
        wait: Maximum waiting time in seconds; None = unlimited.

    Raises:
        HeldError: Another process holds the lease.
        InputError: The file system has no hard links.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    path = _lease_file(folder)
    holder = Holder(uuid.uuid4().hex, _machine(), socket.gethostname(), os.getpid(), _start_of())
    until = None if wait is None else time.monotonic() + wait
    pause = 0.02
    while not _take(path, holder):
        found = read_holder(path)
        if _is_dead(path, found) and bury(path, found):
            continue
        if until is not None and time.monotonic() >= until:
            who = f"process {found.pid} on {found.host}" if found else "another process"
            raise HeldError(f"{folder}: in use by {who}")
        time.sleep(pause)
        pause = min(2 * pause, 1.0)
    held = Lease(path, holder)
    try:
        yield held
    finally:
        held.give_back()


@contextlib.contextmanager
def lease_after_silence(folder: Path) -> Iterator[Lease]:
    """Context that holds the lease of a folder whose holder may have died on another machine.

    Raises:
        HeldError: The holder has a heartbeat.
    """
    path = _lease_file(folder)
    last, until = _last_beat(path), time.monotonic() + DEAD_AFTER + BEAT
    with contextlib.ExitStack() as stack:
        while True:
            try:
                held = stack.enter_context(lease(folder, wait=BEAT))
                break
            except HeldError:
                if _last_beat(path) != last or time.monotonic() >= until:
                    raise
        yield held


def holder_of(folder: Path) -> Holder | None:
    """Holder of the lease of a folder, unless it is known to be dead."""
    path = _lease_file(folder)
    found = read_holder(path)
    return None if found is None or _is_dead(path, found) else found


def read_holder(path: Path) -> Holder | None:
    """Holder in a lease file; None if there is none."""
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
            raise InputError(
                f"{path.parent}: its file system has no hard links, which the leases of a study "
                "and its runs need; choose another --out or store"
            ) from error
        raise
    finally:
        own.unlink(missing_ok=True)
    return True


def bury(path: Path, dead: Holder | None) -> bool:
    """Remove the lease file of a dead holder, unless another process is doing that.

    If several processes find the holder dead, the file may be that of a new holder before the last
    of them removes it. Therefore only a process that holds the lease of the file itself removes it,
    after it has read the file again.

    Args:
        dead: Its holder; None if it cannot be read, as after a loss of power.

    Returns:
        Whether no other process is removing it.
    """
    try:
        with lease(path, wait=0.0):
            found = read_holder(path)
            if found == dead and _is_dead(path, found):
                take_away(path, dead)
    except HeldError:
        return False
    return True


def take_away(path: Path, dead: Holder | None) -> None:
    """Remove the lease file of a dead holder; that of any other holder is put back.

    It is that of another one only if this process was suspended for so long that it lost the lease
    of the file.

    Args:
        dead: Its holder; None if it cannot be read.
    """
    grave = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    try:
        path.rename(grave)
    except FileNotFoundError:
        return
    found = read_holder(grave)
    if found is not None and (dead is None or found.token != dead.token):
        with contextlib.suppress(FileExistsError):
            os.link(grave, path)
    grave.unlink()


def _is_dead(path: Path, holder: Holder | None) -> bool:
    """Whether the holder of a lease file died here, or had no heartbeat for too long."""
    return (holder is not None and holder.died_here) or _silence(path) > DEAD_AFTER


def _silence(path: Path) -> float:
    """Seconds since the last heartbeat, by the clock of the file system."""
    probe = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    try:
        probe.touch()
        return probe.stat().st_mtime - path.stat().st_mtime
    except OSError:
        return 0.0
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
    for file in ("/proc/sys/kernel/random/boot_id",):
        with contextlib.suppress(OSError):
            parts.append(Path(file).read_text(encoding="utf-8").strip())
    with contextlib.suppress(OSError):
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts)


def _start_of(pid: int | None = None, proc: Path = Path("/proc")) -> int:
    """Start time of a process in ticks since boot; 0 if unknown, −1 if there is no such process."""
    try:
        text = (proc / ("self" if pid is None else str(pid)) / "stat").read_text(encoding="utf-8")
        fields = text.rpartition(")")[2].split()
        return -1 if fields[0] in "ZX" else int(fields[19])  # a zombie: killed, but not yet reaped
    except OSError:
        if pid is None:
            return _UNKNOWN
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return -1
    except OSError:  # of another user
        return _UNKNOWN
    return _UNKNOWN
