"""Config of a study: Teachers, Students, controls, seeds, selection, and their grids."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator

from preceptor.config.run import Method, RiseSettings
from preceptor.config.settings import (
    Amount,
    ConfigPath,
    Few,
    FunctionName,
    Positive,
    Settings,
    Weights,
)
from preceptor.config.training import (
    CamClass,
    Distance,
    Distances,
    GuidanceName,
    Preset,
    StudyTraining,
    Training,
    distance_weights,
)
from preceptor.errors import InputError
from preceptor.metrics.operating_points import Field as TermsField
from preceptor.metrics.operating_points import normal_rule

# α grids by distance, so that (1 − α) ÷ α times the pull covers about what l2's grid covers. Median
# pull ÷ l2's at typical maps of 10 × 10 to 6 × 6 cells: mse and l1 0.10 to 0.17, dice 0.12 to 0.21,
# kl 0.6 to 1.0; of evidence at a spread of 4 between the cells: cells, evidence and cosine as l1
# and dice, energy half of that. All grids hold 0.1.
_L2 = (0.01, 0.05, 0.1, 0.25, 0.5, 0.9)
_L1 = (0.0015, 0.0075, 0.015, 0.05, 0.1, 0.5)
ALPHA_GRIDS: dict[Distance, tuple[float, ...]] = {
    **dict.fromkeys(("l2", "kl"), _L2),
    "mse": (0.01, 0.1, 0.5),
    **dict.fromkeys(("l1", "dice", "cells", "evidence", "energy", "cosine"), _L1),
}
# Of guidance methods, whose terms are scaled so that they begin as large as the classification.
METHOD_ALPHAS = (0.1, 0.5, 0.9)
PAPER_ALPHA = 0.5
EXTENDED = (0.0005, 0.9995)  # limits of α to which a grid is extended
Alpha = Annotated[float, Field(ge=0, lt=1)]
Alphas = Annotated[tuple[Alpha, ...], Field(min_length=1)]

Control = Literal[
    "shuffled",
    "centre",
    "pca",
    "shuffled_human",
    "mixed",
    "masked",
    "dfr",
    "repair",
    "repair_shuffled",
]
OF_TEACHER: tuple[Control, ...] = ("shuffled", "masked", "repair", "repair_shuffled")
"""Controls that use the maps of the selected Teacher."""

Publication = Literal["teaching-ai-to-teach"]
"""Publication whose results a report can show beside its own."""

# What `recipe: recommended` takes where a study file leaves settings of the method open. Frozen
# before the study of small forged regions was run (benchmarks/evidence/spots_evidence), in which
# Students were above the network without maps and above any map; mixed was added later.
RECOMMENDED: dict[str, Any] = {
    "alphas": (0.5, 0.1),
    "teacher_alphas": (0.1,),
    "mapper": True,
    "controls": (
        "shuffled",
        "centre",
        "pca",
        "shuffled_human",
        "mixed",
        "dfr",
        "repair",
        "repair_shuffled",
    ),
}
RECOMMENDED_TRAINING = {"distance": "l2", "cam_class": "label", "readout": "auto"}

# A typing error must not become a plan of more steps than memory holds.
MOST_SEEDS = 1_000


def default_alphas(distance: Distances) -> tuple[float, ...]:
    """α grid of a distance: of a sum the grid of the largest weight."""
    weights = distance_weights(distance)
    return ALPHA_GRIDS.get(max(weights, key=lambda name: weights[name]), ALPHA_GRIDS["l2"])


@dataclass(frozen=True, order=True)
class Setting:
    """Setting of a run that is selected on validation."""

    alpha: float  # α of the loss; 1 without guidance
    guidance: str = ""  # name in `StudyConfig.guidances`; "" = the training settings of the study
    steps: int = 0  # one of several training lengths; 0 = the only one

    def __str__(self) -> str:
        parts = [self.guidance] if self.guidance else []
        parts += [f"α {self.alpha:g}"] if self.alpha != 1 or not (parts or self.steps) else []
        return ", ".join([*parts, f"{self.steps:,} steps"] if self.steps else parts)


def beyond(settings: Sequence[Setting], values: Sequence[float]) -> list[Setting]:
    """Settings that extend the grid of each way whose best value is at an end of it.

    A grid of fewer than three α is a choice of its user, and is not extended. The next α has
    the strength (1 − α) ÷ α of the last times its step, within `EXTENDED`, and the best length.
    """
    further: list[Setting] = []
    for way in dict.fromkeys(one.guidance for one in settings):
        found = dict(zip(settings, values, strict=True))
        own = [one for one in found if one.guidance == way and 0 < one.alpha < 1]
        grid = sorted({one.alpha for one in own})
        if len(grid) < 3:
            continue
        best = max(own, key=lambda one: found[one])
        inner = {grid[0]: grid[1], grid[-1]: grid[-2]}.get(best.alpha)
        if inner is None:
            continue
        strength, near = ((1 - alpha) / alpha for alpha in (best.alpha, inner))
        alpha = float(f"{1 / (1 + strength * strength / near):.3g}")
        if EXTENDED[0] <= alpha <= EXTENDED[1]:
            further.append(replace(best, alpha=alpha))
    return further


class Guidance(Settings):
    """Way of guiding: the settings of the loss that differ from those of the study.

    Args:
        distance: Distance of the guidance term.
        cam_class: Map that is guided, of a distance; a method has `map` in `preset`.
        method: Guidance method, see `preceptor.guidance_method`; cyborg without `preset` = the
            distance of the map. teach needs the output of a Teacher and is for own loops.
        preset: Published settings of the method by name, or settings, as in
            {preset: ross, scalar: ce, weight: published}.
        alphas: α grid; None = that of the study, or the default grid of the distance if the
            distance differs from the study's; of a method 0.1, 0.5, 0.9.
    """

    method: GuidanceName = "cyborg"
    preset: Preset = None
    distance: Distances | None = None
    cam_class: CamClass | None = None
    alphas: Alphas | None = None

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.cam_class and (self.method != "cyborg" or self.preset is not None):
            raise ValueError(
                f"cam_class is {self.cam_class}, which a method with its preset does not read; "
                f"remove it, or add `map: {self.cam_class}` to the settings in `preset`"
            )
        return self

    def training(self, study: Training) -> Training:
        """Training settings of this way of guiding in a study."""
        changes: dict[str, Any] = {"method": self.method, "preset": self.preset}
        given = {"distance": self.distance, "cam_class": self.cam_class}
        if study.model_copy(update=changes).by_method:
            changes["distance"] = "l2"  # unused, and so not in ids
        changes |= {key: value for key, value in given.items() if value}
        return study.model_copy(update=changes)

    def alpha_grid(self, study: StudyConfig) -> tuple[float, ...]:
        """α grid in a study."""
        if self.alphas is not None:
            return self.alphas
        if self.method != "cyborg" or self.preset is not None:
            return METHOD_ALPHAS
        if self.distance in (None, study.training.distance):
            return study.alpha_grid
        return default_alphas(self.distance)


class Domain(Settings):
    """Domain of a study.

    Args:
        manifest: Path of the manifest, see `StudyConfig`.
        primary: Evaluation set of the hypothesis tests; None = that of the study.
    """

    manifest: ConfigPath
    primary: str | None = None


def _rule(rule: str) -> str:
    """Threshold rule in its canonical spelling."""
    try:
        return normal_rule(rule)
    except InputError as error:
        raise ValueError(str(error)) from error


class StudyConfig(Settings):
    """Config of a study: baselines, Teachers, Students, controls, seeds and selection.

    Args:
        recipe: recommended (`RECOMMENDED` for all settings of the method that are not given), or
            None = the defaults, which follow the paper.
        manifest: Path of the manifest. With `{seed}` in the path, every seed has its own manifest,
            so that seeds are draws of the data (without common images) and intervals are over them.
        domains: Several manifests instead of `manifest`, by name. The protocol runs on each
            separately; the tested family includes all of them.
        positive: Class whose probability is the score; required for two classes.
        primary: Evaluation set of the hypothesis tests; None = the first test set.
        teachers: Backbones of the Teachers.
        students: Backbones of the Students, baselines and ceiling. Students of the first compare
            the Teachers in stage 1, at up to three α of the grid.
        weights: Initial weights for all backbones or by backbone: hub, none or a file.
        backbone_args: Further arguments by backbone, also of functions in `backbones`.
        backbones: Networks from outside timm, by the names of `teachers` and `students`: the
            function that creates each, as package.module:function.
        seeds: Number of seeds (0, 1, …), or a list of seeds.
        annotated: Number or fraction of the annotated images that are used, see `RunConfig`.
        annotated_per_seed: Draw a new subset of annotated images for each seed.
        alphas: α grid of Students, Baseline 1, controls and ceiling; None = the default grid of the
            distance.
        guidances: Ways of guiding to choose from: name → settings of the loss that differ from
            `training`. Students, Baseline 1, controls and ceiling each get the way and the α with
            the highest AUC on validation. Teachers and probe Students are trained with `training`
            and the first way. Empty = `training` only.
        teacher_alphas: α grid of the human-guided Teachers; empty = none of these.
        data_driven: Also train Teachers without guidance.
        mapper: Also train Teachers on the maps alone. start = also train Baseline 1, Baseline 2 and
            the Students from the weights of a mapper of their backbone and seed, at their selected
            settings, as further rows (C. R. Crum, A. Czajka, "MENTOR: Human Perception-Guided
            Pretraining for Increased Generalization", WACV 2025).
        maps: Teachers without training: name → folder of maps or map store.
        saliency: Saliency methods of the Teachers: cam, rise, or both.
        rise_masks: Maximum number of masks of RISE for each image; the tolerance of `RiseSettings`
            is 0.05, and 50 / rise_masks below 1,000 masks, for rehearsals.
        generations: 1 = the Teacher's maps guide Students; 2 = they guide a model of the Teacher's
            backbone on all images, whose maps guide Students; and so on.
        guide_classes: Classes with guidance, also for Teachers; None = all.
        validation_negatives: Validation set whose images are used for the classes that another
            validation set lacks, see `RunConfig`; None = every set needs every class.
        controls: shuffled (the Teacher's maps, permuted within class), centre (one centered map),
            pca (maps from the principal components of the images), shuffled_human (all human maps
            of the ceiling, permuted within class), mixed (all images, human maps on the annotated
            ones, no Teacher), masked (no guidance; training images are replaced by their mean color
            outside the human map, or the Teacher's where there is none), dfr (Baseline 2 with its
            last layer trained again on the validation set `dfr_set`: deep feature reweighting; and
            the Student likewise), repair (Baseline 2 with its last layer trained again on training
            images that are swapped by the Teacher's maps, and the Student likewise) and
            repair_shuffled (by the maps permuted within class). Without such a set, dfr is left
            out.
        dfr_set: Validation set of the control dfr, whose labels that control sees: one without the
            shortcuts of the training images. None = the first one with another name than val.
        ceiling: Train on all images with all available human maps.
        budget: Numbers of annotated images at which Baseline 1, the selected Teacher, its Student
            and a mapper, if any, are trained again, with a new draw for every seed.
        threshold: Rule of the decision threshold of each model on its validation scores: eer or
            fdr=x, see `fixed_threshold`.
        terms: Names of the error rates: pad, medical or generic.
        published: Publication of results on the same data, which the report shows beside those of
            the study; None = none.
        training: Training settings.
        store: Folder of runs and map stores, which several studies may share. None = inside the
            study folder.
    """

    recipe: Literal["recommended"] | None = None
    manifest: ConfigPath | None = None
    domains: Mapping[str, Domain] = {}
    positive: str | None = None
    primary: str | None = None
    teachers: Annotated[tuple[str, ...], Field(min_length=1)]
    students: Annotated[tuple[str, ...], Field(min_length=1)]
    weights: Weights | Mapping[str, Weights] = "none"
    backbone_args: Mapping[str, Mapping[str, Any]] = {}
    backbones: Mapping[str, FunctionName] = {}
    seeds: Positive | Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = 3
    annotated: Amount | None = None
    annotated_per_seed: bool = False
    alphas: Alphas | None = None
    guidances: Mapping[str, Guidance] = {}
    teacher_alphas: tuple[Alpha, ...] = (PAPER_ALPHA,)
    data_driven: bool = True
    mapper: bool | Literal["start"] = False
    maps: Mapping[str, ConfigPath] = {}
    saliency: Annotated[tuple[Method, ...], Field(min_length=1)] = ("cam",)
    rise_masks: Annotated[int, Field(ge=2, le=10_000_000)] = 8000
    generations: Few = 1
    guide_classes: tuple[str, ...] | None = None
    validation_negatives: str | None = None
    controls: tuple[Control, ...] = ("shuffled", "centre", "pca", "mixed", "dfr")
    dfr_set: str | None = None
    ceiling: bool = True
    budget: Annotated[tuple[Positive, ...], Field(min_length=1)] | None = None
    threshold: Annotated[str, AfterValidator(_rule)] = "eer"
    terms: TermsField = "generic"
    published: Publication | None = None
    training: StudyTraining = StudyTraining()
    store: ConfigPath | None = None

    @model_validator(mode="before")
    @classmethod
    def _fill_from_recipe(cls, values: Any) -> Any:
        if not (isinstance(values, dict) and values.get("recipe") == "recommended"):
            return values
        training = values.get("training", {})
        if isinstance(training, StudyTraining):
            training = {name: getattr(training, name) for name in training.model_fields_set}
        if isinstance(training, Mapping):
            if training.get("recipe") is not None:
                raise ValueError("recipe: recommended and training.recipe are two; remove one")
            training = RECOMMENDED_TRAINING | dict(training)
        return RECOMMENDED | values | {"training": training}

    @model_validator(mode="after")
    def _consistent(self) -> StudyConfig:
        if wrong := _problems(self):
            raise ValueError("\n".join(wrong))
        return self

    @property
    def seed_list(self) -> tuple[int, ...]:
        """All seeds."""
        return tuple(range(self.seeds)) if isinstance(self.seeds, int) else self.seeds

    @property
    def budgets(self) -> tuple[int, ...]:
        """Numbers of annotated images to compare, in increasing order."""
        return tuple(sorted(self.budget or ()))

    def by_domain(self) -> dict[str, StudyConfig]:
        """Config of each domain with its manifest; the config itself under "" without domains."""
        if not self.domains:
            return {"": self}
        own = {
            name: {"manifest": domain.manifest, "primary": domain.primary or self.primary}
            for name, domain in self.domains.items()
        }
        return {
            name: self.model_copy(update={"domains": {}, **changes})
            for name, changes in own.items()
        }

    def store_of(self, out: Path) -> Path:
        """Folder of runs and map stores of a study folder."""
        return (self.store or out / "store").absolute()

    @property
    def draws(self) -> bool:
        """Whether every seed has its own manifest."""
        return "{seed}" in str(self.manifest)

    def manifest_of(self, seed: int) -> Path:
        """Manifest of a seed, in a study without domains."""
        assert self.manifest is not None, "a study of several domains has several manifests"
        return Path(str(self.manifest).replace("{seed}", str(seed)))

    @property
    def rise(self) -> RiseSettings:
        """Settings of RISE; a rehearsal with few masks takes maps as noisy as they are then."""
        fewer = max(1.0, 1000 / self.rise_masks)  # 1 − correlation falls with 1 / masks
        tolerance = round(min(0.9, RiseSettings().tolerance * fewer), 4)
        return RiseSettings(max_masks=self.rise_masks, tolerance=tolerance)

    @property
    def alpha_grid(self) -> tuple[float, ...]:
        """α grid of Students, Baseline 1, controls and ceiling."""
        return self.alphas or default_alphas(self.training.distance)

    @property
    def first_guidance(self) -> str:
        """The first way of guiding; "" = the training settings of the study."""
        return next(iter(self.guidances), "")

    @property
    def settings(self) -> tuple[Setting, ...]:
        """Settings to choose from in guided runs: every way of guiding with every α of its grid."""
        grids = {name: way.alpha_grid(self) for name, way in self.guidances.items()}
        return tuple(
            Setting(alpha, name, steps)
            for name, grid in (grids or {"": self.alpha_grid}).items()
            for alpha in grid
            for steps in self.lengths
        )

    @property
    def lengths(self) -> tuple[int, ...]:
        """Training lengths to choose from, in steps; (0,) if there is one."""
        lengths = self.training.lengths
        return lengths if len(lengths) > 1 else (0,)

    @property
    def paper_setting(self) -> Setting:
        """The first way of guiding at the paper's α."""
        return Setting(PAPER_ALPHA, self.first_guidance, self.lengths[-1])

    @property
    def baseline_settings(self) -> tuple[Setting, ...]:
        """Settings of Baseline 1: those of guided runs and the paper's."""
        if self.paper_setting in self.settings:
            return self.settings
        grid = (*self.settings, self.paper_setting)
        return grid if self.guidances else tuple(sorted(grid))

    @property
    def plain_settings(self) -> tuple[Setting, ...]:
        """Settings of runs without guidance, one for each length."""
        return tuple(Setting(1.0, self.first_guidance, steps) for steps in self.lengths)

    @property
    def starts_from_mapper(self) -> bool:
        """Whether baselines and Students are also trained from the weights of a mapper."""
        return self.mapper == "start"

    @property
    def probe_alpha(self) -> float:
        """0.1 if the first way of guiding has it, else its first α."""
        grid = [one.alpha for one in self.probe_grid]
        return 0.1 if 0.1 in grid else grid[0]

    @property
    def probe_grid(self) -> list[Setting]:
        """Settings of the first way with the largest length."""
        first, longest = self.first_guidance, self.lengths[-1]
        return [one for one in self.settings if (one.guidance, one.steps) == (first, longest)]

    @property
    def probe_settings(self) -> tuple[Setting, ...]:
        """Settings of the Students by which Teachers are compared: up to three of the first way."""
        own = self.probe_grid
        if len(own) <= 3:
            return tuple(own)
        ordered = sorted(own)
        kept = {ordered[0], replace(ordered[0], alpha=self.probe_alpha), ordered[-1]}
        others = [one for one in ordered if one not in kept]
        if len(kept) < 3:
            kept.add(others[(len(others) - 1) // 2])
        return tuple(one for one in own if one in kept)

    @property
    def backbone_names(self) -> tuple[str, ...]:
        """All distinct backbones, those of the Teachers first."""
        return tuple(dict.fromkeys([*self.teachers, *self.students]))


def _problems(study: StudyConfig) -> list[str]:
    """Settings that contradict each other, in one line each with a remedy."""
    wrong: list[str] = []
    if isinstance(study.seeds, int) and study.seeds > MOST_SEEDS:
        return [
            f"seeds: {study.seeds:,} is above the maximum of {MOST_SEEDS:,}; for one seed with "
            f"this number write [{study.seeds}]"
        ]
    if isinstance(study.training, Training):
        wrong.append("training: it has settings of a single run; give the settings as a dictionary")
    if (study.manifest is None) == (not study.domains):
        wrong.append("exactly one of manifest and domains is needed; set one of them")
    for key, names in (("domains", study.domains), ("guidances", study.guidances)):
        wrong += [  # part of a file name or a title
            f"{key}: {name!r} is not a valid name; use letters, digits, blanks, . and -"
            for name in names
            if re.fullmatch(r"[^\W_][\w .-]*", name) is None
        ]
    if not (study.teacher_alphas or study.data_driven or study.mapper or study.maps):
        wrong.append("teacher_alphas is empty, and there is no other Teacher; name an α")
    if study.annotated_per_seed and study.annotated is None:
        wrong.append("annotated_per_seed needs annotated, the number of images to draw; add it")
    if study.dfr_set is not None and "dfr" not in study.controls:
        wrong.append("dfr_set is the validation set of the control dfr; add dfr to controls")
    if "cells" in study.saliency:
        wrong.append("saliency: cells are the maps of a mapper; set mapper: true instead")
    for name, way in study.guidances.items():
        try:
            Training.model_validate(way.training(study.training.of_run()).model_dump())
        except ValidationError as error:
            what = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
            wrong.append(f"guidances.{name}: {what}")
    lists: dict[str, Sequence[object]] = {
        "teachers": study.teachers,
        "students": study.students,
        "seeds": study.seed_list,
        "alphas": study.alphas or (),
        "teacher_alphas": study.teacher_alphas,
        "saliency": study.saliency,
        "controls": study.controls,
        "budget": study.budget or (),
    }
    lists |= {f"guidances.{name}.alphas": way.alphas or () for name, way in study.guidances.items()}
    wrong += [
        f"{name} has duplicate values: {list(values)}; remove one"
        for name, values in lists.items()
        if len(set(values)) != len(values)
    ]
    backbones = set(study.backbone_names)
    unknown = ({*study.backbone_args} | {*study.backbones}) - backbones
    if not isinstance(study.weights, str):
        unknown |= set(study.weights) - backbones
        if missing := sorted(backbones - set(study.weights)):
            without = ", ".join(missing)
            wrong.append(
                f"weights: missing for {without} of teachers or students; add hub, none or a file"
            )
    if unknown:
        wrong.append(
            "backbone_args, backbones or weights name backbones that are not used: "
            f"{', '.join(sorted(unknown))}; remove them, or add the backbones to a list"
        )
    return wrong
