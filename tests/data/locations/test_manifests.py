"""Manifests whose images and maps are remote files or members."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pandas as pd
import pytest

from preceptor.config.settings import ImageFormat
from preceptor.data.cache import open_images
from preceptor.data.decode_pass import DecodePass
from preceptor.data.fingerprints import fingerprints
from preceptor.data.manifest import Manifest
from preceptor.data.notes import summary_table
from preceptor.errors import InputError, ProblemsError
from tests.datasets import squares
from tests.fault_server import FaultServer, fault_server
from tests.shards import contents_of, moved, parquet_of, tar_of

SPLITS = {"train": 40, "val": 4, "test": 4}
ROWS = np.arange(48)
KINDS = ("http", "memory", "tar", "remote tar", "parquet", "remote parquet")


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with fault_server() as found:
        yield found


@pytest.fixture
def local(tmp_path: Path) -> Path:
    return squares(tmp_path / "data", splits=SPLITS)


def manifest_of(kind: str, local: Path, server: FaultServer) -> Path:
    """The same manifest with images elsewhere."""
    images, maps = contents_of(local, "path"), contents_of(local, "saliency")
    target = local.with_name(f"{kind.replace(' ', '-')}.csv")
    if kind == "http":
        server.files |= images | maps
        return moved(local, target, server.address + "/{path}?signature=s3cr3t")
    if kind == "memory":
        system = fsspec.filesystem("memory")
        for path, content in (images | maps).items():
            system.pipe(f"/{local.parent.parent.name}/{path}", content)
        return moved(local, target, f"memory://{local.parent.parent.name}/{{path}}")
    if kind.endswith("tar"):
        shard = tar_of(images | maps)
        server.files["shard.tar"] = shard
        local.with_name("shard.tar").write_bytes(shard)
        where = server.url("shard.tar") if kind.startswith("remote") else "shard.tar"
        return moved(local, target, where + "::{path}")
    table = pd.read_csv(local, keep_default_na=False)
    masks = [maps.get(path) for path in table["saliency"]]
    shard = parquet_of({"image": [images[path] for path in table["path"]], "mask": masks}, 7)
    server.files["t.parquet"] = shard
    local.with_name("t.parquet").write_bytes(shard)
    where = server.url("t.parquet") if kind.startswith("remote") else "t.parquet"
    return moved(local, target, where + "::image/{row}", where + "::mask/{row}")


@pytest.mark.parametrize("kind", KINDS)
def test_images_are_those_of_local_files(
    kind: str, local: Path, server: FaultServer, tmp_path: Path
) -> None:
    path, caches = manifest_of(kind, local, server), tmp_path / "caches"
    with DecodePass(caches, [ImageFormat(24)]) as decoding:
        found = Manifest.read(path, decoding=decoding)
    known = Manifest.read(local)
    assert found.table["name"].tolist() == known.table["name"].tolist()
    assert fingerprints(found).equals(fingerprints(known))
    assert summary_table(found).equals(summary_table(known))
    plain = open_images(known, side=24, cache_dir=None)
    for one in (
        open_images(found, side=24, cache_dir=caches),
        open_images(found, side=24, cache_dir=None),
    ):
        assert (one.canvases(ROWS) == plain.canvases(ROWS)).all()
        assert (one.human_maps(ROWS) == plain.human_maps(ROWS)).all()
        assert (one.sizes == plain.sizes).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_manifest_that_is_written_is_the_same(
    kind: str, local: Path, server: FaultServer, tmp_path: Path
) -> None:
    found = Manifest.read(manifest_of(kind, local, server), verify=False)
    (tmp_path / "elsewhere").mkdir()
    for place in (local.parent, tmp_path / "elsewhere"):
        found.write(place / "written.csv")
        again = Manifest.read(place / "written.csv", verify=False).table
        for column in ("path", "saliency"):
            again[column] = again[column].str.replace("elsewhere/../", "", regex=False)
        pd.testing.assert_frame_equal(again, found.table)


def test_images_that_were_read_are_not_read_again(
    local: Path, server: FaultServer, tmp_path: Path
) -> None:
    path, caches = manifest_of("http", local, server), tmp_path / "caches"
    for _ in range(2):
        with DecodePass(caches, [ImageFormat(24)]) as decoding:
            Manifest.read(path, decoding=decoding)
    assert server.count("GET") == len(server.files)


def test_everything_that_is_wrong_is_told_at_once(
    local: Path, server: FaultServer, tmp_path: Path
) -> None:
    path = manifest_of("http", local, server)
    names = sorted(server.files)
    del server.files[names[0]]
    server.denied.add(names[1])
    server.files[names[2]] = b"no image"
    server.busy[names[3]] = 1000
    with pytest.raises(ProblemsError) as caught:
        Manifest.read(path)
    told = [problem.what for problem in caught.value.problems]
    for name in names[:4]:
        assert sum(f"image '{server.address}/{name}': " in what for what in told) == 1
    reasons = ("there is no such file", "access denied", "not an image", "HTTP 503")
    assert all(sum(reason in what for what in told) == 1 for reason in reasons)
    assert len(told) == 4
    assert "s3cr3t" not in str(caught.value)


def test_a_shard_that_is_cut_short_is_one_problem(local: Path, server: FaultServer) -> None:
    path = manifest_of("tar", local, server)
    shard = local.with_name("shard.tar")
    shard.write_bytes(shard.read_bytes()[:-20_000])
    with pytest.raises(ProblemsError) as caught:
        Manifest.read(path)
    image, saliency = [problem.what for problem in caught.value.problems]
    assert image.startswith("image 'shard.tar::images/train-0.png': shard.tar: the tar file is dam")
    assert image.endswith("(48 rows)")
    assert saliency.endswith("(24 rows)")


def test_a_shard_that_is_missing_is_named(local: Path, server: FaultServer) -> None:
    path = manifest_of("tar", local, server)
    local.with_name("shard.tar").unlink()
    with pytest.raises(ProblemsError, match=r"image 'shard.tar::images/train-0.png'"):
        Manifest.read(path)


def test_an_image_that_is_listed_twice_is_found(local: Path, server: FaultServer) -> None:
    path = manifest_of("tar", local, server)
    table = pd.read_csv(path, keep_default_na=False)
    table.loc[1, "path"] = table.loc[0, "path"]
    table.to_csv(path, index=False)
    with pytest.raises(ProblemsError, match="is listed already in row 2"):
        Manifest.read(path)


def test_after_a_source_that_vanished_the_images_that_were_read_are_kept(
    local: Path, server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, caches = manifest_of("http", local, server), tmp_path / "caches"
    server.vanishes_after = 200
    with pytest.raises(ProblemsError), DecodePass(caches, [ImageFormat(24)]) as decoding:
        Manifest.read(path, decoding=decoding)
    assert not list(caches.rglob(".*"))
    server.vanishes_after, server.gone = None, False
    monkeypatch.setattr("preceptor.data.locations.retries._REST", 0.0)
    with DecodePass(caches, [ImageFormat(24)]) as decoding:
        found = Manifest.read(path, decoding=decoding)
    plain = open_images(Manifest.read(local), side=24, cache_dir=None)
    images = open_images(found, side=24, cache_dir=caches)
    assert (images.canvases(ROWS) == plain.canvases(ROWS)).all()


def test_a_local_file_with_colons_is_a_file(tmp_path: Path) -> None:
    path = squares(tmp_path / "data", splits={"train": 2, "val": 2, "test": 2})
    table = pd.read_csv(path, keep_default_na=False)
    renamed = ["a::b.png", "shard.tar::c.png", "x://y.png"]
    (path.parent / "x:").mkdir()
    for row, name in enumerate(renamed):
        (path.parent / table.loc[row, "path"]).rename(path.parent / name)
        # What starts with a scheme is a URL; a path from the folder is not.
        table.loc[row, "path"] = f"./{name}" if "://" in name else name
    table.to_csv(path, index=False)
    assert len(Manifest.read(path)) == 6


def test_errors_are_input_errors(server: FaultServer, tmp_path: Path) -> None:
    frame = pd.DataFrame({"path": [server.url("a.png?sig=x")], "label": "a"})
    manifest_error = pytest.raises(InputError, match=r"a\.png': there is no such file")
    with manifest_error:
        Manifest.from_frame(frame, tmp_path, need=())


def test_a_line_has_one_remedy(local: Path, server: FaultServer, tmp_path: Path) -> None:
    rows = ["path,label,split"]
    sound = tar_of({"a.png": bytes(5000), "b.png": bytes(5000)})
    double = tar_of({"a.png": b"1"})[:1024] + tar_of({"a.png": b"2"})
    for name, content in (("cut.tar", sound[:6000]), ("double.tar", double)):
        (tmp_path / name).write_bytes(content)
        rows.append(f"{name}::a.png,real,train")
    server.files |= {"denied.png": b"", "whole.tar": tar_of({"a.png": bytes(10**7)})}
    server.denied.add("denied.png")
    server.plain.add("whole.tar")
    rows += [f"{server.url('denied.png')},real,train", f"{server.url('whole.tar::a.png')},real,val"]
    (tmp_path / "manifest.csv").write_text("\n".join(rows) + "\n")
    with pytest.raises(ProblemsError) as caught:
        Manifest.read(tmp_path / "manifest.csv", need=())
    told = [(one.what.rpartition(": ")[2], one.fix) for one in caught.value.problems]
    assert told == [
        ("the tar file is damaged or cut short at byte 5,632", "copy it again"),
        ("several members are named 'a.png'", "rename them in the tar file"),
        ("access denied (HTTP 403)", "set or renew the credentials"),
        (
            "the server does not send parts of files (HTTP range requests)",
            "copy the file to a local disk",
        ),
    ]
