"""Plan of a study: its steps and choices so far, and the steps that follow from each choice.

Stage 1 has the baselines, the ceiling and the Teachers, each at every α of its grid, and the probe
Students at up to three α. Stage 2, after the choice of the Teacher, has its Students (the ones of
stage 1 are used again) and the controls. Selections are steps as well: the choice made by a
selection adds the steps that follow from it. Test sets are scored only after the selection of the
Students' settings (the way of guiding and α), for which the selections of the other roles wait.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Literal, cast

from preceptor.study.config import Control, Setting, StudyConfig, beyond
from preceptor.study.protocol import Protocol, Teacher, candidate_name, teachers_of
from preceptor.study.selection import Candidate, Choice, choose, evidence_of, setting_of
from preceptor.study.steps import (
    STEP_FOLDERS,
    Arm,
    MakeMaps,
    Member,
    PlannedRun,
    Role,
    Select,
    Selection,
    Step,
    Train,
)
from preceptor.study.workspaces import Workspaces
from preceptor.training.record import mean_map_correlation
from preceptor.utils.results import SCORES, checksum, is_finished, read_scores

BY_WAY: tuple[Role, ...] = ("student", "ceiling", "shuffled", "shuffled_human", "centre")
"""Roles whose ways of guiding are compared on the test sets."""


@dataclass(frozen=True)
class Contender:
    """Candidate of a selection."""

    name: str  # unique
    setting: Setting
    chains: Sequence[list[Step]]  # runs, one per seed, each after the steps that make its maps
    maps: Sequence[Step] | None = None  # whose records have its agreement; None = its runs
    preferred: bool = False  # whether it is chosen if it is tied with the best

    @property
    def runs(self) -> list[Step]:
        """Runs, one per seed."""
        return [chain[-1] for chain in self.chains]


@dataclass
class Plan:
    """Plan of one domain of a study."""

    protocol: Protocol
    choices: dict[Selection, Choice] = field(default_factory=dict)
    remembered: Mapping[str, Choice] = field(default_factory=dict)  # of an earlier start, by name
    decided: Callable[[], None] = lambda: None  # called after each choice
    steps: dict[str, Step] = field(default_factory=dict)  # steps added so far, by id
    members: dict[Member, None] = field(default_factory=dict)  # a set in the order of the plan

    @property
    def study(self) -> StudyConfig:
        """Config of the domain."""
        return self.protocol.study

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of the study."""
        return self.study.seed_list

    @property
    def domain(self) -> str:
        """Domain of the study, or ""."""
        return self.protocol.domain

    def members_of(self, role: Role, backbone: str | None = None) -> Iterator[Member]:
        """Runs of a role with the study's own number of annotated images and initial weights."""
        for member in self.members:
            arm = member.arm
            own = arm.annotated is None and not arm.start
            if arm.role == role and own and backbone in (None, arm.backbone):
                yield member

    # Choices.

    @property
    def teacher_selection(self) -> Selection:
        """Identifier of the selection among the Teachers."""
        return Selection(self.domain, "teacher")

    @property
    def teacher_choice(self) -> Choice | None:
        """Choice among Teachers; None before the selection."""
        return self.choices.get(self.teacher_selection)

    def winner(self) -> Teacher | None:
        """Selected Teacher; None before the selection."""
        choice = self.teacher_choice
        return None if choice is None else self.teacher_of(choice.winner)

    def teacher_of(self, name: str) -> Teacher:
        """Teacher of a candidate."""
        names = {
            candidate_name(teacher, setting): teacher
            for teacher in teachers_of(self.study)
            for setting in (None, *self.study.probe_settings)
        }
        return names[name]

    def probe_setting_of(self, teacher: Teacher) -> Setting | None:
        """Setting at which the Student of a Teacher is best on validation, of those of stage 1."""
        choice = self.teacher_choice
        if choice is None:
            return None
        rows = {str(row["name"]): row for row in choice.table}
        names = {candidate_name(teacher, setting): setting for setting in self.study.probe_settings}
        scores = [(float(rows[name]["value"]), names[name]) for name in names if name in rows]
        return min(scores, key=lambda score: (-score[0], score[1]))[1] if scores else None

    def setting_of(self, role: Role, backbone: str, annotated: int = 0) -> Setting | None:
        """Selected setting of a role; None before the selection."""
        if role == "baseline2" and len(self.study.plain_settings) == 1:
            return self.study.plain_settings[0]
        choice = self.choices.get(Selection(self.domain, role, backbone, annotated))
        return None if choice is None else choice.setting

    def best_by_way(self, role: Role, backbone: str) -> list[Setting]:
        """Setting with the highest validation value of each of several ways of guiding."""
        choice = self.choices.get(Selection(self.domain, role, backbone))
        if choice is None or len(self.study.guidances) < 2:
            return []
        ways: dict[str, tuple[float, Setting]] = {}
        for row in choice.table:
            value, setting = float(row["value"]), setting_of(row)
            best = ways.get(setting.guidance)
            if best is None or (-value, setting) < (-best[0], best[1]):
                ways[setting.guidance] = value, setting
        return [ways[name][1] for name in self.study.guidances if name in ways]

    # Steps.

    def add(self, steps: list[Step]) -> list[Step]:
        """Add steps and their runs to the plan; known ones are not changed."""
        for step in steps:
            self.steps.setdefault(step.id, step)
            if isinstance(step.work, Train):
                config = step.work.config
                member = Member(step.work.arm, config.seed, step.id, config.manifest)
                self.members.setdefault(member)
        return steps

    def search(
        self,
        selection: Selection,
        title: str,
        contenders: Sequence[Contender],
        follow: Callable[[Choice], list[Step]],
        also: Sequence[str] = (),
        only: str = "",
        wider: Callable[[Choice], Sequence[Contender]] | None = None,
        rounds: int = 0,
    ) -> list[Step]:
        """The runs of the contenders, and the step that selects among them.

        `follow` gives the steps that follow from the choice, which also waits for the steps `also`.
        `only` is the name of the only possible choice, which needs no scores. `wider` gives further
        contenders after a choice; the choice among all of them is then made in a further round. The
        last round has the id of the selection, for which other steps wait.
        """
        runs = [run.id for contender in contenders for run in contender.runs]

        def decide() -> list[Step]:
            choice = Choice(only, f"{only}: it is the only candidate.", ())
            choice = choice if only else self._decide(selection, contenders)
            if wider and (further := wider(choice)):
                every = [*contenders, *further]
                return self.search(selection, title, every, follow, also, "", wider, rounds + 1)
            self.choices[selection] = choice
            self.decided()
            if wider is None:
                return follow(choice)
            last = Select(selection, lambda: self.add(follow(choice)))
            return [Step(selection.step_id, last, title)]

        work = Select(selection, lambda: self.add(decide()))
        steps = [step for contender in contenders for chain in contender.chains for step in chain]
        needs = (*(() if only else runs), *also)
        identity = selection.step_id if wider is None else f"{selection.step_id}:{rounds}"
        return [*steps, Step(identity, work, title, needs)]

    def _decide(self, selection: Selection, contenders: Sequence[Contender]) -> Choice:
        """Earlier choice with the same scores, or a new one."""
        study, folder = self.study, self.protocol.folder
        judged = [
            (
                one,
                [folder(run) for run in one.runs],
                mean_map_correlation(map(folder, one.runs if one.maps is None else one.maps)),
            )
            for one in contenders
        ]
        settings = (
            self.protocol.workspace.manifest.classes,
            study.positive,
            study.draws,
            study.validation_negatives,
        )
        facts = [
            (contender.name, contender.setting, [checksum(run, SCORES) for run in runs], agreement)
            for contender, runs, agreement in judged
        ]
        evidence = evidence_of(facts, *settings)
        earlier = self.remembered.get(selection.name)
        if earlier is not None and earlier.evidence == evidence:
            return earlier
        candidates = [
            Candidate(one.name, one.setting, list(map(read_scores, runs)), agreement, one.preferred)
            for one, runs, agreement in judged
        ]
        return replace(choose(candidates, *settings), evidence=evidence)

    # Stages.

    def first_steps(self) -> list[Step]:
        """Stage 1: baselines, ceiling, Teachers, their maps and the probe Students, which are added
        to the plan; their selections add the others.
        """
        steps: list[Step] = []
        for backbone in self.study.students:
            steps += self._search_setting("baseline1", backbone)
            if self.study.ceiling:
                steps += self._search_setting("ceiling", backbone)
            if len(self.study.plain_settings) > 1:
                steps += self._search_setting("baseline2", backbone)
            else:
                (plain,) = self.study.plain_settings
                steps += [self.protocol.baseline2(backbone, plain, seed) for seed in self.seeds]
        return self.add(steps + self._search_teacher())

    def stage_two(self, winner: Teacher) -> list[Step]:
        """Students of the selected Teacher and controls, for every backbone and setting."""
        steps: list[Step] = []
        for backbone in self.study.students:
            steps += self._search_setting("student", backbone, winner)
            for control in self.protocol.controls:
                steps += self._search_setting(control, backbone, winner)
        return steps

    def _search_teacher(self) -> list[Step]:
        """Probe Students of every Teacher at up to three α, and the choice of both together."""
        study, protocol, teachers = self.study, self.protocol, teachers_of(self.study)
        contenders = [
            Contender(
                candidate_name(teacher, setting),
                setting,
                [
                    protocol.student(teacher, study.students[0], setting, seed)
                    for seed in self.seeds
                ],
                [step for seed in self.seeds for step in self._map_steps(teacher, seed)],
                preferred=teacher.kind == "mapper",
            )
            for teacher in teachers
            for setting in study.probe_settings
        ]

        def follow(choice: Choice) -> list[Step]:
            winner = self.winner()
            assert winner is not None
            return self.stage_two(winner)

        title = f"among {len(teachers)} Teachers"
        only = candidate_name(teachers[0]) if len(teachers) == 1 else ""
        return self.search(self.teacher_selection, title, contenders, follow, only=only)

    def _map_steps(self, teacher: Teacher, seed: int) -> list[Step]:
        """The training that measured how a Teacher's maps (not of RISE) agree with human maps."""
        own = teacher.kind != "given" and teacher.method in ("cam", "cells")
        return [self.protocol.teacher(teacher, seed)] if own else []

    def _search_setting(
        self, role: Role, backbone: str, winner: Teacher | None = None, annotated: int = 0
    ) -> list[Step]:
        """Runs of a role at each of its settings, and the selection of its setting."""

        def contender(setting: Setting) -> Contender:
            chains = [
                self._run(role, backbone, setting, seed, winner, annotated) for seed in self.seeds
            ]
            return Contender(str(setting), setting, chains)

        def wider(choice: Choice) -> list[Contender]:
            of = {row["name"]: row for row in choice.table}
            tried = [setting_of(row) for row in of.values()]
            values = [float(row["value"]) for row in of.values()]
            return [contender(setting) for setting in beyond(tried, values)]

        contenders = [contender(setting) for setting in _settings_of(self.study, role)]
        if role != "student":  # test sets are not scored before the selection of the Students
            also = [Selection(self.domain, "student", backbone).step_id]
        else:
            single = len(teachers_of(self.study)) == 1
            also = [self.teacher_selection.step_id] if single else []
        selection = Selection(self.domain, role, backbone, annotated)

        def follow(choice: Choice) -> list[Step]:
            if annotated:
                return self._budget_tests(role, backbone, choice.setting, annotated)
            return self._after_setting(role, backbone, choice.setting)

        where = f" ({self.domain})" if self.domain else ""
        what = "setting" if self.study.guidances else "α"
        title = f"{what} of {selection.label} {backbone}{where}"
        return self.search(selection, title, contenders, follow, also, wider=wider)

    def _run(
        self,
        role: Role,
        backbone: str,
        setting: Setting,
        seed: int,
        winner: Teacher | None,
        annotated: int = 0,
    ) -> list[Step]:
        """The run of a role whose setting is chosen, after the steps that make its maps."""
        protocol = self.protocol.of_budget(annotated) if annotated else self.protocol
        if role == "baseline1":
            return [protocol.baseline1(backbone, setting, seed)]
        if role == "ceiling":
            return [protocol.ceiling(backbone, setting, seed)]
        if role == "baseline2":
            return [protocol.baseline2(backbone, setting, seed)]
        assert winner is not None
        if role == "student":
            return protocol.student(winner, backbone, setting, seed)
        return protocol.control(cast(Control, role), winner, backbone, setting, seed)

    def _after_setting(self, role: Role, backbone: str, setting: Setting) -> list[Step]:
        """Steps that follow from the selection of the setting of a role."""
        protocol, winner = self.protocol, self.winner()
        if role == "student":
            assert winner is not None
            later = self.tests(winner, backbone, setting)
            if backbone == self.study.students[0]:
                later += map(protocol.evaluation, self._probes())
                later += self._mappers()
            later += self._ways(role, backbone, winner)
            return later + self._search_budget(role, backbone)
        paper = self.study.paper_setting
        shown = sorted({setting, paper} if role == "baseline1" else {setting})
        chains = [
            self._run(role, backbone, one, seed, winner) for one in shown for seed in self.seeds
        ]
        started = ("baseline1", "baseline2")
        if self.study.starts_from_mapper and role in started:
            chains += [
                protocol.from_mapper(self._run(role, backbone, setting, seed, winner), seed)
                for seed in self.seeds
            ]
        later = [step for chain in chains for step in chain]
        later += [protocol.evaluation(chain[-1]) for chain in chains]
        later += self._ways(role, backbone, winner)
        return later + (self._search_budget(role, backbone) if role == "baseline1" else [])

    def tests(self, winner: Teacher, backbone: str, setting: Setting) -> list[Step]:
        """Test scores of the Students and of Baseline 2."""
        protocol, chains = self.protocol, list[list[Step]]()
        for seed in self.seeds:
            own = [protocol.student(winner, backbone, setting, seed)]
            if len(self.study.plain_settings) == 1:  # its length is selected otherwise
                own.append([protocol.baseline2(backbone, self.study.plain_settings[0], seed)])
            if self.study.starts_from_mapper:
                own += [protocol.from_mapper(chain, seed) for chain in own]
            if "dfr" in protocol.controls:
                arm = Arm.of_setting("student_dfr", backbone, setting, winner)
                own.append(protocol.reweighted(own[0], arm))
            if "repair" in protocol.controls:
                arm = Arm.of_setting("student_repair", backbone, setting, winner)
                own.append(protocol.repaired(own[0], arm, winner))
            chains += own
        makers = [step for chain in chains for step in chain[:-1]]
        runs = [chain[-1] for chain in chains]
        return makers + runs + [protocol.evaluation(run) for run in runs]

    def _ways(self, role: Role, backbone: str, winner: Teacher | None) -> list[Step]:
        """Test scores of a role with each way of guiding, which the report compares."""
        return [
            self.protocol.evaluation(self._run(role, backbone, setting, seed, winner)[-1])
            for setting in (self.best_by_way(role, backbone) if role in BY_WAY else ())
            for seed in self.seeds
        ]

    def _probes(self) -> list[Step]:
        """Probe Students of every Teacher at the setting at which they are best on validation."""
        return [
            self.protocol.student(teacher, self.study.students[0], setting, seed)[-1]
            for teacher in teachers_of(self.study)
            if (setting := self.probe_setting_of(teacher)) is not None
            for seed in self.seeds
        ]

    def _mappers(self) -> list[Step]:
        """Mappers of A, of all human maps and of each budget, as detectors, and their scores."""
        if not self.protocol.mapper_detects:
            return []
        roles: list[Literal["mapper", "mapper_all"]] = ["mapper"]
        roles += ["mapper_all"] if self.study.ceiling else []
        runs = [
            self.protocol.mapper(role, backbone, seed)
            for role in roles
            for backbone in self.study.teachers
            for seed in self.seeds
        ]
        backbone = mapper_backbone(self)
        runs += [
            self.protocol.of_budget(size).mapper("mapper", str(backbone), seed)
            for size in self.study.budgets
            for seed in self.seeds
        ]
        return runs + [self.protocol.evaluation(run) for run in runs]

    def _search_budget(self, role: Role, backbone: str) -> list[Step]:
        """Runs of Baseline 1 or the Student and selections, for each number of annotated images."""
        winner = self.winner()
        assert winner is not None
        if role == "student" and winner.kind == "given":
            return []
        return [
            step
            for size in self.study.budgets
            for step in self._search_setting(role, backbone, winner, size)
        ]

    def _budget_tests(
        self, role: Role, backbone: str, setting: Setting, annotated: int
    ) -> list[Step]:
        """Test scores of the runs of a budget at the selected setting."""
        winner = self.winner()
        return [
            self.protocol.evaluation(
                self._run(role, backbone, setting, seed, winner, annotated)[-1]
            )
            for seed in self.seeds
        ]


_UNGUIDED: tuple[Control, ...] = ("masked", "dfr", "repair", "repair_shuffled")


def _settings_of(study: StudyConfig, role: Role) -> tuple[Setting, ...]:
    """Settings from which the setting of a role is selected."""
    if role == "baseline1":
        return study.baseline_settings
    return study.plain_settings if role in ("baseline2", *_UNGUIDED) else study.settings


def mapper_backbone(plan: Plan) -> str | None:
    """Backbone of the mappers of an annotation budget: that of the selected Teacher if it is a
    mapper, otherwise the first of the Teachers; None in a study without mappers.
    """
    if not plan.protocol.mapper_detects:
        return None
    winner = plan.winner()
    return winner.name if winner and winner.kind == "mapper" else plan.study.teachers[0]


def outline(plan: Plan) -> tuple[list[Step], list[Step]]:
    """All steps of stage 1 and stage 2 with the choices made so far, and all steps of the plan.

    Without a choice, the first Teacher or setting is taken. Nothing is added to `plan`.
    """
    study = plan.study
    draft = Plan(plan.protocol, choices=dict(plan.choices))
    first = draft.first_steps()

    def assume(selection: Selection, candidates: Sequence[tuple[str, Setting]]) -> None:
        rows = [{"name": name, "value": 0.0} | asdict(setting) for name, setting in candidates]
        draft.choices.setdefault(selection, Choice(candidates[0][0], "", tuple(rows)))

    teachers = teachers_of(study)
    if len(teachers) == 1:  # is not compared
        draft.choices[draft.teacher_selection] = Choice(candidate_name(teachers[0]), "", ())
    probes = product(teachers, study.probe_settings)
    assume(draft.teacher_selection, [(candidate_name(*probe), probe[1]) for probe in probes])
    winner = draft.winner()
    assert winner is not None
    later = draft.add(draft.stage_two(winner))
    roles: list[Role] = ["student", "baseline1"]
    if len(study.plain_settings) > 1:
        roles.append("baseline2")
    if study.ceiling:
        roles.append("ceiling")
    for backbone in study.students:
        for role in (*roles, *plan.protocol.controls):
            grid = study.settings if role == "baseline1" else _settings_of(study, role)
            for size in (0, *(study.budgets if role in ("student", "baseline1") else ())):
                selection = Selection(draft.domain, role, backbone, size)
                assume(selection, [(str(setting), setting) for setting in grid])
                setting = draft.choices[selection].setting
                later += draft.add(
                    draft._budget_tests(role, backbone, setting, size)
                    if size
                    else draft._after_setting(role, backbone, setting)
                )
    stage_one = {step.id: step for step in first}
    others = {step.id: step for step in [*later, *plan.steps.values()] if step.id not in stage_one}
    return list(stage_one.values()), list(others.values())


@dataclass
class StudyPlan:
    """Plans of the domains of a study, in one graph and one store."""

    config: StudyConfig
    plans: dict[str, Plan]  # plans by domain; one plan under "" without domains

    @classmethod
    def of(cls, plan: Plan) -> StudyPlan:
        """Plan of a study with one domain."""
        return cls(plan.study, {plan.domain: plan})

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
        runs: list[PlannedRun] = []
        for plan in self:
            members: dict[str, list[Member]] = {}
            for member in plan.members:
                members.setdefault(member.run, []).append(member)
            for run, own in members.items():
                labels = tuple(dict.fromkeys(member.arm.label for member in own))
                arm, seed = own[0].arm, own[0].seed
                about = (arm.backbone, arm.alpha, seed, plan.domain)
                runs.append(PlannedRun(run, labels, *about, teacher=arm.teacher))
        return runs

    def start(self) -> list[Step]:
        """First steps of all domains."""
        return [step for plan in self for step in plan.first_steps()]

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

    def outline(self) -> tuple[list[Step], list[Step]]:
        """All steps of stage 1 and stage 2, see `outline`."""
        stages = [outline(plan) for plan in self]
        first = {step.id: step for early, _ in stages for step in early}
        later = {step.id: step for _, late in stages for step in late if step.id not in first}
        return list(first.values()), list(later.values())
