"""Checkpoint of an unfinished run as one safetensors file: weights, optimizer, best epoch."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from preceptor.models.networks import separate
from preceptor.utils.files import replacing, tensors_to
from preceptor.utils.results import strict_json, with_nan


@dataclass
class Progress:
    """Progress of a run after an epoch."""

    epoch: int = 0  # number of finished epochs (or periods)
    history: list[dict[str, float]] = field(default_factory=list)  # metrics, one dict per epoch
    best_score: float = float("-inf")  # score of the selected epoch so far; higher is better
    best_epoch: int = -1  # number of the selected epoch, from 0; −1 before the first
    best_state: dict[str, Tensor] = field(default_factory=dict)
    seconds: float = 0.0  # training time so far, over all interruptions
    parts: int = 1  # number of micro-batches per batch
    scaler: dict[str, Any] = field(default_factory=dict)


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """Copy of a model's weights on the CPU."""
    return {key: value.detach().cpu().clone() for key, value in model.state_dict().items()}


def save_progress(
    path: Path, run: str, progress: Progress, model: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Write the checkpoint of a run after an epoch, atomically."""
    tensors = {f"model.{key}": value for key, value in model.state_dict().items()}
    tensors |= {f"best.{key}": value for key, value in progress.best_state.items()}
    numbers: dict[str, dict[str, float]] = {}
    for index, entries in optimizer.state_dict()["state"].items():
        for name, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{index}.{name}"] = value
            elif value is not None:
                numbers.setdefault(str(index), {})[name] = value
    kept = {key: value for key, value in vars(progress).items() if key != "best_state"}
    state = kept | {"run": run, "optimizer": numbers}
    with replacing(path) as partial, tensors_to(partial):
        save_file(
            separate({key: value.cpu() for key, value in tensors.items()}),
            partial,
            metadata={"state": strict_json(state, indent=None)},
        )


def load_progress(
    path: Path, run: str, model: nn.Module, optimizer: torch.optim.Optimizer
) -> Progress:
    """Restore model and optimizer from the checkpoint of a run, if there is a sound one."""
    if not path.is_file():
        return Progress()
    try:
        with safe_open(path, "pt") as file:
            state = json.loads(file.metadata()["state"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        owner, numbers = state.pop("run"), state.pop("optimizer")
        history, best = list(map(with_nan, state.pop("history"))), state.pop("best_score")
        progress = Progress(history=history, **state)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError):
        return Progress()
    if owner != run:
        return Progress()
    progress.best_score = float("-inf") if best is None else best

    def part(prefix: str) -> dict[str, Tensor]:
        return {
            key.removeprefix(prefix): value
            for key, value in tensors.items()
            if key.startswith(prefix)
        }

    model.load_state_dict(part("model."))
    entries: dict[int, dict[str, Any]] = {}
    for key, value in part("optimizer.").items():
        index, name = key.split(".", 1)
        entries.setdefault(int(index), {})[name] = value
    for index, values in numbers.items():
        entries.setdefault(int(index), {}).update(values)
    optimizer.load_state_dict(
        {"state": entries, "param_groups": optimizer.state_dict()["param_groups"]}
    )
    progress.best_state = part("best.")
    return progress
