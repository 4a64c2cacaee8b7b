"""Packages of torch.export, calibration in a graph, and the closed form of Grad-CAM."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import preceptor
from preceptor.deploy.calibrate import apply
from preceptor.deploy.export import (
    ExportSettings,
    export_model,
    model_outputs,
    package_outputs,
    synthetic_images,
)
from preceptor.deploy.graph import DeployedModel, takes_other_sizes, trace
from preceptor.deploy.model_info import Calibration
from preceptor.deploy.network import (
    REFERENCE_FILES,
    Reference,
    calibrated,
    steps_at,
    write_reference,
)
from preceptor.models.build import build_model, with_pool
from preceptor.models.model_folder import MODEL_FILES, load_model, save_model
from preceptor.models.spec import Pool
from preceptor.utils.results import write_checksums
from tests.exported_files import model_folder

CALIBRATIONS = {
    "temperature": Calibration("temperature", 2.5),
    "isotonic": Calibration("isotonic", knots=(-2.0, 0.0, 2.0), values=(0.0, 0.2, 1.0)),
}


def batch_of(folder: Path, count: int) -> np.ndarray:  # type: ignore[type-arg]
    images = synthetic_images(load_model(folder).spec.image_format, count)
    return images.read(images.positions)


def test_sizes_that_torch_cannot_write_are_fixed(tmp_path: Path) -> None:
    """The padding of strides that were replaced has a ceiling of the size in its graph."""
    model = build_model(
        "test_byobnet", ("a", "b"), input_size=32, backbone_args={"output_stride": 8}
    )
    save_model(model, tmp_path / "model")
    settings = ExportSettings("torch_export")
    found = export_model(tmp_path / "model", tmp_path / "model.pt2", settings)
    assert (found.dynamic_size, found.parity.within_tolerance) == (False, True)


@pytest.mark.parametrize("name", CALIBRATIONS)
def test_the_calibration_is_part_of_the_export(tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(model_folder("plain"), tmp_path / "model")
    none, labels = np.zeros((0, 2), np.float32), np.zeros(0, np.int64)
    known = np.linspace(-5, 5, 9)
    reference = Reference(CALIBRATIONS[name], "energy", 0.1, None, none, labels, known)
    write_reference(reference, folder)
    write_checksums(folder, (*MODEL_FILES, *REFERENCE_FILES))
    out = tmp_path / "model.pt2"
    assert export_model(folder, out, ExportSettings("torch_export")).parity.within_tolerance
    deployed = DeployedModel(load_model(folder), 0.5, reference=reference)
    batch = batch_of(folder, 6)
    found = package_outputs(out.read_bytes(), torch.uint8, deployed.outputs)(batch)
    plain = model_outputs(load_model(folder), maps=False)(batch).probabilities
    expected = apply(CALIBRATIONS[name], plain, 1)
    assert abs(plain - expected).max() > 0.01
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-5)
    predicted = preceptor.load(folder, device="cpu")(batch.transpose(0, 2, 3, 1))
    np.testing.assert_allclose(predicted.probabilities, expected, atol=1e-5)


@pytest.mark.parametrize("name", CALIBRATIONS)
def test_decisions_are_kept_at_thresholds(name: str) -> None:
    shares = np.random.default_rng(0).dirichlet([0.3, 0.3, 0.3], 200).astype(np.float32)
    calibration = CALIBRATIONS[name]
    for score in shares[:50, 2].tolist():
        steps = steps_at(calibration, [score, 0.5])
        found = calibrated(torch.from_numpy(shares), calibration, 2, steps)[:, 2].double()
        for step in steps:
            expected = shares[:, 2] >= step.threshold
            np.testing.assert_array_equal(found.numpy() >= step.calibrated, expected)


def test_a_package_is_computed_by_torch_alone(tmp_path: Path) -> None:
    folder, out = model_folder("plain"), tmp_path / "model.pt2"
    found = export_model(folder, out, ExportSettings("torch_export"))
    assert found.parity.within_tolerance
    assert found.dynamic_size is True
    names = DeployedModel(load_model(folder), 0.5).outputs
    batch = batch_of(folder, 3)
    one = package_outputs(out.read_bytes(), torch.uint8, names)(batch)
    two = model_outputs(load_model(folder), maps=True)(batch)
    for mine, theirs in zip(one[:3], two[:3], strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)  # type: ignore[arg-type]


def test_the_deployed_model_decides_in_float64() -> None:
    folder = model_folder("plain")
    model, images = load_model(folder), torch.from_numpy(batch_of(folder, 4))
    score = DeployedModel(model, None)(images)[1]
    for threshold, expected in ((float(score[0]), 1), (float(score[0]) + 1e-12, 0)):
        assert int(DeployedModel(model, threshold)(images)[2][0]) == expected


def test_a_share_of_the_cells_is_a_number_of_cells() -> None:
    """Poolings that count the cells are traced for one size."""
    model = load_model(model_folder("plain"))
    assert takes_other_sizes(DeployedModel(model, 0.5), torch.uint8)
    pooled = with_pool(model, Pool("top", top=0.5))
    assert not takes_other_sizes(DeployedModel(pooled, 0.5), torch.uint8)


@pytest.mark.slow
def test_the_derivative_of_grad_cam_is_part_of_the_graph() -> None:
    folder = model_folder("gradcam", "test_convnext")
    model = load_model(folder)
    assert model.spec.cam == "gradcam"
    program = trace(DeployedModel(model, 0.5), torch.uint8, dynamic_size=False)
    operations = {str(node.target) for node in program.graph.nodes}
    assert not [name for name in operations if "backward" in name or "grad" in name]
    for count in (1, 4):
        batch = batch_of(folder, count)
        found = program.module()(torch.from_numpy(batch))
        expected = model_outputs(model, maps=True)(batch)
        np.testing.assert_allclose(found[0], expected.probabilities, atol=1e-5)
        np.testing.assert_allclose(found[4], expected.raw_map, atol=1e-5)
