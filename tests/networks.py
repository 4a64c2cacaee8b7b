"""Networks from outside timm, declared as factories."""

from __future__ import annotations

from torch import nn

from preceptor.models.factories import network_factory


@network_factory
def small(num_classes: int, in_chans: int, width: int = 8) -> nn.Module:
    """Two convolutions with batch norm, mean pooling and a linear head."""
    return nn.Sequential(
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


@network_factory
def tied(num_classes: int, in_chans: int) -> nn.Module:
    """Convolutions of which two share their weight, mean pooling and a linear head."""
    one, other = (nn.Conv2d(8, 8, 3, padding=1) for _ in range(2))
    other.weight = one.weight
    return nn.Sequential(
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
