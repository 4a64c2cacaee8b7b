"""Guided models of networks from outside timm: parts that are found, maps, refusals, folders."""

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

from preceptor.errors import InputError
from preceptor.losses.guided import GuidedLoss
from preceptor.models.find_parts import find_parts
from preceptor.models.guide import guide
from preceptor.models.guided_model import GuidedModel
from preceptor.models.model_folder import load_model, save_model
from preceptor.models.probes import check_cam_identity

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


class DropoutNet(Net):
    def forward(self, images: Tensor) -> Any:
        return self.fc(
            functional.dropout(super().features(images).mean((2, 3)), 0.5, self.training)
        )


class Normed(Net):
    """Layer norm after the pooling, as in ConvNeXt: no exact map."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8)

    def forward(self, images: Tensor) -> Any:
        return self.fc(self.norm(self.features(images).mean((2, 3))))


class BatchNormedHead(Net):
    """Batch norm after the pooling: maps are differentiated with its running statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(8)

    def forward(self, images: Tensor) -> Any:
        return self.fc(self.norm(self.features(images).mean((2, 3))))


class ChannelsLast(Net):
    """Features (B, h, w, Ch), as in Swin."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8)

    def forward(self, images: Tensor) -> Any:
        return self.fc(self.norm(self.features(images).permute(0, 2, 3, 1)).mean((1, 2)))


class Tokens(nn.Module):
    """Transformer with a class token, and as many registers as wanted."""

    def __init__(self, registers: int = 0, *, zero_head: bool = False) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 8, stride=8)
        self.first = nn.Parameter(torch.randn(1, 1 + registers, 16))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True) for _ in range(3)
        )
        self.head = nn.Linear(16, 2)
        if zero_head:
            nn.init.zeros_(self.head.weight)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.first.expand(len(images), -1, -1), tokens], 1)
        for block in self.blocks:
            tokens = block(tokens)
        return {"logits": self.head(tokens[:, 0])}


class Flattened(nn.Module):
    """No pooling, and a lazy layer."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Conv2d(3, 4, 5, stride=4)
        self.hidden, self.last = nn.LazyLinear(16), nn.Linear(16, 2)

    def forward(self, images: Tensor) -> Any:
        return self.last(torch.tanh(self.hidden(torch.tanh(self.trunk(images)).flatten(1))))


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


class Gated(Net):
    """Places weighted by a sigmoid, as in CBAM."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Sequential(nn.Conv2d(8, 1, 3, padding=1), nn.Sigmoid())

    def forward(self, images: Tensor) -> Any:
        features = self.features(images)
        return self.fc((features * self.gate(features)).mean((2, 3)))


class OneMap(Net):
    """The map of a single logit, then pooling: one channel, which nothing bypasses."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Conv2d(8, 1, 1)

    def forward(self, images: Tensor) -> Any:
        return self.last(self.features(images)).mean((2, 3))


class FlatPlaces(nn.Module):
    """Places flattened by a module, with a square number of channels: (B, 16, 49) are no tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Conv2d(3, 16, 5, stride=4)
        self.flat, self.norm, self.fc = nn.Flatten(2), nn.LayerNorm(16), nn.Linear(16, 2)

    def forward(self, images: Tensor) -> Any:
        return self.fc(self.norm(self.flat(self.trunk(images)).mean(2)))


def guided(module: nn.Module, **options: Any) -> GuidedModel:
    return guide(module, **{"classes": CLASSES, "input_size": SIDE} | options)


def spread(module: nn.Module) -> nn.Module:
    """The module with statistics and norms away from their initial values."""
    torch.manual_seed(1)
    for part in module.modules():
        if isinstance(part, (nn.BatchNorm2d, nn.BatchNorm1d, nn.LayerNorm)):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.uniform_(part.bias, -0.5, 0.5)
    return module


FOUND: list[tuple[Callable[[], nn.Module], str, str, str, int]] = [
    (Net, "cam", "fc", "trunk", 0),
    (Functional, "cam", "fc", "trunk.1", 0),
    (DropoutNet, "cam", "fc", "trunk", 0),
    (ChangesItsInput, "cam", "fc", "trunk", 0),
    (ChannelsLast, "cam", "fc", "norm", 0),
    (Normed, "gradcam", "fc", "trunk", 0),
    (BatchNormedHead, "gradcam", "fc", "trunk", 0),
    (Flattened, "gradcam", "last", "trunk", 0),
    (AttentionPooled, "gradcam", "fc", "trunk", 0),
    (Gated, "gradcam", "fc", "trunk", 0),
    (FlatPlaces, "gradcam", "fc", "trunk", 0),
    (Tokens, "gradcam", "head", "blocks.1", 1),
    (lambda: Tokens(4), "gradcam", "head", "blocks.1", 5),
    (lambda: Tokens(zero_head=True), "gradcam", "head", "blocks.1", 1),
]


@pytest.mark.parametrize(("create", "cam", "head", "features", "prefix"), FOUND)
def test_parts_are_found_and_their_maps_guide(
    create: Callable[[], nn.Module], cam: str, head: str, features: str, prefix: int
) -> None:
    torch.manual_seed(0)
    module = spread(create())
    before = {
        key: value.clone() for key, value in module.state_dict().items() if not is_lazy(value)
    }
    model = guided(module)
    parts = model.spec.module
    assert parts is not None
    assert (model.spec.cam, parts.head, parts.features, parts.prefix) == (
        cam, head, features, prefix,
    )  # fmt: skip
    after = module.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    images, labels = torch.randn(4, 3, SIDE, SIDE), torch.tensor([0, 1, 1, 0])
    given = images.clone()
    out = model.eval()(images, "every")
    assert torch.equal(images, given)
    # The mean evidence of a class is its logit.
    torch.testing.assert_close(out.evidence.mean((2, 3)), out.logits, rtol=1e-4, atol=1e-5)
    plain = module.eval()(images.clone())
    plain = plain["logits"] if isinstance(plain, dict) else plain
    torch.testing.assert_close(out.logits, plain)
    model.train()
    if isinstance(module, Tokens) and not module.head.weight.any():
        return  # the first step of a head of zeros has no map
    maps = torch.rand(4, *model.grid())
    out = model(images, labels)
    GuidedLoss(alpha=0.0)(out.logits, labels, out.saliency, maps).backward()
    first = module.patches if isinstance(module, Tokens) else module.trunk
    weight = next(first.parameters())
    assert weight.grad is not None
    assert weight.grad.abs().sum() > 0


def is_lazy(value: Tensor) -> bool:
    return isinstance(value, nn.parameter.UninitializedTensorMixin)


def test_grad_cam_is_the_derivative_of_the_logit() -> None:
    torch.manual_seed(0)
    module = spread(Normed()).eval()
    model = guided(module)
    images = torch.randn(2, 3, SIDE, SIDE)
    features = module.features(images).detach().requires_grad_()
    logit = module.fc(module.norm(features.mean((2, 3))))[:, 1].sum()
    (slopes,) = torch.autograd.grad(logit, features)
    expected = torch.einsum("bc,bchw->bhw", slopes.mean((2, 3)), features)
    found = model.eval()(images, torch.tensor([1, 1])).saliency
    torch.testing.assert_close(found, expected.detach(), rtol=1e-4, atol=1e-6)


def test_one_logit_and_functions_that_select() -> None:
    model = guided(Net(1))
    assert model.spec.head == "sigmoid"
    one = guided(OneMap()).spec.module
    assert one is not None
    assert one.features == "last"
    assert model(torch.zeros(2, 3, SIDE, SIDE)).logits.shape == (2, 2)
    model = guided(WithAuxiliary(), logits=lambda output: output[0])
    assert model.spec.cam == "cam"
    model = guided(
        Net(), head=lambda module: module.fc, features=lambda module: module.trunk[0], cam="gradcam"
    )
    assert model.spec.module is not None
    assert (model.spec.module.head, model.spec.module.features) == ("fc", "trunk.0")


def test_logits_from_the_probabilities_of_a_network() -> None:
    images = torch.randn(2, 3, SIDE, SIDE)
    for module, inverse in (
        (nn.Sequential(Net(), nn.Softmax(1)), torch.log),
        (nn.Sequential(Net(1), nn.Sigmoid()), torch.logit),
    ):
        model = guided(module, logits=inverse).eval()
        found = model(images).logits.softmax(1)[:, -1:]
        torch.testing.assert_close(found, module(images)[:, -1:])


def test_the_order_of_features_of_a_network_that_needs_no_gradients() -> None:
    class Frozen(Gated):
        def features(self, images: Tensor) -> Tensor:
            with torch.no_grad():
                return super().features(images)

    images = torch.randn(2, 3, SIDE, SIDE)
    found = find_parts(Frozen(), images).others
    assert [one.features for one in found][:3] == ["gate", "gate.1", "gate.0"]


class Random(Net):
    def forward(self, images: Tensor) -> Any:
        return super().forward(images) + torch.rand(1)


class TwoHeads(Net):
    def forward(self, images: Tensor) -> Any:
        return {"type": super().forward(images), "age": super().forward(images)}


class Pair(Net):
    def forward(self, images: Tensor) -> Any:
        return super().forward(images), super().forward(images)


class Center(Net):
    """Logits that depend on one place of the features only."""

    def forward(self, images: Tensor) -> Any:
        return self.fc(self.features(images)[:, :, 3, 3])


class Images(Net):
    def forward(self, images: Tensor) -> Any:
        return self.features(images)


class Probability(Net):
    """Sigmoid by a function."""

    def forward(self, images: Tensor) -> Any:
        return torch.sigmoid(super().forward(images))


REFUSED: list[tuple[Callable[[], nn.Module], dict[str, Any], str]] = [
    (Random, {}, "is not deterministic"),
    (TwoHeads, {}, "returns a dictionary with type, age; say which"),
    (Pair, {}, "returns a tuple of a tensor (2, 2), a tensor (2, 2); say which"),
    (Images, {}, "the logits have shape (2, 8, 7, 7)"),
    (Center, {}, "the logits do not depend on all places of the features"),
    (lambda: Net().to("meta"), {}, "meta device"),
    (lambda: Net(3), {}, "has 3 logits, and there are 2 classes"),
    (Net, {"head": "classifier"}, "head: the network has no module 'classifier'; it has fc, trunk"),
    (Net, {"features": "fc"}, "features: fc returns (2, 2)"),
    (Net, {"features": lambda module: nn.ReLU()}, "returned no module inside the network"),
    (Net, {"input_size": 6}, "raise input_size"),
    (Net, {"input_size": 3}, "cannot compute images (2, 3, 3, 3)"),
    (Net, {"classes": ("a", "a")}, "two different classes"),
    (Net, {"mean": (0.5,)}, "mean has 1 values, and the input 3 channels"),
    (Normed, {"cam": "cam"}, "no exact class activation map: mean(CAM) + bias differs"),
    (Net, {"logits": lambda output: 3}, "logits: the function returned a int"),
    (
        AttentionPooled,
        {"features": "score"},
        "the slopes of the logits add up to 0 in every channel of the features",
    ),
    (FlatPlaces, {"features": "flat"}, "features: flat returns (2, 16, 49)"),
    (lambda: nn.Sequential(Net(), nn.Softmax(1)), {}, "remove the softmax at the end"),
    (lambda: nn.Sequential(Net(1), nn.Sigmoid()), {}, "remove the sigmoid at the end"),
    (lambda: nn.Sequential(Net(), nn.Sigmoid()), {}, "remove the sigmoid at the end"),
    (lambda: Probability(1), {}, "probabilities: logits=torch.logit"),
]


@pytest.mark.parametrize(("create", "options", "message"), REFUSED)
def test_refusals_say_which_part(
    create: Callable[[], nn.Module], options: dict[str, Any], message: str
) -> None:
    torch.manual_seed(0)
    with pytest.raises(InputError) as found:
        guided(create(), **options)
    assert message in str(found.value)
    assert "\n" not in str(found.value)


def test_a_refused_module_has_no_hooks_left() -> None:
    module = Center()
    with pytest.raises(InputError):
        guided(module)
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
    model = guided(module)
    assert model.spec.module is not None
    assert (model.spec.cam, model.spec.module.features) == ("gradcam", "trunk.1")
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


def test_features_that_nothing_changes_are_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    model = guided(Normed()).eval()
    images = torch.randn(2, 3, SIDE, SIDE)
    model(images, "predicted")
    monkeypatch.setattr(Tensor, "clone", None)
    model(images, "predicted")


def test_densenet_of_torchvision_with_another_classifier() -> None:
    """Its features are activated in place, by a function."""
    torch.manual_seed(0)
    network = torchvision.models.DenseNet(8, (2, 2, 2, 2), 16)
    inputs = network.classifier.in_features
    network.classifier = nn.Sequential(nn.Linear(inputs, 8), nn.ReLU(), nn.Linear(8, 2))
    model = guided(network, input_size=64)
    assert model.spec.cam == "gradcam"
    images, labels = torch.randn(2, 3, 64, 64), torch.tensor([0, 1])
    with torch.no_grad():
        still = model.eval()(images, labels).saliency
    torch.testing.assert_close(model(images, labels).saliency.detach(), still)


def test_features_of_a_module_that_is_replaced() -> None:
    torch.manual_seed(0)
    module = Net()
    model = guided(module, features="trunk.1", cam="gradcam").eval()
    images, labels = torch.randn(2, 3, SIDE, SIDE), torch.tensor([0, 1])
    before = model(images, labels).saliency
    module.trunk[1] = copy.deepcopy(module.trunk[1])
    for key in [*module.trunk[1]._forward_hooks]:
        del module.trunk[1]._forward_hooks[key]
    torch.testing.assert_close(model(images, labels).saliency, before)


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
    with pytest.raises(InputError, match="ResNet has no module 'trunk'"):
        load_model(tmp_path / "model", torchvision.models.resnet18(num_classes=2))
    with pytest.raises(InputError, match="cannot be loaded"):
        load_model(tmp_path / "model", Net(3))


def test_torchvision_networks() -> None:
    torch.manual_seed(0)
    for name, cam, features in (
        ("resnet18", "cam", "layer4"),
        ("densenet121", "cam", "features"),
        ("mobilenet_v3_small", "gradcam", "features"),
    ):
        module = torchvision.models.get_model(name, num_classes=2)
        model = guide(module, classes=CLASSES, input_size=64)
        assert model.spec.module is not None
        assert (model.spec.cam, model.spec.module.features) == (cam, features)
        if cam == "cam":
            assert check_cam_identity(model) <= 1e-4
