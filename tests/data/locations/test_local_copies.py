"""Local copies of remote files: size, damage, full disks, processes that are killed."""

from __future__ import annotations

import logging
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from preceptor.data.locations.local_copies import LocalCopies, bytes_of, copy_key, local_copies
from preceptor.data.locations.read import read_content
from preceptor.errors import InputError
from tests.commands import HANGS
from tests.fault_server import FaultServer, fault_server

COUNT = 60
FILES = {f"{at}.bin": bytes([at]) * (20_000 + at) for at in range(COUNT)}
THREADS = 8
READER = f"""
import sys
from concurrent.futures import ThreadPoolExecutor
from preceptor.data.locations.read import read_content
address, count = sys.argv[1], int(sys.argv[2])
with ThreadPoolExecutor({THREADS}) as pool:
    urls = [f"{{address}}/{{at}}.bin" for at in range(count)]
    for at, content in enumerate(pool.map(read_content, urls)):
        assert content == bytes([at]) * (20_000 + at)
        print(at, flush=True)
"""


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with fault_server(files=dict(FILES)) as found:
        yield found


def reader(server: FaultServer, **settings: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", READER, server.address, str(COUNT)],
        stdout=subprocess.PIPE,
        text=True,
        **settings,  # type: ignore[call-overload]
    )


def all_are_right(server: FaultServer) -> None:
    for name, content in FILES.items():
        assert read_content(server.url(name)) == content


def files_of(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*") if file.is_file() and file.suffix != ".lock"]


def size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in files_of(folder))


def test_a_copy_is_read_again(tmp_path: Path) -> None:
    copies, key = LocalCopies(tmp_path, 10_000), copy_key("a", 1)
    assert copies.read(key) is None
    copies.write(key, b"content")
    assert copies.read(key) == b"content"
    assert copies.read(copy_key("a", 2)) is None


@pytest.mark.parametrize("damage", ["byte", "cut", "empty", "longer"])
def test_a_damaged_copy_is_fetched_again(server: FaultServer, damage: str) -> None:
    url = server.url("5.bin")
    read_content(url)
    (copy,) = files_of(local_copies().folder)
    data = bytearray(copy.read_bytes())
    data[100] ^= damage == "byte"
    changed = {"cut": data[:-1], "empty": b"", "longer": data + b"x"}.get(damage, data)
    copy.write_bytes(changed)
    assert read_content(url) == FILES["5.bin"]
    assert server.count("GET") == 2
    assert read_content(url) == FILES["5.bin"]
    assert server.count("GET") == 2


def test_copies_that_were_not_used_for_longest_are_removed(tmp_path: Path) -> None:
    copies = LocalCopies(tmp_path, 20_000)
    keys = [copy_key("file", at) for at in range(40)]
    for at, key in enumerate(keys):
        copies.write(key, bytes(1000))
        path = tmp_path / key[:2] / key
        if path.exists():
            os.utime(path, (at, at))
        os.utime(tmp_path / keys[0][:2] / keys[0], (at + 0.5, at + 0.5))  # in use
        total = sum(file.stat().st_size for file in files_of(tmp_path))
        assert total <= 20_000 * (1 + 1 / 16) + 1016
    kept = [at for at, key in enumerate(keys) if copies.read(key)]
    assert kept[0] == 0
    assert kept[1:] == list(range(kept[1], 40))
    assert len(kept) >= 17


def test_a_clock_that_jumps_removes_nothing_that_is_needed(
    server: FaultServer, tmp_path: Path
) -> None:
    all_are_right(server)
    for at, copy in enumerate(files_of(local_copies().folder)):
        moment = 0 if at % 2 else time.time() + 10**8
        os.utime(copy, (moment, moment))
    got = server.count("GET")
    all_are_right(server)
    assert server.count("GET") == got


def test_a_size_of_zero_keeps_nothing(server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRECEPTOR_REMOTE_CACHE", "0")
    assert read_content(server.url("1.bin")) == FILES["1.bin"]
    assert not local_copies().folder.exists()


def test_sizes() -> None:
    assert [bytes_of(one) for one in ("20GB", "1 GiB", "3m", "7")] == [
        20 * 10**9,
        2**30,
        3 * 10**6,
        7,
    ]
    for wrong in ("", "-1", "GB", "1 parsec", "9" * 5000, f"{'9' * 5000} GB", "9" * 30):
        with pytest.raises(InputError, match="set a size such as 20GB") as found:
            bytes_of(wrong)
        assert len(str(found.value)) < 600


def test_a_full_disk_is_noted_once_and_costs_no_image(
    server: FaultServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Files of a process may have no more than 100 bytes, as on a disk without space."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
        all_are_right(server)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert files_of(local_copies().folder) == []
    notes = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(notes) == 1
    assert "copies of remote files cannot be kept (File too large)" in notes[0].getMessage()


def test_a_folder_without_write_access_costs_no_image(
    server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("PRECEPTOR_CACHE", str(tmp_path / "file"))
    all_are_right(server)


def test_processes_that_are_killed_leave_nothing_wrong(server: FaultServer) -> None:
    server.latency = 0.005
    for number in range(3):
        process = reader(server)
        assert process.stdout is not None
        for _ in range(8 + 9 * number):
            assert process.stdout.readline()
        process.kill()
        process.wait()
        process.stdout.close()
    assert len(files_of(local_copies().folder)) >= 26
    all_are_right(server)


def test_two_processes_fill_one_folder(server: FaultServer) -> None:
    small = {"PRECEPTOR_REMOTE_CACHE": "300KB"}  # both remove what the other one writes
    processes = [reader(server, env=os.environ | small) for _ in range(2)]
    for process in processes:
        said, _ = process.communicate(timeout=HANGS)
        assert process.returncode == 0
        assert said.split() == [str(at) for at in range(COUNT)]
    # Each of their threads may have made room for a file that it had not written yet.
    folder = local_copies().folder
    assert size_of(folder) <= 300_000 * (1 + 2 / 16) + 2 * THREADS * 21_000
    LocalCopies(folder, 300_000).write(copy_key("one more"), bytes(20_000))
    assert size_of(folder) <= 300_000
    all_are_right(server)
