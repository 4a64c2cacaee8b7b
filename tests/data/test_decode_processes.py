"""Decoding by processes: the results of threads, and no process that outlives its user."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from preceptor.config.settings import ImageFormat
from preceptor.data import file_reading, shards
from preceptor.data.decode_pass import DecodePass
from preceptor.data.decode_processes import DecodeProcesses
from preceptor.data.file_parts import FilePart, PartRead
from preceptor.data.file_table import Decoded
from preceptor.data.manifest import Manifest
from preceptor.data.workspace import Workspace
from preceptor.errors import RunFailedError
from tests.commands import HANGS
from tests.data.cached_images import hidden, images_in, shards_of
from tests.datasets import squares

FORMATS = (ImageFormat(24), ImageFormat(16, "letterbox"), ImageFormat(16, channels=1))

PROGRAM = """
import sys
from pathlib import Path
from typing import Any
from preceptor.config.settings import ImageFormat
from preceptor.data import file_reading
from preceptor.data.decode_pass import DecodePass
from preceptor.data.manifest import Manifest
file_reading._MANY = file_reading._FILLING_THREADS = 1
table = Manifest.read(sys.argv[1], verify=False).table
with DecodePass(Path(sys.argv[2]), [ImageFormat(24)], workers=2) as decoding:
    decoding.decode(table["path"].tolist(), [""] * len(table), progress={progress})
print("done")
"""


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return Manifest.read(
        squares(tmp_path / "data", splits={"train": 20, "val": 4, "test": 4}), verify=False
    )


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> list[DecodeProcesses]:
    """Processes decode however few files there are; those that were started."""
    monkeypatch.setattr(file_reading, "_MANY", 1)
    monkeypatch.setattr(file_reading, "_FILLING_THREADS", 1)
    started: list[DecodeProcesses] = []

    class Kept(DecodeProcesses):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            started.append(self)

    monkeypatch.setattr(file_reading, "DecodeProcesses", Kept)
    return started


def decoded(manifest: Manifest, caches: Path | None, workers: int) -> Decoded:
    table = manifest.table
    formats = FORMATS if caches is not None else ()
    with DecodePass(caches, formats, workers) as decoding:
        return decoding.decode(table["path"].tolist(), table["saliency"].tolist())


def test_processes_find_and_write_what_threads_do(
    tmp_path: Path,
    manifest: Manifest,
    many: list[DecodeProcesses],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shards, "_SHARD_BYTES", 5 * 24 * 24 * 3)
    both = [decoded(manifest, tmp_path / f"c{workers}", workers) for workers in (1, 2)]
    assert len(many) == 1
    assert all(process.poll() is not None for process in many[0]._all)
    for name in ("image_size", "map_size"):
        np.testing.assert_array_equal(getattr(both[0], name), getattr(both[1], name))
    assert manifest.source is not None
    rows, seen = np.arange(len(manifest)), []
    for workers in (1, 2):
        caches = tmp_path / f"c{workers}"
        space = Workspace.open(manifest.source, caches, verify=True, formats=FORMATS)
        for form in FORMATS:
            held = space.images(form, "memmap")
            seen.append((workers, held.canvases(rows).tobytes(), held.human_maps(rows).tobytes()))
        assert hidden(caches) == []
    assert [one[1:] for one in seen[:3]] == [one[1:] for one in seen[3:]]
    assert len(many) == 1  # the second pass found everything
    counts = [sum(map(images_in, shards_of(tmp_path / f"c{workers}"))) for workers in (1, 2)]
    assert counts[0] == counts[1]


def test_the_reasons_are_those_of_threads(
    tmp_path: Path, manifest: Manifest, many: list[DecodeProcesses]
) -> None:
    first, second, third = map(Path, manifest.table["path"][:3])
    first.write_bytes(first.read_bytes()[:100])
    second.write_bytes(b"")
    third.unlink()
    found = [decoded(manifest, None, workers) for workers in (1, 2)]
    assert len(many) == 1
    assert set(found[0].wrong_images) == {0, 1, 2}
    assert found[0].wrong_images == found[1].wrong_images
    np.testing.assert_array_equal(found[0].image_size, found[1].image_size)


def test_a_format_that_the_program_has_added_to_pillow_is_read(
    tmp_path: Path, manifest: Manifest, many: list[DecodeProcesses]
) -> None:
    def accept(prefix: bytes) -> bool:
        return prefix.startswith(b"REVERSED")

    def opened(file: object, name: str = "") -> Image.Image:
        return Image.new("RGB", (7, 5), (10, 20, 30))

    Path(manifest.table["path"][4]).write_bytes(b"REVERSED")
    Image.register_open("REVERSED", opened, accept)  # type: ignore[arg-type]
    Image.ID.insert(0, Image.ID.pop())
    try:
        found = decoded(manifest, tmp_path / "c", 2)
    finally:
        Image.ID.remove("REVERSED")
        del Image.OPEN["REVERSED"]
    assert len(many) == 1
    assert not found.wrong_images
    assert found.image_size[4].tolist() == [7, 5]


def test_a_killed_process_is_one_line_and_the_next_pass_goes_on(
    tmp_path: Path,
    manifest: Manifest,
    many: list[DecodeProcesses],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read = DecodeProcesses.read

    def killed(self: DecodeProcesses, part: FilePart) -> PartRead:
        for process in self._all:
            process.send_signal(signal.SIGKILL)
            process.wait()
        return read(self, part)

    monkeypatch.setattr(DecodeProcesses, "read", killed)
    with pytest.raises(RunFailedError, match=r"a decoding process has ended \(exit code -9\)"):
        decoded(manifest, tmp_path / "c", 2)
    assert hidden(tmp_path / "c") == []
    monkeypatch.setattr(DecodeProcesses, "read", read)
    found = decoded(manifest, tmp_path / "c", 2)
    assert not found.wrong_images
    assert (found.image_size == 32).all()


def test_an_interrupted_pass_leaves_no_process(
    tmp_path: Path, manifest: Manifest, many: list[DecodeProcesses]
) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    table = manifest.table
    with pytest.raises(KeyboardInterrupt), DecodePass(tmp_path / "c", FORMATS, 2) as decoding:
        decoding.decode(table["path"].tolist(), table["saliency"].tolist(), progress=interrupt)
    assert all(process.poll() is not None for process in many[0]._all)
    assert hidden(tmp_path / "c") == []


def program(
    tmp_path: Path, manifest: Manifest, progress: str = "None", limit: str = ""
) -> subprocess.Popen[str]:
    """Program without a guard of its main part, which a child of multiprocessing would repeat."""
    (tmp_path / "program.py").write_text(limit + PROGRAM.replace("{progress}", progress))
    # A module of the working folder must not be taken for one of the standard library.
    (tmp_path / "queue.py").write_text("raise SystemExit('imported by mistake')")
    command = [sys.executable, "-P", "program.py", str(manifest.source), "c"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=tmp_path, text=True, **pipes)  # type: ignore[call-overload,no-any-return]


def test_a_program_without_a_guard_reads_a_manifest(tmp_path: Path, manifest: Manifest) -> None:
    process = program(tmp_path, manifest)
    out, err = process.communicate(timeout=HANGS)
    assert (process.returncode, out, err) == (0, "done\n", "")
    assert sum(map(images_in, shards_of(tmp_path / "c"))) == len(manifest)


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path, manifest: Manifest) -> None:
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))\n"
    process = program(tmp_path, manifest, limit=limit)
    _, err = process.communicate(timeout=HANGS)
    assert process.returncode == 1
    assert err.endswith("File too large\n")
    assert "RunFailedError: image cache c: " in err
    assert hidden(tmp_path / "c") == []


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_processes_end_with_a_killed_program(tmp_path: Path, manifest: Manifest) -> None:
    wait = "lambda done, total: (print('reading', flush=True), __import__('time').sleep(1000))"
    process = program(tmp_path, manifest, wait)
    assert process.stdout is not None
    assert process.stdout.readline() == "reading\n"
    children = children_of(process.pid)
    assert len(children) == 2
    process.kill()
    process.wait()
    until(lambda: not any(Path("/proc", str(child)).exists() for child in children))
    process.communicate()


def children_of(parent: int) -> list[int]:
    """Processes whose parent is this one."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # ended since
            continue
        if int(fields[1]) == parent:
            found.append(int(entry.name))
    return found


def until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + HANGS
    while not done():
        assert time.monotonic() < end
        time.sleep(0.02)
