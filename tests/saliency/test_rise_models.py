"""RISE of networks: what a map depends on; layouts, precisions and sizes."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from preceptor.models.build import build_model, with_pool
from preceptor.models.spec import Pool
from preceptor.saliency.rise import RiseResult, rise
from tests.saliency.analytic_models import ONE

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
    images, how = batch_of(5), {"max_masks": 400, "estimator": estimator, "seed": 3}
    whole = rise(network, images, CLASSES, **how)
    again = rise(network, images, CLASSES, **how)
    assert all(torch.equal(one, other) for one, other in zip(whole, again, strict=True))
    for batch_size in (7, 1000):
        close(rise(network, images, CLASSES, batch_size=batch_size, **how), whole)
    for part in (slice(0, 1), slice(3, 4), slice(1, 5)):
        expected = RiseResult(*(values[part] for values in whole))
        close(rise(network, images[part], CLASSES[part], **how), expected)
    other = rise(network, images, CLASSES, **(how | {"seed": 4}))
    assert not torch.equal(other.maps, whole.maps)


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


# Models, layouts, precisions, sizes.


@pytest.mark.parametrize(("head", "in_chans"), [("softmax", 3), ("sigmoid", 1)])
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


@pytest.mark.parametrize("pool", [Pool("top", 0.05), Pool("lse")], ids=str)
def test_the_scores_are_those_of_the_pooling_of_the_model(pool: Pool) -> None:
    """Also after a read-out, whose model shares its network with one that pools otherwise."""
    torch.manual_seed(0)
    how: dict[str, Any] = {"input_size": 32, "backbone_args": {"output_stride": 8}}
    mean = build_model("test_byobnet", ("a", "b"), positive="b", **how)
    mean(torch.randn(64, 3, 32, 32))
    mean.head.weight.data *= 6
    model, images, classes = with_pool(mean, pool).eval(), batch_of(3), torch.tensor([0, 1, 1])
    how = {"max_masks": 300, "size": (4, 4)}
    found = rise(model, images, classes, **how)
    close(rise(lambda x: model(x).logits, images, classes, **how), found, 1e-4)
    assert not torch.allclose(rise(mean, images, classes, **how).maps, found.maps, rtol=0.1)
