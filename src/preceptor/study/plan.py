"""Both stages of a study as steps; selections are steps whose outcome adds the next ones.

Test sets are scored only by steps that a selection of Students has released.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from preceptor.runtime.result_folder import read_scores
from preceptor.study.config import PAPER_ALPHA, Control, StudyConfig
from preceptor.study.protocol import Protocol, Teacher
from preceptor.study.selection import Candidate, Choice, choose
from preceptor.study.steps import Step, selected, selection_id
from preceptor.training.record import read_set_metrics


def variant_role(name: str) -> str:
    """The role of a variant's Students."""
    return f"variant {name}"


def controls_of(study: StudyConfig, winner: Teacher) -> list[Control]:
    """The study's controls that this Teacher allows: given maps come without soft labels."""
    return [
        control for control in study.controls if control != "distilled" or winner.kind != "given"
    ]


@dataclass
class Plan:
    """The plan of one study.

    Args:
        protocol: Builds the runs.
        choices: What was chosen so far: "teacher" and "ROLE:BACKBONE" for the roles baseline1,
            student and ceiling, and for each control that has an α of its own.
        decided: Called after each choice.
        steps: All that were made so far, by id.
        origin: The selection that added a step, by the step's id; "" for those of the start.
    """

    protocol: Protocol
    choices: dict[str, Choice] = field(default_factory=dict)
    decided: Callable[[], None] = lambda: None
    steps: dict[str, Step] = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)

    @property
    def domain(self) -> str:
        """Which of the study's it is of, or ""."""
        return self.protocol.domain

    def start(self) -> list[Step]:
        """The steps to begin with; selections among them add the others."""
        return self._made(self.first())

    def first(self) -> list[Step]:
        """Stage 1: baselines, ceiling, Teachers, their maps and the probe Students."""
        protocol, study = self.protocol, self.protocol.study
        steps: list[Step] = []
        for backbone in study.students:
            groups = {"baseline1": protocol.baseline_alphas}
            if study.ceiling:
                groups["ceiling"] = study.alpha_grid
            for role, alphas in groups.items():
                make = protocol.annotated_run if role == "baseline1" else protocol.full_run
                runs = {
                    alpha: [make(role, backbone, alpha, seed) for seed in study.seed_list]
                    for alpha in alphas
                }
                steps += [step for group in runs.values() for step in group]
                steps.append(self._choose_alpha(role, backbone, runs))
            steps += [
                protocol.full_run("baseline2", backbone, 1.0, seed) for seed in study.seed_list
            ]
        teachers = protocol.teachers()
        candidates: dict[str, list[Step]] = {}
        for teacher in teachers:
            for backbone, alpha in self._probes():
                for seed in study.seed_list:
                    chain = protocol.student(teacher, backbone, alpha, seed)
                    steps += chain
                    candidates.setdefault(str(teacher), []).append(chain[-1])
        needs = tuple(step.id for group in candidates.values() for step in group)
        steps.append(
            Step(
                self._selection("teacher"),
                "select",
                f"choose among {len(teachers)} Teachers",
                needs if len(teachers) > 1 else (),
                choose=lambda: self._made(
                    self._choose_teacher(teachers, candidates), self._selection("teacher")
                ),
            )
        )
        return steps

    def second(self, winner: Teacher) -> list[Step]:
        """Stage 2: the winner's Students of every backbone and α, and the controls likewise."""
        study = self.protocol.study
        roles: list[str] = ["student"]
        if study.controls_alpha == "own":
            roles += controls_of(study, winner)
        steps: list[Step] = []
        for backbone in study.students:
            for role in roles:
                runs: dict[float, list[Step]] = {}
                for alpha in study.alpha_grid:
                    for seed in study.seed_list:
                        chain = self._like_a_student(role, winner, backbone, alpha, seed)
                        steps += chain
                        runs.setdefault(alpha, []).append(chain[-1])
                steps.append(self._choose_alpha(role, backbone, runs))
        return steps

    def _like_a_student(
        self, role: str, winner: Teacher, backbone: str, alpha: float, seed: int
    ) -> list[Step]:
        """A Student's or a control's run, the last of the steps, with what its maps need."""
        if role in ("centre", "mixed"):
            return [self.protocol.full_run(role, backbone, alpha, seed)]
        return self.protocol.student(winner, backbone, alpha, seed, role=role)

    def third(self, winner: Teacher, backbone: str, alpha: float) -> list[Step]:
        """Variants, and controls without an α of their own, at the Students' α; then the test
        scores of all of them and of Baseline 2."""
        protocol, study = self.protocol, self.protocol.study
        runs: list[Step] = []
        makers: list[Step] = []  # what makes a variant's maps: Teachers, their marks, committees

        def add(chain: list[Step]) -> None:
            makers.extend(chain[:-1])
            runs.append(chain[-1])

        for seed in study.seed_list:
            add(protocol.student(winner, backbone, alpha, seed))
            add([protocol.full_run("baseline2", backbone, 1.0, seed)])
            if study.controls_alpha == "student":
                for control in controls_of(study, winner):
                    add(self._like_a_student(control, winner, backbone, alpha, seed))
            for name, variant in study.variants.items():
                own = alpha if variant.alpha is None else variant.alpha
                role = variant_role(name)
                add(protocol.student(winner, backbone, own, seed, role=role, variant=variant))
        return makers + runs + [protocol.evaluation(run) for run in runs]

    def budget(self, role: str, backbone: str, alpha: float) -> list[Step]:
        """Baseline 1's trainings, or the Students', at each number of annotated images.

        Args:
            role: baseline1 or student.
            backbone: Of the model.
            alpha: The α that was chosen for this role.
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

        Made on a copy: no run of it becomes a member of the study.
        """
        return Plan(replace(self.protocol, members={}))._outline()

    def _outline(self) -> tuple[list[Step], list[Step]]:
        study = self.protocol.study
        first = self.first()
        winner = self.protocol.teachers()[0]
        self.choices["teacher"] = Choice(str(winner), "", ())
        later = self.second(winner)
        for backbone in study.students:
            later += self.third(winner, backbone, study.alpha_grid[0])
            later += self.budget("baseline1", backbone, study.alpha_grid[0])
            later += self.budget("student", backbone, study.alpha_grid[0])
            alphas = {PAPER_ALPHA, study.alpha_grid[0]}
            chosen = [
                self.protocol.annotated_run("baseline1", backbone, alpha, seed)
                for alpha in alphas
                for seed in study.seed_list
            ]
            if study.ceiling:
                chosen += [
                    self.protocol.full_run("ceiling", backbone, study.alpha_grid[0], seed)
                    for seed in study.seed_list
                ]
            if study.controls_alpha == "own":
                chosen += [
                    self._like_a_student(control, winner, backbone, study.alpha_grid[0], seed)[-1]
                    for control in controls_of(study, winner)
                    for seed in study.seed_list
                ]
            later += [self.protocol.evaluation(run) for run in chosen]
        later += self._probe_scores()
        known = {step.id for step in first}
        unique = {step.id: step for step in later if step.id not in known}
        return list({step.id: step for step in first}.values()), list(unique.values())

    def winner(self) -> Teacher | None:
        """The chosen Teacher, once it is."""
        choice = self.choices.get("teacher")
        if choice is None:
            return None
        return {str(teacher): teacher for teacher in self.protocol.teachers()}[choice.winner]

    def alpha_of(self, role: str, backbone: str) -> float | None:
        """The chosen α of a role, once it is."""
        choice = self.choices.get(f"{role}:{backbone}")
        if choice is None:
            return None
        return choice.alpha

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

    def _choose_teacher(
        self, teachers: Sequence[Teacher], candidates: dict[str, list[Step]]
    ) -> list[Step]:
        if len(teachers) == 1:
            only = str(teachers[0])
            self.choices["teacher"] = Choice(only, f"{only}: there is no other.", ())
        else:
            entries = []
            for teacher in teachers:
                steps = candidates[str(teacher)]
                entries.append(
                    Candidate(
                        str(teacher),
                        teacher.alpha if teacher.kind == "human" else None,
                        [read_scores(self.protocol.run_folder(step.id)) for step in steps],
                        self._agreement(self._lookers(teacher)),
                    )
                )
            self.choices["teacher"] = self._decide(entries)
        self.decided()
        winner = self.winner()
        assert winner is not None
        return self.second(winner)

    def _choose_alpha(self, role: str, backbone: str, runs: dict[float, list[Step]]) -> Step:
        def decide() -> list[Step]:
            entries = [
                Candidate(
                    f"α {alpha:g}",
                    alpha,
                    [read_scores(self.protocol.run_folder(step.id)) for step in steps],
                    self._agreement([self.protocol.folder(step) for step in steps]),
                )
                for alpha, steps in runs.items()
            ]
            self.choices[f"{role}:{backbone}"] = self._decide(entries)
            self.decided()
            alpha = self.alpha_of(role, backbone)
            assert alpha is not None
            if role == "student":
                winner = self.winner()
                assert winner is not None
                scores = self._probe_scores() if backbone == self.protocol.study.students[0] else []
                later = self.third(winner, backbone, alpha) + scores
                return later + self.budget(role, backbone, alpha)
            chosen = {alpha, PAPER_ALPHA} if role == "baseline1" else {alpha}
            later = [self.protocol.evaluation(step) for a in sorted(chosen) for step in runs[a]]
            return later + (self.budget(role, backbone, alpha) if role == "baseline1" else [])

        needs = [step.id for steps in runs.values() for step in steps]
        if role != "student":  # test sets stay closed until the Students are chosen
            needs.append(self._selection(f"student:{backbone}"))
        elif len(self.protocol.teachers()) == 1:
            needs.append(self._selection("teacher"))
        where = f" ({self.domain})" if self.domain else ""
        title = f"choose α of {role} {backbone}{where}"
        name = self._selection(f"{role}:{backbone}")
        return Step(name, "select", title, tuple(needs), choose=lambda: self._made(decide(), name))

    def _selection(self, what: str) -> str:
        return selection_id(self.domain, what)

    def chosen(self, step: Step) -> Choice:
        """What a selection chose."""
        return self.choices[selected(step)[1]]

    def _made(self, steps: list[Step], by: str = "") -> list[Step]:
        """Keep what is known, so that the report can show the graph."""
        for step in steps:
            self.steps.setdefault(step.id, step)
            self.origin.setdefault(step.id, by)
        return steps

    def _decide(self, entries: Sequence[Candidate]) -> Choice:
        study, manifest = self.protocol.study, self.protocol.workspace.manifest
        return choose(
            entries, classes=manifest.classes, positive=study.positive, rule=study.selection,
            draws=study.draws, negatives=study.validation_negatives,
        )  # fmt: skip

    def _lookers(self, teacher: Teacher) -> list[Path]:
        """The folders whose records say how a Teacher's maps agree with people's, one a seed: its
        trainings' for its own maps, its markings' for RISE's."""
        if teacher.kind == "given":
            return []
        protocol, guiding = self.protocol, self.protocol.study.guiding()
        found = []
        for seed in protocol.study.seed_list:
            training = protocol.teacher_run(teacher, seed, guiding)
            step = (
                training
                if teacher.method == "cam"
                else protocol.mark(training, teacher, guiding)[-1]
            )
            found.append(protocol.folder(step))
        return found

    def _agreement(self, folders: Sequence[Path]) -> float:
        """Mean correlation of these folders' maps with human maps of validation images."""
        found = [
            one.map_correlation
            for folder in folders
            for one in read_set_metrics(folder).values()
            if one.map_correlation is not None
        ]
        return float(np.mean(found)) if found else math.nan
