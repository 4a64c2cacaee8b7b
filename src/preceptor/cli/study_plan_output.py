"""Plan of a study on the terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from preceptor.errors import InputError
from preceptor.execution.local import jobs_at_first
from preceptor.runtime.cores import checked_jobs
from preceptor.runtime.formatting import as_time, gibibytes
from preceptor.study.config import StudyConfig
from preceptor.study.estimate import (
    cache_bytes,
    count_kinds,
    estimate_seconds,
    weight_bytes,
)
from preceptor.study.mark_gains import describe_marks, marks_of_training
from preceptor.study.stages import outline
from preceptor.study_folder import open_study, replay


def print_plan(
    study: StudyConfig, out: Path, jobs: int | None, tell: Callable[[str], None]
) -> None:
    """Print the plan of a study: marks, stages, steps, estimated time and disk space.

    Args:
        study: Study config.
        out: Study folder; its finished steps are not counted.
        jobs: Maximum number of concurrent steps.
        tell: Function that receives the lines.
    """
    training = study.training
    jobs = checked_jobs(jobs, training.threads, tell) or jobs_at_first(
        training.device, training.threads
    )
    opened = open_study(study, out, run=False, report_to=tell)
    with contextlib.suppress(InputError, OSError, ValueError):  # damaged results count as none
        replay(opened)
    for domain, plan in opened.plans.items():
        marks = marks_of_training(plan.protocol.workspace.manifest)
        for line in describe_marks(marks) if marks is not None else ():
            tell(f"{domain}: {line}" if domain else line)
    totals: list[float] = []
    weights = caches = 0
    names = (
        "stage 1 (baselines, ceiling, Teachers, probe Students)",
        "stage 2 (Students, controls, tests)",
    )
    for plan in opened.plans.values():
        workspaces = plan.protocol.workspaces
        caches += cache_bytes(plan.protocol.study, workspaces.all())
    for most in (False, True) if study.looks else (False,):
        totals.append(0.0)
        weights = 0
        if study.looks:
            tell(f"{'at most' if most else 'at least'} {study.looks[-1 if most else 0]} seeds:")
        for domain, plan in opened.plans.items():
            if domain:
                tell(f"{domain}:")
            workspace = plan.protocol.workspace
            validation = len(workspace.split_rows("val"))
            for name, steps in zip(names, outline(plan, most), strict=True):
                work = [step for step in steps if step.kind != "select"]
                left = [step for step in work if not opened.is_finished(step)]
                seconds = estimate_seconds(
                    left, study, workspace.manifest.classes, validation, jobs
                )
                totals[-1] += seconds
                weights += weight_bytes(left, workspace.manifest.classes)
                tell(f"{name}: {count_kinds(steps)}")
                tell(f"  left: {len(left)} of {len(work)}; about {as_time(seconds)}")
    tell(f"disk: about {gibibytes(weights)} of models, {gibibytes(caches)} of image caches")
    about = " to ".join(map(as_time, totals))
    if study.search != "grid":
        tell(
            f"search: {study.search}: at least, since candidates that stay after the first "
            "comparison are trained with more seeds"
        )
    tell(f"together about {about} with {jobs} job{'s' if jobs != 1 else ''}")
