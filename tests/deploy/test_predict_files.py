"""`preceptor predict`: its tables and maps, bad images, and its errors."""

from __future__ import annotations

import csv
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import preceptor
from preceptor.data.images import decode_image, image_size
from preceptor.deploy.predict_files import predict_files
from preceptor.deploy.prediction import Prediction
from preceptor.report.palette import laid_over
from tests.commands import assert_refused, here
from tests.image_files import ImageFiles
from tests.small_files import files_up_to

DEVICE = ("--device", "cpu", "--batch-size", "4")


def read(file: Path) -> list[dict[str, Any]]:
    """Rows with the columns of the tables, None for missing cells."""
    with file.open(newline="", encoding="utf-8") as stream:
        return [{key: cell or None for key, cell in row.items()} for row in csv.DictReader(stream)]


def test_tables(models: dict[str, Path], image_files: ImageFiles, folder: Path) -> None:
    out = folder / "found.csv"
    done = here("predict", models["plain"], "scans", "--out", out, *DEVICE)
    good, bad = image_files.good, image_files.bad
    assert done.code == 1
    assert done.err.splitlines()[-1] == (
        f"error: {len(bad)} of {len(good) + len(bad)} images could not be read; the column error "
        f"of {out} has the reasons"
    )
    rows = read(out)
    files = sorted([*good, *bad])
    assert [row["path"] for row in rows] == [f"scans/{file.name}" for file in files]
    predictor = preceptor.load(models["plain"], device="cpu", batch_size=4)
    for row, file, found in zip(rows, files, predictor.stream(files, maps=False), strict=True):
        if file in bad:
            assert bad[file] in row["error"]
            assert f"bad image: {row['path']}: {row['error']}" in done.err
            assert row["score"] is row["decision"] is row["score_fake"] is None
        else:
            assert isinstance(found, Prediction)
            assert row["error"] is None
            assert row["decision"] == found.decision
            for key, value in (("score", found.score), ("score_fake", found.probabilities["fake"]),
                               ("score_real", found.probabilities["real"])):  # fmt: skip
                assert np.float32(row[key]) == np.float32(value)
    count = sum(row["decision"] == "fake" for row in rows)
    assert f"(real {len(good) - count}, fake {count})" in done.out
    assert not list(folder.glob(".found*"))


def test_without_an_output_the_table_is_printed(models: dict[str, Path], folder: Path) -> None:
    done = here("predict", models["plain"], "scans/a color.jpg", *DEVICE)
    assert (done.code, done.err) == (0, "")
    here("predict", models["plain"], "scans/a color.jpg", "--out", "a.csv", *DEVICE)
    assert done.out == (folder / "a.csv").read_text()


@pytest.mark.parametrize("kind", ["overlay", "png"])
def test_maps_as_pictures(
    models: dict[str, Path], image_files: ImageFiles, folder: Path, kind: str
) -> None:
    here("predict", models["letterbox"], "scans", "--out", "found.csv", "--maps", kind, *DEVICE)
    rows = [row for row in read(folder / "found.csv") if row["map"]]
    assert len(rows) == len(image_files.good)
    assert len(list((folder / "found-maps").rglob("*.png"))) == len(rows)
    predictor = preceptor.load(models["letterbox"], device="cpu")
    for row, file in zip(rows, image_files.good, strict=True):
        drawn = Image.open(folder / row["map"])
        assert drawn.size == image_size(file)
        saliency = predictor(file).map_at_image()
        if kind == "png":
            expected = (255 * saliency).round()
            assert drawn.mode == "L"
        else:
            expected = np.asarray(laid_over(decode_image(file), saliency), np.float32)
        difference = np.abs(np.asarray(drawn, np.float32) - expected)
        assert difference.mean() < 1  # batches of other sizes differ by rounding


def test_options_reach_the_predictor(models: dict[str, Path], folder: Path) -> None:
    model = models["plain"]
    done = here("predict", model, "scans/a color.jpg", "--threshold", "0.25", *DEVICE)
    found = preceptor.load(model, device="cpu", threshold=0.25)("scans/a color.jpg")
    cells = done.out.splitlines()[1].split(",")
    assert cells[1] == found.decision
    assert float(cells[2]) == pytest.approx(found.score, abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["scans", "--out", "a.xlsx"], "a.xlsx: unknown format; name it .csv"),
        (["scans", "--out", "none/a.csv"], "folder none does not exist"),
        (["scans", "--out", "taken.csv"], "taken.csv exists already"),
        (["scans", "--out", "b.csv", "--maps", "png"], "b-maps exists already"),
        (["scans", "--maps", "png"], "maps need an output; add --out FILE"),
        (["nowhere", "--out", "a.csv"], "nowhere: there is no such file"),
        (["scans", "--out", "a.csv", "--threshold", "fdr3%"], "'fdr3%': the model has no such"),
    ],
)
def test_requests_that_cannot_be_met(
    models: dict[str, Path], folder: Path, arguments: list[str], expected: str
) -> None:
    (folder / "taken.csv").write_text("")
    (folder / "b-maps").mkdir()
    assert_refused(here("predict", models["plain"], *arguments, "--device", "cpu"), [expected])
    assert not (folder / "a.csv").exists()


def test_without_a_good_image_there_are_no_maps(models: dict[str, Path], folder: Path) -> None:
    (folder / "text.png").write_text("no image")
    out = folder / "found.csv"
    done = here("predict", models["plain"], "text.png", "--out", out, "--maps", "png", *DEVICE)
    assert done.code == 1
    assert done.err.endswith(
        f"1 of 1 images could not be read; the column error of {out} has the reasons\n"
    )
    assert not (folder / "found-maps").exists()


def test_names_of_files_that_are_not_utf8(models: dict[str, Path], folder: Path) -> None:
    name = os.fsdecode(b"scans/\xff,\r.png")
    shutil.copy(folder / "scans" / "b color.png", name)
    out = folder / "found.csv"
    done = here("predict", models["plain"], name, "--out", out, "--maps", "png", *DEVICE)
    assert done.code == 0, done
    assert [row["path"] for row in read(out)] == ["scans/\\udcff,\\r.png"]


def test_a_full_disk_names_the_output(models: dict[str, Path], folder: Path) -> None:
    predictor = preceptor.load(models["plain"], device="cpu", batch_size=4)
    images = 100 * ["scans/b color.png"]
    out = folder / "a.csv"
    with pytest.raises(OSError, match="too large") as caught, files_up_to(5000):
        predict_files(predictor, images, out)
    assert caught.value.filename == str(out)
    assert not list(folder.glob("*a.csv*"))
    predict_files(predictor, images, out)
    assert len(read(out)) == 100
