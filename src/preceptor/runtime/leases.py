"""Who works on a folder: a lease with a heartbeat, among processes and machines that share it.

A lease is a small file beside the folder that names its holder and is touched every few seconds. It
needs nothing of the file system but an exclusive link and a rename, so that it holds on network
folders, where the kernel's locks may not. A holder that died on this machine is known at once; one
on another machine is taken for dead when its heart has not beaten for a while, by the folder's own
clock, so that clocks need not agree.

A holder that was only asleep finds its lease gone, and must then leave its work alone: it asks
(`Lease.check`) before it writes what others will read. Between asking and writing lies a moment in
which two may write the same file; that is harmless, since a finished folder carries checksums, and
what does not fit them is made again.
"""

from __future__ import annotations

import contextlib
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

from preceptor.errors import HeldError, LeaseLostError

BEAT = 5.0
"""Seconds between two heartbeats."""
PAUSES = (0.05, 0.2, 0.5)
"""Seconds between looks at a lease that cannot be read, before it counts as lost."""
DEAD_AFTER = 60.0
"""Seconds without a heartbeat after which a holder on another machine is taken for dead."""


@dataclass(frozen=True)
class Holder:
    """Who holds a lease.

    Args:
        token: Of this very lease.
        machine: Where process numbers mean the same: host, boot and namespace.
        host, pid: For people.
        started: When the process started, in the kernel's ticks, since numbers are used again.
    """

    token: str
    machine: str
    host: str
    pid: int
    started: int

    @property
    def died_here(self) -> bool:
        """Whether it is known to be dead: it was a process of this machine and is no more."""
        return self.machine == _machine() and _start_of(self.pid) != self.started


class Lease:
    """A lease that is held; its heart beats until it is given back.

    Args:
        path: The lease file.
        holder: This process.
    """

    def __init__(self, path: Path, holder: Holder) -> None:
        self._path, self._holder = path, holder
        self._ended = threading.Event()
        self._heart = threading.Thread(target=self._beat, daemon=True)
        self._heart.start()

    def held(self) -> bool:
        """Whether it is still ours; a file that cannot be read for a moment is looked at again."""
        for pause in (*PAUSES, 0.0):
            found = read_holder(self._path)
            if found is not None:
                return found.token == self._holder.token
            time.sleep(pause)
        return False

    def check(self) -> None:
        """See that it is still ours.

        Raises:
            LeaseLostError: Another took it over while this process was asleep.
        """
        if not self.held():
            raise LeaseLostError(
                f"{self._path.name}: another process took this over, since this one was not heard "
                "of for too long; what it does is left to the other"
            )

    def give_back(self) -> None:
        """Let others have it."""
        self._ended.set()
        self._heart.join()
        if self.held():
            self._path.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            found = read_holder(self._path)
            if found is None:  # it cannot be read just now, or is lost, which `check` will find
                continue
            if found.token != self._holder.token:
                return
            with contextlib.suppress(OSError):
                os.utime(self._path)


@contextlib.contextmanager
def lease(folder: Path, *, wait: float | None = None) -> Iterator[Lease]:
    """Hold a folder; a second process that wants it waits.

    Args:
        folder: It need not exist; the lease lies beside it.
        wait: Seconds to wait for it; None = without end.

    Raises:
        HeldError: Another holds it.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    path = _lease_file(folder)
    holder = Holder(uuid.uuid4().hex, _machine(), socket.gethostname(), os.getpid(), _start_of())
    until = None if wait is None else time.monotonic() + wait
    pause = 0.02
    while not _take(path, holder):
        found = read_holder(path)
        if found is not None and (found.died_here or _silence(path) > DEAD_AFTER):
            bury(path, found)
            continue
        if until is not None and time.monotonic() >= until:
            who = f"process {found.pid} on {found.host}" if found else "another process"
            raise HeldError(f"{folder}: {who} works on it")
        time.sleep(pause)
        pause = min(2 * pause, 1.0)
    held = Lease(path, holder)
    try:
        yield held
    finally:
        held.give_back()


def holder_of(folder: Path) -> Holder | None:
    """Who holds a folder, as far as it is not known to be dead."""
    path = _lease_file(folder)
    found = read_holder(path)
    if found is None or found.died_here or _silence(path) > DEAD_AFTER:
        return None
    return found


def read_holder(path: Path) -> Holder | None:
    """Who a lease file names; None where there is none."""
    try:
        return Holder(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _lease_file(folder: Path) -> Path:
    return folder.parent / f".{folder.name}.lease"


def _take(path: Path, holder: Holder) -> bool:
    """Make the lease file, whole and only if there is none."""
    own = path.with_name(f"{path.name}.{holder.token}")
    try:
        own.write_text(json.dumps(asdict(holder)), encoding="utf-8")
        os.link(own, path)
    except FileExistsError:
        return False
    finally:
        own.unlink(missing_ok=True)
    return True


def bury(path: Path, dead: Holder) -> None:
    """Remove the lease of a dead holder, and of no other.

    Of several that find it dead, one renames it; who renamed a lease that is not the dead one's,
    made in the meantime, puts it back.
    """
    grave = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    try:
        path.rename(grave)
    except FileNotFoundError:
        return
    found = read_holder(grave)
    if found is not None and found.token != dead.token:
        with contextlib.suppress(FileExistsError):
            os.link(grave, path)
    grave.unlink()


def _silence(path: Path) -> float:
    """Seconds since the last heartbeat, by the clock of the file system itself."""
    probe = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    try:
        probe.touch()
        return probe.stat().st_mtime - path.stat().st_mtime
    except OSError:
        return 0.0
    finally:
        probe.unlink(missing_ok=True)


@cache
def _machine() -> str:
    """Names what shares process numbers with this process."""
    parts = [socket.gethostname()]
    for file in ("/proc/sys/kernel/random/boot_id",):
        with contextlib.suppress(OSError):
            parts.append(Path(file).read_text(encoding="utf-8").strip())
    with contextlib.suppress(OSError):
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts)


def _start_of(pid: int | None = None) -> int:
    """When a process started, in ticks since boot; 0 where that is not known, −1 for no process."""
    own = pid is None
    try:
        text = Path(f"/proc/{'self' if own else pid}/stat").read_text(encoding="utf-8")
        fields = text.rpartition(")")[2].split()
        return -1 if fields[0] in "ZX" else int(fields[19])  # killed, and not yet waited for
    except OSError:
        if own or Path("/proc/self").exists():
            return 0 if own else -1
    try:
        os.kill(pid or 0, 0)
    except ProcessLookupError:
        return -1
    except OSError:
        return 0
    return 0
