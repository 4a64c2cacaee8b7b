"""Guided models of networks from outside timm: kind of map, identity and time of a step.

Small networks of torchvision, transformers, segmentation-models-pytorch and MONAI, and modules
written here. Each is made a guided model by `guide`, trained for a few steps with the guided loss,
and compared with its class activation map: the gap is the largest |mean(CAM) + bias − logit| ÷ the
largest |logit| in evaluation mode. The time is that of a guided step ÷ a step of the plain module
with cross-entropy; both alternate, and medians are compared.

    python benchmarks/outside_timm.py --out outside_timm.csv
"""

from __future__ import annotations

import argparse
import csv
import logging
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import monai.networks.nets as medical
import segmentation_models_pytorch as smp
import torch
import torchvision.models as vision
import transformers
from torch import Tensor, nn
from torch.nn import functional

from preceptor.errors import InputError
from preceptor.losses.guided import GuidedLoss
from preceptor.models.guide import guide
from preceptor.models.module_network import logits_in

CLASSES = ("real", "fake")
COLUMNS = (
    "library", "network", "size", "map", "head", "features", "grid", "gap", "ratio", "refused",
)  # fmt: skip
STEPS, BATCH = 6, 4


class EncoderClassifier(nn.Module):
    """Encoder of segmentation-models-pytorch with a mean-pooled linear head."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.encoder = smp.encoders.get_encoder(name, weights=None)
        self.head = nn.Linear(self.encoder.out_channels[-1], 2)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.encoder(images)[-1].mean((2, 3)))
        return logits


class FlattenedNetwork(nn.Module):
    """Convolutions whose output is flattened, without pooling, as in LeNet."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 5, stride=4), nn.ReLU(inplace=True), nn.Conv2d(8, 16, 3, stride=2)
        )
        self.hidden, self.last = nn.LazyLinear(32), nn.Linear(32, 2)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.hidden(self.layers(images).flatten(1)).relu()
        logits: Tensor = self.last(hidden)
        return logits


class ClassMaps(nn.Module):
    """Convolution that returns a map of each class, whose mean is the logit, as in B-cos nets."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 16, 5, stride=4), nn.ReLU())
        self.maps = nn.Conv2d(16, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        mean: Tensor = self.maps(self.trunk(images)).mean((2, 3))
        return mean


class OneLogit(nn.Module):
    """Network with one logit of the positive class, and dropout after the pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 16, 5, stride=4), nn.BatchNorm2d(16), nn.ReLU())
        self.drop, self.last = nn.Dropout(0.5), nn.Linear(16, 1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"logits": self.last(self.drop(self.trunk(images).mean((2, 3))))}


def of_vision(name: str, **arguments: object) -> Callable[[], nn.Module]:
    return lambda: vision.get_model(name, weights=None, num_classes=2, **arguments)


def of_transformers(model: str, config: str, **arguments: object) -> Callable[[], nn.Module]:
    def create() -> nn.Module:
        settings = getattr(transformers, config)(num_labels=2, **arguments)
        made: nn.Module = getattr(transformers, model)(settings)
        return made

    return create


def networks() -> dict[tuple[str, str], tuple[Callable[[], nn.Module], int]]:
    """Constructor and input size by library and name."""
    found: dict[tuple[str, str], tuple[Callable[[], nn.Module], int]] = {}
    sizes = {"vit_b_32": 224, "maxvit_t": 224, "inception_v3": 299, "alexnet": 96,
             "squeezenet1_1": 96}  # fmt: skip
    for name in (
        "resnet18", "resnet50", "resnext50_32x4d", "wide_resnet50_2", "densenet121", "vgg11_bn",
        "alexnet", "squeezenet1_1", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0",
        "efficientnet_v2_s", "convnext_tiny", "shufflenet_v2_x0_5", "regnet_y_400mf",
        "regnet_x_400mf", "mnasnet0_5", "googlenet", "inception_v3", "swin_t", "swin_v2_t",
        "vit_b_32", "maxvit_t",
    ):  # fmt: skip
        more = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        found["torchvision", name] = of_vision(name, **more), sizes.get(name, 64)
    block = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2,
             "intermediate_size": 64, "image_size": 64, "patch_size": 8}  # fmt: skip
    window = {"image_size": 64, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2],
              "window_size": 4}  # fmt: skip
    two = {"hidden_sizes": [16, 32], "depths": [1, 1]}
    four = {"hidden_sizes": [16, 32, 32, 32], "depths": [1, 1, 1, 1]}
    for name, arguments in {
        "ViT": block, "DeiT": block, "Beit": block, "Dinov2": block,
        "Dinov2WithRegisters": block, "ViTMSN": block, "Swin": window, "Swinv2": window,
        "ResNet": two | {"embedding_size": 16, "layer_type": "basic"},
        "RegNet": two | {"embedding_size": 16, "groups_width": 16},
        "ConvNext": two | {"num_stages": 2}, "ConvNextV2": two | {"num_stages": 2},
        "PoolFormer": four, "PvtV2": four | {"num_attention_heads": [1, 2, 2, 2]},
        "Segformer": four | {"num_attention_heads": [1, 2, 2, 2]}, "MobileNetV2": {},
        "FocalNet": {"image_size": 64, "embed_dim": 16, "depths": [1, 1],
                     "focal_levels": [1, 1], "focal_windows": [3, 3]},
        "Levit": {"image_size": 64},
    }.items():  # fmt: skip
        create = of_transformers(f"{name}ForImageClassification", f"{name}Config", **arguments)
        found["transformers", name] = create, 64
    for name in ("resnet18", "mobilenet_v2", "timm-regnetx_002", "densenet121", "efficientnet-b0"):
        found["smp", name] = (lambda name=name: EncoderClassifier(name)), 64
    flat = {"spatial_dims": 2, "in_channels": 3}
    found["MONAI", "DenseNet121"] = lambda: medical.DenseNet121(**flat, out_channels=2), 64
    found["MONAI", "resnet18"] = (
        lambda: medical.resnet18(spatial_dims=2, n_input_channels=3, num_classes=2)
    ), 64  # fmt: skip
    found["MONAI", "SEResNet50"] = lambda: medical.SEResNet50(**flat, num_classes=2), 64
    found["MONAI", "EfficientNetBN"] = (
        lambda: medical.EfficientNetBN("efficientnet-b0", pretrained=False, num_classes=2)
    ), 64  # fmt: skip
    for module in (FlattenedNetwork, ClassMaps, OneLogit):
        found["here", module.__name__] = module, 64
    return found


def row_of(library: str, name: str, create: Callable[[], nn.Module], size: int) -> dict[str, str]:
    """Row of the table."""
    row = dict.fromkeys(COLUMNS, "") | {"library": library, "network": name, "size": str(size)}
    torch.manual_seed(0)
    module = create()
    images, labels = torch.randn(BATCH, 3, size, size), torch.tensor([0, 1] * (BATCH // 2))
    try:
        model = guide(module, classes=CLASSES, positive="fake", input_size=size)
    except InputError as error:
        return row | {"refused": str(error)}
    parts, (height, width) = model.spec.module, model.grid()
    assert parts is not None
    maps, loss_of = torch.rand(BATCH, height, width), GuidedLoss(alpha=0.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    model.train()

    def guided() -> None:
        out = model(images, labels)
        optimizer.zero_grad()
        loss_of(out.logits, labels, out.saliency, maps).backward()
        optimizer.step()

    def plain() -> None:
        logits = logits_in(module(images))
        wide = torch.cat([-logits / 2, logits / 2], 1) if logits.shape[1] == 1 else logits
        optimizer.zero_grad()
        functional.cross_entropy(wide, labels).backward()
        optimizer.step()

    times: dict[Callable[[], None], list[float]] = {guided: [], plain: []}
    for number in range(STEPS):
        for step, found in times.items():
            started = time.perf_counter()
            step()
            if number:  # the first round warms up
                found.append(time.perf_counter() - started)
    ratio = statistics.median(times[guided]) / statistics.median(times[plain])
    gap = ""
    if model.spec.cam == "cam":
        with torch.inference_mode():
            out = model.eval()(images, "every")
        sums = out.evidence.mean((2, 3))
        gap = f"{float((sums - out.logits).abs().max() / out.logits.abs().max()):.0e}"
    return row | {
        "map": model.spec.cam, "head": parts.head, "features": parts.features,
        "grid": f"{height} × {width}", "gap": gap, "ratio": f"{ratio:.2f}",
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable()
    with arguments.out.open("w", newline="") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        for (library, name), (create, size) in networks().items():
            row = row_of(library, name, create, size)
            table.writerow(row)
            file.flush()
            print(*row.values(), flush=True)


if __name__ == "__main__":
    main()
