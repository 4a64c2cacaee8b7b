"""One forward for logits, features and saliency: kinds, gradients, batch norm, precision."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from preceptor.losses.guided import GuidedLoss
from preceptor.models.build import build_model
from preceptor.models.guided_model import GuidedModel, GuidedOutput, ModelOutput
from preceptor.models.probes import check_grad_cam
from tests.models.toys import Block, Counted, Toy, ToyTokens, small, toy

# Whose map, in which mode.

EVERY_KIND = ["test_efficientnet", "test_vit"]


@pytest.mark.parametrize("backbone", EVERY_KIND)
@pytest.mark.parametrize("training", [False, True])
def test_every_class_is_each_by_itself(backbone: str, training: bool) -> None:
    torch.manual_seed(0)
    model = build_model(backbone, ["a", "b", "c"], input_size=64).eval()
    images = torch.randn(4, 3, 64, 64)
    with torch.set_grad_enabled(training):
        every = model(images, "every")
        assert every.saliency.shape == (4, 3, *model.grid())
        assert torch.equal(every.classes, torch.arange(3).expand(4, 3))
        assert every.saliency.requires_grad == training
        for wanted in range(3):
            alone = model(images, torch.full((4,), wanted))
            torch.testing.assert_close(every.saliency[:, wanted], alone.saliency)
        predicted = model(images, "predicted")
        assert torch.equal(predicted.classes, predicted.logits.argmax(1))
        chosen = every.saliency[torch.arange(4), predicted.classes]
        torch.testing.assert_close(predicted.saliency, chosen)
        assert torch.equal(model(images).logits, predicted.logits)


@pytest.mark.parametrize("backbone", EVERY_KIND)
def test_the_map_is_the_same_with_and_without_a_graph(backbone: str) -> None:
    model = small(backbone)
    images, of = torch.randn(3, 3, 64, 64), torch.tensor([1, 0, 1])
    trained = model(images, of)
    assert trained.saliency.requires_grad
    assert trained.logits.requires_grad
    with torch.no_grad():
        off = model(images, of)
        assert not torch.is_grad_enabled()  # a tap switches them on for a while
    with torch.inference_mode():
        inference = model(images, of)
        of_inference = model(images.clone(), torch.tensor([1, 0, 1]))
        assert torch.is_inference_mode_enabled()
    assert torch.is_grad_enabled()
    for out in (off, inference, of_inference):
        for part, expected in zip(out, trained, strict=True):
            assert not part.requires_grad
            assert part.grad_fn is None
            torch.testing.assert_close(part, expected.detach())


@pytest.mark.parametrize("backbone", ["test_convnext", "test_vit"])
def test_the_models_map_is_that_of_the_slow_way(backbone: str) -> None:
    """An image at a time, one derivative a channel, on the network run by hand."""
    model = small(backbone)
    network: Any = model.backbone
    images, classes = torch.randn(3, 3, 64, 64), [1, 0, 1]
    with torch.no_grad():
        got = model(images, torch.tensor(classes)).saliency
    for b, wanted in enumerate(classes):
        if backbone == "test_vit":  # tokens that enter the last block, one class token before
            seen: list[Tensor] = []
            handle = network.blocks[-1].register_forward_pre_hook(lambda _, a: seen.append(a[0]))  # noqa: B023
            network(images[b : b + 1])
            handle.remove()
            raw = seen[0].detach().requires_grad_()
            logits = network.head(network.fc_norm(network.norm(network.blocks[-1](raw))[:, 0]))
        else:
            raw = network.forward_features(images[b : b + 1]).detach().requires_grad_()
            logits = network.forward_head(raw)
        (slope,) = torch.autograd.grad(logits[0, wanted], raw)
        height, width = model.grid()
        values, slopes = raw.detach()[0], slope[0]
        if backbone == "test_vit":
            values, slopes = (one[1:].T.unflatten(1, (height, width)) for one in (values, slopes))
        slow = sum(slopes[c].mean() * values[c] for c in range(len(values)))
        torch.testing.assert_close(got[b], slow, rtol=1e-4, atol=1e-5)


def test_what_saliency_for_may_be() -> None:
    model = small("test_resnet")
    images = torch.randn(2, 3, 64, 64)
    with pytest.raises(ValueError, match="'label' is not classes, predicted or every"):
        model(images, "label")
    for wrong in (torch.tensor([0]), torch.tensor([[0], [1]]), torch.tensor(0)):
        with pytest.raises(ValueError, match=r"must be \(B,\) with B = 2"):
            model(images, wrong)


# Sigmoid heads and grey images.


@pytest.mark.parametrize("backbone", ["test_efficientnet", "test_vit"])
@pytest.mark.parametrize("in_chans", [1, 3])
def test_one_logit_is_two_classes(backbone: str, in_chans: int) -> None:
    model = small(backbone, head="sigmoid", in_chans=in_chans)
    assert model.head.out_features == 1
    images, labels = torch.randn(6, in_chans, 64, 64), torch.arange(6) % 2
    z: Tensor = model.backbone(images)[:, 0]
    out = model(images, labels)
    torch.testing.assert_close(out.logits, torch.stack([-z / 2, z / 2], 1))
    torch.testing.assert_close(out.logits.softmax(1)[:, 1], z.sigmoid())
    torch.testing.assert_close(
        functional.cross_entropy(out.logits, labels, reduction="none"),
        functional.binary_cross_entropy_with_logits(z, labels.float(), reduction="none"),
    )
    one, other = out.logits[:, 1] - out.logits[:, 0], z
    torch.testing.assert_close(one, other)
    # The two classes look at the same evidence, for and against.
    every = model(images, "every")
    torch.testing.assert_close(every.saliency[:, 0], -every.saliency[:, 1])


# Kinds.

KINDS: list[tuple[str, int | None, str, str, tuple[int, int]]] = [
    ("test_resnet", 96, "cam", "", (3, 3)),
    ("swin_tiny_patch4_window7_224", 64, "cam", "", (2, 2)),  # NHWC
    ("mixer_s32_224", 64, "cam", "", (2, 2)),  # tokens
    ("test_mambaout", 64, "gradcam", "", (2, 2)),  # NHWC
    ("test_convnext", 64, "gradcam", "", (2, 2)),
    ("test_vit2", 32, "gradcam", "", (2, 2)),  # tokens, pooled
    ("vit_tiny_patch16_224", 64, "gradcam", "last_block", (4, 4)),  # class token
    ("cait_xxs24_224", 64, "gradcam", "last_block", (4, 4)),  # class token after the blocks
]
# Fewer blocks of the same kind.
ARGUMENTS: dict[str, dict[str, Any]] = {
    "swin_tiny_patch4_window7_224": {"depths": (1, 1, 1, 1)},
    "vit_tiny_patch16_224": {"depth": 2},
    "cait_xxs24_224": {"depth": 2},
}


@pytest.mark.parametrize(("backbone", "size", "cam", "tap", "grid"), KINDS, ids=lambda v: str(v))
def test_kinds(backbone: str, size: int | None, cam: str, tap: str, grid: tuple[int, int]) -> None:
    torch.manual_seed(0)
    model = build_model(
        backbone, ["a", "b", "c"], input_size=size, backbone_args=ARGUMENTS.get(backbone)
    )
    assert (model.spec.cam, model.spec.tap) == (cam, tap)
    assert model.guidable_grid() == grid
    side = model.spec.input_size
    images, labels = torch.randn(3, 3, side, side), torch.tensor([2, 0, 1])
    for model_mode in (model.train(), model.eval()):
        out = model_mode(images, labels)
        assert isinstance(out, GuidedOutput)
        assert out.saliency.shape == (3, *grid)
        assert out.features.shape[2:] == grid
        assert out.saliency.dtype == torch.float32
        assert torch.equal(out.classes, labels)
        plain = model(images)
        assert isinstance(plain, ModelOutput)
        assert plain.logits.shape == (3, 3)
    torch.testing.assert_close(out.logits, plain.logits)
    torch.testing.assert_close(out.logits, model.backbone(images))
    torch.testing.assert_close(out.features, plain.features)
    # A loss on the map reaches through the whole network, and no parameter gets a NaN.
    model.train().zero_grad()
    images.requires_grad_()
    out = model(images, labels)
    GuidedLoss(0.0)(out.logits, labels, out.saliency, torch.rand(3, *grid)).backward()
    assert images.grad is not None
    assert images.grad.flatten(1).any(1).all()
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(g.isfinite().all() for g in grads)
    assert len(grads) > len(list(model.parameters())) / 2


TOYS = [(Toy, ""), (ToyTokens, "last_block")]


@pytest.mark.parametrize(("make", "tap"), TOYS)
@pytest.mark.parametrize("of", ["labels", "predicted", "every"])
def test_the_trunk_is_differentiated_once_a_step(make: type[Toy], tap: str, of: str) -> None:
    torch.manual_seed(0)
    model = toy(make(), tap)
    images, labels = torch.randn(3, 3, 8, 8), torch.tensor([0, 1, 1])
    wanted: Any = labels if of == "labels" else of
    Counted.backwards = 0
    out = model(images, wanted)
    assert Counted.backwards == 0  # saliency does not enter the trunk
    (out.saliency.square().sum() + functional.cross_entropy(out.logits, labels)).backward()
    assert Counted.backwards == 1
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name
    model.zero_grad()
    model.eval()
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            model(images, wanted)
    assert Counted.backwards == 1
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize(("make", "tap"), TOYS)
def test_a_loss_on_the_map_has_the_true_gradient(make: type[Toy], tap: str) -> None:
    """Of head and trunk, by finite differences in float64."""
    torch.manual_seed(0)
    model = toy(make(), tap).double()
    images, of = torch.randn(2, 3, 4, 4, dtype=torch.float64), torch.tensor([0, 1])
    names = [name for name, _ in model.named_parameters()]
    target = torch.rand(2, 2, 2, dtype=torch.float64)

    def loss(*values: Tensor) -> Tensor:
        state = dict(zip(names, values, strict=True))
        out = torch.func.functional_call(model, state, (images, of))
        guided: Tensor = GuidedLoss(0.3)(out.logits, of, out.saliency, target)
        return guided

    values = [p.detach().clone().requires_grad_() for p in model.parameters()]
    assert any("stem" in name for name in names)
    assert torch.autograd.gradcheck(loss, values)


class ToyNormed(Toy):
    """Its head has a batch norm, through which images meet in training."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def forward_head(self, features: Tensor) -> Tensor:
        out: Tensor = self.head(self.norm(features.mean((2, 3))))
        return out


class NormedBlock(Block):
    """A block in which images meet in training."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.norm = nn.BatchNorm1d(width)

    def forward(self, tokens: Tensor) -> Tensor:
        return super().forward(self.norm(tokens.transpose(1, 2)).transpose(1, 2))


class ToyNormedTokens(ToyTokens):
    """The block before which its map is taken has a batch norm, and so has the one before."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(NormedBlock(4), NormedBlock(4))


NORMED_TOYS = [
    (ToyNormed, "", ["norm"], []),
    (ToyNormedTokens, "last_block", ["blocks.1.norm"], ["blocks.0.norm"]),
]


def normed_toy(make: type[Toy], tap: str) -> GuidedModel:
    """With running statistics of its own."""
    torch.manual_seed(0)
    model = toy(make(), tap).double().train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(16, 3, 8, 8, dtype=torch.float64) + 0.5)
    return model


@pytest.mark.parametrize(("make", "tap", "after", "before"), NORMED_TOYS)
def test_a_map_in_training_is_that_of_its_image_alone(
    make: type[Toy], tap: str, after: list[str], before: list[str]
) -> None:
    model = normed_toy(make, tap)
    assert model.norms_after_features() == after
    for name in before:  # what the features are made of is not in question
        model.backbone.get_submodule(name).eval()
    images = torch.randn(6, 3, 8, 8, dtype=torch.float64)
    for of in (torch.tensor([0, 1, 1, 0, 1, 0]), torch.ones(6, dtype=torch.int64)):
        twin = copy.deepcopy(model).eval()
        alone = [twin(images[k : k + 1], of[k : k + 1]).saliency[0] for k in range(6)]
        wanted = torch.stack(alone).detach()
        for images_and_classes in (slice(0, 6), slice(0, 3)):
            part = copy.deepcopy(model)
            maps = part(images[images_and_classes], of[images_and_classes]).saliency
            torch.testing.assert_close(maps.detach(), wanted[images_and_classes])
        # In a batch of one class too it is no rounding noise.
        assert wanted.flatten(1).std(1).min() > 1e-3


@pytest.mark.parametrize(("make", "tap", "after", "before"), NORMED_TOYS)
@pytest.mark.parametrize("trainable", [True, False])
def test_the_forward_beside_the_map_is_that_of_training(
    make: type[Toy], tap: str, after: list[str], before: list[str], trainable: bool
) -> None:
    """Logits, features and running statistics are as without a map; the statistics move once."""
    plain = normed_toy(make, tap)
    guided = copy.deepcopy(plain)
    images, of = torch.randn(6, 3, 8, 8, dtype=torch.float64), torch.tensor([0, 1, 1, 0, 1, 0])
    with torch.set_grad_enabled(trainable):
        expected, out = plain(images), guided(images, of)
    torch.testing.assert_close(out.logits, expected.logits)
    torch.testing.assert_close(out.features, expected.features)
    for (name, value), other in zip(plain.named_buffers(), guided.buffers(), strict=True):
        assert torch.equal(value, other), name
    assert all(guided.backbone.get_submodule(name).training for name in after + before)
    every = guided(images, "every")
    assert every.saliency.shape[1] == 2


def test_batch_norm_without_running_statistics_in_a_head_is_refused() -> None:
    network = ToyNormed()
    network.norm = nn.BatchNorm1d(4, track_running_stats=False)
    found = check_grad_cam(toy(network, ""))
    assert found == "its norm is batch norm without running statistics, where images meet"
