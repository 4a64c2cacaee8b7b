"""Guided models of networks from outside timm."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from preceptor.config.image_format import Fit
from preceptor.errors import InputError, reason
from preceptor.models.find_parts import FoundParts, Part, find_parts
from preceptor.models.guided_model import GuidedModel
from preceptor.models.module_network import ModuleNetwork
from preceptor.models.probes import check_cam_identity, check_grad_cam
from preceptor.models.spec import ModelSpec
from preceptor.runtime.memory import out_of_memory
from preceptor.runtime.modes import evaluating

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

_TRIED = 12  # features that Grad-CAM is tried with, the last first


def guide(
    module: nn.Module,
    head: Part | None = None,
    features: Part | None = None,
    *,
    classes: Sequence[str],
    positive: str | None = None,
    logits: Callable[[Any], Tensor] | None = None,
    input_size: int = 224,
    in_chans: int = 3,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    fit: Fit = "squash",
    cam: Literal["auto", "cam", "gradcam"] = "auto",
    name: str | None = None,
) -> GuidedModel:
    """Guided model of any classifier, with the kind of saliency that it supports.

    As `build_model` for timm: one forward pass gives logits, features and maps. The class
    activation map is used where the logits are a linear layer on the mean features, which is
    checked; otherwise Grad-CAM from the last features that the logits depend on everywhere.

    Args:
        module: Classifier that returns (B, C) logits for (B, in_chans, H, W) images; its weights
            are not changed. A single logit is that of class 1 against class 0.
        head: Linear classifier: its dotted name, or a function that returns it for `module`; None =
            the linear layer whose output is the logits.
        features: Module whose output is the features, in the same way; None = searched for.
        classes: Class names in logit order, at least two.
        positive: Class whose probability is the score.
        logits: Function that returns the logits for the output of `module`; None = the output, or
            its entry `logits`.
        input_size: Side of the input in pixels.
        in_chans: Number of input channels, 1 or 3.
        mean, std: Mean and standard deviation of the input in [0, 1], a value per channel; None =
            those of ImageNet.
        fit: Method that makes images square, stored in the specification of the model.
        cam: Kind of saliency map: auto (the exact CAM if there is one, else Grad-CAM), cam or
            gradcam.
        name: Name in messages and in the model folder; None = that of the class.

    Raises:
        InputError: The network cannot be guided; the message has the part and the reason.

    Example:
        >>> network = nn.Sequential(
        ...     nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()),
        ...     nn.AdaptiveAvgPool2d(1),
        ...     nn.Flatten(),
        ...     nn.Linear(8, 2),
        ... )
        >>> model = guide(network, classes=["real", "fake"], input_size=32)
        >>> model.spec.cam, model.spec.module.head, model.spec.module.features
        ('cam', '3', '0')
        >>> model(torch.zeros(2, 3, 32, 32), torch.tensor([0, 1])).saliency.shape
        torch.Size([2, 30, 30])
    """
    classes = tuple(classes)
    check_classes(classes, positive, in_chans)
    name = name or type(module).__name__
    mean, std = (
        _per_channel(given, default, in_chans, what)
        for given, default, what in ((mean, IMAGENET_MEAN, "mean"), (std, IMAGENET_STD, "std"))
    )
    some = next(module.parameters(), torch.zeros(0))
    generator = torch.Generator().manual_seed(0)
    images = torch.randn((2, in_chans, input_size, input_size), generator=generator)
    images = images.to(some.device, some.dtype)
    _initialise_lazy(module, images, name)
    with _without_zero_weights(module, generator):
        try:
            found = find_parts(module, images, head=head, features=features, logits=logits)
        except InputError as error:
            raise InputError(f"{name}: guidance is refused: {error}") from error
        spec = ModelSpec(
            backbone=name,
            classes=classes,
            positive=positive,
            in_chans=in_chans,
            input_size=input_size,
            mean=mean,
            std=std,
            fit=fit,
            head=_head_kind(name, found.outputs, classes),
        )
        return _first_sound(module, spec, found, logits, cam)


def check_classes(classes: tuple[str, ...], positive: str | None, in_chans: int) -> None:
    """Refuse classes or a number of channels that no model can have."""
    if len(classes) < 2 or len(set(classes)) != len(classes):
        raise InputError(f"classes {list(classes)}: name at least two different classes")
    if positive is not None and positive not in classes:
        raise InputError(f"positive {positive!r} is not one of the classes {list(classes)}")
    if in_chans not in (1, 3):
        raise InputError(f"in_chans is {in_chans}; images have 1 or 3 channels")


def with_parts(
    module: nn.Module, spec: ModelSpec, logits: Callable[[Any], Tensor] | None
) -> GuidedModel:
    """Guided model of a network whose parts are known from its specification.

    Raises:
        InputError: The network lacks one of the parts.
    """
    assert spec.module is not None
    known = dict(module.named_modules())
    for part in (spec.module.features, spec.module.head):
        if part and part not in known:
            raise InputError(
                f"{type(module).__name__} has no module {part!r}, from which the model has its "
                "maps; give the network that the model was made with"
            )
    return GuidedModel(ModuleNetwork(module, spec.module, logits), spec)


def _per_channel(
    given: Sequence[float] | None, default: tuple[float, ...], in_chans: int, what: str
) -> tuple[float, ...]:
    if given is None:
        return default if in_chans == 3 else (sum(default) / len(default),)
    if len(given) != in_chans:
        raise InputError(f"{what} has {len(given)} values, and the input {in_chans} channels")
    return tuple(float(value) for value in given)


def _head_kind(name: str, outputs: int, classes: tuple[str, ...]) -> Literal["softmax", "sigmoid"]:
    if outputs == len(classes):
        return "softmax"
    if outputs == 1 and len(classes) == 2:
        return "sigmoid"
    raise InputError(
        f"{name}: guidance is refused: the network has {outputs} logits, and there are "
        f"{len(classes)} classes; replace its last layer, or name its classes"
    )


def _first_sound(
    module: nn.Module,
    spec: ModelSpec,
    found: FoundParts,
    logits: Callable[[Any], Tensor] | None,
    cam: Literal["auto", "cam", "gradcam"],
) -> GuidedModel:
    """Model with the first parts that have an exact CAM, or else a trainable Grad-CAM."""
    why: list[str] = []
    if cam != "gradcam":
        for parts in (found.exact or found.others)[:_TRIED]:
            model = with_parts(module, replace(spec, module=parts), logits)
            try:
                check_cam_identity(model)
            except InputError as error:
                _leave(model)
                if not why:  # that of the last features; the others are further away
                    why.append(str(error).removeprefix(f"{spec.backbone}: "))
                if not found.exact:
                    break
            else:
                return model
    if cam != "cam":
        tried: list[str] = []
        for parts in found.others[:_TRIED]:
            model = with_parts(module, replace(spec, module=parts, cam="gradcam"), logits)
            wrong = check_grad_cam(model)
            if wrong is None:
                return model
            _leave(model)
            tried.append(f"Grad-CAM from {parts.features}: {wrong}")
        why += [tried[0], *(tried[-1:] if len(tried) > 1 else [])]
    raise InputError(f"{spec.backbone}: guidance is refused: {'; '.join(why)}")


def _initialise_lazy(module: nn.Module, images: Tensor, name: str) -> None:
    """Give lazy layers their shapes by a first forward pass."""
    if not any(is_lazy(value) for value in module.parameters()):
        return
    try:
        with evaluating(module), torch.no_grad():
            module(images)
    except Exception as error:  # anything may be raised by a network of others
        if out_of_memory(error):
            raise
        raise InputError(
            f"{name}: guidance is refused: its lazy layers cannot be initialized with images "
            f"{tuple(images.shape)}: {reason(error, 200)}"
        ) from error


@contextmanager
def _without_zero_weights(module: nn.Module, generator: torch.Generator) -> Iterator[None]:
    """Context with random weights in layers of zeros, of which no map depends on the features."""
    zeros = [
        part.weight
        for part in module.modules()
        if isinstance(part, (nn.Linear, nn.Conv2d)) and not part.weight.is_meta
        if not part.weight.any()
    ]
    try:
        with torch.no_grad():
            for weight in zeros:
                weight.copy_(torch.randn(weight.shape, generator=generator) / 10)
        yield
    finally:
        with torch.no_grad():
            for weight in zeros:
                weight.zero_()


def _leave(model: GuidedModel) -> None:
    network = model.backbone
    assert isinstance(network, ModuleNetwork)
    network.remove_hook()
