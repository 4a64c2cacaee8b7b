"""Protocol of a study: every run of the paper's table, in its order, with id, name and cost.

Baseline 1, Baseline 2, Teachers and mappers with their maps, Students, controls, ceiling. The ids
of all steps are known before any step runs: the maps that guide a Student are identified by the id
of the step that makes them. Equal runs (a Baseline 1 and a Teacher of the same settings) have one
id and are trained once. Asking for a step changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar, cast

import numpy as np

from preceptor.config.run import MapSource, Method, RunConfig
from preceptor.config.settings import NetworkFactory
from preceptor.config.training import Training, takes_masks
from preceptor.data.workspace import Workspace
from preceptor.inference.annotate import forwards_of, shards_of
from preceptor.maps.sources import marked_classes, shows_marks, with_maps
from preceptor.study.config import Control, Setting, StudyConfig
from preceptor.study.steps import Arm, Evaluate, MakeMaps, Member, Step, Train, map_steps
from preceptor.study.workspaces import Workspaces
from preceptor.training.last_layer import MOST_REPAIRED, clean_sets
from preceptor.training.prepare import run_id_of
from preceptor.utils.results import digest

P = ParamSpec("P")
T = TypeVar("T")

# Increased if the arithmetic of RISE changes, so that old maps are not reused.
RISE_NUMERICS = 1
NO_MAPS = MapSource(kind="none")
HUMAN_MAPS = MapSource(kind="human")


@dataclass(frozen=True)
class Teacher:
    """A Teacher configuration: one of the candidates of stage 1."""

    name: str  # backbone, or the name of given maps
    kind: Literal["human", "data", "mapper", "given"]
    alpha: float  # α of its training; 1 where nothing guides
    method: Method

    def __str__(self) -> str:
        if self.kind == "given":
            return f"{self.name} (given maps)"
        if self.kind == "mapper":
            return f"{self.name} mapper"
        guided = f"human-guided α {self.alpha:g}" if self.kind == "human" else "data-driven"
        return f"{self.name} {guided}, {self.method.upper()}"


def teachers_of(study: StudyConfig) -> list[Teacher]:
    """Teacher configurations of a study among which one is selected."""
    names, methods = study.teachers, study.saliency
    human = [
        Teacher(name, "human", alpha, method)
        for name in names
        for alpha in study.teacher_alphas
        for method in methods
    ]
    data = [Teacher(name, "data", 1.0, method) for name in names for method in methods]
    mappers = [Teacher(name, "mapper", 0.0, "cells") for name in names]
    teachers = human + (data if study.data_driven else []) + (mappers if study.mapper else [])
    return teachers + [Teacher(name, "given", 1.0, "cam") for name in study.maps]


def candidate_name(teacher: Teacher, setting: Setting | None = None) -> str:
    """Name of a candidate of stage 1: a Teacher, and the setting of its Student."""
    return str(teacher) if setting is None else f"{teacher}; Student {setting}"


def training_of(study: StudyConfig, guidance: str = "", steps: int = 0) -> Training:
    """Training settings of a run with a way of guiding; "" = the study's own settings.

    `steps` is one of several lengths; 0 = the only or the largest one.
    """
    training = study.training.of_run()
    training = training.model_copy(update={"steps": steps}) if steps else training
    return study.guidances[guidance].training(training) if guidance else training


def plain_run(study: StudyConfig, backbone: str) -> RunConfig:
    """Run config of a backbone for any classes: without guidance and without a positive class."""
    first = next(iter(study.by_domain().values()))
    config = run_config(first, backbone, first.seed_list[0], Setting(1.0))
    return config.model_copy(update={"positive": None})


def run_config(
    study: StudyConfig,
    backbone: str,
    seed: int,
    setting: Setting,
    maps: MapSource = NO_MAPS,
    *,
    rows: Literal["all", "annotated"] = "all",
    annotated: bool = True,
    guide_classes: tuple[str, ...] | None = None,
    labels: Literal["class", "marks"] = "class",
    training: Training | None = None,
) -> RunConfig:
    """Run config for a backbone and a seed of a study without domains."""
    args = study.backbone_args.get(backbone, {})
    factory = study.backbones.get(backbone)
    drawn = annotated and study.annotated_per_seed
    return RunConfig(
        manifest=study.manifest_of(seed),
        backbone=backbone,
        weights=study.weights if isinstance(study.weights, str) else study.weights[backbone],
        backbone_args={} if factory else args,
        network=NetworkFactory(factory=factory, args=args) if factory else None,
        positive=study.positive,
        rows=rows,
        annotated=study.annotated if annotated else None,
        annotated_seed=seed if drawn else 0,
        maps=maps,
        guide_classes=guide_classes,
        alpha=setting.alpha,
        labels=labels,
        validation_negatives=study.validation_negatives,
        seed=seed,
        training=training or training_of(study, setting.guidance, setting.steps),
    )


def _once(method: Callable[Concatenate[Protocol, P], T]) -> Callable[Concatenate[Protocol, P], T]:
    """Method whose result is made once: a plan asks for the same steps again and again."""

    @wraps(method)
    def made(self: Protocol, /, *args: P.args, **options: P.kwargs) -> T:
        key = (method.__name__, args, tuple(options.items()))
        if key not in self._made:
            self._made[key] = method(self, *args, **options)
        made = self._made[key]
        return cast(T, [*made] if isinstance(made, list) else made)

    return made


@dataclass
class Protocol:
    """Builds the steps of a study."""

    study: StudyConfig  # study config, without domains
    workspaces: Workspaces
    store: Path
    domain: str = ""  # domain of the study, or ""; written in the names of steps
    annotated: int | None = None  # number of annotated images, for runs of an annotation budget

    def __post_init__(self) -> None:
        self._hashes: dict[tuple[Path, str], str] = {}
        self._classes: dict[Path, tuple[str, ...]] = {}
        self._made: dict[tuple[object, ...], Any] = {}

    @_once
    def of_budget(self, size: int) -> Protocol:
        """Protocol with a number of annotated images, with a new draw for every seed."""
        study = self.study.model_copy(update={"annotated": size, "annotated_per_seed": True})
        return replace(self, study=study, annotated=size)

    # The runs of the paper's table.

    @_once
    def baseline1(self, backbone: str, setting: Setting, seed: int) -> Step:
        """Baseline 1: a run on A, guided by human maps; without guidance for α 1."""
        return self.train(
            Arm.of_setting("baseline1", backbone, setting),
            self._on_annotated(backbone, setting, seed),
        )

    @_once
    def baseline2(self, backbone: str, setting: Setting, seed: int) -> Step:
        """Baseline 2: a run on T without guidance."""
        config = run_config(self.study, backbone, seed, setting, annotated=False)
        return self.train(Arm.of_setting("baseline2", backbone, setting), config)

    @_once
    def teacher(self, teacher: Teacher, seed: int) -> Step:
        """Training of a Teacher on A: a classifier with or without guidance, or a mapper."""
        if teacher.kind == "mapper":
            return self.mapper("mapper", teacher.name, seed)
        config = self._on_annotated(teacher.name, Setting(teacher.alpha), seed)
        return self.train(Arm("teacher", teacher.name, teacher.alpha), config)

    def _on_annotated(self, backbone: str, setting: Setting, seed: int) -> RunConfig:
        maps, guided = HUMAN_MAPS if setting.alpha < 1 else NO_MAPS, self.study.guide_classes
        return run_config(
            self.study, backbone, seed, setting, maps, rows="annotated", guide_classes=guided
        )

    @_once
    def mapper(self, role: Literal["mapper", "mapper_all"], backbone: str, seed: int) -> Step:
        """Training of a mapper on the human maps of A, or of T (`mapper_all`)."""
        config = run_config(
            self.study,
            backbone,
            seed,
            Setting(0.0),
            HUMAN_MAPS,
            rows="annotated",
            annotated=role == "mapper",
            labels="marks",
            training=training_of(self.study).of_mapper(),
        )
        return self.train(Arm(role, backbone, 0.0), config)

    @_once
    def maps_of(self, teacher: Teacher, seed: int) -> tuple[MapSource, list[Step]]:
        """Maps that guide the Student of a seed, and the steps that make them."""
        study = self.study
        if teacher.kind == "given":
            path = study.maps[teacher.name]
            return MapSource(kind="store", path=path, marks=shows_marks(path)), []
        steps: list[Step] = []
        source = MapSource()
        for generation in range(study.generations):
            if generation == 0:
                training = self.teacher(teacher, seed)
            else:  # a model of the Teacher's backbone on T, guided by the maps of the previous one
                alpha = teacher.alpha if teacher.kind == "human" else study.probe_alpha
                name, number = str(teacher), generation + 1
                arm = Arm("generation", teacher.name, alpha, name, generation=number)
                training = self._guided(arm, seed, source, Setting(alpha), steps)[-1]
            steps += [training, *self.make_maps(training, teacher)]
            source = MapSource(
                kind="store",
                path=self.maps_folder(steps[-1].id),
                identity=steps[-1].id,
                marks=teacher.kind == "mapper" and generation == 0,
            )
        return source, steps

    def make_maps(self, training: Step, teacher: Teacher) -> list[Step]:
        """Steps that make the maps of a trained Teacher for T; the last writes the map store."""
        work = training.work
        assert isinstance(work, Train)
        config = work.config
        # A mapper's next generation is a classifier on its maps.
        plain = teacher.method == "cells" and config.labels == "class"
        method: Method = "cam" if plain else teacher.method
        decision = method == "cam" and config.training.cam_class == "decision"
        rise = self.study.rise if method == "rise" else None
        how: list[object] = ["decision"] if decision else []
        how += [RISE_NUMERICS, rise.model_dump(mode="json")] if rise else []
        workspace = self.workspaces.at(config.manifest)
        rows = self.rows_hash(config.manifest, "train"), workspace.validation_hash()
        identity = digest(["maps", training.id, method, *rows, *how])
        forwards = forwards_of(method, rise)
        shards = shards_of(workspace.manifest, "train", forwards)
        return map_steps(
            MakeMaps(config, training.id, method, rise, shards[0], decision=decision),
            shards,
            identity,
            training.name + ("" if method in ("cam", "cells") else f", {method.upper()}"),
            (training.id,),
            forwards / 3,  # a forward is about a third of a training step
        )

    @_once
    def student(self, teacher: Teacher, backbone: str, setting: Setting, seed: int) -> list[Step]:
        """Run of a Student on T, after the steps that make its maps."""
        arm = Arm.of_setting("student", backbone, setting, teacher)
        source, steps = self.maps_of(teacher, seed)
        return self._guided(arm, seed, source, setting, steps)

    def _guided(
        self,
        arm: Arm,
        seed: int,
        source: MapSource,
        setting: Setting,
        steps: Sequence[Step] = (),
        *,
        annotated: bool = False,
        classes: tuple[str, ...] | None = None,
    ) -> list[Step]:
        """Run on T guided by maps (`annotated`: human ones of A), and before it their steps.

        Which classes have marks is told by A, unless all human maps guide.
        """
        guided = classes or self.study.guide_classes
        config = run_config(
            self.study,
            arm.backbone,
            seed,
            setting,
            source,
            annotated=annotated or source.kind != "human",
            guide_classes=guided,
        )
        needed = steps[-1:] if config.uses_maps else ()
        return [*steps, self.train(arm, config, tuple(step.id for step in needed))]

    # The controls.

    @_once
    def control(
        self, control: Control, teacher: Teacher, backbone: str, setting: Setting, seed: int
    ) -> list[Step]:
        """Run of a control, after the steps that make its maps, see `StudyConfig.controls`."""
        arm = Arm.of_setting(control, backbone, setting)
        match control:
            case "shuffled":
                source, steps = self.maps_of(teacher, seed)
                arm, source = replace(arm, teacher=str(teacher)), self.shuffled(source, seed)
                return self._guided(arm, seed, source, setting, steps)
            case "centre" | "pca":
                marks, classes = self.guided_classes(teacher, setting)
                source = MapSource(kind=control, marks=marks)
                return self._guided(arm, seed, source, setting, classes=classes)
            case "shuffled_human":
                return self._guided(arm, seed, self.shuffled(HUMAN_MAPS, seed), setting)
            case "mixed":
                return self._guided(arm, seed, HUMAN_MAPS, setting, annotated=True)
            case "masked":
                return self._masked(teacher, backbone, setting, seed)
            case "dfr":
                base = self.baseline2(backbone, setting, seed)
                return self.reweighted([base], arm)
            case "repair" | "repair_shuffled":
                base = self.baseline2(backbone, setting, seed)
                arm = replace(arm, teacher=str(teacher))
                return self.repaired([base], arm, teacher, shuffle=control == "repair_shuffled")

    @_once
    def ceiling(self, backbone: str, setting: Setting, seed: int) -> Step:
        """Ceiling: a run on T that is guided by all human maps."""
        arm = Arm.of_setting("ceiling", backbone, setting)
        return self._guided(arm, seed, HUMAN_MAPS, setting)[-1]

    def _masked(self, teacher: Teacher, backbone: str, setting: Setting, seed: int) -> list[Step]:
        """Run on the marked regions alone; of every class, or the change would show the class."""
        source, steps = self.maps_of(teacher, seed)
        setting = replace(setting, alpha=1.0)
        training = training_of(self.study, setting.guidance, setting.steps)
        changes = {"outside": "mean", "outside_rate": 1.0}
        augmentation = training.augmentation.model_copy(update=changes)
        own = {"augmentation": augmentation, "distance": "l2"}
        config = run_config(
            self.study,
            backbone,
            seed,
            setting,
            source.model_copy(update={"human": "keep", "marks": False}),
            training=training.model_copy(update=own),
        )
        arm = Arm.of_setting("masked", backbone, setting, teacher)
        return [*steps, self.train(arm, config, tuple(step.id for step in steps[-1:]))]

    def reweighted(self, chain: list[Step], arm: Arm) -> list[Step]:
        """A chain, and the run that trains the last layer of its last run again on clean labels."""
        config = chain[-1].config
        assert config is not None
        images = len(self.workspaces.at(config.manifest).split_rows("val"))
        return self._last_layer(chain, arm, {"last_layer": self.dfr_set}, images)

    def repaired(
        self, chain: list[Step], arm: Arm, teacher: Teacher, *, shuffle: bool = False
    ) -> list[Step]:
        """A chain with the maps of a Teacher, and the run that trains its last layer again on
        images that the maps swap.
        """
        config = chain[-1].config
        assert config is not None
        maps, makers = self.maps_of(teacher, config.seed)
        source = MapSource(kind="store", path=maps.path, identity=maps.identity)
        if shuffle:
            source = source.model_copy(update={"shuffle_seed": config.seed})
        images = min(MOST_REPAIRED, int(self.workspaces.at(config.manifest).train_mask.sum()))
        steps = [*makers, *(step for step in chain if step not in makers)]
        needs = tuple(step.id for step in makers[-1:])
        return self._last_layer(steps, arm, {"swaps": source}, images, needs)

    def _last_layer(
        self,
        chain: list[Step],
        arm: Arm,
        changes: dict[str, Any],
        images: int,
        needs: tuple[str, ...] = (),
    ) -> list[Step]:
        base = chain[-1]
        assert base.config is not None
        config = base.config.model_copy(update=changes)
        step = self.train(arm, config, (base.id, *needs))
        return [*chain, replace(step, cost=images / 3)]

    def from_mapper(self, chain: list[Step], seed: int) -> list[Step]:
        """The last run of a chain from the weights of a mapper, after the mapper and the others."""
        *before, run = chain
        assert isinstance(run.work, Train)
        arm = run.work.arm
        mapper = self.mapper("mapper", arm.backbone, seed)
        file = self.run_folder(mapper.id) / "model" / "model.safetensors"
        changes = {"weights": str(file), "weights_identity": mapper.id}
        config = run.work.config.model_copy(update=changes)
        started = self.train(replace(arm, start="mapper"), config, (*run.needs, mapper.id))
        return [*before, mapper, started]

    def guided_classes(
        self, teacher: Teacher, setting: Setting
    ) -> tuple[bool, tuple[str, ...] | None]:
        """Classes that maps of all images must guide, to guide what a Teacher's maps guide: whether
        they are those with marks, else their names (None = all that the study guides).
        """
        study = self.study
        given = teacher.kind == "given"
        of_mapper = teacher.kind == "mapper" and study.generations == 1
        if of_mapper or (given and self.maps_of(teacher, study.seed_list[0])[0].marks):
            # Masks guide all classes, also with the maps of a mapper.
            return not takes_masks(training_of(study, setting.guidance).distance), None
        if given:
            classes = self._classes_of(study.maps[teacher.name])
            chosen = study.guide_classes or classes
            return False, tuple(name for name in chosen if name in classes)
        return False, None

    def _classes_of(self, maps: Path) -> tuple[str, ...]:
        """Classes of the training images that have a map in a folder; () if all have some."""
        if maps not in self._classes:
            manifest = self.workspace.manifest
            table = manifest.table[self.workspace.train_mask]
            classes = set(table["label"][with_maps(maps, table["name"].to_numpy(object))])
            every = classes == set(manifest.classes)
            self._classes[maps] = () if every else tuple(sorted(classes))
        return self._classes[maps]

    def shuffled(self, source: MapSource, seed: int) -> MapSource:
        """Maps permuted within class, over groups if a group has several training images."""
        workspace = self.workspaces.of(seed)
        groups = workspace.manifest.table["group"][workspace.train_mask]
        several = bool(groups[groups != ""].duplicated().any())
        return source.model_copy(update={"shuffle_seed": seed, "shuffle_groups": several})

    # Steps, and where their results are.

    def train(self, arm: Arm, config: RunConfig, needs: tuple[str, ...] = ()) -> Step:
        """Training step of a run."""
        workspace = self.workspaces.at(config.manifest)
        arm = replace(arm, annotated=self.annotated)
        training = config.training
        cost = len(workspace.training_rows(config)) * training.epochs
        if training.steps is not None:
            cost = training.steps * training.batch_size
        guided = config.maps.kind != "none"
        chosen = f" {arm.setting}" if guided and (arm.alpha < 1 or arm.guidance) else ""
        if arm.teacher and len(teachers_of(self.study)) > 1:
            chosen += f" of {arm.teacher},"
        where = f" ({self.domain})" if self.domain else ""
        name = f"{arm.label} {arm.backbone}{chosen} seed {config.seed}{where}"
        return Step(run_id_of(workspace, config), Train(config, arm), name, needs, cost=float(cost))

    def evaluation(self, training: Step) -> Step:
        """Step that scores the test sets with a trained model."""
        config = training.config
        assert config is not None
        images = len(self.workspaces.at(config.manifest).split_rows("test"))
        identity = self._evaluation_id(training.id, config.manifest)
        work = Evaluate(config, training.id)
        return Step(identity, work, training.name, (training.id,), cost=images / 3)

    @property
    def dfr_set(self) -> str | None:
        """Validation set on which the control dfr trains the last layer; None without one."""
        return self.study.dfr_set or next(iter(clean_sets(self.workspace.manifest)), None)

    @property
    def controls(self) -> tuple[Control, ...]:
        """Controls of the study that its validation sets allow."""
        return tuple(one for one in self.study.controls if one != "dfr" or self.dfr_set)

    @property
    def mapper_detects(self) -> bool:
        """Whether mappers can detect: of two classes, only the positive one has human maps."""
        if not self.study.mapper or len(self.workspace.manifest.classes) != 2:
            return False
        marked = marked_classes(self.workspace.manifest, self.workspace.train_mask)
        return marked == [self.study.positive]

    @property
    def workspace(self) -> Workspace:
        """Workspace of the first seed, or the only one."""
        return self.workspaces.first

    def rows_hash(self, manifest: Path, kind: str) -> str:
        """Hash of the training or test rows of a manifest."""
        if (manifest, kind) not in self._hashes:
            workspace = self.workspaces.at(manifest)
            train = np.flatnonzero(workspace.train_mask)
            rows = train if kind == "train" else workspace.split_rows(kind)
            self._hashes[manifest, kind] = workspace.hashes.of(rows)
        return self._hashes[manifest, kind]

    @property
    def primary(self) -> str:
        """Evaluation set of the hypothesis tests."""
        return self.study.primary or self.workspace.manifest.eval_splits("test")[0]

    def evaluation_id(self, member: Member) -> str:
        """Id of the evaluation of a run on the test sets of its seed's manifest."""
        return self._evaluation_id(member.run, member.manifest)

    def _evaluation_id(self, run: str, manifest: Path) -> str:
        return digest(["evaluate", run, self.rows_hash(manifest, "test")])

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
