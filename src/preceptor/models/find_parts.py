"""Search for the head and the features of a network from outside timm.

Modules are observed during one forward pass. The head is the linear layer whose output is the
logits; the features are the last output with a spatial grid before it, unless it only weights an
earlier output on the same grid, as the score of an attention pooling does.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from preceptor.errors import InputError, reason
from preceptor.models.autograd_graph import depends_beside
from preceptor.models.module_network import logits_in
from preceptor.models.probability_outputs import check_logits
from preceptor.models.spec import ModuleParts
from preceptor.runtime.memory import out_of_memory
from preceptor.runtime.modes import evaluating

Part = str | Callable[[nn.Module], nn.Module]
"""A module of a network: its dotted name, or a function that returns it for the network."""

_MOST_PREFIX = 8  # tokens before those of the image: a class token, distillation, registers
_LISTS = (nn.Sequential, nn.ModuleList)
_RANDOM = 1e-4  # largest difference ÷ logit of two passes of a network that is not random
_TOLERANCE = 1e-3  # of the identity on one pass; the exact check follows


@dataclass(frozen=True)
class FoundParts:
    """Parts of a network.

    Args:
        outputs: Number of logits of an image.
        exact: Parts whose mean features and head give the logits; [] = none.
        others: All parts in the order in which they are tried: the last features first; after them
            those that are bypassed by an earlier output on the same grid, or have one channel and
            are bypassed.
    """

    outputs: int
    exact: list[ModuleParts]
    others: list[ModuleParts]


@dataclass(frozen=True, eq=False)
class _Call:
    """Call of a module.

    Args:
        name: Dotted name.
        module: The module.
        output: Its output.
        node: Node of the output in the graph of autograd; None without a graph.
    """

    name: str
    module: nn.Module
    output: Tensor
    node: Any


def find_parts(
    module: nn.Module,
    images: Tensor,
    *,
    head: Part | None = None,
    features: Part | None = None,
    logits: Callable[[Any], Tensor] | None = None,
) -> FoundParts:
    """Head and features of a classifier.

    Args:
        module: The classifier; evaluated on `images`, and otherwise not changed.
        images: (B, C, H, W) with H = W and B > 1.
        head: Linear classifier; None = searched for.
        features: Module whose output is the features; None = searched for.
        logits: Function that returns the logits for the output of `module`.

    Raises:
        InputError: The network cannot be computed, is not deterministic, or lacks a named part; or
            no module returns features with a grid of at least 2 × 2 cells.
    """
    names = {id(part): name for name, part in module.named_modules()}
    wanted_head, wanted = (
        None if part is None else _name_of(module, names, part, what)
        for part, what in ((head, "head"), (features, "features"))
    )
    if any(value.is_meta for value in (*module.parameters(), *module.buffers())):
        raise InputError(
            "the network has weights on the meta device, without values; load them, or create "
            "it on a real device"
        )
    select = logits_in if logits is None else logits
    with evaluating(module), torch.no_grad():
        calls, result, in_place = _observed(module, images, select)
        again = _computed(module, images.clone(), select)
    gap = (result - again).abs().max()  # not always 0 on a GPU
    if not bool(gap <= _RANDOM * result.abs().max()):
        raise InputError(
            "the network is not deterministic in evaluation mode: two passes of the same images "
            "give different logits; remove what is random, or switch it off in eval()"
        )
    if result.ndim != 2 or len(result) != len(images):
        raise InputError(
            f"the logits have shape {tuple(result.shape)}, and one row per image is needed "
            f"({len(images)}, classes); select them: logits=lambda output: …"
        )
    check_logits(result, ((call.module, call.output) for call in calls))
    counts = Counter(call.name for call in calls)
    found_head = wanted_head if wanted_head is not None else _head_in(calls, result)
    head_call = next((call for call in calls if call.name == found_head), None)
    if head_call is not None and wanted is None:
        calls = calls[: calls.index(head_call)]
    exact, others = [], []
    flat = _flattened(calls)
    listed = {name for name, part in module.named_modules() if isinstance(part, _LISTS)}
    for call in reversed(calls):
        if wanted is not None and call.name != wanted:
            continue
        parts = None if id(call) in flat else _parts_of(call, found_head, images)
        if counts[call.name] > 1 or (parts is None and wanted is None):
            continue
        if parts is None:
            raise InputError(
                f"features: {call.name} returns {tuple(call.output.shape)}, and a grid of at "
                "least 2 × 2 cells, or of tokens, is needed; name another module"
            )
        parts = replace(parts, in_place=in_place)
        if wanted is not None or not _is_inner(call.name, parts, listed):
            others.append(parts)
        if head_call is not None and _is_exact(call, parts, head_call):
            exact.append(parts)
    if not others:
        raise InputError(_nothing_found(wanted, counts, images))
    if wanted is None:
        others = _in_order(module, images, select, others, calls)
    return FoundParts(result.shape[1], exact, others)


def _name_of(module: nn.Module, names: dict[int, str], part: Part, what: str) -> str:
    """Dotted name of a part."""
    if isinstance(part, str):
        known = set(names.values()) - {""}
        if part not in known:
            top = ", ".join(sorted({one.split(".")[0] for one in known})[:8])
            raise InputError(f"{what}: the network has no module {part!r}; it has {top}")
        return part
    chosen = part(module)
    if not names.get(id(chosen)):
        raise InputError(f"{what}: the function returned no module inside the network")
    return names[id(chosen)]


def _observed(
    module: nn.Module, images: Tensor, select: Callable[[Any], Tensor]
) -> tuple[list[_Call], Tensor, bool]:
    """Calls in the order in which they end, the logits, and whether the input was changed."""
    calls: list[_Call] = []

    def note(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(part: nn.Module, _: Any, output: Any) -> None:
            first = output[0] if type(output) is tuple and output else output
            if isinstance(first, Tensor) and first.ndim >= 2 and len(first) == len(images):
                calls.append(_Call(name, part, first, first.grad_fn))

        return hook

    handles = [
        part.register_forward_hook(note(name)) for name, part in module.named_modules() if name
    ]
    given = images.clone()
    try:
        result = _computed(module, given, select)
    finally:
        for handle in handles:
            handle.remove()
    return calls, result, not torch.equal(given, images)


def _computed(module: nn.Module, images: Tensor, select: Callable[[Any], Tensor]) -> Tensor:
    """Logits of images, which the network may change."""
    try:
        result = select(module(images))
    except InputError:
        raise
    except Exception as error:  # anything may be raised by a network of others
        if out_of_memory(error):
            raise
        raise InputError(
            f"the network cannot compute images {tuple(images.shape)}: {reason(error, 200)}"
        ) from error
    if not isinstance(result, Tensor):
        raise InputError(f"logits: the function returned a {type(result).__name__}, not a tensor")
    return result


def _head_in(calls: list[_Call], result: Tensor) -> str:
    """Name of the linear layer whose output is the logits; "" for none or several."""
    found = [
        call.name
        for call in calls
        if isinstance(call.module, nn.Linear)
        and call.output.shape == result.shape
        and torch.equal(call.output, result)
    ]
    return found[0] if len(found) == 1 else ""


def _flattened(calls: list[_Call]) -> set[int]:
    """Ids of the calls that flatten the places of an earlier output: (B, Ch, h·w), not tokens."""
    found, grids = set(), []
    for call in calls:
        if call.output.ndim == 4:
            grids.append(call.output)
        elif call.output.ndim == 3 and any(
            grid.shape[:2] == call.output.shape[:2]
            and grid.shape[2:].numel() == call.output.shape[2]
            and torch.equal(grid.flatten(2), call.output)
            for grid in grids
        ):
            found.add(id(call))
    return found


def _in_order(
    module: nn.Module,
    images: Tensor,
    select: Callable[[Any], Tensor],
    parts: list[ModuleParts],
    calls: list[_Call],
) -> list[ModuleParts]:
    """Parts in the order in which they are tried, see `FoundParts`."""
    shapes = {call.name: tuple(call.output.shape) for call in calls}
    sizes = {one.features: _size(one, shapes[one.features]) for one in parts}
    leaf = images.clone().requires_grad_()
    try:
        with evaluating(module), torch.enable_grad():
            again, result, _ = _observed(module, leaf, select)
    except InputError:  # it can be computed without gradients only
        again, bypassed = [], dict.fromkeys(sizes, False)
    else:
        nodes = {call.name: call.node for call in again}
        bypassed = {}
        for name in sizes:
            bypassed[name] = depends_beside(result, nodes[name], leaf)
            if not any(bypassed.values()):  # the usual case: nothing is to be moved
                break
    whole = {sizes[name][1:] for name, beside in bypassed.items() if not beside}

    def rank(one: ModuleParts) -> int:
        channels, *grid = sizes[one.features]
        if not bypassed.get(one.features, False):
            return 0
        return 2 if channels == 1 else int(tuple(grid) in whole)

    return sorted(parts, key=rank)


def _size(parts: ModuleParts, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Channels, height and width of features of this shape."""
    if parts.layout == "nchw":
        return shape[1], shape[2], shape[3]
    if parts.layout == "nhwc":
        return shape[3], shape[1], shape[2]
    side = math.isqrt(shape[1] - parts.prefix)
    return shape[2], side, side


def _parts_of(call: _Call, head: str, images: Tensor) -> ModuleParts | None:
    """Parts with the output of a call as features; None if it has no grid."""
    shape = tuple(call.output.shape)
    if not call.output.is_floating_point():
        return None
    if len(shape) == 4:
        wide = images.shape[-1] == images.shape[-2] and shape[1] == shape[2] != shape[3]
        layout: Literal["nchw", "nhwc"] = "nhwc" if wide else "nchw"
        grid = shape[1:3] if wide else shape[2:]
        return ModuleParts(head, call.name, layout) if min(grid) > 1 else None
    if len(shape) == 3:
        for prefix in range(_MOST_PREFIX + 1):
            count = shape[1] - prefix
            if count > 3 and math.isqrt(count) ** 2 == count:
                return ModuleParts(head, call.name, "tokens", prefix)
    return None


def _is_inner(name: str, parts: ModuleParts, listed: set[str]) -> bool:
    """Whether features are tokens inside a block: they lack what bypasses the inner layer."""
    if parts.layout != "tokens":
        return False
    parents = [name[:place] for place, letter in enumerate(name) if letter == "."]
    return bool(parents) and parents[-1] not in listed and any(one in listed for one in parents)


def _is_exact(call: _Call, parts: ModuleParts, head: _Call) -> bool:
    """Whether the head on the mean features gives the output of the head."""
    linear = head.module
    if not isinstance(linear, nn.Linear):
        return False
    output = call.output
    if parts.layout == "nchw":
        mean = output.mean((2, 3))
    elif parts.layout == "nhwc":
        mean = output.mean((1, 2))
    else:
        mean = output[:, parts.prefix :].mean(1)
    if mean.shape[1] != linear.in_features:
        return False
    expected = head.output
    gap = (linear(mean) - expected).abs().max()
    return bool(gap <= _TOLERANCE * expected.abs().max().clamp_min(1e-12))


def _nothing_found(wanted: str | None, counts: Counter[str], images: Tensor) -> str:
    if wanted is None:
        return (
            "no module returns features with a grid of at least 2 × 2 cells for images of "
            f"{images.shape[-1]} px; raise input_size, or name the module: features="
        )
    if not counts[wanted]:
        return (
            f"features: {wanted} returns no tensor with one row per image; name a module inside it"
        )
    return f"features: {wanted} is called {counts[wanted]} times in a pass; name one called once"
