"""The files that a manifest names: listed once, readable, maps of their images' aspect."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from preceptor.data.manifest import Manifest
from tests.data.sound_manifest import problems, save, sound, write


def test_a_file_listed_twice_through_a_link_is_found(folder: Path) -> None:
    (folder / "alias").symlink_to(folder / "images")
    (folder / "g.png").symlink_to(folder / "images" / "c.png")
    lines = [*sound(), "alias/a.png,fake,test,,,,,,,", "g.png,real,test,,,,,,,"]
    told = problems(write(folder, *lines))
    assert "row 8: image 'alias/a.png' is listed already in row 2" in told[0]
    assert "row 9: image 'g.png' is listed already in row 4" in told[1]


def test_many_files_in_a_folder_are_found_by_listing_it(tmp_path: Path) -> None:
    lines = ["path,label,split"]
    for i in range(80):
        (tmp_path / f"{i}.png").write_bytes(b"x")
        split = ("train", "train", "val", "test")[i % 4]
        lines.append(f"{i}.png,{'real' if i % 8 < 4 else 'fake'},{split}")
    (tmp_path / "40.png").unlink()
    (tmp_path / "41.png").unlink()
    (tmp_path / "41.png").symlink_to(tmp_path / "42.png")
    told = problems(write(tmp_path, *lines), verify=False)
    assert [problem.split(";")[0] for problem in told] == [
        "row 42: image '40.png' does not exist",
        "row 44: image '42.png' is listed already in row 43",
    ]


def test_a_missing_folder_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    lines = ["path,label,split"]
    for i in range(8):
        folder = "there" if i == 7 else "gone/deep"
        split = ("train", "train", "val", "test")[i % 4]
        lines.append(f"{folder}/{i}.png,{'real' if i < 4 else 'fake'},{split}")
    told = problems(write(tmp_path, *lines), verify=False)
    assert [problem.split(";")[0] for problem in told] == [
        "row 2: image 'gone/deep/0.png' and 6 more: there is no folder 'gone/deep'",
        "row 9: image 'there/7.png' does not exist",
    ]


# Files are looked into


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("images/b.png", b"", "row 3: image 'images/b.png': the file is empty"),
        ("images/b.png", b"junk", "row 3: image 'images/b.png': not an image"),
        ("maps/b.png", b"", "row 3: map 'maps/b.png': the file is empty"),
        ("maps/b.png", b"junk", "row 3: map 'maps/b.png': not an image"),
    ],
)
def test_unreadable_files_are_found_if_verified(
    folder: Path, name: str, content: bytes, expected: str
) -> None:
    (folder / name).write_bytes(content)
    told = problems(folder / "m.csv")
    assert len(told) == 1
    assert expected in told[0]
    assert len(Manifest.read(folder / "m.csv", verify=False)) == 6


def test_truncated_images_and_maps_are_found(folder: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    for name in ("images/a.png", "maps/a.png"):
        Image.fromarray(noise).save(folder / name)
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])
    told = problems(folder / "m.csv")
    assert [problem.split(" (")[0] for problem in told] == [
        "row 2: image 'images/a.png': truncated",
        "row 2: map 'maps/a.png': truncated",
    ]


@pytest.mark.parametrize(
    ("size", "fits"),
    [
        ((8, 6), True),
        ((4, 3), True),
        ((10, 8), True),
        ((800, 600), True),
        ((800, 612), True),
        ((800, 640), False),
        ((60, 80), False),
        ((80, 80), False),
    ],
)
def test_maps_must_have_the_aspect_of_their_image(
    folder: Path, size: tuple[int, int], fits: bool
) -> None:
    save(folder / "maps" / "a.png", size, "L")
    if fits:
        Manifest.read(folder / "m.csv")
    else:
        (told,) = problems(folder / "m.csv")
        assert f"row 2: map 'maps/a.png' is {size[0]}×{size[1]}, its image 8×6" in told


def test_progress_reaches_its_total(folder: Path) -> None:
    seen: list[tuple[int, int]] = []
    Manifest.read(folder / "m.csv", progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (8, 8)
