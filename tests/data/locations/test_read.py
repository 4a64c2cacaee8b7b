"""Reading of remote files from a real HTTP server with faults."""

from __future__ import annotations

import io
import logging
import math
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image

from preceptor.data.file_index import FileIndex
from preceptor.data.images import ImageError, decode_image, decode_map, image_size, read_file
from preceptor.data.locations import retries
from preceptor.data.locations.read import location_digest, read_content
from preceptor.runtime.checksums import content_hash
from tests.commands import HANGS
from tests.fault_server import FaultServer, fault_server

SECRET = "s3cr3t"


def picture(seed: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 7, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


CONTENT = picture(0)


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with fault_server(files={"a.png": CONTENT}) as found:
        yield found


def refused(server: FaultServer, name: str = "a.png") -> str:
    with pytest.raises(ImageError) as caught:
        read_file(server.url(name))
    assert "\n" not in str(caught.value)
    return caught.value.reason


def test_an_image_behind_a_url_is_decoded_like_its_file(
    server: FaultServer, tmp_path: Path
) -> None:
    url, file = server.url("a.png"), tmp_path / "a.png"
    file.write_bytes(CONTENT)
    assert (decode_image(url) == decode_image(file)).all()
    assert (decode_map(url) == decode_map(file)).all()
    assert image_size(url) == image_size(file)
    assert location_digest(url) == location_digest(str(file))


def test_a_file_that_was_read_is_not_sent_again(server: FaultServer) -> None:
    for _ in range(3):
        assert read_content(server.url("a.png")) == CONTENT
    assert server.count("GET") == 1
    assert server.count("HEAD") == 4  # before and after the reading, and before each copy


def test_a_busy_server_is_asked_again(server: FaultServer) -> None:
    server.busy["a.png"] = 4  # two questions for the state, of two requests each
    assert read_content(server.url("a.png")) == CONTENT


def test_a_server_that_stays_busy_is_an_error_of_one_line(server: FaultServer) -> None:
    server.busy["a.png"] = 1000
    assert refused(server) == "the server answered with HTTP 503 (4 attempts)"


def test_cut_bodies_are_read_again(server: FaultServer) -> None:
    server.cut["a.png"] = 3
    assert read_content(server.url("a.png")) == CONTENT
    assert server.count("GET") == 4


def test_bodies_that_stay_cut_are_refused(server: FaultServer) -> None:
    server.cut["a.png"] = 1000
    assert "(4 attempts)" in refused(server)


def test_a_body_without_a_length_is_compared_with_the_size(server: FaultServer) -> None:
    server.unsized.add("a.png")
    reason = refused(server)
    assert reason == f"cut short after {len(CONTENT) // 2:,} of {len(CONTENT):,} bytes (4 attempts)"


def test_a_missing_file_is_asked_for_once(server: FaultServer) -> None:
    assert refused(server, "b.png") == "there is no such file"
    assert server.count("GET") + server.count("HEAD") == 2


def test_a_server_that_denies_is_asked_once(server: FaultServer) -> None:
    server.denied.add("a.png")
    assert refused(server) == "access denied (HTTP 403); set or renew the credentials"
    assert server.count("GET") + server.count("HEAD") == 2


def test_a_silent_server_is_given_up(server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRECEPTOR_REMOTE_TIMEOUT", "0.05")
    monkeypatch.setenv("PRECEPTOR_REMOTE_ATTEMPTS", "2")
    server.silent.add("a.png")
    assert refused(server) == "the server did not answer in time (2 attempts)"


def test_a_server_that_is_gone_is_not_asked_for_every_file(
    server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "_REST", math.inf)
    server.gone = True
    for _ in range(100):
        refused(server)
    # 8 with 4 attempts and then one each, of a HEAD and a GET request; after 64 failures none
    assert server.count("HEAD") == 8 * 4 + 56
    assert "does not answer; 64 requests in a row have failed" in refused(server)


def test_a_file_that_changes_while_it_is_read_is_read_again(server: FaultServer) -> None:
    new = picture(1) + bytes(len(CONTENT))  # longer, so that the mixture has the old size
    server.changing["a.png"] = [new[: len(CONTENT)]]
    assert read_content(server.url("a.png")) == new[: len(CONTENT)]
    assert server.count("GET") == 2


def test_a_file_that_keeps_changing_is_refused(server: FaultServer) -> None:
    server.changing["a.png"] = [bytes([seed]) * len(CONTENT) for seed in range(20)]
    assert refused(server).startswith("it changes while it is read")


def test_a_changed_file_is_noticed_by_the_index(server: FaultServer, tmp_path: Path) -> None:
    index, urls = FileIndex(tmp_path / "index"), [server.url("a.png")]
    files = index.look_up(urls)
    files.digest[0] = np.frombuffer(content_hash(CONTENT), np.uint8)
    files.known[0] = True
    index.remember(files, np.array([True]))
    assert index.look_up(urls).digest[0].tobytes() == content_hash(CONTENT)
    server.files["a.png"] = CONTENT[:-1] + b"x"
    assert not index.look_up(urls).known[0]


def test_without_etag_and_date_a_file_is_read_again(server: FaultServer, tmp_path: Path) -> None:
    server.plain.add("a.png")
    for _ in range(2):
        assert read_content(server.url("a.png")) == CONTENT
    assert server.count("GET") == 2
    index, urls = FileIndex(tmp_path / "index"), [server.url("a.png")]
    files = index.look_up(urls)
    files.digest[0] = np.frombuffer(content_hash(CONTENT), np.uint8)
    files.known[0] = True
    index.remember(files, np.array([True]))
    assert not index.look_up(urls).known[0]


def test_credentials_are_sent_and_in_no_message(
    server: FaultServer, caplog: pytest.LogCaptureFixture
) -> None:
    address = server.address.replace("http://", f"http://me:{SECRET}@")
    with caplog.at_level(logging.DEBUG, logger="preceptor"):
        assert read_content(f"{address}/a.png?signature={SECRET}") == CONTENT
        server.files["a.png"] = CONTENT + b"x"
        server.busy["a.png"] = 1000
        for name in ("a.png", "b.png"):
            with pytest.raises(ImageError) as caught:
                read_file(f"{address}/{name}?signature={SECRET}&x=1")
            assert SECRET not in f"{caught.value} {caught.value.reason}"
            assert name in str(caught.value)
    assert SECRET not in caplog.text
    assert any(header.startswith("Basic ") for _, _, header in server.requests)


def test_many_threads_read_at_once(server: FaultServer) -> None:
    server.files |= {f"{at}.png": picture(at) for at in range(60)}
    server.busy.update({f"{at}.png": 1 for at in range(0, 60, 7)})
    server.cut.update({f"{at}.png": 1 for at in range(0, 60, 5)})
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(read_content, [server.url(f"{at}.png") for at in range(60)]))
    assert found == [picture(at) for at in range(60)]


def test_other_file_systems_of_fsspec_are_read() -> None:
    system = fsspec.filesystem("memory")
    system.pipe("/preceptor/a.png", CONTENT)
    assert read_content("memory://preceptor/a.png") == CONTENT
    assert read_content("memory://preceptor/a.png") == CONTENT
    with pytest.raises(FileNotFoundError):
        read_content("memory://preceptor/b.png")


def test_an_unknown_scheme_is_refused() -> None:
    with pytest.raises(ImageError, match="nope:// is no known file system"):
        read_file("nope://host/a.png")


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(ImageError, match=r"it is no valid URL \(Invalid IPv6 URL\)"):
        read_file("http://[::1/a.png")


def test_credentials_in_the_place_of_a_bucket_are_in_no_message() -> None:
    pytest.importorskip("s3fs", reason="of the extra `remote`")
    with pytest.raises(ImageError) as caught:  # refused before any request is sent
        read_file("s3://key:sec%2Fret@bucket/a.png")
    assert "Invalid bucket name" in caught.value.reason
    assert not any(part in str(caught.value) for part in ("key", "sec", "ret"))


@pytest.mark.parametrize("missing", ["fsspec", "aiohttp"])
def test_without_the_extra_it_is_named(missing: str, server: FaultServer) -> None:
    program = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from preceptor.data.images import read_file\n"
        f"read_file({server.url('a.png')!r})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert "pip install '.[remote]' in the source folder" in done.stderr.splitlines()[-1]


def test_credentials_that_are_missing_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("s3fs", reason="of the extra `remote`")
    for name in [one for one in os.environ if one.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", "/nonexistent")
    with pytest.raises(ImageError) as caught:
        read_file("s3://preceptor-nowhere/a.png")
    assert caught.value.reason.startswith("no valid credentials were found")


@pytest.mark.parametrize(
    ("name", "value"), [("PRECEPTOR_REMOTE_ATTEMPTS", "0"), ("PRECEPTOR_REMOTE_CACHE", "much")]
)
def test_settings_that_are_none_are_refused(
    server: FaultServer, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(Exception, match=f"{name} is '{value}'; set a"):
        read_content(server.url("a.png"))


def test_a_forked_process_reads_what_its_parent_reads(server: FaultServer) -> None:
    """Workers of a study are forked; the connections of a parent are not theirs."""
    server.files["b.png"] = picture(1)
    assert read_content(server.url("a.png")) == CONTENT
    process = multiprocessing.get_context("fork").Process(
        target=assert_content, args=(server.url("b.png"), picture(1))
    )
    process.start()
    process.join(HANGS)
    assert process.exitcode == 0
    assert read_content(server.url("b.png")) == picture(1)


def assert_content(url: str, content: bytes) -> None:
    assert read_content(url) == content
