"""Networks from outside timm, declared as factories."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from torch import Tensor, nn

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


class TiedHead(nn.Module):
    """Features that are weighted by their own class scores, with the weight of the head."""

    def __init__(self, num_classes: int, in_chans: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(in_chans, 8, 5, stride=4, padding=2), nn.ReLU())
        self.scores = nn.Linear(8, num_classes)
        self.features = nn.Identity()
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(8, num_classes)
        self.head.weight = self.scores.weight

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images."""
        cells = self.stem(images)
        shares = self.scores(cells.permute(0, 2, 3, 1)).sigmoid().mean(-1)
        logits: Tensor = self.head(self.pool(self.features(cells * (1 + shares[:, None]))))
        return logits


@network_factory
def tied_head(num_classes: int, in_chans: int) -> NetworkParts:
    """Network whose head has the weight of a layer before the features."""
    return NetworkParts(TiedHead(num_classes, in_chans), "head", "features")


@network_factory
def gated(num_classes: int, in_chans: int) -> NetworkParts:
    """The network `small`, which processes with a GATE in their environment build together."""
    folder, own = Path(os.environ.get("GATE", "")), str(os.getpid())
    if (folder / "meet").exists():
        (folder / f"arrived-{own}").touch()
        _wait(lambda: len(list(folder.glob("arrived-*"))) > 1)
    if (folder / "hold").exists():
        (folder / f"held-{own}").touch()
        _wait((folder / "go").exists)
    return small(num_classes, in_chans)


def _wait(ready: Callable[[], bool]) -> None:
    while not ready():
        time.sleep(0.05)
