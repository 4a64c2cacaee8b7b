"""State of an unfinished RISE estimation, from which it continues with the same bits."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from preceptor.utils.files import replacing, tensors_to


class RiseState(NamedTuple):
    """Sums over the blocks of masks so far.

    Args:
        blocks: () int64 number of blocks.
        total: (B, h, w) float64 sum of the block maps.
        squares: (B,) float64 sum of the squared norms of the block maps without their means.
        used: (B,) int64 number of model evaluations.
        error: (B,) float64 estimated error.
        active: (n,) int64 images that are not finished.
    """

    blocks: Tensor
    total: Tensor
    squares: Tensor
    used: Tensor
    error: Tensor
    active: Tensor

    @classmethod
    def empty(cls, count: int, grid: tuple[int, int]) -> RiseState:
        """State before the first block.

        Args:
            count: Number of images.
            grid: Height and width of the maps.
        """
        return cls(
            torch.tensor(0),
            torch.zeros(count, *grid, dtype=torch.float64),
            torch.zeros(count, dtype=torch.float64),
            torch.zeros(count, dtype=torch.int64),
            torch.ones(count, dtype=torch.float64),
            torch.arange(count),
        )

    def to(self, device: torch.device) -> RiseState:
        """A copy on a device."""
        return RiseState(*(one.to(device, copy=True) for one in self))


def write_state(path: Path, state: RiseState) -> None:
    """Replace a file of a state.

    Args:
        path: safetensors file.
        state: State on the CPU.

    Raises:
        OSError: The file cannot be written.
    """
    with replacing(path, flush=False) as partial, tensors_to(partial):
        save_file(state._asdict(), partial)


def read_state(path: Path) -> RiseState | None:
    """State of a file, on the CPU; None if there is none, or a damaged one."""
    try:
        return RiseState(**load_file(path))
    except (SafetensorError, OSError, TypeError):
        return None
