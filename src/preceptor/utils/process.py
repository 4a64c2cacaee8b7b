"""Processes: cores, memory, imports, children that end with their parent, signals, a watchdog.

Loops call `beat` in every iteration. Without a call for some time, a thread of faulthandler, which
needs no interpreter lock, writes the stack traces of all threads to a file and exits the process.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import faulthandler
import gc
import importlib
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from preceptor.errors import InputError

if TYPE_CHECKING:
    import torch

RUN_THREADS = 1
"""CPU threads of a run by default: n threads make a run less than n times as fast, and runs of a
study do not wait for each other."""


def core_count(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Number of cores by the process's affinity and its container's quota, at least one."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError, IndexError):
        most, period = quota.read_text(encoding="ascii").split()[:2]
        if most != "max":
            cores = min(cores, math.ceil(int(most) / int(period)))
    return max(1, cores)


def job_count(threads: int) -> int:
    """Number of concurrent jobs that the cores allow, at least one."""
    return max(1, core_count() // threads)


def checked_jobs(jobs: int | None, threads: int, tell: Callable[[str], None]) -> int | None:
    """Number of jobs, limited so that jobs × threads does not exceed the cores."""
    if jobs is None:
        return None
    if jobs < 1:
        raise InputError(f"--jobs {jobs}: must be 1 or more")
    most = job_count(threads)
    if jobs > most:
        tell(f"{jobs} jobs of {threads} threads exceed the {core_count()} cores; using {most} jobs")
    return min(jobs, most)


@contextlib.contextmanager
def bulk_import() -> Iterator[None]:
    """Context of the first import of torch, without garbage collection (a fifth of the time)."""
    if "torch" in sys.modules:
        yield
        return
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


@contextlib.contextmanager
def environment_of(**values: str) -> Iterator[None]:
    """Context with environment variables for the processes started in it."""
    before = {key: os.environ[key] for key in values if key in os.environ}
    os.environ.update(values)
    try:
        yield
    finally:
        for key in values:
            os.environ.pop(key, None)
        os.environ.update(before)


def call_in_child(module: str, function: str, *arguments: Any) -> None:
    """Target of a child process: a function by its name, which the parent need not import.

    The child ignores Ctrl-C, which the parent handles, and ends when the parent ends.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    with bulk_import():
        target = getattr(importlib.import_module(module), function)
    target(*arguments)


@contextlib.contextmanager
def handling(signals: tuple[signal.Signals, ...], stop: Callable[..., None]) -> Iterator[None]:
    """Context with a handler of signals, in the main thread."""
    before = {one: signal.signal(one, stop) for one in signals}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


_MARK = "Timeout ("  # first words of faulthandler's output


@dataclass
class _Watch:
    log: Path
    hang_timeout: float
    file: IO[bytes] | None = None
    armed: float = 0.0


_current: _Watch | None = None


@contextlib.contextmanager
def watched(log: Path, hang_timeout: float) -> Iterator[None]:
    """Context in which this process is killed if `beat` is not called for some time."""
    global _current
    if not math.isfinite(hang_timeout):
        yield
        return
    watch = _current = _Watch(log, hang_timeout)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            faulthandler.dump_traceback_later(hang_timeout, exit=True, file=nowhere)
            yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        _current = None
        if watch.file is not None:
            watch.file.close()
            log.unlink(missing_ok=True)


def beat() -> None:
    """Report progress; cheap enough for every iteration of a loop."""
    watch = _current
    if watch is None:
        return
    now = time.monotonic()
    if watch.file is None:
        watch.log.parent.mkdir(parents=True, exist_ok=True)
        watch.file = watch.log.open("wb")
    elif now - watch.armed < min(1.0, watch.hang_timeout / 10):
        return
    watch.armed = now
    faulthandler.dump_traceback_later(watch.hang_timeout, exit=True, file=watch.file)


def hung(log: Path) -> bool:
    """Whether a log file was written by the watchdog."""
    try:
        with log.open("r", encoding="utf-8", errors="replace") as file:
            return file.read(len(_MARK)) == _MARK
    except OSError:
        return False


# Messages of plain RuntimeErrors: torch's CPU allocator, oneDNN, GPU libraries, and CUDA outside of
# torch's allocator.
_OUT_OF_MEMORY = (
    "can't allocate memory",
    "not enough memory",
    "std::bad_alloc",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDA error: out of memory",
    "MPS backend out of memory",
    "could not create a memory object",
    "could not create a primitive",
    "could not execute a primitive",
)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error means that the memory of a GPU or of the machine is exhausted."""
    loaded = sys.modules.get("torch")
    return (
        isinstance(error, MemoryError)
        or (loaded is not None and isinstance(error, loaded.OutOfMemoryError))
        or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
        or (isinstance(error, RuntimeError) and any(one in str(error) for one in _OUT_OF_MEMORY))
        or (error.__cause__ is not None and out_of_memory(error.__cause__))
    )


def fix_order_of_sums() -> None:
    """Fix the order of summation of matrix products on a GPU, before its first product."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def release_memory(device: torch.device) -> None:
    """Release torch's cached GPU memory and reset its peak statistics."""
    import torch

    # Before its first use in a process, a GPU has no statistics, and torch raises an error.
    if device.type == "cuda" and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int | None:
    """Peak memory in bytes: of a GPU since `release_memory`, else resident since the start."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_reserved(device)
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def device_memory(device: torch.device) -> int | None:
    """Total memory of a GPU in bytes; None for other devices."""
    if device.type != "cuda":
        return None
    import torch

    return int(torch.cuda.get_device_properties(device).total_memory)


# Options of mallopt(3) of glibc, by the environment variable of a user for the same.
_OPTIONS = {"MALLOC_TRIM_THRESHOLD_": -1, "MALLOC_MMAP_THRESHOLD_": -3, "MALLOC_MMAP_MAX_": -4}


def return_freed_memory() -> bool:
    """Return blocks of 32 MiB or more to the system as soon as they are freed, in this process.

    For servers, before they start threads: each thread would keep the memory in which it decoded.
    """
    with contextlib.suppress(ImportError, AttributeError):
        from PIL import _imaging

        _imaging.set_block_size(2**26)
    return _set_options({"MALLOC_MMAP_THRESHOLD_": 2**25})


def keep_freed_memory() -> bool:
    """Keep freed memory for the next training step: a tenth of the time of a small network."""
    return _set_options({"MALLOC_TRIM_THRESHOLD_": 2**31 - 1, "MALLOC_MMAP_MAX_": 0})


def _set_options(values: dict[str, int]) -> bool:
    """Set options of glibc, unless the user has set any of them; whether they are set."""
    if sys.platform != "linux" or any(name in os.environ for name in _OPTIONS):
        return False
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)  # None with musl
    return set_option is not None and all(
        set_option(_OPTIONS[name], value) for name, value in values.items()
    )


class PixelBudget:
    """Limit on the pixels that all threads hold decoded at the same time."""

    def __init__(self, most: int) -> None:
        self._most = self._free = most
        self._turn = threading.Lock()
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def reserve(self, pixels: int) -> Iterator[None]:
        """Context that holds a share of the budget; it waits until the share is free."""
        share = min(pixels, self._most)
        # Small images wait behind a large one, which they could keep waiting forever otherwise.
        with self._turn, self._changed:
            self._changed.wait_for(lambda: self._free >= share)
            self._free -= share
        try:
            yield
        finally:
            with self._changed:
                self._free += share
                self._changed.notify()


DECODING = PixelBudget(50_000_000)
"""Budget of a server: 50 megapixels in RGBA take 200 MB decoded, and 200 MB more on white."""


@contextlib.contextmanager
def evaluating(model: object) -> Iterator[None]:
    """Context in which a model is in evaluation mode; the mode of each submodule is restored."""
    from torch import nn

    parts = list(model.modules()) if isinstance(model, nn.Module) else []
    modes = [part.training for part in parts]
    try:
        if isinstance(model, nn.Module) and any(modes):
            model.eval()
        yield
    finally:
        for part, training in zip(parts, modes, strict=True):
            if part.training != training:
                part.training = training


@contextlib.contextmanager
def kept_torch_state() -> Iterator[None]:
    """Context after which torch has the threads, algorithms and random numbers of before."""
    import torch

    threads, random = torch.get_num_threads(), torch.random.get_rng_state()
    deterministic = torch.are_deterministic_algorithms_enabled()
    only_warns = torch.is_deterministic_algorithms_warn_only_enabled()
    used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = torch.cuda.get_rng_state_all() if used else None
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic, warn_only=only_warns)
        torch.random.set_rng_state(random)
        if devices is not None:
            torch.cuda.set_rng_state_all(devices)
