"""Frozen lower part of a network: where a network can be cut, its features, and what follows.

A pretrained network is often trained from some layer on only. `freeze` makes everything up to and
including a module keep its weights and its statistics. `Cut.features` computes the output of this
module, and `Cut.upper` is the model that goes on from there, so that the features of images that do
not change are computed once.
"""

from __future__ import annotations

import copy
import hashlib
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from preceptor.errors import InputError, reason
from preceptor.models.guided_model import GuidedModel
from preceptor.models.probes import IDENTITY_TOLERANCE, random_images
from preceptor.utils.process import evaluating, out_of_memory
from preceptor.utils.results import digest

_WEIGHTED = (nn.Linear, nn.modules.conv._ConvNd)


class Layer(NamedTuple):
    """Module after which a network may be cut."""

    name: str  # dotted name in the backbone
    lower: tuple[str, ...]  # what is finished with it or before, topmost modules only; it is last
    share: float  # of the convolutions and linear layers before the head, in the lower part


class Cut(NamedTuple):
    """Model that is cut after a layer."""

    model: GuidedModel  # the whole
    upper: GuidedModel  # a copy of what follows the layer, which takes features for images
    layer: Layer

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """(B, K, h, w) features of (B, C, H, W) uint8 images, in evaluation mode."""
        with evaluating(self.model):
            return _output_of(self.model, self.layer.name, self.model.preprocess(images))

    def digest(self) -> str:
        """Hash of what the features of an image depend on, beside the processor."""
        spec, state = self.model.spec, hashlib.blake2b(torch.__version__.encode(), digest_size=10)
        for name in self.layer.lower:
            for key, value in self.model.backbone.get_submodule(name).state_dict().items():
                state.update(f"{name}.{key}".encode())
                state.update(value.detach().cpu().contiguous().numpy().tobytes())
        network = [spec.backbone, dict(spec.backbone_args), spec.factory, spec.mean, spec.std]
        return digest([network, spec.image_format, self.layer, state.hexdigest()])


def freeze(model: GuidedModel, frozen: float | str) -> None:
    """Freeze a model up to and including a layer: without gradients, always in evaluation mode.

    Args:
        model: Model with an exact class activation map.
        frozen: Name of a module, such as blocks.4; or a share in (0, 1) of the convolutions and
            linear layers before the head: the last block at which the network can be cut with at
            most this share below.

    Raises:
        InputError: The network cannot be cut there, or has no exact class activation map.
    """
    model.frozen = cut(model, frozen).layer.lower
    for name in model.frozen:
        model.backbone.get_submodule(name).requires_grad_(False)
    model.train(model.training)


def cut(model: GuidedModel, frozen: float | str) -> Cut:
    """Cut a model after a layer, see `freeze`.

    On a random image, what follows the layer must have the logits and maps of the whole network.
    """
    name, layers = model.spec.backbone, _layers(model)
    if model.spec.cam != "cam":
        raise InputError(
            f"{name}: frozen needs an exact class activation map, and the backbone has Grad-CAM "
            "only; use another backbone, or leave frozen out"
        )
    blocks = [one for one in layers if one.name.removeprefix("module.").count(".") < 2]
    if isinstance(frozen, float):
        wanted = [one for one in reversed(blocks) if 0 < one.share <= frozen]
    else:
        wanted = [one for one in layers if one.name in (frozen, f"module.{frozen}")]
    upper: GuidedModel | str = "it has no such layer before its head"
    for layer in wanted:
        upper = _upper(model, layer)
        if isinstance(upper, GuidedModel):
            return Cut(model, upper, layer)
    some = ", ".join([one.name for one in blocks if one.share >= 1 / 3][:12])
    raise InputError(
        f"{name}: frozen is {frozen}, and the network cannot be cut there ({upper}); name another "
        f"layer, such as one of {some}"
    )


def _layers(model: GuidedModel) -> list[Layer]:
    """Layers before the head, in the order in which a forward pass finishes them."""
    modules, order = dict(model.backbone.named_modules()), list[str]()
    handles = [
        part.register_forward_hook(lambda *_, name=name: order.append(name))
        for name, part in modules.items()
    ]
    try:
        with evaluating(model), torch.no_grad():
            model.backbone.forward_features(random_images(model))  # type: ignore[operator]
    finally:
        for handle in handles:
            handle.remove()
    finished = [*dict.fromkeys(reversed(order))][::-1]  # by the last time
    counts = np.cumsum([isinstance(modules[name], _WEIGHTED) for name in finished])
    layers, lower = list[Layer](), list[str]()
    for name, count in zip(finished, counts.tolist(), strict=True):
        lower = [*(one for one in lower if not one.startswith(f"{name}.")), name]
        layers.append(Layer(name, tuple(lower), count / max(counts[-1], 1)))
    return layers


class _Reached(Exception):  # noqa: N818 (no error: it ends a forward pass)
    """Output of the module at which a forward pass ends."""


def _output_of(model: GuidedModel, name: str, images: Tensor) -> Tensor:
    """Output of a module, at which the forward pass ends."""

    def end(*arguments: Any) -> None:
        raise _Reached(arguments[-1])

    handle = model.backbone.get_submodule(name).register_forward_hook(end)
    try:
        model.backbone.forward_features(images)  # type: ignore[operator]
    except _Reached as reached:
        output = reached.args[0]
        if isinstance(output, Tensor) and output.ndim == 4:
            return output
    finally:
        handle.remove()
    raise ValueError("its output is not one grid of features")


def _upper(model: GuidedModel, layer: Layer) -> GuidedModel | str:
    """Model of what follows a layer, or why the network cannot be cut there."""
    upper = copy.deepcopy(model)
    for name in layer.lower:
        upper.backbone.set_submodule(name, nn.Identity())
    upper.frozen = ()
    try:
        with evaluating(model), evaluating(upper), torch.no_grad():
            images = random_images(model)
            features = _output_of(model, layer.name, images)
            upper.takes = tuple(features.shape[1:])
            whole, found = model(images, "every"), upper(entered := features.clone(), "every")
            for other, one in ((whole.logits, found.logits), (whole.saliency, found.saliency)):
                gap = float((one - other).abs().max() / other.abs().max().clamp_min(1e-12))
                if not gap <= IDENTITY_TOLERANCE:
                    return f"what follows is not a function of its output, by {gap:.0e}"
            if not torch.equal(features, entered):
                return "what follows changes its output in place"
    except Exception as error:  # whatever a network does without its lower part
        if out_of_memory(error):
            raise
        return reason(error, 100)
    return upper
