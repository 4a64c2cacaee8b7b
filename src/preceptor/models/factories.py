"""Factories of networks from outside timm: functions that are named in configs and model folders.

A model folder names the factory of its network. Loading it imports the module and calls the
function, but only one that is declared as a factory by `network_factory`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import timm
from torch import Tensor, nn

from preceptor.config.network import NetworkFactory
from preceptor.errors import InputError, reason
from preceptor.models.find_parts import Part
from preceptor.runtime.memory import out_of_memory
from preceptor.runtime.module_names import missing_module, parents_of
from preceptor.runtime.plugins import plugin

_MARK = "_preceptor_network_factory"


@dataclass(frozen=True)
class NetworkParts:
    """Network of a factory, where more than the module has to be said.

    Args:
        module: Classifier, see `guide`.
        head, features: See `guide`; None = searched for.
        logits: Function that returns the logits for the output of `module`; None = see `guide`.
        input_size: Default side of the input in pixels.
        mean, std: Mean and standard deviation of the input; None = those of ImageNet.
    """

    module: nn.Module
    head: Part | None = None
    features: Part | None = None
    logits: Callable[[Any], Tensor] | None = None
    input_size: int = 224
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None


Factory = Callable[..., nn.Module | NetworkParts]


def network_factory(function: Factory) -> Factory:
    """Declare a function as a factory of networks, which configs and model folders may name.

    Args:
        function: Function of `num_classes` (number of logits), `in_chans` (number of input
            channels) and further arguments by name, that returns a classifier or `NetworkParts`.

    Example:
        >>> @network_factory
        ... def small(num_classes: int, in_chans: int, width: int = 8) -> nn.Module:
        ...     return nn.Sequential(
        ...         nn.Conv2d(in_chans, width, 3),
        ...         nn.AdaptiveAvgPool2d(1),
        ...         nn.Flatten(),
        ...         nn.Linear(width, num_classes),
        ...     )
    """
    setattr(function, _MARK, True)
    return function


def factory_of(target: str) -> Factory:
    """Factory of this name.

    Args:
        target: package.module:function.

    Raises:
        InputError: The module cannot be imported, or has no such factory.
    """
    name, _, attribute = target.partition(":")
    try:
        module = importlib.import_module(name)
    except Exception as error:  # a module may raise anything when it is imported
        if isinstance(error, ModuleNotFoundError) and error.name in parents_of(name):
            raise InputError(f"network {target}: {missing_module(error.name or name)}") from error
        raise InputError(
            f"network {target}: {name} cannot be imported: {reason(error, 200)}"
        ) from error
    found = getattr(module, attribute, None)
    if found is None:
        raise InputError(f"network {target}: {module.__name__} has no {attribute}")
    if getattr(found, _MARK, None) is not True:
        raise InputError(
            f"network {target}: {attribute} is not declared as a factory; write "
            "@preceptor.network_factory above it"
        )
    declared: Factory = found
    return declared


def resolved_network(
    backbone: str, network: NetworkFactory | None, arguments: Mapping[str, Any]
) -> NetworkFactory | None:
    """Factory of a backbone: that of the config, or of a plugin with its name; None = timm's.

    Args:
        backbone: Name of the backbone.
        network: Factory of the config.
        arguments: Arguments of the backbone, for plugins.
    """
    if network is not None or timm.is_model(backbone):
        return network
    found = plugin("preceptor.backbones", backbone)
    return None if found is None else NetworkFactory(factory=found.value, args=dict(arguments))


def create_parts(
    target: str, num_classes: int, in_chans: int, arguments: Mapping[str, Any]
) -> NetworkParts:
    """Network of a factory.

    Raises:
        InputError: The factory does not exist, does not take the arguments, or does not return a
            network.
    """
    factory = factory_of(target)
    try:
        made = factory(num_classes=num_classes, in_chans=in_chans, **arguments)
    except Exception as error:  # anything may be raised by a network of others
        if out_of_memory(error):
            raise
        given = {"num_classes": num_classes, "in_chans": in_chans} | dict(arguments)
        words = ", ".join(f"{key}={value!r}" for key, value in given.items())
        raise InputError(
            f"network {target}: cannot be created with {words}: {reason(error, 200)}"
        ) from error
    if isinstance(made, nn.Module):
        return NetworkParts(made)
    if isinstance(made, NetworkParts):
        return made
    raise InputError(
        f"network {target}: returns a {type(made).__name__}; return a torch module, or NetworkParts"
    )
