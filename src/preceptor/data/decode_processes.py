"""Processes that decode files: threads of one process wait for each other where files are small.

Pillow reads the headers of a file in Python, which takes most of the time of a small one, and of
which one thread of a process does the work at a time.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import subprocess
import sys

from PIL import Image

from preceptor.data.cache_writers import CacheTarget
from preceptor.data.file_parts import FilePart, PartRead
from preceptor.errors import RunFailedError

_IMAGES, _MAPS = "preceptor.data.decode_worker", "preceptor.data.decode_map_worker"


class DecodeProcesses:
    """Processes that decode parts of files for as many threads.

    They are commands and not children of `multiprocessing`, which would import the program of the
    user again. Ctrl-C does not reach them; they end with this process, also if it is killed.

    Args:
        count: Number of processes.
        target: Cache that is filled; None = decode only.
        maps: Whether maps are written, too.

    Raises:
        OSError: They cannot be started.
    """

    def __init__(self, count: int, target: CacheTarget | None, *, maps: bool) -> None:
        self._all: list[subprocess.Popen[bytes]] = []
        self._idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        command = [sys.executable, "-P", "-m", _MAPS if maps else _IMAGES]
        places = [one for one in sys.path if one]  # the same packages, also of a program's own path
        env = os.environ | {"PYTHONPATH": os.pathsep.join(places), "OMP_NUM_THREADS": "1"}
        try:
            for _ in range(count):
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    env=env,
                    start_new_session=True,
                )
                self._all.append(process)
                self._send(process, (target, Image.MAX_IMAGE_PIXELS))
                self._idle.put(process)
        except OSError:
            self.close()
            raise

    def read(self, part: FilePart) -> PartRead:
        """What a process finds of the files of a part; called by at most `count` threads at once.

        Raises:
            OSError: The disk of the cache is full, or cannot be written.
            RunFailedError: The process has ended.
        """
        process = self._idle.get()
        try:
            self._send(process, part)
            assert process.stdout is not None
            answer = pickle.load(process.stdout)
        except (BrokenPipeError, EOFError, pickle.UnpicklingError) as error:
            code = process.poll()
            raise RunFailedError(
                f"a decoding process has ended (exit code {code}); start again, with more memory "
                "if the system has killed it"
            ) from error
        finally:
            self._idle.put(process)
        if isinstance(answer, BaseException):
            raise answer
        assert isinstance(answer, PartRead)
        return answer

    def stop(self) -> None:
        """Kill the processes; what they have not published is lost, and `read` raises an error."""
        for process in self._all:
            process.kill()
        for process in self._all:
            process.wait()

    def close(self) -> None:
        """End the processes and close their pipes, after the last call of `read`."""
        self.stop()
        for process in self._all:
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):
                    assert pipe is not None
                    pipe.close()

    @staticmethod
    def _send(process: subprocess.Popen[bytes], what: object) -> None:
        assert process.stdin is not None
        pickle.dump(what, process.stdin, pickle.HIGHEST_PROTOCOL)
        process.stdin.flush()
