"""Images of names whose folders differ from those of the images."""

from pathlib import Path

import pytest

from preceptor.annotations.files import ImageFiles
from preceptor.errors import InputError
from tests.annotations.trees import save_image

PATIENTS = ["p1/0002.png", "p2/0001.png"]
# Images, a name, and the image that it means; none if its folder is another one.
NAMES = [
    (PATIENTS, "p1/0001.png", ""),
    (PATIENTS, "p1/seg/0001.png", ""),
    (PATIENTS, "/data/p1/0001.png", ""),
    (PATIENTS, "/data/p1/seg/0001.png", ""),
    (PATIENTS, "https://host/p1/0001.png?x=1", ""),
    (["images/train/2.jpg", "images/val/1.jpg"], "images/train/1.jpg", ""),
    (["train/images/2.jpg", "val/images/1.jpg"], "train/1.jpg", ""),
    (["a/p1/2.png", "b/p2/1.png"], "p1/1.png", ""),
    (["p1/1.png", "p2/2.png"], "p3/1.png", ""),  # the images of p3 are missing
    (["p1/ct/1.png"], "p3/ct/1.png", ""),
    # A part of the folders in the name or in the tree is no other folder.
    (PATIENTS, "0001.png", "p2/0001.png"),
    (PATIENTS, "p2/0001.png", "p2/0001.png"),
    (PATIENTS, "/p1/export/p2/0001.png", "p2/0001.png"),
    (PATIENTS, "C:\\data\\p2\\0001.png", "p2/0001.png"),
    (["train/crack/1.png", "train/rust/2.png"], "train/1.png", "train/crack/1.png"),
    (["1.jpg", "2.jpg"], "images/train/1.jpg", "1.jpg"),
    (["train/1.jpg", "val/2.jpg"], "images/train/1.jpg", "train/1.jpg"),
    (["images/ct/p1/1.png"], "ct/1.png", "images/ct/p1/1.png"),
    # The folder decides between images of one name.
    (["p1/ct/1.png", "p2/ct/1.png"], "p1/seg/1.png", "p1/ct/1.png"),
]


@pytest.mark.parametrize("stem", [False, True])
@pytest.mark.parametrize(("images", "name", "expected"), NAMES)
def test_a_name_is_not_that_of_an_image_in_another_folder(
    images: list[str], name: str, expected: str, stem: bool, tmp_path: Path
) -> None:
    for image in images:
        save_image(tmp_path / "images" / image)
    files = ImageFiles(tmp_path / "images")
    if stem and ("://" in name or "\\" in name):
        pytest.skip("stems are those of files")
    name = name[:-4] + ".*" if stem else name
    if expected:
        assert files.find(name) == expected
    else:
        with pytest.raises(LookupError, match=r"there is no image .* \(but .*, in another folder"):
            files.find(name)


@pytest.mark.parametrize("name", ["../x/a.png", "..\\..\\x\\a.png", "..%2Fx/a.png", "./../x/a.png"])
def test_an_annotation_file_may_lie_beside_the_folder_of_images(name: str, tmp_path: Path) -> None:
    for image in ("set/x/a.png", "set/y/a.png", "x/a.png"):
        save_image(tmp_path / image)
    assert ImageFiles(tmp_path / "set").find(name) == "x/a.png"
    with pytest.raises(LookupError, match="there is no image"):
        ImageFiles(tmp_path / "set" / "y").find(name.replace("a.png", "b.png"))


def test_images_in_the_folder_of_the_masks_are_refused(tmp_path: Path) -> None:
    save_image(tmp_path / "all" / "images" / "a.png")
    for folder in ("all", "all/images"):
        with pytest.raises(InputError, match="every image would be its own mask"):
            ImageFiles(tmp_path / folder, tmp_path / "all")


def test_names_that_fit_two_files_are_refused(tmp_path: Path) -> None:
    for name in ("x/a.png", "y/a.png", "x/b b.png", "x/c%20c.png", "x/c c.png", "x/d?.png"):
        save_image(tmp_path / name)
    files = ImageFiles(tmp_path)
    with pytest.raises(LookupError, match=r"fits 2 files \(x/a.png, y/a.png\)"):
        files.find("a.png")
    assert files.find("data/y/a.png") == "y/a.png"
    assert files.find("b%20b.png") == "x/b b.png"
    assert files.find("c%20c.png") == "x/c%20c.png"  # as it is written comes first
    assert files.find("c c.png") == "x/c c.png"
    assert files.find("d?.png") == "x/d?.png"
    assert files.find("x\\a.png") == "x/a.png"
    upload = "data/upload/1/0123abcd-b_b.png"
    assert files.find(upload) == "x/b b.png"
    assert files.find("data/upload/1/0123abcd-d.png") == "x/d?.png"
    save_image(tmp_path / "x" / "b  b?.png")
    save_image(tmp_path / "y" / "b b.png")
    with pytest.raises(LookupError, match=r"fits 2 files \(x/b b.png, y/b b.png\)"):
        ImageFiles(tmp_path).find(upload)
    for name in ("x/../../a.png", "x/..%2Fa.png"):
        with pytest.raises(LookupError, match="leads out of the folder"):
            files.find(name)


def test_files_that_have_no_pixels_are_no_images(tmp_path: Path) -> None:
    for suffix in ("pdf", "eps", "h5", "mpg"):
        (tmp_path / f"a.{suffix}").touch()
    save_image(tmp_path / "a.png")
    save_image(tmp_path / "b.jfif.png").rename(tmp_path / "b.JFIF")
    assert ImageFiles(tmp_path).names == ["a.png", "b.JFIF"]
    assert ImageFiles(tmp_path).find("a.*") == "a.png"
