"""Plan of a study with one or several domains, in one graph and one store."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from preceptor.runtime.result_folder import is_finished
from preceptor.study.config import StudyConfig
from preceptor.study.plan import Plan
from preceptor.study.planned_runs import PlannedRun
from preceptor.study.stages import first_steps, outline
from preceptor.study.steps import STEP_FOLDERS, MakeMaps, Step
from preceptor.study.workspaces import Workspaces


@dataclass
class StudyPlan:
    """Plans of the domains of a study.

    Args:
        config: Study config.
        plans: Plans by domain; one plan under "" without domains.
    """

    config: StudyConfig
    plans: dict[str, Plan]

    @classmethod
    def of(cls, plan: Plan) -> StudyPlan:
        """Plan of a study with one domain."""
        return cls(plan.protocol.study, {plan.domain: plan})

    @property
    def first(self) -> Plan:
        """Plan of the first domain, or the only one."""
        return next(iter(self.plans.values()))

    @property
    def has_domains(self) -> bool:
        """Whether the config has `domains`, even if only one."""
        return list(self.plans) != [""]

    def __iter__(self) -> Iterator[Plan]:
        return iter(self.plans.values())

    @property
    def workspaces(self) -> Workspaces:
        """Manifests of all domains."""
        return Workspaces.together([plan.protocol.workspaces for plan in self])

    def planned_runs(self) -> list[PlannedRun]:
        """Runs known so far, each once in a domain, in the order of the plan."""
        found: list[PlannedRun] = []
        for plan in self:
            roles: dict[str, dict[str, None]] = {}
            for member in plan.members:
                roles.setdefault(member.run, {})[member.arm.label] = None
            first = {member.run: member for member in reversed(plan.members)}
            for run, labels in roles.items():
                arm, seed = first[run].arm, first[run].seed
                found.append(
                    PlannedRun(run, tuple(labels), arm.backbone, arm.alpha, seed, plan.domain)
                )
        return found

    def start(self) -> list[Step]:
        """First steps of all domains."""
        return [step for plan in self for step in first_steps(plan)]

    def folder(self, step: Step) -> Path:
        """Folder of the result of a step."""
        return self.first.protocol.folder(step)

    def is_finished(self, step: Step) -> bool:
        """Whether the result of a step exists; for a shard, also if its map store exists."""
        store = self.first.protocol.store
        folders = [step.folder(store)]
        if isinstance(step.work, MakeMaps) and step.work.joined:
            folders.append(store / STEP_FOLDERS["maps"] / step.work.joined)
        return step.kind != "select" and any(map(is_finished, folders))

    def outline(self, most: bool = False) -> tuple[list[Step], list[Step]]:
        """All steps of stage 1 and stage 2, see `Plan.outline`."""
        stages = [outline(plan, most) for plan in self]
        first = {step.id: step for early, _ in stages for step in early}
        later = {step.id: step for _, late in stages for step in late if step.id not in first}
        return list(first.values()), list(later.values())
