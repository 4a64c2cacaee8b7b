"""Schedule of the learning rate as a pure function of the step, without state."""

from __future__ import annotations

import math

from preceptor.config.training import Training


def period_ends(settings: Training, steps_per_epoch: int) -> list[int]:
    """Last step of each epoch (with length steps, of each of `epochs` equal periods).

    Example:
        >>> period_ends(Training(epochs=2), 10)
        [10, 20]
        >>> period_ends(Training(epochs=2, length="steps", steps=7), 10)
        [3, 7]
    """
    if settings.length == "epochs":
        return [steps_per_epoch * (epoch + 1) for epoch in range(settings.epochs)]
    assert settings.steps is not None
    return [settings.steps * (epoch + 1) // settings.epochs for epoch in range(settings.epochs)]


def learning_rate(settings: Training, step: int, total: int, epoch: int) -> float:
    """Learning rate of one step.

    Args:
        settings: Training settings with the schedule.
        step: Number of the step, 0 ≤ step < total.
        total: Number of steps of the run.
        epoch: Epoch (or period) of the step.

    Example:
        >>> settings = Training(schedule="step", lr=1.0)
        >>> [learning_rate(settings, 0, 1, epoch) for epoch in (0, 11, 12)]
        [1.0, 1.0, 0.1]
    """
    if settings.schedule == "constant":
        return settings.lr
    if settings.schedule == "step":
        return settings.lr * 0.1 ** (epoch // 12)  # as the authors of CYBORG
    # The middle of the step, so that neither the first nor the last step has a rate of 0.
    done = (step + 0.5) / total
    if settings.schedule == "cosine":
        return settings.lr * 0.5 * (1 + math.cos(math.pi * done))
    if done < settings.warmup:
        return settings.lr * done / settings.warmup
    fall = (done - settings.warmup) / (1 - settings.warmup)
    return settings.lr * 0.5 * (1 + math.cos(math.pi * fall))
