"""The state of an unfinished run, as one safetensors file: weights, optimiser, best epoch."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from preceptor.runtime.replace_file import replacing
from preceptor.runtime.strict_json import strict_json, with_nan


@dataclass
class Progress:
    """Where a run stands after an epoch.

    Args:
        epoch: Epochs (or periods) finished.
        history: One dict of metrics an epoch.
        best_score: Of the epoch kept so far; higher is better.
        best_epoch: Its number, from 0; −1 before the first.
        best_state: Its weights, on the CPU.
        seconds: Training time so far, over all interruptions.
        parts: In how many parts each batch is computed, for want of memory.
        scaler: The scale of 16-bit gradients, see `preceptor.models.precision`.
    """

    epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    best_score: float = float("-inf")
    best_epoch: int = -1
    best_state: dict[str, Tensor] = field(default_factory=dict)
    seconds: float = 0.0
    parts: int = 1
    scaler: dict[str, Any] = field(default_factory=dict)


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """A copy of a model's weights on the CPU."""
    return {key: value.detach().cpu().clone() for key, value in model.state_dict().items()}


def save_progress(
    path: Path, run: str, progress: Progress, model: nn.Module, optimiser: torch.optim.Optimizer
) -> None:
    """Write the state of run `run` after an epoch; the old state stays until the new is whole."""
    tensors = {f"model.{key}": value for key, value in model.state_dict().items()}
    tensors |= {f"best.{key}": value for key, value in progress.best_state.items()}
    numbers: dict[str, dict[str, float]] = {}
    for index, entries in optimiser.state_dict()["state"].items():
        for name, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"optimiser.{index}.{name}"] = value
            elif value is not None:
                numbers.setdefault(str(index), {})[name] = value
    state = {
        "run": run,
        "epoch": progress.epoch,
        "history": progress.history,
        "best_score": progress.best_score,
        "best_epoch": progress.best_epoch,
        "seconds": progress.seconds,
        "parts": progress.parts,
        "scaler": progress.scaler,
        "optimiser": numbers,
    }
    with replacing(path) as partial:
        save_file(
            {key: value.detach().cpu().contiguous() for key, value in tensors.items()},
            partial,
            metadata={"state": strict_json(state, indent=None)},
        )


def load_progress(
    path: Path, run: str, model: nn.Module, optimiser: torch.optim.Optimizer
) -> Progress:
    """Bring model and optimiser to where run `run` stopped; a fresh start if it left nothing.

    In order: (1) no file, (2) a file of another run or a damaged one: start afresh;
    (3) a state of this run: weights, optimiser and best epoch are restored.
    """
    if not path.is_file():
        return Progress()
    try:
        with safe_open(path, "pt") as file:
            state = json.loads(file.metadata()["state"])
            owner, parts, scaler = state["run"], state["parts"], state["scaler"]
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, KeyError, TypeError):
        return Progress()
    if owner != run:
        return Progress()

    def part(prefix: str) -> dict[str, Tensor]:
        return {
            key.removeprefix(prefix): value
            for key, value in tensors.items()
            if key.startswith(prefix)
        }

    model.load_state_dict(part("model."))
    entries: dict[int, dict[str, Any]] = {}
    for key, value in part("optimiser.").items():
        index, name = key.split(".", 1)
        entries.setdefault(int(index), {})[name] = value
    for index, values in state["optimiser"].items():
        entries.setdefault(int(index), {}).update(values)
    optimiser.load_state_dict(
        {"state": entries, "param_groups": optimiser.state_dict()["param_groups"]}
    )
    return Progress(
        epoch=state["epoch"],
        history=[with_nan(row) for row in state["history"]],
        best_score=float("-inf") if state["best_score"] is None else state["best_score"],
        best_epoch=state["best_epoch"],
        best_state=part("best."),
        seconds=state["seconds"],
        parts=parts,
        scaler=scaler,
    )
