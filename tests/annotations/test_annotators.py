from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from preceptor.annotations.agreement import agreement_of, compare, read_annotators
from preceptor.annotations.shapes import AnnotatedImage, Annotation, Box, ImportedAnnotations
from preceptor.annotations.write import ImportOptions, write_import
from preceptor.errors import InputError, ProblemsError
from tests.annotations.trees import annotated_folder


def test_maps_of_a_folder_are_found_with_their_images(tmp_path: Path) -> None:
    maps = read_annotators(annotated_folder(tmp_path / "a"))
    assert list(maps.people) == ["ann", "bo", "cy"]
    assert maps.files["3.png"] == ("ann", "bo", "cy")
    assert maps.files["4.png"] == ("ann", "bo")
    stored = np.asarray(Image.open(tmp_path / "a" / "annotators" / "bo" / "3.png"))
    assert (maps.maps("3.png")["bo"] == stored).all()
    Image.fromarray(stored // 255).save(tmp_path / "a" / "annotators" / "bo" / "3.png")
    assert (maps.maps("3.png")["bo"] == stored).all()  # a mask of 0 and 1


def test_a_folder_with_one_annotator_is_refused(tmp_path: Path) -> None:
    folder = annotated_folder(tmp_path / "a", {"ann": (0, 0)})
    with pytest.raises(InputError, match="agreement needs two"):
        read_annotators(folder)


def test_all_unreadable_maps_are_listed(tmp_path: Path) -> None:
    folder = annotated_folder(tmp_path / "a")
    (folder / "annotators" / "bo" / "1.png").write_bytes(b"no image")
    Image.new("L", (50, 40)).save(folder / "annotators" / "cy" / "2.png")
    with pytest.raises(ProblemsError) as caught:
        agreement_of(read_annotators(folder))
    first, second = map(str, caught.value.problems)
    assert "not an image" in first
    assert "2.png: the map is 50×40, the map of ann 100×80" in second


def test_an_image_where_both_found_nothing_is_imported_with_empty_maps(tmp_path: Path) -> None:
    box = Annotation(Box(2, 3, 8, 9), "crack", "ann")
    records = [
        AnnotatedImage("0.png", None, (box,), annotators=("ann", "bo")),
        AnnotatedImage("1.png", None, (), annotators=("ann", "bo")),
    ]
    for name in ("0.png", "1.png"):
        Image.new("RGB", (20, 16)).save(tmp_path / name)
    source = ImportedAnnotations("test", tmp_path, lambda log: iter(records))
    write_import(source, tmp_path, tmp_path / "out", ImportOptions())
    found = agreement_of(read_annotators(tmp_path / "out"))
    assert found.pairs[["images", "both_empty", "dice"]].to_numpy().tolist() == [[2, 1, 0]]
    table = pd.read_csv(tmp_path / "out" / "manifest.csv", keep_default_na=False)
    assert table["saliency"].tolist()[1] == ""
    assert table["annotated"].tolist() == [1, 1]


def test_dice_iou_and_correlation_are_those_of_loops_over_pixels() -> None:
    a, b = np.random.default_rng(3).integers(0, 256, (2, 6, 7)).astype(np.uint8)
    pair = compare([("one", {"a": a, "b": b})]).pairs.iloc[0]
    inside = [(int(x >= 128), int(y >= 128)) for x, y in zip(a.ravel(), b.ravel(), strict=True)]
    both, either = sum(x * y for x, y in inside), sum(max(x, y) for x, y in inside)
    assert pair["dice"] == pytest.approx(2 * both / sum(x + y for x, y in inside))
    assert pair["iou"] == pytest.approx(both / either)
    assert pair["correlation"] == pytest.approx(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def test_images_without_marks_are_counted_apart() -> None:
    mark, empty = np.zeros((2, 5, 5), np.uint8)
    mark[1:3] = 255
    found = compare(
        [
            ("marked", {"a": mark, "b": mark}),
            ("empty", {"a": empty, "b": empty}),
            ("half", {"a": mark, "b": empty}),
            ("alone", {"a": mark}),
        ]
    )
    assert found.pairs[["images", "both_empty", "dice"]].to_numpy().tolist() == [[3, 1, 0.5]]
    assert found.images["file"].tolist() == ["half", "marked", "empty"]
    assert found.images["all_empty"].tolist() == [0, 0, 1]
    assert np.isnan(found.images["dice"].iloc[-1])
