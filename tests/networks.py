"""Network from outside timm, declared as a factory."""

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
