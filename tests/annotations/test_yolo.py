from pathlib import Path

import pytest

from preceptor.annotations import read_yolo
from preceptor.annotations.shapes import Box, Polygon, rasterize
from preceptor.errors import PreceptorError
from tests.annotations.trees import images_of, imported_maps, notes_of, save_image


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for name in ("train/images/a.png", "train/images/b.png", "valid/images/a.png"):
        save_image(tmp_path / "data" / name)
    for name, text in (
        ("train/labels/a.txt", "0 0.5 0.5 0.25 0.2\n1 0 0 0.5 0 0.5 0.5 0 0.5\n"),
        ("valid/labels/a.txt", ""),
    ):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "data" / "data.yaml").write_text(
        "train: ../train/images\nval: ../valid/images\nnames: [crack, rust]\n"
    )
    return tmp_path / "data"


def test_boxes_segments_names_and_splits(data: Path) -> None:
    imported = read_yolo(data / "data.yaml")
    assert imported.classes == ["crack", "rust"]
    found = images_of(imported)
    assert list(found) == ["train/images/a.png", "valid/images/a.png"]
    box, polygon = found["train/images/a.png"].annotations
    assert (box.label, box.shape) == ("crack", Box(15, 12, 10, 6))
    assert isinstance(polygon.shape, Polygon)
    assert polygon.shape.rings[0].tolist() == [[0, 0], [20, 0], [20, 15], [0, 15]]
    assert [one.split for one in found.values()] == ["train", "val"]


@pytest.mark.parametrize("name", ["classes.txt", "data.yaml"])
def test_names_with_a_byte_order_mark(tmp_path: Path, name: str) -> None:
    save_image(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("0 .5 .5 .2 .2\n", encoding="utf-8-sig")
    text = "names: [crack]\n" if name == "data.yaml" else "crack\n"
    (tmp_path / name).write_text(text, encoding="utf-8-sig")
    ((found,),) = [one.annotations for one in read_yolo(tmp_path)]
    assert found.label == "crack"


def test_names_that_yaml_reads_as_other_values(data: Path) -> None:
    path = data / "data.yaml"
    path.write_text("train: x\nval: x\nkpt_shape: null\nnames: [no, yes]\n")
    assert read_yolo(path).classes == ["no", "yes"]
    shapes = images_of(read_yolo(path))["train/images/a.png"].annotations
    assert [one.label for one in shapes] == ["no", "yes"]
    path.write_text("val: x\nnames:\n  0: 1.10\n  1: 010\n  2: null\n")
    assert read_yolo(path).classes == ["1.10", "010", "null"]
    for names in ("[[crack], rust]", "{0: {name: crack}}", "{a: crack}"):
        path.write_text(f"val: x\nnames: {names}\n")
        with pytest.raises(PreceptorError, match=r"data.yaml: names"):
            read_yolo(path)


def test_shares_are_of_the_upright_image(tmp_path: Path) -> None:
    save_image(tmp_path / "a.jpg", 40, 30, 6)
    (tmp_path / "a.txt").write_text("3 0.5 0.5 0.5 0.5\n")
    _, maps = imported_maps(read_yolo(tmp_path), tmp_path, tmp_path / "out")
    assert (maps["a.jpg"] == rasterize([Box(7.5, 10, 15, 20)], 30, 40)).all()


def test_names_of_a_dict_and_of_a_file(data: Path) -> None:
    (data / "data.yaml").write_text("names: {0: crack, 1: 7}\ntrain: x\nkpt_shape: [2, 3]\n")
    assert read_yolo(data).classes == ["crack", "7"]
    (data / "data.yaml").unlink()
    (data / "classes.txt").write_text("a\nb\n")
    assert read_yolo(data).classes == ["a", "b"]


def test_names_beside_the_labels(tmp_path: Path) -> None:
    """labelImg writes classes.txt into the folder of the text files."""
    save_image(tmp_path / "images" / "train" / "a.png")
    labels = tmp_path / "labels" / "train"
    labels.mkdir(parents=True)
    (labels / "a.txt").write_text("1 0.5 0.5 0.25 0.2\n")
    imported = read_yolo(tmp_path)
    assert [one.label for image in imported for one in image.annotations] == ["1"]
    (note,) = notes_of(imported)
    assert "classes.txt" in note
    (labels / "classes.txt").write_text("crack\nrust\n")
    imported = read_yolo(tmp_path)
    assert imported.classes == ["crack", "rust"]
    assert [one.label for image in imported for one in image.annotations] == ["rust"]
    assert not notes_of(imported)


def test_names_that_differ_between_folders_are_refused(data: Path) -> None:
    (data / "data.yaml").unlink()
    (data / "train/labels/classes.txt").write_text("crack\nrust\n")
    (data / "valid/labels/classes.txt").write_text("crack\nrust\n")
    assert read_yolo(data).classes == ["crack", "rust"]
    (data / "valid/labels/classes.txt").write_text("rust\ncrack\n")
    with pytest.raises(PreceptorError, match="its folders have different"):
        read_yolo(data)


def test_keypoints_are_left_out(data: Path) -> None:
    (data / "data.yaml").write_text("names: {0: crack}\ntrain: x\nkpt_shape: [2, 3]\n")
    (data / "train/labels/a.txt").write_text("0 0.5 0.5 0.25 0.2 0.1 0.1 2 0.3 0.3 1\n")
    (one,) = images_of(read_yolo(data))["train/images/a.png"].annotations
    assert one.shape == Box(15, 12, 10, 6)


BAD = [
    ("word", "x 0.5 0.5 0.1 0.1", "the class is 'x'"),
    ("class", "9 0.5 0.5 0.1 0.1", "does not name; correct or remove the line"),
    ("number", "0 0.5 0.5 0.1 y", "a number is 'y'"),
    ("nan", "0 0.5 0.5 0.1 nan", "a number is 'nan'"),
    ("three", "0 0.5 0.5 0.1", "it has 3 numbers"),
    ("odd", "0 .1 .1 .2 .2 .3 .3 .4", "it has 7 numbers"),
    ("prediction", "0 .1 .1 .2 .2 .9", "it has 5 numbers"),
    ("pixels", "0 20 15 10 10", "are not shares"),
    ("empty box", "0 0.5 0.5 0 0.1", "the box is empty"),
]


@pytest.mark.parametrize(("line", "expected"), [one[1:] for one in BAD], ids=[b[0] for b in BAD])
def test_what_is_wrong_is_refused_by_line(
    data: Path, tmp_path: Path, line: str, expected: str
) -> None:
    (data / "train/labels/a.txt").write_text(f"0 0.5 0.5 0.25 0.2\n{line}\n")
    with pytest.raises(PreceptorError) as caught:
        imported_maps(read_yolo(data), data, tmp_path / "out", unmarked="unknown")
    assert expected in str(caught.value)
    assert "train/labels/a.txt" in str(caught.value)
    assert "line 2" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_labels_without_an_image_and_images_of_one_name(data: Path, tmp_path: Path) -> None:
    (data / "train/labels/z.txt").write_text("")
    (data / "train/labels/b.txt").write_bytes(b"\xff\xfe\x00")
    save_image(data / "train/images/a.jpg")
    with pytest.raises(PreceptorError) as caught:
        imported_maps(read_yolo(data), data, tmp_path / "out", unmarked="unknown")
    for expected in ("no image 'train/images/z.*'", "fits 2 files", "not UTF-8"):
        assert expected in str(caught.value)


@pytest.mark.parametrize("text", ["names: [", "- a", "names: {x: y}\ntrain: a"])
def test_a_wrong_yaml_is_refused(data: Path, text: str) -> None:
    (data / "data.yaml").write_text(text)
    with pytest.raises(PreceptorError):
        read_yolo(data / "data.yaml")
