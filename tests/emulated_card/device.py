"""Emulated card: tensors of the device "cuda" whose values the CPU computes.

With torch's CPU build and `card.cpp`, a process trains, predicts and makes maps "on a card". What
this shows without one: no operation mixes the two devices, nothing is created on the wrong one, and
every branch for a card runs. What it does not show: CUDA's kernels, their rounding and order of
summation, streams and memory.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

CARD = torch.device("cuda:0")
ATEN = torch.ops.aten
# Operations that take tensors of both devices: copies, and positions that lie on the CPU.
MIXED = {
    ATEN.copy_.default,
    ATEN._to_copy.default,
    ATEN.index.Tensor,
    ATEN.index_put.default,
    ATEN.index_put_.default,
    ATEN._index_put_impl_.default,
}


class CardTensor(torch.Tensor):
    """Tensor of the card; `inner` has its values on the CPU."""

    inner: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> CardTensor:
        made: CardTensor = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=CARD,
        )
        made.inner = inner
        return made

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["inner"], None  # modules then exchange their parameters when they are moved

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, torch.Tensor], *_: Any) -> CardTensor:
        return CardTensor(inner["inner"])

    def untyped_storage(self) -> torch.UntypedStorage:
        return self.inner.untyped_storage()  # compared by what writes files

    def __repr__(self) -> str:  # type: ignore[override]
        return f"CardTensor({self.inner!r})"

    @classmethod
    def __torch_dispatch__(
        cls, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return compute(function, args, kwargs or {})


class Factories(TorchDispatchMode):
    """Mode in which tensors can be created on the card and copied to it."""

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return compute(function, args, kwargs or {})


def compute(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Compute an operation on the CPU; its result is on the card if its arguments or `device` are.

    Raises:
        RuntimeError: Tensors are on both devices, where a card would refuse them.
    """
    if function is ATEN._pin_memory.default:
        return args[0].clone()
    on_card: dict[int, CardTensor] = {}
    elsewhere = False

    def values_of(part: Any) -> Any:
        nonlocal elsewhere
        if isinstance(part, CardTensor):
            on_card[id(part.inner)] = part
            return part.inner
        if isinstance(part, torch.Tensor):
            elsewhere = elsewhere or part.ndim > 0
        elif isinstance(part, list | tuple) and part and not isinstance(part[0], int):
            return type(part)(map(values_of, part))
        return part

    args = tuple(map(values_of, args))
    kwargs = {name: values_of(part) for name, part in kwargs.items()}
    if on_card and elsewhere and function not in MIXED:
        raise RuntimeError(f"Expected all tensors to be on the same device: {function}")
    wanted = kwargs.get("device")
    there = bool(on_card) if wanted is None else torch.device(wanted).type == "cuda"
    if wanted is not None:
        kwargs["device"] = torch.device("cpu")
    if kwargs.get("pin_memory"):
        kwargs["pin_memory"] = False
    found = function(*args, **kwargs)

    def on_the_card(part: Any) -> Any:
        if isinstance(part, torch.Tensor):
            same = on_card.get(id(part))  # of an operation in place
            return CardTensor(part) if same is None else same
        return type(part)(map(on_the_card, part)) if isinstance(part, list | tuple) else part

    return on_the_card(found) if there else found


class Stream:
    """Stream whose work is done when it is given."""

    def __init__(self, *_: Any) -> None: ...

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None: ...

    def record_event(self) -> None: ...

    def wait_event(self, event: None) -> None: ...


class Pool(ThreadPoolExecutor):
    """Threads in which tensors can be created on the card."""

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        def call() -> Any:
            with Factories():
                return function(*args, **kwargs)

        return super().submit(call)


class Properties:
    """Properties of the card."""

    name, total_memory, major, minor, multi_processor_count = "emulated card", 2**34, 8, 0, 1


class Context:
    """Whether something was computed on the card, as torch then initializes it."""

    used = False

    def use(self, *_: Any) -> None:
        self.used = True

    def reset_peak(self, *_: Any) -> None:
        if not self.used:
            raise RuntimeError("Allocator not initialized for device 0: did you call init?")


def install() -> None:
    """Make torch find one card in this process."""
    from preceptor.data import loader as stream

    stream.ThreadPoolExecutor = Pool  # type: ignore[misc]
    cuda, context = torch.cuda, Context()

    def nothing(*_: Any, **__: Any) -> None: ...

    replaced: dict[str, Any] = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "is_initialized": lambda: context.used,
        "_lazy_init": context.use,
        "reset_peak_memory_stats": context.reset_peak,
        "current_device": lambda: 0,
        "current_stream": Stream,
        "stream": lambda found: found,
        "Stream": Stream,
        "get_device_properties": lambda *_: Properties(),
        "get_device_capability": lambda *_: (8, 0),
        "get_device_name": lambda *_: Properties.name,
        "is_bf16_supported": lambda *_, **__: True,
        "max_memory_reserved": lambda *_: 2**20,
        "max_memory_allocated": lambda *_: 2**20,
        "mem_get_info": lambda *_: (2**34, 2**34),
    }
    idle = ("synchronize", "empty_cache", "set_device")
    for name, function in (replaced | dict.fromkeys(idle, nothing)).items():
        setattr(cuda, name, function)
    # torch.tensor makes a tensor of the CPU first, and then copies it, as under FakeTensorMode.
    torch._C._set_only_lift_cpu_tensors(True)
    torch.Tensor.record_stream = nothing  # type: ignore[method-assign,assignment]


def check() -> None:
    """Check that tensors of both devices are told apart, and that an operation may not mix them."""
    with Factories():
        here, there = torch.ones(3), torch.ones(3, device="cuda")
        assert there.is_cuda
        assert (there + torch.tensor([1.0, 2.0, 3.0], device=CARD)).is_cuda
        assert not there.cpu().is_cuda
        assert here.to("cuda").add(there).sum().item() == 6
        with pytest.raises(RuntimeError, match="same device"):
            here.add(there)
