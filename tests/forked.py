"""Processes that share the imports of the tests: a server that has imported all forks them.

The workers of pytest-xdist are such processes too.

A process that starts Python and imports torch, timm and the rest takes four seconds before it does
anything. These are processes like any other, of which the caller is the parent: they have their own
environment and streams, they can be killed, and they end with an exit code. A test whose subject is
the start itself, or what is imported, starts Python anew (`tests/commands.py`).

The server is forked from pytest after the collection and before the first test: it has what the
collected files import, and nothing that a test changes.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import faulthandler
import functools
import importlib
import logging
import multiprocessing
import multiprocessing.util
import os
import pickle
import runpy
import signal
import socket
import struct
import subprocess
import sys
import threading
import traceback
import types
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

from tests.held_output import wait_after

# A process with several threads is not forked: neither OpenBLAS nor Arrow's allocator starts one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("JE_ARROW_MALLOC_CONF", "background_thread:false")

# What a server imports: commands, workers, trainings.
MODULES = (
    "preceptor.cli.main",
    "preceptor.cli.output",
    "preceptor.driver",
    "preceptor.training.run",
    "tests.studies",
)
_collected: list[str] = []  # modules that pytest imports; a failure is told when it does
_LENGTH = struct.Struct("<q")
_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER


def _fork_instead(path: str, arguments: list[str | bytes], handles: list[int]) -> int:
    """Fork a process where `multiprocessing` starts Python anew, which would import torch again."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        _drop_files({0, 1, 2, *handles})
        at = arguments.index("-c")
        sys.argv = ["-c", *map(os.fsdecode, arguments[at + 2 :])]
        exec(arguments[at + 1], {})
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 0
    except BaseException:
        traceback.print_exc()
    with contextlib.suppress(OSError, ValueError):  # the resource tracker has closed it
        sys.stdout.flush()
    os._exit(code)


def forking() -> contextlib.AbstractContextManager[Any]:
    """Context in which the fork server of this process is forked from it."""
    return mock.patch("multiprocessing.util.spawnv_passfds", _fork_instead)


def command() -> None:
    """The `preceptor` command; the processes that it starts are forked from it."""
    from preceptor.cli.main import main

    with forking():
        main()


def watched_command() -> None:
    """The `preceptor` command after some lines of Python, which its processes inherit."""
    exec(Path(sys.argv.pop(1)).read_text(), {})
    command()


def serial_command() -> None:
    """The `preceptor` command, which does the steps of a study itself, without workers."""
    from tests.studies import without_workers

    with without_workers():
        command()


def script() -> None:
    """A file, as `python FILE` runs it: processes that this starts import it as `__main__`."""
    sys.argv = sys.argv[1:]
    sys.path.insert(0, str(Path(sys.argv[0]).parent))
    runpy.run_path(sys.argv[0], run_name="__main__")


class Forked(subprocess.Popen[str]):
    """Process that runs a function, with the interface of `subprocess.Popen`."""

    def __init__(
        self,
        function: Callable[[], None],
        arguments: Sequence[object],
        *,
        hold: tuple[str, Path] | None = None,
        **options: Any,
    ) -> None:
        self._function, self._hold = function, hold
        self._session = options.get("start_new_session", False)
        super().__init__([function.__name__, *map(str, arguments)], text=True, **options)

    def _execute_child(  # type: ignore[override]
        self,
        args: list[str],
        executable: Any,
        preexec_fn: Any,
        close_fds: Any,
        pass_fds: Any,
        cwd: Any,
        env: Any,
        startupinfo: Any,
        creationflags: Any,
        shell: Any,
        p2cread: int,
        p2cwrite: int,
        c2pread: int,
        c2pwrite: int,
        errread: int,
        errwrite: int,
        *_: Any,
    ) -> None:
        streams = [
            own if own != -1 else of for own, of in ((p2cread, 0), (c2pwrite, 1), (errwrite, 2))
        ]
        environment = dict(os.environ if env is None else env)
        folder = cwd or os.getcwd()  # noqa: PTH109
        request = (self._function, args, folder, environment, self._session, self._hold)
        try:
            self.pid = start_server().fork(pickle.dumps(request), streams)
            self._child_created = True
        finally:
            self._close_pipe_fds(  # type: ignore[attr-defined]
                p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite
            )


def xdist_worker() -> None:
    """A worker of xdist, as execnet's `python -c` begins it."""
    exec(eval(sys.stdin.readline()), {})


def fork_xdist_workers(modules: Iterable[str]) -> None:
    """Let workers of xdist be forked from a server that imports modules: each would do so anew."""
    from execnet import gateway_base, gateway_io

    _collected.extend(modules)
    start_server()

    def begin(io: Any, arguments: list[str], model: Any) -> None:
        io.popen = Forked(xdist_worker, [], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        gateway_base.Popen2IO.__init__(io, io.popen.stdin, io.popen.stdout, model)

    gateway_io.Popen2IOMaster.__init__ = begin


def run(function: Callable[[], None], arguments: Sequence[object], **options: Any) -> Any:
    """Run a function in a process until it ends; as `subprocess.run` with captured output."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    with Forked(function, arguments, **pipes) as process:
        out, err = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def own_process(test: Callable[[Path], None]) -> Callable[[Path], None]:
    """A test in a process of its own, whose worker processes need not import torch."""

    @functools.wraps(test)
    def started(tmp_path: Path) -> None:
        done = run(_call_test, [test.__module__, test.__name__, tmp_path])
        assert done.returncode == 0, done.stderr

    return started


def _call_test() -> None:
    _, module, name, folder = sys.argv
    with forking():
        getattr(sys.modules[module], name).__wrapped__(Path(folder))


class SpawnedProcess:
    """Process of `multiprocessing` that is forked by the server, where another would be spawned."""

    def __init__(self, target: Callable[..., None], args: tuple[Any, ...], daemon: bool) -> None:
        self._call = pickle.dumps((target, args)).hex()

    def start(self) -> None:
        self._process = Forked(_spawned, [os.getpid(), self._call])

    def is_alive(self) -> bool:
        return self._process.poll() is None

    @property
    def exitcode(self) -> int | None:
        return self._process.poll()

    def terminate(self) -> None:
        self._process.terminate()

    def join(self) -> None:
        self._process.wait()


@dataclass(frozen=True)
class _Parent:
    sentinel: int


def _spawned() -> None:
    parent = _Parent(os.pidfd_open(int(sys.argv[1])))
    target, args = pickle.loads(bytes.fromhex(sys.argv[2]))
    with mock.patch.object(multiprocessing, "parent_process", return_value=parent):
        target(*args)


class _Server:
    """Server of this process, which ends with it."""

    def __init__(self) -> None:
        self._requests, theirs = socket.socketpair()
        with warnings.catch_warnings():
            # Of the threads of xdist, which hold nothing that the server uses.
            warnings.simplefilter("ignore", DeprecationWarning)
            self._pid = os.fork()
        if not self._pid:
            try:
                _forget_pytest(theirs)
                _serve(theirs)
            except BaseException:
                traceback.print_exc()
            os._exit(1)
        theirs.close()
        atexit.register(self._end)

    def fork(self, request: bytes, streams: list[int]) -> int:
        """Fork a process, of which this one becomes the parent; returns its id."""
        with _adopting():
            socket.send_fds(self._requests, [_LENGTH.pack(len(request))], streams)
            self._requests.sendall(request)
            found = self._requests.recv(_LENGTH.size, socket.MSG_WAITALL)
        if len(found) < _LENGTH.size:
            raise RuntimeError("the server that forks processes of tests has ended")
        return int(_LENGTH.unpack(found)[0])

    def _end(self) -> None:
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)


@cache
def start_server() -> _Server:
    """The server of this process: the first call, before any test, forks it."""
    return _Server()


def _forget_pytest(requests: socket.socket) -> None:
    """Drop what this process has of pytest: its files, its streams, and what it does at an exit."""
    faulthandler.disable()
    _drop_files({0, 1, 2, requests.fileno()})
    atexit._clear()
    weakref.finalize._registry.clear()  # type: ignore[attr-defined]
    for function in (
        logging.shutdown,
        weakref.finalize._exitfunc,  # type: ignore[attr-defined]
        multiprocessing.util._exit_function,
    ):
        atexit.register(function)
    logging.getLogger().handlers.clear()
    sys.excepthook, sys.unraisablehook = sys.__excepthook__, sys.__unraisablehook__
    threading.excepthook = threading.__excepthook__
    sys.modules["__main__"] = types.ModuleType("__main__")
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", 1, closefd=False)  # noqa: SIM115


def _drop_files(kept: set[int]) -> None:
    """Put /dev/null in the place of open files; their objects, once freed, close these numbers."""
    null = os.open(os.devnull, os.O_RDWR)
    for handle in {int(entry.name) for entry in Path("/proc/self/fd").iterdir()} - kept:
        with contextlib.suppress(OSError):  # the folder's own
            os.fstat(handle)
            os.dup2(null, handle, inheritable=False)


@contextlib.contextmanager
def _adopting() -> Iterator[None]:
    """Context in which this process becomes the parent of orphans among its descendants."""
    library = ctypes.CDLL(None)
    library.prctl(_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        library.prctl(_SUBREAPER, 0, 0, 0, 0)


def _serve(requests: socket.socket) -> None:
    """Fork a process for each request, until the tests end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        head, streams, _, _ = socket.recv_fds(requests, _LENGTH.size, 3)
        if len(head) < _LENGTH.size:
            os._exit(0)
        _import_all()
        request = requests.recv(_LENGTH.unpack(head)[0], socket.MSG_WAITALL)
        assert len(list(Path("/proc/self/task").iterdir())) == 1, "a thread would not be forked"
        answer, told = os.pipe()
        between = os.fork()
        if not between:
            child = os.fork()
            if child:  # its parent ends here, and the tests become its parent
                os.write(told, _LENGTH.pack(child))
                os._exit(0)
            requests.close()
            for handle in (answer, told):
                os.close(handle)
            _become(*pickle.loads(request), streams)
        os.waitpid(between, 0)
        requests.sendall(os.read(answer, _LENGTH.size))
        for handle in (answer, told, *streams):
            os.close(handle)


@cache
def _import_all() -> None:
    """Import what the collected tests have not, before the first process that needs it."""
    from preceptor.cli import main
    from preceptor.utils.process import bulk_import

    with bulk_import():
        for module in MODULES:
            importlib.import_module(module)
        for module in _collected:
            with contextlib.suppress(BaseException):  # a skip is no exception
                importlib.import_module(module)
    main.command()  # typer reads the signatures of all commands


def _become(
    function: Callable[[], None],
    arguments: list[str],
    folder: str,
    environment: dict[str, str],
    session: bool,
    hold: tuple[str, Path] | None,
    streams: list[int],
) -> None:
    """Run a function as the main program of this process, and exit as Python does."""
    if session:
        os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    buffering = 1 if environment.get("PYTHONUNBUFFERED") else -1
    sys.stdout = open(1, "w", buffering, closefd=False)  # noqa: SIM115
    if hold is not None:
        wait_after(sys.stdout, *hold)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = arguments
    code: Any = 0
    try:
        function()
    except SystemExit as stop:
        code = stop.code
        if not isinstance(code, int | None):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    os._exit(code or 0)
