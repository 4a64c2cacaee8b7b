"""The protocol: which runs a study makes, in which role, and what each needs.

Ids are known before anything runs: a Student's maps are named by its Teacher's id. Equal runs (a
Baseline 1 and a Teacher of the same settings) have one id and are trained once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from preceptor.config import PAPER_ALPHA, MapSource, RunConfig, StudyConfig
from preceptor.errors import InputError
from preceptor.models import build_model
from preceptor.runs import digest
from preceptor.study.graph import Arm, MapsJob, Step
from preceptor.workspace import Workspace


@dataclass(frozen=True)
class Teacher:
    """A Teacher configuration: one of the candidates of stage 1.

    Args:
        name: Backbone, or the name of given maps.
        kind: human (guided by human maps), data (no guidance) or given (maps from elsewhere).
        alpha: α of its training; 1 where nothing guides.
        method: How it marks.
    """

    name: str
    kind: str
    alpha: float
    method: str

    def __str__(self) -> str:
        if self.kind == "given":
            return f"{self.name} (given maps)"
        guided = f"human-guided α {self.alpha:g}" if self.kind == "human" else "data-driven"
        return f"{self.name} {guided}, {self.method.upper()}"


@dataclass(frozen=True)
class Member:
    """One run's place in the study.

    Args:
        arm: The row of the table.
        seed: Its seed.
        run: The run's id.
    """

    arm: Arm
    seed: int
    run: str


@dataclass
class Protocol:
    """Builds the steps of a study.

    Args:
        study: The config.
        workspace: The manifest.
        store: Folder of runs, maps and evaluations.
    """

    study: StudyConfig
    workspace: Workspace
    store: Path
    members: list[Member] = field(default_factory=list)

    def __post_init__(self) -> None:
        tests = self.workspace.split_rows("test")
        self._test_hash = self.workspace.hashes.of(tests, None)
        self._train_hash = self.workspace.hashes.of(np.flatnonzero(self.workspace.train_mask), None)

    # What there is to compare.

    @property
    def primary(self) -> str:
        """The evaluation set of the hypothesis tests."""
        return self.study.primary or self.workspace.manifest.eval_splits("test")[0]

    def teachers(self) -> list[Teacher]:
        """All Teacher configurations."""
        study = self.study
        found = [
            Teacher(name, "human", alpha, method)
            for name in study.teachers
            for alpha in study.teacher_alphas
            for method in study.saliency
        ]
        if study.data_driven:
            found += [
                Teacher(name, "data", 1.0, method)
                for name in study.teachers
                for method in study.saliency
            ]
        return found + [Teacher(name, "given", 1.0, "") for name in study.maps]

    @property
    def baseline_alphas(self) -> tuple[float, ...]:
        """Baseline 1 runs at the grid and at the paper's α."""
        return tuple(sorted({*self.study.alpha_grid, PAPER_ALPHA}))

    # Runs.

    def config(self, backbone: str, seed: int, **values: object) -> RunConfig:
        """The run config of a backbone and a seed."""
        study = self.study
        base = {
            "manifest": study.manifest,
            "backbone": backbone,
            "weights": study.weights_of(backbone),
            "backbone_args": study.backbone_args.get(backbone, {}),
            "positive": study.positive,
            "annotated": study.annotated,
            "annotated_seed": study.annotated_seed + (seed if study.annotated_per_seed else 0),
            "guide_classes": study.guide_classes,
            "seed": seed,
            "training": study.training,
        }
        return RunConfig.model_validate(base | values)

    def train(self, arm: Arm, config: RunConfig, needs: tuple[str, ...] = ()) -> Step:
        """The training step of a run, which is entered as a member of its arm."""
        identity = self.workspace.run_id(config)
        member = Member(arm, config.seed, identity)
        if member not in self.members:
            self.members.append(member)
        rows = len(self.workspace.training_rows(config))
        training = config.training
        cost = rows * training.epochs
        if training.steps is not None:
            cost = training.steps * training.batch_size
        guided = f" α {config.alpha:g}" if config.guided else ""
        title = f"train {arm.role} {arm.backbone}{guided} seed {config.seed}"
        return Step(identity, "train", title, needs, run=config, cost=float(cost))

    def annotated_run(self, role: str, backbone: str, alpha: float, seed: int) -> Step:
        """A run on A: Baseline 1 or a human-guided Teacher; without guidance at α 1."""
        maps = MapSource(kind="human" if alpha < 1 else "none")
        config = self.config(backbone, seed, rows="annotated", alpha=alpha, maps=maps)
        return self.train(Arm(role, backbone, alpha), config)

    def full_run(self, role: str, backbone: str, alpha: float, seed: int) -> Step:
        """A run on T: Baseline 2 (α 1), the ceiling (all human maps), or the centre control."""
        kinds = {"baseline2": "none", "ceiling": "human", "centre": "centre"}
        config = self.config(
            backbone, seed, rows="all", alpha=alpha, annotated=None,
            maps=MapSource.model_validate({"kind": kinds[role]}),
        )  # fmt: skip
        return self.train(Arm(role, backbone, alpha), config)

    def maps_of(self, teacher: Teacher, seed: int) -> tuple[MapSource, list[Step]]:
        """The maps that guide Student `seed`, and the steps that make them."""
        study = self.study
        if teacher.kind == "given":
            path = study.maps[teacher.name]
            return MapSource(kind="store", path=path, human=study.human_maps), []
        order = study.seed_list
        start = order.index(seed)
        steps: list[Step] = []
        for offset in range(study.committee):
            teacher_seed = order[(start + offset) % len(order)]
            training = self.annotated_run("teacher", teacher.name, teacher.alpha, teacher_seed)
            steps += [training, self._annotate(training, teacher.method)]
        stores = [step for step in steps if step.kind == "annotate"]
        if len(stores) > 1:
            steps.append(self._committee(stores, teacher.method))
        source = MapSource(
            kind="store",
            path=self.maps_folder(steps[-1].id),
            identity=steps[-1].id,
            human=study.human_maps,
        )
        return source, steps

    def _annotate(self, training: Step, method: str) -> Step:
        identity = digest(["maps", training.id, method, self._train_hash])
        images = int(self.workspace.train_mask.sum())
        return Step(
            identity, "annotate", f"mark by {training.title.removeprefix('train ')}",
            (training.id,), run=training.run, maps=MapsJob((training.id,), method),
            cost=images / 3,  # a forward is about a third of a training step
        )  # fmt: skip

    def _committee(self, stores: list[Step], method: str) -> Step:
        ids = tuple(step.id for step in stores)
        return Step(
            digest(["committee", *ids]), "committee", f"mean map of {len(ids)} Teachers", ids,
            maps=MapsJob(ids, method),
        )  # fmt: skip

    def student(
        self, teacher: Teacher, backbone: str, alpha: float, seed: int, role: str = "student"
    ) -> list[Step]:
        """A Student's run (or the shuffled control's) with what its maps need."""
        source, steps = self.maps_of(teacher, seed)
        if role == "shuffled":
            source = source.model_copy(update={"shuffle_seed": seed})
        config = self.config(backbone, seed, rows="all", alpha=alpha, maps=source)
        if source.human == "replace":  # how A was drawn is in the Teacher's id already
            config = config.model_copy(update={"annotated": None, "annotated_seed": 0})
        needs = (steps[-1].id,) if steps else ()
        return [*steps, self.train(Arm(role, backbone, alpha, str(teacher)), config, needs)]

    def evaluation(self, training: Step) -> Step:
        """Score the test sets with a finished run."""
        images = len(self.workspace.split_rows("test"))
        return Step(
            self.evaluation_id(training.id), "evaluate",
            f"score tests of {training.title.removeprefix('train ')}", (training.id,),
            run=training.run, cost=images / 3,
        )  # fmt: skip

    def evaluation_id(self, run: str) -> str:
        """The id of a run's evaluation on this manifest's test sets."""
        return digest(["evaluate", run, self._test_hash])

    # Folders.

    def run_folder(self, identity: str) -> Path:
        """Of a training."""
        return self.store / "runs" / identity

    def maps_folder(self, identity: str) -> Path:
        """Of a map store."""
        return self.store / "maps" / identity

    def evaluation_folder(self, identity: str) -> Path:
        """Of an evaluation."""
        return self.store / "evaluations" / identity

    def folder(self, step: Step) -> Path:
        """Where a step leaves its result."""
        if step.kind in ("annotate", "committee"):
            return self.maps_folder(step.id)
        if step.kind == "evaluate":
            return self.evaluation_folder(step.id)
        return self.run_folder(step.id)

    def members_of(self, role: str, backbone: str | None = None) -> Iterator[Member]:
        """The members of a role."""
        for member in self.members:
            if member.arm.role == role and backbone in (None, member.arm.backbone):
                yield member


def check_study(study: StudyConfig, workspace: Workspace) -> None:
    """Find what is wrong with a study before anything is trained, all of it at once.

    Raises:
        InputError: Unknown primary set, classes, missing annotations, maps that are not there, or
            backbones or weights that cannot be used.
    """
    problems = list(_problems(study, workspace))
    if len(problems) == 1:
        raise InputError(problems[0])
    if problems:
        lines = "\n  ".join(problems)
        raise InputError(f"the study has {len(problems)} problems\n  {lines}")


def _problems(study: StudyConfig, workspace: Workspace) -> Iterator[str]:
    manifest = workspace.manifest
    classes, tests = manifest.classes, manifest.eval_splits("test")
    if study.primary is not None and study.primary not in tests:
        yield f"primary: {study.primary!r} is not one of the test sets {tests}"
    if len(classes) == 2 and study.positive is None:
        yield f"positive: name which of {classes} is the positive class"
    if study.positive is not None and study.positive not in classes:
        yield f"positive: {study.positive!r} is not among {classes}"
    unknown = sorted(set(study.guide_classes or ()) - set(classes))
    if unknown:
        yield f"guide_classes: {unknown} not among the classes {classes}"
    for name, path in study.maps.items():
        if not path.is_dir():
            yield f"maps.{name}: {path} is not a folder"
    for seed in study.seed_list if study.annotated_per_seed else study.seed_list[:1]:
        config = RunConfig(
            manifest=study.manifest,
            backbone=study.teachers[0],
            annotated=study.annotated,
            annotated_seed=study.annotated_seed + (seed if study.annotated_per_seed else 0),
        )
        try:
            mask = workspace.annotated(config)
        except InputError as error:
            yield str(error)
            break
        if not (mask & (manifest.table["saliency"] != "").to_numpy()).any():
            yield "annotated: none of the annotated training images has a human map"
            break
    for backbone in dict.fromkeys([*study.teachers, *study.students]):
        try:
            build_model(
                backbone,
                classes,
                weights=study.weights_of(backbone),
                in_chans=study.training.in_chans,
                input_size=study.training.input_size,
                backbone_args=study.backbone_args.get(backbone, {}),
            ).guidable_grid()
        except InputError as error:
            yield str(error)
