"""Probes of the saliency that a network supports: identity of the CAM, gradients of Grad-CAM."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from preceptor.errors import InputError, check_choice, reason
from preceptor.models.features import ModuleNetwork, statistics
from preceptor.models.guided_model import GuidedModel
from preceptor.models.networks import classifiers
from preceptor.models.spec import CamKind, ModelSpec, Tap
from preceptor.saliency.cam import binary_logits
from preceptor.utils.process import evaluating, out_of_memory

# Largest |mean(cam) + bias − logit| ÷ largest |logit|, float32, evaluation mode.
IDENTITY_TOLERANCE = 1e-4
# Least |mean slope| of a channel ÷ mean |slope|: where all are below, as before a softmax over the
# places, the weights of Grad-CAM are rounding (4e-8), and so is the sign of its map.
LEAST_MEAN_SLOPE = 1e-4


def check_cam_identity(model: GuidedModel, *, trained: bool = False) -> float:
    """Check the identity mean(cam_c) + bias_c = logit_c of the exact class activation map.

    Returns the largest error ÷ largest |logit|; an InputError says why the identity does not hold.
    It must hold for all weights (a batch norm between pooling and head is initially the identity):
    the head and, unless `trained`, vectors with one entry per channel are random meanwhile.
    """
    refuse = f"{model.spec.backbone}: no exact class activation map: "
    try:
        head = model.head
    except InputError as error:
        raise InputError(refuse + str(error).removeprefix(f"{model.spec.backbone}: ")) from error
    generator = torch.Generator().manual_seed(0)
    with evaluating(model), torch.no_grad(), _other_values(model, head, trained, generator):
        images = random_images(model, generator)
        logits, features = model.mean_pooled(images)
        if features.shape[1] != head.in_features:
            raise InputError(
                f"{refuse}the head has {head.in_features} inputs and the features have "
                f"{features.shape[1]} channels, so that other layers lie between them"
            )
        # Not `head(…)`: a layer that computes more than Wx + b has no CAM by its weight.
        pooled = features.mean((2, 3))
        pooled_logits = binary_logits(functional.linear(pooled, head.weight, head.bias))
    gap = float((pooled_logits - logits).abs().max() / logits.abs().max().clamp_min(1e-12))
    if not gap <= IDENTITY_TOLERANCE:
        raise InputError(
            f"{refuse}mean(CAM) + bias differs from the logits by {gap:.1e} of the largest "
            "(pooling is not a plain mean, or a layer lies between pooling and head)"
        )
    return gap


def check_trained(model: GuidedModel) -> None:
    """Check the identity of a trained model with an exact CAM; other models are not checked."""
    if model.spec.cam == "cam" and model.spec.cam_source == "head_input":
        check_cam_identity(model, trained=True)


@contextmanager
def _other_values(
    model: GuidedModel, head: nn.Linear, trained: bool, generator: torch.Generator
) -> Iterator[None]:
    """Context with random weights: a normal head and, unless `trained`, vectors in [0.5, 1.5]."""
    own: list[Tensor] = list(head.parameters())
    heads = {id(value) for value in own}
    # Norms, scales and offsets of any type have one entry per channel.
    vectors = [
        value
        for value in ([] if trained else [*model.backbone.parameters(), *model.backbone.buffers()])
        if value.is_floating_point()
        and value.numel()
        and value.numel() == max(value.shape, default=1)
        and id(value) not in heads
    ]
    kept = [value.clone() for value in (*own, *vectors)]
    try:
        with torch.no_grad():
            for value in own:
                value.copy_(torch.randn(value.shape, generator=generator))
            for value in vectors:
                value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
        yield
    finally:
        with torch.no_grad():
            for value, old in zip((*own, *vectors), kept, strict=True):
                value.copy_(old)


def random_images(model: GuidedModel, generator: torch.Generator | None = None) -> Tensor:
    """Two random images in the format of a model, normalized; always the same by default."""
    generator = generator or torch.Generator().manual_seed(0)
    side = model.spec.input_size
    images = torch.randn((2, model.spec.in_chans, side, side), generator=generator)
    some = next(model.parameters())
    return images.to(some.device, some.dtype)


def check_grad_cam(model: GuidedModel) -> str | None:
    """Check whether Grad-CAM can be computed and trained on a model."""
    generator = torch.Generator().manual_seed(0)
    try:
        heads = (one for one in classifiers(model.backbone) if isinstance(one, nn.Linear))
        zero = next((one for one in heads if not one.weight.any()), None)  # as in a new ViT
        other = _other_values(model, zero, True, generator) if zero else nullcontext()
        with evaluating(model), torch.enable_grad(), other:
            for name in model.norms_after_features():
                if not statistics(model.backbone.get_submodule(name)):
                    return f"its {name} is batch norm without running statistics, where images meet"
            images = random_images(model, generator).requires_grad_()
            shape = tuple(model.mean_pooled(images).features.shape)
            if len(shape) != 4 or shape[0] != 2:
                return f"its features are {shape}, of other things than images"
            classes = torch.tensor([0, 1], device=images.device)
            with torch.no_grad():  # as in validation: the features are then a leaf
                model(images.detach(), classes)
            out = model(images, classes)
            (slope,) = torch.autograd.grad(out.logits[:, 1].sum(), out.features, retain_graph=True)
            if not bool((slope.abs().sum(1).flatten(1) > 0).all()):
                return "the logits do not depend on all places of the features"
            mean = slope.mean((2, 3)).abs().amax(1)
            if not bool((mean > LEAST_MEAN_SLOPE * slope.abs().mean((1, 2, 3))).all()):
                return "the slopes of the logits add up to 0 in every channel of the features"
            (reach,) = torch.autograd.grad(out.saliency.square().sum(), images)
            if bool(reach.isfinite().all()) and bool(reach.flatten(1).any(1).all()):
                return None
            return "its gradient does not reach through to the image"
    except Exception as error:  # no second derivative, features that are not ancestors, …
        if out_of_memory(error):  # it says nothing of the model
            raise
        return reason(error, 160)


def with_saliency(
    make: Callable[[ModelSpec], GuidedModel], spec: ModelSpec, cam: CamKind, taps: Mapping[Tap, str]
) -> GuidedModel:
    """Model of a network with an exact CAM, or else a trainable Grad-CAM from one of the taps.

    `make` makes the model of a specification; `taps` has the words for each tap in messages.
    """
    check_choice("cam", cam, CamKind)
    why: list[str] = []
    if cam != "gradcam":
        model = make(spec)
        try:
            check_cam_identity(model)
            return model
        except InputError as error:
            why.append(str(error).removeprefix(f"{spec.backbone}: "))
            _leave(model)
    for tap in () if cam == "cam" else taps:
        model = make(replace(spec, cam="gradcam", tap=tap))
        wrong = check_grad_cam(model)
        if wrong is None:
            return model
        why.append(f"Grad-CAM{taps[tap]}: {wrong}")
        _leave(model)
    raise InputError(f"{spec.backbone}: guidance is refused: {'; '.join(why)}")


def _leave(model: GuidedModel) -> None:
    """Leave a network from outside timm as it was."""
    if isinstance(model.backbone, ModuleNetwork):
        model.backbone.handle.remove()
