"""Backbones: what is built, what is refused and why, what comes back from disk."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from preceptor import models
from preceptor.errors import InputError
from preceptor.models import (
    GuidableModel,
    ModelSpec,
    build_model,
    check_cam_identity,
    load_model,
    save_model,
)


def small(backbone: str = "test_resnet", **options: Any) -> GuidableModel:
    options = {"positive": "fake", "input_size": 64} | options
    return build_model(backbone, ["real", "fake"], **options)


def test_one_forward_gives_logits_and_features() -> None:
    model = small("test_byobnet", backbone_args={"output_stride": 8}).eval()
    images = torch.randn(2, 3, 64, 64)
    logits, features = model(images)
    assert logits.shape == (2, 2)
    assert features.shape == (2, model.head.in_features, 8, 8)
    torch.testing.assert_close(logits, model.backbone(images))
    assert model.grid() == (8, 8)
    assert not model.training
    assert model.train().grid() == (8, 8)
    assert model.training


def test_input_size_mean_and_spread_are_timms() -> None:
    model = build_model("test_efficientnet", ["a", "b", "c"])
    config = timm.get_pretrained_cfg("test_efficientnet")
    assert config is not None
    assert model.spec.input_size == config.input_size[-1]
    assert model.spec.mean == tuple(config.mean)
    assert model.spec.std == tuple(config.std)
    images = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    kept = images.clone()
    out = model.preprocess(images)
    for c in range(3):
        slow = (images[:, c].float() / 255 - config.mean[c]) / config.std[c]
        torch.testing.assert_close(out[:, c], slow)
    assert torch.equal(images, kept)


@pytest.mark.parametrize(
    ("backbone", "size", "reason"),
    [
        ("test_convnext", 64, "differs from the logits"),
        ("convnext_atto", 64, "differs from the logits"),
        ("mobilenetv3_small_050", 64, "1024 values and the features have 288"),
        ("test_vit", None, r"its features are \(2, 101, 64\)"),
        ("test_mambaout", 64, "something lies between"),
    ],
)
def test_a_backbone_that_breaks_the_cam_is_refused(
    backbone: str, size: int | None, reason: str
) -> None:
    with pytest.raises(InputError, match=f"{backbone}: no exact class activation map.*{reason}"):
        build_model(backbone, ["a", "b"], input_size=size)


class Odd(nn.Module):
    """A backbone by hand, with chosen pooling and classifier."""

    def __init__(self, classifier: nn.Module, power: float = 1.0) -> None:
        super().__init__()
        self.classifier, self.power = classifier, power

    def forward_features(self, images: Tensor) -> Tensor:
        return images.abs().repeat(1, 2, 1, 1)

    def forward_head(self, features: Tensor) -> Tensor:
        pooled: Tensor = features.pow(self.power).mean((2, 3)).pow(1 / self.power)
        out: Tensor = self.classifier(pooled)
        return out

    def get_classifier(self) -> nn.Module:
        return self.classifier


def odd(classifier: nn.Module, power: float = 1.0) -> GuidableModel:
    spec = ModelSpec("odd", ("a", "b"), None, 3, 8, (0.5,) * 3, (0.5,) * 3)
    return GuidableModel(Odd(classifier, power), spec)


def test_the_check_is_of_pooling_and_head() -> None:
    assert check_cam_identity(odd(nn.Linear(6, 2))) < 1e-6
    with pytest.raises(InputError, match="differs from the logits"):
        check_cam_identity(odd(nn.Linear(6, 2), power=3.0))
    with pytest.raises(InputError, match="its classifier is Sequential, not one linear layer"):
        check_cam_identity(odd(nn.Sequential(nn.Linear(6, 2))))
    zero = nn.Linear(6, 2)
    nn.init.zeros_(zero.weight)
    nn.init.zeros_(zero.bias)
    with pytest.raises(InputError, match="differs from the logits"):  # a zero head hides nothing
        check_cam_identity(odd(zero, power=3.0))
    assert not zero.weight.any()


def test_the_check_leaves_the_model_as_it_was() -> None:
    model = small().train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    check_cam_identity(model)
    assert model.training
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])
    assert all(parameter.requires_grad for parameter in model.parameters())
    model(torch.randn(2, 3, 64, 64)).logits.sum().backward()


def test_wrong_words_are_named() -> None:
    with pytest.raises(InputError, match=r"'resnet5O' is not known to timm.*resnet50"):
        build_model("resnet5O", ["a", "b"])
    with pytest.raises(InputError, match=r"backbone_args.*'bogus': 1.*test_resnet does not take"):
        small(backbone_args={"bogus": 1})
    with pytest.raises(InputError, match=r"output_stride.*densenet121 does not take"):
        small("densenet121", backbone_args={"output_stride": 8})
    with pytest.raises(InputError, match="at least two different names"):
        build_model("test_resnet", ["a"])
    with pytest.raises(InputError, match="at least two different names"):
        build_model("test_resnet", ["a", "a"])
    with pytest.raises(InputError, match="positive 'c' is not one of"):
        build_model("test_resnet", ["a", "b"], positive="c")
    with pytest.raises(InputError, match="in_chans is 4"):
        small(in_chans=4)
    with pytest.raises(InputError, match="densenet121 at input size 8"):
        small("densenet121", input_size=8)


def test_one_channel() -> None:
    model = small(in_chans=1).eval()
    assert model.spec.mean == pytest.approx((sum((0.485, 0.456, 0.406)) / 3,), abs=0.1)
    images = torch.randint(0, 256, (2, 1, 64, 64), dtype=torch.uint8)
    assert model(model.preprocess(images)).logits.shape == (2, 2)


# Weights.


def timm_weights(path: Path, backbone: str = "test_resnet") -> dict[str, Tensor]:
    network = timm.create_model(backbone)
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, path)
    return dict(network.state_dict())


@pytest.mark.parametrize("in_chans", [1, 3])
def test_a_weights_file_fills_everything_but_the_head(tmp_path: Path, in_chans: int) -> None:
    file = tmp_path / "w.safetensors"
    state = timm_weights(file)
    model = small(weights=str(file), in_chans=in_chans)
    loaded = model.backbone.state_dict()
    differing = {
        key for key in state if state[key].shape != loaded[key].shape
        or not torch.equal(state[key], loaded[key])
    }  # fmt: skip
    first = {"conv1.0.weight", "conv1.weight"} if in_chans == 1 else set()
    assert {"fc.weight", "fc.bias"} <= differing
    assert differing - first == {"fc.weight", "fc.bias"}
    assert model.head.weight.shape[0] == 2


def test_weights_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.safetensors is not a file"):
        small(weights=str(tmp_path / "nowhere.safetensors"))
    other = tmp_path / "other.safetensors"
    timm_weights(other, "test_efficientnet")
    with pytest.raises(InputError, match=r"other\.safetensors does not fit test_resnet"):
        small(weights=str(other))
    part = tmp_path / "part.safetensors"
    state = load_file(other)
    state.pop(sorted(state)[0])
    save_file(state, part)
    with pytest.raises(InputError, match="does not fit test_efficientnet: it lacks 1 tensor"):
        small("test_efficientnet", weights=str(part))
    renamed = {f"module.{key}": value for key, value in load_file(other).items()}
    save_file(renamed, part)
    with pytest.raises(InputError, match=r"it lacks \d\d+ tensors under timm's names, the first"):
        small("test_efficientnet", weights=str(part))
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(other.read_bytes()[:1000])
    with pytest.raises(InputError, match="does not fit test_efficientnet"):
        small("test_efficientnet", weights=str(broken))


class Bomb:
    """Unpickling it leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("name", ["w.pth", "w.bin", "w.pt", "w.safetensors", "w"])
def test_nothing_is_unpickled(tmp_path: Path, name: str) -> None:
    mark = tmp_path / "exploded"
    (tmp_path / name).write_bytes(pickle.dumps(Bomb(mark)))
    with pytest.raises(InputError, match="weights:"):
        small(weights=str(tmp_path / name))
    torch.save(Bomb(mark), tmp_path / name)
    with pytest.raises(InputError, match="weights:"):
        small(weights=str(tmp_path / name))
    save_model(small(), tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").write_bytes((tmp_path / name).read_bytes())
    with pytest.raises(InputError, match="cannot be loaded"):
        load_model(tmp_path / "model")
    assert not mark.exists()


def test_a_hub_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def refuse(*arguments: Any, **_: Any) -> None:
        asked.append(arguments)
        raise OSError("no route to host")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    with pytest.raises(InputError, match=r"test_resnet.*no route to host.*FILE\.safetensors"):
        small(weights="hub")
    assert [file for _, file in asked] == ["model.safetensors"]


def test_hub_weights_are_a_safetensors_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = timm_weights(tmp_path / "model.safetensors")
    monkeypatch.setattr(
        huggingface_hub, "hf_hub_download", lambda *_: str(tmp_path / "model.safetensors")
    )
    loaded = small(weights="hub").backbone.state_dict()
    assert sum(not torch.equal(state[key], loaded[key]) for key in state if "fc" not in key) == 0
    monkeypatch.setattr(models.timm, "get_pretrained_cfg", lambda _: None)
    with pytest.raises(InputError, match="no hub weights for test_resnet"):
        small(weights="hub")


@pytest.mark.parametrize("backbone", ["tf_efficientnet_lite0", "mobilenetv2_100"])
def test_the_shared_imagenet_weights_load(imagenet_weights: Path, backbone: str) -> None:
    file = imagenet_weights / f"{backbone}.safetensors"
    model = small(backbone, weights=str(file))
    state = load_file(file)
    loaded = model.backbone.state_dict()
    missing = {key for key in loaded if key not in state}
    assert all(key.endswith("num_batches_tracked") for key in missing)
    for key, value in state.items():
        if not key.startswith("classifier."):
            assert torch.equal(loaded[key].to(value.dtype), value)


# Model folders.


@pytest.mark.parametrize("in_chans", [1, 3])
def test_a_saved_model_is_the_same_model(tmp_path: Path, in_chans: int) -> None:
    model = small(
        "test_byobnet", in_chans=in_chans, fit="letterbox", backbone_args={"output_stride": 8}
    )
    images = torch.randint(0, 256, (4, in_chans, 64, 64), dtype=torch.uint8)
    model.train()(model.preprocess(images))  # batch statistics move
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    save_model(model, tmp_path / "m", {"eer": 0.4})
    again = load_model(tmp_path / "m")
    assert again.spec.thresholds == {"eer": 0.4}
    for name in ("backbone", "classes", "positive", "mean", "std", "fit", "backbone_args", "cam"):
        assert getattr(again.spec, name) == getattr(model.spec, name)
    with torch.inference_mode():
        model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        one, two = (m.eval()(m.preprocess(images)) for m in (model, again))
    assert torch.equal(one.logits, two.logits)
    assert torch.equal(one.features, two.features)
    assert sorted(file.name for file in (tmp_path / "m").iterdir()) == [
        "model.json", "model.safetensors"
    ]  # fmt: skip
    save_model(again, tmp_path / "n")
    assert load_model(tmp_path / "n").spec == again.spec


def test_damaged_model_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no model\.json"):
        load_model(tmp_path)
    save_model(small(), tmp_path)
    weights, description = tmp_path / "model.safetensors", tmp_path / "model.json"
    whole, text = weights.read_bytes(), description.read_text()
    values = json.loads(text)

    damages: list[str] = ["", "{", "[]", "null", text[: len(text) // 2]]
    changes: list[dict[str, Any]] = [
        {"backbone": "no_such_net"},
        {"backbone": "test_efficientnet"},
        {"backbone": 3},
        {"classes": ["a", "b", "c"]},
        {"classes": None},
        {"mean": [0.5]},
        {"std": ["x", "y", "z"]},
        {"in_chans": 1},
        {"backbone_args": {"bogus": 1}},
        {"backbone_args": "x"},
        {"unknown": 1},
    ]
    damages += [json.dumps(values | change) for change in changes]
    damages += [json.dumps({k: v for k, v in values.items() if k != "classes"})]
    for damage in damages:
        description.write_text(damage)
        with pytest.raises(InputError):
            load_model(tmp_path)
    description.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be loaded"):
        load_model(tmp_path)

    description.write_text(text)
    for content in (b"", whole[:-10], whole[: len(whole) // 2]):
        weights.write_bytes(content)
        with pytest.raises(InputError, match="cannot be loaded"):
            load_model(tmp_path)
    weights.unlink()
    with pytest.raises(InputError, match="cannot be loaded"):
        load_model(tmp_path)
