"""How long a study will take on this machine: measured on a few steps, not guessed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from preceptor.config.run import RunConfig
from preceptor.study.config import StudyConfig
from preceptor.study.steps import Step
from preceptor.training.probe import step_seconds

# A forward is about a third of a training step.
FORWARD_SHARE = 1 / 3
_rates: dict[str, float] = {}  # measured in this process, so that two stages agree


def training_rate(config: RunConfig, classes: Sequence[str]) -> float:
    """Images a second of guided training.

    Args:
        config: As in `step_seconds`.
        classes: Class names.
    """
    # The estimate does not wait for a compiler: it errs on the long side.
    speed = config.training.speed.model_copy(update={"compile": False})
    seconds, _ = step_seconds(config, classes, speed)
    return config.training.batch_size / seconds


def estimate_seconds(
    steps: Sequence[Step], study: StudyConfig, classes: Sequence[str], validation: int, jobs: int
) -> float:
    """Wall time of these steps on `jobs` workers.

    Args:
        steps: Of a plan.
        study: Their config.
        classes: Class names.
        validation: Validation images scored after each epoch.
        jobs: Workers at once.
    """
    seconds = 0.0
    for step in steps:
        run = step.config
        if run is None:
            continue
        key = repr((run.backbone, run.backbone_args, run.training, len(classes)))
        if key not in _rates:
            _rates[key] = training_rate(run, classes)
        images = step.cost
        if step.kind == "train":
            images += FORWARD_SHARE * validation * (study.training.epochs + 1)
        seconds += images / _rates[key]
    return seconds / max(jobs, 1)


def count_kinds(steps: Sequence[Step]) -> str:
    """ "12 trainings, 3 map stores" for a list of steps."""
    names = {
        "train": "training", "shard": "shard", "maps": "map store", "committee": "committee",
        "evaluate": "test scoring", "select": "selection",
    }  # fmt: skip
    counts = Counter(step.kind for step in steps)
    return ", ".join(
        f"{count} {names[kind]}{'s' if count != 1 else ''}" for kind, count in counts.items()
    )
