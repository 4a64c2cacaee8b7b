"""Protocol of a study: the runs of each role, and what each run needs.

The ids of all steps are known before any step runs: the maps that guide a Student are identified
by the id of the step that makes them. Equal runs (a Baseline 1 and a Teacher of the same settings)
have one id and are trained once. Asking the protocol for a step changes nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from preceptor.config.maps import MapSource, Method, PostProcessing, SoftLabels
from preceptor.config.run import RunConfig
from preceptor.config.training import Training
from preceptor.data.workspace import Workspace
from preceptor.inference.shards import forwards_of, shards_of
from preceptor.runtime.result_folder import digest
from preceptor.study.config import Control, StudyConfig
from preceptor.study.options import SOFT_TEMPERATURE, GuidanceConfig
from preceptor.study.setting import Setting
from preceptor.study.steps import (
    Arm,
    AverageMaps,
    Evaluate,
    MakeMaps,
    Role,
    Step,
    Train,
    map_steps,
)
from preceptor.study.workspaces import Workspaces
from preceptor.training.prepare import run_id_of

# Further members of a committee have the seed of the Student plus multiples of this, so that
# Students of different seeds do not share Teachers, and their differences stay independent.
MEMBER_STRIDE = 1000
# Controls that use the maps or the soft labels of the selected Teacher.
OF_TEACHER: tuple[Control, ...] = ("shuffled", "distilled", "masked")
# Increased if the arithmetic of RISE changes, so that old maps are not reused.
RISE_NUMERICS = 1


@dataclass(frozen=True)
class Teacher:
    """A Teacher configuration: one of the candidates of stage 1.

    Args:
        name: Backbone, or the name of given maps.
        kind: human (guided by human maps), data (no guidance), mapper (taught human maps alone) or
            given (maps from elsewhere).
        alpha: α of its training; 1 where nothing guides.
        method: Saliency method of its maps.
    """

    name: str
    kind: Literal["human", "data", "mapper", "given"]
    alpha: float
    method: Method

    def __str__(self) -> str:
        if self.kind == "given":
            return f"{self.name} (given maps)"
        if self.kind == "mapper":
            return f"{self.name} mapper"
        guided = f"human-guided α {self.alpha:g}" if self.kind == "human" else "data-driven"
        return f"{self.name} {guided}, {self.method.upper()}"


def controls_of(study: StudyConfig, teacher: Teacher) -> list[Control]:
    """Controls of a study that are possible for a Teacher: given maps have no soft labels."""
    return [
        control for control in study.controls if control != "distilled" or teacher.kind != "given"
    ]


@dataclass(frozen=True)
class Member:
    """One run of an arm.

    Args:
        arm: Arm of the study.
        seed: Seed of the run.
        run: Run id.
        manifest: Table of images that the run is trained and tested on.
    """

    arm: Arm
    seed: int
    run: str
    manifest: Path


@dataclass
class Protocol:
    """Builds the steps of a study.

    Args:
        study: Study config.
        workspaces: Tables of images.
        store: Folder of runs, maps and evaluations.
        domain: Domain of the study, or ""; written in the names of steps.
        annotated: Number of annotated images, for runs of an annotation budget; see `of_budget`.
    """

    study: StudyConfig
    workspaces: Workspaces
    store: Path
    domain: str = ""
    annotated: int | None = None

    def __post_init__(self) -> None:
        self._hashes: dict[tuple[Path, str], str] = {}

    @property
    def workspace(self) -> Workspace:
        """Workspace of the first seed, or the only one."""
        return self.workspaces.first

    def _rows_hash(self, manifest: Path, kind: str) -> str:
        """Hash of the training or test rows of a manifest."""
        if (manifest, kind) not in self._hashes:
            workspace = self.workspaces.at(manifest)
            train = np.flatnonzero(workspace.train_mask)
            rows = train if kind == "train" else workspace.split_rows(kind)
            self._hashes[manifest, kind] = workspace.hashes.of(rows)
        return self._hashes[manifest, kind]

    def of_budget(self, size: int) -> Protocol:
        """Protocol with a number of annotated images, with a new draw for every seed."""
        study = self.study.model_copy(update={"annotated": size, "annotated_per_seed": True})
        return replace(self, study=study, annotated=size)

    # Configurations.

    @property
    def primary(self) -> str:
        """Evaluation set of the hypothesis tests."""
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
        if study.mapper is not None:
            found += [Teacher(name, "mapper", 0.0, "cells") for name in study.teachers]
        return found + [Teacher(name, "given", 1.0, "cam") for name in study.maps]

    # Runs.

    def config(self, backbone: str, draw: int, guidance: str = "", **values: object) -> RunConfig:
        """Run config of a backbone, a seed and a way of guiding, see `StudyConfig.run_config`."""
        training = {"training": self.study.training_of(backbone, guidance)}
        return self.study.run_config(backbone, draw, **(training | values))

    def train(self, arm: Arm, config: RunConfig, needs: tuple[str, ...] = ()) -> Step:
        """Training step of a run."""
        workspace = self.workspaces.at(config.manifest)
        arm = replace(arm, annotated=self.annotated)
        training = config.training
        cost = len(workspace.training_rows(config)) * training.epochs
        if training.steps is not None:
            cost = training.steps * training.batch_size
        chosen = f" {arm.setting}" if arm.alpha < 1 or arm.guidance else ""
        name = f"{arm.label} {arm.backbone}{chosen} seed {config.seed}{self._in_domain}"
        identity = run_id_of(workspace, config)
        return Step(identity, Train(config, arm), name, needs, cost=float(cost))

    @property
    def _in_domain(self) -> str:
        return f" ({self.domain})" if self.domain else ""

    def annotated_run(self, backbone: str, setting: Setting, seed: int) -> Step:
        """Baseline 1, a run on A; without guidance for α 1."""
        maps = MapSource(kind="human" if setting.alpha < 1 else "none")
        config = self.config(
            backbone, seed, setting.guidance, rows="annotated", alpha=setting.alpha, maps=maps
        )
        return self.train(_arm("baseline1", backbone, setting), config)

    def full_run(
        self,
        role: Literal["baseline2", "ceiling", "centre", "pca", "shuffled_human", "mixed"],
        backbone: str,
        setting: Setting,
        seed: int,
    ) -> Step:
        """Run on T without a Teacher: Baseline 2 (α 1), the ceiling (all human maps), or the
        controls `centre`, `pca`, `shuffled_human` (the ceiling's maps, permuted within class) and
        `mixed` (human maps on A, labels only for the other images).
        """
        maps = {
            "baseline2": MapSource(kind="none"),
            "ceiling": MapSource(kind="human"),
            "centre": MapSource(kind="centre"),
            "pca": MapSource(kind="pca", components=self.study.pca_components),
            "shuffled_human": MapSource(kind="human", shuffle_seed=seed),
            "mixed": MapSource(kind="human"),
        }[role]
        own = {} if role == "mixed" else {"annotated": None, "annotated_seed": 0}
        config = self.config(
            backbone, seed, setting.guidance, rows="all", alpha=setting.alpha, maps=maps, **own
        )
        return self.train(_arm(role, backbone, setting), config)

    def teacher_run(
        self, teacher: Teacher, seed: int, guiding: GuidanceConfig, place: int = 0
    ) -> Step:
        """Training of a Teacher, or of another member of its committee (`place` > 0)."""
        if teacher.kind == "mapper":
            return self.mapper_run("mapper", teacher.name, seed, guiding.human_post, place)
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
        role: Role = "teacher" if own and place == 0 else "member"
        return self.train(Arm(role, teacher.name, teacher.alpha), config)

    def mapper_run(
        self,
        role: Literal["mapper", "mapper_all"],
        backbone: str,
        seed: int,
        human_post: PostProcessing | None = None,
        place: int = 0,
    ) -> Step:
        """Training of a mapper on the human maps of A, or of T (`mapper_all`)."""
        mapper = self.study.mapper
        assert mapper is not None
        of_a = role == "mapper"
        own: dict[str, Any] = {} if of_a else {"annotated": None, "annotated_seed": 0}
        config = self.config(
            backbone, seed, rows="annotated", labels="marks", alpha=0.0, guide_classes=None,
            training=mapper.training(self.study.training_of(backbone)),
            backbone_args=mapper.backbone_args(self.study.backbone_args.get(backbone, {})),
            maps=MapSource(kind="human"), human_post=human_post or self.study.human_post,
            seed=seed + MEMBER_STRIDE * place, **own,
        )  # fmt: skip
        return self.train(Arm("member" if place else role, backbone, 0.0), config)

    def maps_of(
        self, teacher: Teacher, seed: int, guiding: GuidanceConfig | None = None
    ) -> tuple[MapSource, list[Step]]:
        """Maps that guide the Student of a seed, and the steps that make them."""
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
            stores = []
            for place in range(guiding.committee):
                if generation == 0:
                    training = self.teacher_run(teacher, seed, guiding, place)
                else:
                    training = self._next_teacher(
                        teacher, seed, place, generation, guiding, source, steps[-1].id
                    )
                made = self.make_maps(training, teacher, guiding)
                stores.append(made[-1])
                steps += [training, *made]
            if len(stores) > 1:
                steps.append(self._average(stores))
            source = MapSource(
                kind="store", path=self.maps_folder(steps[-1].id), identity=steps[-1].id,
                human=guiding.human_maps, trust=guiding.trust,
                marks=teacher.kind == "mapper" and generation == 0,
            )  # fmt: skip
        return source, steps

    def _next_teacher(
        self,
        teacher: Teacher,
        seed: int,
        place: int,
        generation: int,
        guiding: GuidanceConfig,
        maps: MapSource,
        need: str,
    ) -> Step:
        """Run of the Teacher's backbone on T, guided by the maps of the previous generation."""
        alpha = teacher.alpha if teacher.alpha < 1 else self.study.stage_one_alpha
        config = self.config(
            teacher.name, seed, rows="all", alpha=alpha, maps=maps,
            guide_classes=guiding.guide_classes, post=guiding.post, human_post=guiding.human_post,
            seed=seed + MEMBER_STRIDE * place,
        )  # fmt: skip
        config = _without_annotation(config)
        arm = Arm("generation", teacher.name, alpha, str(teacher), generation=generation + 1)
        return self.train(arm, config, (need,))

    def make_maps(self, training: Step, teacher: Teacher, guiding: GuidanceConfig) -> list[Step]:
        """Steps that make the maps of a trained Teacher for T; the last writes the map store."""
        work = training.work
        assert isinstance(work, Train)
        config, tta = work.config, guiding.tta
        # A mapper's next generation is a classifier on its maps.
        plain = teacher.method == "cells" and config.labels == "class"
        method: Method = "cam" if plain else teacher.method
        decision = method == "cam" and config.training.cam_class == "decision"
        train_hash = self._rows_hash(config.manifest, "train")
        rise = self.study.rise if method == "rise" else None
        how: list[object] = ["tta"] if tta else []
        how += ["decision"] if decision else []
        how += [RISE_NUMERICS, rise.model_dump(mode="json")] if rise else []
        # The record of the maps holds their correlation with human maps of validation images.
        compared = self.workspaces.at(config.manifest).validation_hash()
        identity = digest(["maps", training.id, method, train_hash, compared, *how])
        forwards = forwards_of(method, tta, rise)
        manifest = self.workspaces.at(config.manifest).manifest
        shards = shards_of(manifest, "train", method, forwards, agreement=True)
        return map_steps(
            MakeMaps(config, training.id, method, tta, rise, shards[0], decision=decision),
            shards,
            identity,
            training.name + (", RISE" if rise else ""),
            (training.id,),
            forwards / 3,  # a forward is about a third of a training step
        )

    def _average(self, stores: list[Step]) -> Step:
        ids = tuple(step.id for step in stores)
        return Step(digest(["committee", *ids]), AverageMaps(ids), f"{len(ids)} Teachers", ids)

    def student(self, teacher: Teacher, backbone: str, setting: Setting, seed: int) -> list[Step]:
        """Run of a Student, after the steps that make its maps.

        Args:
            teacher: Teacher whose maps guide.
            backbone, setting, seed: Backbone, setting and seed of the Student.
        """
        guiding = self.study.guiding()
        source, steps = self.maps_of(teacher, seed, guiding)
        values = self._guided_by(source, guiding, setting.alpha)
        return self._on_maps(_arm("student", backbone, setting, teacher), seed, values, steps)

    def control(
        self, control: Control, teacher: Teacher, backbone: str, setting: Setting, seed: int
    ) -> list[Step]:
        """Run of a control, after the steps that make its maps.

        Args:
            control: Name of the control, see `StudyConfig.controls`.
            teacher: Teacher whose maps or soft labels are used, by the controls in `OF_TEACHER`.
            backbone, setting, seed: Backbone, setting and seed of the run. α is the weight of the
                labels' own cross-entropy in the loss; soft labels of `distilled` have the weight
                1 − α. `masked` has α 1, `dfr` the study's setting with the mean pooling.
        """
        if control == "dfr":
            return self._dfr_run(backbone, seed)
        if control != "shuffled" and control != "distilled" and control != "masked":
            return [self.full_run(control, backbone, setting, seed)]
        guiding, alpha = self.study.guiding(), setting.alpha
        source, steps = self.maps_of(teacher, seed, guiding)
        if control == "shuffled":
            values = self._guided_by(source, guiding, alpha)
            values["maps"] = source.model_copy(update={"shuffle_seed": seed})
        elif control == "masked":
            setting = replace(setting, alpha=1.0)
            values = self._masked(
                source, guiding, self.study.training_of(backbone, setting.guidance)
            )
        else:
            values = self._guided_by(source, guiding, 1.0) | {
                "alpha_start": None,
                "maps": MapSource(kind="none"),
                "soft_labels": _soft_labels(source, 1 - alpha) if alpha < 1 else None,
            }
        return self._on_maps(_arm(control, backbone, setting, teacher), seed, values, steps)

    def _dfr_run(self, backbone: str, seed: int) -> list[Step]:
        """Baseline 2 with the mean pooling, and the run that trains its last layer again."""
        setting = self.study.mean_setting
        assert setting is not None
        base = self.full_run("baseline2", backbone, setting, seed)
        assert isinstance(base.work, Train)
        config = base.work.config.model_copy(update={"last_layer": self.study.dfr_set})
        step = self.train(_arm("dfr", backbone, setting), config, (base.id,))
        workspace = self.workspaces.at(config.manifest)
        return [base, replace(step, cost=len(workspace.split_rows("val")) / 3)]

    def from_mapper(self, chain: list[Step], seed: int) -> list[Step]:
        """The last run of a chain from the weights of a mapper, after the mapper and the others."""
        *before, run = chain
        assert isinstance(run.work, Train)
        arm = run.work.arm
        mapper = self.mapper_run("mapper", arm.backbone, seed)
        file = self.run_folder(mapper.id) / "model" / "model.safetensors"
        changes = {"weights": str(file), "weights_identity": mapper.id}
        config = run.work.config.model_copy(update=changes)
        started = self.train(replace(arm, start="mapper"), config, (*run.needs, mapper.id))
        return [*before, mapper, started]

    def _masked(
        self, source: MapSource, guiding: GuidanceConfig, training: Training
    ) -> dict[str, object]:
        """Settings of a run on the marked regions alone.

        Every image is changed outside its map, whatever its class and trust: otherwise the change
        itself would show the class.
        """
        changes = {"outside": "mean", "outside_rate": 1.0, "outside_strength": None}
        augmentation = training.augmentation.model_copy(update=changes)
        own = {"augmentation": augmentation, "consistency": 0.0, "distance": "l2"}
        kept = {"human": "keep", "trust": "none", "marks": False}
        return {
            "alpha": 1.0, "maps": source.model_copy(update=kept), "guide_classes": None,
            "post": guiding.post, "human_post": guiding.human_post,
            "training": training.model_copy(update=own),
        }  # fmt: skip

    def variant(
        self, name: str, teacher: Teacher, backbone: str, setting: Setting, seed: int
    ) -> list[Step]:
        """Run of a variant's Student, after the steps that make its maps.

        Args:
            name: Name of the variant in the study config.
            teacher: Teacher of the study, whose α the variant may change.
            backbone, setting, seed: Backbone, setting and seed of the Student; α is NaN if it
                follows the losses.
        """
        variant = self.study.variants[name]
        guiding = self.study.guiding(variant)
        if variant.teacher_alpha is not None and teacher.kind == "human":
            teacher = replace(teacher, alpha=variant.teacher_alpha)
        source, steps = self.maps_of(teacher, seed, guiding)
        values = self._guided_by(source, guiding, setting.alpha)
        if math.isnan(setting.alpha):
            values |= {"alpha": "auto", "alpha_start": None}
        training = self.study.training_of(backbone, setting.guidance)
        values["training"] = variant.training(training)
        arm = replace(_arm("variant", backbone, setting, teacher), variant=name)
        return self._on_maps(arm, seed, values, steps)

    def _guided_by(
        self, source: MapSource, guiding: GuidanceConfig, alpha: float
    ) -> dict[str, object]:
        """Settings of a run that is guided by a Teacher's maps."""
        values: dict[str, object] = {
            "alpha": alpha,
            "maps": source,
            "guide_classes": guiding.guide_classes,
            "post": guiding.post,
            "human_post": guiding.human_post,
            "alpha_start": guiding.alpha_start,
        }
        if guiding.soft_labels:
            values["soft_labels"] = _soft_labels(source, guiding.soft_labels)
        return values

    def _on_maps(
        self, arm: Arm, seed: int, values: dict[str, object], steps: list[Step]
    ) -> list[Step]:
        """Run on T that needs the last of these steps."""
        config = self.config(arm.backbone, seed, arm.guidance, rows="all", **values)
        needs = (steps[-1].id,) if steps else ()
        return [*steps, self.train(arm, _without_annotation(config), needs)]

    def evaluation(self, training: Step) -> Step:
        """Step that scores the test sets with a trained model."""
        work = training.work
        assert isinstance(work, Train)
        images = len(self.workspaces.at(work.config.manifest).split_rows("test"))
        return Step(
            self._evaluation_id(training.id, work.config.manifest),
            Evaluate(work.config, training.id),
            training.name,
            (training.id,),
            cost=images / 3,
        )

    def evaluation_id(self, member: Member) -> str:
        """Id of the evaluation of a run on the test sets of its seed's manifest."""
        return self._evaluation_id(member.run, member.manifest)

    def _evaluation_id(self, run: str, manifest: Path) -> str:
        return digest(["evaluate", run, self._rows_hash(manifest, "test")])

    # Folders.

    def run_folder(self, identity: str) -> Path:
        """Folder of a run."""
        return self.store / "runs" / identity

    def maps_folder(self, identity: str) -> Path:
        """Folder of a map store."""
        return self.store / "maps" / identity

    def evaluation_folder(self, identity: str) -> Path:
        """Folder of an evaluation."""
        return self.store / "evaluations" / identity

    def folder(self, step: Step) -> Path:
        """Folder of the result of a step."""
        return step.folder(self.store)


def _arm(role: Role, backbone: str, setting: Setting, teacher: Teacher | None = None) -> Arm:
    """Arm of a role and a setting."""
    name = "" if teacher is None else str(teacher)
    return Arm(role, backbone, setting.alpha, name, guidance=setting.guidance)


def _soft_labels(source: MapSource, weight: float) -> SoftLabels:
    """Soft labels from a Teacher's map store."""
    assert source.path is not None
    return SoftLabels(
        path=source.path, identity=source.identity, weight=weight, temperature=SOFT_TEMPERATURE
    )


def _without_annotation(config: RunConfig) -> RunConfig:
    """Run config without the draw of A and the post-processing of human maps, if no human map
    guides.

    The draw of A and the processing of its maps are part of the id of the Teacher's maps.
    """
    if config.maps.kind == "store" and config.maps.human == "keep":
        return config
    return config.model_copy(
        update={"annotated": None, "annotated_seed": 0, "human_post": PostProcessing()}
    )
