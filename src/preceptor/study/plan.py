"""Plan of one domain of a study: the steps and choices so far, and the search of a selection.

Selections are steps as well: the choice made by a selection adds the steps that follow from it;
which steps these are is in `study.stages`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from preceptor.runtime.result_folder import SCORES, checksum, read_scores
from preceptor.study.looks import LookResult
from preceptor.study.protocol import Protocol
from preceptor.study.search import survivors, with_dropped
from preceptor.study.selection import Candidate, Choice, choose, evidence_of
from preceptor.study.setting import Setting
from preceptor.study.steps import Look, Member, Role, Select, Selection, Step, Train
from preceptor.study.teacher import Teacher, candidate_name, teachers_of
from preceptor.training.record import mean_map_correlation


@dataclass(frozen=True)
class Contender:
    """Candidate of a selection, whose runs are created seed by seed.

    Args:
        name: Name, unique among the candidates.
        setting: α and way of guiding.
        preferred: Whether the candidate is chosen if it is tied with the best.
        chains: Function that returns the runs of a seed, each after the steps that make its maps.
        map_step: Function that returns the step of a seed whose record contains the agreement of
            its maps with human maps, or None without such a record. None = the runs themselves.
    """

    name: str
    setting: Setting
    chains: Callable[[int], list[list[Step]]]
    map_step: Callable[[int], Step | None] | None = None
    preferred: bool = False


@dataclass(frozen=True)
class _Scored:
    """Candidate of a selection, given by the steps with its scores.

    Args:
        name: Name, unique among the candidates.
        setting: α and way of guiding.
        runs: Runs with the validation scores, those of a seed one after another.
        seeds: Number of seeds.
        maps: Steps whose records contain the correlation of the maps with human maps.
        preferred: Whether the candidate is chosen if it is tied with the best.
    """

    name: str
    setting: Setting
    runs: Sequence[Step]
    seeds: int
    maps: Sequence[Step]
    preferred: bool


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
        """Runs of a role with the study's own number of annotated images and initial weights."""
        for member in self.members:
            arm = member.arm
            own = arm.annotated is None and not arm.start
            if arm.role == role and own and backbone in (None, arm.backbone):
                yield member

    @property
    def teacher_choice(self) -> Choice | None:
        """Choice among Teachers; None before the selection."""
        return self.choices.get(self.teacher_selection)

    def setting_choice(self, role: Role, backbone: str, annotated: int = 0) -> Choice | None:
        """Choice of the setting of a role; None before the selection."""
        return self.choices.get(Selection(self.domain, role, backbone, annotated=annotated))

    def winner(self) -> Teacher | None:
        """Selected Teacher; None before the selection."""
        choice = self.teacher_choice
        if choice is None:
            return None
        study = self.protocol.study
        names = {
            candidate_name(teacher, setting): teacher
            for teacher in teachers_of(study)
            for setting in (None, *study.probe_settings)
        }
        return names[choice.winner]

    def probe_setting_of(self, teacher: Teacher) -> Setting | None:
        """Setting at which the Student of a Teacher is best on validation, of those of stage 1.

        None before the choice of the Teacher, and if there is one Teacher only.
        """
        choice, study = self.teacher_choice, self.protocol.study
        if choice is None:
            return None
        rows = {str(row["name"]): row for row in choice.table}
        names = {candidate_name(teacher, setting): setting for setting in study.probe_settings}
        known = [(float(rows[name]["value"]), names[name]) for name in names if name in rows]
        return min(known, key=lambda one: (-one[0], one[1]))[1] if known else None

    def setting_of(self, role: Role, backbone: str, annotated: int = 0) -> Setting | None:
        """Selected setting of a role; None before the selection.

        Args:
            annotated: Number of annotated images of a budget; 0 = the study's own number.
        """
        plain = self.protocol.study.plain_settings
        if role == "baseline2" and len(plain) == 1:
            return plain[0]
        choice = self.setting_choice(role, backbone, annotated)
        return None if choice is None else choice.setting

    def is_decided(self, decision: Selection | Look) -> bool:
        """Whether a selection or a look has been made."""
        return decision in (self.looks if isinstance(decision, Look) else self.choices)

    @property
    def dropped_teachers(self) -> frozenset[str]:
        """Teachers whose probe Students got no further seeds after a comparison on validation."""
        study = self.protocol.study
        if study.search == "grid":
            return frozenset()
        return frozenset(
            str(row["name"])
            for selection, choice in self.choices.items()
            if selection.role == "teacher" and selection.seeds
            for row in choice.table
            if row["name"] not in survivors(choice, study.selection, study.search)
        )

    @property
    def teacher_selection(self) -> Selection:
        """Identifier of the selection among the Teachers."""
        return Selection(self.domain, "teacher")

    def settings(self) -> dict[tuple[Role, str], Setting]:
        """Selected settings by role and backbone."""
        return {
            (one.role, one.backbone): choice.setting
            for one, choice in self.choices.items()
            if one.backbone and not one.seeds and not one.annotated
        }

    def search(
        self,
        selection: Selection,
        title: str,
        contenders: Sequence[Contender],
        follow: Callable[[Choice], list[Step]],
        also: Sequence[str] = (),
        rung: int = 0,
        dropped: tuple[Mapping[str, Any], ...] = (),
        trivial: str = "",
    ) -> list[Step]:
        """The runs of the contenders up to a rung of seeds, and the step that compares them.

        Args:
            selection: The selection.
            title: Title of the selection, for people.
            contenders: Candidates that are still in the search.
            follow: The steps that follow from the choice.
            also: Ids of further steps that the choice needs; comparisons before it do not.
            rung: Position in `StudyConfig.rungs`; after the last one the choice is made.
            dropped: Rows of the candidates that were dropped on earlier rungs.
            trivial: Name of the only possible choice, which needs no scores; "" = there are more.
        """
        study = self.protocol.study
        last = bool(trivial) or len(contenders) == 1 or rung + 1 == len(study.rungs)
        seeds = study.first_seeds if last else study.first_seeds[: study.rungs[rung]]
        here = selection if last else replace(selection, seeds=len(seeds))
        chains = {
            one.name: [chain for seed in seeds for chain in one.chains(seed)] for one in contenders
        }
        runs = {name: [chain[-1] for chain in group] for name, group in chains.items()}
        steps = [step for group in chains.values() for chain in group for step in chain]

        def maps(one: Contender) -> list[Step]:
            if one.map_step is None:
                return runs[one.name]
            return [step for seed in seeds if (step := one.map_step(seed)) is not None]

        def decide() -> list[Step]:
            if trivial:
                choice = Choice(trivial, f"{trivial}: it is the only candidate.", ())
            else:
                scored = [
                    _Scored(
                        one.name,
                        one.setting,
                        runs[one.name],
                        len(seeds),
                        maps(one),
                        one.preferred,
                    )
                    for one in contenders
                ]
                choice = self._decide(here, scored, dropped if last else ())
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
            return self.search(selection, title, kept, follow, also, rung + 1, (*dropped, *gone))

        needs = [run.id for group in runs.values() for run in group]
        identity = here.step_id
        work = Select(here, lambda: self.add(decide(), by=identity))
        name = title if last else f"{title}, after {len(seeds)} seeds"
        return [
            *steps,
            Step(identity, work, name, (*(() if trivial else needs), *(also if last else ()))),
        ]

    def add(self, steps: list[Step], by: str = "") -> list[Step]:
        """Add steps and their runs to the plan; known ones are not changed."""
        for step in steps:
            self.steps.setdefault(step.id, step)
            self.origin.setdefault(step.id, by)
            if isinstance(step.work, Train):
                config = step.work.config
                member = Member(step.work.arm, config.seed, step.id, config.manifest)
                self.members.setdefault(member)
        return steps

    def _decide(
        self,
        selection: Selection,
        candidates: Sequence[_Scored],
        dropped: Sequence[Mapping[str, Any]],
    ) -> Choice:
        """Earlier choice with the same scores and dropped candidates, or a new one."""
        study, manifest = self.protocol.study, self.protocol.workspace.manifest
        folders = [[self.protocol.folder(step) for step in one.runs] for one in candidates]
        agreements = [
            mean_map_correlation(self.protocol.folder(step) for step in one.maps)
            for one in candidates
        ]
        evidence = evidence_of(
            [
                (one.name, one.setting, [checksum(run, SCORES) for run in runs], agreement)
                for one, runs, agreement in zip(candidates, folders, agreements, strict=True)
            ],
            manifest.classes,
            study.positive,
            study.selection,
            study.draws,
            study.validation_negatives,
            dropped,
        )
        known = self.remembered.get(selection.name)
        if known is not None and known.evidence == evidence:
            return known
        choice = choose(
            [
                Candidate(
                    one.name,
                    one.setting,
                    [read_scores(run) for run in runs],
                    agreement,
                    preferred=one.preferred,
                )
                for one, runs, agreement in zip(candidates, folders, agreements, strict=True)
            ],
            classes=manifest.classes,
            positive=study.positive,
            rule=study.selection,
            draws=study.draws,
            negatives=study.validation_negatives,
        )
        choice = with_dropped(choice, dropped, len(study.first_seeds))
        return replace(choice, evidence=evidence)
