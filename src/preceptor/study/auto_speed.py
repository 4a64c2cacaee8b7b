"""What a study leaves to a probe: precision, memory layout, compiler, once for all of its runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from preceptor.config.run import RunConfig, Speed, Training
from preceptor.config.yaml_file import load_config
from preceptor.data.manifest import Manifest
from preceptor.study.config import StudyConfig
from preceptor.training.probe import choose_speed


def decide_speed(
    study: StudyConfig,
    manifest: Manifest,
    before: Path | None = None,
    tell: Callable[[str], None] = lambda line: None,
    *,
    probe: bool = True,
) -> StudyConfig:
    """The study with `speed` filled for every backbone, where its training leaves anything auto.

    Args:
        study: The config.
        manifest: Its classes and the number of its training images are used.
        before: The resolved config of an earlier call, where there was one. What it decided stays,
            whatever a probe would say now: a study's runs must not change with the machine's mood.
        tell: Receives what was measured.
        probe: Measure what is not decided yet; else the plain way stands for it, as a plan that is
            only looked at needs.
    """
    free = study.training.left_to_probe
    if not free:
        return study
    known = dict(study.speed)
    if before is not None and before.is_file():
        earlier = load_config(before, StudyConfig)
        if earlier.training == study.training:
            known = dict(earlier.speed) | known
    for backbone in dict.fromkeys([*study.teachers, *study.students]):
        if backbone not in known and not probe:
            known[backbone] = Speed()
        elif backbone not in known:
            tell(f"{backbone}: how fast is a step? ({', '.join(free)} is auto)")
            known[backbone] = choose_speed(
                _typical(study, backbone, free), manifest.classes, free=free,
                steps=_steps(study.training, int(manifest.train_mask.sum())), tell=tell,
            )  # fmt: skip
    return study.model_copy(update={"speed": known})


def _typical(study: StudyConfig, backbone: str, free: Sequence[str]) -> RunConfig:
    """A run of a backbone with something in the place of what is free."""
    plain = {name: getattr(Speed(), name) for name in free}
    return RunConfig(
        manifest=Path(),  # a step is timed on noise
        backbone=backbone,
        backbone_args=study.backbone_args.get(backbone, {}),
        positive=study.positive,
        training=study.training.model_copy(update=plain),
    )


def _steps(training: Training, images: int) -> int:
    """Steps of a run on all images."""
    return training.steps or training.epochs * math.ceil(images / training.batch_size)
