"""Reading from a real S3 server, of moto; `pip install 'moto[server]'` to run these tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from preceptor.data.images import ImageError, read_file
from preceptor.data.locations.read import read_content
from preceptor.data.locations.remote_files import listing
from preceptor.data.locations.states import states_of
from preceptor.data.manifest import Manifest
from tests.datasets import squares
from tests.shards import contents_of, moved, tar_of

server = pytest.importorskip("moto.server", reason="moto is too large for the extra `dev`")
s3fs = pytest.importorskip("s3fs", reason="of the extra `remote`")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    found = server.ThreadedMotoServer(port=0, verbose=False)
    found.start()
    host, port = found.get_host_and_port()
    yield f"http://{host}:{port}"
    found.stop()


@pytest.fixture(autouse=True)
def system(address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> s3fs.S3FileSystem:
    for name in [one for one in os.environ if one.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3fs.S3FileSystem.clear_instance_cache()
    found = s3fs.S3FileSystem()
    if not found.exists("bucket"):
        found.mkdir("bucket")
    return found


def test_an_object_and_a_member_are_read(system: s3fs.S3FileSystem) -> None:
    system.pipe({"bucket/a.png": b"content", "bucket/s.tar": tar_of({"b.png": b"x" * 5000})})
    assert read_content("s3://bucket/a.png") == b"content"
    assert read_content("s3://bucket/s.tar::b.png") == b"x" * 5000
    system.pipe("bucket/a.png", b"another")
    assert read_content("s3://bucket/a.png") == b"another"
    with pytest.raises(ImageError, match=r"s3://bucket/c\.png: there is no such file"):
        read_file("s3://bucket/c.png")


def test_a_listing_has_the_states_of_single_questions(system: s3fs.S3FileSystem) -> None:
    names = [f"{at}.png" for at in range(40)]
    system.pipe({f"bucket/many/{name}": name.encode() for name in names})
    assert sorted(listing("s3://bucket/many", 60)) == sorted(names)
    urls = [f"s3://bucket/many/{name}" for name in names]
    assert states_of(urls) == [states_of([url])[0] for url in urls]
    system.pipe("bucket/many/3.png", b"other")
    assert states_of(urls)[3] == states_of(urls[3:4])[0]


def test_a_manifest_of_a_bucket(system: s3fs.S3FileSystem, tmp_path: Path) -> None:
    local = squares(tmp_path / "data", splits={"train": 12, "val": 4, "test": 4})
    contents = contents_of(local, "path") | contents_of(local, "saliency")
    system.pipe({f"bucket/data/{path}": content for path, content in contents.items()})
    path = moved(local, local.with_name("s3.csv"), "s3://bucket/data/{path}")
    assert len(Manifest.read(path)) == 20


def test_denied_access_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", "/nonexistent")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(ImageError) as caught:
        read_file("s3://bucket/a.png")
    assert caught.value.reason.startswith("no valid credentials were found")
