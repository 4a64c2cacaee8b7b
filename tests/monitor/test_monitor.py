"""`preceptor monitor` on logs of `preceptor predict`, in all formats."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from preceptor.errors import InputError
from preceptor.monitor.prediction_log import read_log
from tests.calibrated import Calibrated
from tests.commands import Outcome, assert_refused, here

CLASSES = ("real", "fake")


def predicted(calibrated: Calibrated, inputs: object, out: Path, log: str = "features") -> Outcome:
    where = ("--out", out, "--log", log, "--device", "cpu", "--batch-size", 32)
    return here("predict", calibrated.folder, inputs, *where)


@pytest.fixture(scope="module")
def test_images(calibrated: Calibrated, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """List of the test images as a manifest."""
    table = pd.read_csv(calibrated.manifest)
    table = table[table["split"] == "test"]
    table["path"] = [str(calibrated.manifest.parent / name) for name in table["path"]]
    file = tmp_path_factory.mktemp("list") / "test.csv"
    table[["path"]].to_csv(file, index=False)
    return file


def test_images_of_the_same_kind_do_not_drift(
    calibrated: Calibrated, test_images: Path, tmp_path: Path
) -> None:
    predicted(calibrated, test_images, tmp_path / "log.parquet")
    found = here("monitor", tmp_path / "log.parquet", "--reference", calibrated.folder)
    assert (found.code, found.out.splitlines()[0]) == (0, "No drift was found")
    page = (tmp_path / "log.html").read_text()
    assert "60 predictions" in page
    assert "240 validation images" in page
    assert "map entropy" in page


def test_images_of_another_kind_drift(calibrated: Calibrated, tmp_path: Path) -> None:
    generator = np.random.default_rng(7)
    (tmp_path / "other").mkdir()
    for number in range(60):
        pixels = generator.integers(0, 120, (32, 48, 3))
        pixels[8:16, 10:30] += 130
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "other" / f"{number}.png")
    (tmp_path / "other" / "bad.png").write_text("no image")
    assert predicted(calibrated, tmp_path / "other", tmp_path / "log.jsonl").code == 1
    found = here("monitor", tmp_path / "log.jsonl", "--reference", calibrated.folder)
    assert found.code == 3
    assert found.out.startswith("Drift of ")
    assert "A linear classifier tells the features of the log from those of validation" in found.out
    assert "1 image could not be read" in (tmp_path / "log.html").read_text()


def test_all_formats_are_the_same_log(
    calibrated: Calibrated, test_images: Path, tmp_path: Path
) -> None:
    for name in ("a.parquet", "a.jsonl"):
        predicted(calibrated, test_images, tmp_path / name)
    predicted(calibrated, test_images, tmp_path / "a.csv", "maps")
    first, *others = (
        read_log(tmp_path / name, CLASSES) for name in ("a.parquet", "a.jsonl", "a.csv")
    )
    assert len(first) == 60
    assert first.features is not None
    assert others[1].features is None
    np.testing.assert_allclose(others[0].features, first.features, rtol=1e-6)
    for other in others:
        for name in ("probabilities", "distances", "flagged", "maps"):
            one, two = getattr(first, name), getattr(other, name)
            np.testing.assert_allclose(two.astype(float), one.astype(float), rtol=1e-6)


def test_features_need_a_format_for_them(calibrated: Calibrated, tmp_path: Path) -> None:
    image = calibrated.manifest.parent / "test-0.png"
    outcome = predicted(calibrated, image, tmp_path / "log.csv")
    assert_refused(outcome, ["a CSV file has no features"])
    assert_refused(
        here("predict", calibrated.folder, image, "--log", "maps", "--map-of", "real"),
        ["remove --map-of or --log"],
    )


def test_bad_logs_are_one_line(calibrated: Calibrated, test_images: Path, tmp_path: Path) -> None:
    def run(log: Path, reference: Path = calibrated.folder) -> Outcome:
        return here("monitor", log, "--reference", reference)

    assert_refused(run(tmp_path / "none.csv"), ["there is no such file"])
    (tmp_path / "text.txt").write_text("path\n")
    assert_refused(run(tmp_path / "text.txt"), ["unknown format"])
    for name in ("damaged.parquet", "damaged.jsonl"):
        (tmp_path / name).write_bytes(b"\x00\x01{")
        assert_refused(run(tmp_path / name), ["no table of preceptor predict"])
    (tmp_path / "other.csv").write_text("path,score_cat,score_dog\na,0.1,0.9\n")
    assert_refused(run(tmp_path / "other.csv"), ["it has no column score_real"])
    (tmp_path / "empty.csv").write_text("path,score_real,score_fake,error\na,,,not an image\n")
    assert_refused(run(tmp_path / "empty.csv"), ["it has no predictions"])
    (tmp_path / "nan.csv").write_text("path,score_real,score_fake\na,0.1,\n")
    assert_refused(run(tmp_path / "nan.csv"), ["a probability is missing"])
    (tmp_path / "raw.csv").write_text("path,score_real,score_fake\na,0.1,0.9\n")
    assert_refused(run(tmp_path / "raw.csv"), ["it was made with another model"])
    predicted(calibrated, test_images, tmp_path / "log.parquet")
    assert_refused(run(tmp_path / "log.parquet", calibrated.model), ["the model has no reference"])
    with pytest.raises(InputError, match="score_cat"):
        read_log(tmp_path / "log.parquet", ("cat", "dog"))
