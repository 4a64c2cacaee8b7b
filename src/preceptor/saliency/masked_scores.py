"""Scores of masked images for any model, in batches that span images and masks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

from preceptor.saliency.cam import binary_logits
from preceptor.utils import process

Score = Literal["probability", "logit"]
Fill = float | Literal["mean", "blur"]

# Images at once on a GPU; on a CPU as many as this many pixels make, within limits: small batches
# stay in the cache (8 images of 224 px), and tiny images would spend their time between calls.
BATCH_GPU = 256
PIXELS_CPU, LEAST_CPU, MOST_CPU = 400_000, 8, 128
# σ of the blurred fill, as a share of the image's shorter side.
BLUR_SHARE = 0.1


class MaskedScores:
    """Class scores of images under masks.

    Args:
        images: (B, C, H, W) input of the model.
        classes: (B,) int64, class of each score.
        logits: Function (N, C, H, W) → (N, K); K = 1 is treated as two classes.
        score: probability or logit (log-odds).
        fill: Value of masked pixels: a number, mean or blur.
        batch_size: Number of images per forward pass; None = depending on the device.

    Raises:
        ValueError: `score`, `fill` or `batch_size` is invalid; in a call, the logits have another
            shape, or a class is out of range.
    """

    def __init__(
        self,
        images: Tensor,
        classes: Tensor,
        logits: Callable[[Tensor], Tensor],
        *,
        score: Score = "probability",
        fill: Fill = 0.0,
        batch_size: int | None = None,
    ) -> None:
        if score not in get_args(Score):
            raise ValueError(f"score {score!r} is not one of {', '.join(get_args(Score))}")
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"batch_size {batch_size} must be at least 1")
        self.images, self.classes = images, classes.to(images.device)
        self.logits, self.score = logits, score
        self.batch_size = batch_size or _usual_batch(images)
        self.fill = _fill(images, fill)
        self.least, self.most = int(classes.min()), int(classes.max())

    def __call__(self, which: Tensor, masks: Tensor) -> Tensor:
        """(b, n) scores of the images at positions `which` (b,) under masks (n, H, W)."""
        count = len(masks)
        masks = masks.to(
            self.images.dtype
        )  # a model in half precision needs inputs in half precision
        at_once = min(count, self.batch_size)
        together = max(1, self.batch_size // at_once)
        found = torch.empty(len(which), count, device=masks.device)
        for first in range(0, len(which), together):
            some = which[first : first + together]
            images, classes = self.images[some], self.classes[some]
            fill = None if self.fill is None else self.fill[some]
            for start in range(0, count, at_once):
                part = slice(start, start + at_once)
                masked = _masked(images, masks[part], fill)
                logits = self._checked(self.logits(masked), len(masked))
                wanted = classes.repeat_interleave(len(masks[part]))
                values = _score(logits, wanted, self.score)
                found[first : first + len(some), part] = values.view(len(some), -1)
                process.beat()
        return found

    def _checked(self, logits: Tensor, count: int) -> Tensor:
        """(N, K) float32 logits, K ≥ 2."""
        if logits.ndim != 2 or len(logits) != count:
            raise ValueError(
                f"the model gives {tuple(logits.shape)} for {count} images; it must be (N, K)"
            )
        logits = binary_logits(logits.float())
        if not 0 <= self.least <= self.most < logits.shape[1]:
            raise ValueError(
                f"classes from {self.least} to {self.most}; the model has classes 0 to "
                f"{logits.shape[1] - 1}"
            )
        return logits


def _usual_batch(images: Tensor) -> int:
    """Default number of images per forward pass on a device."""
    if images.is_cuda:
        return BATCH_GPU
    pixels = images.shape[-2] * images.shape[-1]
    return max(LEAST_CPU, min(MOST_CPU, PIXELS_CPU // pixels))


def _masked(images: Tensor, masks: Tensor, fill: Tensor | None) -> Tensor:
    """(k · n, C, H, W): every image under every mask, in the images' memory layout."""
    count, channels, height, width = images.shape
    last = channels > 1 and images.is_contiguous(memory_format=torch.channels_last)
    # Laid out beforehand: a bare product would take on the layout of the masks, which is nobody's.
    mixed = torch.empty(
        (count * len(masks), channels, height, width),
        dtype=images.dtype,
        device=images.device,
        memory_format=torch.channels_last if last else torch.contiguous_format,
    )
    parts = mixed.view(count, len(masks), *images.shape[1:])
    shown, first = masks[None, :, None], images[:, None]
    if fill is None:
        torch.mul(first, shown, out=parts)
    else:
        hidden = fill[:, None]
        torch.addcmul(hidden, first - hidden, shown, out=parts)
    return mixed


def _fill(images: Tensor, fill: Fill) -> Tensor | None:
    """(B, C, H or 1, W or 1) values of masked pixels, or None for zeros."""
    if fill == "mean":
        return images.mean((2, 3), keepdim=True)
    if fill == "blur":
        sigma = BLUR_SHARE * min(images.shape[-2:])
        reach = 2 * int(min(3 * sigma, (min(images.shape[-2:]) - 1) // 2)) + 1
        blurred: Tensor = gaussian_blur(images, [reach, reach], [sigma, sigma])
        return blurred
    if isinstance(fill, str):
        raise ValueError(f"fill {fill!r} is not a number, mean or blur")
    return None if fill == 0 else torch.full_like(images[:, :, :1, :1], fill)


def _score(logits: Tensor, classes: Tensor, score: Score) -> Tensor:
    """(N,) probability or log-odds of the classes."""
    own = logits.gather(1, classes[:, None])[:, 0]
    if score == "probability":
        return (own - logits.logsumexp(1)).exp()
    others = logits.scatter(1, classes[:, None], -torch.inf)
    return own - others.logsumexp(1)
