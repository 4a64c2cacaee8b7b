"""Members of tar and Parquet files, local and behind HTTP."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import pytest

from preceptor.data.images import ImageError, read_file
from preceptor.data.locations.containers import open_container
from preceptor.data.locations.location import LocalFile, RemoteFile
from preceptor.data.locations.read import read_content
from preceptor.data.locations.states import find_unreadable
from preceptor.data.locations.tar_index import tar_index
from tests.fault_server import FaultServer, fault_server
from tests.shards import parquet_of, tar_of

LONG = "folder/" + "n" * 200 + "/ä::b.png"
CONTENTS = {"a.png": b"first" * 300, LONG: b"second" * 1000, "empty": b"", "c/d.png": bytes(513)}
Where = Literal["local", "remote"]


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with fault_server() as found:
        yield found


class Shelf:
    """A place for files: a folder, or a server."""

    def __init__(self, where: Where, folder: Path, server: FaultServer) -> None:
        self.where, self.folder, self.server = where, folder, server

    def put(self, name: str, content: bytes) -> str:
        """Location of a file with a content."""
        if self.where == "remote":
            self.server.files[name] = content
            return self.server.url(name)
        (self.folder / name).write_bytes(content)
        return str(self.folder / name)


@pytest.fixture(params=["local", "remote"])
def shelf(request: pytest.FixtureRequest, tmp_path: Path, server: FaultServer) -> Shelf:
    return Shelf(request.param, tmp_path, server)


def reason_of(location: str) -> str:
    with pytest.raises(ImageError) as caught:
        read_file(location)
    return caught.value.reason


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_members_of_a_tar_file_are_read(shelf: Shelf, form: int) -> None:
    place = shelf.put("shard.tar", tar_of(CONTENTS, form))
    for _ in range(2):
        assert {name: read_content(f"{place}::{name}") for name in CONTENTS} == CONTENTS
    assert reason_of(f"{place}::b.png") == "there is no member 'b.png' in the tar file"


def test_a_tar_file_behind_http_is_read_in_parts(server: FaultServer) -> None:
    large = {f"{at}.png": bytes([at]) * 3_000_000 for at in range(4)}
    server.files["shard.tar"] = tar_of(large)
    assert read_content(server.url("shard.tar::2.png")) == large["2.png"]
    got = server.count("GET")
    assert read_content(server.url("shard.tar::3.png")) == large["3.png"]
    assert read_content(server.url("shard.tar::3.png")) == large["3.png"]
    assert server.count("GET") == got + 1  # the index is kept, and the member too


def test_an_address_with_a_query_has_members(server: FaultServer) -> None:
    server.files["shard.tar"] = tar_of(CONTENTS)
    assert read_content(server.url(f"shard.tar?sig=a&b=c::{LONG}")) == CONTENTS[LONG]
    reason = reason_of(server.url("shard.tar?sig=a&b=c::x.png"))
    assert reason == "there is no member 'x.png' in the tar file"


@pytest.mark.parametrize("end", [100, 700, 2560, -1024, -1500])
def test_a_tar_file_that_is_cut_short_is_refused(shelf: Shelf, end: int) -> None:
    whole = tar_of({"a.png": bytes(1000), "b.png": bytes(1000)}).rstrip(b"\0")
    sound = tar_of({"a.png": bytes(1000), "b.png": bytes(1000)})
    cut = sound[:end] if end > 0 else sound[: len(whole) + 1512 + end]
    place = shelf.put("shard.tar", cut)
    for name in ("a.png", "b.png"):
        assert "damaged or cut short" in reason_of(f"{place}::{name}")


def test_a_damaged_header_is_refused(shelf: Shelf) -> None:
    content = bytearray(tar_of({"a.png": bytes(1000), "b.png": bytes(1000)}))
    content[1536 + 10] ^= 255
    place = shelf.put("shard.tar", bytes(content))
    assert "damaged or cut short at byte 1,536" in reason_of(f"{place}::b.png")


def with_header(content: bytes, at: int, **fields: bytes) -> bytes:
    """Tar file with other fields in the header at a byte, and the right checksum of it."""
    places = {"size": (124, 12), "kind": (156, 1)}
    head = bytearray(content[at : at + 512])
    for name, value in fields.items():
        start, length = places[name]
        head[start : start + length] = value.ljust(length, b"\0")
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return content[:at] + head + content[at + 512 :]


def binary(size: int) -> bytes:
    """Size as GNU's tar writes numbers that digits cannot express."""
    return (size % 2**96 | 1 << 95).to_bytes(12, "big")


def sparse_tar() -> bytes:
    """Tar file of a sparse member whose map has no number."""
    member = tarfile.TarInfo("a.png")
    member.pax_headers = {"GNU.sparse.major": "0", "GNU.sparse.map": "none"}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(member)
    return buffer.getvalue()


SOUND = tar_of({"a.png": bytes(1000), "b.png": bytes(1000)}, tarfile.GNU_FORMAT)
HEADERS = {
    "a member that follows itself": with_header(SOUND, 1536, size=binary(-512)),
    "a member that ends before itself": with_header(SOUND, 1536, size=binary(-1024)),
    "a name beyond the memory": with_header(SOUND, 1536, kind=b"L", size=binary(2**46)),
    "a map of a sparse member": sparse_tar(),
    "names of names": b"".join([with_header(SOUND[:512], 0, kind=b"L", size=b"0")] * 2000) + SOUND,
}


@pytest.mark.parametrize("kind", HEADERS)
def test_a_header_that_leads_nowhere_is_refused(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "shard.tar"
    place.write_bytes(HEADERS[kind])
    assert "damaged or cut short" in reason_of(f"{place}::b.png")
    (found,) = find_unreadable([f"{place}::b.png"], [0])
    assert found.container == LocalFile(str(place))


def test_two_members_of_one_name_are_refused(shelf: Shelf) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for content in (b"1", b"2"):
            member = tarfile.TarInfo("a.png")
            member.size = 1
            archive.addfile(member, io.BytesIO(content))
    place = shelf.put("shard.tar", buffer.getvalue())
    assert "several members are named 'a.png'" in reason_of(f"{place}::a.png")


def test_a_tar_file_that_is_replaced_has_its_new_members(shelf: Shelf) -> None:
    place = shelf.put("shard.tar", tar_of({"a.png": b"old"}))
    assert read_content(f"{place}::a.png") == b"old"
    place = shelf.put("shard.tar", tar_of({"b.png": b"x" * 2000, "a.png": b"new!"}))
    assert read_content(f"{place}::a.png") == b"new!"


def test_a_tar_file_that_changes_while_it_is_read(server: FaultServer) -> None:
    old, new = tar_of({"a.png": b"o" * 5000}), tar_of({"a.png": b"n" * 5000})
    server.files["shard.tar"] = old
    server.changing["shard.tar"] = [new]
    assert read_content(server.url("shard.tar::a.png")) == b"n" * 5000


def test_a_tar_file_is_read_through_faults(server: FaultServer) -> None:
    contents = {f"{at}.png": bytes([at]) * 5000 for at in range(40)}
    server.files["shard.tar"] = tar_of(contents)
    server.busy["shard.tar"], server.cut["shard.tar"] = 7, 3
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda name: read_content(server.url(f"shard.tar::{name}")), contents)
        assert dict(zip(contents, found, strict=True)) == contents


def test_a_server_without_parts_is_refused(server: FaultServer) -> None:
    server.files["shard.tar"] = tar_of({"a.png": bytes(10**7)})
    server.plain.add("shard.tar")
    assert "does not send parts of files" in reason_of(server.url("shard.tar::a.png"))


def test_the_index_is_that_of_tarfile(tmp_path: Path) -> None:
    path = tmp_path / "shard.tar"
    path.write_bytes(tar_of({f"{at}/x.png": bytes(at * 37) for at in range(100)}))
    with tarfile.open(path) as archive:
        known = {one.name: (one.offset_data, one.size) for one in archive}
    assert tar_index(open_container(LocalFile(str(path)))) == known


@pytest.mark.parametrize("hugging_face", [False, True])
def test_rows_of_a_parquet_file_are_read(shelf: Shelf, hugging_face: bool) -> None:
    images = [bytes([at]) * (at + 1) for at in range(10)]
    cells = [{"bytes": one, "path": "x.png"} for one in images] if hugging_face else images
    place = shelf.put("t.parquet", parquet_of({"label": list(range(10)), "image": cells}))
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda row: read_content(f"{place}::{row}"), range(10))) == images
    assert read_content(f"{place}::image/7") == images[7]
    assert reason_of(f"{place}::10") == "there is no row '10' in the Parquet file; it has 0 to 9"
    assert "there is no row '-1'" in reason_of(f"{place}::-1")
    assert "there is no column 'mask'" in reason_of(f"{place}::mask/1")


def test_one_of_several_columns_is_named(shelf: Shelf) -> None:
    place = shelf.put("t.parquet", parquet_of({"image": [b"i", None], "mask": [b"m", b"n"]}))
    assert read_content(f"{place}::mask/0") == b"m"
    assert "several columns have images (image, mask); name one" in reason_of(f"{place}::0")
    assert reason_of(f"{place}::image/1") == "row 1 has no image in the column 'image'"


def test_a_parquet_file_that_is_cut_short_is_refused(shelf: Shelf) -> None:
    content = parquet_of({"image": [bytes(3000)]})
    place = shelf.put("t.parquet", content[: len(content) // 2])
    assert "damaged or cut short" in reason_of(f"{place}::0")
    place = shelf.put("u.parquet", parquet_of({"label": [1]}))
    assert reason_of(f"{place}::0") == "the Parquet file has no column with the bytes of images"


def test_a_parquet_file_is_read_through_faults(server: FaultServer) -> None:
    images = [bytes([at]) * 4000 for at in range(30)]
    server.files["t.parquet"] = parquet_of({"image": images})
    server.busy["t.parquet"], server.cut["t.parquet"] = 5, 3
    assert [read_content(server.url(f"t.parquet::{row}")) for row in range(30)] == images


def test_a_server_that_is_gone_is_no_damaged_file(server: FaultServer) -> None:
    server.files["t.parquet"] = parquet_of({"image": [b"i"]})
    server.gone = True
    assert "HTTP 503" in reason_of(server.url("t.parquet::0"))


def test_damaged_containers_are_told_once(shelf: Shelf) -> None:
    sound = shelf.put("a.tar", tar_of(CONTENTS))
    cut = shelf.put("b.tar", tar_of(CONTENTS)[:3000])
    where = [f"{sound}::a.png", f"{sound}::x.png", *(f"{cut}::{name}" for name in CONTENTS)]
    missing, damaged = find_unreadable(where, range(len(where)))
    assert (missing.at, missing.container) == ((1,), None)
    assert missing.reason == "there is no member 'x.png' in the tar file"
    kind = RemoteFile if shelf.where == "remote" else LocalFile
    assert (damaged.at, damaged.container) == ((2, 3, 4, 5), kind(cut))
    assert "damaged or cut short" in damaged.reason
