from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from preceptor.data.annotators import agreement_of, people_of, read_annotators
from preceptor.data.importers.options import ImportOptions
from preceptor.data.importers.shapes import AnnotatedImage, Annotation, Box, ImportedAnnotations
from preceptor.data.importers.write import write_import
from preceptor.errors import InputError, ProblemsError
from preceptor.report.agreement_page import write_agreement
from tests.data.annotator_folders import annotated_folder


def test_maps_of_a_folder_are_found_with_their_images(tmp_path: Path) -> None:
    maps = read_annotators(annotated_folder(tmp_path / "a"))
    assert list(maps.people) == ["ann", "bo", "cy"]
    assert maps.files["3.png"] == ("ann", "bo", "cy")
    assert maps.files["4.png"] == ("ann", "bo")
    assert maps.table.loc["4.png", "name"] == "images/4.png"
    stored = np.asarray(Image.open(tmp_path / "a" / "annotators" / "bo" / "3.png"))
    assert (maps.maps("3.png")["bo"] == stored).all()


def test_names_that_are_no_file_names_come_from_the_record(tmp_path: Path) -> None:
    folder = annotated_folder(tmp_path / "a")
    (folder / "import.json").write_text(json.dumps({"annotators": {"Bo/B.": "bo"}}))
    assert list(people_of(folder)) == ["Bo/B.", "ann", "cy"]


def test_a_name_that_is_not_utf_8_is_escaped(tmp_path: Path) -> None:
    folder = annotated_folder(tmp_path / "a")
    (folder / "annotators" / "bo").rename(folder / "annotators" / os.fsdecode(b"b\xf6"))
    (folder / "import.json").unlink()
    maps = read_annotators(folder)
    assert list(maps.people) == ["ann", "b\\udcf6", "cy"]
    found = agreement_of(maps)
    assert write_agreement(maps, *found, tmp_path / "out", shown=1)
    assert "b\\udcf6" in (tmp_path / "out" / "people.csv").read_text(encoding="utf-8")


def test_an_image_whose_merged_map_is_empty_is_found_by_its_name(tmp_path: Path) -> None:
    folder = annotated_folder(tmp_path / "a")
    table = pd.read_csv(folder / "manifest.csv", keep_default_na=False)
    table["name"] = [f"{number}.jpg" for number in range(len(table))]
    table.loc[2, "saliency"] = ""
    table.to_csv(folder / "manifest.csv", index=False)
    assert read_annotators(folder).table.loc["2.png", "name"] == "2.jpg"


def test_displacements_of_large_images_are_in_cells(tmp_path: Path) -> None:
    hands = {"ann": (0, 0), "bo": (24, 0), "cy": (0, 0)}
    maps = read_annotators(annotated_folder(tmp_path / "a", hands, 6, (520, 500)))
    seen: list[tuple[int, int]] = []
    found, cell = agreement_of(maps, lambda done, total: seen.append((done, total)))
    assert cell == 2
    assert found.people[1].dx * cell == pytest.approx(24, abs=1)
    assert found.people[1].is_shifted
    assert seen[-1] == (6, 6)


def test_a_folder_with_one_annotator_is_refused(tmp_path: Path) -> None:
    folder = annotated_folder(tmp_path / "a", {"ann": (0, 0)})
    with pytest.raises(InputError, match="maps of 1 annotator; agreement needs two"):
        read_annotators(folder)
    with pytest.raises(InputError, match=r"there is no manifest\.csv"):
        read_annotators(tmp_path)


def test_all_unreadable_maps_are_listed(tmp_path: Path) -> None:
    folder = annotated_folder(tmp_path / "a")
    (folder / "annotators" / "bo" / "1.png").write_bytes(b"no image")
    Image.new("L", (50, 40)).save(folder / "annotators" / "cy" / "2.png")
    with pytest.raises(ProblemsError) as caught:
        agreement_of(read_annotators(folder))
    first, second = map(str, caught.value.problems)
    assert "not an image" in first
    assert "2.png: the map is 50×40, that of ann 100×80" in second


def test_an_image_where_both_found_nothing_is_imported_with_empty_maps(tmp_path: Path) -> None:
    box = Annotation(Box(2, 3, 8, 9), "crack", "ann")
    records = [
        AnnotatedImage("0.png", None, (box,), annotators=("ann", "bo")),
        AnnotatedImage("1.png", None, (), annotators=("ann", "bo")),
    ]
    for name in ("0.png", "1.png"):
        Image.new("RGB", (20, 16)).save(tmp_path / name)
    source = ImportedAnnotations("test", tmp_path, lambda log: iter(records))
    write_import(source, tmp_path, tmp_path / "out", ImportOptions(merge="staple"))
    found, _ = agreement_of(read_annotators(tmp_path / "out"))
    assert (found.pairs[0].images, found.pairs[0].empty, found.pairs[0].dice) == (2, 1, 0)
    table = pd.read_csv(tmp_path / "out" / "manifest.csv", keep_default_na=False)
    assert table["saliency"].tolist()[1] == ""
    assert table["annotated"].tolist() == [1, 1]


def test_the_manifest_of_a_person_has_the_images_and_maps_of_this_person(tmp_path: Path) -> None:
    maps = read_annotators(annotated_folder(tmp_path / "a"))
    own = maps.manifest_of("cy").table
    assert own["name"].tolist() == [f"images/{n}.png" for n in (0, 1, 2, 3, 5, 6, 7, 8)]
    assert own.loc[3, "saliency"] == str(tmp_path / "a" / "annotators" / "cy" / "3.png")
    with pytest.raises(InputError, match="annotator 'di'; known: ann, bo, cy"):
        maps.manifest_of("di")
