"""Which map image of a folder belongs to which image."""

from __future__ import annotations

from pathlib import Path

import pytest

from preceptor.errors import InputError
from preceptor.maps.sources import map_files


def touched(folder: Path, *names: str) -> Path:
    """A folder of files, whose content does not matter."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def found(folder: Path, *images: str) -> list[str | None]:
    """The map of each image, from the folder."""
    files = map_files(folder, images)
    return [None if file is None else file.relative_to(folder).as_posix() for file in files]


def test_a_map_has_the_path_or_the_name_of_its_image_with_any_suffix(tmp_path: Path) -> None:
    touched(tmp_path, "d/1.png", "d/2.bmp", "3.png", "d/1.txt", "d/.4.png", "read.me")
    images = ("d/1.png", "d/2.png", "d/3.jpg", "d/4.png", "d/read.jpg", "e/1.png")
    assert found(tmp_path, *images) == ["d/1.png", "d/2.bmp", "3.png", None, None, None]


def test_a_name_is_found_in_both_forms_of_unicode(tmp_path: Path) -> None:
    forms = "u\u0308ber", "\u00fcber"
    for one, other in (forms, forms[::-1]):
        touched(tmp_path / one, f"{one}.png")
        assert found(tmp_path / one, f"{other}.jpg") == [f"{one}.png"]


@pytest.mark.parametrize("folder", ["", "d/"])
def test_a_map_for_two_images_that_differ_in_their_suffix_is_refused(
    tmp_path: Path, folder: str
) -> None:
    images = (f"{folder}a.png", f"{folder}a.jpg")
    touched(tmp_path, f"{folder}a.png")
    told = (
        rf"a\.png matches both {folder}a\.png and {folder}a\.jpg; name their maps a\.png\.png and a"
    )
    with pytest.raises(InputError, match=told):
        found(tmp_path, *images)
    assert found(tmp_path, images[0]) == [f"{folder}a.png"]  # the other one may be of no run
    touched(tmp_path, f"{folder}a.jpg.png")
    assert found(tmp_path, *images) == [f"{folder}a.png", f"{folder}a.jpg.png"]


def test_maps_with_the_whole_names_of_their_images(tmp_path: Path) -> None:
    touched(tmp_path, "a.png", "a.jpg", "b.png.png", "b.jpg.png", "b.png")
    assert found(tmp_path, "x/a.jpg", "x/a.png") == ["a.jpg", "a.png"]
    assert found(tmp_path, "b.jpg", "b.png") == ["b.jpg.png", "b.png"]


def test_two_maps_for_one_image_are_refused(tmp_path: Path) -> None:
    touched(tmp_path, "a.bmp", "a.png")
    with pytest.raises(InputError, match=r"a\.bmp and .*a\.png match x/a\.tif; remove one"):
        found(tmp_path, "x/a.tif")
    with pytest.raises(InputError, match=r"match https://host/a\.tif; remove one"):
        found(tmp_path, "https://host/a.tif?sig=1234")
    assert found(tmp_path, "x/a.png") == ["a.png"]


@pytest.mark.parametrize("other", ["y/3.png", "3.png"])
def test_a_map_for_two_images_in_two_folders_is_refused(tmp_path: Path, other: str) -> None:
    touched(tmp_path, "3.png")
    with pytest.raises(InputError, match=rf"3\.png matches both x/3\.png and {other}; use the"):
        found(tmp_path, "x/3.png", other)
    touched(tmp_path, "x/3.png", "y/3.png")
    assert found(tmp_path, "x/3.png", other) == ["x/3.png", other]


def test_messages_have_no_secrets(tmp_path: Path) -> None:
    touched(tmp_path, "3.png")
    images = [f"https://host/3.{suffix}?sig=1234" for suffix in ("png", "jpg")]
    with pytest.raises(InputError, match=r"both https://host/3\.png and https://host/3") as error:
        found(tmp_path, *images)
    assert str(error.value).endswith("name their maps 3.png.png and 3.jpg.png")


def test_maps_below_a_linked_folder_and_files_that_are_no_images(tmp_path: Path) -> None:
    touched(tmp_path / "other", "a.png", "a.pdf", ".old/b.png")
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "linked").symlink_to(tmp_path / "other")
    assert found(tmp_path / "maps", "linked/a.jpg", "linked/b.jpg") == ["linked/a.png", None]
