"""The context of a run in progress."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from preceptor.config.run import RunConfig
from preceptor.errors import DeviceFullError, PreceptorError, RunFailedError
from preceptor.runtime.leases import Lease


@dataclass(frozen=True)
class RunContext:
    """Run in progress: config, folder and lease.

    Args:
        config: Config of the run.
        folder: Run folder.
        held: Lease of the folder.
        tell: Function that receives messages.
        tell_epoch: Function that receives the summary line of each epoch.
        exclusive: Whether no other step uses the device, see `train`.
    """

    config: RunConfig
    folder: Path
    held: Lease
    tell: Callable[[str], None]
    tell_epoch: Callable[[str], None]
    exclusive: bool

    @property
    def id(self) -> str:
        """Id of the run."""
        return self.folder.name

    @property
    def state(self) -> Path:
        """Checkpoint file."""
        return self.folder / "resume.safetensors"

    def check(self) -> None:
        """Check, before writing results, that no other process has taken over the lease."""
        self.held.check()

    def out_of_memory(self, images: int | None = None) -> PreceptorError:
        """Error of a run that runs out of memory even with micro-batches of `images` images."""
        settings = self.config.training
        given = f"batch_size {settings.batch_size}"
        given += f", input_size {settings.input_size}" if settings.input_size else ""
        if not self.exclusive:
            return DeviceFullError(f"run {self.id}: out of memory on a shared device ({given})")
        even = f" even with {images} image{'s' * (images > 1)} at a time" if images else ""
        return RunFailedError(
            f"run {self.id}: out of memory{even} ({given}); lower input_size, or take a smaller "
            "backbone or a device with more memory"
        )
