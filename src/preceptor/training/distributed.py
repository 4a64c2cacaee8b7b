"""Distributed training of one run on several devices, one process each.

Gradients are reduced by DDP between the devices. All other data (lease, errors, sums of metrics,
scores) is exchanged by a second process group between the CPUs, that of `Ranks`, which has no
timeout while the first process decodes a large data set or waits for a lease.
"""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from preceptor.config.training import Training
from preceptor.data.loader import shares
from preceptor.errors import InputError, PreceptorError, RunFailedError
from preceptor.training.fabric import DDPStrategy, Fabric, MisconfigurationException

COLLECTIVE_TIMEOUT = timedelta(days=7)
"""How long the others wait for the first process; where that dies, they know at once."""

T = TypeVar("T")


class RelayedError(PreceptorError):
    """Another process of this run failed; the message has its reason."""


@dataclass(frozen=True)
class Ranks:
    """Process group of a run.

    Args:
        rank: Number of this process, from 0.
        world: Number of processes.
        group: Process group between the CPUs; None for a single process.
    """

    rank: int = 0
    world: int = 1
    group: Any = None

    @property
    def leads(self) -> bool:
        """Whether this is the first process, which holds the lease and writes all files."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """Share of this process of positions, in order."""
        return shares(count, self.world)[self.rank]

    def broadcast_from_first(self, function: Callable[[], T]) -> T:
        """Call a function in the first process and broadcast its result.

        Raises:
            PreceptorError: The function failed; in the other processes a `RelayedError`.
        """
        if self.world == 1:
            return function()
        found: list[Any] = [None, None]
        raised: Exception | None = None
        if self.leads:
            try:
                found[0] = function()
            except Exception as error:
                raised = error
                found[1] = RelayedError(str(error))
        distributed.broadcast_object_list(found, 0, group=self.group)
        if raised is not None:
            raise raised
        if found[1] is not None:
            raise found[1]
        value: T = found[0]
        return value

    def first_then_all(self, function: Callable[[], T]) -> T:
        """Call a function in the first process, which fills the caches, and then in the others.

        Raises:
            PreceptorError: The function failed in this process; if in another, a `RelayedError`.
        """
        if self.world == 1:
            return function()
        kept: list[T] = []

        def call() -> None:
            kept.append(function())

        self.broadcast_from_first(call)
        raised: Exception | None = None
        if not self.leads:
            try:
                call()
            except Exception as error:
                raised = error
        told = self.gather(None if raised is None else RelayedError(str(raised)))
        if raised is not None:
            raise raised
        for elsewhere in told:
            if elsewhere is not None:
                raise elsewhere
        return kept[0]

    def gather(self, value: T) -> list[T]:
        """Gather a value from each process, by rank."""
        if self.world == 1:
            return [value]
        found: list[Any] = [None] * self.world
        distributed.all_gather_object(found, value, group=self.group)
        return found

    def total(self, values: Tensor) -> Tensor:
        """Sum of a CPU tensor over all processes, bit-identical in each."""
        if self.world > 1:
            distributed.all_reduce(values, group=self.group)
        return values


def make_fabric(settings: Training) -> Fabric:
    """Create the Fabric of a run; several processes must then be connected by `join`.

    Raises:
        InputError: The devices do not exist or do not support the precision.
    """
    # The precision and who has joined are no news.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    # Unused parameters are looked for because DDP then leaves its buckets as they are: after its
    # usual rearrangement in the second step three devices or more would add in another order, and
    # a run that goes on from an epoch would differ in its last bits. α = 0 leaves some unused too.
    # Buffers agree without being sent: batch norm is synchronised.
    known = inspect.signature(DistributedDataParallel.__init__).parameters
    buffers = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    options: dict[str, Any] = {"find_unused_parameters": True, buffers: False}
    try:
        fabric = Fabric(
            accelerator=settings.device,
            devices=settings.devices,
            num_nodes=settings.nodes,
            strategy=DDPStrategy(**options) if settings.processes > 1 else "auto",
            precision=settings.speed.precision,
        )
    except (MisconfigurationException, ValueError, RuntimeError) as error:
        raise InputError(
            f"training.device {settings.device}, training.devices {settings.devices}: "
            f"{' '.join(str(error).split())}"
        ) from error
    # lightning-fabric would use bf16 on a CPU, although the id contains another precision.
    if settings.speed.precision == "16-mixed" and fabric.device.type == "cpu":
        raise InputError(
            "training.precision is 16-mixed, which a CPU does not support; set it to "
            "bf16-mixed or 32-true, or use a GPU"
        )
    return fabric


def join(settings: Training) -> tuple[Fabric, Ranks]:
    """Connect the processes of a run.

    Raises:
        InputError: The devices do not exist, or the launcher started another number of processes.
        RunFailedError: The other processes were not found.
    """
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    fabric = make_fabric(settings)
    try:
        fabric.launch()
        group = distributed.new_group(backend="gloo", timeout=COLLECTIVE_TIMEOUT)
    except ValueError as error:  # raised by Fabric if the launcher disagrees with the config
        raise InputError(f"training.devices: {' '.join(str(error).split())}") from error
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise RunFailedError(f"the processes of this run cannot connect: {reason}") from error
    return fabric, Ranks(fabric.global_rank, fabric.world_size, group)


class Shared(nn.Module):
    """Module that DDP wraps, whose outputs carry only the gradients that the loss uses.

    DDP waits for the gradient of every parameter that its outputs depend on.

    Args:
        model: A `GuidedModel`.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        images: Tensor,
        saliency_for: Any = None,
        *,
        decision: bool = False,
        maps_alone: bool = False,
    ) -> NamedTuple:
        """Forward pass of the model; with `maps_alone`, only the maps carry gradients."""
        out = self.model(images, saliency_for, decision=decision)
        if maps_alone:
            out = out._replace(logits=out.logits.detach(), features=out.features.detach())
        found: NamedTuple = out
        return found


def lost(error: BaseException) -> bool:
    """Whether an error of torch means that another process of the run is gone."""
    if isinstance(error, distributed.DistError):
        return True
    words = ("gloo", "Connection closed by peer", "Connection reset by peer")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)
