"""Images named by files and folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from preceptor.deploy.predict_files import MAPS_MARK, ImageList
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
    return list(ImageList(inputs))


def test_folders_and_files_in_their_order(folder: Path) -> None:
    below = ["scans/a.JPG", "scans/b.png", "scans/x[1].png", "scans/deep/er/c.tif"]
    assert names("scans") == below
    assert names("scans/notes.txt", "scans/deep") == ["scans/notes.txt", "scans/deep/er/c.tif"]
    assert names("scans/x[1].png") == ["scans/x[1].png"]
    images = ImageList(["scans", "scans"])
    assert len(images) == 8
    assert list(images) == 2 * below


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


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("missing.png", None, "there is no such file"),
        ("empty", "", r"the folder has no images \(\..* .bmp .bw"),
        ("a.csv", "path\na.png\n", "it is a table; name the folder of its images"),
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
