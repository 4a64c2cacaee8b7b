"""The protocol: which runs a study makes, in which role, and what each needs.

Ids are known before anything runs: a Student's maps are named by its Teacher's id. Equal runs (a
Baseline 1 and a Teacher of the same settings) have one id and are trained once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from preceptor.config.run import MapSource, Method, PostProcessing, RunConfig, SoftLabels
from preceptor.data.workspace import Workspace
from preceptor.inference.shards import forwards_of, parts_of
from preceptor.runtime.result_folder import digest
from preceptor.study.config import PAPER_ALPHA, SOFT_TEMPERATURE, Guiding, StudyConfig, Variant
from preceptor.study.steps import Arm, MapsJob, Step, marking_steps
from preceptor.study.workspaces import Workspaces
from preceptor.training.prepare import run_id_of

# Further members of a committee have the seed of the Student plus multiples of this, so that no
# two Students share a Teacher: their differences stay independent.
MEMBER_STRIDE = 1000
# Raised when the arithmetic of RISE changes, so that old maps are not taken for new ones.
RISE_NUMERICS = 1


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
    method: Method

    def __str__(self) -> str:
        if self.kind == "given":
            return f"{self.name} (given maps)"
        guided = f"human-guided α {self.alpha:g}" if self.kind == "human" else "data-driven"
        return f"{self.name} {guided}, {self.method.upper()}"


def at_size(role: str, size: int) -> str:
    """A role with so many annotated images.

    Example:
        >>> at_size("student", 50)
        'student @ 50'
    """
    return f"{role} @ {size}"


def without_size(role: str) -> tuple[str, bool]:
    """A role without its number of annotated images, and whether it had one.

    Example:
        >>> without_size("student @ 50"), without_size("student")
        (('student', True), ('student', False))
    """
    name, sized, _ = role.partition(" @ ")
    return name, bool(sized)


@dataclass(frozen=True)
class Member:
    """One run's place in the study.

    Args:
        arm: The row of the table.
        seed: Its seed.
        run: The run's id.
        manifest: What it is trained and tested on.
    """

    arm: Arm
    seed: int
    run: str
    manifest: Path


@dataclass
class Protocol:
    """Builds the steps of a study.

    Args:
        study: The config.
        workspaces: The manifests.
        store: Folder of runs, maps and evaluations.
        members: Every run that was built, with its place; a set that keeps its order.
        suffix: Of the roles of these runs, see `of_budget`.
        domain: Which of the study's it is of, or ""; told in the titles of steps.
    """

    study: StudyConfig
    workspaces: Workspaces
    store: Path
    members: dict[Member, None] = field(default_factory=dict)
    suffix: str = ""
    domain: str = ""

    def __post_init__(self) -> None:
        self._hashes: dict[tuple[Path, str], str] = {}

    @property
    def workspace(self) -> Workspace:
        """The first seed's; of a study without draws, the only one."""
        return self.workspaces.first

    def _rows_hash(self, manifest: Path, kind: str) -> str:
        """What the training or test rows of a manifest are."""
        if (manifest, kind) not in self._hashes:
            workspace = self.workspaces.at(manifest)
            train = np.flatnonzero(workspace.train_mask)
            rows = train if kind == "train" else workspace.split_rows(kind)
            self._hashes[manifest, kind] = workspace.hashes.of(rows)
        return self._hashes[manifest, kind]

    def of_budget(self, size: int) -> Protocol:
        """The protocol with this many annotated images, drawn anew for every seed.

        Its runs are entered as members here too, in roles that end in the size.
        """
        study = self.study.model_copy(update={"annotated": size, "annotated_per_seed": True})
        return replace(self, study=study, suffix=at_size("", size))

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
        return found + [Teacher(name, "given", 1.0, "cam") for name in study.maps]

    @property
    def baseline_alphas(self) -> tuple[float, ...]:
        """Baseline 1 runs at the grid and at the paper's α."""
        return tuple(sorted({*self.study.alpha_grid, PAPER_ALPHA}))

    # Runs.

    def config(self, backbone: str, draw: int, **values: object) -> RunConfig:
        """The run config of a backbone and a seed, see `StudyConfig.run_config`."""
        return self.study.run_config(backbone, draw, **values)

    def train(self, arm: Arm, config: RunConfig, needs: tuple[str, ...] = ()) -> Step:
        """The training step of a run, which is entered as a member of its arm."""
        workspace = self.workspaces.at(config.manifest)
        identity = run_id_of(workspace, config)
        arm = replace(arm, role=arm.role + self.suffix)
        member = Member(arm, config.seed, identity, config.manifest)
        self.members.setdefault(member)
        rows = len(workspace.training_rows(config))
        training = config.training
        cost = rows * training.epochs
        if training.steps is not None:
            cost = training.steps * training.batch_size
        guided = f" α {arm.alpha:g}" if arm.alpha < 1 else ""
        where = f" ({self.domain})" if self.domain else ""
        title = f"train {arm.role} {arm.backbone}{guided} seed {config.seed}{where}"
        return Step(identity, "train", title, needs, run=config, cost=float(cost))

    def annotated_run(self, role: str, backbone: str, alpha: float, seed: int) -> Step:
        """A run on A: Baseline 1 or a human-guided Teacher; without guidance at α 1."""
        maps = MapSource(kind="human" if alpha < 1 else "none")
        config = self.config(backbone, seed, rows="annotated", alpha=alpha, maps=maps)
        return self.train(Arm(role, backbone, alpha), config)

    def full_run(self, role: str, backbone: str, alpha: float, seed: int) -> Step:
        """A run on T without a Teacher: Baseline 2 (α 1), the ceiling (all human maps), or the
        controls `centre` and `mixed` (human maps on A, the other images by their labels alone).
        """
        kinds = {"baseline2": "none", "ceiling": "human", "centre": "centre", "mixed": "human"}
        own = {} if role == "mixed" else {"annotated": None, "annotated_seed": 0}
        config = self.config(
            backbone, seed, rows="all", alpha=alpha,
            maps=MapSource.model_validate({"kind": kinds[role]}), **own,
        )  # fmt: skip
        return self.train(Arm(role, backbone, alpha), config)

    def teacher_run(self, teacher: Teacher, seed: int, guiding: Guiding, place: int = 0) -> Step:
        """The training of a Teacher, or of a committee's further member (`place` > 0)."""
        maps = MapSource(kind="human" if teacher.alpha < 1 else "none")
        config = self.config(
            teacher.name, seed, rows=guiding.teacher_rows, alpha=teacher.alpha, maps=maps,
            guide_classes=guiding.guide_classes, human_post=guiding.human_post,
            seed=seed + MEMBER_STRIDE * place,
        )  # fmt: skip
        study = self.study
        own = (guiding.teacher_rows, guiding.guide_classes, guiding.human_post) == (
            study.teacher_rows, study.guide_classes, study.human_post,
        )  # fmt: skip
        role = "teacher" if own and place == 0 else "member"
        return self.train(Arm(role, teacher.name, teacher.alpha), config)

    def maps_of(
        self, teacher: Teacher, seed: int, guiding: Guiding | None = None
    ) -> tuple[MapSource, list[Step]]:
        """The maps that guide Student `seed`, and the steps that make them."""
        guiding = guiding or self.study.guiding()
        if teacher.kind == "given":
            path = self.study.maps[teacher.name]
            source = MapSource(
                kind="store", path=path, human=guiding.human_maps, trust=guiding.trust
            )
            return source, []
        steps: list[Step] = []
        source = MapSource()
        for generation in range(guiding.generations):
            marks = []
            for place in range(guiding.committee):
                if generation == 0:
                    training = self.teacher_run(teacher, seed, guiding, place)
                else:
                    training = self._next_teacher(
                        teacher, seed, place, generation, guiding, source, steps[-1].id
                    )
                marking = self.mark(training, teacher, guiding)
                marks.append(marking[-1])
                steps += [training, *marking]
            if len(marks) > 1:
                steps.append(self._committee(marks, teacher.method))
            source = MapSource(
                kind="store", path=self.maps_folder(steps[-1].id), identity=steps[-1].id,
                human=guiding.human_maps, trust=guiding.trust,
            )  # fmt: skip
        return source, steps

    def _next_teacher(
        self,
        teacher: Teacher,
        seed: int,
        place: int,
        generation: int,
        guiding: Guiding,
        maps: MapSource,
        need: str,
    ) -> Step:
        """A model of the Teacher's backbone on T, guided by the maps of the generation before."""
        alpha = teacher.alpha if teacher.alpha < 1 else self.study.stage_one_alpha
        config = self.config(
            teacher.name, seed, rows="all", alpha=alpha, maps=maps,
            guide_classes=guiding.guide_classes, post=guiding.post, human_post=guiding.human_post,
            seed=seed + MEMBER_STRIDE * place,
        )  # fmt: skip
        config = _of_its_maps_alone(config)
        role = f"generation {generation + 1}"
        return self.train(Arm(role, teacher.name, alpha, str(teacher)), config, (need,))

    def mark(self, training: Step, teacher: Teacher, guiding: Guiding) -> list[Step]:
        """A trained Teacher marks T: the step that leaves its map store, and before it those of its
        shards where there are several."""
        method, turns = teacher.method, guiding.turns
        assert training.run is not None
        train_hash = self._rows_hash(training.run.manifest, "train")
        rise = self.study.rise if method == "rise" else None
        how: list[object] = ["turns"] if turns else []
        how += [RISE_NUMERICS, rise.model_dump(mode="json")] if rise else []
        # A marking's record says how its maps agree with human maps of validation images.
        compared = self.workspaces.at(training.run.manifest).validation_hash()
        identity = digest(["maps", training.id, method, train_hash, compared, *how])
        forwards = forwards_of(method, turns, rise)
        manifest = self.workspaces.at(training.run.manifest).manifest
        parts = parts_of(manifest, "train", method, forwards, agreement=True)
        whose = training.title.removeprefix("train ") + (", RISE" if rise else "")
        return marking_steps(
            MapsJob((training.id,), method, turns, rise, parts), identity, f"mark by {whose}",
            (training.id,), training.run, forwards / 3,  # a forward is about a third of a step
        )  # fmt: skip

    def _committee(self, stores: list[Step], method: Method) -> Step:
        ids = tuple(step.id for step in stores)
        return Step(
            digest(["committee", *ids]), "committee", f"mean map of {len(ids)} Teachers", ids,
            maps=MapsJob(ids, method),
        )  # fmt: skip

    def student(
        self,
        teacher: Teacher,
        backbone: str,
        alpha: float,
        seed: int,
        role: str = "student",
        variant: Variant | None = None,
    ) -> list[Step]:
        """A Student's run with what its maps need.

        Args:
            teacher: Whose maps.
            backbone, alpha, seed: Of the Student; α is the share of the labels' own cross-entropy
                in the loss, so that the soft labels of the control distilled weigh 1 − α.
            role: student, the controls shuffled or distilled, or a variant's.
            variant: What it changes.
        """
        study, guiding = self.study, self.study.guiding(variant)
        if variant is not None and variant.teacher_alpha is not None and teacher.kind == "human":
            teacher = replace(teacher, alpha=variant.teacher_alpha)
        source, steps = self.maps_of(teacher, seed, guiding)
        soft = 1 - alpha if role == "distilled" else guiding.soft_labels
        values: dict[str, object] = {
            "alpha": alpha, "maps": source, "guide_classes": guiding.guide_classes,
            "post": guiding.post, "human_post": guiding.human_post,
            "alpha_start": guiding.alpha_start,
        }  # fmt: skip
        if soft:
            assert source.path is not None
            values["soft_labels"] = SoftLabels(
                path=source.path, identity=source.identity, weight=soft,
                temperature=SOFT_TEMPERATURE,
            )  # fmt: skip
        if role == "distilled":
            values |= {"alpha": 1.0, "alpha_start": None, "maps": MapSource(kind="none")}
        if role == "shuffled":
            values["maps"] = source.model_copy(update={"shuffle_seed": seed})
        if variant is not None and variant.distance is not None:
            training = study.training_of(backbone)
            values["training"] = training.model_copy(update={"distance": variant.distance})
        config = self.config(backbone, seed, rows="all", **values)
        config = _of_its_maps_alone(config)
        needs = (steps[-1].id,) if steps else ()
        arm = Arm(role, backbone, alpha, str(teacher))
        return [*steps, self.train(arm, config, needs)]

    def evaluation(self, training: Step) -> Step:
        """Score the test sets with a finished run."""
        assert training.run is not None
        images = len(self.workspaces.at(training.run.manifest).split_rows("test"))
        return Step(
            self._evaluation_id(training.id, training.run.manifest), "evaluate",
            f"score tests of {training.title.removeprefix('train ')}", (training.id,),
            run=training.run, cost=images / 3,
        )  # fmt: skip

    def evaluation_id(self, member: Member) -> str:
        """The id of a run's evaluation on the test sets of its seed's manifest."""
        return self._evaluation_id(member.run, member.manifest)

    def _evaluation_id(self, run: str, manifest: Path) -> str:
        return digest(["evaluate", run, self._rows_hash(manifest, "test")])

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
        return step.folder(self.store)

    def members_of(self, role: str, backbone: str | None = None) -> Iterator[Member]:
        """The members of a role."""
        for member in self.members:
            if member.arm.role == role and backbone in (None, member.arm.backbone):
                yield member


def _of_its_maps_alone(config: RunConfig) -> RunConfig:
    """A run's config without the draw of A and what is done to human maps, where none guides it.

    How A was drawn and its maps changed is in the id of the Teacher's maps already.
    """
    if config.maps.kind == "store" and config.maps.human == "keep":
        return config
    return config.model_copy(
        update={"annotated": None, "annotated_seed": 0, "human_post": PostProcessing()}
    )
