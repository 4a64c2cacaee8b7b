"""Saliency maps by a plugin of the group `preceptor.saliency`."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from preceptor.data.loader import Rows, in_order
from preceptor.errors import InputError
from preceptor.inference.predict import to_device, uses_channels_last
from preceptor.models.guided_model import GuidedModel
from preceptor.utils.memory import evaluating
from preceptor.utils.plugins import installed_plugin, load_plugin

_IMAGES = 16  # per call; gradients need the memory of a training step


class SaliencyMethod(Protocol):
    """Function that computes saliency maps: the interface of a plugin."""

    def __call__(self, model: GuidedModel, images: Tensor, classes: Tensor) -> Tensor:
        """(B, h, w) maps, larger where the evidence for the class is; any scale and offset.

        Args:
            model: Model in evaluation mode.
            images: (B, C, H, W) float images, as the model expects them (`model.preprocess`).
            classes: (B,) class of each map.
        """
        ...


def plugin_method_maps(
    name: str, model: GuidedModel, rows: Rows, classes: NDArray[np.integer]
) -> Tensor:
    """(n, h, w) float32 maps of rows by a plugin, on the CPU.

    Random numbers of torch are a function of the manifest row of the first image of a call, so that
    the maps do not depend on what the process has computed before.

    Args:
        name: Name of the plugin.
        model: Model, on the device and in the memory layout of the computation.
        rows: Rows in order, without augmentation.
        classes: (n,) class of each map.

    Raises:
        InputError: The plugin is not installed, or its maps have another shape or values that are
            not finite.
    """
    found = installed_plugin("preceptor.saliency", name, "saliency method")
    method: SaliencyMethod = load_plugin(found)
    layout, parts = uses_channels_last(model), []
    gpus = range(torch.cuda.device_count()) if model.device.type == "cuda" else ()
    with evaluating(model), torch.random.fork_rng(list(gpus)):
        for positions, batch in in_order(rows, _IMAGES):
            torch.manual_seed(int(rows.rows[positions[0]]))
            images = model.preprocess(to_device(batch.images, model.device, layout))
            chosen = torch.from_numpy(classes[positions]).to(model.device)
            maps = method(model, images, chosen).detach().float().cpu()
            if maps.ndim != 3 or len(maps) != len(positions):
                expected = f"({len(positions)}, height, width)"
                raise InputError(
                    f"saliency method {name} gave maps of shape {tuple(maps.shape)}, not {expected}"
                )
            if not maps.isfinite().all():
                raise InputError(f"saliency method {name} gave values that are not finite")
            parts.append(maps)
    return torch.cat(parts)
