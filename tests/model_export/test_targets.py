"""Targets other than ONNX, and the closed form of Grad-CAM."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import preceptor
from preceptor.model_export.calibrated import calibrated
from preceptor.model_export.deployed_model import Deployed, DeployedModel
from preceptor.model_export.export import ExportSettings, export_model
from preceptor.model_export.parity import model_outputs
from preceptor.model_export.torch_export import package_outputs, read_package
from preceptor.model_export.traced import example_images, takes_other_sizes, trace
from preceptor.models.build import build_model
from preceptor.models.model_folder import MODEL_FILES, load_model, save_model
from preceptor.predictor.calibration import Calibration
from preceptor.predictor.reference import Reference
from preceptor.predictor.reference_files import REFERENCE_FILES, write_reference
from preceptor.runtime.checksums import write_checksums
from tests.exported_files import CARD, model_folder


def test_a_copied_folder_is_the_same_model(tmp_path: Path) -> None:
    folder, out = model_folder("plain"), tmp_path / "copy"
    found = export_model(folder, out, ExportSettings("folder"))
    assert (found.parity.probabilities, found.parity.maps, found.dynamic_size) == (0, 0, None)
    assert (out / "README.md").read_text() == CARD
    assert json.loads((out / "model.json").read_text()) == json.loads(
        (folder / "model.json").read_text()
    )


def test_sizes_that_torch_cannot_write_are_fixed(tmp_path: Path) -> None:
    """The padding of strides that were replaced has a ceiling of the size in its graph."""
    model = build_model(
        "test_byobnet", ("a", "b"), input_size=32, backbone_args={"output_stride": 8}
    )
    save_model(model, tmp_path / "model")
    settings = ExportSettings("torch_export")
    found = export_model(tmp_path / "model", tmp_path / "model.pt2", settings)
    assert (found.dynamic_size, found.parity.within_tolerance) == (False, True)


@pytest.mark.parametrize("name", ["temperature", "isotonic"])
def test_the_calibration_is_part_of_the_export(tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(model_folder("plain"), tmp_path / "model")
    calibration = Calibration("temperature", 2.5)
    if name == "isotonic":
        calibration = Calibration("isotonic", knots=(-2.0, 0.0, 2.0), values=(0.0, 0.2, 1.0))
    none, labels = np.zeros((0, 2), np.float32), np.zeros(0, np.int64)
    reference = Reference(calibration, "energy", 0.1, None, none, labels, np.linspace(-5, 5, 9))
    write_reference(reference, folder)
    write_checksums(folder, (*MODEL_FILES, *REFERENCE_FILES))
    out = tmp_path / "model.pt2"
    assert export_model(folder, out, ExportSettings("torch_export")).parity.within_tolerance
    deployed = DeployedModel(load_model(folder), 0.5, reference=reference)
    batch = example_images(deployed, 6, torch.uint8).numpy()
    found = package_outputs(read_package(out), torch.uint8, deployed.outputs)(batch)
    plain = model_outputs(load_model(folder), maps=False)(batch).probabilities
    expected = calibration(plain, 1)
    assert abs(plain - expected).max() > 0.01
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-5)
    export_model(folder, tmp_path / "copy", ExportSettings("folder"))
    predicted = preceptor.load(tmp_path / "copy", device="cpu")(batch.transpose(0, 2, 3, 1))
    np.testing.assert_allclose(predicted.probabilities, expected, atol=1e-5)


@pytest.mark.parametrize("positive", [None, 0, 2])
@pytest.mark.parametrize("name", ["temperature", "isotonic"])
def test_the_graph_has_the_formulas_of_the_calibration(name: str, positive: int | None) -> None:
    shares = np.random.default_rng(0).dirichlet([0.3, 0.3, 0.3], 200).astype(np.float32)
    shares = np.concatenate([shares, np.eye(3, dtype=np.float32)])
    calibration = Calibration("temperature", 0.4)
    if name == "isotonic":
        if positive is None:
            return
        calibration = Calibration("isotonic", knots=(-2.0, 0.0, 2.0), values=(0.0, 0.2, 1.0))
    found = calibrated(torch.from_numpy(shares), calibration, positive).numpy()
    np.testing.assert_allclose(found, calibration(shares, positive), atol=1e-6)


@pytest.mark.parametrize("name", ["temperature", "isotonic"])
def test_the_graph_keeps_decisions_at_thresholds(name: str) -> None:
    shares = np.random.default_rng(0).dirichlet([0.3, 0.3, 0.3], 200).astype(np.float32)
    calibration = Calibration("temperature", 0.4)
    if name == "isotonic":
        calibration = Calibration("isotonic", knots=(-2.0, 0.0, 2.0), values=(0.0, 0.2, 1.0))
    for score in shares[:50, 2].tolist():
        steps = calibration.steps_at([score, 0.5])
        found = calibrated(torch.from_numpy(shares), calibration, 2, [score, 0.5])[:, 2].double()
        for step in steps:
            expected = shares[:, 2] >= step.threshold
            np.testing.assert_array_equal(found.numpy() >= step.calibrated, expected)


def test_a_package_is_computed_by_torch_alone(tmp_path: Path) -> None:
    folder, out = model_folder("plain"), tmp_path / "model.pt2"
    found = export_model(folder, out, ExportSettings("torch_export"))
    assert found.parity.within_tolerance
    assert found.dynamic_size is True
    deployed = DeployedModel(load_model(folder), 0.5)
    batch = example_images(deployed, 3, torch.uint8).numpy()
    one = package_outputs(read_package(out), torch.uint8, deployed.outputs)(batch)
    two = model_outputs(load_model(folder), maps=True)(batch)
    for mine, theirs in zip(one[:3], two[:3], strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)  # type: ignore[arg-type]


def test_the_deployed_model_decides_in_float64() -> None:
    model = load_model(model_folder("plain"))
    images = example_images(DeployedModel(model, None), 4, torch.uint8)
    score = Deployed(*DeployedModel(model, None)(images)).score
    for threshold, expected in ((float(score[0]), 1), (float(score[0]) + 1e-12, 0)):
        found = Deployed(*DeployedModel(model, threshold)(images))
        assert int(found.decision[0]) == expected


def test_a_share_of_the_cells_is_a_number_of_cells() -> None:
    """Poolings that count the cells are traced for one size."""
    from preceptor.models.build import with_pool
    from preceptor.models.spec import Pool

    model = load_model(model_folder("plain"))
    assert takes_other_sizes(DeployedModel(model, 0.5), torch.uint8)
    pooled = with_pool(model, Pool("top", top=0.5))
    assert not takes_other_sizes(DeployedModel(pooled, 0.5), torch.uint8)


@pytest.mark.slow
def test_the_derivative_of_grad_cam_is_part_of_the_graph() -> None:
    folder = model_folder("gradcam", "test_convnext")
    model = load_model(folder)
    assert model.spec.cam == "gradcam"
    deployed = DeployedModel(model, 0.5)
    program = trace(deployed, torch.uint8, dynamic_size=False)
    operations = {str(node.target) for node in program.graph.nodes}
    assert not [name for name in operations if "backward" in name or "grad" in name]
    for count in (1, 4):
        batch = example_images(deployed, count, torch.uint8).numpy()
        one = package_outputs(program.module(), torch.uint8, deployed.outputs)(batch)
        two = model_outputs(model, maps=True)(batch)
        for mine, theirs in zip(one[:3], two[:3], strict=True):
            np.testing.assert_allclose(mine, theirs, atol=1e-5)  # type: ignore[arg-type]
