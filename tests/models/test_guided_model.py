"""One forward for logits, features and saliency: which kind, whose, in which mode."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional

from preceptor.errors import InputError
from preceptor.losses.guided import GuidedLoss
from preceptor.models.build import build_model
from preceptor.models.guided_model import GuidedModel
from preceptor.models.outputs import GuidedOutput, ModelOutput
from preceptor.models.probes import check_cam_identity, check_grad_cam
from preceptor.models.spec import ModelSpec
from preceptor.models.sync_batch_norm import of_the_batch
from preceptor.saliency.cam import class_activation_map
from preceptor.saliency.gradcam import grad_cam
from preceptor.saliency.normalise import normalise

# The four backbones of the paper at their own sizes.

PAPER = {"densenet121": 7, "resnet50": 7, "legacy_xception": 10, "inception_v3": 8}
# |mean(CAM) + bias − logit| ÷ largest |logit| where the network runs in bfloat16 and the map is
# made in float32: 0.012 at most over three batches of four on each (bfloat16 has 8 bits: 0.004).
BF16_IDENTITY = 0.03


@pytest.fixture(scope="module", params=PAPER)
def paper(request: pytest.FixtureRequest) -> Iterator[tuple[str, GuidedModel]]:
    torch.manual_seed(0)
    model = build_model(request.param, ["real", "fake"]).eval()
    yield request.param, model
    del model


def test_the_papers_backbones_have_an_exact_cam(paper: tuple[str, GuidedModel]) -> None:
    name, model = paper
    assert model.spec.cam == "cam"
    assert model.grid() == (PAPER[name], PAPER[name])
    assert check_cam_identity(model) <= 1e-4
    side = model.spec.input_size
    images = torch.randn(2, 3, side, side)
    smaller = images[:, :, : side // 2, : side // 2]  # a CPU is slow in bfloat16
    with torch.inference_mode():
        for autocast, bound in ((False, 1e-4), (True, BF16_IDENTITY)):
            images = smaller if autocast else images
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                out = model(images, "every")
            assert out.logits.dtype == (torch.bfloat16 if autocast else torch.float32)
            assert out.saliency.dtype == torch.float32
            logits = out.saliency.mean((2, 3)) + model.head.bias
            gap = (logits - out.logits).abs().max() / out.logits.abs().max()
            assert float(gap) <= bound


def test_grad_cam_is_the_cam_on_the_papers_backbones(paper: tuple[str, GuidedModel]) -> None:
    _, model = paper
    through_head = GuidedModel(model.backbone, replace(model.spec, cam="gradcam")).eval()
    side = model.spec.input_size
    images, classes = torch.randn(2, 3, side, side), torch.tensor([1, 0])
    with torch.inference_mode():
        exact, other = model(images, classes), through_head(images, classes)
    assert torch.equal(exact.logits, other.logits)
    gap = (normalise(exact.saliency) - normalise(other.saliency)).abs().max()
    assert float(gap) <= 1e-4


# Kinds.

KINDS: list[tuple[str, int | None, str, str, tuple[int, int]]] = [
    ("test_resnet", 96, "cam", "", (3, 3)),
    ("test_efficientnet", 64, "cam", "", (2, 2)),
    ("test_nfnet", 64, "cam", "", (2, 2)),
    ("test_maxvit", 64, "cam", "", (2, 2)),
    ("swin_tiny_patch4_window7_224", 64, "cam", "", (2, 2)),  # NHWC
    ("mixer_s32_224", 64, "cam", "", (2, 2)),  # tokens
    ("test_mambaout", 64, "gradcam", "", (2, 2)),  # NHWC
    ("test_convnext", 64, "gradcam", "", (2, 2)),
    ("mobilenetv3_small_050", 64, "gradcam", "", (2, 2)),
    ("vgg11", 64, "gradcam", "", (2, 2)),
    ("levit_128s", 128, "gradcam", "", (2, 2)),  # tokens, two heads
    ("test_vit2", 32, "gradcam", "", (2, 2)),  # tokens, pooled
    ("vit_tiny_patch16_224", 64, "gradcam", "last_block", (4, 4)),  # class token
    ("deit_tiny_distilled_patch16_224", 64, "gradcam", "last_block", (4, 4)),  # two, two heads
    ("cait_xxs24_224", 64, "gradcam", "last_block", (4, 4)),  # class token after the blocks
    ("xcit_nano_12_p16_224", 64, "gradcam", "last_block", (4, 4)),  # blocks take the grid
]
# Fewer blocks of the same kind; of vgg11, 102 of its 129 M weights are left out.
ARGUMENTS: dict[str, dict[str, Any]] = {
    "vgg11": {"mlp_ratio": 0.01},
    "swin_tiny_patch4_window7_224": {"depths": (1, 1, 1, 1)},
    "vit_tiny_patch16_224": {"depth": 2},
    "deit_tiny_distilled_patch16_224": {"depth": 2},
    "cait_xxs24_224": {"depth": 2},
    "xcit_nano_12_p16_224": {"depth": 2},
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


def test_attention_that_pools_can_be_trained_through() -> None:
    model = build_model(
        "vit_tiny_patch16_224",
        ["a", "b"],
        input_size=64,
        backbone_args={"global_pool": "map", "depth": 2},
    )
    assert (model.spec.cam, model.spec.tap) == ("gradcam", "")
    model(torch.randn(2, 3, 64, 64), torch.tensor([0, 1])).saliency.square().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def small(backbone: str, **options: Any) -> GuidedModel:
    torch.manual_seed(0)
    return build_model(backbone, ["a", "b"], **{"input_size": 64} | options).eval()


# Whose map, in which mode.

EVERY_KIND = ["test_efficientnet", "test_convnext", "test_vit", "test_vit2", "test_mambaout"]


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


@pytest.mark.parametrize("backbone", ["test_vit", "test_vit2", "test_convnext", "test_nfnet"])
def test_evaluation_and_training_give_the_same_map(backbone: str) -> None:
    """On networks without dropout and batch norm the modes are the same function."""
    model = small(backbone)
    images, of = torch.randn(3, 3, 64, 64), torch.tensor([1, 0, 1])
    with torch.inference_mode():
        evaluated = model.eval()(images, of)
    trained = model.train()(images, of)
    torch.testing.assert_close(evaluated.saliency, trained.saliency.detach())
    torch.testing.assert_close(evaluated.logits, trained.logits.detach())


@pytest.mark.parametrize("backbone", ["test_convnext", "test_vit", "test_vit2"])
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
            tokens = slice(1, None)
        elif backbone == "test_vit2":
            raw = network.forward_features(images[b : b + 1]).detach().requires_grad_()
            logits, tokens = network.forward_head(raw), slice(network.num_prefix_tokens, None)
        else:
            raw = network.forward_features(images[b : b + 1]).detach().requires_grad_()
            logits = network.forward_head(raw)
        (slope,) = torch.autograd.grad(logits[0, wanted], raw)
        height, width = model.grid()
        slow = torch.zeros(height, width)
        for channel in range(raw.shape[1] if raw.ndim == 4 else raw.shape[2]):
            if raw.ndim == 4:
                slow += slope[0, channel].mean() * raw[0, channel].detach()
            else:
                values = raw[0, tokens, channel].detach().view(height, width)
                slow += slope[0, tokens, channel].mean() * values
        torch.testing.assert_close(got[b], slow, rtol=1e-4, atol=1e-5)


def test_what_saliency_for_may_be() -> None:
    model = small("test_resnet")
    images = torch.randn(2, 3, 64, 64)
    with pytest.raises(ValueError, match="'label' is not classes, predicted or every"):
        model(images, "label")
    for wrong in (torch.tensor([0]), torch.tensor([[0], [1]]), torch.tensor(0)):
        with pytest.raises(ValueError, match=r"must be \(B,\) with B = 2"):
            model(images, wrong)


# Only from the logits to the features.


class Counted(torch.autograd.Function):
    """The identity, counting how often it is differentiated."""

    backwards = 0

    @staticmethod
    def forward(_: Any, values: Tensor) -> Tensor:
        return values.clone()

    @staticmethod
    def backward(_: Any, slope: Tensor) -> Tensor:  # type: ignore[override]
        Counted.backwards += 1
        return slope


class Block(nn.Module):
    """Mixes places, as attention does, and keeps what was there."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        weights = (self.mix(tokens) @ tokens.transpose(1, 2)).softmax(2)
        return tokens + weights @ tokens


class Toy(nn.Module):
    """A trunk that counts its backward passes, under a head that is not linear."""

    output_fmt = "NCHW"

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 2, stride=2)
        self.head = nn.Linear(4, 2)

    def forward_features(self, images: Tensor) -> Tensor:
        return Counted.apply(self.stem(images).tanh())  # type: ignore[no-any-return, no-untyped-call]

    def forward_head(self, features: Tensor) -> Tensor:
        out: Tensor = self.head(functional.gelu(features.mean((2, 3))))
        return out

    def get_classifier(self) -> nn.Module:
        return self.head


class ToyTokens(Toy):
    """Its head sees the first token alone, so that the map is taken before the last block."""

    num_prefix_tokens = 1

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Block(4), Block(4))

    def forward_features(self, images: Tensor) -> Tensor:
        tokens = super().forward_features(images).flatten(2).transpose(1, 2)
        return self.blocks(torch.cat([tokens.mean(1, keepdim=True), tokens], 1))  # type: ignore[no-any-return]

    def forward_head(self, features: Tensor) -> Tensor:
        out: Tensor = self.head(functional.gelu(features[:, 0]))
        return out


def toy(network: nn.Module, tap: str) -> GuidedModel:
    spec = ModelSpec("toy", ("a", "b"), None, 3, 8, (0.5,) * 3, (0.5,) * 3, cam="gradcam", tap=tap)
    return GuidedModel(network, spec)


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


@pytest.mark.parametrize("backbone", ["test_convnext", "test_vit", "test_vit2", "test_mambaout"])
def test_the_gradient_of_real_networks_along_a_direction(backbone: str) -> None:
    model = small(backbone).double()
    images, of = torch.randn(2, 3, 64, 64, dtype=torch.float64), torch.tensor([0, 1])
    target = torch.rand(2, *model.grid(), dtype=torch.float64)
    parameters = [p for p in model.parameters() if p.requires_grad]
    directions = [torch.randn_like(p) * p.detach().std().nan_to_num(1.0) for p in parameters]

    def loss() -> Tensor:
        maps = model(images, of).saliency
        return (maps / maps.detach().std() - target).square().sum()

    def at(step: float, scale: Tensor) -> float:
        with torch.no_grad():
            for p, d in zip(parameters, directions, strict=True):
                p.add_(d, alpha=step)
            value = (model(images, of).saliency / scale - target).square().sum()
            for p, d in zip(parameters, directions, strict=True):
                p.sub_(d, alpha=step)
        return float(value)

    scale = model(images, of).saliency.detach().std()
    grads = torch.autograd.grad(loss(), parameters, allow_unused=True)
    slope = sum(
        float((g * d).sum()) for g, d in zip(grads, directions, strict=True) if g is not None
    )
    step = 1e-6
    measured = (at(step, scale) - at(-step, scale)) / (2 * step)
    assert measured == pytest.approx(slope, rel=1e-4)
    assert abs(slope) > 1e-6


def test_a_frozen_trunk_stays_as_it_is() -> None:
    for backbone in ("test_convnext", "test_vit"):
        model = small(backbone).train()
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        head = model.head.requires_grad_()
        images, of = torch.randn(2, 3, 64, 64), torch.tensor([0, 1])
        model(images, of).saliency.square().sum().backward()
        assert head.weight.grad is not None
        assert head.weight.grad.any()
        assert all(p.grad is None for p in model.backbone.parameters() if not p.requires_grad)


# Batch norm between features and logits.


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


@pytest.mark.parametrize(("make", "tap", "after", "before"), NORMED_TOYS)
def test_a_loss_on_the_map_has_the_true_gradient_beside_batch_norm(
    make: type[Toy], tap: str, after: list[str], before: list[str]
) -> None:
    model = normed_toy(make, tap)
    kept = {name: value.clone() for name, value in model.named_buffers()}
    images, of = torch.randn(3, 3, 8, 8, dtype=torch.float64), torch.tensor([0, 1, 0])
    names = [name for name, _ in model.named_parameters()]
    target = torch.rand(3, 4, 4, dtype=torch.float64)

    def loss(*values: Tensor) -> Tensor:
        state = dict(zip(names, values, strict=True))
        buffers = {name: value.clone() for name, value in kept.items()}
        out = torch.func.functional_call(model, state | buffers, (images, of))
        guided: Tensor = GuidedLoss(0.3)(out.logits, of, out.saliency, target)
        return guided

    values = [p.detach().clone().requires_grad_() for p in model.parameters()]
    assert torch.autograd.gradcheck(loss, values)
    loss(*values).backward()
    assert all(value.grad is not None and value.grad.any() for value in values)


# The smallest network of each family of timm (its modules) that has batch norm between features and
# logits, found by `python benchmarks/norms_in_heads.py` among all 1,371 names of timm 1.0.31: 84
# networks of 10 families, and XCiT's 28.
FAMILIES_WITH_NORMED_HEADS = [
    ("cpubone_nano", 64),
    ("efficientvit_b0", 64),
    ("efficientvit_m0", 128),
    ("iformer_t", 64),
    ("levit_128s", 128),
    ("lowformer_b0", 64),
    ("mobilenetv4_conv_small_035", 64),
    ("repvit_m1", 64),
    ("resnet50_mlp", 64),
    ("shvit_s1", 128),
    ("xcit_nano_12_p16_224", 64),  # in the block that its map is taken before
]


@pytest.mark.parametrize(("backbone", "size"), FAMILIES_WITH_NORMED_HEADS)
def test_batch_and_single_image_maps_are_one_in_training(backbone: str, size: int) -> None:
    torch.manual_seed(0)
    model = build_model(backbone, ["a", "b"], input_size=size)
    images = torch.randn(4, 3, size, size)
    norms = {name: part for name, part in model.backbone.named_modules() if of_the_batch(part)}
    for part in norms.values():
        part.momentum = 1.0
    with torch.no_grad():
        model.train()(images)  # without statistics of images some signals fade on their way
    after = model.norms_after_features()
    assert after
    model.eval()  # what the features are made of is not in question, nor dropout
    model.training = True
    for name in after:
        norms[name].training, norms[name].momentum = True, 0.1
    twin = copy.deepcopy(model).eval()
    others = torch.randn(4, 3, size, size)
    for of in (torch.tensor([0, 1, 1, 0]), torch.ones(4, dtype=torch.int64)):
        with torch.no_grad():
            alone = [twin(images[k : k + 1], of[k : k + 1]).saliency[0] for k in range(4)]
        wanted = torch.stack(alone)
        bound = 1e-3 * float((wanted - wanted.mean((1, 2), keepdim=True)).abs().max())
        together = copy.deepcopy(model)(images, of).saliency.detach()
        torch.testing.assert_close(together, wanted, rtol=0, atol=bound)
        mixed = torch.cat([images[:2], others[:2]])
        beside = copy.deepcopy(model)(mixed, of).saliency.detach()
        torch.testing.assert_close(beside[:2], wanted[:2], rtol=0, atol=bound)


def test_batch_norm_without_running_statistics_in_a_head_is_refused() -> None:
    network = ToyNormed()
    network.norm = nn.BatchNorm1d(4, track_running_stats=False)
    found = check_grad_cam(toy(network, ""))
    assert found == "its norm is batch norm without running statistics, where images meet"


# Precision.


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("backbone", ["test_resnet", "test_convnext", "test_vit", "test_mambaout"])
def test_guided_steps_under_fabric(backbone: str, precision: Any) -> None:
    torch.manual_seed(0)
    model = small(backbone)
    images, labels = torch.randn(8, 3, 64, 64), torch.arange(8) % 2
    with torch.no_grad():
        plain = model(images, labels).saliency
    fabric = Fabric(accelerator="cpu", devices=1, precision=precision)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    wrapped, optimizer = fabric.setup(model, optimizer)
    maps = torch.rand(8, *model.grid())
    with torch.inference_mode():
        out = wrapped(images, labels)
        assert out.saliency.dtype == torch.float32
        gap = (normalise(out.saliency) - normalise(plain)).abs().max()
        assert float(gap) < (1e-4 if precision == "32-true" else 0.2)
    losses = []
    model.train()
    for _ in range(8):
        logits, _, cam, *_ = wrapped(images, labels)
        assert cam.dtype == torch.float32
        loss = GuidedLoss(0.1)(logits, labels, cam, maps)
        optimizer.zero_grad()
        fabric.backward(loss)
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]


# Sigmoid heads and grey images.


@pytest.mark.parametrize("backbone", ["test_efficientnet", "test_convnext", "test_vit"])
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


def test_the_cam_of_a_sigmoid_head_adds_up_for_both_classes() -> None:
    model = small("test_resnet", head="sigmoid")
    assert model.spec.cam == "cam"
    assert check_cam_identity(model) <= 1e-4
    torch.nn.init.normal_(model.head.weight)
    torch.nn.init.normal_(model.head.bias)
    images = torch.randn(3, 3, 64, 64)
    with torch.inference_mode():
        out = model(images, "every")
        for wanted, sign in ((0, -0.5), (1, 0.5)):
            bias = sign * model.head.bias
            gap = out.saliency[:, wanted].mean((1, 2)) + bias - out.logits[:, wanted]
            assert float(gap.abs().max()) <= 1e-4 * float(out.logits.abs().max())
            alone = class_activation_map(out.features, model.head.weight, torch.full((3,), wanted))
            torch.testing.assert_close(alone, out.saliency[:, wanted])
            slow = sign * torch.einsum("c,bchw->bhw", model.head.weight[0], out.features)
            torch.testing.assert_close(alone, slow)
    assert model.class_weight.shape == (2, model.head.in_features)


def test_a_sigmoid_head_is_guided_through_grad_cam_as_through_the_cam() -> None:
    exact = small("test_resnet", head="sigmoid")
    through = GuidedModel(exact.backbone, replace(exact.spec, cam="gradcam"))
    images, of = torch.randn(3, 3, 64, 64), torch.tensor([0, 1, 1])
    places = exact.grid()[0] * exact.grid()[1]
    with torch.inference_mode():
        torch.testing.assert_close(
            through(images, of).saliency * places, exact(images, of).saliency
        )


# What else a model is asked.


def test_a_head_that_is_not_one_linear_layer_is_named() -> None:
    model = small("deit_tiny_distilled_patch16_224")
    with pytest.raises(InputError, match="its classifier is Linear, Linear, not one linear layer"):
        _ = model.head


def test_too_coarse_a_grid_is_refused() -> None:
    with pytest.raises(InputError, match="1 × 1 feature grid, too coarse"):
        small("test_convnext", input_size=32).guidable_grid()


@pytest.mark.parametrize(
    ("backbone", "options"),
    [
        ("test_resnet", {}),
        ("test_resnet", {"cam_source": "cyborg"}),
        ("test_convnext", {}),
        ("test_vit", {}),
    ],
)
def test_a_compiled_trunk_gives_the_same_saliency(
    backbone: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small(backbone, **options).train()
    images, of = torch.randn(2, 3, 64, 64), torch.tensor([0, 1])
    compiler, calls = torch.compile, []

    def compiled(trunk: Any) -> Any:
        inner: Any = compiler(trunk, backend="eager")

        def run(images: Tensor) -> Any:
            calls.append(len(images))
            return inner(images)

        return run

    monkeypatch.setattr(torch, "compile", compiled)
    expected = model(images, of).saliency
    keys = list(model.state_dict())
    model.compile_trunk()
    assert list(model.state_dict()) == keys
    got = model(images, of).saliency
    assert calls == [2]
    torch.testing.assert_close(got, expected)
    got.square().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    model.eval()
    with torch.inference_mode():
        off = model(images, of).saliency
    torch.testing.assert_close(off, model(images, of).saliency.detach())


def test_the_toy_is_what_it_seems() -> None:
    """The counting trunk is a function like any other: its map is Grad-CAM's."""
    torch.manual_seed(0)
    network = Toy()
    model = toy(network, "")
    images, of = torch.randn(2, 3, 8, 8), torch.tensor([0, 1])
    features = network.forward_features(images).detach().requires_grad_()
    expected = grad_cam(network.forward_head(features), features, of, trainable=False)
    torch.testing.assert_close(model(images, of).saliency.detach(), expected)
