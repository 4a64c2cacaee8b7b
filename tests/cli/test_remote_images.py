"""Commands on remote images: as on local files, or refused in one line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from preceptor.data.images import decode_image, decode_map
from preceptor.data.manifest import Manifest
from preceptor.data.plant import plant
from tests.calibrated import Calibrated
from tests.commands import assert_refused, here
from tests.datasets import squares
from tests.fault_server import FaultServer, fault_server
from tests.shards import contents_of, moved

SECRET = "s3cr3t"
DEVICE = ("--device", "cpu", "--batch-size", "4")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FaultServer]:
    monkeypatch.setenv("PRECEPTOR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("preceptor.data.remote._WAITS", (0.0,) * 4)
    with fault_server() as found:
        yield found


@pytest.fixture
def local(tmp_path: Path) -> Path:
    return squares(tmp_path / "data", splits={"train": 8, "val": 4, "test": 4}, size=(64, 48))


@pytest.fixture
def remote(local: Path, server: FaultServer) -> Path:
    """The manifest with images and maps behind signed addresses."""
    server.files |= contents_of(local, "path") | contents_of(local, "saliency")
    signed = f"{server.address}/{{path}}?signature={SECRET}"
    return moved(local, local.with_name("remote.csv"), signed)


def read(manifest: Path) -> Manifest:
    return Manifest.read(manifest, verify=False, need=("train",))


def test_images_are_predicted_alike(
    calibrated: Calibrated, server: FaultServer, tmp_path: Path
) -> None:
    table = pd.read_csv(calibrated.manifest, keep_default_na=False).head(10)
    names = table["path"].tolist()
    contents = {name: (calibrated.manifest.parent / name).read_bytes() for name in names}
    server.files |= contents
    server.busy[names[1]] = 2
    rows = [
        *(server.url(f"{name}?signature={SECRET}") for name in names),
        server.url(f"missing.png?signature={SECRET}"),
    ]
    listed = tmp_path / "list.csv"
    pd.DataFrame({"path": rows}).to_csv(listed, index=False)
    out = tmp_path / "out.csv"
    found = here("predict", calibrated.folder, listed, "--out", out, "--maps", "overlay", *DEVICE)
    assert found.code == 1
    assert f"bad image: {server.url('missing.png')}: there is no such file" in found.err
    predicted = pd.read_csv(out, dtype=str, keep_default_na=False)
    files = [calibrated.manifest.parent / name for name in names]
    known_out = tmp_path / "known.csv"
    assert here("predict", calibrated.folder, *files, "--out", known_out, *DEVICE).code == 0
    known = pd.read_csv(known_out, dtype=str, keep_default_na=False)
    columns = [column for column in known if column != "path"]
    assert predicted[:10][columns].reset_index(drop=True).equals(known[columns])
    assert predicted["path"].tolist() == rows
    assert not [one for one in (tmp_path / "out-maps").rglob("*") if SECRET in one.name]
    urls = here("predict", calibrated.folder, rows[0], rows[2], *DEVICE)
    assert urls.code == 0
    assert len(urls.out.splitlines()) == 3


def test_a_page_explains_a_remote_image(
    calibrated: Calibrated, server: FaultServer, tmp_path: Path
) -> None:
    images = contents_of(calibrated.manifest, "path")
    server.files |= images
    image, page = server.url(f"train-3.png?signature={SECRET}"), tmp_path / "page.html"
    found = here("explain", calibrated.folder, image, "--out", page, "--masks", 20)
    assert found.code == 0
    assert f"{server.url('train-3.png')}: " in found.out
    assert SECRET not in page.read_text() + found.out + found.err


def test_a_manifest_is_checked_and_split(remote: Path, tmp_path: Path) -> None:
    found = here("data", "check", remote)
    assert (found.code, found.err) == (0, "")
    assert "64×48" in found.out
    out = tmp_path / "split.csv"
    assert here("data", "split", remote, "--to", out).code == 0
    assert sorted(read(out).table["path"]) == sorted(read(remote).table["path"])


def test_what_is_wrong_is_told_without_secrets(remote: Path, server: FaultServer) -> None:
    server.files["images/train-1.png"] = b"no image"
    del server.files["images/val-1.png"]
    server.denied.add("images/train-2.png")
    found = here("data", "check", remote)
    assert_refused(found, ["train-1.png': not an image", "val-1.png': there is no such file"], 3)
    assert "train-2.png': access denied (HTTP 403); set or renew the credentials" in found.err
    assert SECRET not in found.err + found.out


def test_a_shortcut_is_planted_in_remote_images(local: Path, remote: Path, tmp_path: Path) -> None:
    known = read(plant(read(local), tmp_path / "known", workers=2).manifest).table
    found = read(plant(read(remote), tmp_path / "found", workers=2).manifest).table
    assert found["name"].tolist() == known["name"].tolist()
    for column, decode in (("path", decode_image), ("saliency", decode_map)):
        for one, other in zip(found[column], known[column], strict=True):
            assert bool(one) == bool(other)
            assert not one or np.array_equal(decode(one), decode(other))
    assert not [file for file in (tmp_path / "found").rglob("*") if SECRET in file.name]


@pytest.mark.parametrize("form", ["masks", "coco"])
def test_remote_images_are_exported(local: Path, remote: Path, tmp_path: Path, form: str) -> None:
    for source, name in ((local, "known"), (remote, "found")):
        done = here("data", "export", form, source, "--to", tmp_path / name)
        assert done.code == 0, done.err
    for file in (tmp_path / "known").rglob("*"):
        if file.is_file():
            assert (tmp_path / "found" / file.relative_to(tmp_path / "known")).read_bytes() == (
                file.read_bytes()
            )


def test_label_is_refused(remote: Path, local: Path, server: FaultServer) -> None:
    found = here("label", remote)
    assert_refused(
        found, ["row 2: 'images/train-0.png' or its map is no local file", "of 16 rows"], 1
    )
    assert SECRET not in found.err
