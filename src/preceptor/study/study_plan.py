"""The domains of a study: a plan for each table of images, in one graph and one store."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from preceptor.runtime.result_folder import is_finished
from preceptor.study.config import StudyConfig
from preceptor.study.plan import Plan
from preceptor.study.steps import STEP_FOLDERS, MakeMaps, Step
from preceptor.study.workspaces import Workspaces


@dataclass
class StudyPlan:
    """The plans of a study.

    Args:
        config: The study.
        plans: By domain; one under "" where there are no domains.
    """

    config: StudyConfig
    plans: dict[str, Plan]

    @classmethod
    def of(cls, plan: Plan) -> StudyPlan:
        """A study of one domain."""
        return cls(plan.protocol.study, {plan.domain: plan})

    @property
    def first(self) -> Plan:
        """The plan of the first domain; of most studies, the only one."""
        return next(iter(self.plans.values()))

    @property
    def has_domains(self) -> bool:
        """Whether it was written with domains, be it one."""
        return list(self.plans) != [""]

    def __iter__(self) -> Iterator[Plan]:
        return iter(self.plans.values())

    @property
    def workspaces(self) -> Workspaces:
        """The manifests of all domains."""
        return Workspaces.together([plan.protocol.workspaces for plan in self])

    def start(self) -> list[Step]:
        """The steps to begin with."""
        return [step for plan in self for step in plan.start()]

    def folder(self, step: Step) -> Path:
        """Where a step leaves its result."""
        return self.first.protocol.folder(step)

    def is_finished(self, step: Step) -> bool:
        """Whether a step's result exists; for a shard, or the map store that it belongs to."""
        store = self.first.protocol.store
        folders = [step.folder(store)]
        if isinstance(step.work, MakeMaps) and step.work.joined:
            folders.append(store / STEP_FOLDERS["maps"] / step.work.joined)
        return step.kind != "select" and any(map(is_finished, folders))

    def outline(self) -> tuple[list[Step], list[Step]]:
        """All steps of stage 1 and of stage 2, see `Plan.outline`."""
        stages = [plan.outline() for plan in self]
        first = {step.id: step for early, _ in stages for step in early}
        later = {step.id: step for _, late in stages for step in late if step.id not in first}
        return list(first.values()), list(later.values())
