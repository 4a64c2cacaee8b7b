"""Metrics of epochs and validation sets, and the record of a finished training (`run.json`)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pandas as pd

from preceptor.config.training import Training
from preceptor.errors import InputError
from preceptor.metrics.split_names import kind_or_none
from preceptor.utils.results import finish, read_record

Measure = Literal["accuracy", "auc", "map_correlation"]
MEASURES: tuple[Measure, ...] = ("accuracy", "auc", "map_correlation")


@dataclass(frozen=True)
class SetMetrics:
    """Metrics of one validation set after an epoch."""

    accuracy: float = math.nan  # share of the images whose most probable class is their label
    auc: float = math.nan  # macro AUC over the classes present
    map_correlation: float | None = None  # mean correlation of the model's maps with human maps


def metric_name(name: str, measure: Measure) -> str:
    """Name of a metric of a set in metrics.csv, run.json and the table of runs."""
    return f"{name}_{measure}"


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
    """Mean correlation with human maps over finished trainings or map steps and their validation
    sets; NaN without any.
    """
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
    return min(one.accuracy if accuracy else one.auc for one in measured.values())


def metrics_table(history: list[dict[str, float]]) -> str:
    """Content of metrics.csv, one row per epoch."""
    text: str = pd.DataFrame(history).to_csv(index=False, float_format="%.6g")
    return text


def epoch_line(metrics: dict[str, float], epochs: int, rate: float | None = None) -> str:
    """Log line of an epoch; `rate` is in images per second."""
    parts = [f"epoch {int(metrics['epoch'])}/{epochs}", f"class {metrics['classification']:.3f}"]
    if math.isfinite(metrics["guidance"]):
        parts.append(f"guide {metrics['guidance']:.3f} (map r {metrics['map_correlation']:.2f})")
    parts += [f"{name} AUC {one.auc:.3f}" for name, one in set_metrics(metrics).items()]
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
    seconds: float  # training time, over all interruptions
    parts: int = 1  # number of micro-batches per batch
    peak_memory: int | None = None  # peak memory of a process in bytes; None if unknown
    device_memory: int | None = None  # memory of the GPU in bytes; None on a CPU
    device: str
    versions: dict[str, str]

    @property
    def sets(self) -> dict[str, SetMetrics]:
        """Metrics of each validation set after the selected epoch."""
        return set_metrics(self.metrics)

    def write(self, folder: Path, *, without: str = "") -> None:
        """Write the record and finish the run folder, see `finish`."""
        unsaid = {"parts": 1, "peak_memory": None, "device_memory": None}
        kept = {k: v for k, v in vars(self).items() if k not in unsaid or v != unsaid[k]}
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
