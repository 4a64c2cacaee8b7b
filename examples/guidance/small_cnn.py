"""Two small networks with class activation maps, for 32-pixel images."""

from torch import Tensor, nn

from preceptor import NetworkParts, network_factory


class SmallCnn(nn.Module):
    """Strides 2, 2, 1, 1; an 8 x 8 grid for 32 pixels; a linear head on mean features."""

    def __init__(self, num_classes: int = 10, in_chans: int = 3, width: int = 32) -> None:
        super().__init__()
        sizes = [
            (in_chans, width // 2, 2),
            (width // 2, width, 2),
            (width, width, 1),
            (width, 2 * width, 1),
        ]
        self.features = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(i, o, 3, stride, 1, bias=False),
                    nn.BatchNorm2d(o),
                    nn.ReLU(inplace=True),
                )
                for i, o, stride in sizes
            )
        )
        self.head = nn.Linear(2 * width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """(B, classes) logits of images."""
        return self.head(self.features(images).mean((2, 3)))


@network_factory
def small_cnn(num_classes: int, in_chans: int) -> NetworkParts:
    """The network with its head, its features and its input size."""
    network = SmallCnn(num_classes, in_chans)
    return NetworkParts(network, head="head", features="features", input_size=32)


class Residual(nn.Module):
    """Two convolutions with a projected shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.changed = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.kept = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """(B, outputs, h, w) features."""
        return (self.kept(images) + self.changed(images)).relu()


@network_factory
def small_resnet(num_classes: int, in_chans: int) -> NetworkParts:
    """A convolution of stride 2 and residual blocks of strides 2 and 1; an 8 x 8 grid."""
    # No block on the image itself: oneDNN issue 6035, a strided 1 x 1 convolution of < 8 channels.
    stem = [nn.Conv2d(in_chans, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True)]
    blocks = nn.Sequential(*stem, Residual(16, 32, 2), Residual(32, 64, 1))
    layers = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, num_classes)]
    return NetworkParts(nn.Sequential(blocks, *layers), head="3", features="0", input_size=32)
