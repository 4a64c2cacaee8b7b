"""The study that everybody runs first: forged photographs, small networks, a few minutes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from preceptor.benchmark.forged import PRESETS, write_forged
from preceptor.config import StudyConfig
from preceptor.configfile import parse_config
from preceptor.study.driver import StudyResult, run_study

# 1,000 crops for training, 200 of them annotated. About 30 trainings of 200 steps on 64 px take
# four minutes on two cores. A stride of 8 keeps 8 × 8 maps. Two seeds show how a study reads and
# can prove nothing: the report says so.
DEMO: dict[str, Any] = {
    "positive": "forged",
    "primary": "test-seen",
    "annotated": 0.2,
    "teachers": ["test_byobnet"],
    "students": ["test_byobnet", "test_resnet"],
    "backbone_args": {
        "test_byobnet": {"output_stride": 8},
        "test_resnet": {"output_stride": 8},
    },
    "seeds": 2,
    "alphas": [0.1],
    "teacher_alphas": [0.1],
    "training": {
        "input_size": 64,
        "batch_size": 32,
        "length": "steps",
        "steps": 200,
        "epochs": 4,
        "optimiser": "adamw",
        "lr": 0.002,
        "weight_decay": 0.01,
        "schedule": "one_cycle",
        "clip": 1.0,
        "checkpoint": "best_auc",
        "threads": 1,
        "augmentation": {"flip": True, "quarter_turns": True},
    },
}


def run_demo(
    out: str | Path,
    *,
    jobs: int | None = None,
    seed: int = 0,
    tell: Callable[[str], None] = print,
) -> StudyResult:
    """Draw the forged photographs and run the study on them.

    Args:
        out: Folder of the images and the study; the same call goes on where one stopped.
        jobs: See `run_study`.
        seed: Of the images.
        tell: Receives lines of progress.

    Raises:
        InputError: scikit-image, whose photographs are used, is not installed.
    """
    out = Path(out)
    tell(f"drawing forged photographs (seed {seed})")
    manifest = write_forged(out / f"images-{seed}", PRESETS["demo"], seed)
    study = parse_config(DEMO | {"manifest": manifest}, StudyConfig, source="the demo")
    return run_study(study, out / f"study-{seed}", jobs=jobs, tell=tell)
