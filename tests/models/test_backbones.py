"""timm networks, layouts of their features, and weights: what is never unpickled."""

from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from preceptor.errors import InputError
from preceptor.models import networks
from preceptor.models.build import MODEL_FILES, build_model, load_model, save_model
from preceptor.models.guided_model import GuidedModel
from preceptor.models.probes import check_cam_identity
from preceptor.utils.results import write_checksums
from tests.models.toys import fresh


def timm_weights(path: Path, backbone: str = "test_resnet") -> dict[str, Tensor]:
    network = timm.create_model(backbone)
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, path)
    return dict(network.state_dict())


@pytest.mark.parametrize("in_chans", [1, 3])
def test_a_weights_file_fills_everything_but_the_head(tmp_path: Path, in_chans: int) -> None:
    file = tmp_path / "w.safetensors"
    state = timm_weights(file)
    model = fresh(weights=str(file), in_chans=in_chans)
    loaded = model.backbone.state_dict()
    differing = {
        key
        for key in state
        if state[key].shape != loaded[key].shape or not torch.equal(state[key], loaded[key])
    }
    first = {"conv1.0.weight", "conv1.weight"} if in_chans == 1 else set()
    assert {"fc.weight", "fc.bias"} <= differing
    assert differing - first == {"fc.weight", "fc.bias"}
    assert model.head.weight.shape[0] == 2


def test_the_head_of_a_weights_file_is_kept_where_it_fits(tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    first = fresh()
    save_file(first.backbone.state_dict(), file)
    again = fresh(weights=str(file))
    assert torch.equal(again.head.weight, first.head.weight)
    assert torch.equal(again.head.bias, first.head.bias)
    for options in ({"new_head": True}, {"head": "sigmoid"}):
        other = fresh(weights=str(file), **options)
        assert not torch.equal(other.head.weight, first.head.weight[: len(other.head.weight)])
        trunks = [next(model.backbone.parameters()) for model in (other, first)]
        assert torch.equal(*trunks)


def test_weights_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.safetensors is not a file"):
        fresh(weights=str(tmp_path / "nowhere.safetensors"))
    other = tmp_path / "other.safetensors"
    timm_weights(other, "test_efficientnet")
    with pytest.raises(InputError, match=r"cannot be built with weights .*other\.safetensors"):
        fresh(weights=str(other))
    part = tmp_path / "part.safetensors"
    state = load_file(other)
    state.pop(sorted(state)[0])
    save_file(state, part)
    with pytest.raises(InputError, match="does not fit test_efficientnet: 1 of timm's"):
        fresh("test_efficientnet", weights=str(part))
    renamed = {f"module.{key}": value for key, value in load_file(other).items()}
    save_file(renamed, part)
    with pytest.raises(InputError, match=r"\d\d+ of timm's tensor names are missing, the first"):
        fresh("test_efficientnet", weights=str(part))
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(other.read_bytes()[:1000])
    with pytest.raises(InputError, match="test_efficientnet cannot be built with weights"):
        fresh("test_efficientnet", weights=str(broken))


@pytest.mark.parametrize("key", ["checkpoint_path", "pretrained_cfg"])
def test_what_is_loaded_is_named_by_weights_alone(tmp_path: Path, key: str) -> None:
    """Neither a config nor somebody else's model.json opens another way to a file."""
    value: Any = {"file": "w.pth"} if key.startswith("pretrained") else str(tmp_path / "w.pth")
    torch.save(timm.create_model("test_resnet", num_classes=2).state_dict(), tmp_path / "w.pth")
    with pytest.raises(InputError, match=rf"backbone_args: {key} is not allowed.*\.safetensors"):
        fresh(backbone_args={key: value})
    save_model(fresh(), tmp_path / "model")
    file = tmp_path / "model" / "model.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"backbone_args": {key: value}}))
    write_checksums(tmp_path / "model", MODEL_FILES)
    with pytest.raises(InputError, match=rf"model: backbone_args: {key} is not allowed"):
        load_model(tmp_path / "model")


class Bomb:
    """Unpickling it leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_nothing_is_unpickled(tmp_path: Path, name: str) -> None:
    mark = tmp_path / "exploded"
    (tmp_path / name).write_bytes(pickle.dumps(Bomb(mark)))
    with pytest.raises(InputError, match="weights:"):
        fresh(weights=str(tmp_path / name))
    torch.save(Bomb(mark), tmp_path / name)
    with pytest.raises(InputError, match="weights:"):
        fresh(weights=str(tmp_path / name))
    save_model(fresh(), tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").write_bytes((tmp_path / name).read_bytes())
    write_checksums(tmp_path / "model", MODEL_FILES)
    with pytest.raises(InputError, match="cannot be loaded"):
        load_model(tmp_path / "model")
    assert not mark.exists()


def test_a_hub_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def refuse(*arguments: Any, **_: Any) -> None:
        asked.append(arguments)
        raise OSError("no route to host")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    with pytest.raises(InputError, match=r"test_resnet.*no route to host.*\.safetensors file"):
        fresh(weights="hub")
    assert [file for _, file in asked] == ["model.safetensors"]


def test_hub_weights_are_a_safetensors_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = timm_weights(tmp_path / "model.safetensors")
    monkeypatch.setattr(
        huggingface_hub, "hf_hub_download", lambda *_: str(tmp_path / "model.safetensors")
    )
    loaded = fresh(weights="hub").backbone.state_dict()
    assert sum(not torch.equal(state[key], loaded[key]) for key in state if "fc" not in key) == 0
    monkeypatch.setattr(networks.timm, "get_pretrained_cfg", lambda _: None)
    with pytest.raises(InputError, match="no hub weights for test_resnet"):
        fresh(weights="hub")


# Convolutions that torch computes outside its memory.

STEPS = """
import sys
import torch
from preceptor.models import build_model
model = build_model(sys.argv[1], ["a", "b"], input_size=64)
model = model.to(memory_format=torch.channels_last).train()
images = torch.randn(16, 3, 64, 64).contiguous(memory_format=torch.channels_last)
for _ in range(3):
    model(images).logits.sum().backward()
    litter = [torch.randn(7 * number + 3) for number in range(200)]
print(sys.argv[1], "is alive")
"""


def test_strided_point_convolutions_leave_the_memory_whole() -> None:
    """In a process of its own: what goes wrong there is no exception."""
    run = subprocess.run(
        [sys.executable, "-c", STEPS, "repvgg_a0"],
        env=os.environ | {"MALLOC_CHECK_": "3", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert run.stdout == "repvgg_a0 is alive\n", run.stderr[-500:]


# Layouts.


def test_tokens_of_an_image_that_is_not_square_are_refused() -> None:
    """2 × 8 tokens are as many as 4 × 4; 4 × 6 with a class token are 25, a square too."""
    model = build_model(
        "test_vit", ["a", "b"], input_size=64, backbone_args={"dynamic_img_size": True}
    )
    for height, width in ((32, 128), (64, 96)):
        with pytest.raises(InputError, match=f"{height} × {width} pixels: the grid of tokens"):
            model(torch.randn(1, 3, height, width), torch.tensor([0]))


# What the authors' released code takes.


def published(backbone: str, size: int, **options: Any) -> tuple[GuidedModel, Tensor]:
    torch.manual_seed(0)
    model = build_model(
        backbone, ["a", "b"], input_size=size, cam_source="cyborg", **options
    ).eval()
    for part in model.modules():  # statistics that batch norm does not start with
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.running_mean, std=0.1)
            nn.init.uniform_(part.running_var, 0.5, 2)
            nn.init.normal_(part.weight, 1.0, 0.2)
            nn.init.normal_(part.bias, std=0.2)
    return model, torch.randn(2, 3, size, size)


def normed(network: nn.Module, name: str, values: Tensor) -> Tensor:
    """Batch norm of evaluation by its formula."""
    part = network.get_submodule(name)
    shape = (1, -1, 1, 1)
    mean, variance = part.running_mean.view(shape), part.running_var.view(shape)  # type: ignore[operator, union-attr]
    scale, shift = part.weight.view(shape), part.bias.view(shape)  # type: ignore[operator, union-attr]
    return (values - mean) / (variance + part.eps).sqrt() * scale + shift  # type: ignore[operator]


def resnet50_tap(network: Any, images: Tensor) -> tuple[Tensor, Tensor]:
    x = network.maxpool(network.act1(network.bn1(network.conv1(images))))
    x = network.layer4[:-1](network.layer3(network.layer2(network.layer1(x))))
    state, pre = network.state_dict(), "layer4.2."
    shortcut = x
    x = functional.conv2d(x, state[f"{pre}conv1.weight"])
    x = normed(network, f"{pre}bn1", x).relu()
    x = functional.conv2d(x, state[f"{pre}conv2.weight"], padding=1)
    x = normed(network, f"{pre}bn2", x).relu()
    tap = functional.conv2d(x, state[f"{pre}conv3.weight"])
    return tap, (normed(network, f"{pre}bn3", tap) + shortcut).relu()


def test_resnet_tap() -> None:
    model, images = published("resnet50", 64)
    check_tap(model, images, *resnet50_tap(model.backbone, images))


def densenet_tap(network: Any, images: Tensor) -> tuple[Tensor, Tensor]:
    x = images
    for name, part in network.features.named_children():
        if name == "norm5":
            break
        x = part(x)
    tap = normed(network, "features.norm5", x)
    return tap, tap.relu()


def test_densenet_tap() -> None:
    model, images = published("densenet121", 64)
    tap, head_input = densenet_tap(model.backbone, images)
    assert (tap < 0).any()  # what a ReLU in place would have overwritten
    check_tap(model, images, tap, head_input)


def check_tap(model: GuidedModel, images: Tensor, tap: Tensor, head_input: Tensor) -> None:
    """The features are the tap, the logits those of the head's own input, the map the tap's CAM."""
    head = model.head
    with torch.no_grad():
        for of in (torch.tensor([0, 1]), "predicted", "every"):
            out = model(images, of)
            torch.testing.assert_close(out.features, tap, rtol=1e-4, atol=1e-4)
            logits = head(head_input.mean((2, 3)))
            torch.testing.assert_close(out.logits, logits, rtol=1e-4, atol=1e-4)
        out = model(images, torch.tensor([1, 0]))
        for image, wanted in enumerate((1, 0)):
            slow = sum(head.weight[wanted, c] * out.features[image, c] for c in range(len(tap[0])))
            torch.testing.assert_close(out.saliency[image], slow, rtol=1e-4, atol=1e-4)
    # It is not the map that adds up to the logits, which is what cam_source: head_input gives.
    with pytest.raises(InputError, match="differs from the logits"):
        check_cam_identity(model)


def test_the_gradient_of_the_map_stops_at_the_tap() -> None:
    """What lies between tap and head learns from the labels alone."""
    model, images = published("test_resnet", 64)
    model.train()
    model(images, torch.tensor([0, 1])).saliency.square().sum().backward()
    block = list(model.backbone.get_submodule("layer4").children())[-1]
    after = "bn3" if hasattr(block, "bn3") else "bn2"
    assert all(p.grad is None for p in block.get_submodule(after).parameters())
    assert model.head.weight.grad is not None
    first = next(model.backbone.parameters())
    assert first.grad is not None
    assert first.grad.any()


@pytest.mark.parametrize(
    ("backbone", "options"), [("test_resnet", {"cam_source": "cyborg"}), ("test_vit", {})]
)
def test_a_copied_model_has_taps_of_its_own(backbone: str, options: dict[str, Any]) -> None:
    model = build_model(backbone, ["a", "b"], input_size=64, **options).eval()
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(1.5)
    rebuilt = GuidedModel(copy.deepcopy(twin.backbone), twin.spec).eval()
    images, of = torch.randn(2, 3, 64, 64), torch.tensor([0, 1])
    with torch.inference_mode():
        out, other = twin(images, of), rebuilt(images, of)
        assert torch.equal(out.saliency, other.saliency)
        assert not torch.equal(out.saliency, model(images, of).saliency)
