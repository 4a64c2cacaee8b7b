"""Images named by files, folders and manifests."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from preceptor.deploy.predict_files import MAPS_MARK, ImageList, ListedImage
from preceptor.errors import InputError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("b.png", "a.JPG", "deep/er/c.tif", "deep/.hidden.png", ".git/d.png", "notes.txt",
                 "x[1].png", "deep/manifest.csv"):  # fmt: skip
        file = tmp_path / "scans" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")
    return tmp_path / "scans"


def names(*inputs: str) -> list[str]:
    return [image.name for image in ImageList(inputs)]


def test_folders_and_files_in_their_order(folder: Path) -> None:
    below = ["scans/a.JPG", "scans/b.png", "scans/x[1].png", "scans/deep/er/c.tif"]
    assert names("scans") == below
    assert names("scans/notes.txt", "scans/deep") == ["scans/notes.txt", "scans/deep/er/c.tif"]
    assert names("scans/x[1].png") == ["scans/x[1].png"]
    images = ImageList(["scans", "scans"])
    assert len(images) == 8
    assert [image.path for image in images] == 2 * below


def test_maps_of_earlier_commands_are_left_out_unless_they_are_named(folder: Path) -> None:
    maps = folder / "found-maps"
    (maps / "00000").mkdir(parents=True)
    (maps / "00000" / "0-a.png").touch()
    (maps / MAPS_MARK).touch()
    drawn = "scans/found-maps/00000/0-a.png"
    assert drawn not in names("scans")
    assert "scans/b.png" in names("scans")
    for name in ("scans/found-maps", drawn):
        assert names(name) == [drawn]
    (maps / MAPS_MARK).unlink()
    assert drawn in names("scans")


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_manifests_whose_names_are_those_of_the_output(folder: Path, suffix: str) -> None:
    absolute, file = str(folder / "a.JPG"), folder / f"list{suffix}"
    table = pd.DataFrame({"label": ["x", ""], "path": ["deep/er/c.tif", absolute]})
    for name, first, second in ((None, "deep/er/c.tif", absolute), (["one", "7"], "one", "7")):
        table = table if name is None else table.assign(name=name)
        table.to_csv(file, index=False) if suffix == ".csv" else table.to_parquet(file)
        assert list(ImageList([f"scans/list{suffix}"])) == [
            ListedImage(first, str(folder / "deep/er/c.tif")),
            ListedImage(second, absolute),
        ]
    for wrong, message in ((["one", "one"], "'one' occurs again"), (["one", ""], "name is empty")):
        table.assign(name=wrong).to_csv(folder / "wrong.csv", index=False)
        with pytest.raises(InputError, match=message):
            ImageList(["scans/wrong.csv"])


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("missing.png", None, "there is no such file"),
        ("empty", "", r"the folder has no images \(\..* .bmp .bw"),
        ("a.csv", "label\nx\n", "no column path"),
        ("a.csv", "path,label\na.png,x\n,y\n", "row 3: the path is empty"),
        ("a.csv", "path\n", "no rows"),
        ("a.csv", "", "the file is empty"),
        ("a.parquet", "path\n", "not a Parquet file"),
    ],
)
def test_inputs_without_images(
    tmp_path: Path, name: str, content: str | None, expected: str
) -> None:
    if name == "empty":
        (tmp_path / name).mkdir()
    elif content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=expected):
        ImageList([str(tmp_path / name)])
