"""`preceptor label` as a process: its start and end, bad input, a full disk, a kill."""

from __future__ import annotations

import os
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.commands import APART, HANGS, apart, assert_refused, flags, here
from tests.datasets import squares
from tests.label.serving import blob, command

SIZE = (40, 30)


def test_the_command_serves_until_it_is_interrupted(manifest: Path) -> None:
    with command(manifest, "--name", "Ann, of the museum") as one:
        assert "manifest.label.sqlite" in one.said
        assert "images: 12" in one.said
        ann = one.client()
        assert ann.get("/api/state").json["person"]["name"] == "Ann, of the museum"
        image = ann.queue()[0]
        assert ann.stroke(image, blob(*SIZE)).status == 200
        # A second server is refused, an export is not.
        again = apart("label", manifest, "--no-open")
        assert_refused(again, ["another preceptor label serves this database"])
        code, out = one.interrupt()
        assert code == 0, out
        assert "stopped; all that was saved is in" in out
        assert "Traceback" not in out
    with command(manifest) as one:
        assert "images:" not in one.said
        assert len(one.client("ann, of the museum").image(image)["strokes"]) == 1
        one.process.send_signal(signal.SIGTERM)
        assert one.process.wait(HANGS) == 0


BROWSER = f"""#!{sys.executable}
import sys, urllib.request
from http.cookiejar import CookieJar
cookies = urllib.request.HTTPCookieProcessor(CookieJar())
page = urllib.request.build_opener(cookies).open(sys.argv[1], timeout={HANGS}).read()
print("read:", b"<title>preceptor label" in page, flush=True)
sys.stdin.read()
"""
"""Browser in a terminal: it waits for the page, and runs until it is closed."""


def test_the_page_is_served_while_a_browser_runs_in_the_terminal(manifest: Path) -> None:
    browser = manifest.with_name("browser")
    browser.write_text(BROWSER)
    browser.chmod(0o755)
    terminal, kept_open = os.pipe()
    try:
        with command(manifest, browser=browser, before=lambda: os.dup2(terminal, 0)) as one:
            assert one.process.stdout is not None
            assert one.process.stdout.readline() == "read: True\n"
            one.process.send_signal(signal.SIGINT)
            assert one.process.wait(HANGS) == 0
    finally:
        os.close(kept_open)
        os.close(terminal)


def test_no_torch_is_imported(manifest: Path) -> None:
    code = (
        "import sys\n"
        "from preceptor.label import app\n"
        "assert 'torch' not in sys.modules\n"
        "import preceptor.cli.main\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=HANGS)


def test_a_manifest_that_has_changed(manifest: Path) -> None:
    table = pd.read_csv(manifest, keep_default_na=False)
    with command(manifest) as one:
        ann = one.client("ann")
        first, second = ann.queue()[:2]
        ann.stroke(first, blob(*SIZE))
        names = {image: ann.image(image)["name"] for image in (first, second)}
        # While the page is open nothing changes, and nothing breaks.
        rest = table[~table["path"].str.endswith(names[first])].copy()
        rest.loc[rest["path"].str.endswith(names[second]), "label"] = "new"
        Image.new("RGB", SIZE).save(manifest.parent / "added.png")
        rest.loc[len(table)] = {**rest.iloc[0], "path": "added.png", "saliency": ""}
        rest.to_csv(manifest, index=False)
        assert ann.stroke(first, blob(*SIZE, 1)).status == 200
        assert one.interrupt()[0] == 0
    with command(manifest) as one:
        said = "1 added, 1 no longer there, hidden, 1 with another label"
        assert f"manifest.csv has changed: {said}" in one.said
        ann = one.client("ann")
        assert first not in ann.queue()
        assert len(ann.queue()) == 12
        assert len(ann.image(first)["strokes"]) == 2
        assert ann.image(second)["label"] == "new"
        assert "new" in ann.get("/api/state").json["labels"]


def test_damaged_and_missing_images_are_passed_over_and_listed(manifest: Path) -> None:
    images = sorted((manifest.parent / "images").iterdir())
    images[0].unlink()
    images[1].write_bytes(b"no image")
    content = images[2].read_bytes()
    images[2].write_bytes(content[: len(content) // 2])  # its header is sound
    with command(manifest) as one:
        ann = one.client("ann")
        queue = ann.queue()
        assert len(queue) == 10
        statuses = {image: ann.get(f"/api/images/{image}/whole") for image in queue}
        (damaged,) = [image for image, told in statuses.items() if told.status != 200]
        assert statuses[damaged].status == 422
        assert "truncated" in statuses[damaged].error
        assert ann.image(damaged)["problem"] == statuses[damaged].error
        assert len(ann.queue()) == 9
        problems = ann.get("/api/lead").json["problems"]
        assert {one["name"] for one in problems} == {image.name for image in images[:3]}
        # Deleted while the page is open.
        shown = ann.queue()[0]
        (manifest.parent / "images" / ann.image(shown)["name"]).unlink()
        assert ann.get(f"/api/images/{shown}/whole").status == 422
        assert ann.stroke(shown, blob(*SIZE)).status == 200  # nothing drawn is lost
    status = here("label", "status", manifest.with_name("manifest.label.sqlite"))
    assert status.code == 0
    assert images[0].name in status.out


def test_images_that_are_mended_come_back(manifest: Path) -> None:
    image = min((manifest.parent / "images").iterdir())
    content = image.read_bytes()
    image.write_bytes(b"")
    for expected in (11, 12):
        with command(manifest) as one:
            assert len(one.client("ann").queue()) == expected
            assert one.interrupt()[0] == 0
        image.write_bytes(content)


def noise(seed: int) -> np.ndarray:
    """Pixels whose runs are long: a stroke of many bytes."""
    return np.random.default_rng(seed).random((200, 200)) < 0.5


def draw_until_full(one: object, image: int, most: int) -> tuple[int, int]:
    """Draw strokes until one is refused: their number, and the status of the refusal."""
    ann = one.client("ann")  # type: ignore[attr-defined]
    for at in range(most):
        told = ann.stroke(image, noise(at))
        if told.status != 200:
            assert "disk is full" in told.error
            return at, told.status
    raise AssertionError("the disk never was full")


def whole_strokes(database: Path) -> int:
    connection = sqlite3.connect(database)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        return int(connection.execute("SELECT count(*) FROM strokes").fetchone()[0])
    finally:
        connection.close()


@pytest.fixture
def large(tmp_path: Path) -> Path:
    return squares(tmp_path / "data", splits={"train": 2}, size=(200, 200))


def test_a_file_that_cannot_grow_is_told_and_nothing_is_half_written(large: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))

    with command(large, before=limit) as one:
        saved, status = draw_until_full(one, 1, 400)
        assert status == 507
        assert saved > 5
        ann = one.client("ann")
        assert len(ann.image(1)["strokes"]) == saved
        one.kill()
    assert whole_strokes(large.with_name("manifest.label.sqlite")) == saved
    with command(large) as one:  # there is room again
        assert one.client("ann").stroke(1, noise(0)).status == 200


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="mounting needs root")
def test_a_disk_that_is_full(large: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", disk], check=False
    ).returncode:
        pytest.skip("a small file system cannot be mounted here")
    try:
        database = disk / "a.sqlite"
        with command(large, "--database", database) as one:
            saved, status = draw_until_full(one, 1, 400)
            assert status == 507
            (disk / "filler").write_bytes(b"")
            ann = one.client("ann")
            assert len(ann.image(1)["strokes"]) == saved
            assert ann.answer(1).status in (200, 507)
            subprocess.run(["mount", "-o", "remount,size=8m", disk], check=True)
            assert ann.stroke(1, noise(1)).status == 200
            one.kill()
        assert whole_strokes(database) == saved + 1
    finally:
        subprocess.run(["umount", disk], check=True)


def test_wrong_options_are_refused(manifest: Path, tmp_path: Path) -> None:
    (tmp_path / "short").write_text("short")
    (tmp_path / "long").write_text("a long password\n")
    (tmp_path / "empty").mkdir()
    bad = manifest.with_name("bad.csv")
    bad.write_text("path,label\na.png,\n")
    cases: list[tuple[list[object], str]] = [
        ([manifest, "--host", "0.0.0.0"], "--password-file or --links"),
        ([manifest, "--host", "203.0.113.7", "--links", "ann"], "--host 203.0.113.7"),
        ([manifest, "--password-file", tmp_path / "short"], "8 or more characters"),
        ([manifest, "--password-file", tmp_path / "long", "--links", "a"], "choose one"),
        ([manifest, "--classes", "a,,b"], "1 to 60 characters"),
        ([manifest, "--teacher-config", tmp_path / "a.yaml"], "settings of --teacher auto"),
        ([manifest, "--name", "a" * 61], "1 to 60 characters"),
        ([manifest, "--links", "ann,Ann"], "twice"),
        ([manifest, "--database", tmp_path / "gone" / "a.sqlite"], "there is no folder"),
        ([tmp_path / "gone.csv"], "no such manifest or folder"),
        ([tmp_path / "empty"], "no image"),
    ]
    for arguments, text in cases:
        assert_refused(here("label", *arguments, "--no-open"), [text])
    assert_refused(here("label", bad, "--no-open"), ["label"], problems=1)
    assert not list(tmp_path.rglob("bad.label.sqlite"))
    database = manifest.with_name("manifest.label.sqlite")
    database.unlink(missing_ok=True)
    database.write_bytes(b"text" * 99)
    assert_refused(here("label", manifest, "--no-open"), ["no SQLite database"])
    for use in (["status", manifest], ["export", manifest, "--to", tmp_path / "to"]):
        assert_refused(here("label", *use), ["name the database of preceptor label"])


def test_a_share_of_the_overlap_needs_an_overlap(manifest: Path) -> None:
    for arguments in ((), ("--overlap", 1)):
        told = here("label", manifest, "--no-open", *arguments, "--overlap-share", 0.2)
        assert_refused(told, ["--overlap-share", "add --overlap 2"])
        assert not manifest.with_name("manifest.label.sqlite").exists()
    with command(manifest, "--overlap", 2):
        pass
    with command(manifest, "--overlap-share", 0.2):  # that of the overlap of before
        pass
    stored = sqlite3.connect(manifest.with_name("manifest.label.sqlite"))
    rows = stored.execute("SELECT key, value FROM settings WHERE key LIKE 'overlap%'").fetchall()
    assert dict(rows) == {"overlap": "2", "overlap_share": "0.2"}
    stored.close()


def test_a_source_that_is_refused_leaves_no_file(manifest: Path, tmp_path: Path) -> None:
    """Not even the lock of a server."""
    empty, bad = tmp_path / "empty", manifest.with_name("bad.csv")
    empty.mkdir()
    bad.write_text("path,label\na.png,\n")
    absent = manifest.with_name("absent.csv")
    absent.write_text("path,label\ngone/a.png,real\ngone/b.png,fake\n")
    before = sorted(tmp_path.rglob("*"))
    cases: list[tuple[list[object], str]] = [
        ([empty], "no image"),
        ([empty, "--database", tmp_path / "own.sqlite"], "no image"),
        ([bad], "label is empty"),
        (
            [absent],
            f"none of its 2 images exists; the first one is 'gone/a.png'; correct the paths, "
            f"which start from {absent.parent}",
        ),
    ]
    for arguments, text in cases:
        done = here("label", *arguments, "--no-open")
        assert (done.code, done.out) == (2, "")
        assert text in done.err
        assert sorted(tmp_path.rglob("*")) == before


def test_a_port_that_is_taken(manifest: Path) -> None:
    with command(manifest) as one:
        port = one.address.split(":")[1]
        other = manifest.with_name("other.sqlite")
        told = here("label", manifest, "--no-open", *flags(port=port, database=other))
    assert_refused(told, [f"--port {port}", "in use"])


def test_files_whose_names_cannot_be_stored_are_counted(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    Image.new("RGB", SIZE).save(folder / "a.png")
    odd = os.path.join(os.fsencode(folder), b"caf\xe9.png")  # noqa: PTH118
    try:
        Path(os.fsdecode(odd)).write_bytes((folder / "a.png").read_bytes())
    except OSError:
        pytest.skip("the file system has names in UTF-8 only")
    with command(folder) as one:
        assert "images: 1\n" in one.said
        assert "left out, rename them (1)" in one.said
    (folder / "a.png").unlink()
    told = here("label", folder, "--no-open", "--database", tmp_path / "other.sqlite")
    assert_refused(told, ["the names of its 1 images are not UTF-8"])


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="mounting needs root")
def test_a_database_in_a_folder_that_cannot_be_written(manifest: Path, tmp_path: Path) -> None:
    """It is exported and told of; with changes beside it, what to do is said."""
    database = manifest.with_name("manifest.label.sqlite")
    with command(manifest) as one:
        ann = one.client("ann")
        image = ann.queue()[0]
        assert ann.stroke(image, blob(*SIZE)).status == 200
        assert ann.answer(image).status == 200
        assert one.interrupt()[0] == 0
    folder = manifest.parent

    def tell() -> tuple[int, str]:
        mounted = ["mount", "--bind", "-o", "ro", folder, folder]
        if subprocess.run(mounted, check=False).returncode:
            pytest.skip("a folder cannot be mounted read-only here")
        try:
            status = here("label", "status", database)
            told = here("label", "export", database, "--to", tmp_path / "out")
            assert status.code == told.code, (status, told)
            return told.code, told.out + told.err
        finally:
            subprocess.run(["umount", folder], check=True)

    code, said = tell()
    assert code == 0, said
    assert "annotated" in said
    with command(manifest) as one:
        assert one.client("ann").stroke(image, blob(*SIZE, 1)).status == 200
        one.kill()
    database.with_name(f"{database.name}-shm").unlink()  # as in a copy
    code, said = tell()
    assert code == 2, said
    assert "manifest.label.sqlite-wal beside it has changes" in said
    assert "copy both to another folder" in said


def test_the_port_is_that_of_the_last_start(manifest: Path) -> None:
    with command(manifest) as one:
        first = one.address
    with command(manifest) as one:
        assert one.address == first
    with command(manifest, "--port", 0) as one:
        second = one.address
    assert second != first
    host, _, port = second.rpartition(":")
    with socket.create_server((host, int(port))), command(manifest) as one:
        assert one.address != second
        assert f"note: port {port} of the last start is taken" in one.said
    with command(manifest) as one:
        assert one.address == second
        assert "note:" not in one.said


def test_without_the_extra_it_is_named(manifest: Path) -> None:
    start = APART[2].replace("import signal;", "import signal, sys; sys.modules['uvicorn'] = None;")
    done = subprocess.run(
        [sys.executable, "-c", start, "label", str(manifest), "--no-open"],
        capture_output=True,
        text=True,
        timeout=HANGS,
        check=False,
    )
    assert done.returncode == 2
    assert "pip install '.[web]' in the source folder" in done.stderr
    assert "Traceback" not in done.stderr


def test_malformed_requests_are_not_printed(manifest: Path) -> None:
    upgrade = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    with command(manifest) as one:
        host, port = one.address.split(":")
        for request in (b"\x00\xff no request\r\n\r\n", upgrade):
            with socket.create_connection((host, int(port)), timeout=HANGS) as connection:
                connection.sendall(request)
                assert connection.recv(100).startswith(b"HTTP/1.1 4")
        code, out = one.interrupt()
        assert code == 0
        assert out.startswith("stopped; ")
