"""ONNX files of models: outputs, sizes, metadata, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
import onnx
import onnxruntime

from preceptor.deploy.export import (
    ExportError,
    ExportSettings,
    Parity,
    export_model,
    model_outputs,
    synthetic_images,
)
from preceptor.deploy.prediction import decide, normalized
from preceptor.errors import InputError
from preceptor.models.model_folder import load_model
from tests.exported_files import CARD, model_folder, onnx_file


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def test_the_file_computes_what_the_model_does_for_any_batch_and_size() -> None:
    file = onnx_file()
    assert file.result.dynamic_size is True
    run, model = session(file.path), load_model(file.folder)
    expected_of = model_outputs(model, maps=True)
    generator = np.random.default_rng(1)
    for count, height, width in ((1, 64, 64), (9, 64, 64), (2, 96, 160)):
        batch = generator.integers(0, 256, (count, 3, height, width), dtype=np.uint8)
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
        ("image", "tensor(uint8)", ["batch", 3, "height", "width"])
    ]
    assert {one.name: one.shape for one in run.get_outputs()} == {
        "probabilities": ["batch", 2],
        "score": ["batch"],
        "decision": ["batch"],
        "map": ["batch", "map_height", "map_width"],
        "raw_map": ["batch", "map_height", "map_width"],
    }


def test_the_metadata_describes_the_model_and_names_no_place_of_this_machine() -> None:
    file = onnx_file()
    metadata = session(file.path).get_modelmeta().custom_metadata_map
    assert json.loads(metadata["preceptor"])["thresholds"] == {"eer": 0.5}
    assert metadata["model_card"] == CARD
    assert json.loads(metadata["preceptor_export"]) == {
        "threshold": 0.5, "input_type": "uint8", "dynamic_size": True, "precision": "float32"
    }  # fmt: skip
    content = file.path.read_bytes()
    for place in (str(Path(torch.__file__).parents[1]), str(Path(__file__).parents[2])):
        assert place.encode() not in content


def test_the_file_is_valid_onnx() -> None:
    onnx.checker.check_model(onnx.load(onnx_file().path), full_check=True)


def test_without_a_map_and_with_a_fixed_size(tmp_path: Path) -> None:
    out = tmp_path / "model.onnx"
    settings = ExportSettings("onnx", maps=False, input_type="float32", dynamic_size=False)
    found = export_model(model_folder("three", positive=None), out, settings)
    assert (found.dynamic_size, found.threshold, found.parity.maps) == (False, None, None)
    run = session(out)
    assert [(one.type, one.shape) for one in run.get_inputs()] == [
        ("tensor(float)", ["batch", 3, 64, 64])
    ]
    assert [one.name for one in run.get_outputs()] == ["probabilities", "score", "decision"]
    images = synthetic_images(load_model(model_folder("three", positive=None)).spec.image_format)
    batch = images.read(images.positions).astype(np.float32)
    probabilities, score, decision = run.run(None, {"image": batch})
    assert (score == probabilities.max(1)).all()
    assert (decision == probabilities.argmax(1)).all()


def test_an_export_that_differs_is_refused() -> None:
    from preceptor.deploy.export import accept

    accept(Parity(9, 1e-5, 9e-5, 0))
    with pytest.raises(ExportError, match=r"of a map 2\.0e-04 over 9 images"):
        accept(Parity(9, 1e-5, 2e-4, 0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (ExportSettings("tflite"), "unknown; write onnx, torch_export"),  # type: ignore[arg-type]
        (ExportSettings("onnx", threshold="fdr5%"), "no such threshold"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    tmp_path: Path, settings: ExportSettings, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        export_model(model_folder("plain"), tmp_path / "out", settings)
    assert not list(tmp_path.iterdir())
