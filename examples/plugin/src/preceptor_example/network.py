"""A backbone: `teachers: [example_net]`."""

from torch import nn

from preceptor import NetworkParts, network_factory


@network_factory
def example_net(num_classes: int, in_chans: int, width: int = 16) -> NetworkParts:
    """Three convolutions, mean pooling and a linear head."""
    network = nn.Sequential(
        nn.Sequential(
            nn.Conv2d(in_chans, width, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
        ),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, num_classes),
    )
    return NetworkParts(network, head="3", features="0")
