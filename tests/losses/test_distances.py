"""Distances of maps and of evidence: loops over cells, finite differences, edges."""

from __future__ import annotations

import math
from typing import Any, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from preceptor.config.training import Distance, EvidenceDistance, NormalizedDistance, Training
from preceptor.losses.distances import DISTANCES, EVIDENCE_DISTANCES
from preceptor.losses.guided import (
    GuidedLoss,
    Targets,
    balanced_alpha,
    combine,
    gradient_norms,
    guidance,
    guided_loss_terms,
)
from preceptor.study.config import ALPHA_GRIDS, Guidance
from tests.losses.batches import slow

every = pytest.mark.parametrize("distance", DISTANCES)


def pair(
    seed: int = 0, size: int = 6, grid: tuple[int, int] = (4, 5), dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    """Raw saliency of a model, and maps of another scale."""
    generator = torch.Generator().manual_seed(seed)
    options: dict[str, Any] = {"generator": generator, "dtype": dtype}
    return torch.randn(size, *grid, **options), 7 * torch.rand(size, *grid, **options)


def test_every_list_of_distances_is_the_same() -> None:
    assert tuple(DISTANCES) == get_args(NormalizedDistance)
    for name in DISTANCES:
        assert Training(distance=name).distance == name
        assert Guidance(distance=name).distance == name
        assert ALPHA_GRIDS[name] == tuple(sorted(set(ALPHA_GRIDS[name])))
        assert 0.1 in ALPHA_GRIDS[name]  # α of the probe Students


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 9999),
    grid=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    name=st.sampled_from(list(DISTANCES)),
)
def test_each_distance_is_the_loop(seed: int, grid: tuple[int, int], name: Distance) -> None:
    generator = torch.Generator().manual_seed(seed)
    one, other = torch.rand(2, 3, *grid, generator=generator, dtype=torch.float64)
    found = DISTANCES[name](one, other)
    assert found.shape == (3,)
    for row in range(3):
        expected = slow(name, one[row].flatten().tolist(), other[row].flatten().tolist())
        assert found[row].item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


# What holds for all of them.


@every
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.0, -3.5])
def test_constant_cams_pass_nothing_and_empty_maps_no_nan(
    distance: Any, dtype: torch.dtype, value: float
) -> None:
    cam, maps = (each.to(dtype) for each in pair())
    constant = torch.full_like(cam, value).requires_grad_()
    found = guidance(constant, maps, distance)
    assert found.isfinite().all()
    assert (found > 0).all()
    (gradient,) = torch.autograd.grad(found.sum(), constant)
    assert not gradient.any()

    zeros = torch.zeros_like(maps)
    both = guidance(constant, zeros, distance)
    assert torch.equal(both, torch.zeros_like(both))
    (gradient,) = torch.autograd.grad(both.sum(), constant)
    assert not gradient.any()

    cam = cam.requires_grad_()
    found = guidance(cam, zeros, distance)
    assert found.isfinite().all()
    assert (found > 0).all()
    (gradient,) = torch.autograd.grad(found.sum(), cam)
    assert gradient.isfinite().all()


def test_the_gradient_of_kl_is_bounded() -> None:
    """The worst there is: a model that is empty exactly where all of the target lies."""
    model = torch.ones(1, 10, 10, dtype=torch.float64)
    model[0, 3, 3] = 0
    leaf = model.requires_grad_()
    (gradient,) = torch.autograd.grad(DISTANCES["kl"](leaf, 1 - model.detach()).sum(), leaf)
    assert 40 < gradient.abs().max() < 100


# The norms that metrics.csv reports.


every_evidence = pytest.mark.parametrize("name", EVIDENCE_DISTANCES)


def slow_evidence(name: str, cells: list[float], mask: list[float]) -> float:
    """The formula of a distance for one image, cell by cell."""
    pairs = list(zip(cells, mask, strict=True))
    if name == "cells":
        total = weights = 0.0
        for z, t in pairs:
            p = 1 / (1 + math.exp(-z))
            total += (1 + 9 * t) * -(t * math.log(p) + (1 - t) * math.log(1 - p))
            weights += 1 + 9 * t
        return total / weights
    if name == "evidence":
        inside = sum(t * z for z, t in pairs)
        outside = sum((1 - t) * abs(z) for z, t in pairs)
        return math.log(1 + math.exp(-(inside - outside) / len(pairs)))
    if name == "energy":
        positive = sum(max(z, 0) for z in cells)
        return 1 - sum(t * max(z, 0) for z, t in pairs) / positive if positive else 1.0
    assert name == "cosine", f"add the formula of {name}"
    product = sum(z * t for z, t in pairs)
    return 1 - product / math.sqrt(sum(z * z for z in cells) * sum(t * t for t in mask))


def drawn(seed: int, height: int = 3, width: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    cells = torch.randn(5, height, width, generator=generator, dtype=torch.float64)
    return cells, torch.rand(5, height, width, generator=generator, dtype=torch.float64)


def test_every_list_of_evidence_distances_is_the_same() -> None:
    assert tuple(EVIDENCE_DISTANCES) == get_args(EvidenceDistance)
    for name in EVIDENCE_DISTANCES:
        assert Training(distance=name, cam_class="decision").distance == name
        assert 0.1 in ALPHA_GRIDS[name]


@given(seed=st.integers(0, 9999), name=st.sampled_from(list(EVIDENCE_DISTANCES)))
def test_each_distance_of_evidence_is_the_loop(seed: int, name: Any) -> None:
    cells, mask = drawn(seed)
    found = guidance(cells, mask, name)
    for image in range(5):
        expected = slow_evidence(
            name, cells[image].flatten().tolist(), mask[image].flatten().tolist()
        )
        assert found[image].item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@every_evidence
def test_gradients_of_evidence_are_finite_differences(name: Any) -> None:
    cells, mask = drawn(3)
    assert torch.autograd.gradcheck(lambda z: guidance(z, mask, name), cells.requires_grad_())


@every_evidence
def test_level_and_sign_count(name: Any) -> None:
    """What min-max normalization removes: 100 outside and 101 inside is not a good map."""
    mask = torch.tensor([[[1.0, 0.0, 0.0]]])
    near = guidance(torch.tensor([[[101.0, 100.0, 100.0]]]), mask, name)
    good = guidance(torch.tensor([[[101.0, 0.0, 0.0]]]), mask, name)
    assert near.item() > good.item() + 0.2
    assert guidance(torch.tensor([[[101.0, 100.0, 100.0]]]), mask, "l2").item() == 0


def test_without_positive_evidence_energy_is_one_and_flat() -> None:
    cells = torch.tensor([[[-1.0, -2.0]]], requires_grad=True)
    loss = guidance(cells, torch.tensor([[[1.0, 0.0]]]), "energy")
    assert loss.item() == 1
    loss.sum().backward()
    assert cells.grad is not None
    assert not cells.grad.any()


def test_an_image_without_marks_is_a_logistic_loss_of_its_label() -> None:
    """Its mask is 1 everywhere: evidence asks for the label's log-odds, cells for each cell."""
    cells, _ = drawn(7)
    whole = torch.ones_like(cells)
    torch.testing.assert_close(
        guidance(cells, whole, "evidence"), (1 + (-cells.mean((1, 2))).exp()).log()
    )
    torch.testing.assert_close(
        guidance(cells, whole, "cells"), (1 + (-cells).exp()).log().mean((1, 2))
    )
    logits, labels = torch.zeros(5, 2).double(), torch.zeros(5, dtype=torch.int64)
    for name in ("energy", "cosine", "l2"):
        terms = guided_loss_terms(logits, cells, Targets(labels, whole), name)  # type: ignore[arg-type]
        assert not terms.guided.any()


@every_evidence
def test_no_mark_and_no_number_guide_nothing(name: Any) -> None:
    cells, mask = drawn(9)
    mask[0], mask[1, 0, 0], mask[2] = 0, math.nan, math.inf
    logits, labels = torch.zeros(5, 2).double(), torch.zeros(5, dtype=torch.int64)
    terms = guided_loss_terms(logits, cells, Targets(labels, mask), name)
    assert terms.guided.tolist() == [False, False, False, True, True]
    assert terms.uninformative.tolist() == [True, True, True, False, False]
    assert torch.isfinite(combine(terms, 0.3))
    assert not terms.guidance[:3].any()


@every_evidence
@pytest.mark.parametrize("alpha", [0.0, 0.4])
def test_gradient_norms_are_autograds(name: Any, alpha: float) -> None:
    cells, mask = drawn(11)
    mask[1] = 0
    weight = torch.tensor([1.0, 1.0, 0.0, 2.0, 0.5]).double()
    logits, labels = torch.randn(5, 2).double(), torch.tensor([0, 1, 0, 1, 1])
    targets = Targets(labels, mask, weight)
    cells.requires_grad_()
    terms = guided_loss_terms(logits, cells, targets, name)
    (gradient,) = torch.autograd.grad(combine(terms, alpha), cells)
    _, at_map = gradient_norms(logits, terms, targets, alpha=alpha, distance=name)
    torch.testing.assert_close(at_map, 5 * gradient.flatten(1).norm(dim=1))


def test_several_distances_are_their_weighted_sum() -> None:
    cells, mask = drawn(13)
    mask[1] = 1  # l2 cannot take it, cells can
    both = {"l2": 0.5, "cells": 2.0}
    found = guidance(cells, mask, both)  # type: ignore[arg-type]
    expected = 0.5 * guidance(cells, mask, "l2") + 2 * guidance(cells, mask, "cells")
    torch.testing.assert_close(found, expected)
    logits, labels = torch.zeros(5, 2).double(), torch.zeros(5, dtype=torch.int64)
    cells.requires_grad_()
    terms = guided_loss_terms(logits, cells, Targets(labels, mask), both)  # type: ignore[arg-type]
    assert terms.guided.all()
    torch.testing.assert_close(terms.guidance[1], 2 * guidance(cells, mask, "cells")[1])
    torch.testing.assert_close(terms.guidance[2:], expected[2:])
    _, at_map = gradient_norms(
        logits,
        terms,
        Targets(labels, mask),
        alpha=0.0,
        distance=both,  # type: ignore[arg-type]
    )
    assert (at_map > 0).all()


def test_masks_outside_0_and_1_are_refused() -> None:
    cells, mask = drawn(15)
    logits, labels = torch.zeros(5, 2).double(), torch.zeros(5, dtype=torch.int64)
    with pytest.raises(ValueError, match="masks in"):
        guidance(cells, 255 * mask, "cells")
    with pytest.raises(ValueError, match="masks in"):
        GuidedLoss(0.5, {"l2": 1.0, "energy": 1.0})(logits, labels, cells, -mask)
    GuidedLoss(0.5, "l2")(logits, labels, cells, 255 * mask)
    weight = torch.tensor([0.0, 1, 1, 1, 1]).double()
    mask[0] = 255  # without weight a map may contain anything
    assert torch.isfinite(GuidedLoss(0.5, "cells")(logits, labels, cells, mask, weight))


def test_the_alpha_that_follows_the_losses_has_no_gradient() -> None:
    cells, mask = drawn(17)
    logits = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 1, 0, 1, 1])
    terms = guided_loss_terms(logits, cells, Targets(labels, mask), "cells")
    c, g = terms.classification.mean(), terms.guidance.mean()
    alpha = balanced_alpha(terms)
    assert alpha.item() == pytest.approx((c / (c + g)).item())
    assert not alpha.requires_grad
    torch.testing.assert_close(combine(terms, alpha), (c**2 + g**2) / (c + g))
    nothing = terms._replace(classification=0 * c[None], guidance=0 * g[None])
    assert balanced_alpha(nothing).item() == 1
