"""A saliency method: `saliency: [cam, gradients]`, `preceptor annotate --method gradients`."""

import torch
from torch import Tensor
from torch.nn import functional

from preceptor.models.guided_model import GuidedModel

CELL = 8  # pixels


def gradients(model: GuidedModel, images: Tensor, classes: Tensor) -> Tensor:
    """(B, H/8, W/8) magnitudes of the gradient of the class's logit, mean over cells.

    Args:
        model: Model in evaluation mode.
        images: (B, C, H, W) images as the model expects them.
        classes: (B,) class of each map.
    """
    with torch.enable_grad():
        images = images.detach().requires_grad_()
        logits = model(images).logits
        (found,) = torch.autograd.grad(logits.gather(1, classes[:, None]).sum(), images)
    return functional.avg_pool2d(found.abs().mean(1), CELL)
