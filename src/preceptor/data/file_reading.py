"""Reading of the files of a table by threads or processes, and what is found of them."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from preceptor.data.cache_fill import CacheFill
from preceptor.data.decode_processes import DecodeProcesses
from preceptor.data.file_index import FileIndex, KnownFiles
from preceptor.data.file_parts import FilePart, PartRead, read_part
from preceptor.data.file_table import FileTable, WrongFiles
from preceptor.data.locations.read import reading_threads
from preceptor.runtime.progress import Progress
from preceptor.runtime.progress import progress as progress_bar

# Files of a task: submitting one costs as much as decoding a small image, and a kilobyte of memory.
_PART = 32
# Files of a task of a process at most, if no cache is filled; otherwise it fills one shard.
_PROCESS_PART = 1024
# Files from which on processes decode: the start of a process takes as long as some thousand small
# images.
_MANY = 10_000
# Number of threads up to which threads fill a cache of many files: two are faster than two
# processes, as most of the time is that of resizing and writing (benchmarks/RESULTS.md).
_FILLING_THREADS = 2
# Seconds after which the properties of the files that were read are stored: what a killed process
# has decoded for longer is not decoded again.
_STORED_AFTER = 30.0


@dataclass(frozen=True)
class FileReading:
    """Reading and decoding of files.

    Args:
        table: Files.
        files: What is known of them, which is filled in.
        index: Index, which stores it.
        fill: Cache into which it is written; None = decode only.
        workers: Number of threads that decode, or of processes if there are many files.
    """

    table: FileTable
    files: KnownFiles
    index: FileIndex
    fill: CacheFill | None
    workers: int

    def run(self, which: NDArray[np.int64], progress: Progress | None) -> WrongFiles:
        """Read the files at these positions; returns the problems."""
        self.files.known[which] = False
        self.files.as_image[which] = self.files.as_map[which] = False
        wrong = WrongFiles()
        # Many threads wait for the network; a few of them decode, which takes cores and memory.
        threads = reading_threads([self.table.paths[at] for at in which.tolist()], self.workers)
        title, done, stored, when = f"reading {len(which):,} images", 0, 0, time.monotonic()
        processes = self._processes(len(which), threads)
        with contextlib.ExitStack() as stack:
            if processes is not None:
                stack.callback(processes.close)
            read, size = self._reader(len(which), threads, processes)
            parts = np.array_split(which, -(-len(which) // size))
            pool = stack.enter_context(ThreadPoolExecutor(threads))
            shown = stack.enter_context(_shown(progress, title))
            try:
                for part, found in zip(parts, pool.map(read, parts), strict=True):
                    self._note(part, found, wrong)
                    done += len(part)
                    shown(done, len(which))
                    if time.monotonic() - when >= _STORED_AFTER:
                        self._store(which[stored:done])
                        stored, when = done, time.monotonic()
            except BaseException:
                if processes is not None:
                    processes.stop()  # the threads do not wait for them
                pool.shutdown(cancel_futures=True)
                raise
            finally:
                self._store(which[stored:done])
        return wrong

    def _processes(self, count: int, threads: int) -> DecodeProcesses | None:
        """Processes that decode; None where threads do: few files, few cores, or remote locations.

        If processes cannot be started, for instance for want of memory, threads decode, too.
        """
        few = 1 if self.fill is None else _FILLING_THREADS
        if count < _MANY or self.workers <= few or threads > self.workers:
            return None
        target = None if self.fill is None else self.fill.target
        maps = target is not None and bool(self.table.is_map.any())
        with contextlib.suppress(OSError):
            return DecodeProcesses(self.workers, target, maps=maps)
        return None

    def _reader(
        self, count: int, threads: int, processes: DecodeProcesses | None
    ) -> tuple[Callable[[NDArray[np.int64]], PartRead], int]:
        """Function that reads a part, called by all threads, and the number of files of a part."""
        writers = None if self.fill is None else self.fill.writers
        if processes is not None:

            def by_process(part: NDArray[np.int64]) -> PartRead:
                found = processes.read(self._part(part))
                # This process decides: its program may have added formats to Pillow.
                wrong = sorted({*found.wrong_images, *found.wrong_maps})
                if wrong:
                    found.replace(wrong, read_part(self._part(part[wrong]), writers))
                return found

            return by_process, self._process_part(count)
        several = threads > self.workers
        decoding = threading.Semaphore(self.workers) if several else contextlib.nullcontext()

        def by_thread(part: NDArray[np.int64]) -> PartRead:
            return read_part(self._part(part), writers, decoding)

        return by_thread, min(_PART, max(1, count // (8 * threads)))

    def _process_part(self, count: int) -> int:
        """Number of files of a part for processes: few enough that all have work until the end."""
        most = _PROCESS_PART
        if self.fill is not None:
            most = min(folder.most for folder in self.fill.target.folders)
        return min(most, max(1, count // (4 * self.workers)))

    def _part(self, which: NDArray[np.int64]) -> FilePart:
        paths = [self.table.paths[at] for at in which.tolist()]
        return FilePart(paths, self.table.is_image[which], self.table.is_map[which])

    def _note(self, part: NDArray[np.int64], found: PartRead, wrong: WrongFiles) -> None:
        """Fill in what was found of the files of a part."""
        files = self.files
        files.known[part], files.digest[part] = found.known, found.digest
        files.size[part] = found.size
        files.as_image[part], files.as_map[part] = found.as_image, found.as_map
        wrong.images |= {int(part[at]): why for at, why in found.wrong_images.items()}
        wrong.maps |= {int(part[at]): why for at, why in found.wrong_maps.items()}

    def _store(self, which: NDArray[np.int64]) -> None:
        """Store what is known of files that were read."""
        read = np.zeros(len(self.table.paths), bool)
        read[which] = True
        self.index.remember(self.files, read & self.files.known)


@contextlib.contextmanager
def _shown(progress: Progress | None, title: str) -> Iterator[Progress]:
    """Progress function: that of the caller, or a progress bar."""
    if progress is not None:
        yield progress
        return
    with progress_bar() as bar:
        task = bar.add_task(title, total=None, note="")
        yield lambda done, total: bar.update(task, completed=done, total=total)
