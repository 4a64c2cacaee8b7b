"""The scores of masked images: any model, batches across images and masks, nothing kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

from preceptor.saliency.cam import two_sided

Score = Literal["probability", "logit"]
Fill = float | Literal["mean", "blur"]

# Images at once. On a CPU small batches stay in the cache: 8 to 16 are fastest there.
BATCH_CPU, BATCH_GPU = 16, 256
# σ of the blurred fill, as a share of the image's shorter side.
BLUR_SHARE = 0.1


class MaskedScores:
    """Images, and the scores that a model gives them under masks.

    Args:
        images: (B, C, H, W) as the model takes them.
        classes: (B,) int64, whose score is wanted.
        logits: (N, C, H, W) → (N, K); K = 1 counts as two classes.
        score: probability or logit (log-odds).
        fill: What a mask shows instead of the image.
        batch_size: Images at once; None = what suits the device.
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
        self.images, self.classes = images, classes.to(images.device)
        self.logits, self.score = logits, score
        self.batch_size = batch_size or (BATCH_GPU if images.is_cuda else BATCH_CPU)
        self.fill = _fill(images, fill)

    def __call__(self, which: Tensor, masks: Tensor) -> Tensor:
        """(b, n) scores of the images at the positions `which` (b,) under the masks (n, H, W)."""
        count = len(masks)
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
                logits = two_sided(self.logits(masked).float())
                wanted = classes.repeat_interleave(len(masks[part]))
                values = _score(logits, wanted, self.score)
                found[first : first + len(some), part] = values.view(len(some), -1)
        return found


def _masked(images: Tensor, masks: Tensor, fill: Tensor | None) -> Tensor:
    """(k · n, C, H, W): every image under every mask, in the images' memory layout."""
    count, channels, height, width = images.shape
    total = count * len(masks)
    if images.is_contiguous(memory_format=torch.channels_last) and channels > 1:
        last = images.permute(0, 2, 3, 1)[:, None]
        shown = masks[None, ..., None]
        filled = None if fill is None else fill.permute(0, 2, 3, 1)[:, None]
        mixed = last * shown if filled is None else torch.addcmul(filled, last - filled, shown)
        return mixed.reshape(total, height, width, channels).permute(0, 3, 1, 2)
    shown, first = masks[None, :, None], images[:, None]
    filled = None if fill is None else fill[:, None]
    mixed = first * shown if filled is None else torch.addcmul(filled, first - filled, shown)
    return mixed.reshape(total, channels, height, width)


def _fill(images: Tensor, fill: Fill) -> Tensor | None:
    """(B, C, H or 1, W or 1) what masks show instead, or None for zeros."""
    if fill == "mean":
        return images.mean((2, 3), keepdim=True)
    if fill == "blur":
        sigma = BLUR_SHARE * min(images.shape[-2:])
        reach = 2 * int(min(3 * sigma, (min(images.shape[-2:]) - 1) // 2)) + 1
        blurred: Tensor = gaussian_blur(images, [reach, reach], [sigma, sigma])
        return blurred
    assert not isinstance(fill, str)
    return None if fill == 0 else torch.full_like(images[:, :, :1, :1], fill)


def _score(logits: Tensor, classes: Tensor, score: Score) -> Tensor:
    """(N,) probability or log-odds of the classes."""
    own = logits.gather(1, classes[:, None])[:, 0]
    if score == "probability":
        return (own - logits.logsumexp(1)).exp()
    others = logits.scatter(1, classes[:, None], -torch.inf)
    return own - others.logsumexp(1)
