"""The context of a run in progress."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from preceptor.config.run import RunConfig
from preceptor.errors import DeviceFullError, PreceptorError, RunFailedError
from preceptor.runtime.leases import Lease
from preceptor.training.distributed import Ranks


@dataclass(frozen=True)
class RunContext:
    """A run in progress: its config, its folder, and the processes that compute it.

    Args:
        config: The run.
        folder: The run folder.
        ranks: The processes.
        held: The lease of the folder, in the first process; None in the others.
        tell: Receives messages, in the first process.
        tell_epoch: Receives the summary line of each epoch, in the first process.
        exclusive: As of `train`.
    """

    config: RunConfig
    folder: Path
    ranks: Ranks
    held: Lease | None
    tell: Callable[[str], None]
    tell_epoch: Callable[[str], None]
    exclusive: bool

    @property
    def id(self) -> str:
        """The run's id."""
        return self.folder.name

    @property
    def state(self) -> Path:
        """The file of the state after the last epoch, for a run that was interrupted."""
        return self.folder / "resume.safetensors"

    def check(self) -> None:
        """Refuse to write what others read, where another process has taken over the lease."""
        assert self.held is not None
        self.held.check()

    def out_of_memory(self, images: int | None = None) -> PreceptorError:
        """The error of a run that does not fit into memory, not even `images` at a time."""
        settings = self.config.training
        given = f"batch_size {settings.batch_size}"
        given += f", input_size {settings.input_size}" if settings.input_size else ""
        if not self.exclusive:
            return DeviceFullError(f"run {self.id}: out of memory on a shared device ({given})")
        if self.ranks.world > 1:
            return RunFailedError(
                f"run {self.id}: out of memory on device {self.ranks.rank + 1} of "
                f"{self.ranks.world} ({given}); lower batch_size or take more devices"
            )
        even = f" even with {images} image{'s' * (images > 1)} at a time" if images else ""
        return RunFailedError(
            f"run {self.id}: out of memory{even} ({given}); lower input_size, or take a smaller "
            "backbone or a device with more memory"
        )
