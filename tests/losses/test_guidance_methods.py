"""All guidance methods: one contract on four kinds of networks, and each formula by hand."""

from __future__ import annotations

import copy
import math
import runpy
from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from preceptor import guidance_method
from preceptor.errors import InputError
from preceptor.losses.guidance import (
    METHODS,
    Guidance,
    GuidanceBatch,
    GuidedForward,
    TeacherOutput,
    catalogue,
    guided_objective,
    inputs,
    matching,
    measure_scale,
    teach,
)
from preceptor.losses.guidance.forward import FastSecondDerivatives, scalar
from preceptor.losses.guided import Targets, combine, guided_loss_terms
from preceptor.models.build import build_model
from preceptor.models.guided_model import GuidedModel, in_precision
from preceptor.models.spec import ModelSpec


class Case(NamedTuple):
    """A method with settings, its passes, and what the contract holds for it."""

    name: str
    settings: Mapping[str, Any] = MappingProxyType({})
    passes: int = 1
    met: bool = True  # the terms are 0 when the demand is met
    random: bool = False  # draws numbers for each image, by its position in the batch
    couples: bool = False  # other images are part of the demand

    def method(self) -> Guidance:
        return guidance_method(self.name, **self.settings)

    def __str__(self) -> str:
        return "-".join([self.name, *map(str, self.settings.values())])


CASES = [
    Case("cyborg"),
    Case("cyborg", {"distance": "bce"}, met=False),
    Case("cyborg", {"distance": {"mse": 1.0, "energy": 0.5}, "map": "decision"}),
    *(
        Case("evidence", {"loss": loss}, met=loss in {"energy", "rrr_star", "l1", "ppce", "cosine"})
        for loss in ("energy", "rrr_star", "l1", "ppce", "cfce", "cosine", "cells", "evidence")
    ),
    Case("rank"),
    Case("slack", met=False),
    *(Case("gradient", {"penalty": penalty}) for penalty in inputs.PENALTIES),
    Case("gradient", {"scalar": "ce"}),
    Case("gradient", {"scalar": "margin", "penalty": "abs_mean"}),
    Case("harmonize"),
    Case("robust", {"kind": "pgd", "epsilon": 3.0}, passes=5, met=False),
    Case("robust", {"kind": "noise", "epsilon": 3.0}, passes=2, met=False, random=True),
    Case("latent", passes=2),
    Case("latent", {"kind": "sage", "fill": "noise"}, passes=3, met=False, random=True),
    Case("faithful", passes=3, met=False),
    Case("outside", {"fill": "mean", "classification": 0.0}, passes=2),
    Case("outside", {"fill": "noise"}, passes=2, met=False, random=True),
    Case("outside", {"fill": "other"}, passes=2, met=False, couples=True),
    *(Case("teach", {"kind": kind}) for kind in ("kd", "e2kd", "cat_kd", "cat", "at")),
    Case("head", met=False),
    Case("head", {"kind": "abn"}, met=False),
    Case("saliency_guided", passes=3, random=True),
    Case("masktune", passes=2),
]
# Few channels and blocks: what a method does to a network does not depend on its size.
SMALL = {"output_stride": 16}
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "densenet": ("densenet121", {"growth_rate": 8, "block_config": [2, 2]}),
    "resnet": ("test_resnet", SMALL | {"channels": [8, 8, 16, 16], "stem_width": 8}),
    "vit": ("test_vit", {"depth": 2, "embed_dim": 32}),
    "gradcam": ("test_convnext", SMALL | {"depths": [1, 1, 1, 1], "dims": [8, 8, 16, 16]}),
}
# Those whose passes or maps differ; the others differ in their formula alone.
SAME = {"bce", "rrr_star", "l1", "ppce", "cells", "ce", "margin", "kd", "cat"}
SAME |= {*inputs.PENALTIES} - {"square_sum"}
every = pytest.mark.parametrize("case", CASES, ids=str)
one_a_kind = pytest.mark.parametrize(
    "case", [one for one in CASES if not SAME & {*map(str, one.settings.values())}], ids=str
)


# One with an exact map and one with Grad-CAM: what a method does with its maps is the same.
one_a_map = pytest.mark.parametrize("model", ["resnet", "vit"], indirect=True)


@pytest.fixture(scope="module", params=NETWORKS)
def model(request: pytest.FixtureRequest) -> GuidedModel:
    backbone, arguments = NETWORKS[request.param]
    torch.manual_seed(0)
    network = build_model(backbone, ["a", "b", "c"], input_size=32, backbone_args=arguments)
    assert network.spec.cam == ("cam" if request.param in ("densenet", "resnet") else "gradcam")
    return network.double()


def batch_of(model: GuidedModel, size: int = 4) -> GuidanceBatch:
    """Images of which the second has no map."""
    generator = torch.Generator().manual_seed(1)
    grid, side = model.grid(), model.spec.input_size
    options: dict[str, Any] = {"generator": generator, "dtype": torch.float64}
    maps = torch.rand(size, *grid, **options)
    maps[1] = math.nan
    weight = torch.ones(size, dtype=torch.float64)
    weight[1:3] = torch.tensor([0, 0.5])
    teacher = TeacherOutput(
        torch.randn(size, 3, **options),
        torch.randn(size, 3, *grid, **options),
        torch.rand(size, *grid, **options),
    )
    images = torch.randn(size, 3, side, side, **options)
    return GuidanceBatch(images, torch.arange(size) % 3, maps, weight, teacher=teacher)


def batch_of_two_classes(model: GuidedModel) -> GuidanceBatch:
    """As `batch_of`, for a model of two classes."""
    batch = batch_of(model)
    logits, maps, attention = batch.teacher
    teacher = TeacherOutput(logits[:, :2], maps[:, :2], attention)
    return batch._replace(labels=torch.tensor([0, 1, 1, 0]), teacher=teacher)


def terms_of(method: Guidance, batch: GuidanceBatch, model: GuidedModel) -> dict[str, Tensor]:
    """Terms without the classification; the same random numbers in each call."""
    torch.manual_seed(3)
    terms = guided_objective(method, batch, GuidedForward(model), alpha=0.5, scale=1).terms
    return {name: value for name, value in terms.items() if name != "classification"}


def total(terms: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(terms.values())).sum(0)


def ready(case: Case, model: GuidedModel, batch: GuidanceBatch) -> Guidance:
    torch.manual_seed(2)
    method = case.method()
    method.prepare(model, batch.images)
    return method


# The contract, on four networks.


@one_a_kind
def test_the_gradient_reaches_the_trunk(case: Case, model: GuidedModel) -> None:
    batch, forward = batch_of(model), GuidedForward(model.train())
    method = ready(case, model, batch)
    loss, terms, logits = guided_objective(method, batch, forward, alpha=0, scale=1)
    model.zero_grad()
    loss.backward()
    first = next(iter(model.backbone.parameters()))
    assert first.grad is not None
    assert first.grad.any()
    gradients = [one.grad for one in model.parameters() if one.grad is not None]
    assert all(one.isfinite().all() for one in gradients)
    assert all(value.isfinite().all() and value.shape == (4,) for value in terms.values())
    if method.needs & {"map", "map_input", "teacher"}:
        assert not total({key: terms[key] for key in terms if key != "classification"})[1]
    assert forward.passes == case.passes
    assert logits.shape == (4, 3)


@one_a_map
@one_a_kind
def test_terms_are_those_of_single_images(case: Case, model: GuidedModel) -> None:
    batch = batch_of(model)
    method = ready(case, model.eval(), batch)
    expected = total(terms_of(method, batch, model))
    if not case.couples:  # other images change nothing
        others = batch_of(model)
        others.images[1:].neg_()
        others.labels[1:] = 0
        others.mask[2:] = 1 - others.mask[2:]
        found = total(terms_of(method, others, model))
        torch.testing.assert_close(found[0], expected[0])
    if not (case.random or case.couples):
        order = torch.tensor([2, 0, 3, 1])
        teacher = batch.teacher and TeacherOutput(*(one[order] for one in batch.teacher))
        moved = GuidanceBatch(*(None if one is None else one[order] for one in batch[:5]), teacher)
        torch.testing.assert_close(total(terms_of(method, moved, model)), expected[order])


@one_a_map
@one_a_kind
def test_without_maps_it_is_plain_training(case: Case, model: GuidedModel) -> None:
    batch = batch_of(model.train())
    if not case.method().needs & {"map", "map_input", "teacher"}:
        pytest.skip("guides every image")
    method = ready(case, model, batch)
    plain = state_after(model, lambda: plain_loss(model, batch))
    without = batch._replace(weight=torch.zeros(4, dtype=torch.float64))
    for empty in (without, batch._replace(map=None, weight=None, teacher=None)):
        forward = GuidedForward(model)
        loss = state_after(model, partial(loss_of, method, empty, forward))
        assert all(map(torch.equal, loss, plain))


def loss_of(method: Guidance, batch: GuidanceBatch, forward: GuidedForward) -> Tensor:
    return guided_objective(method, batch, forward, alpha=0.5, scale=1).loss


def plain_loss(model: GuidedModel, batch: GuidanceBatch) -> Tensor:
    logits, _ = model(batch.images)
    return combine(guided_loss_terms(logits, None, Targets(batch.labels)), 0.5)


def state_after(model: GuidedModel, step: Any) -> list[Tensor]:
    """Loss, gradients, running statistics and random numbers after a step, which is undone."""
    before = copy.deepcopy(model.state_dict())
    torch.manual_seed(0)
    model.zero_grad()
    loss = step()
    loss.backward()
    slopes = [torch.zeros(()) if one.grad is None else one.grad for one in model.parameters()]
    buffers = [one.clone() for one in model.buffers()]
    model.load_state_dict(before)
    return [loss.detach(), *map(torch.clone, slopes), *buffers, torch.rand(3)]


def test_only_the_first_pass_updates_running_statistics(model: GuidedModel) -> None:
    batch = batch_of(model.train())
    before = copy.deepcopy(model.state_dict())
    plain_loss(model, batch)
    expected = copy.deepcopy(model.state_dict())
    for name in ("faithful", "robust", "gradient"):
        model.load_state_dict(before)
        terms_of(guidance_method(name), batch, model)
        assert all(map(torch.equal, model.state_dict().values(), expected.values()))
    model.load_state_dict(before)
    torch.manual_seed(5)
    scale = measure_scale(guidance_method("robust"), [batch, batch], GuidedForward(model))
    assert 0 < scale < math.inf
    assert torch.equal(torch.rand(2), torch.rand(2, generator=torch.Generator().manual_seed(5)))
    assert all(map(torch.equal, model.state_dict().values(), before.values()))


# The contract, on a network whose evidence is known.


class Gated(nn.Module):
    """Patches of 4 × 4 pixels inside a region, and a linear head on their means."""

    output_fmt = "NCHW"

    def __init__(self, region: Tensor) -> None:
        super().__init__()
        self.region = region.double()
        self.stem = nn.Conv2d(3, 4, 4, stride=4, bias=False)
        self.mix = nn.Conv2d(4, 4, 1, bias=False)
        self.head = nn.Linear(4, 2, bias=False)
        with torch.no_grad():
            self.stem.weight.fill_(0.02)
            self.mix.weight.copy_(torch.eye(4)[..., None, None] + 0.1)
            self.head.weight.copy_(torch.tensor([[1.0, 2, 1, 0], [-1, 0, 1, -1]]))
        self.double()

    def forward_features(self, images: Tensor) -> Tensor:
        gated = images * functional.interpolate(self.region[None, None], images.shape[-2:])
        return functional.softplus(self.mix(self.stem(gated).tanh())) - math.log(2)

    def forward_head(self, features: Tensor) -> Tensor:
        out: Tensor = self.head(features.mean((2, 3)))
        return out

    def get_classifier(self) -> nn.Module:
        return self.head


def gated(region: Tensor) -> GuidedModel:
    side = 4 * len(region)
    spec = ModelSpec("gated", ("a", "b"), None, 3, side, (0.5,) * 3, (0.5,) * 3)
    return GuidedModel(Gated(region), spec).double().eval()


REGION = torch.zeros(4, 4)
REGION[1:3, 1:3] = 1


def known(inverted: bool = False) -> tuple[GuidedModel, GuidanceBatch]:
    """Images of one color, which is evidence for their class inside the region alone."""
    model = gated(REGION)
    colors = torch.tensor([1.0, 2.0], dtype=torch.float64)
    inside = functional.interpolate(REGION[None, None], (16, 16))
    images = torch.where(inside > 0, colors[:, None, None, None], -1).repeat(1, 3, 1, 1)
    out = model(images, "every")
    region = (1 - REGION if inverted else REGION).double().expand(2, 4, 4)
    maps, logits = out.saliency.detach(), out.logits.detach()
    attention = out.features.detach().square().mean(1)
    teacher = TeacherOutput(logits, maps, attention)
    if inverted:
        teacher = TeacherOutput(-logits, maps.roll(1, 2), attention.roll(1, 1))
    human = functional.interpolate(region[:, None], (16, 16))[:, 0]
    return model, GuidanceBatch(images, torch.zeros(2).long(), region, None, human, teacher)


@pytest.mark.parametrize(
    "case", [one for one in CASES if one.name not in ("saliency_guided", "masktune")], ids=str
)
def test_it_is_least_where_the_demand_is_met(case: Case) -> None:
    found = []
    for inverted in (False, True):
        model, batch = known(inverted)
        method = ready(case, model, batch)
        layers = method.prepare(model, batch.images)
        if layers is not None:  # a head is trained as far as the features allow
            optimizer = torch.optim.Adam(layers.parameters(), lr=0.1)
            for _ in range(50):
                optimizer.zero_grad()
                total(terms_of(method, batch, model)).sum().backward()
                optimizer.step()
        found.append(total(terms_of(method, batch, model)))
    right, wrong = found
    if case.name == "head":  # it can learn any map of two kinds of cells
        assert (right < 1.5).all()
        return
    if case.met:
        assert right.abs().max() < 1e-9
    # What says the same of a random change outside holds for its mean only.
    assert (wrong > right + 1e-9).all() or case.random or case.couples


@every
def test_derivatives_are_those_of_finite_differences(case: Case) -> None:
    if case.name == "harmonize":
        pytest.skip("its scale of the human map is a constant of the derivative")
    model, _ = known()
    torch.manual_seed(0)
    with torch.no_grad():
        for one in model.backbone.parameters():
            one.add_(0.1 * torch.randn_like(one))
    batch = batch_of_two_classes(model)
    method = ready(case, model, batch)
    method.prepare(model, batch.images)

    def value(weight: Tensor) -> Tensor:
        names = {"backbone.stem.weight": weight}
        run = GuidedForward(model, lambda *args, **more: functional_call(model, names, args, more))
        torch.manual_seed(3)
        terms = dict(guided_objective(method, batch, run, alpha=0, scale=1).terms)
        terms.pop("classification")
        return total(terms)

    weight = model.backbone.stem.weight.detach().clone().requires_grad_()  # type: ignore[union-attr]
    assert torch.autograd.gradcheck(value, weight, fast_mode=True)


@pytest.mark.parametrize("name", METHODS)
def test_the_same_map_added_to_every_class(name: str) -> None:
    model, _ = known()
    torch.manual_seed(0)
    batch = batch_of_two_classes(model)
    method = ready(Case(name), model, batch)
    method.prepare(model, batch.images)
    before = total(terms_of(method, batch, model))
    with torch.no_grad():
        model.head.weight += 3 * torch.randn(4, dtype=torch.float64)
    after = total(terms_of(method, batch, model))
    assert torch.allclose(before, after) == catalogue()[name].get("offset_free", False)


# Bit for bit, and against other code.


@pytest.mark.parametrize(
    ("distance", "kind"),
    [("l2", "label"), ("mse", "predicted"), ("l1", "decision"), ("cells", "decision"),
     ({"l2": 0.5, "energy": 2.0}, "decision")],
)  # fmt: skip
def test_cyborg_is_the_guided_loss(distance: Any, kind: Any, model: GuidedModel) -> None:
    batch = batch_of(model.train())
    batch.mask[3] = 1  # constant: of no use, except for cells
    sample = torch.tensor([1.0, 2.0, 0.5, 1.0], dtype=torch.float64)
    method = guidance_method("cyborg", distance=distance, map=kind)

    def old() -> Tensor:
        classes = "predicted" if kind == "predicted" else batch.labels
        out = model(batch.images, classes, decision=kind == "decision")
        cam = out.evidence if "cells" in distance or "energy" in distance else out.saliency
        targets = Targets(batch.labels, batch.map, batch.weight, sample)
        return combine(guided_loss_terms(out.logits, cam, targets, distance), 0.3)

    def new() -> Tensor:
        run = GuidedForward(model)
        return guided_objective(method, batch, run, 0.3, sample_weight=sample).loss

    assert all(map(torch.equal, state_after(model, new), state_after(model, old)))


@pytest.mark.parametrize("name", ["latent", "faithful", "outside", "robust"])
def test_changed_images_have_the_type_of_the_model(name: str) -> None:
    torch.manual_seed(0)
    backbone, arguments = NETWORKS["resnet"]
    model = build_model(backbone, ["a", "b", "c"], input_size=32, backbone_args=arguments)
    batch = batch_of(model)._replace(teacher=None)
    batch = batch._replace(images=batch.images.bfloat16())
    terms = terms_of(guidance_method(name), batch, model.bfloat16())
    assert all(bool(term.isfinite().all()) for term in terms.values())


def test_alpha_1_is_plain_cross_entropy(model: GuidedModel) -> None:
    batch, forward = batch_of(model.eval()), GuidedForward(model)
    loss, terms, logits = guided_objective(guidance_method("robust"), batch, forward, 1, 1)
    each = functional.cross_entropy(logits, batch.labels, reduction="none")
    assert torch.equal(loss, each.mean())
    assert (list(terms), forward.passes) == (["classification"], 1)


def test_alpha_0_has_a_gradient_without_maps(model: GuidedModel) -> None:
    batch = batch_of(model.eval())._replace(weight=torch.zeros(4, dtype=torch.float64))
    for name in ("cyborg", "outside"):
        loss = guided_objective(guidance_method(name), batch, GuidedForward(model), 0, 1).loss
        loss.backward()  # type: ignore[no-untyped-call]
        assert loss.item() == 0


def test_maps_of_the_input_are_enough_for_methods_of_the_input() -> None:
    model, batch = known()
    pixels = batch._replace(map=None, map_input=batch.inside[:, 0])
    for name in ("gradient", "outside"):
        method = guidance_method(name)
        given = [
            guided_objective(method, one, GuidedForward(model), 0.5, 1)
            for one in (pixels, pixels._replace(map=batch.map))
        ]
        assert given[0].terms.keys() == given[1].terms.keys() > {"classification"}
        assert torch.equal(given[0].loss, given[1].loss)
    for scale, message in ((1, "reduce map_input to the grid"), (-1, "scale is -1")):
        with pytest.raises(ValueError, match=message):
            guided_objective(guidance_method("rank"), pixels, GuidedForward(model), 0.5, scale)


def test_float16_keeps_the_slopes_of_confident_images() -> None:
    torch.manual_seed(0)
    model = build_model("test_resnet", ["a", "b"], input_size=64).train()
    nn.init.constant_(model.head.bias[:1], 12)
    ones = torch.ones(4)
    maps = torch.rand(4, *model.grid())
    batch = GuidanceBatch(torch.randn(4, 3, 64, 64), torch.zeros(4).long(), maps, ones)
    forward = GuidedForward(model, in_precision(model, "16-mixed")).begin(batch)
    slope = forward(batch.images, gradient="ce").gradient
    assert slope is not None
    assert (slope == 0).float().mean() < 0.1


@pytest.mark.parametrize(("name", "preset"), [("head", "abn"), ("teach", "cat_kd")])
def test_maps_of_every_class_are_as_large_with_grad_cam(name: str, preset: str) -> None:
    torch.manual_seed(0)
    kinds: tuple[Any, Any] = ("cam", "gradcam")
    networks = [build_model("test_resnet", ["a", "b"], input_size=64, cam=kind) for kind in kinds]
    networks[1].load_state_dict(networks[0].state_dict())
    method = guidance_method(name, preset)
    images = torch.randn(2, 3, 64, 64)
    grid = networks[0].grid()
    teacher = TeacherOutput(torch.randn(2, 2), torch.randn(2, 2, *grid))
    batch = GuidanceBatch(images, torch.tensor([0, 1]), torch.rand(2, *grid), teacher=teacher)
    method.prepare(networks[0], images)
    found = [
        guided_objective(method, batch, GuidedForward(one.eval()), 0.5, 1).terms for one in networks
    ]
    torch.testing.assert_close(*found)


def test_cross_entropy_of_maps_is_allowed_under_autocast_on_a_gpu() -> None:
    maps = torch.rand(2, 3, 4, 4)
    limited = 0.01 + 0.98 * maps[0]
    expected = functional.binary_cross_entropy(limited, maps[1], reduction="none").mean((1, 2))
    was = torch.is_autocast_enabled("cuda")
    torch.set_autocast_enabled("cuda", True)
    try:  # no GPU: the kernel that CUDA tensors would find
        with torch._C._IncludeDispatchKeyGuard(torch._C.DispatchKey.AutocastCUDA):
            found = matching.cross_entropy(*maps)
    finally:
        torch.set_autocast_enabled("cuda", was)
    torch.testing.assert_close(found, expected)


# Each formula on two by two cells, or pixels.

SALIENCY = torch.tensor([[[4.0, 1.0], [-2.0, 0.0]]])
MASK = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])


def test_evidence_by_hand() -> None:
    assert matching.rrr_star(SALIENCY, MASK).item() == pytest.approx((1 / 4) ** 2 + (2 / 4) ** 2)
    assert matching.share_l1(SALIENCY, MASK).item() == pytest.approx((0 + 0.25 + 0 + 1) / 4)
    assert matching.ppce(SALIENCY, MASK).item() == pytest.approx(-math.log(0.01) / 2)
    both = torch.stack([SALIENCY, -SALIENCY], 1)
    # d = 0 for the label; 8, 2, −4, 0 for the other class.
    expected = math.log1p(math.exp((-8 + 2 + 4 - 0) / 4))
    assert matching.cfce(both, torch.tensor([0]), MASK).item() == pytest.approx(expected)
    logits = both.mean((2, 3))
    whole = matching.cfce(both, torch.tensor([0]), torch.ones_like(MASK))
    torch.testing.assert_close(whole, functional.cross_entropy(logits, torch.tensor([0]))[None])


def test_matching_by_hand() -> None:
    unit = torch.tensor([[[1.0, 0.5], [0.0, 0.25]]])
    # Pairs inside, outside: (1, 0.5), (1, 0), (0.25, 0.5), (0.25, 0): one of four is wrong.
    assert matching.misranked(unit, MASK).item() == pytest.approx(0.25 / 4)
    graded = torch.tensor([[[1.0, 0.75], [0.0, 0.25]]])
    assert matching.misranked(unit, graded).item() == 0
    expected = -(math.log(0.99) + math.log(0.5) + math.log(0.99) + math.log(0.255)) / 4
    assert matching.cross_entropy(unit, MASK).item() == pytest.approx(expected)
    dot = torch.zeros(1, 5, 5)
    dot[0, 2, 2] = 1
    row = torch.tensor([0, 0.25, 0.5, 0.25, 0])
    torch.testing.assert_close(matching.blur(dot)[0], row.outer(row) * 4)


def test_gradients_by_hand() -> None:
    g = torch.tensor([[[[1.0, -2.0], [3.0, 4.0]], [[0.0, 1.0], [-1.0, 0.0]]]])
    outside = 1 - MASK[:, None]
    expected = {
        "square_sum": 4 + 9 + 1 + 1,
        "square_mean": 15 / 8,
        "abs_sum": 2 + 3 + 1 + 1,
        "abs_mean": 7 / 8,
        "norm": math.sqrt(15),
        "channel_square_sum": 1 + 4,
        "cosine": (1 + 2) / (math.sqrt(1 + 1 + 4 + 16) * math.sqrt(2)),
    }
    found = {name: penalty(g, outside).item() for name, penalty in inputs.PENALTIES.items()}
    assert found == pytest.approx(expected)
    logits, labels = torch.tensor([[1.0, 3.0]]), torch.tensor([1])
    p = math.exp(2) / (1 + math.exp(2))
    by_hand = {"ce": -math.log(p), "logp": math.log(p * (1 - p)), "margin": 2, "label": 3}
    assert {kind: scalar(logits, labels, kind).item() for kind in by_hand} == pytest.approx(by_hand)  # type: ignore[arg-type]
    flat = inputs.standardized(torch.tensor([[[1.0, 1.0], [1.0, 5.0]]]))
    assert flat.flatten().tolist() == pytest.approx([0, 0, 0, 3 / math.sqrt(3)])
    sizes = [tuple(level.shape) for level in inputs.pyramid(torch.ones(1, 8, 8))]
    assert sizes == [(1, 8, 8), (1, 4, 4), (1, 2, 2), (1, 1, 1), (1, 1, 1)]


def test_teaching_by_hand() -> None:
    student = torch.tensor([[[[1.0, 0.0], [0.0, -1.0]], [[2.0, 0.0], [0.0, 0.0]]]])
    teacher = torch.tensor([[[[3.0, 4.0], [0.0, -9.0]], [[0.0, 0.0], [0.0, 2.0]]]])
    away = teach.explanation(student, teacher, torch.tensor([0]))
    assert away.item() == pytest.approx(1 - 3 / 5)
    pooled = teach.class_attention(student, teacher, 1, unit=False)
    assert pooled.item() == pytest.approx(((0 + 0.5) ** 2 + (0.5 - 0.5) ** 2) / 2)
    assert teach.class_attention(student, 7 * student, 2, unit=True).item() == pytest.approx(0)
    first, second = torch.tensor([[[3.0, 4.0]]]), torch.tensor([[[1.0, 0.0]]])
    transfer = teach.attention_transfer(first, second)
    assert transfer.item() == pytest.approx((0.4**2 + 0.8**2) / 2)
    logits = torch.tensor([[0.0, math.log(3)]])
    divergence = teach.distillation(torch.zeros(1, 2), logits, 1.0)
    assert divergence.item() == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5))


def test_inputs_by_hand() -> None:
    images = torch.arange(8.0).view(2, 1, 2, 2)
    keep = MASK[None].expand(2, 1, 2, 2)
    assert inputs.filled(images, keep, "zero")[0].flatten().tolist() == [0, 0, 0, 3]
    assert inputs.filled(images, keep, "mean")[0].flatten().tolist() == [0, 1.5, 1.5, 3]
    assert inputs.filled(images, keep, "other")[0].flatten().tolist() == [0, 5, 6, 3]
    # Images without a map stay as they are: they share batch statistics with the others.
    one = GuidanceBatch(images, torch.zeros(2, dtype=torch.int64), keep[:, 0], torch.eye(2)[0])
    assert torch.equal(inputs.emptied(one, "zero")[1], images[1])
    assert inputs.emptied(one, "zero")[0].flatten().tolist() == [0, 1, 2, 0]
    p, q = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    assert inputs.jensen_shannon(p, q).item() == pytest.approx(math.log(2))
    logits = torch.tensor([[200.0, 0.0]], requires_grad=True)  # a probability of exactly 0
    inputs.jensen_shannon(logits.softmax(1), p).sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    maps = torch.tensor([[[[-5.0, 1.0], [1.0, 4.0]]]])
    threshold = inputs.salient_threshold(maps)
    assert threshold.item() == pytest.approx(2 + 2 * math.sqrt(2))


# Settings, scale, refusals.


@pytest.mark.parametrize("name", METHODS)
def test_every_preset_can_be_repeated(name: str) -> None:
    for preset in catalogue()[name]["presets"]:
        method = guidance_method(name, preset)
        assert guidance_method(**method.settings()) == method


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "rnak"}, "guidance 'rnak' is not one of cyborg, evidence"),
        ({"name": "rank", "preset": "x"}, "guidance rank: preset 'x' is not one of hint, scr"),
        ({"name": "rank", "preset": ["hint"]}, "preset .* is not one of hint, scr"),
        ({"name": "rank", "preset": 3}, "preset '3' is not one of hint, scr"),
        ({"name": "gradient", "penalty": "l3"}, "penalty: Input should be 'square_sum'"),
        ({"name": "slack", "slack": -1.0}, "slack: Input should be greater than or equal to 0"),
        ({"name": "rank", "slack": 1.0}, "slack: .*; its settings are weight, map, normalized"),
        ({"name": "cyborg", "distance": "l3"}, "distance: .*, or not one of l2, mse"),
        ({"name": "cyborg", "distance": "cells"}, "takes the decision map; add map: decision"),
        ({"name": "rank", "preset": "hint", "weight": "published"}, "no published weight"),
        ({"name": "gals"}, "it is a preset: gradient, preset gals"),
        ({"name": "math:sqrt"}, "guidance math:sqrt: math has no subclass sqrt of Guidance"),
        ({"name": "nowhere_:X"}, "nowhere_:X: there is no module nowhere_ here"),
    ],
)
def test_wrong_settings_are_one_line(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        guidance_method(**arguments)
    assert "\n" not in str(caught.value)


def test_the_scale_is_the_ratio_of_the_losses() -> None:
    model, batch = known(inverted=True)
    method = guidance_method("gradient", "ross")
    scale = measure_scale(method, [batch], GuidedForward(model))
    loss, terms, _ = guided_objective(method, batch, GuidedForward(model), 0.5, scale)
    classification = terms["classification"].mean().item()
    assert scale * terms["gradient"].mean().item() == pytest.approx(classification)
    assert loss.item() == pytest.approx(classification)
    published = guidance_method("gradient", "ross", weight="published")
    assert measure_scale(published, [], GuidedForward(model)) == 500
    with pytest.raises(InputError, match="its term is 0"):
        measure_scale(method, [batch._replace(map=None, map_input=None)], GuidedForward(model))
    with pytest.raises(InputError, match="give scale"):
        guided_objective(method, batch, GuidedForward(model), 0.5)
    with pytest.raises(InputError, match="takes a GuidedModel"):
        GuidedForward(torch.nn.Sequential(model))
    for other in (method, guidance_method("robust")):
        with torch.no_grad(), pytest.raises(InputError, match=r"call it outside torch\.no_grad"):
            guided_objective(other, batch, GuidedForward(model), 0.5, 1)
    large, narrow = 255 * torch.as_tensor(batch.map), torch.rand(2, 1, batch.images.shape[3])
    rank, taught = guidance_method("rank"), guidance_method("teach", "kd")
    for other, changes, told in (
        (method, {"weight": torch.ones(2, 1)}, "have shapes"),
        (
            rank,
            {"map": torch.rand(2, 1, 9)},
            r"maps \(2, 1, 9\) must have the grid of the features",
        ),
        (taught, {"teacher": TeacherOutput(torch.zeros(2, 1))}, "logits of the Teacher"),
        (method, {"map": large, "map_input": None}, r"from 0 to 255, not in \[0, 1\]"),
        (method, {"map_input": narrow}, r"map_input is \(2, 1, \d+\) for images"),
        (method, {"labels": batch.labels.int()}, r"labels are torch\.int32, not torch\.int64"),
    ):
        with pytest.raises(ValueError, match=told):
            guided_objective(other, batch._replace(**changes), GuidedForward(model), 0.5, 1)


@pytest.mark.parametrize("name", ["rank", "slack", "gradient", "harmonize", "robust", "head"])
def test_masks_of_any_type_guide_like_floats(name: str) -> None:
    torch.manual_seed(0)
    model = build_model("test_resnet", ["a", "b"], input_size=64, backbone_args=SMALL)
    method, forward = guidance_method(name), GuidedForward(model)
    images, grid = torch.randn(3, 3, 64, 64), model.grid()
    method.prepare(model, images)
    masks = torch.zeros(3, *grid)
    masks[:, 0] = 1
    kinds = (torch.float32, torch.bool, torch.uint8, torch.int64, torch.float64, torch.bfloat16)
    weight = torch.tensor([1, math.nan, 1])  # NaN: no map
    losses = []
    for kind in kinds:
        batch = GuidanceBatch(images, torch.tensor([0, 1, 0]), masks.to(kind), weight)
        torch.manual_seed(1)
        losses.append(guided_objective(method, batch, forward, 0.5, 1).loss)
        model = copy.deepcopy(forward).model  # no graph of the step is kept
    assert losses[0].isfinite()
    assert all(map(torch.equal, losses, losses[:1] * len(losses)))


class Once(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        context.save_for_backward(values)
        return values.square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context: Any, slope: Tensor) -> Tensor:  # type: ignore[override]
        (values,) = context.saved_tensors
        return 2 * values * slope


def test_a_network_without_second_derivatives_is_refused() -> None:
    model, batch = known(inverted=True)
    plain = model.backbone.forward_features
    model.backbone.forward_features = lambda images: Once.apply(plain(images))  # type: ignore
    with pytest.raises(InputError, match="the network has no second derivative"):
        terms_of(guidance_method("gradient"), batch, model)
    assert terms_of(guidance_method("rank"), batch, model)


def test_the_trial_of_second_derivatives_leaves_gradients_as_they_are() -> None:
    model, batch = known(inverted=True)
    model(batch.images).logits.square().sum().backward()
    before = [part.grad.clone() for part in model.parameters() if part.grad is not None]
    GuidedForward(model).begin(batch, frozenset({"gradient"}))
    after = [part.grad for part in model.parameters() if part.grad is not None]
    assert all(map(torch.equal, before, after))
    assert len(before) == len(after) > 0


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("how", [(3, 1, 1), (3, 2, 1), (4, 2, 0), (5, 3, 2)])
@pytest.mark.parametrize("bias", [True, False])
def test_fast_second_derivatives_are_those_of_pytorch(
    training: bool, how: tuple[int, int, int], bias: bool
) -> None:
    torch.manual_seed(0)
    depthwise = nn.Conv2d(4, 8, *how, groups=4, bias=bias)
    own = nn.Conv2d(8, 8, 3, groups=8, bias=bias)
    network = nn.Sequential(nn.Conv2d(3, 4, 1), depthwise, nn.BatchNorm2d(8), nn.Softplus(), own)
    network = network.append(nn.BatchNorm2d(8)).append(nn.Tanh()).double().train(training)
    if not bias:
        network[2].register_parameter("bias", None)
    images, found = torch.randn(3, 3, 17, 16, dtype=torch.float64), []
    for context in (nullcontext(), FastSecondDerivatives()):
        each = copy.deepcopy(network)
        pixels = images.clone().requires_grad_()
        with context:
            out = each(pixels)
        (slope,) = torch.autograd.grad(out.square().sum(), pixels, create_graph=True)
        (slope.sin().square().sum() + out.sum()).backward()
        weights = (part.grad for part in each.parameters())
        found.append([out, slope, pixels.grad, *weights, *each.buffers()])
    for plain, fast in zip(*found, strict=True):
        assert isinstance(plain, Tensor)
        torch.testing.assert_close(fast, plain, rtol=1e-9, atol=1e-11)


EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "guidance"


def test_the_plain_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLES / "plain_pytorch.py"))
    assert capsys.readouterr().out.count("gradient") == 3


@pytest.mark.parametrize("name", ["plain_pytorch", "lightning_module"])
def test_a_method_in_a_loop_of_ones_own_takes_few_lines(name: str) -> None:
    text = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 30
