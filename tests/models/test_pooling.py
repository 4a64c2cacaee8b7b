"""Pooling of CAMs to logits: loops, what it leaves unchanged, model folders, refusals."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from preceptor.errors import InputError
from preceptor.models.build import build_model, with_pool
from preceptor.models.guided_model import GuidedModel
from preceptor.models.model_folder import load_model, save_model
from preceptor.models.spec import Pool, pooled_logits

POOLS = [Pool("top", 0.25), Pool("top", 3), Pool("lse", sharpness=2.0)]
SMALL = {"input_size": 64, "backbone_args": {"output_stride": 8}}


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


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("pool", [Pool(), *POOLS], ids=str)
def test_what_all_classes_share_changes_no_logit(pool: Pool, classes: int) -> None:
    maps, bias = torch.randn(3, classes, 4, 4).double(), torch.randn(classes).double()
    logits = pooled_logits(maps, bias, pool, classes - 1)
    shared = maps + 5 * torch.randn(3, 1, 4, 4).double()
    torch.testing.assert_close(pooled_logits(shared, bias, pool, classes - 1), logits)


@pytest.mark.parametrize("positive", [0, 1])
def test_the_positive_class_is_pooled_whatever_its_place(positive: int) -> None:
    maps, bias = torch.randn(3, 2, 4, 4), torch.tensor([0.3, -0.2])
    logits = pooled_logits(maps, bias, Pool("top", 2), positive)
    swapped = pooled_logits(maps.flip(1), bias.flip(0), Pool("top", 2), 1 - positive)
    torch.testing.assert_close(swapped.flip(1), logits)
    d = (maps[:, positive] - maps[:, 1 - positive]).flatten(1).sort(1).values[:, -2:].mean(1)
    z = d + bias[positive] - bias[1 - positive]
    torch.testing.assert_close(logits.softmax(1)[:, positive], z.sigmoid())


@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
def test_the_mean_is_the_network_itself(head: str) -> None:
    model = build_model("test_byobnet", ["a", "b"], positive="b", head=head, **SMALL).eval()  # type: ignore[arg-type]
    images = torch.randn(3, 3, 64, 64)
    maps = model(images, "every").saliency
    bias = model.head.bias.detach()
    bias = torch.cat((-bias, bias)) / 2 if head == "sigmoid" else bias
    found = pooled_logits(maps, bias, Pool(), 1).softmax(1)
    torch.testing.assert_close(found, model(images).logits.softmax(1), atol=1e-5, rtol=1e-4)


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


def test_a_pool_larger_than_the_grid_is_refused() -> None:
    with pytest.raises(InputError, match="pool_top is 65, and the feature grid has 8 × 8 = 64"):
        build_model("test_byobnet", ["a", "b"], pool=Pool("top", 65), **SMALL)  # type: ignore[arg-type]


def test_grad_cam_is_not_pooled() -> None:
    with pytest.raises(InputError, match="needs an exact class activation map"):
        build_model("test_vit", ["a", "b"], input_size=64, pool=Pool("lse"))


def test_the_taps_of_the_authors_are_not_pooled() -> None:
    with pytest.raises(InputError, match="do not add up to the logits"):
        build_model("test_resnet", ["a", "b"], cam_source="cyborg", pool=Pool("top"))


def test_words() -> None:
    assert Pool().words == "mean of all cells"
    assert Pool("top", 0.1).words == "mean of the highest 10% of the cells"
    assert Pool("top", 1).words == "mean of the highest 1 of the cells"
    assert isinstance(build_model("test_byobnet", ["a", "b"]), GuidedModel)


def test_another_pooling_stays_on_the_device_of_the_network() -> None:
    elsewhere = build_model("test_byobnet", ["a", "b"], **SMALL).to("meta")  # type: ignore[arg-type]
    pooled = with_pool(elsewhere, Pool("lse"))
    assert {part.device.type for part in (*pooled.parameters(), *pooled.buffers())} == {"meta"}
