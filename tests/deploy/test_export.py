"""`preceptor export`: ONNX files, what they compute, and what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

pytest.importorskip("onnxscript", reason="the extra onnx is not installed")

from preceptor.config.settings import ImageFormat
from preceptor.data.geometry import normalized
from preceptor.deploy.export import (
    ExportError,
    Outputs,
    Parity,
    export_model,
    map_difference,
    measure,
    model_outputs,
    synthetic_images,
)
from preceptor.deploy.prediction import decide
from preceptor.errors import InputError
from preceptor.models.build import load_model
from tests.commands import assert_refused, here
from tests.exported_files import model_folder, onnx_file


def test_a_file_is_checked_on_generated_images() -> None:
    file = onnx_file()
    assert (file.said.code, file.said.err) == (0, "")
    assert f"wrote {file.path}" in file.said.out
    assert "decision: positive at a score of 0.5 or more" in file.said.out
    assert "on 64 generated images" in file.said.out
    assert_refused(here("export", file.folder, "--out", file.path), ["exists already"])


def batch_of(folder: Path, count: int) -> np.ndarray:  # type: ignore[type-arg]
    return synthetic_images(load_model(folder).spec.image_format, count)


def test_a_map_with_a_derivative_is_refused(tmp_path: Path) -> None:
    folder = model_folder("gradcam", "normed")
    with pytest.raises(InputError, match="its map is Grad-CAM, which ONNX lacks; add --no-map"):
        export_model(folder, tmp_path / "out.onnx")


def outputs(raw: NDArray[np.float32]) -> Outputs:
    return Outputs(np.full((len(raw), 2), 0.5, np.float32), normalized(raw), raw)


def test_a_nearly_constant_map_is_compared_on_the_scale_of_its_values() -> None:
    raw = np.full((1, 2, 2), 100, np.float32)
    raw[0, 0, 0] += 0.01  # normalized, a rounding error of 1e-4 would be 1e-2
    other = raw.copy()
    other[0, 1, 1] += 1e-4
    assert np.abs(normalized(raw) - normalized(other)).max() > 5e-3
    assert map_difference(outputs(raw), outputs(other)) == pytest.approx(1e-4, rel=0.2)
    assert map_difference(outputs(raw), outputs(other + 1)) > 0.9


def test_nan_is_no_parity() -> None:
    images = synthetic_images(ImageFormat(8), 20)

    def good(batch: NDArray[np.uint8]) -> Outputs:
        return outputs(np.arange(4 * len(batch), dtype=np.float32).reshape(-1, 2, 2))

    def bad(batch: NDArray[np.uint8]) -> Outputs:
        found = good(batch)
        return found._replace(map=np.where(len(batch) == 1, np.nan, found.map))  # type: ignore[arg-type]

    assert measure(good, good, images).within_tolerance
    assert not measure(good, bad, images).within_tolerance
    assert not Parity(1, math.nan, None).within_tolerance


def session(path: Path) -> Any:
    import onnxruntime  # which starts a thread: a process that has one is not forked

    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def test_the_file_computes_what_the_model_does_for_any_batch() -> None:
    file = onnx_file()
    run, model = session(file.path), load_model(file.folder)
    expected_of = model_outputs(model, maps=True)
    generator = np.random.default_rng(1)
    for count in (1, 9):
        batch = generator.integers(0, 256, (count, 3, 64, 64), dtype=np.uint8)
        probabilities, score, decision, maps, raw = run.run(None, {"image": batch})
        expected = expected_of(batch)
        np.testing.assert_allclose(probabilities, expected.probabilities, atol=1e-5)
        np.testing.assert_allclose(maps, normalized(raw), atol=1e-6)
        np.testing.assert_allclose(raw, expected.raw_map, rtol=1e-4, atol=1e-5)
        assert (score == probabilities[:, 1]).all()
        assert (decision == decide(probabilities, 1, 0.5)).all()


def test_inputs_and_outputs_have_names_and_named_sizes() -> None:
    run = session(onnx_file().path)
    assert [(one.name, one.type, one.shape) for one in run.get_inputs()] == [
        ("image", "tensor(uint8)", ["batch", 3, 64, 64])
    ]
    assert {one.name: one.shape for one in run.get_outputs()} == {
        "probabilities": ["batch", 2],
        "score": ["batch"],
        "decision": ["batch"],
        "map": ["batch", 2, 2],
        "raw_map": ["batch", 2, 2],
    }


def test_the_metadata_describes_the_model_and_names_no_place_of_this_machine() -> None:
    file = onnx_file()
    metadata = session(file.path).get_modelmeta().custom_metadata_map
    assert json.loads(metadata["preceptor"])["thresholds"] == {"eer": 0.5}
    content = file.path.read_bytes()
    for place in (str(Path(torch.__file__).parents[1]), str(Path(__file__).parents[2])):
        assert place.encode() not in content


def test_the_file_is_valid_onnx() -> None:
    import onnx

    onnx.checker.check_model(onnx.load(onnx_file().path), full_check=True)


def test_without_a_map(tmp_path: Path) -> None:
    folder, out = model_folder("three", positive=None), tmp_path / "model.onnx"
    shown = here("export", folder, "--out", out, "--no-map")
    assert shown.code == 0
    run = session(out)
    assert [(one.type, one.shape) for one in run.get_inputs()] == [
        ("tensor(uint8)", ["batch", 3, 64, 64])
    ]
    assert [one.name for one in run.get_outputs()] == ["probabilities", "score", "decision"]
    batch = batch_of(folder, 16)
    probabilities, score, decision = run.run(None, {"image": batch})
    assert (score == probabilities.max(1)).all()
    assert (decision == probabilities.argmax(1)).all()


def test_an_export_that_differs_or_has_no_threshold_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="no such threshold"):
        export_model(model_folder("small"), tmp_path / "out", threshold="fdr5%")
    monkeypatch.setattr("preceptor.deploy.export.TOLERANCE", -1.0)
    with pytest.raises(ExportError, match="over 64 images, above -1; nothing was written"):
        export_model(model_folder("small"), tmp_path / "out", maps=False)
    assert not list(tmp_path.iterdir())
