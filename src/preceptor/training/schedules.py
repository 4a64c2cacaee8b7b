"""Schedules of learning rate and α as pure functions of the step, without state."""

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
        >>> settings = Training(schedule="step", lr=1.0, step_epochs=2, step_factor=0.1)
        >>> [learning_rate(settings, 0, 1, epoch) for epoch in (0, 1, 2)]
        [1.0, 1.0, 0.1]
    """
    if settings.schedule == "constant":
        return settings.lr
    if settings.schedule == "step":
        return settings.lr * settings.step_factor ** (epoch // settings.step_epochs)
    # The middle of the step, so that neither the first nor the last step has a rate of 0.
    done = (step + 0.5) / total
    if settings.schedule == "cosine":
        return settings.lr * 0.5 * (1 + math.cos(math.pi * done))
    if done < settings.warmup:
        return settings.lr * done / settings.warmup
    fall = (done - settings.warmup) / (1 - settings.warmup)
    return settings.lr * 0.5 * (1 + math.cos(math.pi * fall))


def alpha_at(alpha: float, alpha_start: float | None, step: int, total: int) -> float:
    """α of one step: linear from `alpha_start` at the first to `alpha` at the last step.

    Args:
        alpha: Final α in [0, 1].
        alpha_start: Initial α in [0, 1]; None = constant `alpha`.
        step: Number of the step, 0 ≤ step < total.
        total: Number of steps of the run; a single step has `alpha`.

    Example:
        >>> [round(alpha_at(0.9, 0.1, step, 5), 3) for step in range(5)]
        [0.1, 0.3, 0.5, 0.7, 0.9]
        >>> alpha_at(0.5, None, 0, 5)
        0.5
    """
    if alpha_start is None or alpha_start == alpha or total < 2:
        return alpha
    done = step / (total - 1)
    # This form is exact at both ends, where the loss may omit a term (α 0 or 1).
    return (1 - done) * alpha_start + done * alpha
