"""Scores of masked images for any model, whose batch norms are fused into its convolutions."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.transforms.v2.functional import gaussian_blur

from preceptor.saliency.cam import binary_logits
from preceptor.utils import process
from preceptor.utils.process import out_of_memory, release_memory

Score = Literal["probability", "logit"]
Fill = float | Literal["mean", "blur"]

# Images at once on a GPU; on a CPU as many as this many pixels make, within limits: small batches
# stay in the cache (8 images of 224 px), and tiny images would spend their time between calls.
BATCH_GPU = 256
PIXELS_CPU, LEAST_CPU, MOST_CPU = 400_000, 8, 128
# σ of the blurred fill, as a share of the image's shorter side.
BLUR_SHARE = 0.1

# Fusion changes the order of float32 products: differences stay near 1e-6 of the largest output.
TOLERANCE = 1e-3


class MaskedScores:
    """Class scores of images (B, C, H, W) under masks, by a function of logits (N, K).

    Raises ValueError for an invalid `score`, `fill` or `batch_size`, logits of another shape, or a
    class that is out of range.
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
        usual = max(LEAST_CPU, min(MOST_CPU, PIXELS_CPU // (images.shape[-2] * images.shape[-1])))
        self.batch_size = batch_size or (BATCH_GPU if images.is_cuda else usual)
        self.fill = _fill(images, fill)
        self.least, self.most = int(classes.min()), int(classes.max())

    def __call__(self, which: Tensor, masks: Tensor) -> Tensor:
        """(b, n) scores of the images at positions `which` (b,) under masks (n, H, W)."""
        while True:
            try:
                return self._scores(which, masks)
            except (MemoryError, RuntimeError) as error:
                if self.batch_size == 1 or not out_of_memory(error):
                    raise
            self.batch_size //= 2  # the memory of the error is free here
            release_memory(self.images.device)

    def _scores(self, which: Tensor, masks: Tensor) -> Tensor:
        count = len(masks)
        masks = masks.to(self.images.dtype)  # of a model in half precision
        at_once = min(count, self.batch_size)
        together = max(1, self.batch_size // at_once)
        scores = torch.empty(len(which), count, device=masks.device)
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
                scores[first : first + len(some), part] = values.view(len(some), -1)
                process.beat()
        return scores

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


def fused(network: nn.Module, example: Tensor) -> nn.Module:
    """Copy of a network for inference, with batch norms fused into convolutions if possible.

    The copy is not fused if its output on an example (B, C, H, W) differs. A network that cannot be
    copied (weights computed from other weights) is returned itself.
    """
    # Not in inference mode: weights made in it could not be used outside. Nor under autocast, whose
    # rounding would hide whether two networks are the same.
    device = example.device.type
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(device, enabled=False):
        try:
            plain = copy.deepcopy(network).eval()
        except (RuntimeError, TypeError):
            return network
        example = example.clone()
        if any(part.dtype != example.dtype for part in plain.parameters()):
            return plain  # it needs autocast
        expected = first_of(plain(example))
        if not _stripped(plain, example, expected):
            return copy.deepcopy(network).eval()
        pairs = _pairs(plain, example)
        candidate = copy.deepcopy(plain)
        modules = dict(candidate.named_modules())
        for convolution, norm in pairs:
            old = modules[norm]
            candidate.set_submodule(convolution, fuse_conv_bn_eval(modules[convolution], old))
            # timm's batch norms may carry dropout and activation.
            rest = nn.Sequential(old.drop, old.act) if hasattr(old, "act") else nn.Identity()
            candidate.set_submodule(norm, rest.eval())
        return candidate if _alike(first_of(candidate(example)), expected) else plain


def _stripped(network: nn.Module, example: Tensor, expected: Tensor) -> bool:
    """Remove all hooks from a copy; returns whether its output stays the same without them."""
    for module in network.modules():
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
    try:
        return _alike(first_of(network(example)), expected)
    except Exception as error:  # the forward pass fails without them
        if out_of_memory(error):
            raise
        return False


def _alike(actual: Tensor, expected: Tensor) -> bool:
    if actual.shape != expected.shape:
        return False
    gap = (expected - actual).abs().max() / expected.abs().max().clamp_min(1e-12)
    return bool(gap < TOLERANCE)


def _pairs(network: nn.Module, example: Tensor) -> list[tuple[str, str]]:
    """Names of each convolution and of the batch norm that takes its output."""
    made: dict[int, tuple[str, Tensor]] = {}  # tensors are kept alive, so that ids are unique
    pairs: list[tuple[str, str]] = []
    handles = []

    def watch(name: str, _: nn.Module, __: Any, out: Tensor) -> None:
        made[id(out)] = name, out

    def meet(name: str, _: nn.Module, arguments: tuple[Any, ...]) -> None:
        if arguments and id(arguments[0]) in made:
            pairs.append((made[id(arguments[0])][0], name))

    for name, module in network.named_modules():
        # Of subclasses, those that say so: others may compute their weights anew in each forward.
        if type(module) is nn.Conv2d or getattr(module, "fusible", False):
            handles.append(module.register_forward_hook(partial(watch, name)))
        elif isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            handles.append(module.register_forward_pre_hook(partial(meet, name)))
    network(example)
    for handle in handles:
        handle.remove()
    # Run twice or shared, a module has no single partner.
    once = [part for pair in pairs for part in pair]
    return [pair for pair in pairs if once.count(pair[0]) == once.count(pair[1]) == 1]


def first_of(output: Any) -> Tensor:
    """Logits of an output: a tensor, or a tuple that begins with them."""
    first: Tensor = output if isinstance(output, Tensor) else output[0]
    return first
