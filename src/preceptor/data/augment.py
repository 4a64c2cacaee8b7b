"""Random changes of training images, drawn from counters so that order and batches do not matter.

Each image of an epoch has one row of uniform numbers, drawn from (seed, epoch); what is done to it
is a function of that row. A resumed run, another batch size or a prefetching thread change nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional as vision

from preceptor.config.run import Augmentation
from preceptor.data.geometry import Box, Turn

_NUMBERS = 12  # uniform numbers an image


def draw(seed: int, epoch: int, count: int) -> NDArray[np.float64]:
    """(count, 12) uniform numbers in [0, 1): an epoch's randomness."""
    return np.random.default_rng([seed, epoch, 2]).random((count, _NUMBERS))


@dataclass(frozen=True)
class Change:
    """What is done to one image.

    Args:
        crop: (left, top, side) in canvas pixels.
        turn: Flip and quarter turns, after the crop.
    """

    crop: tuple[int, int, int]
    turn: Turn

    def box(self, side: int) -> Box:
        """The crop in units of the canvas."""
        left, top, size = self.crop
        return Box(left / side, top / side, (left + size) / side, (top + size) / side)


def geometric(settings: Augmentation, numbers: NDArray[np.float64], side: int) -> Change:
    """The geometry of one image from its row of numbers, on a canvas of `side` pixels."""
    size = side
    if settings.crop_area < 1:
        area = settings.crop_area + (1 - settings.crop_area) * numbers[2]
        size = max(1, round(side * float(area) ** 0.5))
    left, top = int(numbers[3] * (side - size + 1)), int(numbers[4] * (side - size + 1))
    return Change(
        (left, top, size),
        Turn(
            flip=settings.flip and bool(numbers[0] < 0.5),
            quarters=int(numbers[1] * 4) if settings.quarter_turns else 0,
        ),
    )


def photometric(settings: Augmentation, numbers: NDArray[np.float64], image: Tensor) -> Tensor:
    """Change the colours, sharpness and compression of one (C, H, W) uint8 image; no geometry."""
    if settings.colour:
        factors = 1 + settings.colour * (2 * numbers[5:8] - 1)
        image = vision.adjust_brightness(image, float(factors[0]))
        image = vision.adjust_contrast(image, float(factors[1]))
        if image.shape[0] == 3:
            image = vision.adjust_saturation(image, float(factors[2]))
    if numbers[8] < settings.blur:
        sigma = 0.1 + 1.9 * float(numbers[9])
        image = vision.gaussian_blur(image, [2 * int(3 * sigma + 0.5) + 1] * 2, [sigma] * 2)
    if numbers[10] < settings.jpeg:
        grey = image.shape[0] == 1
        image = vision.jpeg(image.expand(3, -1, -1) if grey else image, 30 + int(66 * numbers[11]))
        image = image[:1] if grey else image
    return image


def resize(image: NDArray[np.uint8], side: int) -> Tensor:
    """An (H, H, C) crop as a (C, side, side) uint8 tensor, antialiased."""
    tensor = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
    resized: Tensor = vision.resize(tensor, [side, side], antialias=True)
    return resized
