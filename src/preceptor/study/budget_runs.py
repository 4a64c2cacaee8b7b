"""Runs of an annotation budget: the same roles with other numbers of annotated images."""

from __future__ import annotations

from preceptor.study.plan import Plan
from preceptor.study.steps import Step
from preceptor.study.teacher_runs import mapper_run


def budget_mappers(plan: Plan) -> list[Step]:
    """Mappers for each number of annotated images, and their test scores as detectors.

    Args:
        plan: Plan of one domain.

    Returns:
        Steps; none in a study without mappers.
    """
    backbone = mapper_backbone(plan)
    if backbone is None:
        return []
    runs = [
        mapper_run(protocol, "mapper", backbone, seed)
        for protocol in map(plan.protocol.of_budget, plan.protocol.study.budgets)
        for seed in protocol.study.first_seeds
    ]
    return runs + [plan.protocol.evaluation(run) for run in runs]


def mapper_backbone(plan: Plan) -> str | None:
    """Backbone of the mappers of an annotation budget: that of the selected Teacher if it is a
    mapper, otherwise the first of the Teachers; None in a study without mappers."""
    winner, study = plan.winner(), plan.protocol.study
    if study.mapper is None or not study.teachers:
        return None
    return winner.name if winner is not None and winner.kind == "mapper" else study.teachers[0]
