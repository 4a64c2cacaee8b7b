"""What JPEG compression at a given quality does to images, on tensors of a whole batch.

The lossy part of the baseline codec (ITU-T T.81; JFIF): YCbCr, chroma at half the resolution, the
discrete cosine transform of 8 × 8 blocks, quantisation, and back. The entropy code, which loses
nothing, is left out, so that no image leaves its device. Quality scales the tables of Annex K as
libjpeg does, and chroma is enlarged linearly as libjpeg's default does.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

# Annex K, tables K.1 (luminance) and K.2 (chrominance).
_TABLES = np.array(
    [
        [
            [16, 11, 10, 16, 24, 40, 51, 61],
            [12, 12, 14, 19, 26, 58, 60, 55],
            [14, 13, 16, 24, 40, 57, 69, 56],
            [14, 17, 22, 29, 51, 87, 80, 62],
            [18, 22, 37, 56, 68, 109, 103, 77],
            [24, 35, 55, 64, 81, 104, 113, 92],
            [49, 64, 78, 87, 103, 121, 120, 101],
            [72, 92, 95, 98, 112, 100, 103, 99],
        ],
        [
            [17, 18, 24, 47, 99, 99, 99, 99],
            [18, 21, 26, 66, 99, 99, 99, 99],
            [24, 26, 56, 99, 99, 99, 99, 99],
            [47, 66, 99, 99, 99, 99, 99, 99],
            [99, 99, 99, 99, 99, 99, 99, 99],
            [99, 99, 99, 99, 99, 99, 99, 99],
            [99, 99, 99, 99, 99, 99, 99, 99],
            [99, 99, 99, 99, 99, 99, 99, 99],
        ],
    ]
)


def quantisation_tables(qualities: NDArray[np.int64]) -> NDArray[np.float32]:
    """(n, 2, 8, 8) luminance and chrominance tables of (n,) qualities from 1 to 100.

    Example:
        >>> quantisation_tables(np.array([50]))[0, 0, 0]
        array([16., 11., 10., 16., 24., 40., 51., 61.], dtype=float32)
    """
    scale = np.where(qualities < 50, 5000 // np.maximum(qualities, 1), 200 - 2 * qualities)
    scaled = (_TABLES * scale[:, None, None, None] + 50) // 100
    return scaled.clip(1, 255).astype(np.float32)


def cosines() -> NDArray[np.float32]:
    """The (8, 8) matrix D of the transform: the coefficients of a block b are D b Dᵀ."""
    k, i = np.arange(8)[:, None], np.arange(8)
    matrix = np.cos((2 * i + 1) * k * math.pi / 16) / 2
    matrix[0] /= math.sqrt(2)
    return matrix.astype(np.float32)


def jpeg_round_trip(images: Tensor, tables: Tensor, transform: Tensor) -> Tensor:
    """Images as they are after compression and decompression.

    Three channels are color; of any other number, each channel is a grey image.

    Args:
        images: (n, C, H, W) float, whole levels from 0 to 255.
        tables: (n, 2, 8, 8) of `quantisation_tables`.
        transform: (8, 8) of `cosines`.

    Returns:
        (n, C, H, W) float, whole levels from 0 to 255.
    """
    channels, height, width = images.shape[1:]
    if channels != 3:
        grey = _pad(images, 8)
        decoded = _coded(grey.sub(128), tables[:, :1], transform)
        return decoded.add_(128).round_().clamp_(0, 255)[..., :height, :width]
    red, green, blue = _pad(images, 16).unbind(1)
    luma = (0.299 * red + 0.587 * green + 0.114 * blue).round_()
    chroma = torch.stack(
        [
            -0.168735892 * red - 0.331264108 * green + 0.5 * blue,
            0.5 * red - 0.418687589 * green - 0.081312411 * blue,
        ],
        1,
    ).round_()
    luma = _coded(luma.sub_(128)[:, None], tables[:, :1], transform)[:, 0]
    luma = luma.add_(128).round_().clamp_(0, 255)
    half = F.avg_pool2d(chroma, 2).round_()
    half = _coded(half, tables[:, 1:], transform).round_().clamp_(-128, 127)
    chroma = F.interpolate(half, scale_factor=2, mode="bilinear").round_()
    cb, cr = chroma.unbind(1)
    decoded = torch.stack(
        [luma + 1.402 * cr, luma - 0.344136286 * cb - 0.714136286 * cr, luma + 1.772 * cb], 1
    )
    return decoded.round_().clamp_(0, 255)[..., :height, :width]


def _pad(images: Tensor, block: int) -> Tensor:
    """Repeat the last row and column until sides are multiples of `block`."""
    height, width = images.shape[-2:]
    return F.pad(images, (0, -width % block, 0, -height % block), mode="replicate")


def _coded(planes: Tensor, tables: Tensor, transform: Tensor) -> Tensor:
    """Transform, quantise and transform back the blocks of (n, C, H, W) planes.

    Args:
        planes: Sides are multiples of 8.
        tables: (n, 1, 8, 8), for all planes of an image.
    """
    n, channels, height, width = planes.shape
    across = transform.t()
    rows = (n, channels * height // 8, 8, width)
    blocks = (n, channels * height // 8, 8, width // 8, 8)
    steps = tables[:, :, :, None]  # (n, 1, 8, 1, 8)
    found = torch.matmul(transform, planes.reshape(rows)).view(blocks)
    found = torch.matmul(found, across)
    found = found.div_(steps).round_().mul_(steps)
    found = torch.matmul(found, transform).view(rows)
    return torch.matmul(across, found).view(n, channels, height, width)
