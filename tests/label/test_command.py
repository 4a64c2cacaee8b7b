"""`preceptor label` as a process: its start and end, bad input, a full disk, kills."""

from __future__ import annotations

import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import webbrowser
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pandas as pd
import pytest
from PIL import Image

from preceptor.deploy import http_server
from tests.commands import APART, HANGS, apart, assert_refused, flags, here
from tests.label.crowd import kill_while_people_draw
from tests.label.serving import blob, command

SIZE = (40, 30)


def test_the_command_serves_until_it_is_interrupted(manifest: Path) -> None:
    with command(manifest) as one:
        assert "manifest.label.sqlite" in one.said
        assert "images: 12" in one.said
        ann = one.client("Ann, of the museum")
        image = ann.queue()[0]
        assert ann.stroke(image, blob(*SIZE)).status == 200
        # A second server is refused, an export is not.
        again = apart("label", manifest, "--no-open")
        assert_refused(again, ["another preceptor label serves this database"])
        # Malformed requests are not printed.
        upgrade = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        host, port = one.address.split(":")
        for request in (b"\x00\xff no request\r\n\r\n", upgrade):
            with socket.create_connection((host, int(port)), timeout=HANGS) as connection:
                connection.sendall(request)
                assert connection.recv(100).startswith(b"HTTP/1.1 4")
        code, out = one.interrupt()
        assert code == 0, out
        assert out.startswith("stopped; all that was saved is in")
    with command(manifest) as one:
        assert "images:" not in one.said
        assert len(one.client("ann, of the museum").image(image)["strokes"]) == 1
        one.process.send_signal(signal.SIGTERM)
        assert one.process.wait(HANGS) == 0


def test_the_token_is_on_no_command_line(manifest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, told = threading.Event(), list[tuple[str, int, str]]()

    def browse(place: str) -> None:
        file = Path(urlsplit(place).path)
        told.append((place, file.stat().st_mode & 0o777, file.read_text()))
        opened.set()

    monkeypatch.setattr(webbrowser, "open", browse)
    monkeypatch.setattr(http_server, "serve", lambda *_: opened.wait(HANGS))
    out = here("label", manifest).out
    link = next(line for line in out.splitlines() if line.startswith("open ")).split()[1]
    ((place, mode, text),) = told
    assert link.split("=")[1] not in place
    assert (mode, f"url={link}" in text) == (0o600, True)
    assert not Path(urlsplit(place).path).exists()


def test_no_torch_is_imported_and_the_extra_is_named(manifest: Path) -> None:
    code = (
        "import sys\n"
        "from preceptor.label import app\n"
        "import preceptor.cli.main\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=HANGS)
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


def test_damaged_and_missing_images_are_passed_over_and_come_back(manifest: Path) -> None:
    images = sorted((manifest.parent / "images").iterdir())
    content = images[2].read_bytes()
    images[0].unlink()
    images[1].write_bytes(b"no image")
    images[2].write_bytes(content[: len(content) // 2])  # its header is sound
    with command(manifest) as one:
        ann = one.client("ann")
        assert len(ann.queue()) == 10
        statuses = {image: ann.get(f"/api/images/{image}/whole") for image in ann.queue()}
        (damaged,) = [image for image, told in statuses.items() if told.status != 200]
        assert statuses[damaged].status == 422
        assert "truncated" in statuses[damaged].error
        assert ann.image(damaged)["problem"] == statuses[damaged].error
        assert len(ann.queue()) == 9
    status = here("label", "status", manifest.with_name("manifest.label.sqlite"))
    assert status.code == 0
    assert all(image.name in status.out for image in images[:3])
    for image in images[:3]:
        image.write_bytes(content)
    with command(manifest) as one:
        assert len(one.client("ann").queue()) == 12


def export(database: Path, to: Path) -> None:
    told = here("label", "export", database, "--to", to)
    assert told.code == 0, told


def test_a_killed_server_has_every_acknowledged_stroke(tmp_path: Path) -> None:
    counts = kill_while_people_draw(tmp_path, people=3, kills=2, between=2.0, export=export)
    assert counts["acknowledged"] > 0
    assert counts["kept"] == counts["exported"] == counts["acknowledged"]
    assert counts["different"] == counts["unknown"] == 0


def test_wrong_options_are_refused(manifest: Path, tmp_path: Path) -> None:
    cases: list[tuple[list[object], str]] = [
        ([manifest, "--host", "203.0.113.7"], "--host 203.0.113.7"),
        ([manifest, "--splits", "a,,b"], "1 to 60 characters"),
        ([manifest, "--labels", "a" * 61], "1 to 60 characters"),
        ([manifest, "--labels", "real,Real"], "twice"),
        ([manifest, "--database", tmp_path / "gone" / "a.sqlite"], "there is no folder"),
        ([tmp_path / "gone.csv"], "no such manifest or folder"),
    ]
    for arguments, text in cases:
        assert_refused(here("label", *arguments, "--no-open"), [text])
    database = manifest.with_name("manifest.label.sqlite")
    database.unlink(missing_ok=True)
    told = here("label", manifest, "--no-open", "--labels", "real,fake")
    assert_refused(told, ["--labels", "a manifest has labels"])
    assert not database.exists()
    for options in (("--overlap", 2), ()):
        with command(manifest, *options):
            pass
    with closing(sqlite3.connect(database)) as stored:
        rows = stored.execute("SELECT value FROM settings WHERE key = 'overlap'")
        assert rows.fetchall() == [("2",)]
    database.write_bytes(b"text" * 999)
    assert_refused(here("label", manifest, "--no-open"), ["no SQLite database"])
    for use in (["status", manifest], ["export", manifest, "--to", tmp_path / "to"]):
        assert_refused(here("label", *use), ["name the database of preceptor label"])


def test_a_source_that_is_refused_leaves_no_file(manifest: Path, tmp_path: Path) -> None:
    """Not even the lock of a server."""
    empty, bad = tmp_path / "empty", manifest.with_name("bad.csv")
    empty.mkdir()
    bad.write_text("path,label\na.png,\n")
    absent = manifest.with_name("absent.csv")
    absent.write_text("path,label\ngone/a.png,real\ngone/b.png,fake\n")
    twice, windows = (manifest.with_name(f"{name}.csv") for name in ("2", "w"))
    twice.write_text("path,label\n../imgs/a.png,x\n../imgs/./a.png,x\n")
    windows.write_text("path,label\nimages\\a.png,x\n")
    before = sorted(tmp_path.rglob("*"))
    cases: list[tuple[list[object], str]] = [
        ([empty], "no image"),
        ([twice], "row 3: image '../imgs/./a.png' is listed already in row 2"),
        ([windows], "write / instead of \\ in paths"),
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


def test_the_port_is_that_of_the_last_start(manifest: Path) -> None:
    with command(manifest) as one:
        first = one.address
        other = manifest.with_name("other.sqlite")
        port = first.split(":")[1]
        told = here("label", manifest, "--no-open", *flags(port=port, database=other))
        assert_refused(told, [f"--port {port}", "in use"])
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
