"""Choice of precision, memory layout and compilation by a probe, once for all runs of a study."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean

from preceptor.config.training import Speed, Training
from preceptor.config.yaml_file import load_config
from preceptor.data.manifest import Manifest
from preceptor.study.config import StudyConfig
from preceptor.study.run_configs import plain_run
from preceptor.training.probe import choose_speed

# Shorter trainings, in steps, have the defaults: a probe takes up to 30 steps and a second for each
# combination, more than it can save them.
_PROBED_FROM = 100


def decide_speed(
    study: StudyConfig,
    manifests: Sequence[Manifest],
    before: Path | None = None,
    tell: Callable[[str], None] = lambda line: None,
    *,
    probe: bool = True,
) -> StudyConfig:
    """Study config with `speed` for every backbone, if any training setting is auto.

    Args:
        study: Study config.
        manifests: One manifest per domain: the probe uses the largest number of classes, and the
            mean number of training steps decides whether compilation is worthwhile.
        before: Resolved config of an earlier call, or None. Its choices are kept, so that the ids
            of runs do not depend on variations of the machine's speed.
        tell: Function that receives the measurements.
        probe: Whether to measure open choices. If False, and for trainings of less than 100 steps,
            the defaults of `Speed` take their place.
    """
    free = study.training.left_to_probe
    if not free:
        return study
    # One choice per backbone for all domains: compilation must be worthwhile on average.
    steps = mean(_steps(study.training, int(one.train_mask.sum())) for one in manifests)
    classes = max((one.classes for one in manifests), key=len)
    known = dict(study.speed)
    if before is not None and before.is_file():
        earlier = load_config(before, StudyConfig)
        if earlier.training == study.training:
            known = dict(earlier.speed) | known
    for backbone in study.backbone_names:
        if backbone not in known and (not probe or steps < _PROBED_FROM):
            known[backbone] = Speed()
        elif backbone not in known:
            tell(f"{backbone}: measuring the speed of a step ({', '.join(free)} is auto)")
            known[backbone] = choose_speed(
                plain_run(study, backbone), classes, free=free, steps=steps, tell=tell
            )
    return study.model_copy(update={"speed": known})


def _steps(training: Training, images: int) -> int:
    """Number of steps of a run on all images."""
    return training.steps or training.epochs * math.ceil(images / training.batch_size)
