"""Each distance against a loop over cells, SciPy, finite differences and autograd."""

from __future__ import annotations

import math
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial import distance as spatial
from scipy.special import rel_entr
from torch import Tensor

from preceptor.config.training import Distance, NormalizedDistance, Training
from preceptor.losses.distances import DISTANCES
from preceptor.losses.guided import Targets, combine, gradient_norms, guidance, guided_loss_terms
from preceptor.saliency.maps import normalize
from preceptor.study.config import ALPHA_GRIDS, Guidance

NAN = float("nan")
every = pytest.mark.parametrize("distance", DISTANCES)


def pair(
    seed: int = 0, size: int = 6, grid: tuple[int, int] = (4, 5), dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    """Raw saliency of a model, and maps of another scale."""
    generator = torch.Generator().manual_seed(seed)
    options: dict[str, Any] = {"generator": generator, "dtype": dtype}
    return torch.randn(size, *grid, **options), 7 * torch.rand(size, *grid, **options)


def slow(name: str, one: list[float], other: list[float]) -> float:
    """One cell at a time, as the formulas are printed; `one` is the model's."""
    count = len(one)
    if name == "l2":
        return math.sqrt(sum((a - b) ** 2 for a, b in zip(one, other, strict=True)))
    if name == "mse":
        return sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) / count
    if name == "l1":
        return sum(abs(a - b) for a, b in zip(one, other, strict=True)) / count
    if name == "kl":
        total_p, total_q = sum(one) + 0.01 * count, sum(other) + 0.01 * count
        result = 0.0
        for a, b in zip(one, other, strict=True):
            p, q = (a + 0.01) / total_p, (b + 0.01) / total_q
            result += q * math.log(q / p)
        return result
    assert name == "dice", f"add the formula of {name}"
    overlap = sum(a * b for a, b in zip(one, other, strict=True))
    sizes = sum(a * a for a in one) + sum(b * b for b in other)
    return 1 - 2 * overlap / sizes


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


@pytest.mark.parametrize("seed", range(5))
def test_kl_is_scipys(seed: int) -> None:
    """The target comes first in KL(q‖p); SciPy normalises both to distributions itself."""
    cam, maps = (normalize(each).flatten(1).numpy() for each in pair(seed))
    found = guidance(*pair(seed), "kl").numpy()
    p, q = cam + 0.01, maps + 0.01
    np.testing.assert_allclose(found, stats.entropy(q, p, axis=1), rtol=1e-9)
    p, q = (rows / rows.sum(1, keepdims=True) for rows in (p, q))
    np.testing.assert_allclose(found, rel_entr(q, p).sum(1), rtol=1e-9)
    assert not np.allclose(found, rel_entr(p, q).sum(1), rtol=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_dice_of_binary_maps_is_the_dice_dissimilarity(seed: int) -> None:
    generator = np.random.default_rng(seed)
    one, other = generator.random((2, 8, 6, 6)) < np.array([0.2, 0.6])[:, None, None, None]
    found = guidance(torch.from_numpy(one * 3.0), torch.from_numpy(other * 1.0), "dice")
    expected = [spatial.dice(a.ravel(), b.ravel()) for a, b in zip(one, other, strict=True)]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_l1_l2_and_mse_are_norms(seed: int) -> None:
    cam, maps = (normalize(each).flatten(1).numpy() for each in pair(seed))
    for name, expected in (
        ("l2", [spatial.euclidean(a, b) for a, b in zip(cam, maps, strict=True)]),
        ("l1", [spatial.cityblock(a, b) / 20 for a, b in zip(cam, maps, strict=True)]),
        ("mse", [spatial.sqeuclidean(a, b) / 20 for a, b in zip(cam, maps, strict=True)]),
    ):
        found = guidance(*pair(seed), name)  # type: ignore[arg-type]
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


@every
@pytest.mark.parametrize("seed", [1, 7, 12])
def test_gradients_of_guidance_are_finite_differences(distance: Any, seed: int) -> None:
    """Through normalisation; these maps differ in every cell, so that l1 has no kink here."""
    cam, maps = pair(seed, 3, (3, 4))
    gaps = (normalize(cam) - normalize(maps)).abs().flatten(1)
    assert gaps.min() > 1e-2
    assert torch.autograd.gradcheck(lambda c: guidance(c, maps, distance), cam.requires_grad_())


# What holds for all of them.

grids = st.integers(2, 5).flatmap(
    lambda w: st.lists(
        st.lists(st.integers(-4, 4).map(float), min_size=2 * w, max_size=2 * w),
        min_size=2,
        max_size=2,
    )
)


@settings(deadline=None, max_examples=60)
@given(
    cells=grids,
    scale=st.floats(0.1, 10),
    offset=st.floats(-10, 10),
    name=st.sampled_from(list(DISTANCES)),
)
def test_never_negative_and_zero_where_equal_after_normalisation_alone(
    cells: list[list[float]], scale: float, offset: float, name: Distance
) -> None:
    """Coarse whole numbers: ties, constant maps and equal maps all come up."""
    one, other = (torch.tensor(part, dtype=torch.float64).view(1, 2, -1) for part in cells)
    apart = (normalize(one) - normalize(other)).abs().max().item()
    found = guidance(one, other, name).item()
    assert found >= 0
    assert math.isfinite(found)
    assert (found == 0) == (apart == 0)
    same = guidance(one, scale * one + offset, name).item()
    assert same >= 0
    assert same == pytest.approx(0, abs=1e-9)


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


@every
def test_the_gradient_is_zero_where_the_maps_agree(distance: Any) -> None:
    """At the normalised map, where the guidance is applied; zeros on both sides among them."""
    for one in (normalize(pair()[0]), torch.zeros(2, 3, 3, dtype=torch.float64)):
        leaf = one.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(DISTANCES[distance](leaf, one).sum(), leaf)
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-12, rtol=0)


def test_the_gradient_of_kl_is_bounded() -> None:
    """The worst there is: a model that is empty exactly where all of the target lies."""
    model = torch.ones(1, 10, 10, dtype=torch.float64)
    model[0, 3, 3] = 0
    leaf = model.requires_grad_()
    (gradient,) = torch.autograd.grad(DISTANCES["kl"](leaf, 1 - model.detach()).sum(), leaf)
    assert 40 < gradient.abs().max() < 100


# The norms that metrics.csv reports.


def odd_batch() -> tuple[Tensor, ...]:
    """Guided, not guided with NaN in the map, constant, not finite, equal maps, constant cam."""
    cam, maps = pair(1, 8)
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(8, 3, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 3, (8,), generator=generator)
    map_weight = torch.tensor([1, 0, 0.5, 2, 1, 1, 0, 1.0], dtype=torch.float64)
    maps[1] = NAN
    maps[3] = 0.7
    maps[4, 0, 0] = NAN
    maps[5] = 2 * cam[5] + 1
    maps[6] = float("inf")
    cam[7] = 4.0
    sample_weight = torch.linspace(0.5, 2, 8, dtype=torch.float64)
    return logits, labels, cam, maps, map_weight, sample_weight


@every
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("recorded", [False, True])
def test_gradient_norms_are_those_of_the_whole_loss(
    distance: Any, alpha: float, weighted: bool, recorded: bool
) -> None:
    """Autograd through the batch's loss to the normalised map."""
    logits, labels, cam, maps, w, v = odd_batch()
    weights = (w, v) if weighted else (None, None)
    targets = Targets(labels, maps, *weights)
    terms = guided_loss_terms(logits, cam.requires_grad_(), targets, distance=distance)
    assert terms.pair is not None
    loss = combine(terms, alpha)
    expected = torch.zeros(8, dtype=torch.float64)
    if alpha < 1:
        (gradient,) = torch.autograd.grad(loss, terms.pair.model)
        expected = 8 * gradient.flatten(1).norm(dim=1)

    cam = cam.detach()
    if recorded:  # as after a step, on tensors of its graph
        logits, cam, maps = (each.requires_grad_() for each in (logits, cam, maps))
        targets = Targets(labels, maps, *weights)
        terms = guided_loss_terms(logits, cam, targets, distance=distance)
    with torch.set_grad_enabled(recorded):
        _, at_map = gradient_norms(logits, terms, targets, alpha=alpha, distance=distance)
    assert not at_map.requires_grad
    assert cam.grad is None
    torch.testing.assert_close(at_map, expected, atol=1e-7, rtol=1e-7)
    assert not at_map[~terms.guided].any()
    assert at_map[0] > 0 or alpha == 1
    assert torch.is_grad_enabled()


@every
def test_gradient_norms_of_a_batch_without_any_usable_map(distance: Any) -> None:
    logits, labels, cam, maps, w, v = odd_batch()
    for content in (NAN, float("inf"), 0.0, 0.3):
        useless = torch.full_like(maps, content)
        targets = Targets(labels, useless, w, v)
        terms = guided_loss_terms(logits, cam, targets, distance=distance)
        _, at_map = gradient_norms(logits, terms, targets, alpha=0.1, distance=distance)
        assert torch.equal(at_map, torch.zeros_like(at_map))


@every
def test_nothing_waits_for_the_device(distance: Any) -> None:
    """On the meta device there are no numbers: reading one, or indexing by a mask, fails."""
    logits, labels, cam, maps, w, v = (each.to("meta") for each in odd_batch())
    targets = Targets(labels, maps, w, v)
    terms = guided_loss_terms(logits, cam, targets, distance=distance)
    for norms in gradient_norms(logits, terms, targets, alpha=0.1, distance=distance):
        assert norms.shape == (8,)
