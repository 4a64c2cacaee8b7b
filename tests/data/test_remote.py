"""Images behind URLs: the bytes of local files, through faults."""

from __future__ import annotations

import builtins
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from preceptor.config.settings import ImageFormat
from preceptor.data import remote
from preceptor.data.manifest import Manifest
from preceptor.data.remote import LocationError, read_content, states_of, urls_among
from preceptor.data.workspace import Workspace
from tests.data.sound_manifest import save
from tests.datasets import squares
from tests.fault_server import FaultServer, fault_server
from tests.shards import contents_of, moved

CONTENT = bytes(range(256)) * 40
SECRET = "s3cr3t"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PRECEPTOR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "_WAITS", (0.0,) * 3)
    monkeypatch.setattr(remote, "_failures", [0])


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with fault_server(files={"a.png": CONTENT}) as state:
        yield state


@pytest.fixture
def local(tmp_path: Path) -> Path:
    return squares(tmp_path / "data", splits={"train": 8, "val": 4, "test": 4})


def failure(text: str) -> str:
    """Reason of an error of a location."""
    with pytest.raises(LocationError) as caught:
        read_content(text)
    assert caught.value.strerror is not None
    assert SECRET not in str(caught.value)
    return caught.value.strerror


def test_urls_are_told_from_files(tmp_path: Path) -> None:
    odd = save(tmp_path / "b.tar::c.png")
    assert read_content(str(odd)) == odd.read_bytes()
    assert urls_among(["/a.png", "s3://a", str(odd), "./s3://a", "C://a.png"]) == [1]


def test_a_file_is_sent_once_and_a_changed_one_again(server: FaultServer) -> None:
    url = server.url("a.png")
    assert read_content(url) == read_content(url) == CONTENT
    assert server.count("GET") == 1
    (state,) = states_of([url])
    server.files["a.png"] = CONTENT[::-1]
    assert states_of([url]) != [state]
    assert read_content(url) == CONTENT[::-1]


def test_temporary_failures_are_repeated(server: FaultServer) -> None:
    server.busy["a.png"], server.cut["a.png"] = 2, 2
    assert read_content(server.url("a.png")) == CONTENT


def test_a_server_that_stays_busy_is_one_line(server: FaultServer) -> None:
    server.gone = True
    assert failure(server.url("a.png")) == "the server answered with HTTP 503 (4 attempts)"
    for _ in range(8):
        failure(server.url("a.png"))
    before = server.count("HEAD")
    failure(server.url("a.png"))  # a server that is gone is asked once for each file
    assert server.count("HEAD") <= before + 1
    server.gone = False
    assert read_content(server.url("a.png")) == CONTENT


def test_what_cannot_succeed_is_asked_for_once(server: FaultServer) -> None:
    server.denied.add("b.png")
    assert failure(server.url("c.png")) == "there is no such file"
    assert "access denied (HTTP 403)" in failure(server.url("b.png"))
    assert server.count("GET", "b.png") <= 1


def test_a_body_that_stays_cut_is_refused(server: FaultServer) -> None:
    server.cut["a.png"] = 99
    assert "attempts)" in failure(server.url("a.png"))
    assert not [file for file in Path(os.environ["PRECEPTOR_CACHE"]).rglob("*") if file.is_file()]


def test_a_file_that_changes_while_it_is_read_is_refused(server: FaultServer) -> None:
    server.changing["a.png"] = [CONTENT[::-1]]
    assert "it changes while it is read" in failure(server.url("a.png"))
    assert read_content(server.url("a.png")) == CONTENT[::-1]


def test_a_manifest_of_remote_images_is_that_of_local_ones(
    local: Path, server: FaultServer, tmp_path: Path
) -> None:
    images, maps = contents_of(local, "path"), contents_of(local, "saliency")
    server.files |= images | maps
    file = moved(local, local.with_name("r.csv"), f"{server.address}/{{path}}?signature={SECRET}")
    form = ImageFormat(16)
    spaces = [
        Workspace.open(one, tmp_path / f"c{number}", verify=True, formats=[form])
        for number, one in enumerate((local, file))
    ]
    rows = np.arange(16)
    for method in ("canvases", "human_maps"):
        first, second = (getattr(space.images(form), method)(rows) for space in spaces)
        np.testing.assert_array_equal(first, second)
    hashes = [space.hashes.of(rows, space.hashes.has_map) for space in spaces]
    assert hashes[0] == hashes[1]
    bodies = server.count("GET")
    Workspace.open(file, tmp_path / "c1", verify=True, formats=[form])
    assert server.count("GET") == bodies
    spaces[1].manifest.write(tmp_path / "data" / "again.csv")
    again = Manifest.read(tmp_path / "data" / "again.csv", verify=False)
    assert again.table["path"].tolist() == spaces[1].manifest.table["path"].tolist()


def test_other_file_systems_and_unknown_ones() -> None:
    with fsspec.open("memory://folder/a.png", "wb") as file:
        file.write(CONTENT)
    assert read_content("memory://folder/a.png") == CONTENT


def test_a_changed_member_of_an_archive_is_read_again(tmp_path: Path) -> None:
    for content in (b"old", b"new"):
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.writestr("a.txt", content)
        fsspec.filesystem("zip", fo=f"file://{tmp_path}/a.zip").clear_instance_cache()
        assert read_content(f"zip://a.txt::file://{tmp_path}/a.zip") == content
    assert "correct the path" in failure("nosuch://host/a.png")
    assert failure("http://[host/a.png")


def test_a_damaged_archive_is_one_line(tmp_path: Path) -> None:
    for name in ("bad.zip", "bad.tar"):
        (tmp_path / name).write_bytes(b"no archive")
        failure(f"{name[-3:]}://a.png::{tmp_path / name}")


def test_credentials_are_in_no_message(server: FaultServer) -> None:
    address = server.address.replace("://", f"://me:{SECRET}@")
    server.gone = True
    assert failure(f"{address}/a.png")
    assert failure(f"nosuch://me:{SECRET}@host/a.png")


def test_without_the_extra_it_is_named(
    server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = builtins.__import__

    def missing(name: str, *arguments: Any, **options: Any) -> Any:
        if name.startswith("fsspec"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return original(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(LocationError, match=r"pip install '\.\[remote\]'"):
        read_content(server.url("a.png"))
