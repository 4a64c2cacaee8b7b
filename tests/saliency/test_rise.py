"""RISE: its formulas letter by letter, its limit by enumeration, when it stops, how sure it is."""

from __future__ import annotations

import functools
import itertools
import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import preceptor.saliency
from preceptor.models.build import build_model
from preceptor.models.guided_model import GuidedModel
from preceptor.saliency.rise import RiseResult, covariance, rise, rise_published, self_normalised
from preceptor.saliency.rise_masks import full_block

Model = Callable[[Tensor], Tensor]
ONE = torch.tensor([1])


def correlation(one: Tensor, other: Tensor) -> float:
    return float(np.corrcoef(one.flatten().numpy(), other.flatten().numpy())[0, 1])


def analytic(seed: int, bias: float = 2.0, cells: int = 7, interactions: float = 1.0) -> Model:
    """One logit: a quadratic function of the means of cells × cells patches, of a high mean."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(cells**2, generator=generator)
    pairs = interactions / cells * torch.randn(cells**2, cells**2, generator=generator)

    def model(images: Tensor) -> Tensor:
        patches = functional.adaptive_avg_pool2d(images.mean(1, keepdim=True), cells).flatten(1)
        patches = patches - 0.5
        return (patches @ weight + ((patches @ pairs) * patches).sum(1) + bias)[:, None]

    return model


def toy(model: Model, **how: Any) -> RiseResult:
    """RISE of one white image of 28 × 28, where a patch mean is the mean of the mask there."""
    how = {"size": (7, 7), "batch_size": 1000} | how
    return rise(model, torch.ones(1, 1, 28, 28), ONE, **how)


@functools.cache
def limit(seed: int, bias: float, interactions: float = 1.0) -> Tensor:
    """The converged map of an analytic model."""
    model = analytic(seed, bias, interactions=interactions)
    return toy(model, max_masks=32_000, tolerance=0, seed=100).maps


# The formulas.


def drawn(images: int, count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(images, count, generator=generator, dtype=torch.float64)
    return scores, torch.rand(count, 3, 5, generator=generator, dtype=torch.float64)


def test_published_is_the_formula() -> None:
    scores, masks = drawn(2, 40)
    for on in (0.5, 0.3):
        found = rise_published(scores, masks, on)
        for image, i, j in np.ndindex(2, 3, 5):
            total = sum(float(scores[image, k] * masks[k, i, j]) for k in range(40))
            assert float(found[image, i, j]) == pytest.approx(total / (40 * on), rel=1e-12)


def test_self_normalised_is_the_formula() -> None:
    scores, masks = drawn(2, 40)
    found = self_normalised(scores, masks)
    for image, i, j in np.ndindex(2, 3, 5):
        above = sum(float(scores[image, k] * masks[k, i, j]) for k in range(40))
        below = sum(float(masks[k, i, j]) for k in range(40))
        assert float(found[image, i, j]) == pytest.approx(above / below, rel=1e-12)


def test_covariance_is_the_formula() -> None:
    scores, masks = drawn(2, 40)
    found = covariance(scores, masks)
    for image, i, j in np.ndindex(2, 3, 5):
        f, m = scores[image].tolist(), masks[:, i, j].tolist()
        f_mean, m_mean = sum(f) / 40, sum(m) / 40
        expected = sum((a - f_mean) * (b - m_mean) for a, b in zip(f, m, strict=True)) / 40
        assert float(found[image, i, j]) == pytest.approx(expected, rel=1e-9)


def test_scores_of_one_image_need_no_batch() -> None:
    scores, masks = drawn(2, 40)
    for estimate in (rise_published, self_normalised, covariance):
        torch.testing.assert_close(estimate(scores[1], masks), estimate(scores, masks)[1])


# The limit.


def all_masks(cells: int, side: int) -> Tensor:
    """Every mask that there is: all patterns of cells at all shifts, by torch's enlargement."""
    pixels = math.ceil(side / cells)
    whole = (cells + 1) * pixels
    patterns = torch.tensor(list(itertools.product((0.0, 1.0), repeat=cells**2)))
    wide = functional.interpolate(
        patterns.view(-1, 1, cells, cells),
        size=(whole, whole),
        mode="bilinear",
        align_corners=False,
    )[:, 0]
    shifts = itertools.product(range(pixels), repeat=2)
    return torch.cat([wide[:, y : y + side, x : x + side] for y, x in shifts])


def score_of(model: Model, images: Tensor, score: str) -> Tensor:
    """Of the second class, whose logit this is."""
    logits = model(images)[:, 0].double()
    return logits.sigmoid() if score == "probability" else logits


@pytest.mark.parametrize("cells", [2, 3])
@pytest.mark.parametrize("score", ["probability", "logit"])
def test_both_estimators_converge_to_the_enumerated_map(cells: int, score: Any) -> None:
    model = analytic(3, 1.0, 4)
    image = torch.rand(1, 2, 8, 8, generator=torch.Generator().manual_seed(0)) + 0.5
    masks = all_masks(cells, 8)
    scores = score_of(model, image * masks[:, None], score)
    masks = masks.double()
    mean = torch.einsum("n,nhw->hw", scores, masks) / len(masks) / 0.5
    both = torch.einsum("n,nhw->hw", scores - scores.mean(), masks - 0.5) / len(masks)
    # Up to scale and offset they are one map.
    torch.testing.assert_close(mean, 2 * both + scores.mean(), atol=1e-6, rtol=0)

    how: dict[str, Any] = {"cells": cells, "score": score, "tolerance": 0, "batch_size": 1000}
    for estimator, expected, count in (("default", both, 4000), ("published", mean, 16_000)):
        how |= {"estimator": estimator, "max_masks": count}
        full = rise(model, image, ONE, size="image", **how)
        assert correlation(full.maps[0], expected) > (0.998 if estimator == "default" else 0.98)
        # Scale and offset too.
        gap = (full.maps[0] - expected).abs().max() / (expected.max() - expected.min())
        assert gap < (0.03 if estimator == "default" else 0.2)
        how |= {"max_masks": 400}
        full, grid = (rise(model, image, ONE, size=size, **how) for size in ("image", (4, 4)))
        pooled = functional.adaptive_avg_pool2d(full.maps, 4)
        torch.testing.assert_close(grid.maps, pooled, atol=1e-5, rtol=0)


@pytest.mark.parametrize("seed", [0, 1])
def test_default_and_published_maps_have_one_limit(seed: int) -> None:
    model = analytic(seed, 1.0)
    found = toy(model, max_masks=16_000, tolerance=0)
    other = toy(model, max_masks=16_000, tolerance=0, estimator="published", seed=1)
    assert correlation(found.maps, other.maps) > 0.99


def test_a_confident_model_takes_a_sixteenth_of_the_evaluations() -> None:
    found: dict[str, list[float]] = {"default": [], "published": []}
    for seed in range(3):
        model = analytic(seed, 4.0)
        for estimator, count in (("default", 384), ("published", 16 * 384)):
            for masks in range(3):
                made = toy(model, max_masks=count, tolerance=0, estimator=estimator, seed=masks)
                assert int(made.masks_used) == count
                found[estimator].append(correlation(made.maps, limit(seed, 4.0)))
    assert np.median(found["default"]) > 0.97
    assert np.median(found["published"]) < 0.95


def test_the_mean_score_and_interactions_of_two_cells_cancel_in_every_block() -> None:
    """With one shift alone, the map of a quadratic function of the cells is exact at once."""
    generator = torch.Generator().manual_seed(0)
    weight, pairs = torch.randn(49, generator=generator), torch.randn(49, 49, generator=generator)

    def quadratic(images: Tensor) -> Tensor:
        centred = images.flatten(1) - 0.5
        return (centred @ weight + ((centred @ pairs) * centred).sum(1) + 1000)[:, None]

    found = rise(
        quadratic, torch.ones(1, 1, 7, 7), ONE, score="logit", max_masks=3 * 128, size="image"
    )
    unit = torch.eye(7)[:, None]
    ramp = functional.interpolate(unit, size=8, mode="linear", align_corners=False)[:, 0, :7].T
    slopes = ramp.T @ weight.view(7, 7) @ ramp  # of the score by each cell
    torch.testing.assert_close(found.maps[0], ramp @ (slopes / 4) @ ramp.T, atol=1e-4, rtol=0)
    assert found.error < 1e-6


# How sure it is, and when it stops.


@pytest.mark.parametrize(
    ("estimator", "counts"), [("default", (384, 768, 1536)), ("published", (1536, 3072))]
)
@pytest.mark.parametrize("bias", [1.0, 3.0])
def test_the_error_is_that_of_the_map(estimator: Any, counts: tuple[int, ...], bias: float) -> None:
    """Over 48 maps the estimate is 0.8 to 3 times 1 − the correlation with a converged map.

    Above 1, since spread shifts make blocks differ more than chance would, and since of the noise
    the part along the map does no harm.
    """
    models = [analytic(seed, bias) for seed in (0, 1)]
    medians = []
    for count in counts:
        estimated, true = [], []
        for model, seed in itertools.product((0, 1), range(8)):
            how = {"max_masks": count, "tolerance": 0, "seed": seed, "estimator": estimator}
            found = toy(models[model], **how)
            estimated.append(float(found.error))
            true.append(1 - correlation(found.maps, limit(model, bias)))
        assert 0.8 < np.median(np.array(estimated) / np.array(true)) < 3
        medians.append((np.median(estimated), np.median(true)))
    # More masks, less error: half of it for twice as many.
    for (before, harm), (after, less) in itertools.pairwise(medians):
        assert after < 0.7 * before
        assert less < 0.7 * harm


def test_maps_that_have_settled_are_what_was_asked_for() -> None:
    """Stopping at the first estimate within the tolerance may be luck, but not much of it."""
    true, used = [], []
    for which in range(5):
        model = analytic(which, 4.0, interactions=4)
        for seed in range(6):
            found = toy(model, tolerance=0.02, seed=seed)
            assert float(found.error) <= 0.02
            true.append(1 - correlation(found.maps, limit(which, 4.0, 4.0)))
            used.append(int(found.masks_used))
    assert np.mean(np.array(true) <= 0.02) >= 0.75
    assert max(true) < 0.04
    assert len(set(used)) > 1


def test_an_easy_model_is_done_early() -> None:
    found = toy(analytic(0, interactions=0), max_masks=8000)
    assert int(found.masks_used) == 3 * 128
    assert float(found.error) < 0.05


def hash_of(images: Tensor) -> Tensor:
    """A number that depends on every pixel, and on nothing that could be learnt."""
    return (1e4 * (images * torch.arange(1.0, 785).view(28, 28)).sum((1, 2, 3))).sin()[:, None]


def test_what_ignores_its_input_or_is_noise_of_it_never_settles() -> None:
    constant = toy(lambda images: torch.full((len(images), 1), 0.3), max_masks=1000)
    assert (int(constant.masks_used), float(constant.error)) == (7 * 128, 1.0)
    for estimator in ("default", "published"):
        errors = []
        for seed in range(10):
            found = toy(hash_of, max_masks=1000, seed=seed, estimator=estimator)
            assert int(found.masks_used) == 7 * 128
            errors.append(float(found.error))
        assert min(errors) > 0.25
        assert np.median(errors) > 0.5


@pytest.mark.parametrize("size", [(2, 2), (3, 3)])
@pytest.mark.parametrize("tolerance", [0.05, 0.2])
def test_noise_does_not_settle_on_a_small_grid(size: tuple[int, int], tolerance: float) -> None:
    """Few cells agree by chance: without a rule for it, a quarter of maps of 2 × 2 cells at 0.2."""
    images = 1 + torch.rand(200, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    found = rise(
        hash_of,
        images,
        torch.ones(200, dtype=torch.int64),
        max_masks=900,
        tolerance=tolerance,
        size=size,
        batch_size=2000,
    )
    assert int((found.error < tolerance).sum()) <= 2


def test_maps_of_a_small_grid_settle_all_the_same() -> None:
    for seed in range(4):
        found = toy(analytic(seed), size=(2, 2), max_masks=4000)
        settled = toy(analytic(seed), size=(2, 2), max_masks=16_000, tolerance=0, seed=50)
        assert float(found.error) < 0.05
        assert correlation(found.maps, settled.maps) > 0.95


def test_scores_that_are_not_finite_never_settle_and_harm_no_other() -> None:
    model = analytic(0)

    def sometimes(images: Tensor) -> Tensor:
        return torch.where(images[:, :1, 0, 0] > 5, torch.nan, model(images))

    images = torch.ones(2, 1, 28, 28)
    images[1] = 20
    found = rise(sometimes, images, torch.tensor([1, 1]), max_masks=600)
    alone = rise(sometimes, images[:1], ONE, max_masks=600)
    assert found.error[1] == 1
    assert found.masks_used.tolist() == [384, 512]
    torch.testing.assert_close(found.maps[0], alone.maps[0])


@pytest.mark.parametrize("max_masks", [2, 3, 7, 20, 100, 500])
@pytest.mark.parametrize("estimator", ["default", "published"])
def test_never_more_masks_than_asked_for(max_masks: int, estimator: Any) -> None:
    seen: list[int] = []

    def model(images: Tensor) -> Tensor:
        seen.append(len(images))
        return analytic(0)(images)

    found = toy(model, max_masks=max_masks, tolerance=0, estimator=estimator)
    assert sum(seen) == int(found.masks_used) <= max_masks
    assert int(found.masks_used) > 0.7 * max_masks - 2
    assert torch.isfinite(found.maps).all()
    if max_masks < 6:  # not three blocks of two
        assert float(found.error) == 1


def test_a_tolerance_of_0_uses_all_masks() -> None:
    """Also where the blocks agree to the last digit: a linear score and one shift."""

    def linear(images: Tensor) -> Tensor:
        return images.flatten(1)[:, :1]

    white = torch.ones(1, 1, 7, 7)
    found = rise(linear, white, ONE, score="logit", tolerance=0, max_masks=1280)
    assert (int(found.masks_used), float(found.error)) == (1280, 0.0)
    found = rise(linear, white, ONE, score="logit", tolerance=1e-6, max_masks=1280)
    assert int(found.masks_used) == 384


# What a map depends on.


def batch_of(count: int, channels: int = 3, size: tuple[int, int] = (32, 32)) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    low = torch.randn(count, channels, 4, 4, generator=generator)
    return functional.interpolate(low, size=size, mode="bilinear")


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Conv2d(8, 8, 3, stride=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 3),
    )
    model(torch.randn(64, 3, 32, 32))  # running statistics of its own
    model[-1].weight.data *= 6
    return model.eval()


CLASSES = torch.tensor([0, 1, 2, 1, 0])


def close(found: RiseResult, expected: RiseResult, share: float = 1e-5) -> None:
    """Equal up to a share of each map's range; as many masks and as sure."""
    spread = expected.maps.amax((1, 2)) - expected.maps.amin((1, 2))
    gap = (found.maps - expected.maps).abs().amax((1, 2))
    assert (gap <= share * spread).all(), gap / spread
    assert torch.equal(found.masks_used, expected.masks_used)
    torch.testing.assert_close(found.error, expected.error, atol=1e-4, rtol=0)


@pytest.mark.parametrize("estimator", ["default", "published"])
def test_a_seed_gives_one_map_however_images_and_masks_are_batched(
    network: nn.Module, estimator: Any
) -> None:
    images, how = batch_of(5), {"max_masks": 600, "estimator": estimator, "seed": 3}
    whole = rise(network, images, CLASSES, **how)
    again = rise(network, images, CLASSES, **how)
    assert all(torch.equal(one, other) for one, other in zip(whole, again, strict=True))
    for batch_size in (1, 7, 1000):
        close(rise(network, images, CLASSES, batch_size=batch_size, **how), whole)
    for part in (slice(0, 1), slice(3, 4), slice(1, 5)):
        expected = RiseResult(*(values[part] for values in whole))
        close(rise(network, images[part], CLASSES[part], **how), expected)
    other = rise(network, images, CLASSES, **(how | {"seed": 4}))
    assert not torch.equal(other.maps, whole.maps)


def test_images_stop_one_by_one(network: nn.Module) -> None:
    found = rise(network, batch_of(5), CLASSES, tolerance=0.004, max_masks=1000)
    assert len(set(found.masks_used.tolist())) > 1
    assert found.masks_used.dtype == torch.int64
    done = found.error <= 0.004
    assert (found.masks_used[~done] == 7 * 128).all()
    assert (found.masks_used[done] >= 3 * 128).all()


def test_no_global_random_state_is_touched(network: nn.Module) -> None:
    def states() -> list[Any]:
        kind, keys, *rest = np.random.get_state()  # noqa: NPY002
        return [torch.get_rng_state().tolist(), kind, keys.tolist(), rest, random.getstate()]

    before = states()
    found = rise(network, batch_of(2), CLASSES[:2], max_masks=300, fill="blur")
    assert states() == before
    torch.manual_seed(99)
    again = rise(network, batch_of(2), CLASSES[:2], max_masks=300, fill="blur")
    assert torch.equal(found.maps, again.maps)


def test_the_model_is_as_it_was(network: nn.Module) -> None:
    calls: list[int] = []
    network.train()
    network[1].eval()  # a part that was frozen
    modes = [part.training for part in network.modules()]
    handle = network[0].register_forward_hook(lambda *_: calls.append(1))
    state = {key: value.clone() for key, value in network.state_dict().items()}
    pointers = [value.data_ptr() for value in network.parameters()]
    try:
        found = rise(network, batch_of(2), CLASSES[:2], max_masks=300)
        assert [part.training for part in network.modules()] == modes
        assert pointers == [value.data_ptr() for value in network.parameters()]
        for key, value in network.state_dict().items():
            assert torch.equal(value, state[key])
        assert list(network[0]._forward_hooks) == [handle.id]
        assert len(calls) <= 1  # it does not see masked images
        assert all(value.grad is None for value in network.parameters())
    finally:
        handle.remove()
        network.eval()
    expected = rise(network, batch_of(2), CLASSES[:2], max_masks=300)
    assert torch.equal(found.maps, expected.maps)  # evaluation mode meanwhile: no dropout


class Broken(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Dropout()

    def forward(self, images: Tensor) -> Tensor:
        raise RuntimeError("no such kernel")


def test_an_exception_leaves_the_model_as_it_was() -> None:
    model = Broken().train()
    model.inner.eval()
    with pytest.raises(RuntimeError, match="no such kernel"):
        rise(model, batch_of(1), ONE)
    assert model.training
    assert not model.inner.training
    with pytest.raises(ValueError, match="classes from 7 to 7"):
        rise(
            nn.Sequential(model.inner, nn.Flatten(), nn.Linear(147, 2)).train(),
            batch_of(1, size=(7, 7)),
            torch.tensor([7]),
        )
    assert not torch.is_inference_mode_enabled()


# Models, layouts, precisions, sizes.


def test_a_module_a_function_and_a_tuple_are_one(network: nn.Module) -> None:
    images, how = batch_of(3), {"max_masks": 300}
    module = rise(network, images, CLASSES[:3], **how)
    close(rise(lambda x: network(x), images, CLASSES[:3], **how), module)
    close(rise(lambda x: (network(x), "more"), images, CLASSES[:3], **how), module)
    last = images.contiguous(memory_format=torch.channels_last)
    close(rise(network, last, CLASSES[:3], **how), module)
    assert module.maps.shape == (3, 7, 7)
    assert module.maps.dtype == module.error.dtype == torch.float32


@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
@pytest.mark.parametrize("in_chans", [1, 3])
def test_a_guidable_model_is_marked_on_its_grid(head: Any, in_chans: int) -> None:
    torch.manual_seed(0)
    model = build_model(
        "test_byobnet",
        ("a", "b"),
        positive="b",
        input_size=32,
        in_chans=in_chans,
        head=head,
        backbone_args={"output_stride": 8},
    )
    model.train()
    model(torch.randn(64, in_chans, 32, 32))
    model.head.weight.data *= 6
    images, classes = batch_of(3, in_chans), torch.tensor([0, 1, 1])
    found = rise(model, images, classes, max_masks=300)
    assert model.training
    assert found.maps.shape == (3, 4, 4)
    assert (found.error < 0.9).all()
    model.eval()
    how: dict[str, Any] = {"max_masks": 300, "size": (4, 4)}
    close(rise(lambda x: model(x).logits, images, classes, **how), found, 1e-4)
    last = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    close(rise(last, images.to(memory_format=torch.channels_last), classes, **how), found, 1e-4)
    assert rise(model, batch_of(1, in_chans, (64, 32)), ONE, max_masks=40).maps.shape == (1, 8, 4)


@pytest.mark.parametrize("backbone", ["repvgg_a0", "mobileone_s0", "fastvit_t8"])
def test_backbones_with_strided_point_convolutions_are_marked(backbone: str) -> None:
    torch.manual_seed(0)
    model = build_model(backbone, ["a", "b"], input_size=64)
    images = torch.randn(8, 3, 64, 64)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = 1.0
    with torch.no_grad():
        model(images)  # without statistics of images the signal fades on its way
    found = rise(model, images[:1], ONE, max_masks=48)
    assert found.maps.shape == (1, 2, 2)
    assert float(found.maps.std()) > 0


def test_the_other_class_has_the_opposite_map() -> None:
    torch.manual_seed(0)
    model = build_model("test_byobnet", ("a", "b"), positive="b", input_size=32, head="sigmoid")
    images = batch_of(2)
    for score in ("probability", "logit"):
        how: dict[str, Any] = {"max_masks": 128, "score": score, "size": (4, 4)}
        one, other = (rise(model, images, torch.full((2,), k), **how) for k in (0, 1))
        torch.testing.assert_close(one.maps, -other.maps, atol=1e-6, rtol=1e-3)


def amplified() -> GuidedModel:
    torch.manual_seed(0)
    model = build_model("test_byobnet", ("a", "b"), positive="b", input_size=32)
    model.train()
    model(torch.randn(64, 3, 32, 32))
    model.head.weight.data *= 20
    return model.eval()


def test_an_ambient_autocast_is_respected() -> None:
    model, images, classes = amplified(), batch_of(2), torch.tensor([0, 1])
    dtypes: set[torch.dtype] = set()

    def call(shown: Tensor) -> Tensor:
        logits = model(shown).logits
        dtypes.add(logits.dtype)
        return logits

    how: dict[str, Any] = {"max_masks": 576, "tolerance": 0, "size": (4, 4)}
    plain = rise(model, images, classes, **how)
    with torch.autocast("cpu", torch.bfloat16):
        half = rise(model, images, classes, **how)
        rise(call, images, classes, max_masks=8)
    assert dtypes == {torch.bfloat16}
    assert not torch.equal(half.maps, plain.maps)
    assert half.maps.dtype == torch.float32
    for one, other in zip(half.maps, plain.maps, strict=True):
        assert correlation(one, other) > 0.97


def test_images_of_any_shape(network: nn.Module) -> None:
    images = batch_of(2, size=(24, 45))
    how: dict[str, Any] = {"max_masks": 300, "tolerance": 0}
    image = rise(network, images, CLASSES[:2], size="image", **how)
    assert image.maps.shape == (2, 24, 45)
    cells = rise(network, images, CLASSES[:2], **how)
    assert cells.maps.shape == (2, 7, 7)
    other = rise(network, images, CLASSES[:2], size=(8, 9), **how)
    pooled = functional.adaptive_avg_pool2d(image.maps, (8, 9))
    torch.testing.assert_close(other.maps, pooled, atol=1e-6, rtol=1e-4)
    for cells_a_side in (2, 5):
        found = rise(network, images, CLASSES[:2], cells=cells_a_side, **how)
        assert found.maps.shape == (2, cells_a_side, cells_a_side)
        size = min(full_block(cells_a_side), 100)
        assert found.masks_used.tolist() == [300 // size * size] * 2


def test_maps_can_be_used_like_any_tensor(network: nn.Module) -> None:
    found = rise(network, batch_of(1), ONE, max_masks=20)
    scale = torch.ones(1, requires_grad=True)
    (found.maps * scale).sum().backward()
    found.maps.add_(1)
    found.error.mul_(2)


@pytest.mark.parametrize("batch_size", [1, 5, 50])
def test_the_model_sees_no_more_images_at_once_than_asked_for(batch_size: int) -> None:
    seen: list[int] = []

    def model(images: Tensor) -> Tensor:
        seen.append(len(images))
        return analytic(0)(images)

    rise(model, torch.ones(3, 1, 28, 28), torch.ones(3).long(), max_masks=60, batch_size=batch_size)
    assert max(seen) <= batch_size
    assert sum(seen) == 180


def test_rise_is_offered_by_its_package() -> None:
    assert preceptor.saliency.rise is rise


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"images": torch.ones(3, 28, 28)}, r"images \(3, 28, 28\)"),
        ({"classes": torch.ones(2).long()}, r"classes \(2,\)"),
        ({"images": torch.ones(0, 1, 28, 28), "classes": torch.ones(0).long()}, "images is empty"),
        ({"images": torch.ones(1, 1, 28, 28).byte()}, "uint8; they must be normalized floats"),
        ({"images": torch.ones(1, 1, 28, 6)}, "cells is 7"),
        ({"cells": 1}, "cells is 1"),
        ({"max_masks": 1}, "max_masks 1"),
        ({"tolerance": 1.0}, "tolerance 1.0"),
        ({"tolerance": -0.1}, "tolerance -0.1"),
        ({"tolerance": math.nan}, "tolerance nan"),
        ({"estimator": "mean"}, "estimator 'mean' is not one of default, published"),
        ({"score": "entropy"}, "score 'entropy'"),
        ({"fill": "black"}, "fill 'black'"),
        ({"size": "whole"}, "size 'whole'"),
        ({"size": (0, 4)}, r"size \(0, 4\)"),
        ({"batch_size": 0}, "batch_size 0"),
        ({"classes": torch.tensor([2])}, "classes from 2 to 2; the model has classes 0 to 1"),
    ],
)
def test_what_makes_no_sense(how: dict[str, Any], message: str) -> None:
    images, classes = how.pop("images", torch.ones(1, 1, 28, 28)), how.pop("classes", ONE)
    with pytest.raises(ValueError, match=message):
        rise(analytic(0), images, classes, **how)
