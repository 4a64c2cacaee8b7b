"""Exported files, run by ONNX Runtime alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxscript", reason="the extra onnx is not installed")

import preceptor
from preceptor.deploy.export import export_model
from preceptor.deploy.predict_files import row_of
from preceptor.deploy.prediction import Calibration
from tests.calibrated import add_calibration, calibrated_array
from tests.exported_files import model_folder


def images(count: int, side: int = 64) -> np.ndarray:  # type: ignore[type-arg]
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def outputs(file: Path, batch: np.ndarray) -> list[np.ndarray]:  # type: ignore[type-arg]
    """Probabilities and decisions of a file."""
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    image = batch.transpose(0, 3, 1, 2).copy()
    found: list[np.ndarray] = session.run(["probabilities", "decision"], {"image": image})  # type: ignore[type-arg]
    return found


def test_a_file_decides_by_the_threshold_of_its_export(tmp_path: Path) -> None:
    folder, batch = model_folder("small"), images(6)
    score = preceptor.load(folder, device="cpu")(list(batch), maps=False).score
    threshold = float(np.sort(score)[3:5].mean())
    export_model(folder, tmp_path / "model.onnx", threshold=threshold, maps=False)
    probabilities, decision = outputs(tmp_path / "model.onnx", batch)
    np.testing.assert_allclose(probabilities[:, 1], score, atol=1e-5)
    assert decision.tolist() == (score >= threshold).astype(int).tolist()


def test_calibration_changes_probabilities_and_no_decision(tmp_path: Path) -> None:
    """Of the folder and the file, with each threshold: of scores equal to it, and as written."""
    small, batch = model_folder("small"), images(24)
    export_model(small, tmp_path / "plain.onnx", maps=False)
    before = {
        "folder": preceptor.load(small, device="cpu")(list(batch), maps=False).probabilities,
        "file": outputs(tmp_path / "plain.onnx", batch)[0],
    }
    for name, given in before.items():
        scores = given[:, 1]
        changed = calibrated_array(given, 0.3, 1)
        assert abs(given - changed).max() > 0.01
        thresholds = {"eer": float(scores[0]), "fdr=0.01": float(scores[1]), "fdr=0.05": 0.5}
        folder = shutil.copytree(small, tmp_path / f"of_{name}")
        values = json.loads((folder / "model.json").read_text()) | {"thresholds": thresholds}
        (folder / "model.json").write_text(json.dumps(values))
        add_calibration(folder, Calibration(0.3))
        for rule, threshold in thresholds.items():
            expected = scores.astype(np.float64) >= threshold
            if name == "file":
                export_model(folder, tmp_path / "model.onnx", threshold=rule, maps=False)
                probabilities, decision = outputs(tmp_path / "model.onnx", batch)
                np.testing.assert_allclose(probabilities, changed, atol=1e-5)
                assert decision.tolist() == expected.astype(int).tolist()
                continue
            predictor = preceptor.load(folder, device="cpu", threshold=rule)
            found = predictor(list(batch), maps=False)
            np.testing.assert_allclose(found.probabilities, changed, atol=1e-5)
            assert [one == "fake" for one in found.decision] == expected.tolist()
            rows = [row_of("a.png", one) for one in found]
            known = predictor.info.thresholds[rule]
            assert [row["score"] >= known for row in rows] == expected.tolist()
