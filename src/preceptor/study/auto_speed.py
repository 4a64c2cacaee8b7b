"""What a study leaves to a probe: precision, memory layout, compiler, once for all of its runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean

from preceptor.config.run import Speed, Training
from preceptor.config.yaml_file import load_config
from preceptor.data.manifest import Manifest
from preceptor.study.config import StudyConfig
from preceptor.training.probe import choose_speed


def decide_speed(
    study: StudyConfig,
    manifests: Sequence[Manifest],
    before: Path | None = None,
    tell: Callable[[str], None] = lambda line: None,
    *,
    probe: bool = True,
) -> StudyConfig:
    """The study with `speed` filled for every backbone, where its training leaves anything auto.

    Args:
        study: The config.
        manifests: One of each domain: the largest number of classes is probed, and the mean number
            of training steps says whether compiling pays.
        before: The resolved config of an earlier call, where there was one. What it decided stays,
            whatever a probe would say now: a study's runs must not change with the machine's mood.
        tell: Receives what was measured.
        probe: Measure what is not decided yet; else the plain way stands for it, as a plan that is
            only looked at needs.
    """
    free = study.training.left_to_probe
    if not free:
        return study
    # A backbone has one speed in all domains: a compiler has to pay over the runs of all of them.
    steps = mean(_steps(study.training, int(one.train_mask.sum())) for one in manifests)
    classes = max((one.classes for one in manifests), key=len)
    known = dict(study.speed)
    if before is not None and before.is_file():
        earlier = load_config(before, StudyConfig)
        if earlier.training == study.training:
            known = dict(earlier.speed) | known
    for backbone in study.backbones:
        if backbone not in known and not probe:
            known[backbone] = Speed()
        elif backbone not in known:
            tell(f"{backbone}: how fast is a step? ({', '.join(free)} is auto)")
            known[backbone] = choose_speed(
                study.plain_run(backbone), classes, free=free, steps=steps, tell=tell
            )
    return study.model_copy(update={"speed": known})


def _steps(training: Training, images: int) -> int:
    """Steps of a run on all images."""
    return training.steps or training.epochs * math.ceil(images / training.batch_size)
