"""Command `preceptor demo`: forged photographs, a small network, a few minutes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from preceptor.cli.options import JobsOption
from preceptor.cli.study import finish

if TYPE_CHECKING:
    from preceptor.driver import StudyResult

# Chosen on draws 100 and above so that the effect is visible after a few minutes; see "The demo" in
# benchmarks/RESULTS.md. Three seeds with independent draws cannot be significant; the report
# states this. With a stride of 8, inputs of 48 pixels give 6 × 6 maps.
DEMO: dict[str, Any] = {
    "positive": "forged",
    "primary": "test-seen",
    "annotated": 60,
    "annotated_per_seed": True,
    "teachers": ["test_byobnet"],
    "students": ["test_byobnet"],
    "backbone_args": {"test_byobnet": {"output_stride": 8}},
    "seeds": 3,
    "alphas": [0.5],
    "teacher_alphas": [0.5],
    "data_driven": False,
    "controls": ["shuffled", "centre"],
    "ceiling": False,
    "training": {
        "input_size": 48,
        "batch_size": 32,
        "steps": 700,
        "epochs": 1,
        "optimizer": "adamw",
        "lr": 0.006,
        "weight_decay": 0.01,
        "schedule": "one_cycle",
        "clip": 1.0,
        "checkpoint": "last",
        "threads": 1,
        "augmentation": {"flip": True, "quarter_turns": True},
    },
}


def demo(
    out: Path = Path("demo-study"),
    jobs: JobsOption = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Run a small study on forged photographs.

    The study has three draws, two controls and no ceiling, and takes a few minutes.

    Args:
        out: Folder of the images and the study.
        seed: Seed of the first draw.
    """
    finish(run_demo(out, jobs=jobs, first=seed, tell=partial(print, flush=True)))


def run_demo(
    out: str | Path, *, jobs: int | None = None, first: int = 0, tell: Callable[[str], None] = print
) -> StudyResult:
    """Generate the forged photographs and run the demo study on them.

    Args:
        out: Folder of the images and the study; a repeated call resumes the study.
        jobs: Maximum number of concurrent steps; None = as many as fit.
        first: Seed of the first of three draws.
        tell: Function that receives lines of progress.

    Raises:
        InputError: scikit-image, which contains the photographs, is not installed, or `out` is a
            file.
    """
    from preceptor.benchmark.forged import write_draws
    from preceptor.benchmark.forgeries import PRESETS
    from preceptor.config.files import parse_config
    from preceptor.driver import run_study
    from preceptor.errors import InputError
    from preceptor.study.config import StudyConfig

    out = Path(out)
    if out.is_file():
        raise InputError(f"{out}: it is a file; name a folder")
    seeds = list(range(first, first + DEMO["seeds"]))
    tell(f"generating forged photographs (draws {seeds[0]} to {seeds[-1]})")
    manifest = write_draws(out / "forged_photographs", PRESETS["demo"], seeds)
    values = DEMO | {"manifest": manifest, "seeds": seeds}
    study = parse_config(values, StudyConfig, source="the demo")
    return run_study(study, out / f"study-{first}", jobs=jobs, tell=tell)
