"""Plan of a study: its steps, stage by stage.

Selections are steps as well: the choice made by a selection adds the steps that follow from it.
Test sets are scored only after the selection of the Students' α, for which the selections of the
other roles wait. If the number of seeds is auto, all selections use the seeds of the first look;
every look at the primary comparisons is a step that may add further seeds of the selected runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, cast, get_args

from preceptor.runtime.result_folder import SCORES, checksum, read_scores
from preceptor.study.alphas import PAPER_ALPHA
from preceptor.study.config import Control, StudyConfig
from preceptor.study.looks import COMPARED, LookResult, look, primary_aucs, primary_pairs
from preceptor.study.protocol import Member, Protocol, Teacher
from preceptor.study.seeds import AutoSeeds
from preceptor.study.selection import (
    Candidate,
    Choice,
    choose,
    evidence_of,
    survivors,
    with_dropped,
)
from preceptor.study.steps import Look, Role, Select, Selection, Step, Train
from preceptor.training.record import mean_map_correlation


def controls_of(study: StudyConfig, winner: Teacher) -> list[Control]:
    """Controls of the study that are possible for a Teacher: given maps have no soft labels."""
    return [
        control for control in study.controls if control != "distilled" or winner.kind != "given"
    ]


@dataclass(frozen=True)
class _Contender:
    """Candidate of a selection, whose runs are created seed by seed.

    Args:
        name: Name, unique among the candidates.
        alpha: α, or None.
        chains: Function that returns the runs of a seed, each after the steps that make its maps.
        map_step: Function that returns the step of a seed whose record contains the agreement of
            its maps with human maps, or None without such a record. None = the runs themselves.
    """

    name: str
    alpha: float | None
    chains: Callable[[int], list[list[Step]]]
    map_step: Callable[[int], Step | None] | None = None


@dataclass(frozen=True)
class _Scored:
    """Candidate of a selection, given by the steps with its scores.

    Args:
        name: Name, unique among the candidates.
        alpha: α, or None.
        runs: Runs with the validation scores, one for each seed.
        maps: Steps whose records contain the correlation of the maps with human maps.
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
        remembered: Choices of an earlier start by the name of the selection, which are kept if the
            scores have not changed.
        decided: Called after each choice.
        steps: Steps added so far, by id.
        origin: Id of the selection that added a step, by the step's id; "" for the first steps.
        members: Runs added so far, each with its arm, in order.
        looks: Looks made so far, in order; empty if the number of seeds is fixed.
    """

    protocol: Protocol
    choices: dict[Selection, Choice] = field(default_factory=dict)
    remembered: Mapping[str, Choice] = field(default_factory=dict)
    decided: Callable[[], None] = lambda: None
    steps: dict[str, Step] = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)
    members: dict[Member, None] = field(default_factory=dict)
    looks: dict[Look, LookResult] = field(default_factory=dict)

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of the selected runs; every look may add some."""
        study = self.protocol.study
        counts = [result.next or result.seeds for result in self.looks.values()]
        return study.seed_list[: max(counts)] if counts else study.first_seeds

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
        """First steps; their selections add the others."""
        return self._added(self.stage_one())

    def stage_one(self) -> list[Step]:
        """Baselines, ceiling, Teachers, their maps and the probe Students."""
        protocol, study = self.protocol, self.protocol.study
        steps: list[Step] = []
        for backbone in study.students:
            steps += self._search_alpha("baseline1", backbone)
            if study.ceiling:
                steps += self._search_alpha("ceiling", backbone)
            steps += [
                protocol.full_run("baseline2", backbone, 1.0, seed) for seed in study.first_seeds
            ]
        return steps + self._search_teacher()

    def stage_two(self, winner: Teacher) -> list[Step]:
        """Students of the selected Teacher and controls, for every backbone and α."""
        study = self.protocol.study
        steps: list[Step] = []
        for backbone in study.students:
            steps += self._search_alpha("student", backbone, winner)
            if study.controls_alpha == "own":
                for control in controls_of(study, winner):
                    steps += self._search_alpha(control, backbone, winner)
        return steps

    def variants_and_tests(self, winner: Teacher, backbone: str, alpha: float) -> list[Step]:
        """Variants, and controls without an α of their own, at the Students' α; then the test
        scores of these runs, of the Students and of Baseline 2."""
        protocol, study = self.protocol, self.protocol.study
        runs: list[Step] = []
        makers: list[Step] = []  # Teachers of variants, their maps and means of committees

        def add(chain: list[Step]) -> None:
            makers.extend(chain[:-1])
            runs.append(chain[-1])

        for seed in self.seeds:
            add(protocol.student(winner, backbone, alpha, seed))
            add([protocol.full_run("baseline2", backbone, 1.0, seed)])
            if study.controls_alpha == "student":
                for control in controls_of(study, winner):
                    add(protocol.control(control, winner, backbone, alpha, seed))
            for name, variant in study.variants.items():
                add(protocol.variant(name, winner, backbone, variant.alpha_of(alpha), seed))
        return makers + runs + [protocol.evaluation(run) for run in runs]

    def budget(
        self, role: Literal["baseline1", "student"], backbone: str, alpha: float
    ) -> list[Step]:
        """Runs of Baseline 1 or of the Student for each number of annotated images.

        Args:
            role: baseline1 or student.
            backbone: Backbone of the models.
            alpha: α selected for this role.
        """
        winner = self.winner()
        assert winner is not None
        runs, makers = [], []
        for size in self.protocol.study.budgets:
            protocol = self.protocol.of_budget(size)
            for seed in protocol.study.first_seeds:
                if role == "baseline1":
                    runs.append(protocol.annotated_run(backbone, alpha, seed))
                elif winner.kind != "given":  # given maps do not depend on what is annotated
                    *before, run = protocol.student(winner, backbone, alpha, seed)
                    makers += before
                    runs.append(run)
        return makers + runs + [self.protocol.evaluation(run) for run in runs]

    def detectors(self) -> list[Step]:
        """Mappers of A and, with a ceiling, of all human maps, and their test scores."""
        protocol, study = self.protocol, self.protocol.study
        if study.mapper is None:
            return []
        roles: list[Literal["mapper", "mapper_all"]] = ["mapper"]
        if study.ceiling:
            roles.append("mapper_all")
        runs = [
            protocol.mapper_run(role, backbone, seed)
            for role in roles
            for backbone in study.teachers
            for seed in self.seeds
        ]
        return runs + [protocol.evaluation(run) for run in runs]

    def outline(self, most: bool = False) -> tuple[list[Step], list[Step]]:
        """All steps of stage 1 and stage 2, as if the first Teacher and α were chosen.

        A search by racing is taken to drop all other candidates at the first comparison. Nothing is
        added to this plan.

        Args:
            most: Whether all seeds are run if their number is auto; otherwise those of the first
                look.
        """
        plan, study = Plan(self.protocol), self.protocol.study
        if most and study.looks:
            first, last = len(study.first_seeds), len(study.seed_list)
            plan.looks[Look(self.domain, first)] = LookResult(first, (), 0.0, last)
        return plan._outline()

    def _outline(self) -> tuple[list[Step], list[Step]]:
        protocol, study = self.protocol, self.protocol.study
        first = {step.id: step for step in self.stage_one()}
        winner, alpha = protocol.teachers()[0], study.alpha_grid[0]
        self.choices[self._teacher] = Choice(str(winner), "", ())
        later = self.stage_two(winner)
        for backbone in study.students:
            later += self.variants_and_tests(winner, backbone, alpha)
            later += self.budget("baseline1", backbone, alpha)
            later += self.budget("student", backbone, alpha)
            for seed in self.seeds:
                chosen = [
                    [protocol.annotated_run(backbone, own, seed)] for own in {PAPER_ALPHA, alpha}
                ]
                if study.ceiling:
                    chosen.append([protocol.full_run("ceiling", backbone, alpha, seed)])
                if study.controls_alpha == "own":
                    chosen += [
                        protocol.control(control, winner, backbone, alpha, seed)
                        for control in controls_of(study, winner)
                    ]
                later += [step for chain in chosen for step in chain]
                later += [protocol.evaluation(chain[-1]) for chain in chosen]
        trained = {step.id for step in (*first.values(), *later)}
        later += self.detectors()
        probes = [chain[-1] for chain in self._probe_chains() if chain[-1].id in trained]
        later += map(protocol.evaluation, probes)
        unique = {step.id: step for step in later if step.id not in first}
        return list(first.values()), list(unique.values())

    @property
    def teacher_choice(self) -> Choice | None:
        """Choice among Teachers; None before the selection."""
        return self.choices.get(self._teacher)

    def alpha_choice(self, role: Role, backbone: str) -> Choice | None:
        """Choice of the α of a role; None before the selection."""
        return self.choices.get(Selection(self.domain, role, backbone))

    def winner(self) -> Teacher | None:
        """Selected Teacher; None before the selection."""
        choice = self.teacher_choice
        if choice is None:
            return None
        return {str(teacher): teacher for teacher in self.protocol.teachers()}[choice.winner]

    def alpha_of(self, role: Role, backbone: str) -> float | None:
        """Selected α of a role; None before the selection."""
        choice = self.alpha_choice(role, backbone)
        return None if choice is None else choice.alpha

    def is_decided(self, decision: Selection | Look) -> bool:
        """Whether a selection or a look has been made."""
        return decision in (self.looks if isinstance(decision, Look) else self.choices)

    # Selections.

    def _probes(self) -> list[tuple[str, float]]:
        """Student backbones and α of stage 1."""
        study = self.protocol.study
        if study.plan == "staged":
            return [(study.probe_backbone, study.stage_one_alpha)]
        return [(backbone, alpha) for backbone in study.students for alpha in study.alpha_grid]

    def _probe_chains(self) -> list[list[Step]]:
        """The probe Students of every Teacher and seed, each after the steps that make its maps."""
        protocol = self.protocol
        backbone, alpha = self._probes()[0]
        return [
            protocol.student(teacher, backbone, alpha, seed)
            for teacher in protocol.teachers()
            for seed in protocol.study.first_seeds
        ]

    @property
    def _teacher(self) -> Selection:
        return Selection(self.domain, "teacher")

    def _search_teacher(self) -> list[Step]:
        """Probe Students of every Teacher, and the selection among the Teachers."""
        protocol, teachers = self.protocol, self.protocol.teachers()

        def students(teacher: Teacher) -> Callable[[int], list[list[Step]]]:
            return lambda seed: [
                protocol.student(teacher, backbone, alpha, seed)
                for backbone, alpha in self._probes()
            ]

        contenders = [
            _Contender(
                str(teacher),
                teacher.alpha if teacher.kind == "human" else None,
                students(teacher),
                partial(self._map_step, teacher),
            )
            for teacher in teachers
        ]

        def follow(choice: Choice) -> list[Step]:
            winner = self.winner()
            assert winner is not None
            return self.stage_two(winner)

        title = f"among {len(teachers)} Teachers"
        return self._search(self._teacher, title, contenders, follow)

    def _search_alpha(self, role: Role, backbone: str, winner: Teacher | None = None) -> list[Step]:
        """Runs of a role at every α of its grid, and the selection of its α."""
        protocol, study = self.protocol, self.protocol.study
        alphas = protocol.baseline_alphas if role == "baseline1" else study.alpha_grid
        if role == "masked":
            alphas = (1.0,)  # it has no guidance

        def runs(alpha: float) -> Callable[[int], list[list[Step]]]:
            return lambda seed: [self._run(role, backbone, alpha, seed, winner)]

        contenders = [_Contender(f"α {alpha:g}", alpha, runs(alpha)) for alpha in alphas]
        if role != "student":  # test sets are not scored before the selection of the Students
            also = [Selection(self.domain, "student", backbone).step_id]
        else:
            also = [self._teacher.step_id] if len(protocol.teachers()) == 1 else []
        where = f" ({self.domain})" if self.domain else ""
        return self._search(
            Selection(self.domain, role, backbone),
            f"α of {role} {backbone}{where}",
            contenders,
            lambda choice: [*self._after_alpha(role, backbone, choice.alpha), *self._look()],
            also,
        )

    def _run(
        self, role: Role, backbone: str, alpha: float, seed: int, winner: Teacher | None
    ) -> list[Step]:
        """The run of a role whose α is chosen, after the steps that make its maps."""
        if role == "baseline1":
            return [self.protocol.annotated_run(backbone, alpha, seed)]
        if role == "ceiling":
            return [self.protocol.full_run(role, backbone, alpha, seed)]
        assert winner is not None
        if role == "student":
            return self.protocol.student(winner, backbone, alpha, seed)
        if role not in get_args(Control):
            raise ValueError(f"no α is chosen for the role {role}")
        return self.protocol.control(cast(Control, role), winner, backbone, alpha, seed)

    def _after_alpha(self, role: Role, backbone: str, alpha: float) -> list[Step]:
        """Steps that follow from the selection of the α of a role."""
        winner = self.winner()
        if role == "student":
            assert winner is not None
            later = self.variants_and_tests(winner, backbone, alpha)
            if backbone == self.protocol.study.students[0]:
                probes = self._probe_chains()  # a dropped Teacher lacks some seeds
                known = [chain[-1] for chain in probes if chain[-1].id in self.steps]
                later += map(self.protocol.evaluation, known)
                later += self.detectors()
            return later + self.budget("student", backbone, alpha)
        shown = sorted({alpha, PAPER_ALPHA} if role == "baseline1" else {alpha})
        chains = [
            self._run(role, backbone, one, seed, winner) for one in shown for seed in self.seeds
        ]
        later = [step for chain in chains for step in chain]  # a dropped α lacks some seeds
        later += [self.protocol.evaluation(chain[-1]) for chain in chains]
        return later + (self.budget("baseline1", backbone, alpha) if role == "baseline1" else [])

    def _look(self) -> list[Step]:
        """Step that looks at the primary comparisons; none before all of their α are selected, or
        if the number of seeds is fixed."""
        protocol, settings, alphas = self.protocol, self.protocol.study.seeds, self._alphas()
        names = protocol.study.students
        if not isinstance(settings, AutoSeeds) or any(
            (role, name) not in alphas for role in COMPARED for name in names
        ):
            return []
        winner = self.winner()
        assert winner is not None
        here = Look(self.domain, len(self.seeds))
        pairs = primary_pairs(protocol, winner, alphas, self.seeds)

        def decide() -> list[Step]:
            self.looks[here] = look(primary_aucs(protocol, pairs), settings.auto)
            if self.looks[here].next is None:
                return []
            # Roles whose α is not selected yet follow with all of these seeds when it is.
            later = [self._after_alpha(*key, alpha) for key, alpha in self._alphas().items()]
            return [*(step for steps in later for step in steps), *self._look()]

        runs = {run.id: run for sides in pairs.values() for side in sides for run in side}
        identity = here.step_id
        work = Select(here, lambda: self._added(decide(), by=identity))
        where = f" ({self.domain})" if self.domain else ""
        name = f"whether further seeds are run, after {here.seeds}{where}"
        needs = tuple(protocol.evaluation(run).id for run in runs.values())
        return [Step(identity, work, name, needs)]

    def _alphas(self) -> dict[tuple[Role, str], float]:
        """Selected α by role and backbone."""
        return {
            (one.role, one.backbone): choice.alpha
            for one, choice in self.choices.items()
            if one.backbone and not one.seeds
        }

    def _search(
        self,
        selection: Selection,
        title: str,
        contenders: Sequence[_Contender],
        follow: Callable[[Choice], list[Step]],
        also: Sequence[str] = (),
        rung: int = 0,
        dropped: tuple[Mapping[str, Any], ...] = (),
    ) -> list[Step]:
        """The runs of the contenders up to a rung of seeds, and the step that compares them.

        Args:
            selection: The selection.
            title: Title of the selection, for people.
            contenders: Candidates that are still in the search.
            follow: The steps that follow from the choice.
            also: Ids of further steps that the choice needs.
            rung: Position in `StudyConfig.rungs`; after the last one the choice is made.
            dropped: Rows of the candidates that were dropped on earlier rungs.
        """
        study = self.protocol.study
        last = len(contenders) == 1 or rung + 1 == len(study.rungs)
        seeds = study.first_seeds if last else study.first_seeds[: study.rungs[rung]]
        here = selection if last else replace(selection, seeds=len(seeds))
        trivial = len(contenders) == 1 and selection == self._teacher and not dropped
        chains = {
            one.name: [chain for seed in seeds for chain in one.chains(seed)] for one in contenders
        }
        runs = {name: [chain[-1] for chain in group] for name, group in chains.items()}
        steps = [step for group in chains.values() for chain in group for step in chain]

        def maps(one: _Contender) -> list[Step]:
            if one.map_step is None:
                return runs[one.name]
            return [step for seed in seeds if (step := one.map_step(seed)) is not None]

        def decide() -> list[Step]:
            if trivial:
                name = contenders[0].name
                choice = Choice(name, f"{name}: it is the only candidate.", ())
            else:
                choice = self._decide(
                    here,
                    [_Scored(one.name, one.alpha, runs[one.name], maps(one)) for one in contenders],
                )
            if last:
                choice = with_dropped(choice, dropped, len(study.first_seeds))
            self.choices[here] = choice
            self.decided()
            if last:
                return follow(choice)
            assert study.search != "grid"
            names = survivors(choice, study.selection, study.search)
            gone = tuple(
                {**row, "seeds": len(seeds)} for row in choice.table if row["name"] not in names
            )
            kept = [one for one in contenders if one.name in names]
            return self._search(selection, title, kept, follow, also, rung + 1, (*dropped, *gone))

        needs = [run.id for group in runs.values() for run in group]
        identity = here.step_id
        work = Select(here, lambda: self._added(decide(), by=identity))
        name = title if last else f"{title}, after {len(seeds)} seeds"
        return [*steps, Step(identity, work, name, (*(() if trivial else needs), *also))]

    def _added(self, steps: list[Step], by: str = "") -> list[Step]:
        """Add steps and their runs to the plan; known ones are not changed."""
        for step in steps:
            self.steps.setdefault(step.id, step)
            self.origin.setdefault(step.id, by)
            if isinstance(step.work, Train):
                config = step.work.config
                member = Member(step.work.arm, config.seed, step.id, config.manifest)
                self.members.setdefault(member)
        return steps

    def _decide(self, selection: Selection, candidates: Sequence[_Scored]) -> Choice:
        """Earlier choice with the same scores, or a new one."""
        study, manifest = self.protocol.study, self.protocol.workspace.manifest
        folders = [[self.protocol.folder(step) for step in one.runs] for one in candidates]
        agreements = [
            mean_map_correlation(self.protocol.folder(step) for step in one.maps)
            for one in candidates
        ]
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

    def _map_step(self, teacher: Teacher, seed: int) -> Step | None:
        """The step whose record holds how a Teacher's maps agree with human maps: its training for
        its own maps, the making of its maps for RISE."""
        if teacher.kind == "given":
            return None
        protocol, guiding = self.protocol, self.protocol.study.guiding()
        training = protocol.teacher_run(teacher, seed, guiding)
        if teacher.method != "rise":
            return training
        return protocol.make_maps(training, teacher, guiding)[-1]
