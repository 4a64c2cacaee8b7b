"""Tied weights: a tensor that a network has under several names."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def separate(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors of which no two share memory, as safetensors stores them.

    A file then has a tied weight under each of its names, and can be loaded by any network.

    Args:
        state: Tensors by name, such as a state dict.

    Example:
        >>> import torch
        >>> weight = torch.ones(2)
        >>> found = separate({"one": weight, "other": weight})
        >>> found["one"].data_ptr() == found["other"].data_ptr(), found["other"].tolist()
        (False, [1.0, 1.0])
    """
    seen = set()
    found = {}
    for key, value in state.items():
        tensor = value.detach().contiguous()
        place = (tensor.device, tensor.untyped_storage().data_ptr())
        found[key] = tensor.clone() if place in seen else tensor
        seen.add(place)
    return found


def with_tied(given: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Given tensors, and those of tied weights that are given under another name.

    Files of other programs have a tied weight only once.

    Args:
        given: Tensors of a file by name.
        own: State dict of the network.

    Example:
        >>> import torch
        >>> weight = torch.ones(2)
        >>> sorted(with_tied({"one": torch.zeros(2)}, {"one": weight, "other": weight}))
        ['one', 'other']
    """
    names = {_place(value): key for key, value in own.items() if key in given}
    tied = {
        key: given[names[place]] for key, value in own.items() if (place := _place(value)) in names
    }
    return tied | dict(given)


def _place(tensor: Tensor) -> tuple[object, ...]:
    """The same for tensors with the same values in memory."""
    return tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride()
