"""Config of a study: the protocol, and the options of the method."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from preceptor.config.guidance import CamClass, Distance, Distances, PoolKind, distance_weights
from preceptor.config.maps import PCA_COMPONENTS, PostProcessing, RiseSettings, Trust
from preceptor.config.paths import ConfigPath, Weights
from preceptor.config.run import RunConfig
from preceptor.config.settings import Amount, Few, Fraction, Positive, Settings
from preceptor.config.training import Speed, Training
from preceptor.errors import InputError
from preceptor.evaluation.operating_points import normal_rule
from preceptor.evaluation.terms import Field as TermsField

# α grids by distance, so that (1 − α) ÷ α times the pull covers about what l2's grid covers. Median
# pull ÷ l2's at typical maps of 10 × 10 to 6 × 6 cells (benchmarks/distance_pull.py): mse 0.10 to
# 0.17, l1 0.10 to 0.17, dice 0.12 to 0.21, kl 0.6 to 1.0. Hence the grid of l1 and dice acts like
# l2 at about 0.01, 0.05, 0.1, 0.25, 0.4 and 0.9, and kl has l2's own. The distances of evidence
# depend on its level; at a spread of 4 between the cells, cells, evidence and cosine pull as l1 and
# dice do, energy at about half of that. All hold 0.1, for probes.
ALPHA_GRIDS: dict[Distance, tuple[float, ...]] = {
    "l2": (0.01, 0.05, 0.1, 0.25, 0.5, 0.9),
    "mse": (0.01, 0.1, 0.5),
    "l1": (0.0015, 0.0075, 0.015, 0.05, 0.1, 0.5),
    "kl": (0.01, 0.05, 0.1, 0.25, 0.5, 0.9),
    "dice": (0.0015, 0.0075, 0.015, 0.05, 0.1, 0.5),
    "cells": (0.0015, 0.0075, 0.015, 0.05, 0.1, 0.5),
    "evidence": (0.0015, 0.0075, 0.015, 0.05, 0.1, 0.5),
    "energy": (0.0015, 0.0075, 0.015, 0.05, 0.1, 0.5),
    "cosine": (0.0015, 0.0075, 0.015, 0.05, 0.1, 0.5),
}
PAPER_ALPHA = 0.5
# A typing error must not become a plan of more steps than memory holds.
MOST_SEEDS = 1_000
Alpha = Annotated[float, Field(ge=0, lt=1)]
Sizes = Annotated[tuple[Positive, ...], Field(min_length=1)]
Control = Literal["shuffled", "centre", "pca", "shuffled_human", "distilled", "mixed", "masked"]
# Temperature of soft labels, as in the paper that introduced them, where it was 1 to 20.
SOFT_TEMPERATURE = 2.0


def main_distance(distance: Distances) -> Distance:
    """The distance with the largest weight, the first of several."""
    weights = distance_weights(distance)
    return max(weights, key=lambda name: weights[name])


def _rule(rule: str) -> str:
    """Threshold rule in its canonical spelling."""
    try:
        return normal_rule(rule)
    except InputError as error:
        raise ValueError(str(error)) from error


class Mapper(Settings):
    """Teachers that are taught maps alone: a logistic loss for each cell, without class labels.

    Args:
        cell_full: Share of a cell that a human map must cover to count as marked.
        mark_weight: Additional weight of a marked cell.
        top: Highest cells whose mean is the mapper's own score of an image: a share of all cells,
            or a number.
        decoder: none, or fpn: a feature pyramid on the backbone, for marks smaller than a cell.
        stride: Stride of the decoder's grid in pixels.
    """

    cell_full: Annotated[float, Field(gt=0, le=1)] = 0.25
    mark_weight: Annotated[float, Field(ge=0)] = 9.0
    top: Amount = 0.1
    decoder: Literal["none", "fpn"] = "none"
    stride: Literal[4, 8, 16] = 8

    def backbone_args(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments of the backbone of a mapper in a study."""
        if self.decoder == "none":
            return dict(given)
        return dict(given) | {"decoder": self.decoder, "decoder_stride": self.stride}

    def training(self, study: Training) -> Training:
        """Training settings of a mapper in a study."""
        return study.model_copy(
            update={
                "recipe": None, "distance": "cells", "cam_class": "decision", "head": "sigmoid",
                "cam_source": "head_input", "cell_full": self.cell_full,
                "mark_weight": self.mark_weight, "pool": "top", "pool_top": self.top,
                "readout": "none", "balanced": True, "checkpoint": "last", "consistency": 0.0,
                "augmentation": study.augmentation.model_copy(update={"outside": "none"}),
            }
        )  # fmt: skip


class GuidanceConfig(Settings):
    """Options of the method: how a Teacher's maps are made, and how they guide Students.

    Args:
        teacher_rows: Training images of a human-guided Teacher: annotated, or all (with guidance on
            images with a human map).
        committee: Number of Teachers whose mean maps guide a Student: that of its seed, and further
            ones on the same images that differ only in their seed.
        tta: Test-time augmentation: a Teacher's map is the mean over the eight flips and quarter
            turns of the image.
        generations: 1 = the Teacher's maps guide Students; 2 = they guide a model of the Teacher's
            backbone on all images, whose maps guide Students; and so on.
        human_maps: Treatment of human maps of annotated images: replace (by the Teacher's map), or
            keep.
        trust: Factors of the map weights, see `MapSource`.
        guide_classes: Classes with guidance, also for Teachers; None = all.
        post: Post-processing of Teachers' and given maps that guide Students.
        human_post: Post-processing of human maps wherever they guide: Baseline 1, human-guided
            Teachers, ceiling, the control mixed, and human maps that Students keep.
        alpha_start: α of a Student at its first step, see `RunConfig`.
        soft_labels: Weight of the Teacher's probabilities in a Student's classification term; 0 =
            labels only.
    """

    teacher_rows: Literal["annotated", "all"] = "annotated"
    committee: Few = 1
    tta: bool = False
    generations: Few = 1
    human_maps: Literal["replace", "keep"] = "replace"
    trust: Trust = "none"
    guide_classes: tuple[str, ...] | None = None
    post: PostProcessing = PostProcessing()
    human_post: PostProcessing = PostProcessing()
    alpha_start: Fraction | None = None
    soft_labels: Fraction = 0.0

    @model_validator(mode="after")
    def _agreement_of_several(self) -> GuidanceConfig:
        if self.trust == "agreement" and self.committee == 1:
            raise ValueError("trust: agreement is that of a committee; set committee to 2 or more")
        return self


class Variant(Settings):
    """Variant of the Students: the settings that differ from those of the study.

    Args:
        teacher_alpha: α of its human-guided Teacher.
        distance: Distance of the Student's guidance; α is comparable only within one distance.
        cam_class: Map of the Student that is guided.
        pool: Pooling of the Student's maps to logits.
        alpha: α of the Student; auto = it follows the losses of each batch, see `RunConfig`; None =
            the α selected for the study's own Students.
        human_post: Post-processing of the human maps that guide its Teachers or its Students.
        teacher_rows, committee, tta, generations, human_maps, trust, guide_classes, post,
            alpha_start, soft_labels: See `GuidanceConfig`.
    """

    teacher_alpha: Alpha | None = None
    distance: Distances | None = None
    cam_class: CamClass | None = None
    pool: PoolKind | None = None
    alpha: Alpha | Literal["auto"] | None = None
    teacher_rows: Literal["annotated", "all"] | None = None
    committee: Few | None = None
    tta: bool | None = None
    generations: Few | None = None
    human_maps: Literal["replace", "keep"] | None = None
    trust: Trust | None = None
    guide_classes: tuple[str, ...] | None = None
    post: PostProcessing | None = None
    human_post: PostProcessing | None = None
    alpha_start: Fraction | None = None
    soft_labels: Fraction | None = None

    def training(self, study: Training) -> Training:
        """Training settings of the variant in a study."""
        own = {name: getattr(self, name) for name in ("distance", "cam_class", "pool")}
        return study.model_copy(
            update={name: value for name, value in own.items() if value is not None}
        )

    def alpha_of(self, selected: float) -> float:
        """α of the Student in tables, given the selected one; NaN if it follows the losses."""
        if self.alpha is None:
            return selected
        return math.nan if self.alpha == "auto" else self.alpha

    def changes(self) -> dict[str, Any]:
        """Settings of `GuidanceConfig` that the variant changes."""
        given = {name: getattr(self, name) for name in GuidanceConfig.model_fields}
        return {name: value for name, value in given.items() if value is not None}


class SeedLooks(Settings):
    """Number of seeds by the width of intervals.

    Args:
        width: A study stops after the first look at which the intervals of all primary comparisons
            (Student minus each baseline, for every backbone) are at most this wide: high − low, of
            the AUC difference, corrected for the looks (`sequential_level`).
        looks: Numbers of seeds after which the intervals are computed, increasing. The last is the
            limit.
    """

    width: float = 0.03
    looks: tuple[int, ...] = (3, 5, 8, 12, 20)

    def problems(self) -> list[str]:
        """Invalid values, each with its remedy."""
        wrong = []
        if not 0 < self.width < 2:
            wrong.append(
                f"seeds.auto.width: {self.width:g} is not the width of an interval of AUC "
                "differences; write a number above 0 and below 2, as in 0.03"
            )
        looks = list(self.looks)
        if len(looks) < 2 or looks[0] < 2 or looks != sorted(set(looks)):
            wrong.append(
                f"seeds.auto.looks: {looks} are not two or more increasing numbers from 2 up; "
                "write as in [3, 5, 8]"
            )
        if looks and looks[-1] > MOST_SEEDS:
            wrong.append(
                f"seeds.auto.looks: {looks[-1]:,} is above the maximum of {MOST_SEEDS:,}; "
                "write a smaller limit"
            )
        return wrong


class AutoSeeds(Settings):
    """Seeds 0, 1, … up to a number that depends on the results.

    Args:
        auto: Width of the intervals and looks.
    """

    auto: SeedLooks = SeedLooks()


def _auto_seeds(given: object) -> object:
    """`auto` as the settings that it stands for."""
    return {"auto": {}} if given == "auto" else given


Seeds = Annotated[
    Positive | Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] | AutoSeeds,
    BeforeValidator(_auto_seeds),
]


class Domain(Settings):
    """Domain of a study: a manifest, and settings that differ from those of the study.

    Args:
        manifest, positive, primary, annotated, guide_classes, budget, maps: See `StudyConfig`.
    """

    manifest: ConfigPath
    positive: str | None = None
    primary: str | None = None
    annotated: Amount | None = None
    guide_classes: tuple[str, ...] | None = None
    budget: Sizes | None = None
    maps: Mapping[str, ConfigPath] | None = None


class StudyConfig(GuidanceConfig):
    """Config of a study: baselines, Teachers, Students, controls, seeds and selection.

    Args:
        manifest: Path of the manifest. With `{seed}` in the path, every seed has its own manifest,
            so that seeds are independent draws of the data and intervals are over these draws.
        domains: Several manifests instead of `manifest`: name → manifest and settings that differ.
            The protocol runs on each separately; the tested family includes all of them.
        positive: Class whose probability is the score; required for two classes.
        primary: Evaluation set of the hypothesis tests; None = the first test set.
        teachers: Backbones of the Teachers.
        students: Backbones of the Students, baselines and ceiling.
        weights: Initial weights for all backbones or by backbone: hub, none or a file.
        backbone_args: Further arguments by backbone.
        seeds: Number of seeds (0, 1, …), a list of seeds, or auto: as many as are needed for
            narrow intervals of the primary comparisons, see `SeedLooks`.
        annotated: Number or fraction of the annotated images that are used, see `RunConfig`.
        annotated_seed: Random seed of the subset of annotated images.
        annotated_per_seed: Draw a new subset for each seed.
        alphas: α grid of Students, Baseline 1, controls and ceiling; None = the default grid of the
            distance.
        teacher_alphas: α grid of the human-guided Teachers.
        data_driven: Also train Teachers without guidance.
        mapper: Also train Teachers on the maps alone; true = with the default settings.
        maps: Teachers without training: name → folder of maps or map store.
        saliency: Saliency methods of the Teachers: cam, rise, or both.
        rise: Settings of RISE.
        plan: staged (select the Teacher with one probe Student, then train all Students) or full
            (all combinations).
        probe: Student backbone of stage 1; None = the first.
        probe_alpha: α of the probe Student; None = 0.1 if in the grid, else the first of the grid.
        selection: highest (AUC on the worst validation set), or the rule that breaks ties between
            statistically equal configurations: guided (agreement with human maps of validation
            images) or val_auc (the smaller α).
        search: Training of the candidates of a selection: grid (every candidate with every seed),
            racing (after 2, 4, 8, … seeds, candidates that are significantly worse than the best
            on validation are dropped) or halving (as racing, and at most half of the candidates are
            kept each time).
        validation_negatives: Validation set whose images are used for the classes that another
            validation set lacks, see `RunConfig`; None = every set needs every class.
        controls: shuffled (the Teacher's maps, permuted within class), centre (one centred map),
            pca (maps from the principal components of the images), shuffled_human (all human maps
            of the ceiling, permuted within class), distilled (no maps, the same Teacher's
            probabilities as soft labels of weight 1 − α), mixed (all images, human maps on the
            annotated ones, no Teacher), masked (no guidance; training images are replaced by their
            mean color outside the human map, or the Teacher's where there is none).
        pca_components: Number of principal components of the control pca.
        controls_alpha: own (each control is trained at every α of the Student's grid and selected
            by the Student's rule) or student (at the α selected for the Student, which is optimal
            for the Teacher's maps but not for the control's; fewer trainings).
        variants: Students that differ from the study's own in some settings: name → settings.
        ceiling: Train on all images with all available human maps.
        budget: Numbers of annotated images at which Baseline 1, the selected Teacher and its
            Student are trained again, with a new draw for every seed.
        budget_gain: Smallest gain in AUC between successive numbers that is considered relevant.
        threshold: Rule of the decision threshold of each model on its validation scores: eer or
            fdr=x, see `fixed_threshold`.
        terms: Names of the error rates: pad, medical or generic.
        training: Training settings; precision, channels_last and compile may be auto.
        speed: Values of settings that are auto, by backbone; chosen by a probe at the start.
        store: Folder of runs and map stores, which several studies may share. None = inside the
            study folder.
    """

    manifest: ConfigPath | None = None
    domains: Mapping[str, Domain] = {}
    positive: str | None = None
    primary: str | None = None
    teachers: Annotated[tuple[str, ...], Field(min_length=1)]
    students: Annotated[tuple[str, ...], Field(min_length=1)]
    weights: Weights | Mapping[str, Weights] = "none"
    backbone_args: Mapping[str, Mapping[str, Any]] = {}
    seeds: Seeds = 3
    annotated: Amount | None = None
    annotated_seed: Annotated[int, Field(ge=0)] = 0
    annotated_per_seed: bool = False
    alphas: Annotated[tuple[Alpha, ...], Field(min_length=1)] | None = None
    teacher_alphas: Annotated[tuple[Alpha, ...], Field(min_length=1)] = (PAPER_ALPHA,)
    data_driven: bool = True
    mapper: Mapper | None = None
    maps: Mapping[str, ConfigPath] = {}
    saliency: Annotated[tuple[Literal["cam", "rise"], ...], Field(min_length=1)] = ("cam",)
    rise: RiseSettings = RiseSettings()
    plan: Literal["staged", "full"] = "staged"
    probe: str | None = None
    probe_alpha: Alpha | None = None
    selection: Literal["highest", "guided", "val_auc"] = "highest"
    search: Literal["grid", "racing", "halving"] = "grid"
    validation_negatives: str | None = None
    controls: tuple[Control, ...] = ("shuffled", "centre", "pca", "distilled", "mixed")
    pca_components: Few = PCA_COMPONENTS
    controls_alpha: Literal["own", "student"] = "own"
    variants: Mapping[str, Variant] = {}
    ceiling: bool = True
    budget: Sizes | None = None
    budget_gain: Annotated[float, Field(gt=0, lt=1)] = 0.01
    threshold: Annotated[str, AfterValidator(_rule)] = "eer"
    terms: TermsField = "generic"
    training: Training = Training()
    speed: Mapping[str, Speed] = {}
    store: ConfigPath | None = None

    @field_validator("mapper", mode="before")
    @classmethod
    def _mapper_with_defaults(cls, value: Any) -> Any:
        return {True: Mapper(), False: None}.get(value, value) if value in (True, False) else value

    @model_validator(mode="after")
    def _consistent(self) -> StudyConfig:
        if isinstance(self.seeds, int) and self.seeds > MOST_SEEDS:
            raise ValueError(
                f"seeds: {self.seeds:,} is above the maximum of {MOST_SEEDS:,}; for one seed with "
                f"this number write [{self.seeds}]"
            )
        wrong: list[str] = []
        if isinstance(self.seeds, AutoSeeds) and (found := self.seeds.auto.problems()):
            raise ValueError("\n".join(found))
        if (self.manifest is None) == (not self.domains):
            wrong.append("exactly one of manifest and domains is needed; set one of them")
        for name in self.domains:
            if re.fullmatch(r"[^\W_][\w .-]*", name) is None:
                wrong.append(
                    f"domains: {name!r} is not a valid name; use letters, digits, blanks, . and -"
                )
        if self.probe is not None and self.probe not in self.students:
            wrong.append(f"probe {self.probe} is not among the students; name one of them")
        if self.mapper is not None and self.positive is None and self.manifest is not None:
            wrong.append("mapper needs two classes and `positive`, the class with marks; add it")
        for name, variant in self.variants.items():
            try:
                self.guiding(variant)
                Training.model_validate(variant.training(self.training).model_dump())
            except ValueError as error:
                wrong.append(f"variants.{name}: {_first_line(error)}")
        for name, values in (
            ("teachers", self.teachers),
            ("students", self.students),
            ("seeds", self.seed_list),
            ("alphas", self.alpha_grid),
            ("teacher_alphas", self.teacher_alphas),
            ("saliency", self.saliency),
            ("budget", self.budget or ()),
            *((f"domains.{name}.budget", one.budget or ()) for name, one in self.domains.items()),
        ):
            if len(set(values)) != len(values):
                wrong.append(f"{name} has duplicate values: {list(values)}; remove one")
        if "rise" in self.saliency:
            turned = ["tta"] if self.tta else []
            turned += [f"variants.{name}.tta" for name, one in self.variants.items() if one.tta]
            wrong += [f"{where} needs cam, and saliency has rise; remove one" for where in turned]
        known = {*self.teachers, *self.students}
        unknown = (set(self.backbone_args) | set(self.speed)) - known
        if not isinstance(self.weights, str):
            unknown |= set(self.weights) - known
            missing = sorted(known - set(self.weights))
            if missing:
                wrong.append(f"weights: missing for {', '.join(missing)}; add hub, none or a file")
        if unknown:
            wrong.append(
                "backbone_args, weights or speed name backbones that are not used: "
                f"{', '.join(sorted(unknown))}; remove them, or add the backbones to a list"
            )
        if wrong:
            raise ValueError("\n".join(wrong))
        return self

    @property
    def seed_list(self) -> tuple[int, ...]:
        """All seeds, for `auto` up to the limit."""
        if isinstance(self.seeds, AutoSeeds):
            return tuple(range(self.looks[-1]))
        return tuple(range(self.seeds)) if isinstance(self.seeds, int) else self.seeds

    @property
    def looks(self) -> tuple[int, ...]:
        """Numbers of seeds after which a study may stop; () if the number of seeds is fixed."""
        return self.seeds.auto.looks if isinstance(self.seeds, AutoSeeds) else ()

    @property
    def first_seeds(self) -> tuple[int, ...]:
        """Seeds of all selections: those of the first look, or all if their number is fixed."""
        return self.seed_list[: self.looks[0]] if self.looks else self.seed_list

    @property
    def budgets(self) -> tuple[int, ...]:
        """Numbers of annotated images to compare, in increasing order."""
        return tuple(sorted(self.budget or ()))

    def by_domain(self) -> dict[str, StudyConfig]:
        """Config of each domain with its manifest; the config itself under "" without domains."""
        if not self.domains:
            return {"": self}
        found = {}
        for name, domain in self.domains.items():
            own = {key: value for key, value in domain if value is not None}
            found[name] = self.model_copy(update={"domains": {}} | own)
        return found

    @property
    def draws(self) -> bool:
        """Whether every seed has its own manifest."""
        return "{seed}" in str(self.manifest)

    def manifest_of(self, seed: int) -> Path:
        """Manifest of a seed, in a study without domains."""
        assert self.manifest is not None, "a study of several domains has several manifests"
        return Path(str(self.manifest).replace("{seed}", str(seed)))

    def guiding(self, variant: Variant | None = None) -> GuidanceConfig:
        """Options of the method of the study, or of a variant."""
        own = {name: getattr(self, name) for name in GuidanceConfig.model_fields}
        return GuidanceConfig.model_validate(own | (variant.changes() if variant else {}))

    @property
    def alpha_grid(self) -> tuple[float, ...]:
        """α grid of Students, Baseline 1, controls and ceiling."""
        return self.alphas or ALPHA_GRIDS[main_distance(self.training.distance)]

    @property
    def rungs(self) -> tuple[int, ...]:
        """Numbers of seeds after which the candidates of a selection are compared.

        Two seeds are the fewest with an interval over seeds; the last comparison has all seeds of
        a selection.
        """
        rung, count = 2, len(self.first_seeds)
        found = []
        while self.search != "grid" and rung < count:
            found.append(rung)
            rung *= 2
        return (*found, count)

    @property
    def probe_backbone(self) -> str:
        """Student backbone of stage 1."""
        return self.probe or self.students[0]

    @property
    def stage_one_alpha(self) -> float:
        """α of the probe Student."""
        if self.probe_alpha is not None:
            return self.probe_alpha
        return 0.1 if 0.1 in self.alpha_grid else self.alpha_grid[0]

    def training_of(self, backbone: str) -> Training:
        """Training settings of a backbone, with the choices of the probe instead of auto."""
        chosen = self.speed.get(backbone)
        if chosen is None:
            return self.training
        free = self.training.left_to_probe
        return self.training.model_copy(update={name: getattr(chosen, name) for name in free})

    def annotated_seed_of(self, seed: int) -> int:
        """Random seed of the subset of annotated images for a seed of the study."""
        return self.annotated_seed + (seed if self.annotated_per_seed else 0)

    def run_config(self, backbone: str, draw: int, **values: object) -> RunConfig:
        """Run config for a backbone and a seed of the study.

        Args:
            backbone: Backbone of the model.
            draw: Seed of the study, for the data and, unless `values` has another, the training.
            values: Settings that differ from a guided run on all training images.
        """
        base: dict[str, object] = {
            "manifest": self.manifest_of(draw),
            "backbone": backbone,
            "weights": self.weights_of(backbone),
            "backbone_args": self.backbone_args.get(backbone, {}),
            "positive": self.positive,
            "annotated": self.annotated,
            "annotated_seed": self.annotated_seed_of(draw),
            "guide_classes": self.guide_classes,
            "human_post": self.human_post,
            "validation_negatives": self.validation_negatives,
            "seed": draw,
            "training": self.training_of(backbone),
        }
        return RunConfig.model_validate(base | values)

    def plain_run(self, backbone: str) -> RunConfig:
        """Run config of a backbone before the probe, for any classes: the defaults of `Speed`
        instead of auto, and no positive class.
        """
        training = self.training.without_auto()
        study = next(iter(self.by_domain().values()))
        return study.run_config(backbone, self.seed_list[0], positive=None, training=training)

    @property
    def backbones(self) -> tuple[str, ...]:
        """All distinct backbones, those of the Teachers first."""
        return tuple(dict.fromkeys([*self.teachers, *self.students]))

    def weights_of(self, backbone: str) -> str:
        """Initial weights of a backbone: hub, none or a file."""
        return self.weights if isinstance(self.weights, str) else self.weights[backbone]


def _first_line(error: ValueError) -> str:
    """Message of a validation error, without pydantic's frame."""
    if isinstance(error, ValidationError):
        return str(error.errors()[0]["msg"]).removeprefix("Value error, ")
    return str(error)
