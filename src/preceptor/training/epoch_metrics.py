"""Metrics of an epoch: means over its steps, score, table and log line."""

from __future__ import annotations

import math

import pandas as pd
import torch

from preceptor.config.training import Training
from preceptor.training.record import SetMetrics, set_metrics
from preceptor.training.step_stats import StepStats


def mean_metrics(total: StepStats, seen: int, *, consistency: bool) -> dict[str, float]:
    """Mean metrics of an epoch.

    Args:
        total: Sums over the images.
        seen: Number of images.
        consistency: Whether the run has the divergence of `preceptor.losses.consistency`.
    """
    total = StepStats(*total.stacked().cpu().double())
    images, guided = max(seen, 1), total.guided
    guided = torch.where(guided > 0, guided, math.nan)  # avoids a mean over no images
    metrics = {
        "images": torch.tensor(float(seen)),
        "loss": total.loss / images,
        "classification": total.classification / images,
        "guidance": total.guidance / guided,
        "grad_logits": total.grad_logits / images,
        "grad_map": total.grad_map / guided,
        "guided": total.guided,
        "uninformative": total.uninformative,
        "map_correlation": total.map_correlation / guided,
    }
    if consistency:
        metrics["inconsistency"] = total.inconsistency / images
    return {key: value.item() for key, value in metrics.items()}


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
