"""Scores and maps over rows: one look at each image, and the mean of eight."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from preceptor.data.geometry import TURNS, turn_array
from preceptor.data.loader import MapArray, MapTargets, Rows
from preceptor.inference.predict import predict
from preceptor.models.build import build_model
from preceptor.models.guided_model import GuidedModel
from preceptor.models.spec import ModelSpec
from preceptor.saliency.normalise import normalise
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
    """Means of 8 × 8 patches, a curve on each and a linear head: turns with its image."""

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


def equivariant() -> GuidedModel:
    spec = ModelSpec("patches", ("a", "b", "c"), None, 3, SIDE, (0.5,) * 3, (0.1,) * 3)
    return GuidedModel(Patches(), spec)


def slow_looks(model: GuidedModel, rows: Rows, cams: str) -> tuple[Any, Any, list[int]]:
    """One image and one turn at a time, turned back by asking where each cell came from."""
    images = rows.batch(np.arange(len(rows))).images
    weight = model.head.weight.detach()
    scores, maps, classes = [], [], []
    for image, label in zip(images, rows.labels, strict=True):
        probabilities, every = [], []
        for turn in TURNS:
            pixels = turn_array(image.permute(1, 2, 0).numpy(), turn).copy()
            turned = torch.from_numpy(pixels).permute(2, 0, 1)[None]
            with torch.no_grad():
                logits, features = model(model.preprocess(turned))
            probabilities.append(logits[0].softmax(0))
            side = features.shape[-1]
            source = turn_array(np.arange(side**2).reshape(side, side), turn).ravel()
            back = np.zeros((3, side**2), np.float32)
            for index in range(3):
                cam = (weight[index][:, None, None] * features[0]).sum(0)
                back[index, source] = normalise(cam[None])[0].numpy().ravel()
            every.append(back.reshape(3, side, side))
        mean = torch.stack(probabilities).mean(0)
        chosen = int(label) if cams == "label" else int(mean.argmax())
        scores.append(mean.numpy())
        maps.append(np.mean(every, axis=0)[chosen])
        classes.append(chosen)
    return np.stack(scores), np.stack(maps), classes


@pytest.mark.parametrize("cams", ["label", "predicted"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_eight_looks_are_the_loop(cams: str, channels_last: bool) -> None:
    model, rows = network(channels_last), rows_of()
    found = predict(model, rows, cams=cams, tta=True, batch_size=4)
    scores, maps, classes = slow_looks(model, rows, cams)
    np.testing.assert_allclose(found.probabilities, scores, atol=1e-5)
    assert found.cams is not None
    assert found.cam_classes is not None
    np.testing.assert_allclose(found.cams.numpy(), maps, atol=1e-4)
    assert found.cam_classes.tolist() == classes
    assert found.probabilities.dtype == np.float64


def test_looks_matter_to_a_network_that_does_not_turn() -> None:
    model, rows = network(), rows_of()
    once, eight = (predict(model, rows, cams="label", tta=tta) for tta in (False, True))
    assert once.cams is not None
    assert eight.cams is not None
    assert (normalise(once.cams) - normalise(eight.cams)).abs().max() > 0.05
    assert np.abs(once.probabilities - eight.probabilities).max() > 1e-3


@pytest.mark.parametrize("cams", ["label", "predicted"])
def test_a_model_that_turns_with_its_image_gives_the_same_map(cams: str) -> None:
    model, rows = equivariant(), rows_of()
    once, eight = (predict(model, rows, cams=cams, tta=tta) for tta in (False, True))
    np.testing.assert_allclose(eight.probabilities, once.probabilities, atol=1e-6)
    assert once.cams is not None
    assert eight.cams is not None
    assert once.cam_classes is not None
    torch.testing.assert_close(eight.cams, normalise(once.cams), atol=1e-5, rtol=0)
    np.testing.assert_array_equal(eight.cam_classes, once.cam_classes)
    if cams == "label":
        np.testing.assert_array_equal(once.cam_classes, rows.labels)
    else:
        np.testing.assert_array_equal(once.cam_classes, once.probabilities.argmax(1))


@pytest.mark.parametrize("tta", [False, True])
def test_scores_alone_and_no_rows(tta: bool) -> None:
    model = equivariant()
    found = predict(model, rows_of(), tta=tta)
    assert found.cams is None
    assert found.cam_classes is None
    np.testing.assert_allclose(found.probabilities.sum(1), 1, atol=1e-6)
    nothing = predict(model, rows_of(0), cams="label", tta=tta)
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
    model, seen = equivariant(), list[int]()

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
    model, seen = equivariant(), list[int]()

    def forward(images: Tensor) -> Any:
        seen.append(len(images))
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        predict(model, rows_of(12), forward=forward, batch_size=8)
    assert seen == [8]
