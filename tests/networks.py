"""Networks from outside timm, declared as factories."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from torch import nn

from preceptor.models.custom import NetworkParts, network_factory


@network_factory
def small(num_classes: int, in_chans: int, width: int = 8) -> NetworkParts:
    """Two convolutions with batch norm, mean pooling and a linear head."""
    network = nn.Sequential(
        nn.Conv2d(in_chans, width, 5, stride=2, padding=2),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
        nn.BatchNorm2d(2 * width),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2 * width, num_classes),
    )
    return NetworkParts(network, "8", "5")


@network_factory
def tied(num_classes: int, in_chans: int) -> NetworkParts:
    """Convolutions of which two share their weight, mean pooling and a linear head."""
    one, other = (nn.Conv2d(8, 8, 3, padding=1) for _ in range(2))
    other.weight = one.weight
    network = nn.Sequential(
        nn.Conv2d(in_chans, 8, 5, stride=4, padding=2),
        nn.ReLU(),
        one,
        nn.ReLU(),
        other,
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, num_classes),
    )
    return NetworkParts(network, "8", "5")


@network_factory
def normed(num_classes: int, in_chans: int) -> NetworkParts:
    """A convolution, mean pooling, layer norm and a linear head, as of ConvNeXt: for Grad-CAM."""
    network = nn.Sequential(
        nn.Conv2d(in_chans, 8, 5, stride=4, padding=2),
        nn.GELU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.LayerNorm(8),
        nn.Linear(8, num_classes),
    )
    return NetworkParts(network, "5", "1")


@network_factory
def gated(num_classes: int, in_chans: int) -> NetworkParts:
    """The network `small`; processes with a GATE build their first one together, and wait."""
    folder, own = Path(os.environ.get("GATE", "")), str(os.getpid())
    if (folder / "meet").exists() and not (folder / f"arrived-{own}").exists():
        (folder / f"arrived-{own}").touch()
        _wait(lambda: len(list(folder.glob("arrived-*"))) > 1)
    elif (folder / "hold").exists():
        (folder / f"held-{own}").touch()
        _wait((folder / "go").exists)
    return small(num_classes, in_chans)


def _wait(ready: Callable[[], bool]) -> None:
    while not ready():
        time.sleep(0.05)
