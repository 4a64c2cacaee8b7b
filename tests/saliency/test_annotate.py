"""Marking a manifest: what the store holds, looked at once or from eight sides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from preceptor.data.loader import in_order
from preceptor.evaluation.predict import predict
from preceptor.models import GuidableModel, build_model
from preceptor.saliency.annotate import annotate
from preceptor.saliency.maps import normalise
from preceptor.saliency.store import read_store
from preceptor.workspace import Workspace, plain_settings
from tests.datasets import squares


@pytest.fixture(scope="module")
def teacher() -> GuidableModel:
    torch.manual_seed(0)
    return build_model(
        "test_byobnet", ("marked", "plain"), positive="marked", input_size=32,
        backbone_args={"output_stride": 8},
    )  # fmt: skip


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    folder = tmp_path_factory.mktemp("annotate")
    return Workspace.open(squares(folder / "data"), folder / "cache")


@pytest.mark.parametrize("cam_class", ["label", "predicted"])
@pytest.mark.parametrize("turns", [False, True])
def test_the_store_holds_maps_scores_and_probabilities(
    teacher: GuidableModel, workspace: Workspace, tmp_path: Path, cam_class: Any, turns: bool
) -> None:
    made = annotate(
        teacher, workspace.manifest, out=tmp_path, workspace=workspace, cam_class=cam_class,
        turns=turns,
    )  # fmt: skip
    found = read_store(tmp_path)
    assert found.info.settings == {"cam_class": cam_class} | ({"turns": True} if turns else {})
    assert found.info == made.info
    for name in ("paths", "maps", "classes", "scores", "probabilities"):
        np.testing.assert_array_equal(getattr(found, name), getattr(made, name))
    assert found.agreement is None
    assert found.probabilities is not None
    assert found.probabilities.shape == (24, 2)

    which = np.flatnonzero(workspace.train_mask)
    rows = workspace.rows(which, plain_settings(teacher, "memmap"), 32, teacher.spec.classes)
    seen = predict(teacher, rows, cams=cam_class, turns=turns)
    np.testing.assert_array_equal(found.probabilities, seen.probabilities)
    assert seen.cams is not None
    np.testing.assert_allclose(found.maps, normalise(seen.cams).numpy(), atol=1e-3)
    expected = rows.labels if cam_class == "label" else seen.probabilities.argmax(1)
    np.testing.assert_array_equal(found.classes, expected)
    np.testing.assert_array_equal(found.scores, seen.probabilities[np.arange(24), expected])
    assert (found.maps.min((1, 2)) == 0).all()
    assert (found.maps.max((1, 2)) == 1).all()


def test_without_turns_it_is_one_forward_an_image(
    teacher: GuidableModel, workspace: Workspace, tmp_path: Path
) -> None:
    made = annotate(teacher, workspace.manifest, out=tmp_path, workspace=workspace, splits="val")
    which = np.flatnonzero((workspace.manifest.table["split"] == "val").to_numpy())
    rows = workspace.rows(which, plain_settings(teacher, "memmap"), 32, teacher.spec.classes)
    for part, batch in in_order(rows, 5):
        with torch.no_grad():
            logits, _ = teacher(teacher.preprocess(batch.images))
        assert made.probabilities is not None
        np.testing.assert_allclose(made.probabilities[part], logits.softmax(1), atol=1e-5)
