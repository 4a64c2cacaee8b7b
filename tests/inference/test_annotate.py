"""Marking a manifest: what the store holds, looked at once or from eight sides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from preceptor.config.run import RiseSettings
from preceptor.data.loader import in_order
from preceptor.data.workspace import Workspace
from preceptor.errors import InputError
from preceptor.inference.annotate import annotate, maps_record, model_digest, rise_rows
from preceptor.inference.predict import predict
from preceptor.maps.store import read_store
from preceptor.models.build import build_model
from preceptor.models.guided_model import GuidedModel
from preceptor.models.spec import MARKS
from preceptor.saliency.maps import normalize
from preceptor.saliency.rise import rise as estimate
from tests.datasets import squares


def untrained(**options: Any) -> GuidedModel:
    torch.manual_seed(0)
    options |= {"positive": "marked", "input_size": 32, "backbone_args": {"output_stride": 8}}
    return build_model("test_byobnet", ("marked", "plain"), **options)


@pytest.fixture(scope="module")
def teacher() -> GuidedModel:
    return untrained()


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    folder = tmp_path_factory.mktemp("annotate")
    return Workspace.open(squares(folder / "data"), folder / "cache")


@pytest.mark.parametrize("cam_class", ["label", "predicted"])
def test_the_store_holds_maps_and_scores(
    teacher: GuidedModel, workspace: Workspace, tmp_path: Path, cam_class: Any
) -> None:
    made = annotate(
        teacher, workspace.manifest, out=tmp_path, workspace=workspace, cam_class=cam_class
    )
    found = read_store(tmp_path)
    assert found.info.settings == {"cam_class": cam_class}
    assert found.info == made.info
    for name in ("paths", "maps", "classes", "scores"):
        np.testing.assert_array_equal(getattr(found, name), getattr(made, name))

    which = np.flatnonzero(workspace.train_mask)
    rows = workspace.rows(which, teacher.spec.image_format, teacher.spec.classes)
    seen = predict(teacher, rows, cams=cam_class)
    chances = seen.probabilities.astype(np.float32)
    assert seen.cams is not None
    np.testing.assert_allclose(found.maps, normalize(seen.cams).numpy(), atol=1e-3)
    expected = rows.labels if cam_class == "label" else seen.probabilities.argmax(1)
    np.testing.assert_array_equal(found.classes, expected)
    np.testing.assert_array_equal(found.scores, chances[np.arange(24), expected])
    assert (found.maps.min((1, 2)) == 0).all()
    assert (found.maps.max((1, 2)) == 1).all()


def test_a_model_without_a_cam_says_that_its_maps_are_grad_cams(
    workspace: Workspace, tmp_path: Path
) -> None:
    model = untrained(cam="gradcam")
    made = annotate(model, workspace.manifest, out=tmp_path, workspace=workspace, splits="val")
    assert read_store(tmp_path).info.method == made.info.method == "gradcam"
    assert made.error is None
    assert maps_record(made) == {}


# RISE.

QUICK = RiseSettings(max_masks=90, tolerance=0.2)


@pytest.fixture(scope="module")
def decided() -> GuidedModel:
    """A model whose scores depend on what it sees."""
    model = untrained().train()
    model(torch.randn(64, 3, 32, 32))
    model.head.weight.data *= 8
    return model.eval()


@pytest.mark.parametrize("cam_class", ["label", "predicted"])
def test_a_store_of_rise_is_rise_image_by_image(
    decided: GuidedModel, workspace: Workspace, tmp_path: Path, cam_class: Any
) -> None:
    made = annotate(
        decided,
        workspace.manifest,
        "rise",
        out=tmp_path,
        workspace=workspace,
        cam_class=cam_class,
        rise=QUICK,
    )
    found = read_store(tmp_path)
    assert found.info == made.info
    assert found.info.method == "rise"
    assert (found.info.teacher, found.info.side) == (model_digest(decided), 32)
    for name in ("paths", "maps", "classes", "scores", "error"):
        np.testing.assert_array_equal(getattr(found, name), getattr(made, name))
    assert found.maps.shape == (24, 4, 4)
    assert found.error is not None
    assert found.error.dtype == np.float32

    which = np.flatnonzero(workspace.train_mask)
    rows = workspace.rows(which, decided.spec.image_format, decided.spec.classes)
    seen = predict(decided, rows)
    chances = seen.probabilities.astype(np.float32)
    expected = rows.labels if cam_class == "label" else seen.probabilities.argmax(1)
    assert (rows.labels != seen.probabilities.argmax(1)).any()
    np.testing.assert_array_equal(found.classes, expected)
    np.testing.assert_array_equal(found.scores, chances[np.arange(24), expected])
    masks = 0
    for part, batch in in_order(rows, 1):
        images = decided.preprocess(batch.images)
        one = estimate(
            decided, images, torch.from_numpy(expected[part]), max_masks=90, tolerance=0.2
        )
        np.testing.assert_allclose(found.maps[part], normalize(one.maps), atol=2e-3)
        np.testing.assert_allclose(found.error[part], one.error, atol=1e-3)
        masks += int(one.masks_used)
    settings = QUICK.model_dump() | {"cam_class": cam_class, "masks": masks}
    assert found.info.settings == settings
    unsettled = int((found.error > 0.2).sum())
    assert maps_record(found) == {"masks": masks, "unsettled": unsettled}
    np.testing.assert_array_equal(found.settled, found.error <= 0.2)


def test_settings_of_rise_reach_it(decided: GuidedModel, workspace: Workspace) -> None:
    which = np.flatnonzero(workspace.train_mask)[:3]
    rows = workspace.rows(which, decided.spec.image_format, decided.spec.classes)
    maps = {}
    for changes in (
        {},
        {"seed": 1},
        {"estimator": "published"},
        {"score": "logit"},
        {"fill": "blur"},
        {"cells": 5},
        {"max_masks": 60},
    ):
        settings = QUICK.model_copy(update={"tolerance": 0} | changes)
        found = rise_rows(decided, rows, rows.labels, settings)
        expected = estimate(
            decided,
            decided.preprocess(rows.batch(np.arange(3)).images),
            torch.from_numpy(rows.labels),
            **settings.model_dump(),
        )
        torch.testing.assert_close(found.maps, expected.maps, atol=1e-6, rtol=1e-4)
        assert torch.equal(found.masks_used, expected.masks_used)
        maps[str(changes)] = found.maps
    names = list(maps)
    for position, one in enumerate(names):
        for other in names[:position]:
            assert not torch.allclose(maps[one], maps[other]), (one, other)


def test_an_unknown_method_is_refused(
    teacher: GuidedModel, workspace: Workspace, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="method lime is not one of cam, rise, cells"):
        annotate(teacher, workspace.manifest, "lime", out=tmp_path)
    wrong: Any = "Decision"
    with pytest.raises(InputError, match="cam_class 'Decision': write label, "):
        annotate(teacher, workspace.manifest, "cam", cam_class=wrong, out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_map_of_a_label_of_a_mapper_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    mapper = build_model("test_byobnet", MARKS, input_size=32, head="sigmoid")
    for method in ("cam", "rise"):
        with pytest.raises(InputError, match=f"{method}: a mapper has no map of a label"):
            annotate(mapper, workspace.manifest, method, out=tmp_path)
    store = annotate(mapper, workspace.manifest, "cells", out=tmp_path)
    assert len(store.paths) == 24
