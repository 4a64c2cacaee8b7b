"""Feature pyramid decoders: grids, exact CAMs, model folders, weights and refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from preceptor.errors import InputError
from preceptor.models.build import build_model
from preceptor.models.model_folder import load_model, save_model
from preceptor.models.networks import create_network
from preceptor.models.probes import check_cam_identity


@pytest.mark.parametrize("stride", [4, 8, 16])
@pytest.mark.parametrize("backbone", ["test_resnet", "resnet18", "mobilenetv3_small_050"])
def test_the_grid_has_the_stride_and_an_exact_cam(backbone: str, stride: int) -> None:
    arguments = {"decoder": "fpn", "decoder_stride": stride}
    model = build_model(backbone, ["a", "b"], input_size=64, backbone_args=arguments)
    assert model.grid() == (64 // stride, 64 // stride)
    assert model.spec.cam == "cam"
    assert check_cam_identity(model) < 1e-5


def test_gradients_reach_the_first_layer_from_the_map() -> None:
    arguments = {"decoder": "fpn", "decoder_stride": 4, "decoder_channels": 16}
    model = build_model("mobilenetv3_small_050", ["a", "b"], input_size=64, backbone_args=arguments)
    out = model(torch.randn(2, 3, 64, 64), torch.tensor([0, 1]), decision=True)
    out.evidence.square().sum().backward()
    for name, value in model.backbone.named_parameters():
        if "encoder" in name or "lateral" in name or "smooth" in name:
            assert value.grad is not None, name
            assert value.grad.any() or "se." in name, name  # a dead ReLU of a small gate


def test_a_model_folder_keeps_the_decoder(tmp_path: Path) -> None:
    model = build_model(
        "test_resnet", ["a", "b"], input_size=64, backbone_args={"decoder": "fpn"}
    ).eval()
    save_model(model, tmp_path)
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(load_model(tmp_path).eval()(images).logits, model(images).logits)


def test_weights_of_the_backbone_fill_the_encoder(tmp_path: Path) -> None:
    plain = create_network("test_resnet", 2, 3, {}, "none")
    save_file(plain.state_dict(), tmp_path / "weights.safetensors")
    model = build_model(
        "test_resnet",
        ["a", "b"],
        input_size=64,
        backbone_args={"decoder": "fpn"},
        weights=str(tmp_path / "weights.safetensors"),
    )
    encoder = model.backbone.get_submodule("encoder").state_dict()
    assert torch.equal(
        encoder["layer1.0.conv1.weight"], plain.state_dict()["layer1.0.conv1.weight"]
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"decoder": "unet"}, "write fpn, or remove it"),
        ({"decoder_stride": 8}, "need decoder: fpn"),
        ({"decoder": "fpn", "decoder_stride": 5}, "write 4, 8 or 16"),
        ({"decoder": "fpn", "decoder_channels": 7}, "a multiple of 8"),
    ],
)
def test_wrong_settings(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_model("test_resnet", ["a", "b"], input_size=64, backbone_args=arguments)


def test_a_backbone_without_intermediate_features_is_refused() -> None:
    with pytest.raises(InputError):
        build_model("legacy_xception_none", ["a", "b"], backbone_args={"decoder": "fpn"})
