"""Stages of a study: which steps come first, and which follow from a choice.

Stage 1 has the baselines, the ceiling, the Teachers and the probe Students, at up to three α each;
stage 2, after the choice of the Teacher, its Students (those of stage 1 are used again) and the
controls. Test sets are scored only after the selection
of the Students' settings (the way of guiding and α), for which the selections of the other roles
wait. If the number of seeds is auto, all selections use the seeds of the first look; every look at
the primary comparisons is a step that may add further seeds of the selected runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Literal, cast, get_args

from preceptor.study.baseline_runs import annotated_run, full_run
from preceptor.study.budget_runs import budget_mappers
from preceptor.study.config import StudyConfig
from preceptor.study.control_runs import added_control_run, control_run
from preceptor.study.controls import Control
from preceptor.study.looks import COMPARED, LookResult, look, primary_aucs, primary_pairs
from preceptor.study.plan import Contender, Plan
from preceptor.study.seeds import AutoSeeds
from preceptor.study.selection import Choice
from preceptor.study.setting import Setting
from preceptor.study.steps import Look, Role, Select, Selection, Step
from preceptor.study.student_runs import from_mapper, student_run, variant_run
from preceptor.study.teacher import (
    Teacher,
    added_controls_of,
    candidate_name,
    controls_of,
    teachers_of,
)
from preceptor.study.teacher_maps import make_maps
from preceptor.study.teacher_runs import mapper_run, teacher_run


def first_steps(plan: Plan) -> list[Step]:
    """First steps; their selections add the others."""
    return plan.add(stage_one(plan))


def stage_one(plan: Plan) -> list[Step]:
    """Baselines, ceiling, Teachers, their maps and the probe Students."""
    protocol, study = plan.protocol, plan.protocol.study
    steps: list[Step] = []
    for backbone in study.students:
        steps += _search_setting(plan, "baseline1", backbone)
        if study.ceiling:
            steps += _search_setting(plan, "ceiling", backbone)
        if len(study.plain_settings) > 1:
            steps += _search_setting(plan, "baseline2", backbone)
        else:
            (plain,) = study.plain_settings
            steps += [
                full_run(protocol, "baseline2", backbone, plain, seed) for seed in study.first_seeds
            ]
    return steps + _search_teacher(plan)


def stage_two(plan: Plan, winner: Teacher) -> list[Step]:
    """Students of the selected Teacher and controls, for every backbone and setting."""
    study = plan.protocol.study
    steps: list[Step] = []
    for backbone in study.students:
        steps += _search_setting(plan, "student", backbone, winner)
        if study.controls_alpha == "own":
            for control in controls_of(study, winner):
                steps += _search_setting(plan, control, backbone, winner)
    return steps


def variants_and_tests(plan: Plan, winner: Teacher, backbone: str, setting: Setting) -> list[Step]:
    """Variants, and controls without a setting of their own, at the Students' setting; then the
    test scores of these runs, of the Students and of Baseline 2."""
    protocol, study = plan.protocol, plan.protocol.study
    runs: list[Step] = []
    makers: list[Step] = []  # Teachers of variants, their maps and means of committees

    def add(chain: list[Step]) -> None:
        makers.extend(chain[:-1])
        runs.append(chain[-1])

    for seed in plan.seeds:
        own_chains = [student_run(protocol, winner, backbone, setting, seed)]
        if len(study.plain_settings) == 1:  # otherwise after its own selection
            (plain,) = study.plain_settings
            own_chains.append([full_run(protocol, "baseline2", backbone, plain, seed)])
        for chain in own_chains:
            add(chain)
            if study.starts_from_mapper:
                add(from_mapper(protocol, chain, seed))
        if study.controls_alpha == "student":
            for control in controls_of(study, winner):
                add(control_run(protocol, control, winner, backbone, setting, seed))
        for name in added_controls_of(study):
            add([added_control_run(protocol, name, winner, backbone, setting, seed)])
        for name, variant in study.variants.items():
            own = replace(setting, alpha=variant.alpha_of(setting.alpha))
            add(variant_run(protocol, name, winner, backbone, own, seed))
    return makers + runs + [protocol.evaluation(run) for run in runs]


def detectors(plan: Plan) -> list[Step]:
    """Mappers of A and, with a ceiling, of all human maps, and their test scores."""
    protocol, study = plan.protocol, plan.protocol.study
    if study.mapper is None:
        return []
    roles: list[Literal["mapper", "mapper_all"]] = ["mapper"]
    if study.ceiling:
        roles.append("mapper_all")
    runs = [
        mapper_run(protocol, role, backbone, seed)
        for role in roles
        for backbone in study.teachers
        for seed in plan.seeds
    ]
    return runs + [protocol.evaluation(run) for run in runs]


def outline(plan: Plan, most: bool = False) -> tuple[list[Step], list[Step]]:
    """All steps of stage 1 and stage 2 with the choices made so far, and all steps of the plan.

    Where no choice has been made, the first Teacher or setting is taken to be chosen, and a search
    by racing to drop all other candidates at the first comparison. Nothing is added to the plan.

    Args:
        plan: Plan of one domain.
        most: Whether all seeds are run if their number is auto and not decided; otherwise those of
            the first look.
    """
    protocol, study = plan.protocol, plan.protocol.study
    draft = Plan(protocol, choices=dict(plan.choices), looks=dict(plan.looks))
    decided = any(result.next is None for result in plan.looks.values())
    if most and study.looks and not decided:
        first_look, last = len(study.first_seeds), len(study.seed_list)
        draft.looks[Look(plan.domain, first_look)] = LookResult(first_look, (), 0.0, last)
    first = first_steps(draft)
    winner = plan.winner()
    if winner is None:
        winner = teachers_of(study)[0]
        draft.choices[draft.teacher_selection] = Choice(str(winner), "", ())
    later = draft.add(stage_two(draft, winner))
    for backbone in study.students:
        for role in _roles_with_settings(study, winner):
            setting = plan.setting_of(role, backbone)
            if setting is None:
                grid = study.settings if role == "baseline1" else _settings_of(study, role)
                setting = grid[0]
            later += draft.add(_after_setting(draft, role, backbone, setting))
            for size in study.budgets if role in ("student", "baseline1") else ():
                setting = plan.setting_of(role, backbone, size) or _settings_of(study, role)[0]
                later += draft.add(_budget_tests(draft, role, backbone, setting, size))
    known = {step.id for step in first}
    unique = {step.id: step for step in [*later, *plan.steps.values()] if step.id not in known}
    return list({step.id: step for step in first}.values()), list(unique.values())


def _roles_with_settings(study: StudyConfig, winner: Teacher) -> list[Role]:
    """Roles whose setting is selected."""
    roles: list[Role] = ["student", "baseline1"]
    roles += ["ceiling"] if study.ceiling else []
    roles += ["baseline2"] if len(study.plain_settings) > 1 else []
    return roles + (list(controls_of(study, winner)) if study.controls_alpha == "own" else [])


def _settings_of(study: StudyConfig, role: Role) -> tuple[Setting, ...]:
    """Settings among which that of a role is selected."""
    if role == "baseline1":
        return study.baseline_settings
    if role in ("baseline2", "masked"):
        return study.plain_settings  # no guidance
    if role == "dfr":
        assert study.mean_setting is not None
        return (study.mean_setting,)
    return study.settings


def _search_teacher(plan: Plan) -> list[Step]:
    """Probe Students of every Teacher at up to three α, and the choice of Teacher and α together.

    Of Teachers that are tied with the best, mappers are preferred.
    """
    protocol, study = plan.protocol, plan.protocol.study
    teachers = teachers_of(study)

    def students(teacher: Teacher, setting: Setting) -> Callable[[int], list[list[Step]]]:
        return lambda seed: [student_run(protocol, teacher, study.probe_backbone, setting, seed)]

    contenders = [
        Contender(
            candidate_name(teacher, setting),
            setting,
            students(teacher, setting),
            partial(_map_step, plan, teacher),
            preferred=teacher.kind == "mapper",
        )
        for teacher in teachers
        for setting in study.probe_settings
    ]

    def follow(choice: Choice) -> list[Step]:
        winner = plan.winner()
        assert winner is not None
        return stage_two(plan, winner)

    title = f"among {len(teachers)} Teachers"
    only = candidate_name(teachers[0]) if len(teachers) == 1 else ""
    return plan.search(plan.teacher_selection, title, contenders, follow, trivial=only)


def _search_setting(
    plan: Plan, role: Role, backbone: str, winner: Teacher | None = None, annotated: int = 0
) -> list[Step]:
    """Runs of a role at each of its settings, and the selection of its setting.

    Args:
        annotated: Number of annotated images of a budget; 0 = the study's own number.
    """
    protocol, study = plan.protocol, plan.protocol.study

    def runs(setting: Setting) -> Callable[[int], list[list[Step]]]:
        return lambda seed: [_run(plan, role, backbone, setting, seed, winner, annotated)]

    contenders = [
        Contender(str(setting), setting, runs(setting)) for setting in _settings_of(study, role)
    ]
    if role != "student":  # test sets are not scored before the selection of the Students
        also = [Selection(plan.domain, "student", backbone).step_id]
    else:
        also = [plan.teacher_selection.step_id] if len(teachers_of(protocol.study)) == 1 else []
    selection = Selection(plan.domain, role, backbone, annotated=annotated)
    where = f" ({plan.domain})" if plan.domain else ""

    def follow(choice: Choice) -> list[Step]:
        if annotated:
            return _budget_tests(plan, role, backbone, choice.setting, annotated)
        return [*_after_setting(plan, role, backbone, choice.setting), *_look(plan)]

    title = f"{'setting' if study.guidances else 'α'} of {selection.label} {backbone}{where}"
    return plan.search(selection, title, contenders, follow, also)


def _run(
    plan: Plan,
    role: Role,
    backbone: str,
    setting: Setting,
    seed: int,
    winner: Teacher | None,
    annotated: int = 0,
) -> list[Step]:
    """The run of a role whose setting is chosen, after the steps that make its maps."""
    protocol = plan.protocol.of_budget(annotated) if annotated else plan.protocol
    if role == "baseline1":
        return [annotated_run(protocol, backbone, setting, seed)]
    if role in ("ceiling", "baseline2"):
        return [full_run(protocol, role, backbone, setting, seed)]
    assert winner is not None
    if role == "student":
        return student_run(protocol, winner, backbone, setting, seed)
    if role not in get_args(Control):
        raise ValueError(f"no setting is chosen for the role {role}")
    return control_run(protocol, cast(Control, role), winner, backbone, setting, seed)


def _search_budget(plan: Plan, role: Role, backbone: str) -> list[Step]:
    """Runs of Baseline 1 or the Student for each number of annotated images, and the selection of
    a setting for each number. Given maps do not depend on what is annotated."""
    winner, sizes = plan.winner(), plan.protocol.study.budgets
    assert winner is not None
    if role == "student" and winner.kind == "given":
        return []
    searches = [_search_setting(plan, role, backbone, winner, size) for size in sizes]
    return [step for steps in searches for step in steps]


def _budget_tests(
    plan: Plan, role: Role, backbone: str, setting: Setting, annotated: int
) -> list[Step]:
    """Test scores of the runs of a budget at the selected setting."""
    seeds, winner = plan.protocol.study.first_seeds, plan.winner()
    chains = [_run(plan, role, backbone, setting, seed, winner, annotated) for seed in seeds]
    return [plan.protocol.evaluation(chain[-1]) for chain in chains]


def _after_setting(plan: Plan, role: Role, backbone: str, setting: Setting) -> list[Step]:
    """Steps that follow from the selection of the setting of a role."""
    winner, protocol = plan.winner(), plan.protocol
    if role == "student":
        assert winner is not None
        later = variants_and_tests(plan, winner, backbone, setting)
        if backbone == protocol.study.students[0]:
            later += map(protocol.evaluation, _probes(plan))
            later += detectors(plan) + budget_mappers(plan)
        return later + _search_budget(plan, role, backbone)
    paper = protocol.study.paper_setting
    shown = sorted({setting, paper} if role == "baseline1" else {setting})
    chains = [_run(plan, role, backbone, one, seed, winner) for one in shown for seed in plan.seeds]
    if protocol.study.starts_from_mapper and role in ("baseline1", "baseline2"):
        chains += [
            from_mapper(protocol, _run(plan, role, backbone, setting, seed, winner), seed)
            for seed in plan.seeds
        ]
    later = [step for chain in chains for step in chain]  # a dropped one lacks some seeds
    later += [protocol.evaluation(chain[-1]) for chain in chains]
    if role == "baseline1":
        later += _search_budget(plan, role, backbone)
    return later


def _probes(plan: Plan) -> list[Step]:
    """The probe Students of every Teacher at the setting at which they are best on validation."""
    protocol, study = plan.protocol, plan.protocol.study
    runs = [
        student_run(protocol, teacher, study.probe_backbone, setting, seed)[-1]
        for teacher in teachers_of(study)
        if (setting := plan.probe_setting_of(teacher)) is not None
        for seed in study.first_seeds
    ]
    return [run for run in runs if run.id in plan.steps]  # a dropped Teacher lacks some seeds


def _look(plan: Plan) -> list[Step]:
    """Step that looks at the primary comparisons; none before all of their settings are selected,
    or if the number of seeds is fixed."""
    protocol, seeds = plan.protocol, plan.protocol.study.seeds
    chosen = {
        (role, name): setting
        for role in COMPARED
        for name in protocol.study.students
        if (setting := plan.setting_of(role, name)) is not None
    }
    complete = len(chosen) == len(COMPARED) * len(protocol.study.students)
    if not isinstance(seeds, AutoSeeds) or not complete:
        return []
    winner = plan.winner()
    assert winner is not None
    here = Look(plan.domain, len(plan.seeds))
    pairs = primary_pairs(protocol, winner, chosen, plan.seeds)

    def decide() -> list[Step]:
        plan.looks[here] = look(primary_aucs(protocol, pairs), seeds.auto)
        if plan.looks[here].next is None:
            return []
        # Roles whose setting is not selected yet follow with all of these seeds when it is.
        later = [_after_setting(plan, *key, one) for key, one in plan.settings().items()]
        return [*(step for steps in later for step in steps), *_look(plan)]

    runs = {run.id: run for sides in pairs.values() for side in sides for run in side}
    identity = here.step_id
    work = Select(here, lambda: plan.add(decide(), by=identity))
    where = f" ({plan.domain})" if plan.domain else ""
    name = f"whether further seeds are run, after {here.seeds}{where}"
    needs = tuple(protocol.evaluation(run).id for run in runs.values())
    return [Step(identity, work, name, needs)]


def _map_step(plan: Plan, teacher: Teacher, seed: int) -> Step | None:
    """The step whose record holds how a Teacher's maps agree with human maps: its training for
    its own maps, the making of its maps for RISE and plugins."""
    if teacher.kind == "given":
        return None
    protocol, guiding = plan.protocol, plan.protocol.study.guiding()
    training = teacher_run(protocol, teacher, seed, guiding)
    if teacher.method in ("cam", "cells"):
        return training
    return make_maps(protocol, training, teacher)[-1]
