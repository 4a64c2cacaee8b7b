"""Outputs of a classifier that are probabilities, where logits are needed."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from preceptor.errors import InputError

_SUM = 1e-4  # largest difference of the sum of the probabilities of an image from 1


def check_logits(outputs: Tensor, inner: Iterable[tuple[nn.Module, Tensor]]) -> None:
    """Check that the outputs of a classifier are not those of a softmax or sigmoid.

    Logits in [0, 1] are accepted if no module of the network has outputs of which they are the
    sigmoid.

    Args:
        outputs: (B, C).
        inner: Modules of the network, and their outputs.

    Raises:
        InputError: The outputs are probabilities.
    """
    if not bool((outputs >= 0).all() and (outputs <= 1).all()):
        return
    if bool(((outputs.sum(1) - 1).abs() < _SUM).all()):
        layer, inverse = "softmax", "torch.log"
    elif any(_is_sigmoid(outputs, module, inside) for module, inside in inner):
        layer, inverse = "sigmoid", "torch.logit"
    else:
        return
    raise InputError(
        f"its outputs are probabilities, and logits are needed; remove the {layer} at the end of "
        f"the network, or compute the logits from the probabilities: logits={inverse}"
    )


def _is_sigmoid(outputs: Tensor, module: nn.Module, inside: Tensor) -> bool:
    """Whether outputs are the sigmoid of those of a module, or those of a sigmoid."""
    if inside.shape != outputs.shape or not inside.is_floating_point():
        return False
    if isinstance(module, nn.Sigmoid):
        return torch.equal(inside, outputs)
    return torch.allclose(inside.sigmoid(), outputs)
