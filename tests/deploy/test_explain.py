"""`preceptor explain`: what is computed, and the page."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import preceptor
from preceptor.deploy.explain import Explanation, explain, explain_page
from preceptor.models.build import load_model
from tests.calibrated import Calibrated
from tests.commands import assert_refused, here


@pytest.fixture(scope="module")
def explained(calibrated: Calibrated) -> list[Explanation]:
    """A training image and a test image."""
    folder = calibrated.manifest.parent
    return explain(
        preceptor.load(calibrated.folder, device="cpu", batch_size=32),
        load_model(calibrated.folder),
        [folder / "train-3.png", folder / "test-0.png"],
        max_masks=300,
    )


def test_the_maps_are_of_the_decision(calibrated: Calibrated, explained: list[Explanation]) -> None:
    predictor = preceptor.load(calibrated.model, device="cpu", batch_size=1)
    for one in explained:
        assert one.prediction.map_class == one.prediction.decision
        assert -1 <= one.agreement <= 1
        assert one.rise.shape == one.prediction.raw_map.shape
        assert one.prediction.score != predictor(one.path).score


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_the_decided_class_is_explained(calibrated: Calibrated, threshold: float) -> None:
    """The same image, once decided as positive and once as negative."""
    predictor = preceptor.load(calibrated.folder, device="cpu", threshold=threshold)
    image = calibrated.manifest.parent / "test-0.png"
    found = explain(predictor, load_model(calibrated.folder), [image], max_masks=384)
    (one,) = found
    decided = "fake" if threshold == 0 else "real"
    assert one.prediction.decision == one.prediction.map_class == decided
    raw = predictor(image, map_of=decided).raw_map
    np.testing.assert_array_equal(one.prediction.raw_map, raw)
    page = explain_page(found, predictor.info, predictor.threshold, "model")
    assert f"Maps of {decided}" in page
    assert ("has not settled" in page) == (one.rise_error > 0.05)


def test_a_page(calibrated: Calibrated, tmp_path: Path) -> None:
    image = calibrated.manifest.parent / "test-0.png"
    out = tmp_path / "page.html"
    run = ("explain", calibrated.folder, image, "--out", out, "--masks", 300)
    found = here(*run)
    assert found.code == 0
    assert f"{image}: " in found.out
    page = out.read_text()
    assert page.count("<figure>") == 3
    for text in ("Decision: ", "RISE", "Correlation of both maps"):
        assert text in page
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    assert_refused(here(*run), ["exists already"])


def test_pages_of_several_images_and_other_models(
    models: dict[str, Path], calibrated: Calibrated, tmp_path: Path
) -> None:
    images = [calibrated.manifest.parent / f"test-{number}.png" for number in (0, 1)]
    for name in ("three", "gray", "gradcam"):
        out = tmp_path / f"{name}.html"
        assert here("explain", models[name], *images, "--out", out, "--masks", 128).code == 0
        page = out.read_text()
        assert len(set(re.findall(r'id="([^"]+)"', page))) == len(re.findall(r' id="', page))


def test_bad_input_is_one_line(calibrated: Calibrated, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_text("no image")
    out = ("--out", tmp_path / "page.html")
    good = calibrated.manifest.parent / "test-0.png"
    done = here("explain", calibrated.folder, good, tmp_path / "bad.png", *out)
    assert_refused(done, ["bad.png"])
