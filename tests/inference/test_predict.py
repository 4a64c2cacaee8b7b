"""Scores and maps over rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from preceptor.data.loader import MapArray, MapTargets, Rows
from preceptor.inference.predict import predict
from preceptor.models.build import build_model
from preceptor.models.guided_model import GuidedModel
from preceptor.models.spec import ModelSpec
from tests.datasets import Noise

SIDE = 32


def rows_of(count: int = 7, classes: int = 3) -> Rows:
    return Rows(
        Noise(count, SIDE), np.arange(count), np.arange(count) % classes, SIDE, "squash", None
    )


def network(channels_last: bool = False) -> GuidedModel:
    torch.manual_seed(0)
    classes = ("a", "b", "c")
    model = build_model(
        "test_byobnet", classes, input_size=SIDE, backbone_args={"output_stride": 8}
    )
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = model.to(memory_format=layout)  # type: ignore[call-overload]
    with torch.no_grad():
        model.head.weight.mul_(20)  # far from even probabilities
    return model.eval()


class Patches(nn.Module):
    """Means of 8 × 8 patches, a curve on each and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.mix = nn.Conv2d(3, 5, 1)
        self.head = nn.Linear(5, 3)

    def forward_features(self, images: Tensor) -> Tensor:
        mixed: Tensor = self.mix(nn.functional.avg_pool2d(images, 8))
        return mixed.relu()

    def forward_head(self, features: Tensor) -> Tensor:
        logits: Tensor = self.head(features.mean((2, 3)))
        return logits

    def get_classifier(self) -> nn.Linear:
        return self.head


def patches() -> GuidedModel:
    spec = ModelSpec("patches", ("a", "b", "c"), None, 3, SIDE, (0.5,) * 3, (0.1,) * 3)
    return GuidedModel(Patches(), spec)


@pytest.mark.parametrize("cams", ["label", "predicted", "decision"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_predictions_are_the_loop_over_images(cams: str, channels_last: bool) -> None:
    model, rows = network(channels_last), rows_of()
    found = predict(model, rows, cams=cams, batch_size=4)
    assert found.cams is not None
    assert found.cam_classes is not None
    assert found.probabilities.dtype == np.float64
    weight = model.head.weight.detach()
    for index, image in enumerate(rows.batch(np.arange(len(rows))).images):
        with torch.no_grad():
            logits, features = model(model.preprocess(image[None]))
        probabilities = logits[0].softmax(0)
        np.testing.assert_allclose(found.probabilities[index], probabilities.numpy(), atol=1e-5)
        label = int(probabilities.argmax()) if cams == "predicted" else int(rows.labels[index])
        every = torch.einsum("kc,chw->khw", weight, features[0])
        own = every[label]
        if cams == "decision":
            others = [other for other in range(3) if other != label]
            shares = logits[0, others].softmax(0)
            own = own - (shares[:, None, None] * every[others]).sum(0)
        torch.testing.assert_close(found.cams[index], own, atol=1e-3, rtol=1e-4)
        assert found.cam_classes[index] == label


def test_scores_alone_and_no_rows() -> None:
    model = patches()
    found = predict(model, rows_of())
    assert found.cams is None
    assert found.cam_classes is None
    np.testing.assert_allclose(found.probabilities.sum(1), 1, atol=1e-6)
    nothing = predict(model, rows_of(0), cams="label")
    assert nothing.probabilities.shape == (0, 3)


def test_the_mode_of_the_model_is_kept() -> None:
    model = network()
    for training in (True, False):
        model.train(training)
        predict(model, rows_of(3), cams="label")
        assert all(part.training == training for part in model.modules())


def test_targets_on_the_grid_are_those_of_all_maps_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    maps = np.random.default_rng(0).integers(0, 256, (7, SIDE, SIDE)).astype(np.uint8)
    rows = replace(
        rows_of(),
        targets=MapTargets(
            np.ones(7, np.float32),
            MapArray(maps, np.tile([0.0, 0.0, SIDE, SIDE], (7, 1))),
            np.arange(7),
        ),
        grid=(3, 4),
    )
    whole = rows.maps_on_grid(np.arange(7))
    monkeypatch.setattr("preceptor.data.loader._BATCH", 3)
    assert torch.equal(rows.targets_on_grid, whole)
    assert rows.targets_on_grid is rows.targets_on_grid  # computed once


def test_where_memory_runs_out_fewer_images_are_looked_at_at_once() -> None:
    """More than what a machine has is really asked for, as long as the batch is larger than 3."""
    model, seen = patches(), list[int]()

    def forward(images: Tensor, *further: Any) -> Any:
        seen.append(len(images))
        if len(images) > 3:
            torch.empty(2**55)
        return model(images, *further)

    rows = rows_of(12)
    found = predict(model, rows, cams="label", forward=forward, batch_size=8)
    whole = predict(model, rows, cams="label", batch_size=2)
    assert seen[:3] == [8, 4, 2]
    assert sum(seen[2:]) == len(rows)
    np.testing.assert_array_equal(found.probabilities, whole.probabilities)
    with pytest.raises(RuntimeError, match="allocate"):
        predict(model, rows, forward=lambda images: torch.empty(2**55))


def test_another_error_is_not_taken_for_want_of_memory() -> None:
    model, seen = patches(), list[int]()

    def forward(images: Tensor) -> Any:
        seen.append(len(images))
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        predict(model, rows_of(12), forward=forward, batch_size=8)
    assert seen == [8]
