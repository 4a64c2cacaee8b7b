"""What a training keeps: its checkpoint, the metrics of its epochs, and its record (`run.json`)."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from preceptor.config.training import Training
from preceptor.errors import InputError
from preceptor.metrics.split_names import kind_or_none
from preceptor.models.networks import separate
from preceptor.utils.files import replacing, tensors_to
from preceptor.utils.results import finish, read_record, strict_json, with_nan


@dataclass
class Progress:
    """Progress of a run after an epoch."""

    epoch: int = 0  # number of finished epochs (or periods)
    history: list[dict[str, float]] = field(default_factory=list)  # metrics, one dict per epoch
    best_score: float = float("-inf")  # score of the selected epoch so far; higher is better
    best_epoch: int = -1  # number of the selected epoch, from 0; −1 before the first
    best_state: dict[str, Tensor] = field(default_factory=dict)
    seconds: float = 0.0  # training time so far, over all interruptions
    scaler: dict[str, Any] = field(default_factory=dict)
    scale: float | None = None  # λ of a guidance method, measured before the first step


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """State of a model without its frozen part: the same with and without cached features."""
    frozen = tuple(f"backbone.{name}." for name in getattr(model, "frozen", ()))
    return {key: one for key, one in model.state_dict().items() if not key.startswith(frozen)}


def restore(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load what `trained_state` or `snapshot` gave."""
    model.load_state_dict(model.state_dict() | dict(state))


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """Copy of a model's trained weights on the CPU."""
    return {key: value.detach().cpu().clone() for key, value in trained_state(model).items()}


def save_progress(
    path: Path,
    run: str,
    progress: Progress,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    layers: nn.Module | None = None,
) -> None:
    """Write the checkpoint of a run after an epoch, atomically; `layers` of a guidance method."""
    tensors = {f"model.{key}": value for key, value in trained_state(model).items()}
    if layers is not None:
        tensors |= {f"layers.{key}": value for key, value in layers.state_dict().items()}
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
    path: Path,
    run: str,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    layers: nn.Module | None = None,
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
        names = [key for key in tensors if key.startswith(prefix)]
        return {key.removeprefix(prefix): tensors[key] for key in names}

    restore(model, part("model."))
    if layers is not None:
        layers.load_state_dict(part("layers."))
    entries: dict[int, dict[str, Any]] = {int(index): state for index, state in numbers.items()}
    for key, value in part("optimizer.").items():
        index, name = key.split(".", 1)
        entries.setdefault(int(index), {})[name] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": entries, "param_groups": groups})
    progress.best_state = part("best.")
    return progress


# Metrics, and the record.

Measure = Literal["accuracy", "auc", "map_correlation"]
MEASURES: tuple[Measure, ...] = ("accuracy", "auc", "map_correlation")


@dataclass(frozen=True)
class SetMetrics:
    """Metrics of one validation set after an epoch."""

    accuracy: float = math.nan  # share of the images whose most probable class is their label
    auc: float = math.nan  # AUC of the positive class, else macro over the classes present
    map_correlation: float | None = None  # mean correlation of the model's maps with human maps


def metric_name(name: str, measure: Measure) -> str:
    """Name of a metric of a set in metrics.csv, run.json and the table of runs."""
    return f"{name}_{measure}"


def lowest_auc(metrics: Mapping[str, float]) -> float:
    """Lowest AUC of a validation set in a row of metrics.csv; NaN if it has none."""
    return min((measured.auc for measured in set_metrics(metrics).values()), default=math.nan)


def flat_metrics(sets: Mapping[str, SetMetrics]) -> dict[str, float]:
    """Available metrics of several sets by `metric_name`."""
    return {
        metric_name(name, measure): value
        for name, measured in sets.items()
        for measure in MEASURES
        if (value := getattr(measured, measure)) is not None
    }


def set_metrics(metrics: Mapping[str, float]) -> dict[str, SetMetrics]:
    """Metrics of each validation set from `flat_metrics`; other entries are ignored."""
    by_set: dict[str, dict[str, float]] = {}
    for key, value in metrics.items():
        for measure in MEASURES:
            name = key.removesuffix(f"_{measure}")
            if name != key and kind_or_none(name) == "val":
                by_set.setdefault(name, {})[measure] = value
    return {name: SetMetrics(**values) for name, values in by_set.items()}


def mean_map_correlation(folders: Iterable[Path]) -> float:
    """Mean correlation with human maps over trainings and validation sets; NaN without any."""
    correlations = [
        measured.map_correlation
        for folder in folders
        for measured in set_metrics(read_record(folder).get("metrics", {})).values()
        if measured.map_correlation is not None
    ]
    return float(np.mean(correlations)) if correlations else math.nan


def epoch_score(settings: Training, epoch: int, measured: dict[str, SetMetrics]) -> float:
    """Score that selects the epoch: the value on the worst validation set."""
    if settings.checkpoint == "last":
        return epoch
    accuracy = settings.checkpoint == "best_accuracy"
    return min(metrics.accuracy if accuracy else metrics.auc for metrics in measured.values())


def metrics_table(history: list[dict[str, float]]) -> str:
    """Content of metrics.csv, one row per epoch."""
    text: str = pd.DataFrame(history).to_csv(index=False, float_format="%.6g")
    return text


def epoch_line(metrics: dict[str, float], epochs: int, rate: float | None = None) -> str:
    """Log line of an epoch; `rate` is in images per second."""
    parts = [f"epoch {int(metrics['epoch'])}/{epochs}", f"class {metrics['classification']:.3f}"]
    if math.isfinite(metrics["guidance"]):
        r = metrics["map_correlation"]
        agreement = f" (map r {r:.2f})" if math.isfinite(r) else ""
        parts.append(f"guide {metrics['guidance']:.3f}{agreement}")
    parts += [f"{name} AUC {measured.auc:.3f}" for name, measured in set_metrics(metrics).items()]
    if rate is not None:
        parts.append(f"{rate:,.0f} images/s")
    return "  ".join(parts)


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """Record of a finished training."""

    id: str
    config: dict[str, Any]  # resolved `RunConfig`, as JSON values
    classes: tuple[str, ...]
    input_size: int  # side of the model's input in pixels
    grid: tuple[int, int]  # rows and columns of the CAM
    saliency: str  # cam or gradcam, see `ModelSpec`
    training_images: int
    guided_images: int  # number of training images with map weight above 0
    uninformative_maps: int
    images_seen: int  # number of images of all training steps
    best_epoch: int  # selected epoch, from 1
    metrics: dict[str, float]  # row of metrics.csv of the selected epoch
    # Lowest AUC of a validation set at the selected and at the last epoch; None without epochs.
    epoch_aucs: tuple[float, float] | None = None
    seconds: float  # training time, over all interruptions
    peak_memory: int | None = None  # peak memory of a process in bytes; None if unknown
    device_memory: int | None = None  # memory of the GPU in bytes; None on a CPU
    guidance_scale: float | None = None  # λ of a guidance method; None for distances of maps
    device: str
    versions: dict[str, str]

    @property
    def sets(self) -> dict[str, SetMetrics]:
        """Metrics of each validation set after the selected epoch."""
        return set_metrics(self.metrics)

    def write(self, folder: Path, *, without: str = "") -> None:
        """Write the record and finish the run folder, see `finish`."""
        optional = ("peak_memory", "device_memory", "guidance_scale", "epoch_aucs")
        unknown = [key for key in optional if getattr(self, key) is None]
        kept = {key: value for key, value in vars(self).items() if key not in unknown}
        finish(folder, kept, without=without)

    @classmethod
    def read(cls, folder: Path) -> RunRecord:
        """Read the record of a finished run folder."""
        values = read_record(folder)
        given = {field.name: values[field.name] for field in fields(cls) if field.name in values}
        try:
            given |= {"classes": tuple(given["classes"]), "grid": tuple(given["grid"])}
            return cls(**cast(Any, given))
        except (KeyError, TypeError) as error:
            missing = [field.name for field in fields(cls) if field.name not in values]
            lack = f" ({missing[0]} is missing)" if missing else ""
            raise InputError(
                f"{folder / 'run.json'}: not the record of a training{lack}; remove the folder"
            ) from error
