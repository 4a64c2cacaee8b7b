"""Calibration: its formulas, the folder that the command writes, and the model in use."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import log_softmax, softmax

import preceptor
from preceptor.deploy.calibrate import fit_calibration
from preceptor.deploy.network import find_calibration, steps_at
from preceptor.deploy.prediction import Calibration
from preceptor.errors import InputError
from preceptor.models.build import load_model
from preceptor.utils.results import write_checksums
from tests.calibrated import TEMPERATURE, Calibrated, calibrated_array
from tests.commands import assert_refused, here
from tests.drawn_labels import drawn_labels
from tests.model_folders import model_folder


@pytest.mark.parametrize(("classes", "positive"), [(2, 1), (2, 0), (2, None), (4, None)])
def test_temperature_scaling_is_that_of_logits(classes: int, positive: int | None) -> None:
    logits = np.random.default_rng(0).normal(size=(50, classes)) * 9
    given = softmax(logits, axis=1).astype(np.float32)
    found = calibrated_array(given, 2.5, positive)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, softmax(log_softmax(logits, 1) / 2.5, axis=1), atol=2e-6)


@pytest.mark.parametrize("temperature", [0.05, 0.3, 2.5, 20.0])
def test_decisions_are_those_of_the_uncalibrated_score(temperature: float) -> None:
    """Also for scores that are a threshold, and for their neighbors, printed or not."""
    drawn = np.random.default_rng(0).uniform(-40, 40, (60, 3))
    logits = np.concatenate([drawn, drawn / 10]).astype(np.float32)
    middle = softmax(logits, axis=1)
    edges = np.array([0, 1e-44, 1e-30, 0.4, 0.5, 0.999999, 1], np.float32)
    middle = np.concatenate([middle, np.stack([0 * edges, edges, 1 - edges], 1)])
    scores = middle[:, 1]
    given = []
    for end in (-1, 2):
        near = middle.copy()
        near[:, 1] = np.nextafter(scores, np.float32(end)).clip(0, 1)
        given.append(near)
    shares = np.concatenate([middle, *given])
    generator = np.random.default_rng(1)
    for _ in range(40):
        some = generator.choice(scores, 3).astype(np.float64)
        raw = {"eer": some[0], "a": some[1], "b": some[2], "c": np.nextafter(some[2], 0)}
        steps = {
            step.threshold: step.calibrated
            for step in steps_at(Calibration(temperature), raw.values())
        }
        known = {rule: steps[value] for rule, value in raw.items()}
        found = calibrated_array(shares, temperature, 1, raw.values())[:, 1]
        printed = np.array([float(str(value)) for value in found])
        for rule, threshold in raw.items():
            expected = shares[:, 1].astype(np.float64) >= threshold
            np.testing.assert_array_equal(found.astype(np.float64) >= known[rule], expected)
            np.testing.assert_array_equal(printed >= known[rule], expected)


def test_thresholds_beyond_all_scores_are_no_steps() -> None:
    assert steps_at(Calibration(2.0), [1.7, -0.2]) == []


def test_the_other_classes_keep_their_ratios() -> None:
    given = np.array([[0.1, 0.3, 0.6], [0.0, 1.0, 0.0]], np.float32)
    found = calibrated_array(given, 3.0, 1)
    assert found[0, 0] / found[0, 2] == pytest.approx(1 / 6, rel=1e-5)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)
    assert np.isfinite(found).all()


def test_an_overconfident_model_has_a_temperature() -> None:
    """Trained for long, a network is sure of its errors too: the best temperature was 64."""
    generator = np.random.default_rng(0)
    odds = generator.normal(size=400)
    labels = (generator.random(400) < 1 / (1 + np.exp(-odds))).astype(np.int64)
    sure = 1 / (1 + np.exp(-64 * odds))
    given = np.stack([1 - sure, sure], 1).astype(np.float32)
    assert 30 < fit_calibration(given, labels, 1).temperature < 200


def test_scores_that_say_nothing_have_none() -> None:
    generator = np.random.default_rng(0)
    score = generator.random(400).astype(np.float32)
    labels = (generator.random(400) < 1 - score).astype(np.int64)
    with pytest.raises(InputError, match="the scores say nothing"):
        fit_calibration(np.stack([1 - score, score], 1), labels, 1)


def images_of(calibrated: Calibrated, split: str) -> list[Path]:
    table = pd.read_csv(calibrated.manifest)
    return [calibrated.manifest.parent / name for name in table["path"][table["split"] == split]]


def test_the_temperature_of_the_labels_is_found(calibrated: Calibrated) -> None:
    calibration = find_calibration(calibrated.folder)
    assert calibration is not None
    assert calibration.temperature == pytest.approx(TEMPERATURE, rel=0.35)
    assert "Temperature scaling, T = 2." in calibrated.printed
    card = (calibrated.folder / "README.md").read_text()
    for text in ("## Calibration", "Fitted on 240", "T = 2.", "eer 0.5"):
        assert text in card


def test_the_model_itself_is_unchanged(calibrated: Calibrated) -> None:
    for name in ("model.json", "model.safetensors"):
        assert (calibrated.model / name).read_bytes() == (calibrated.folder / name).read_bytes()
    assert not (calibrated.model / "calibration.json").exists()
    assert load_model(calibrated.folder).spec == load_model(calibrated.model).spec


@pytest.mark.parametrize("threshold", ["eer", "fdr5%", "fdr1%"])
def test_scores_change_and_decisions_do_not(calibrated: Calibrated, threshold: str) -> None:
    images = images_of(calibrated, "test")
    plain = preceptor.load(calibrated.model, device="cpu", batch_size=64, threshold=threshold)(
        images
    )
    ours = preceptor.load(calibrated.folder, device="cpu", batch_size=64, threshold=threshold)(
        images
    )
    assert plain.decision == ours.decision
    assert len(set(plain.decision)) == 2
    assert (np.argsort(plain.score) == np.argsort(ours.score)).all()
    assert abs(plain.score - ours.score).max() > 0.05
    np.testing.assert_allclose(ours.probabilities.sum(1), 1, atol=1e-6)
    np.testing.assert_array_equal(ours.raw_map, plain.raw_map)


def test_models_without_a_positive_class(tmp_path: Path) -> None:
    model = model_folder(tmp_path / "model", "test_resnet", classes=("a", "b", "c"), positive=None)
    manifest = drawn_labels(tmp_path / "data", model, 2.0, {"train": 20, "val": 60})
    where = ("--out", tmp_path / "out", "--device", "cpu")
    here("calibrate", model, manifest, *where)
    found = preceptor.load(tmp_path / "out", device="cpu", batch_size=64)(
        np.zeros((9, 9, 3), np.uint8)
    )
    assert sum(found.probabilities.values()) == pytest.approx(1, abs=1e-6)


def test_bad_input_is_one_line(calibrated: Calibrated, tmp_path: Path) -> None:
    where = ("--out", tmp_path / "out")
    run = ("calibrate", calibrated.model, calibrated.manifest)
    assert_refused(here(*run, "--out", calibrated.model), ["exists already"])
    inside = calibrated.model / "calibrated"
    assert_refused(here(*run, "--out", inside), ["--out", "is inside", "which is copied"])
    assert not inside.exists()
    again = here("calibrate", calibrated.folder, calibrated.manifest, *where)
    assert_refused(again, ["is calibrated already"])
    assert_refused(here("calibrate", tmp_path, calibrated.manifest, *where), ["no model.json"])
    table = pd.read_csv(calibrated.manifest)
    table["path"] = [str(calibrated.manifest.parent / name) for name in table["path"]]
    table["label"] = table["label"].where(table["split"] != "val", "real")
    table.to_csv(tmp_path / "one.csv", index=False)
    lacks = ("no validation images of the class 'fake'",)
    assert_refused(here("calibrate", calibrated.model, tmp_path / "one.csv", *where), lacks)
    assert not (tmp_path / "out").exists()


def test_a_changed_removed_or_added_calibration_is_refused(
    calibrated: Calibrated, tmp_path: Path
) -> None:
    folder = shutil.copytree(calibrated.folder, tmp_path / "changed")
    file = folder / "calibration.json"
    for change in (lambda: file.write_text(file.read_text() + " "), file.unlink):
        change()
        with pytest.raises(InputError, match="does not match its checksum"):
            preceptor.load(folder, device="cpu")
    folder = shutil.copytree(calibrated.model, tmp_path / "added")
    shutil.copy(calibrated.folder / "calibration.json", folder)
    with pytest.raises(InputError, match="added after the model was calibrated"):
        preceptor.load(folder, device="cpu")


@pytest.mark.parametrize(
    ("key", "value"),
    [("temperature", 0), ("temperature", "2"), ("other", 3)],
)
def test_an_invalid_calibration_is_one_line(
    calibrated: Calibrated, tmp_path: Path, key: str, value: object
) -> None:
    folder = shutil.copytree(calibrated.folder, tmp_path / "copy")
    file = folder / "calibration.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))
    write_checksums(folder, ["model.json", "model.safetensors", file.name])
    with pytest.raises(InputError, match=re.escape(f"{file}: ")) as caught:
        preceptor.load(folder, device="cpu")
    assert "\n" not in str(caught.value)
