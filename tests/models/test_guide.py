"""Guided models of networks from outside timm: their parts, maps, refusals, folders."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import VisionTransformer

from preceptor.errors import InputError
from preceptor.losses.guided import GuidedLoss
from preceptor.models.build import load_model, save_model
from preceptor.models.custom import guide
from preceptor.models.guided_model import GuidedModel

CLASSES = ("real", "fake")
SIDE = 32


class Net(nn.Module):
    """Mean-pooled convolutions with a linear head; the variants are subclasses."""

    def __init__(self, outputs: int = 2) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(3, 8, 5, stride=4), nn.BatchNorm2d(8), nn.ReLU(inplace=True)
        )
        self.fc = nn.Linear(8, outputs)

    def features(self, images: Tensor) -> Tensor:
        found: Tensor = self.trunk(images)
        return found

    def forward(self, images: Tensor) -> Any:
        return self.fc(self.features(images).mean((2, 3)))


class Functional(Net):
    """Activation in place and pooling by functions, as in torchvision's DenseNet."""

    def features(self, images: Tensor) -> Tensor:
        return functional.relu(self.trunk[1](self.trunk[0](images)), inplace=True)


class Normed(Net):
    """Layer norm after the pooling, as in ConvNeXt: no exact map."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8)

    def forward(self, images: Tensor) -> Any:
        return self.fc(self.norm(self.features(images).mean((2, 3))))


class ChannelsLast(Normed):
    """Features (B, h, w, Ch), as in Swin."""

    def forward(self, images: Tensor) -> Any:
        return self.fc(self.norm(self.features(images).permute(0, 2, 3, 1)).mean((1, 2)))


class Tokens(nn.Module):
    """Transformer with a class token and four registers."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 8, stride=8)
        self.first = nn.Parameter(torch.randn(1, 5, 16))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True) for _ in range(3)
        )
        self.head = nn.Linear(16, 2)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.first.expand(len(images), -1, -1), tokens], 1)
        for block in self.blocks:
            tokens = block(tokens)
        return {"logits": self.head(tokens[:, 0])}


class ChangesItsInput(Net):
    def forward(self, images: Tensor) -> Any:
        return super().forward(images.mul_(0.5))


class WithAuxiliary(Net):
    """A tuple with the logits of a second head; selected by a function."""

    def __init__(self) -> None:
        super().__init__()
        self.second = nn.Linear(8, 2)

    def forward(self, images: Tensor) -> Any:
        features = self.features(images).mean((2, 3))
        return self.fc(features), self.second(features)


class AttentionPooled(Net):
    """Sum of the places, weighted by a softmax over them (M. Ilse et al., ICML 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 1))

    def forward(self, images: Tensor) -> Any:
        places = self.features(images).flatten(2).transpose(1, 2)
        return self.fc((places * self.score(places).softmax(1)).sum(1))


class OneMap(Net):
    """The map of a single logit, then pooling: one channel, which nothing bypasses."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Conv2d(8, 1, 1)

    def forward(self, images: Tensor) -> Any:
        return self.last(self.features(images)).mean((2, 3))


def guided(
    module: nn.Module, head: Any = "fc", features: Any = "trunk", **options: Any
) -> GuidedModel:
    return guide(module, head, features, **{"classes": CLASSES, "input_size": SIDE} | options)


def spread(module: nn.Module) -> nn.Module:
    """The module with statistics and norms away from their initial values."""
    torch.manual_seed(1)
    for part in module.modules():
        if isinstance(part, (nn.BatchNorm2d, nn.BatchNorm1d, nn.LayerNorm)):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.uniform_(part.bias, -0.5, 0.5)
    return module


KINDS: list[tuple[Callable[[], nn.Module], str, str, str, int]] = [
    (Net, "cam", "fc", "trunk", 0),
    (Functional, "cam", "fc", "trunk.1", 0),
    (ChangesItsInput, "cam", "fc", "trunk", 0),
    (ChannelsLast, "cam", "fc", "norm", 0),
    (Normed, "gradcam", "fc", "trunk", 0),
    (AttentionPooled, "gradcam", "fc", "trunk", 0),
    (Tokens, "gradcam", "head", "blocks.1", 5),
]


@pytest.mark.parametrize(("create", "cam", "head", "features", "prefix"), KINDS)
def test_maps_of_named_parts_guide(
    create: Callable[[], nn.Module], cam: str, head: str, features: str, prefix: int
) -> None:
    torch.manual_seed(0)
    module = spread(create())
    before = {key: value.clone() for key, value in module.state_dict().items()}
    model = guided(module, head, features)
    parts = model.spec.module
    assert parts is not None
    assert (model.spec.cam, parts.head, parts.features, parts.prefix) == (
        cam, head, features, prefix
    )  # fmt: skip
    assert all(torch.equal(module.state_dict()[key], value) for key, value in before.items())
    images, labels = torch.randn(4, 3, SIDE, SIDE), torch.tensor([0, 1, 1, 0])
    given = images.clone()
    out = model.eval()(images, "every")
    assert torch.equal(images, given)
    # The mean evidence of a class is its logit.
    torch.testing.assert_close(out.evidence.mean((2, 3)), out.logits, rtol=1e-4, atol=1e-5)
    plain = module.eval()(images.clone())
    plain = plain["logits"] if isinstance(plain, dict) else plain
    torch.testing.assert_close(out.logits, plain)
    maps = torch.rand(4, *model.train().grid())
    out = model(images, labels)
    GuidedLoss(alpha=0.0)(out.logits, labels, out.saliency, maps).backward()
    first = module.patches if isinstance(module, Tokens) else module.trunk
    weight = next(first.parameters())
    assert weight.grad is not None
    assert weight.grad.abs().sum() > 0


def test_one_logit_names_of_parts_and_no_linear_head() -> None:
    torch.manual_seed(0)
    model = guided(Net(1))
    assert (model.spec.head, model.spec.cam) == ("sigmoid", "cam")
    assert guided(OneMap(), None, "last").spec.cam == "gradcam"
    assert model(torch.zeros(2, 3, SIDE, SIDE)).logits.shape == (2, 2)
    assert guided(WithAuxiliary(), logits=lambda output: output[0]).spec.cam == "cam"
    model = guided(Net(), "fc", "trunk", cam="gradcam")
    assert model.spec.module is not None
    assert (model.spec.module.head, model.spec.module.features) == ("fc", "trunk")


class TwoHeads(Net):
    def forward(self, images: Tensor) -> Any:
        return {"type": super().forward(images), "age": super().forward(images)}


class Center(Net):
    """Logits that depend on one place of the features only."""

    def forward(self, images: Tensor) -> Any:
        return self.fc(self.features(images)[:, :, 3, 3])


class Images(Net):
    def forward(self, images: Tensor) -> Any:
        return self.features(images)


class Flattened(Net):
    """Features (B, Ch, places)."""

    def __init__(self) -> None:
        super().__init__()
        self.flat = nn.Flatten(2)

    def forward(self, images: Tensor) -> Any:
        return self.fc(self.flat(self.features(images)).mean(2))


class CosineHead(nn.Linear):
    """Linear layer of normalized weights and inputs, not Wx + b."""

    def forward(self, x: Tensor) -> Tensor:
        return 10 * functional.linear(*(functional.normalize(one) for one in (x, self.weight)))


def test_a_head_that_is_not_linear_has_grad_cam() -> None:
    module = Net()
    module.fc = CosineHead(8, 2)
    assert guided(module).spec.cam == "gradcam"


def test_an_unused_sigmoid_is_no_output() -> None:
    module = Net(1)
    module.unused = nn.Sigmoid()
    nn.init.constant_(module.fc.bias, 9)
    assert guided(module).spec.cam == "cam"


REFUSED: list[tuple[Callable[[], nn.Module], dict[str, Any], str]] = [
    (TwoHeads, {}, "returns a dict; say which"),
    (WithAuxiliary, {}, "returns a tuple; say which"),
    (Images, {}, "the logits are (2, 8, 7, 7)"),
    (Flattened, {"features": "flat"}, "returns (2, 8, 49), channels before places"),
    (Net, {"logits": lambda output: output.softmax(1)}, "returns probabilities"),
    (
        lambda: nn.Sequential(Net(1), nn.Sigmoid()),
        {"head": None, "features": "0.trunk"},
        "returns a probability",
    ),
    (Center, {}, "the logits do not depend on all places of the features"),
    (lambda: Net(3), {}, "has 3 logits, and there are 2 classes"),
    (Net, {"head": "classifier"}, "head: the network has no module 'classifier'; it has fc, trunk"),
    (Net, {"features": "fc"}, "features: fc returns (2, 2)"),
    (Net, {"input_size": 6}, "raise input_size"),
    (Net, {"input_size": 3}, "cannot compute images (2, 3, 3, 3)"),
    (Net, {"classes": ("a", "a")}, "two different classes"),
    (Net, {"mean": (0.5,)}, "mean has 1 values, and the input 3 channels"),
    (Normed, {"cam": "cam"}, "no exact class activation map: mean(CAM) + bias differs"),
    (Net, {"head": None, "cam": "cam"}, "its classifier is missing, not one linear layer"),
    (Net, {"logits": lambda output: 3}, "the logits are int"),
    (lambda: Net().bfloat16(), {}, "the network is torch.bfloat16; make it float32"),
    (
        AttentionPooled,
        {"features": "score"},
        "the slopes of the logits add up to 0 in every channel of the features",
    ),
]


@pytest.mark.parametrize(("create", "options", "message"), REFUSED)
def test_refusals_say_which_part(
    create: Callable[[], nn.Module], options: dict[str, Any], message: str
) -> None:
    torch.manual_seed(0)
    module = create()
    with pytest.raises(InputError) as found:
        guided(module, **options)
    assert message in str(found.value)
    assert "\n" not in str(found.value)
    assert not any(part._forward_hooks for part in module.modules())


def test_copies_and_several_models_of_a_module() -> None:
    torch.manual_seed(0)
    module = Net()
    first, second = guided(module).eval(), guided(module, cam="gradcam").eval()
    twin = copy.deepcopy(first)
    images, labels = torch.randn(2, 3, SIDE, SIDE), torch.tensor([0, 1])
    expected = first(images, labels).saliency
    torch.testing.assert_close(second(images, labels).saliency * 49, expected)
    with torch.no_grad():
        for value in module.parameters():
            value.zero_()
    torch.testing.assert_close(twin(images, labels).saliency, expected)


class InPlaceAfter(Normed):
    """A function in place after the last module with a grid, and batch norm before the head."""

    def __init__(self) -> None:
        super().__init__()
        self.batch = nn.BatchNorm1d(8)
        self.last = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 2))

    def forward(self, images: Tensor) -> Any:
        features = self.trunk[1](self.trunk[0](images))
        features = 2 * functional.leaky_relu(features, 0.1, inplace=True)
        return self.last(self.batch(features.mean((2, 3))))


@pytest.mark.parametrize("frozen", [False, True])
def test_a_function_in_place_after_the_features(*, frozen: bool) -> None:
    torch.manual_seed(0)
    module = spread(InPlaceAfter())
    model = guided(module, None, "trunk.1")
    assert model.spec.cam == "gradcam"
    for value in module.trunk.parameters():
        value.requires_grad_(not frozen)
    images, labels = torch.randn(2, 3, SIDE, SIDE), torch.tensor([0, 1])
    with torch.no_grad():
        features = module.eval().trunk[1](module.trunk[0](images))
    features.requires_grad_()
    activated = 2 * functional.leaky_relu(features, 0.1)
    logits = module.last(module.batch(activated.mean((2, 3))))
    (slopes,) = torch.autograd.grad(logits.gather(1, labels[:, None]).sum(), features)
    expected = torch.einsum("bc,bchw->bhw", slopes.mean((2, 3)), features.detach())
    found = model.eval()(images, labels)
    torch.testing.assert_close(found.saliency.detach(), expected)
    torch.testing.assert_close(found.features.detach(), features.detach())
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            torch.testing.assert_close(model(images, labels).saliency, expected)
    model.train()
    module.trunk[1].eval()  # batch statistics would change the features
    found = model(images, labels)  # with the statistics of the batch norm as in evaluation
    torch.testing.assert_close(found.saliency.detach(), expected)
    loss = GuidedLoss(0.5)(found.logits, labels, found.saliency, torch.rand(2, 8, 8)[:, :7, :7])
    loss.backward()
    reached = [value.grad for value in module.last.parameters()]
    assert all(value is not None and bool(value.isfinite().all()) for value in reached)


def test_a_new_vit_is_guided_although_its_head_is_zero() -> None:
    torch.manual_seed(0)
    network = VisionTransformer(32, 8, 2, 2, 32, 64, num_classes=2)
    assert not network.heads.head.weight.any()
    names = "heads.head", "encoder.layers.encoder_layer_0"
    model = guide(network, *names, classes=CLASSES, input_size=32)
    assert model.spec.cam == "gradcam"
    assert not network.heads.head.weight.any()  # as it was


def test_data_parallel_is_refused() -> None:
    """A replica calls the hooks of the original; this is how nn.DataParallel makes one."""
    torch.manual_seed(0)
    model = guided(spread(Net()))
    replica: Any = model._replicate_for_data_parallel()
    with pytest.raises(InputError, match="DataParallel"):
        replica(torch.randn(2, 3, SIDE, SIDE))


def test_a_folder_needs_the_network_again(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = guided(spread(Net()), positive="fake").eval()
    save_model(model, tmp_path / "model")
    images = torch.randn(2, 3, SIDE, SIDE)
    loaded = load_model(tmp_path / "model", Net()).eval()
    torch.testing.assert_close(loaded(images, "every").saliency, model(images, "every").saliency)
    assert loaded.spec == model.spec
    with pytest.raises(InputError, match=r"Net, is not timm's and has no factory; give it"):
        load_model(tmp_path / "model")
    with pytest.raises(InputError, match="the network has no module 'trunk'"):
        load_model(tmp_path / "model", torchvision.models.resnet18(num_classes=2))
    with pytest.raises(InputError, match="cannot be loaded"):
        load_model(tmp_path / "model", Net(3))
