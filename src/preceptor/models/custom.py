"""Networks from outside timm: guided models of any classifier, and factories of such networks.

A network from outside timm names its linear classifier and the module whose output is the features,
or they are found. Loading a model folder calls a factory only if `network_factory` declares it.
"""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from preceptor.config.settings import Fit
from preceptor.errors import InputError, check_choice, reason
from preceptor.models.features import ModuleNetwork, logits_in
from preceptor.models.guided_model import GuidedModel
from preceptor.models.probes import with_saliency
from preceptor.models.spec import CamKind, ModelSpec, ModuleParts, Tap
from preceptor.utils.process import evaluating, out_of_memory
from preceptor.utils.results import missing_module, parents_of

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

_MARK = "_preceptor_network_factory"
_MOST_PREFIX = 8  # tokens before those of the image: a class token, distillation, registers


def guide(
    module: nn.Module,
    head: str | None,
    features: str,
    *,
    classes: Sequence[str],
    positive: str | None = None,
    logits: Callable[[Any], Tensor] | None = None,
    input_size: int = 224,
    in_chans: int = 3,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    fit: Fit = "squash",
    cam: CamKind = "auto",
    name: str | None = None,
) -> GuidedModel:
    """Guided model of any classifier, with the kind of saliency that it supports.

    As `build_model` for timm: one forward pass gives logits, features and maps. The class
    activation map is used where the logits are the head on the mean features, which is checked;
    otherwise Grad-CAM from the features.

    Args:
        module: Classifier that returns (B, C) logits for (B, in_chans, H, W) images; its weights
            are not changed. A single logit is that of class 1 against class 0.
        head: Dotted name of the linear classifier; None = there is none, and the maps are Grad-CAM.
        features: Dotted name of the module whose output is the features: (B, Ch, h, w),
            (B, h, w, Ch) or tokens of a square grid, (B, N, Ch).
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
        >>> model = guide(network, "3", "0", classes=["real", "fake"], input_size=32)
        >>> model.spec.cam
        'cam'
        >>> model(torch.zeros(2, 3, 32, 32), torch.tensor([0, 1])).saliency.shape
        torch.Size([2, 30, 30])
    """
    classes = tuple(classes)
    check_classes(classes, positive, in_chans)
    check_choice("fit", fit, Fit)
    name = name or type(module).__name__
    for what, given in (("mean", mean), ("std", std)):
        if given is not None and len(given) != in_chans:
            raise InputError(f"{what} has {len(given)} values, and the input {in_chans} channels")
    try:
        parts, outputs = _parts(module, head, features, logits, input_size, in_chans)
        if outputs != len(classes) and (outputs, len(classes)) != (1, 2):
            raise InputError(
                f"the network has {outputs} logits, and there are {len(classes)} classes; replace "
                "its last layer, or name its classes"
            )
    except InputError as error:
        raise InputError(f"{name}: guidance is refused: {error}") from error
    spec = ModelSpec(
        backbone=name,
        classes=classes,
        positive=positive,
        in_chans=in_chans,
        input_size=input_size,
        mean=per_channel(IMAGENET_MEAN if mean is None else mean, in_chans),
        std=per_channel(IMAGENET_STD if std is None else std, in_chans),
        fit=fit,
        head="softmax" if outputs == len(classes) else "sigmoid",
        module=parts,
    )
    taps: dict[Tap, str] = {"": f" from {parts.features}"}
    return with_saliency(lambda spec: with_parts(module, spec, logits), spec, cam, taps)


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
    """Guided model of a network whose parts are known from its specification."""
    assert spec.module is not None
    for part in filter(None, (spec.module.features, spec.module.head)):
        _check_part(module, part, "network")
    return GuidedModel(ModuleNetwork(module, spec.module, logits), spec)


def per_channel(values: Sequence[float], in_chans: int) -> tuple[float, ...]:
    """Mean or std of an input: a value per channel, of gray images the mean of those of colors."""
    values = tuple(map(float, values))
    return (sum(values) / len(values),) if in_chans == 1 else values


def _check_part(module: nn.Module, part: str, what: str) -> None:
    """Check that a network has a part of this dotted name."""
    names = [name for name, _ in module.named_modules() if name]
    if part not in names:
        top = ", ".join(sorted({name.split(".")[0] for name in names})[:8])
        raise InputError(f"{what}: the network has no module {part!r}; it has {top}")


def _parts(
    module: nn.Module,
    head: str | None,
    features: str,
    logits: Callable[[Any], Tensor] | None,
    input_size: int,
    in_chans: int,
) -> tuple[ModuleParts, int]:
    """Parts of a network with the layout of its features, and its number of logits."""
    _check_part(module, features, "features")
    if head is not None:
        _check_part(module, head, "head")
    outputs: list[Any] = []

    def note(_: nn.Module, __: Any, output: Any) -> None:
        outputs.append(output[0] if type(output) is tuple and output else output)

    some = next(module.parameters(), torch.zeros(0))
    if some.dtype not in (torch.float32, torch.float64):
        raise InputError(f"the network is {some.dtype}; make it float32, and use autocast")
    images = torch.randn(
        (2, in_chans, input_size, input_size), generator=torch.Generator().manual_seed(0)
    )
    images = images.to(some.device, some.dtype)
    given = images.clone()
    handle = module.get_submodule(features).register_forward_hook(note)
    try:
        with evaluating(module), torch.no_grad():
            result = (logits or logits_in)(module(given))
    except InputError:
        raise
    except Exception as error:  # anything may be raised by a network of others
        if out_of_memory(error):
            raise
        raise InputError(
            f"the network cannot compute images {tuple(images.shape)}: {reason(error, 200)}"
        ) from error
    finally:
        handle.remove()
    if not isinstance(result, Tensor) or result.ndim != 2 or len(result) != len(images):
        shape = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
        raise InputError(
            f"the logits are {shape}, and one row per image is needed ({len(images)}, classes); "
            "select them: logits=lambda output: …"
        )
    sums, ones = result.sum(1), result.new_ones(len(result))
    ends_in_sigmoid = isinstance([*module.modules()][-1], nn.Sigmoid)  # it may be unused
    share = result.shape[1] == 1 and bool(((result >= 0) & (result <= 1)).all())
    if logits is None and ends_in_sigmoid and share:
        raise InputError(
            "the network returns a probability, and a logit is needed; remove its sigmoid, or give "
            "logits=torch.logit"
        )
    if result.shape[1] > 1 and bool((result >= 0).all()) and torch.allclose(sums, ones):
        raise InputError(
            "the network returns probabilities, and logits are needed; remove its softmax, or give "
            "logits=torch.log"
        )
    if len(outputs) != 1:
        raise InputError(
            f"features: {features} is computed {len(outputs)} times in a pass; name a module that "
            "is computed once"
        )
    output = outputs[0]
    shape = tuple(output.shape) if isinstance(output, Tensor) else ()
    own_head = head or ""
    parts = ModuleParts(own_head, features, in_place=not torch.equal(given, images))
    if len(shape) == 4:
        if shape[1] == shape[2] != shape[3]:
            parts = replace(parts, layout="nhwc")
        if min(shape[1:3] if parts.layout == "nhwc" else shape[2:]) > 1:
            return parts, result.shape[1]
    elif len(shape) == 3:
        last = module.get_submodule(own_head) if own_head else None
        if getattr(last, "in_features", None) == shape[1] != shape[2]:
            raise InputError(
                f"features: {features} returns {shape}, channels before places; name the module "
                "before it, with a grid, or one that returns (B, tokens, channels)"
            )
        for prefix in range(_MOST_PREFIX + 1):
            count = shape[1] - prefix
            if count > 3 and math.isqrt(count) ** 2 == count:
                return replace(parts, layout="tokens", prefix=prefix), result.shape[1]
    raise InputError(
        f"features: {features} returns {shape}, and a grid of at least 2 × 2 cells, or of tokens, "
        "is needed; name another module, or raise input_size"
    )


# Parts that are not named.

# Modules whose output is tried as features, from the last one on: in a vision transformer only the
# class token of the last block counts, and the features are those before it.
_TRIED = 16


def guide_made(
    made: NetworkParts | nn.Module,
    *,
    classes: Sequence[str],
    positive: str | None = None,
    input_size: int | None = None,
    in_chans: int = 3,
    fit: Fit = "squash",
    cam: CamKind = "auto",
    name: str | None = None,
) -> GuidedModel:
    """Guided model of what a factory has made; the parts of a plain module are found.

    The head is the last linear layer, whose output is the logits. The features are the output of
    the last module with a grid that can be guided. Other arguments and errors as in `guide`.
    """
    size = input_size or (made.input_size if isinstance(made, NetworkParts) else 224)
    how: dict[str, Any] = {"classes": classes, "positive": positive, "input_size": size}
    how |= {"in_chans": in_chans, "fit": fit, "cam": cam, "name": name}
    if isinstance(made, NetworkParts):
        how |= {"logits": made.logits, "mean": made.mean, "std": made.std}
        return guide(made.module, made.head, made.features, **how)
    name = name or type(made).__name__
    head, grids = _found(made, size, in_chans, name)
    why = "no module has a grid as its output"
    for features in grids[:_TRIED]:
        try:
            return guide(made, head, features, **how)
        except InputError as error:
            if "logits" in str(error) and "classes" in str(error):  # whatever the features are
                raise
            why = str(error).removeprefix(f"{name}: guidance is refused: ")
    raise InputError(_NOT_FOUND.format(name=name, what="features", why=why))


_NOT_FOUND = (
    "{name}: its {what} cannot be found ({why}); name them: "
    "return preceptor.guide(network, head=…, features=…, classes=…)"
)


def _found(module: nn.Module, input_size: int, in_chans: int, name: str) -> tuple[str, list[str]]:
    """Name of the linear layer that gives the logits, and of modules with grids, last one first."""
    done: list[tuple[str, nn.Module, Tensor]] = []

    def note(inner: str, part: nn.Module, _: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            done.append((inner, part, output))

    handles = [
        part.register_forward_hook(partial(note, inner))
        for inner, part in module.named_modules()
        if inner
    ]
    some = next(module.parameters(), torch.zeros(0))
    images = torch.zeros((1, in_chans, input_size, input_size), dtype=some.dtype)
    try:
        with evaluating(module), torch.no_grad():
            logits = logits_in(module(images.to(some.device)))
    except InputError:
        raise
    except Exception as error:  # anything may be raised by a network of others
        if out_of_memory(error):
            raise
        what = f"it cannot compute images {tuple(images.shape)}: {reason(error, 200)}"
        raise InputError(f"{name}: {what}; check input_size") from error
    finally:
        for handle in handles:
            handle.remove()
    heads = [
        inner
        for inner, part, output in done
        if isinstance(part, nn.Linear) and torch.equal(output, logits)
    ]
    if not heads:
        why = "no linear layer gives its logits"
        raise InputError(_NOT_FOUND.format(name=name, what="classifier", why=why))
    # The outermost of the modules that return the same tensor: it is computed once in a pass.
    grids: dict[tuple[int, ...], str] = {}
    for inner, _, output in done:
        shape = tuple(output.shape)
        if (len(shape) == 4 and sum(size > 1 for size in shape[1:]) == 3) or len(shape) == 3:
            grids.pop(key := (output.data_ptr(), *shape), None)
            grids[key] = inner
    return heads[-1], [*grids.values()][::-1]


@dataclass(frozen=True)
class NetworkParts:
    """Network of a factory, with its parts.

    Args:
        module: Classifier, see `guide`.
        head, features: See `guide`.
        logits: Function that returns the logits for the output of `module`; None = see `guide`.
        input_size: Default side of the input in pixels.
        mean, std: Mean and standard deviation of the input; None = those of ImageNet.
    """

    module: nn.Module
    head: str | None
    features: str
    logits: Callable[[Any], Tensor] | None = None
    input_size: int = 224
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None


Factory = Callable[..., NetworkParts | nn.Module]


def network_factory(function: Factory) -> Factory:
    """Declare a function as a factory of networks, which configs and model folders may name.

    Args:
        function: Function of `num_classes` (number of logits), `in_chans` (number of input
            channels) and further arguments by name, that returns `NetworkParts`, or the network, of
            which the parts are found. It may do without the first two.

    Example:
        >>> @network_factory
        ... def small(num_classes: int, in_chans: int, width: int = 8) -> NetworkParts:
        ...     network = nn.Sequential(
        ...         nn.Conv2d(in_chans, width, 3),
        ...         nn.AdaptiveAvgPool2d(1),
        ...         nn.Flatten(),
        ...         nn.Linear(width, num_classes),
        ...     )
        ...     return NetworkParts(network, head="3", features="0")
    """
    setattr(function, _MARK, True)
    return function


def is_factory(function: object) -> bool:
    """Whether a function is declared by `network_factory`."""
    return getattr(function, _MARK, None) is True


def factory_of(target: str) -> Factory:
    """Factory of this name, package.module:function."""
    name, _, attribute = target.partition(":")
    try:
        module = importlib.import_module(name)
    except Exception as error:  # a module may raise anything when it is imported
        if isinstance(error, ModuleNotFoundError) and error.name in parents_of(name):
            raise InputError(f"network {target}: {missing_module(error.name or name)}") from error
        raise InputError(
            f"network {target}: {name} cannot be imported: {reason(error, 200)}"
        ) from error
    declared: Factory | None = getattr(module, attribute, None)
    if declared is None:
        raise InputError(f"network {target}: {module.__name__} has no {attribute}")
    if not is_factory(declared):
        raise InputError(
            f"network {target}: {attribute} is not declared as a factory; write "
            "@preceptor.network_factory above it"
        )
    return declared


def create_parts(
    target: str, num_classes: int, in_chans: int, arguments: Mapping[str, Any]
) -> NetworkParts | nn.Module:
    """Network of a factory."""
    return called(factory_of(target), target, num_classes, in_chans, arguments)


def called(
    function: Callable[..., Any],
    target: str,
    num_classes: int,
    in_chans: int,
    arguments: Mapping[str, Any],
) -> NetworkParts | nn.Module:
    """Network that a function makes, which is given the number of classes if it takes that."""
    given = {"num_classes": num_classes, "in_chans": in_chans}
    takes = inspect.signature(function).parameters
    if not any(one.kind is inspect.Parameter.VAR_KEYWORD for one in takes.values()):
        given = {key: value for key, value in given.items() if key in takes}
    given |= dict(arguments)
    try:
        made = function(**given)
    except Exception as error:  # anything may be raised by a network of others
        if out_of_memory(error):
            raise
        words = ", ".join(f"{key}={value!r}" for key, value in given.items()) or "no arguments"
        raise InputError(
            f"network {target}: cannot be created with {words}: {reason(error, 200)}"
        ) from error
    if not isinstance(made, NetworkParts | nn.Module):
        raise InputError(
            f"network {target}: returns a {type(made).__name__}; return NetworkParts(module, "
            "head=…, features=…), or the network"
        )
    return made


TORCHVISION = "preceptor.models.custom:torchvision_network"


@network_factory
def torchvision_network(num_classes: int, in_chans: int, model: str) -> nn.Module:
    """Untrained network of torchvision by its name, such as resnet50."""
    if in_chans != 3:
        raise InputError("networks of torchvision have three input channels; use in_chans: 3")
    network: nn.Module = torchvision.models.get_model(model, weights=None, num_classes=num_classes)
    return network
