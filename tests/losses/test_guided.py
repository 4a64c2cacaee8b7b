"""The guided loss against a loop over samples, finite differences and autograd."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2.functional import resize

from preceptor.losses.distances import DISTANCES
from preceptor.losses.guided import (
    GuidedLoss,
    Targets,
    combine,
    gradient_norms,
    guidance,
    guided_loss_terms,
)
from tests.losses.batches import INF, NAN, batch, odd_batch, slow_distance


def slow_loss(
    logits: Tensor,
    labels: Tensor,
    cam: Tensor,
    maps: Tensor,
    map_weight: Tensor | None,
    sample_weight: Tensor | None,
    alpha: float,
    distance: str,
) -> float:
    total = 0.0
    for k in range(len(logits)):
        row = logits[k].tolist()
        entropy = math.log(sum(math.exp(x) for x in row)) - row[int(labels[k])]
        w = 1.0 if map_weight is None else float(map_weight[k])
        v = 1.0 if sample_weight is None else float(sample_weight[k])
        cells = maps[k].flatten().tolist()
        if w > 0 and all(math.isfinite(cell) for cell in cells) and max(cells) > min(cells):
            total += v * (1 - alpha) * w * slow_distance(cam[k], maps[k], distance)
        total += v * alpha * entropy
    return total / len(logits)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("alpha", [0, 0.1, 0.5, 1])
@pytest.mark.parametrize("weighted", ["", "map", "sample", "both"])
def test_the_loss_is_the_loop(distance: Any, alpha: float, weighted: str) -> None:
    for make in (batch, odd_batch):
        logits, labels, cam, maps, *weights = make()
        w, v = weights or (torch.rand(6).double(), 0.1 + torch.rand(6).double())
        w = w if weighted in ("map", "both") else None
        v = v if weighted in ("sample", "both") else None
        got = GuidedLoss(alpha, distance)(logits, labels, cam, maps, w, v)
        assert got.ndim == 0
        expected = slow_loss(logits, labels, cam, maps, w, v, alpha, distance)
        assert got.item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("alpha", [0.0, 0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_unusable_maps_are_counted_and_leave_everything_finite(
    distance: Any, alpha: float, dtype: torch.dtype
) -> None:
    logits, labels, cam, maps, w, v = odd_batch()
    logits, cam = (t.to(dtype).requires_grad_() for t in (logits, cam))
    maps, w, v = maps.to(dtype), w.to(dtype), v.to(dtype)
    terms = guided_loss_terms(logits, cam, Targets(labels, maps, w, v), distance=distance)
    assert terms.guided.tolist() == [True, False, True] + [False] * 5
    assert terms.uninformative.tolist() == [False] * 3 + [True] * 3 + [False, True]
    assert (terms.guidance[~terms.guided] == 0).all()
    loss = GuidedLoss(alpha, distance)(logits, labels, cam, maps, w, v)
    assert loss.isfinite()
    loss.backward()
    assert cam.grad is not None
    assert cam.grad.isfinite().all()
    assert (cam.grad[~terms.guided] == 0).all()
    assert (cam.grad[terms.guided] != 0).any()


def test_a_range_too_wide_for_the_type_is_uninformative() -> None:
    logits, labels, cam, maps = (t.float() if t.is_floating_point() else t for t in batch())
    maps[0, 0, 0], maps[0, 0, 1] = -3e38, 3e38
    cam.requires_grad_()
    terms = guided_loss_terms(logits, cam, Targets(labels, maps))
    assert terms.uninformative.tolist() == [True] + [False] * 5
    terms.guidance.sum().backward()
    assert cam.grad is not None
    assert cam.grad.isfinite().all()


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("content", [NAN, INF, 0.0, 0.3])
def test_all_maps_unusable_leaves_classification(distance: Any, content: float) -> None:
    logits, labels, cam, maps = batch()
    cam.requires_grad_()
    logits.requires_grad_()
    loss = GuidedLoss(0.25, distance)(logits, labels, cam, torch.full_like(maps, content))
    cross_entropy = torch.nn.functional.cross_entropy(logits, labels)
    assert loss.item() == pytest.approx(0.25 * cross_entropy.item())
    loss.backward()
    assert cam.grad is not None
    assert not cam.grad.any()


@pytest.mark.parametrize("distance", DISTANCES)
def test_gradients_are_finite_differences(distance: Any) -> None:
    logits, labels, cam, maps = batch(3, size=3, grid=(3, 3))
    logits.requires_grad_()
    cam.requires_grad_()
    assert torch.autograd.gradcheck(lambda c: guidance(c, maps, distance), cam)
    w = torch.tensor([1, 0, 0.7], dtype=torch.float64)
    v = torch.tensor([1, 2, 0.5], dtype=torch.float64)
    for alpha in (0.0, 0.3, 1.0):
        loss = GuidedLoss(alpha, distance)
        assert torch.autograd.gradcheck(
            lambda x, c, loss=loss: loss(x, labels, c, maps, w, v), (logits, cam)
        )


def test_the_divisor_stays_the_batch_size() -> None:
    logits, labels, cam, maps = batch()
    only = torch.zeros(6, dtype=torch.float64)
    only[2] = 1
    got = GuidedLoss(0, "l2")(logits, labels, cam, maps, only)
    assert got.item() == pytest.approx(slow_distance(cam[2], maps[2], "l2") / 6)


def test_plain_cross_entropy_needs_no_maps() -> None:
    logits, labels, cam, maps = batch()
    expected = torch.nn.functional.cross_entropy(logits, labels)
    for c, m in ((None, None), (cam, maps), (cam * NAN, maps * NAN)):
        torch.testing.assert_close(GuidedLoss(1)(logits, labels, c, m), expected)
    with pytest.raises(ValueError, match="only at alpha = 1"):
        GuidedLoss(0.9)(logits, labels, None, None)
    with pytest.raises(ValueError, match="only at alpha = 1"):
        GuidedLoss(0.9)(logits, labels, cam, None)


def test_an_infinite_term_with_factor_zero_is_left_out() -> None:
    logits, labels, cam, maps = batch()
    logits[0] = -INF
    logits[0, (labels[0] + 1) % 3] = 0
    assert GuidedLoss(0)(logits, labels, cam, maps).isfinite()


@pytest.mark.parametrize("alpha", [-0.1, 1.1, NAN])
def test_alpha_is_a_share(alpha: float) -> None:
    with pytest.raises(ValueError, match="alpha"):
        GuidedLoss(alpha)
    with pytest.raises(ValueError, match="mark_weight"):
        GuidedLoss(0.5, "cells", NAN if alpha > 0 else alpha)
    for distance in ("l3", {"l2": NAN}, {"l2": INF}):
        with pytest.raises(ValueError, match="distance"):
            GuidedLoss(0.5, distance)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="distance"):
        guidance(torch.zeros(1, 2, 2), torch.zeros(1, 2, 2), "l3")  # type: ignore[arg-type]


def test_masks_may_overshoot_by_resizing() -> None:
    masks = torch.zeros(1, 299, 299)
    masks[:, 74:224, 74:224] = 1
    maps = resize(masks, [10, 10])
    cam = torch.zeros(1, 10, 10)
    assert maps.max() > 1
    assert guidance(cam, maps, "energy").isfinite().all()
    with pytest.raises(ValueError, match="divide them by their maximum"):
        guidance(cam, maps * 2, "energy")


@pytest.mark.parametrize(
    "wrong",
    [
        {"cam": (1, 4, 5)},
        *({"maps": shape} for shape in ((1, 4, 5), (6, 5, 4), (6, 1, 1), (6, 1, 4, 5))),
        *(dict.fromkeys(("cam", "maps"), shape) for shape in ((1, 4, 5), (5, 4, 5), (6, 20))),
        *({"map_weight": shape} for shape in ((6, 1), (1,), ())),
        *({"sample_weight": shape} for shape in ((6, 1), (1,), ())),
        {"labels": (1,)},
        {"labels": (6, 1)},
        {"logits": (1, 3)},
        {"logits": (6, 3, 1)},
    ],
    ids=str,
)
def test_nothing_is_broadcast(wrong: dict[str, tuple[int, ...]]) -> None:
    logits, labels, cam, maps = batch()
    values = {"logits": logits, "labels": labels, "cam": cam, "maps": maps}
    for name, shape in wrong.items():
        values[name] = torch.ones(shape, dtype=torch.int64 if name == "labels" else torch.float64)
    with pytest.raises(ValueError, match="must"):
        GuidedLoss(0.5)(**values)
    with pytest.raises(ValueError, match="must"):
        GuidedLoss(0.5, "mse")(**values)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_gradient_norms_are_autograds(distance: Any, alpha: float, weighted: bool) -> None:
    logits, labels, cam, maps, w, v = odd_batch()
    w, v = (w, v) if weighted else (None, None)
    logits.requires_grad_()
    cam.requires_grad_()
    targets = Targets(labels, maps, w, v)
    terms = guided_loss_terms(logits, cam, targets, distance=distance)
    assert terms.pair is not None
    terms.pair.model.retain_grad()
    combine(terms, alpha).backward()
    at_logits, at_map = gradient_norms(
        logits.detach(), terms, targets, alpha=alpha, distance=distance
    )
    zero = torch.zeros_like(logits)
    logit_grad = (logits.grad if logits.grad is not None else zero) * 8
    torch.testing.assert_close(at_logits, logit_grad.norm(dim=1))
    grid_grad = terms.pair.model.grad
    grid_grad = torch.zeros_like(cam.detach()) if grid_grad is None else grid_grad * 8
    torch.testing.assert_close(at_map.detach(), grid_grad.flatten(1).norm(dim=1))


def test_a_single_logit_is_the_logistic_loss() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(6, 1, requires_grad=True), torch.tensor([0, 1, 1, 0, 1, 0])
    cam, maps = torch.randn(6, 4, 4), torch.rand(6, 4, 4)
    found = GuidedLoss(0.3)(logits, labels, cam, maps)
    logistic = torch.nn.functional.binary_cross_entropy_with_logits(logits[:, 0], labels.float())
    torch.testing.assert_close(found, 0.7 * guidance(cam, maps).mean() + 0.3 * logistic)
    (slope,) = torch.autograd.grad(found, logits)
    error = logits.sigmoid()[:, 0] - labels
    torch.testing.assert_close(slope[:, 0], 0.3 * error / 6)
