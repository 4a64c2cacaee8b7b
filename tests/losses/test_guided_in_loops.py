"""The guided loss under autocast and torch.compile, in parts; the divergence of predictions."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from preceptor.losses.distances import DISTANCES, EVIDENCE_DISTANCES
from preceptor.losses.guidance import (
    GuidanceBatch,
    GuidedForward,
    guidance_method,
    guided_objective,
)
from preceptor.losses.guided import GuidedLoss, inconsistency
from preceptor.models.build import build_model
from preceptor.models.guided_model import GuidedModel

EVERY: list[Any] = [*DISTANCES, *EVIDENCE_DISTANCES, {"l2": 0.5, "cells": 0.5}]
CLASSES = ("plain", "marked")


class Examples(NamedTuple):
    """Six images with labels, maps, and weights of maps and images."""

    images: Tensor
    labels: Tensor
    maps: Tensor
    map_weight: Tensor
    sample_weight: Tensor

    def part(self, beginning: int, end: int) -> Examples:
        return Examples(*(one[beginning:end] for one in self))


def examples(dtype: torch.dtype = torch.float64, grid: int = 2) -> Examples:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(6, 3, 64, 64, generator=generator, dtype=dtype)
    maps = torch.rand(6, grid, grid, generator=generator, dtype=dtype)
    maps[1] = float("nan")  # of weight 0, so that its content is ignored
    weight = torch.tensor([1.0, 0.0, 0.5, 1.0, 2.0, 1.0], dtype=dtype)
    sample = torch.tensor([1.0, 2.0, 1.0, 0.5, 1.0, 1.0], dtype=dtype)
    return Examples(images, torch.tensor([0, 1, 1, 0, 1, 0]), maps, weight, sample)


def network(backbone: str = "test_efficientnet_gn") -> GuidedModel:
    """By default one with an exact CAM, whose images do not depend on each other."""
    torch.manual_seed(0)
    model = build_model(backbone, CLASSES, positive="marked", input_size=64)
    assert backbone != "test_efficientnet_gn" or model.spec.cam == "cam"
    return model.train()


def loss_of(model: nn.Module, batch: Examples, distance: Any = "l2") -> Tensor:
    images, labels, *targets = batch
    out = model(images, labels)
    loss: Tensor = GuidedLoss(0.4, distance)(out.logits, labels, out.saliency, *targets)
    return loss


def gradients(model: nn.Module) -> list[Tensor]:
    found = [parameter.grad for parameter in model.parameters()]
    assert None not in found
    return [one.clone() for one in found if one is not None]


def whole(model: GuidedModel) -> list[Tensor]:
    loss_of(model, examples()).backward()
    found = gradients(model)
    model.zero_grad()
    return found


def raw(dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    """Logits, labels, CAM, maps and weights of a batch."""
    generator = torch.Generator().manual_seed(1)
    logits, cam = (torch.randn(6, *shape, generator=generator) for shape in ((3,), (5, 5)))
    labels = torch.randint(0, 3, (6,), generator=generator)
    maps = torch.rand(6, 5, 5, generator=generator)
    weights = examples(torch.float32)[3:]
    leaves = (logits.to(dtype).requires_grad_(), cam.to(dtype).requires_grad_())
    return leaves[0], labels, leaves[1], maps, *weights


@pytest.mark.parametrize("distance", EVERY, ids=str)
@pytest.mark.parametrize("autocast", [False, True], ids=["outside", "autocast"])
def test_half_precision_is_computed_in_single(distance: Any, autocast: bool) -> None:
    given = raw(torch.bfloat16)
    same = [one.float() if one.dtype == torch.bfloat16 else one for one in given]
    loss = GuidedLoss(0.4, distance)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = loss(*given)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, loss(*same))


@pytest.mark.parametrize("distance", EVERY, ids=str)
def test_the_compiled_loss_is_one_graph_and_the_same(distance: Any) -> None:
    torch.compiler.reset()
    loss, given = GuidedLoss(0.4, distance), raw()
    given[3][1] = float("nan")  # of weight 0
    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    found = compiled(*given)
    assert torch.equal(found, loss(*given))
    found.backward()
    assert torch.isfinite(given[2].grad).all()


def test_a_compiled_step_is_one_graph() -> None:
    """Forward pass, CAM and loss, traced as for a compiler; their derivatives are the same."""
    torch.compiler.reset()
    model = network("test_resnet")
    batch = examples(torch.float32)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    expected = loss_of(model, batch)
    expected.backward()
    plain = gradients(model)
    model.zero_grad()
    model.load_state_dict(state)
    found = torch.compile(loss_of, fullgraph=True, backend="eager")(model, batch)
    found.backward()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradients(model), plain, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("distance", DISTANCES)
def test_without_masks_nothing_waits_for_the_device(distance: Any) -> None:
    """On the meta device there are no numbers: reading one, or indexing by a mask, fails."""
    given = [one.detach().to("meta") for one in raw()]
    assert GuidedLoss(0.4, distance)(*given).shape == ()


@pytest.mark.parametrize("ends", [(3, 6), (4, 6), (1, 2, 6)], ids=str)
def test_accumulated_gradients_are_those_of_the_batch(ends: tuple[int, ...]) -> None:
    model, batch = network().double(), examples()
    expected = whole(model)
    for beginning, end in pairwise((0, *ends)):
        part = batch.part(beginning, end)
        (loss_of(model, part) * (end - beginning) / len(batch.labels)).backward()
    torch.testing.assert_close(gradients(model), expected)


def test_channels_last_has_the_same_gradients() -> None:
    model, batch = network().double(), examples()
    expected = whole(model)
    model = model.to(memory_format=torch.channels_last)
    images = batch.images.to(memory_format=torch.channels_last)
    loss_of(model, batch._replace(images=images)).backward()
    torch.testing.assert_close(gradients(model), expected)


class Headed(nn.Module):
    """A step with the method head, whose layers all processes must use: the second has no maps."""

    def __init__(self, model: GuidedModel) -> None:
        super().__init__()
        self.model, self.method = model, guidance_method("head")
        self.layers = self.method.prepare(model, examples().images)

    def forward(self, batch: Examples) -> Tensor:
        images, labels, maps, *_ = batch
        weight = torch.arange(6)[: len(labels)].double() * float(labels[0] == 0)
        given = GuidanceBatch(images, labels, maps, weight)
        return guided_objective(self.method, given, GuidedForward(self.model), 0.4, 1).loss


class Plain(nn.Module):
    def __init__(self, model: GuidedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Examples) -> Tensor:
        return loss_of(self.model, batch)


STEPS = (Plain, Headed)


def parallel(rank: int, folder: Path) -> None:
    """Gradients of each step in one of two processes, with parts of four and two images."""
    torch.set_num_threads(1)
    meeting = f"file://{folder / 'meeting'}"
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    found = []
    for step in STEPS:
        module = DistributedDataParallel(step(network().double()))
        part = examples().part(*((0, 4), (4, 6))[rank])
        (module(part) * 2 * len(part.labels) / 6).backward()
        found.append(gradients(module))
    torch.save(found, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def test_gradients_of_two_processes_are_those_of_the_batch(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(parallel, (tmp_path,), nprocs=2)
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for at, step in enumerate(STEPS):
        module = step(network().double())
        for part in (examples().part(0, 4), examples().part(4, 6)):
            (module(part) * len(part.labels) / 6).backward()
        for rank in range(2):
            torch.testing.assert_close(found[rank][at], gradients(module))


def test_the_divergence_is_torchs() -> None:
    generator = torch.Generator().manual_seed(0)
    one, other = torch.randn(2, 6, 3, generator=generator, dtype=torch.float64) * 3
    which = torch.tensor([True, False, True, True, True, False])
    expected = functional.kl_div(
        other.log_softmax(1), one.log_softmax(1), reduction="none", log_target=True
    ).sum(1)
    weight = torch.arange(1.0, 7)
    found = inconsistency(one, other, which, weight)
    torch.testing.assert_close(found, torch.where(which, expected * weight, 0))
    torch.testing.assert_close(inconsistency(one, other + 5, which, weight), found)
    assert inconsistency(one, one, which).max() == 0
    single = torch.tensor([[[0.7], [-2.0]], [[0.1], [9.0]]], dtype=torch.float64).unbind(0)
    p, q = (value.sigmoid()[:, 0] for value in single)
    binary = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    found = inconsistency(*single, torch.ones(2, dtype=torch.bool))
    torch.testing.assert_close(found, binary)
    with pytest.raises(ValueError, match="must be equal in shape"):
        inconsistency(one, other[:, :1], which)


def test_both_predictions_have_a_gradient_where_an_image_was_changed() -> None:
    one, other = torch.randn(2, 3, 2).unbind(0)
    one, other = one.requires_grad_(), other.requires_grad_()
    inconsistency(one, other, torch.tensor([True, False, True])).sum().backward()
    for leaf in (one, other):
        assert leaf.grad is not None
        assert leaf.grad.abs().sum(1).gt(0).tolist() == [True, False, True]
