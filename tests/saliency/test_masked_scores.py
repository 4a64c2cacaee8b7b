"""Scores of masked images, against a loop over images and masks."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor, nn

from preceptor.saliency.masked_scores import BLUR_SHARE, MaskedScores


def network(logits: int, channels: int = 3, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(channels, 6, 3, stride=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(24, logits),
    ).eval()


def some(count: int = 4, channels: int = 3, size: tuple[int, int] = (12, 17)) -> Tensor:
    return torch.randn(count, channels, *size, generator=torch.Generator().manual_seed(7))


def masks_of(count: int, size: tuple[int, int] = (12, 17)) -> Tensor:
    return torch.rand(count, *size, generator=torch.Generator().manual_seed(8))


def slow_fill(image: Tensor, fill: Any) -> Tensor:
    """(C, H, W) what is seen where a mask is 0."""
    if fill == "mean":
        return torch.stack([torch.full_like(channel, float(channel.mean())) for channel in image])
    if fill == "blur":
        sigma = BLUR_SHARE * min(image.shape[1:])
        # The kernel ends at three σ; "mirror" repeats no pixel at the border.
        blurred = [
            ndimage.gaussian_filter(
                channel.double().numpy(), sigma, mode="mirror", radius=int(3 * sigma)
            )
            for channel in image
        ]
        return torch.from_numpy(np.stack(blurred)).float()
    return torch.full_like(image, fill)


def slow_score(logits: list[float], index: int, score: str) -> float:
    if len(logits) == 1:  # of the second class, by the logistic function
        share = 1 / (1 + math.exp(-logits[0]))
        shares = [1 - share, share]
    else:
        total = sum(math.exp(value) for value in logits)
        shares = [math.exp(value) / total for value in logits]
    return (
        shares[index] if score == "probability" else math.log(shares[index] / (1 - shares[index]))
    )


def slow_scores(
    model: Callable[[Tensor], Tensor], images: Tensor, classes: Tensor, masks: Tensor, **how: Any
) -> Tensor:
    found = torch.zeros(len(images), len(masks))
    for row, image in enumerate(images):
        hidden = slow_fill(image, how.get("fill", 0.0))
        for column, mask in enumerate(masks):
            shown = image * mask + hidden * (1 - mask)
            logits = model(shown[None])[0].tolist()
            score = how.get("score", "probability")
            found[row, column] = slow_score(logits, int(classes[row]), score)
    return found


@pytest.mark.parametrize("logits", [1, 2, 5])
@pytest.mark.parametrize("score", ["probability", "logit"])
@pytest.mark.parametrize("fill", [0.0, 0.7, -2, "mean", "blur"])
def test_scores_are_the_loop(logits: int, score: Any, fill: Any) -> None:
    model, images, masks = network(logits), some(), masks_of(9)
    classes = torch.tensor([0, 1, 1, 0]) if logits < 5 else torch.tensor([4, 0, 2, 3])
    with torch.inference_mode():
        seen = MaskedScores(images, classes, model, score=score, fill=fill)
        which = torch.tensor([2, 0, 3, 2])
        found = seen(which, masks)
        expected = slow_scores(model, images[which], classes[which], masks, score=score, fill=fill)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)


def test_a_batch_that_does_not_fit_is_halved() -> None:
    images, classes, model = some(), torch.tensor([0, 1, 1, 0]), network(2)

    def small_memory(shown: Tensor) -> Tensor:
        if len(shown) > 5:
            raise MemoryError
        return model(shown)  # type: ignore[no-any-return]

    which, masks = torch.arange(4), masks_of(7)
    seen = MaskedScores(images, classes, small_memory, batch_size=28)
    torch.testing.assert_close(
        seen(which, masks), MaskedScores(images, classes, model, batch_size=28)(which, masks)
    )
    assert seen.batch_size == 3

    def no_memory(shown: Tensor) -> Tensor:
        raise MemoryError

    with pytest.raises(MemoryError):
        MaskedScores(images, classes, no_memory)(which, masks)


def test_scores_of_sure_models_stay_finite() -> None:
    images, classes = torch.ones(2, 1, 2, 2), torch.tensor([0, 1])

    def sure(shown: Tensor) -> Tensor:
        return shown.mean((1, 2, 3))[:, None] * torch.tensor([[0.0, 300.0]])

    for score, expected in (
        ("logit", [[-300.0, 0.0], [300.0, 0.0]]),
        ("probability", [[0.0, 0.5], [1.0, 0.5]]),
    ):
        seen = MaskedScores(images, classes, sure, score=score)  # type: ignore[arg-type]
        found = seen(torch.arange(2), torch.stack([torch.ones(2, 2), torch.zeros(2, 2)]))
        torch.testing.assert_close(found, torch.tensor(expected))


@pytest.mark.parametrize(
    ("model", "classes", "message"),
    [
        (lambda x: x.mean((1, 2, 3)), [0, 0], r"the model gives \(8,\) for 8 images"),
        (lambda x: x[:, :2, 0, 0], [0, 2], "classes from 0 to 2; the model has classes 0 to 1"),
        (lambda x: x[:, :1, 0, 0], [1, -1], "classes from -1 to 1; the model has classes 0 to 1"),
    ],
)
def test_models_that_give_something_else(model: Any, classes: list[int], message: str) -> None:
    seen = MaskedScores(some(2), torch.tensor(classes), model)
    with pytest.raises(ValueError, match=message):
        seen(torch.arange(2), masks_of(4))
