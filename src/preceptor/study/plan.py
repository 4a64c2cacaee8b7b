"""Plan of a study: its steps, stage by stage.

Selections are steps too: the choice that one makes adds the steps that follow from it. Test sets
are scored only by steps that the selection of the Students' α has added.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from preceptor.runtime.result_folder import SCORES, checksum, read_scores
from preceptor.study.config import PAPER_ALPHA, Control, StudyConfig
from preceptor.study.protocol import Member, Protocol, Teacher
from preceptor.study.selection import Candidate, Choice, choose, evidence_of
from preceptor.study.steps import Role, Select, Selection, Step, Train
from preceptor.training.record import read_set_metrics


def controls_of(study: StudyConfig, winner: Teacher) -> list[Control]:
    """The study's controls that this Teacher allows: given maps come without soft labels."""
    return [
        control for control in study.controls if control != "distilled" or winner.kind != "given"
    ]


@dataclass(frozen=True)
class _Scored:
    """A candidate of a selection, by the steps that scored it.

    Args:
        name: Name, unique among the candidates.
        alpha: α, or None.
        runs: Trainings whose validation scores count, one for each seed.
        maps: Steps whose records hold the correlation of the maps with human maps.
    """

    name: str
    alpha: float | None
    runs: Sequence[Step]
    maps: Sequence[Step]


@dataclass
class Plan:
    """Plan of one domain of a study.

    Args:
        protocol: Builds the steps.
        choices: Choices made so far.
        remembered: Choices of an earlier start by the name of the selection, which stand where the
            scores have not changed.
        decided: Called after each choice.
        steps: Steps added so far, by id.
        origin: Id of the selection that added a step, by the step's id; "" for the first steps.
        members: Runs added so far, each with its arm, in order.
    """

    protocol: Protocol
    choices: dict[Selection, Choice] = field(default_factory=dict)
    remembered: Mapping[str, Choice] = field(default_factory=dict)
    decided: Callable[[], None] = lambda: None
    steps: dict[str, Step] = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)
    members: dict[Member, None] = field(default_factory=dict)

    @property
    def domain(self) -> str:
        """Domain of the study, or ""."""
        return self.protocol.domain

    def members_of(self, role: Role, backbone: str | None = None) -> Iterator[Member]:
        """Runs of a role with the study's own number of annotated images."""
        for member in self.members:
            arm = member.arm
            if arm.role == role and arm.annotated is None and backbone in (None, arm.backbone):
                yield member

    def start(self) -> list[Step]:
        """The first steps; selections among them add the others."""
        return self._added(self.stage_one())

    def stage_one(self) -> list[Step]:
        """Baselines, ceiling, Teachers, their maps and the probe Students."""
        protocol, study = self.protocol, self.protocol.study
        steps: list[Step] = []
        for backbone in study.students:
            runs = {
                alpha: [
                    protocol.annotated_run("baseline1", backbone, alpha, seed)
                    for seed in study.seed_list
                ]
                for alpha in protocol.baseline_alphas
            }
            steps += [*self._flat(runs), self._choose_alpha("baseline1", backbone, runs)]
            if study.ceiling:
                runs = {
                    alpha: [
                        protocol.full_run("ceiling", backbone, alpha, seed)
                        for seed in study.seed_list
                    ]
                    for alpha in study.alpha_grid
                }
                steps += [*self._flat(runs), self._choose_alpha("ceiling", backbone, runs)]
            steps += [
                protocol.full_run("baseline2", backbone, 1.0, seed) for seed in study.seed_list
            ]
        candidates: dict[Teacher, list[Step]] = {}
        for teacher in protocol.teachers():
            for backbone, alpha in self._probes():
                for seed in study.seed_list:
                    chain = protocol.student(teacher, backbone, alpha, seed)
                    steps += chain
                    candidates.setdefault(teacher, []).append(chain[-1])
        return [*steps, self._choose_teacher(candidates)]

    def stage_two(self, winner: Teacher) -> list[Step]:
        """The winner's Students of every backbone and α, and the controls likewise."""
        study = self.protocol.study
        steps: list[Step] = []
        for backbone in study.students:
            runs: dict[float, list[Step]] = {}
            for alpha in study.alpha_grid:
                for seed in study.seed_list:
                    chain = self.protocol.student(winner, backbone, alpha, seed)
                    steps += chain
                    runs.setdefault(alpha, []).append(chain[-1])
            steps.append(self._choose_alpha("student", backbone, runs))
            if study.controls_alpha == "student":
                continue
            for control in controls_of(study, winner):
                runs = {}
                for alpha in study.alpha_grid:
                    for seed in study.seed_list:
                        chain = self.protocol.control(control, winner, backbone, alpha, seed)
                        steps += chain
                        runs.setdefault(alpha, []).append(chain[-1])
                steps.append(self._choose_alpha(control, backbone, runs))
        return steps

    def controls_and_tests(self, winner: Teacher, backbone: str, alpha: float) -> list[Step]:
        """Variants, and controls without an α of their own, at the Students' α; then the test
        scores of these runs, of the Students and of Baseline 2."""
        protocol, study = self.protocol, self.protocol.study
        runs: list[Step] = []
        makers: list[Step] = []  # Teachers of variants, their maps and means of committees

        def add(chain: list[Step]) -> None:
            makers.extend(chain[:-1])
            runs.append(chain[-1])

        for seed in study.seed_list:
            add(protocol.student(winner, backbone, alpha, seed))
            add([protocol.full_run("baseline2", backbone, 1.0, seed)])
            if study.controls_alpha == "student":
                for control in controls_of(study, winner):
                    add(protocol.control(control, winner, backbone, alpha, seed))
            for name, variant in study.variants.items():
                own = alpha if variant.alpha is None else variant.alpha
                add(protocol.variant(name, winner, backbone, own, seed))
        return makers + runs + [protocol.evaluation(run) for run in runs]

    def budget(
        self, role: Literal["baseline1", "student"], backbone: str, alpha: float
    ) -> list[Step]:
        """Baseline 1's trainings, or the Students', at each number of annotated images.

        Args:
            role: baseline1 or student.
            backbone: Backbone of the models.
            alpha: α that was chosen for this role.
        """
        winner = self.winner()
        assert winner is not None
        runs, makers = [], []
        for size in self.protocol.study.budgets:
            protocol = self.protocol.of_budget(size)
            for seed in protocol.study.seed_list:
                if role == "baseline1":
                    runs.append(protocol.annotated_run(role, backbone, alpha, seed))
                elif winner.kind != "given":  # given maps do not depend on what is annotated
                    *before, run = protocol.student(winner, backbone, alpha, seed)
                    makers += before
                    runs.append(run)
        return makers + runs + [self.protocol.evaluation(run) for run in runs]

    def outline(self) -> tuple[list[Step], list[Step]]:
        """All steps of stage 1 and stage 2, as if the first Teacher and α were chosen.

        Nothing is added to this plan.
        """
        return Plan(self.protocol)._outline()

    def _outline(self) -> tuple[list[Step], list[Step]]:
        protocol, study = self.protocol, self.protocol.study
        first = {step.id: step for step in self.stage_one()}
        winner, alpha = protocol.teachers()[0], study.alpha_grid[0]
        self.choices[self._teacher] = Choice(str(winner), "", ())
        later = self.stage_two(winner)
        for backbone in study.students:
            later += self.controls_and_tests(winner, backbone, alpha)
            later += self.budget("baseline1", backbone, alpha)
            later += self.budget("student", backbone, alpha)
            for seed in study.seed_list:
                chosen = [
                    protocol.annotated_run("baseline1", backbone, own, seed)
                    for own in {PAPER_ALPHA, alpha}
                ]
                if study.ceiling:
                    chosen.append(protocol.full_run("ceiling", backbone, alpha, seed))
                if study.controls_alpha == "own":
                    chosen += [
                        protocol.control(control, winner, backbone, alpha, seed)[-1]
                        for control in controls_of(study, winner)
                    ]
                later += map(protocol.evaluation, chosen)
        later += self._probe_scores()
        unique = {step.id: step for step in later if step.id not in first}
        return list(first.values()), list(unique.values())

    @property
    def teacher_choice(self) -> Choice | None:
        """The choice among Teachers, once it is made."""
        return self.choices.get(self._teacher)

    def alpha_choice(self, role: Role, backbone: str) -> Choice | None:
        """The choice of a role's α, once it is made."""
        return self.choices.get(Selection(self.domain, role, backbone))

    def winner(self) -> Teacher | None:
        """The chosen Teacher, once it is chosen."""
        choice = self.teacher_choice
        if choice is None:
            return None
        return {str(teacher): teacher for teacher in self.protocol.teachers()}[choice.winner]

    def alpha_of(self, role: Role, backbone: str) -> float | None:
        """The chosen α of a role, once it is chosen."""
        choice = self.alpha_choice(role, backbone)
        return None if choice is None else choice.alpha

    # Selections.

    def _probes(self) -> list[tuple[str, float]]:
        """Student backbones and α of stage 1."""
        study = self.protocol.study
        if study.plan == "staged":
            return [(study.probe_backbone, study.stage_one_alpha)]
        return [(backbone, alpha) for backbone in study.students for alpha in study.alpha_grid]

    def _probe_scores(self) -> list[Step]:
        protocol = self.protocol
        backbone, alpha = self._probes()[0]
        return [
            protocol.evaluation(protocol.student(teacher, backbone, alpha, seed)[-1])
            for teacher in protocol.teachers()
            for seed in protocol.study.seed_list
        ]

    @property
    def _teacher(self) -> Selection:
        return Selection(self.domain, "teacher")

    def _choose_teacher(self, candidates: dict[Teacher, list[Step]]) -> Step:
        def decide() -> list[Step]:
            if len(candidates) == 1:
                only = str(next(iter(candidates)))
                choice = Choice(only, f"{only}: there is no other.", ())
            else:
                choice = self._decide(
                    self._teacher,
                    [
                        _Scored(
                            str(teacher),
                            teacher.alpha if teacher.kind == "human" else None,
                            steps,
                            self._map_steps(teacher),
                        )
                        for teacher, steps in candidates.items()
                    ],
                )
            self._chosen(self._teacher, choice)
            winner = self.winner()
            assert winner is not None
            return self.stage_two(winner)

        needs = [step for group in candidates.values() for step in group]
        name = f"among {len(candidates)} Teachers"
        return self._select(self._teacher, name, needs if len(candidates) > 1 else [], decide)

    def _choose_alpha(self, role: Role, backbone: str, runs: dict[float, list[Step]]) -> Step:
        selection = Selection(self.domain, role, backbone)

        def decide() -> list[Step]:
            choice = self._decide(
                selection,
                [_Scored(f"α {alpha:g}", alpha, steps, steps) for alpha, steps in runs.items()],
            )
            self._chosen(selection, choice)
            return self._after_alpha(role, backbone, choice.alpha, runs)

        needs = self._flat(runs)
        if role != "student":  # test sets stay closed until the Students are chosen
            also = [Selection(self.domain, "student", backbone).step_id]
        else:
            also = [self._teacher.step_id] if len(self.protocol.teachers()) == 1 else []
        where = f" ({self.domain})" if self.domain else ""
        return self._select(selection, f"α of {role} {backbone}{where}", needs, decide, also)

    def _after_alpha(
        self, role: Role, backbone: str, alpha: float, runs: dict[float, list[Step]]
    ) -> list[Step]:
        """The steps that follow from the choice of a role's α."""
        if role == "student":
            winner = self.winner()
            assert winner is not None
            later = self.controls_and_tests(winner, backbone, alpha)
            if backbone == self.protocol.study.students[0]:
                later += self._probe_scores()
            return later + self.budget("student", backbone, alpha)
        chosen = {alpha, PAPER_ALPHA} if role == "baseline1" else {alpha}
        later = [self.protocol.evaluation(step) for one in sorted(chosen) for step in runs[one]]
        return later + (self.budget("baseline1", backbone, alpha) if role == "baseline1" else [])

    def _select(
        self,
        selection: Selection,
        name: str,
        needs: Sequence[Step],
        decide: Callable[[], list[Step]],
        also: Sequence[str] = (),
    ) -> Step:
        """The step of a selection, which adds the steps that `decide` returns."""
        identity = selection.step_id
        work = Select(selection, lambda: self._added(decide(), by=identity))
        return Step(identity, work, name, (*(step.id for step in needs), *also))

    def _chosen(self, selection: Selection, choice: Choice) -> None:
        self.choices[selection] = choice
        self.decided()

    def _added(self, steps: list[Step], by: str = "") -> list[Step]:
        """Enter steps and their runs into the plan; those known already are kept as they are."""
        for step in steps:
            self.steps.setdefault(step.id, step)
            self.origin.setdefault(step.id, by)
            if isinstance(step.work, Train):
                config = step.work.config
                member = Member(step.work.arm, config.seed, step.id, config.manifest)
                self.members.setdefault(member)
        return steps

    def _decide(self, selection: Selection, candidates: Sequence[_Scored]) -> Choice:
        """The earlier choice by these scores, or a new one."""
        study, manifest = self.protocol.study, self.protocol.workspace.manifest
        folders = [[self.protocol.folder(step) for step in one.runs] for one in candidates]
        agreements = [self._agreement(one.maps) for one in candidates]
        evidence = evidence_of(
            [
                (one.name, one.alpha, [checksum(run, SCORES) for run in runs], agreement)
                for one, runs, agreement in zip(candidates, folders, agreements, strict=True)
            ],
            manifest.classes, study.positive, study.selection, study.draws,
            study.validation_negatives,
        )  # fmt: skip
        known = self.remembered.get(selection.name)
        if known is not None and known.evidence == evidence:
            return known
        choice = choose(
            [
                Candidate(one.name, one.alpha, [read_scores(run) for run in runs], agreement)
                for one, runs, agreement in zip(candidates, folders, agreements, strict=True)
            ],
            classes=manifest.classes, positive=study.positive, rule=study.selection,
            draws=study.draws, negatives=study.validation_negatives,
        )  # fmt: skip
        return replace(choice, evidence=evidence)

    def _map_steps(self, teacher: Teacher) -> list[Step]:
        """The steps whose records hold how a Teacher's maps agree with human maps, one for each
        seed: its trainings for its own maps, the making of its maps for RISE."""
        if teacher.kind == "given":
            return []
        protocol, guiding = self.protocol, self.protocol.study.guiding()
        found = []
        for seed in protocol.study.seed_list:
            training = protocol.teacher_run(teacher, seed, guiding)
            own = teacher.method == "cam"
            found.append(training if own else protocol.make_maps(training, teacher, guiding)[-1])
        return found

    def _agreement(self, steps: Sequence[Step]) -> float:
        """Mean correlation of these steps' maps with human maps of validation images."""
        found = [
            one.map_correlation
            for step in steps
            for one in read_set_metrics(self.protocol.folder(step)).values()
            if one.map_correlation is not None
        ]
        return float(np.mean(found)) if found else math.nan

    @staticmethod
    def _flat(runs: dict[float, list[Step]]) -> list[Step]:
        return [step for group in runs.values() for step in group]
