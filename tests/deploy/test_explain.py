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


def test_the_curves_start_at_the_score(
    calibrated: Calibrated, explained: list[Explanation]
) -> None:
    predictor = preceptor.load(calibrated.model, device="cpu", batch_size=1)
    for one in explained:
        whole = one.prediction.probabilities[one.prediction.decision]
        assert one.prediction.map_class == one.prediction.decision
        assert one.cam_curve.probabilities[0] == pytest.approx(whole, abs=1e-5)
        assert one.cam_curve.reversed_probabilities[0] == pytest.approx(whole, abs=1e-5)
        assert one.cam_curve.reversed_probabilities[-1] == one.cam_curve.probabilities[-1]
        assert one.cam_curve.shares[[0, -1]].tolist() == [0, 1]
        assert 0 <= one.rise_curve.area <= 1
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
    whole = one.prediction.probabilities[decided]
    assert one.cam_curve.probabilities[0] == pytest.approx(whole, abs=1e-5)
    page = explain_page(found, predictor.info, predictor.threshold, "model")
    assert f"Deletion: probability of {decided}" in page
    assert f"Maps of {decided}" in page
    assert f"For the whole image it is {whole:.3f}" in page
    areas = f"{one.cam_curve.area:.2f} ({one.cam_curve.reversed_area:.2f})"
    assert f"decision map {areas}" in page
    assert ("has not settled" in page) == (one.rise_error > 0.05)


def test_a_page(calibrated: Calibrated, tmp_path: Path) -> None:
    image = calibrated.manifest.parent / "test-0.png"
    out = tmp_path / "page.html"
    run = ("explain", calibrated.folder, image, "--out", out, "--masks", 300)
    found = here(*run)
    assert found.code == 0
    assert f"{image}: " in found.out
    page = out.read_text()
    assert page.count("<figure>") == 3 + 1
    for text in ("Decision: ", "RISE", "Area under"):
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
    (tmp_path / "model.onnx").touch()
    assert_refused(
        here("explain", tmp_path / "model.onnx", tmp_path / "bad.png", *out),
        ["name its model folder"],
    )
