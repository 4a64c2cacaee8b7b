"""Backbones: what is built, what is refused and why, which saliency they allow, folders."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from preceptor.errors import InputError
from preceptor.models.build import MODEL_FILES, build_model, load_model, save_model
from preceptor.models.guided_model import GuidedModel
from preceptor.models.probes import check_cam_identity
from preceptor.models.spec import ModelSpec
from preceptor.utils.results import write_checksums
from tests.models.toys import fresh


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
    scaled = images / 255
    with pytest.raises(ValueError, match=r"torch\.float32; give uint8 images, from 0 to 255"):
        model.preprocess(scaled)
    assert torch.equal(scaled, images / 255)


@pytest.mark.parametrize(
    ("backbone", "size", "reason"),
    [
        ("mobilenetv3_small_050", 64, "1024 inputs and the features have 288"),
        ("test_vit", 32, "differs from the logits"),
        ("deit_tiny_distilled_patch16_224", 32, "its classifier is Linear, Linear, not one linear"),
    ],
)
def test_a_backbone_that_breaks_the_cam_gets_grad_cam(
    backbone: str, size: int, reason: str
) -> None:
    refusal = f"^{backbone}: .*no exact class activation map.*{reason}"
    with pytest.raises(InputError, match=refusal):
        build_model(backbone, ["a", "b"], input_size=size, cam="cam")
    model = build_model(backbone, ["a", "b"], input_size=size)
    assert model.spec.cam == "gradcam"
    with pytest.raises(InputError, match=refusal):
        check_cam_identity(model)


@pytest.mark.parametrize(
    ("name", "choices"),
    [
        ("cam", "auto, cam, gradcam"),
        ("cam_source", "head_input, cyborg"),
        ("fit", "squash, letterbox, crop"),
        ("head", "softmax, sigmoid"),
    ],
)
def test_an_unknown_choice_is_refused(name: str, choices: str) -> None:
    wrong: dict[str, Any] = {name: "other"}
    with pytest.raises(InputError, match=f"{name} 'other': write {choices}"):
        build_model("test_resnet", ["a", "b"], input_size=64, **wrong)


@pytest.mark.parametrize(
    ("backbone", "size", "reason"),
    [
        ("pit_ti_224", None, r"the features have shape \(2, 1, 256\), without a spatial grid"),
        ("coat_tiny", 64, "the features are a list of tensors"),
        ("volo_d1_224", 64, "no exact class.*; Grad-CAM: the logits do not depend on all places"),
        ("tnt_s_patch16_224", 64, r"last block: its features are \(32, 24, 4, 4\), of other thing"),
    ],
)
def test_a_backbone_without_a_map_to_train_through_is_refused(
    backbone: str, size: int | None, reason: str
) -> None:
    with pytest.raises(InputError, match=f"^{backbone}: guidance is refused: .*{reason}"):
        build_model(backbone, ["a", "b"], input_size=size)


def test_wrong_words_are_named() -> None:
    with pytest.raises(InputError, match=r"'resnet5O' is not known to timm.*resnet50"):
        build_model("resnet5O", ["a", "b"])
    with pytest.raises(InputError, match=r"cannot be built with backbone_args.*'bogus': 1"):
        fresh(backbone_args={"bogus": 1})
    with pytest.raises(InputError, match=r"densenet121 cannot be built.*output_stride"):
        fresh("densenet121", backbone_args={"output_stride": 8})
    with pytest.raises(InputError, match="name at least two different classes"):
        build_model("test_resnet", ["a"])
    with pytest.raises(InputError, match="name at least two different classes"):
        build_model("test_resnet", ["a", "a"])
    with pytest.raises(InputError, match="positive 'c' is not one of"):
        build_model("test_resnet", ["a", "b"], positive="c")
    with pytest.raises(InputError, match="in_chans is 4"):
        fresh(in_chans=4)
    with pytest.raises(InputError, match="densenet121 at input size 8"):
        fresh("densenet121", input_size=8)
    with pytest.raises(InputError, match="sigmoid needs two classes, and there are 3"):
        build_model("test_resnet", ["a", "b", "c"], head="sigmoid")
    with pytest.raises(InputError, match="cyborg needs cam: cam, and cam is gradcam"):
        fresh(cam="gradcam", cam_source="cyborg")
    with pytest.raises(InputError, match=r"^test_efficientnet: cam_source: cyborg.*head_input"):
        fresh("test_efficientnet", cam_source="cyborg")


@pytest.mark.parametrize(
    ("backbone", "size", "grid", "sized"),
    [("test_resnet", 96, 3, False), ("test_vit", 32, 2, True), ("test_maxvit", 96, 3, True)],
)
def test_networks_made_for_one_size_are_made_for_the_size_asked_for(
    backbone: str, size: int, grid: int, sized: bool
) -> None:
    if not timm.is_model(backbone):
        pytest.skip(f"timm {timm.__version__} has no {backbone}")
    model = build_model(backbone, ["a", "b"], input_size=size)
    assert model.spec.backbone_args == ({"img_size": size} if sized else {})
    assert model.grid() == (grid, grid)
    assert build_model(backbone, ["a", "b"]).spec.backbone_args == {}


# Model folders.


KINDS: list[tuple[str, dict[str, Any]]] = [
    ("test_byobnet", {"in_chans": 1, "backbone_args": {"output_stride": 8}}),
    ("test_resnet", {"cam_source": "cyborg", "head": "sigmoid"}),
    ("test_vit", {"head": "sigmoid"}),
    ("deit_tiny_distilled_patch16_224", {}),
]


@pytest.mark.parametrize(("backbone", "options"), KINDS, ids=str)
def test_a_saved_model_is_the_same_model(
    tmp_path: Path, backbone: str, options: dict[str, Any]
) -> None:
    model = fresh(backbone, fit="letterbox", **options)
    in_chans = model.spec.in_chans
    images = torch.randint(0, 256, (4, in_chans, 64, 64), dtype=torch.uint8)
    model.train()(model.preprocess(images))  # batch statistics move
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    save_model(model, tmp_path / "m", {"eer": 0.4})
    again = load_model(tmp_path / "m")
    assert again.spec.thresholds == {"eer": 0.4}
    assert replace(again.spec, thresholds={}) == model.spec
    for name in ("head", "cam_source"):
        assert getattr(again.spec, name) == options.get(name, getattr(fresh().spec, name))
    with torch.inference_mode():
        model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        one, two = (m.eval()(m.preprocess(images), "every") for m in (model, again))
    assert one.saliency.shape == (4, 2, *model.grid())
    for part, other in zip(one, two, strict=True):
        assert torch.equal(part, other)
    assert sorted(file.name for file in (tmp_path / "m").iterdir()) == [
        "checksums.json",
        "model.json",
        "model.safetensors",
    ]
    save_model(again, tmp_path / "n")
    assert load_model(tmp_path / "n").spec == again.spec


def test_damaged_model_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no model\.json"):
        load_model(tmp_path)
    save_model(fresh(), tmp_path)
    weights, description = tmp_path / "model.safetensors", tmp_path / "model.json"
    whole, text = weights.read_bytes(), description.read_text()
    values = json.loads(text)

    damages: list[str] = ["", "{", "[]", "null", text[: len(text) // 2]]
    changes: list[dict[str, Any]] = [
        {"backbone": "no_such_net"},
        {"backbone": "test_efficientnet"},
        {"backbone": 3},
        {"classes": ["a", "b", "c"]},
        {"mean": [0.5]},
        {"in_chans": 1},
        {"backbone_args": {"bogus": 1}},
        {"unknown": 1},
        {"head": "sigmoid"},
        {"tap": "last_block"},
        {"backbone": "test_efficientnet", "cam_source": "cyborg"},
    ]
    damages += [json.dumps(values | change) for change in changes]
    damages += [json.dumps({k: v for k, v in values.items() if k != "classes"})]
    for damage in damages:
        description.write_text(damage)
        write_checksums(tmp_path, MODEL_FILES)
        with pytest.raises(InputError) as caught:
            load_model(tmp_path)
        assert "pydantic" not in str(caught.value)
        assert "ModelSpec" not in str(caught.value)
    description.write_bytes(b"\xff\xfe\x00")
    write_checksums(tmp_path, MODEL_FILES)
    with pytest.raises(InputError, match="it is no JSON, or damaged"):
        load_model(tmp_path)

    description.write_text(text)
    for content in (b"", whole[:-10], whole[: len(whole) // 2]):
        weights.write_bytes(content)
        write_checksums(tmp_path, MODEL_FILES)
        with pytest.raises(InputError, match="cannot be loaded"):
            load_model(tmp_path)


@pytest.mark.parametrize("name", MODEL_FILES)
@pytest.mark.parametrize("damage", ["one byte", "cut short", "missing"])
def test_a_changed_model_folder_is_refused(tmp_path: Path, name: str, damage: str) -> None:
    save_model(fresh(), tmp_path)
    file = tmp_path / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content if damage == "one byte" else content[:-1])
    if damage == "missing":
        file.unlink()
    expected = "no model.json" if not file.exists() and name == "model.json" else f"{name} does not"
    with pytest.raises(InputError, match=expected) as caught:
        load_model(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [None, "", "{}", "[]", '{"model.json": "0"}', "\ud800"])
def test_a_model_folder_without_checksums_is_refused(tmp_path: Path, content: str | None) -> None:
    save_model(fresh(), tmp_path)
    file = tmp_path / "checksums.json"
    file.unlink()
    if content is not None:
        file.write_bytes(content.encode(errors="surrogatepass"))
    with pytest.raises(InputError, match=r"checksums.json.*copy the (whole )?folder again"):
        load_model(tmp_path)


def test_a_model_folder_that_claims_an_exact_map_and_has_none_is_refused(tmp_path: Path) -> None:
    model = fresh("mobilenetv3_small_050")
    save_model(model, tmp_path)
    file = tmp_path / "model.json"
    values = json.loads(file.read_text())
    file.write_text(json.dumps(values | {"cam": "cam"}))
    write_checksums(tmp_path, MODEL_FILES)
    with pytest.raises(InputError, match=r"mobilenetv3_small_050: no exact class activation map"):
        load_model(tmp_path)
    file.write_text(json.dumps(values))
    write_checksums(tmp_path, MODEL_FILES)
    assert load_model(tmp_path).spec == model.spec


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


def odd(classifier: nn.Module, power: float = 1.0) -> GuidedModel:
    spec = ModelSpec("odd", ("a", "b"), None, 3, 8, (0.5,) * 3, (0.5,) * 3)
    return GuidedModel(Odd(classifier, power), spec)


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


# Layers that are the identity until the network is trained.


class Between(Odd):
    """A backbone by hand with a layer between pooling and classifier."""

    def __init__(self, between: nn.Module) -> None:
        super().__init__(nn.Linear(6, 2))
        self.between = between

    def forward_head(self, features: Tensor) -> Tensor:
        out: Tensor = self.classifier(self.between(features.mean((2, 3))))
        return out


def test_a_layer_that_is_the_identity_at_the_start_is_found() -> None:
    spec = ModelSpec("odd", ("a", "b"), None, 3, 8, (0.5,) * 3, (0.5,) * 3)
    model = GuidedModel(Between(nn.BatchNorm1d(6, eps=0.0)), spec)
    assert check_cam_identity(model, trained=True) < 1e-6  # as it stands it changes nothing
    with pytest.raises(InputError, match="differs from the logits"):
        check_cam_identity(model)
