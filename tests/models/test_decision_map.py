"""Decision maps of both kinds of CAM and heads, and the pooling of them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from preceptor.errors import InputError
from preceptor.models.build import build_model, load_model, save_model, with_pool
from preceptor.models.spec import Pool
from preceptor.saliency.cam import decision_map


def odds(logits: Tensor, labels: Tensor) -> Tensor:
    """log p_y − log(1 − p_y), in float64."""
    p = logits.double().softmax(1)[torch.arange(len(labels)), labels]
    return p.log() - (1 - p).log()


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_a_decision_map_is_the_loop(classes: int) -> None:
    features, weight = torch.randn(4, 6, 2, 3).double(), torch.randn(classes, 6).double()
    logits, labels = torch.randn(4, classes).double().requires_grad_(), torch.arange(4) % classes
    found = decision_map(features, weight, logits, labels)
    assert not found.requires_grad  # the softmax counts as constant
    for image in range(4):
        cams = torch.einsum("kc,chw->khw", weight, features[image])
        y = int(labels[image])
        others = [c for c in range(classes) if c != y]
        total = sum(logits[image, c].exp() for c in others)
        rest = sum(logits[image, c].exp() / total * cams[c] for c in others)
        torch.testing.assert_close(found[image], cams[y] - rest)


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit"])
@pytest.mark.parametrize("classes", [2, 3, 10, 100])
def test_the_mean_of_the_evidence_is_the_log_odds(backbone: str, classes: int) -> None:
    model = build_model(backbone, [f"{k}" for k in range(classes)], input_size=64).eval()
    images = torch.randn(4, 3, 64, 64)
    labels = torch.tensor([0, 1, classes - 1, classes // 2])
    out = model(images, labels, decision=True)
    expected = odds(out.logits, labels)
    torch.testing.assert_close(out.evidence.mean((1, 2)).double(), expected, atol=1e-3, rtol=1e-3)
    with pytest.raises(ValueError, match="is not classes"):
        model(images, "every", decision=True)


POOLS = [Pool("top", 0.25), Pool("top", 3), Pool("lse", sharpness=2.0)]
SMALL = {"input_size": 64, "backbone_args": {"output_stride": 8}}


def test_a_share_of_the_cells_is_rounded_up() -> None:
    counts = [Pool("top", share).count(100) for share in (0.07, 0.28, 0.071, 0.005)]
    assert counts == [7, 28, 8, 1]


def slow(pool: Pool, cells: list[float]) -> float:
    if pool.kind == "mean":
        return sum(cells) / len(cells)
    if pool.kind == "lse":
        return math.log(sum(math.exp(pool.sharpness * x) for x in cells) / len(cells)) / (
            pool.sharpness
        )
    count = pool.top if isinstance(pool.top, int) else math.ceil(pool.top * len(cells))
    return sum(sorted(cells)[-count:]) / count


@given(seed=st.integers(0, 999), pool=st.sampled_from([Pool(), *POOLS]))
def test_each_pooling_is_the_loop(seed: int, pool: Pool) -> None:
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(4, 2, 3, 5, generator=generator, dtype=torch.float64)
    found = pool(maps)
    for image in range(4):
        for kind in range(2):
            expected = slow(pool, maps[image, kind].flatten().tolist())
            assert found[image, kind].item() == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert torch.autograd.gradcheck(pool, maps.requires_grad_())


@pytest.mark.parametrize("pool", POOLS, ids=str)
@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
def test_a_model_pools_its_decision_map(pool: Pool, head: str, tmp_path: Path) -> None:
    model = build_model(
        "test_byobnet",
        ["a", "b"],
        positive="b",
        head=head,
        pool=pool,
        **SMALL,  # type: ignore[arg-type]
    ).eval()
    torch.nn.init.normal_(model.head.weight)
    images, b = torch.randn(3, 3, 64, 64), torch.ones(3, dtype=torch.int64)
    out = model(images, b, decision=True)
    odds = out.logits[:, 1] - out.logits[:, 0]
    evidence = out.evidence.flatten(1)
    expected = torch.tensor([slow(pool, cells.tolist()) for cells in evidence])
    torch.testing.assert_close(odds, expected, atol=1e-4, rtol=1e-4)
    save_model(model, tmp_path)
    loaded = load_model(tmp_path).eval()
    assert loaded.spec == model.spec
    torch.testing.assert_close(loaded(images).logits, out.logits)
    plain = with_pool(loaded, Pool()).eval()
    torch.testing.assert_close(plain.mean_pooled(images).logits, plain(images).logits)


def test_pools_that_cannot_be_are_refused() -> None:
    with pytest.raises(InputError, match="pool_top is 65, and the feature grid has 8 × 8 = 64"):
        build_model("test_byobnet", ["a", "b"], pool=Pool("top", 65), **SMALL)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="needs an exact class activation map"):
        build_model("test_vit", ["a", "b"], input_size=64, pool=Pool("lse"))
    with pytest.raises(InputError, match="do not add up to the logits"):
        build_model("test_resnet", ["a", "b"], cam_source="cyborg", pool=Pool("top"))
