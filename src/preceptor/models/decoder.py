"""Feature pyramid decoder: a finer feature grid on any timm backbone with intermediate features.

The last grid of a backbone has a stride of 16 or 32 pixels, and a mark smaller than a cell nearly
vanishes in it. The decoder adds upsampled deep features to shallow ones; its output is mean-pooled
and classified by one linear layer, so that the class activation map is exact.
"""

from __future__ import annotations

from typing import Any, cast

from timm.models import get_pretrained_cfg
from torch import Tensor, nn
from torch.nn import functional

from preceptor.errors import InputError

STRIDES = (4, 8, 16)


class PyramidNetwork(nn.Module):
    """Encoder with a feature pyramid decoder and a linear head, in the interface of timm networks.

    Args:
        encoder: timm network created with `features_only`.
        backbone: Its name.
        outputs: Number of outputs of the classifier.
        stride: Stride of the feature grid in pixels: 4, 8 or 16.
        channels: Number of channels of the pyramid.

    Raises:
        InputError: The stride is another number, or the encoder has no features at it.

    Reference:
        T.-Y. Lin et al., "Feature Pyramid Networks for Object Detection", CVPR 2017.
    """

    def __init__(
        self, encoder: nn.Module, backbone: str, outputs: int, stride: int = 8, channels: int = 64
    ) -> None:
        super().__init__()
        if stride not in STRIDES:
            raise InputError(f"backbone_args: decoder_stride is {stride!r}; write 4, 8 or 16")
        info = cast(Any, encoder.feature_info)
        reductions, widths = info.reduction(), info.channels()
        levels = [place for place, own in enumerate(reductions) if own >= stride]
        if not levels or reductions[levels[0]] != stride:
            known = ", ".join(map(str, dict.fromkeys(reductions)))
            raise InputError(
                f"backbone_args: decoder_stride is {stride}, and {backbone} has features at "
                f"strides {known}; choose one of them"
            )
        self.encoder, self.levels, self.num_features = encoder, levels, channels
        self.lateral = nn.ModuleList(nn.Conv2d(widths[place], channels, 1) for place in levels)
        self.smooth = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.GroupNorm(8, channels),
            nn.ReLU(),
        )
        self.head = nn.Linear(channels, outputs)
        config: Any = getattr(encoder, "pretrained_cfg", None) or get_pretrained_cfg(backbone)
        self.pretrained_cfg = config if isinstance(config, dict) else config.to_dict()

    def forward_features(self, images: Tensor) -> Tensor:
        """Features (B, channels, h, w) at the stride of the decoder."""
        found = self.encoder(images)
        pyramid: Tensor | None = None
        for place, lateral in zip(reversed(self.levels), reversed(self.lateral), strict=True):
            own = lateral(found[place])
            if pyramid is not None:
                if pyramid.shape[-2:] != own.shape[-2:]:
                    pyramid = functional.interpolate(pyramid, own.shape[-2:], mode="nearest")
                own = own + pyramid
            pyramid = own
        smoothed: Tensor = self.smooth(pyramid)
        return smoothed

    def forward_head(self, features: Tensor) -> Tensor:
        """Outputs (B, C) of the linear classifier on mean-pooled features."""
        logits: Tensor = self.head(features.mean((2, 3)))
        return logits

    def forward(self, images: Tensor) -> Tensor:
        """Outputs (B, C)."""
        return self.forward_head(self.forward_features(images))

    def get_classifier(self) -> nn.Linear:
        """The linear classifier."""
        return self.head


def decoder_arguments(arguments: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments of the encoder and of the decoder; the latter are empty without a decoder.

    Raises:
        InputError: The decoder is unknown, or its settings are given without it.
    """
    encoder = dict(arguments)
    kind = encoder.pop("decoder", None)
    settings = {
        key: encoder.pop(f"decoder_{key}")
        for key in ("stride", "channels")
        if f"decoder_{key}" in encoder
    }
    if kind is None and settings:
        raise InputError("backbone_args: decoder_stride and decoder_channels need decoder: fpn")
    if kind not in (None, "fpn"):
        raise InputError(f"backbone_args: decoder is {kind!r}; write fpn, or remove it")
    channels = settings.get("channels", 64)
    if not isinstance(channels, int) or channels < 8 or channels % 8:
        raise InputError(
            f"backbone_args: decoder_channels is {channels!r}; write a multiple of 8, such as 64"
        )
    return encoder, {} if kind is None else {"stride": 8} | settings
