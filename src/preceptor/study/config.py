"""Every setting of a study, frozen and checked: the protocol, and the levers of the method."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError, model_validator

from preceptor.config.paths import ConfigPath, Weights
from preceptor.config.run import (
    Amount,
    Distance,
    Few,
    Fraction,
    Method,
    Positive,
    PostProcessing,
    RiseSettings,
    RunConfig,
    Settings,
    Speed,
    Training,
    Trust,
)
from preceptor.errors import InputError
from preceptor.evaluation.operating_points import normal_rule
from preceptor.evaluation.terms import Field as TermsField

# α grids by distance, so that (1 − α) ÷ α times the pull covers about what l2's grid covers. Median
# pull ÷ l2's at typical maps of 10 × 10 to 6 × 6 cells (benchmarks/distance_pull.py): mse 0.10 to
# 0.17, l1 0.10 to 0.17, dice 0.12 to 0.21, kl 0.6 to 1.0. Hence the grid of l1 and dice acts like
# l2 at about 0.01, 0.05, 0.1, 0.25, 0.4 and 0.9, and kl has l2's own. All hold 0.1, for probes.
ALPHA_GRIDS: dict[Distance, tuple[float, ...]] = {
    "l2": (0.01, 0.05, 0.1, 0.25, 0.5, 0.9),
    "mse": (0.01, 0.1, 0.5),
    "l1": (0.0015, 0.0075, 0.015, 0.05, 0.1, 0.5),
    "kl": (0.01, 0.05, 0.1, 0.25, 0.5, 0.9),
    "dice": (0.0015, 0.0075, 0.015, 0.05, 0.1, 0.5),
}
PAPER_ALPHA = 0.5
# A typing error must not become a plan of more steps than memory holds.
MOST_SEEDS = 1_000
Alpha = Annotated[float, Field(ge=0, lt=1)]
Sizes = Annotated[tuple[Positive, ...], Field(min_length=1)]
Control = Literal["shuffled", "centre", "distilled", "mixed"]
# Temperature of soft labels, as in the paper that introduced them, where it was 1 to 20.
SOFT_TEMPERATURE = 2.0


def _rule(rule: str) -> str:
    """A threshold rule in its one spelling."""
    try:
        return normal_rule(rule)
    except InputError as error:
        raise ValueError(str(error)) from error


class Guiding(Settings):
    """How a Teacher's maps are made and how they guide a Student: the levers of the method.

    Args:
        teacher_rows: What a human-guided Teacher is trained on: the annotated images, or all of
            them, guided where there is a human map.
        committee: How many Teachers a Student's maps are the mean of: its own seed's, and further
            ones on the same images that differ in their seed alone.
        turns: A Teacher's map is the mean over the eight flips and quarter turns of the image.
        generations: 1: the Teacher's maps guide. 2: they guide a model of the Teacher's backbone
            on all images, and its maps guide; and so on.
        human_maps: On annotated images: replace the human map by the Teacher's, or keep it.
        trust: What a Teacher's map is worth, see `MapSource`.
        guide_classes: Only images of these classes are guided, Teachers included; None = all.
        post: What is done to the Teachers' and given maps that guide Students.
        human_post: What is done to human maps wherever they guide: Baseline 1, human-guided
            Teachers, ceiling, the control mixed, and human maps that Students keep.
        alpha_start: A Student's α at its first step, see `RunConfig`.
        soft_labels: Weight of the Teacher's probabilities in a Student's classification term; 0 =
            labels alone.
    """

    teacher_rows: Literal["annotated", "all"] = "annotated"
    committee: Few = 1
    turns: bool = False
    generations: Few = 1
    human_maps: Literal["replace", "keep"] = "replace"
    trust: Trust = "none"
    guide_classes: tuple[str, ...] | None = None
    post: PostProcessing = PostProcessing()
    human_post: PostProcessing = PostProcessing()
    alpha_start: Fraction | None = None
    soft_labels: Fraction = 0.0

    @model_validator(mode="after")
    def _agreement_of_several(self) -> Guiding:
        if self.trust == "agreement" and self.committee == 1:
            raise ValueError("trust: agreement is that of a committee; set committee to 2 or more")
        return self


class Variant(Settings):
    """What a variant of the Students changes; everything else is as in the study.

    Args:
        teacher_alpha: α of its human-guided Teacher.
        distance: Of the Student's guidance; α is comparable only within one distance.
        alpha: α of the Student; None = the α chosen for the study's own Students.
        human_post: Of the human maps that guide its Teachers, and of those that its Students keep.
        teacher_rows, committee, turns, generations, human_maps, trust, guide_classes, post,
            alpha_start, soft_labels: See `Guiding`.
    """

    teacher_alpha: Alpha | None = None
    distance: Distance | None = None
    alpha: Alpha | None = None
    teacher_rows: Literal["annotated", "all"] | None = None
    committee: Few | None = None
    turns: bool | None = None
    generations: Few | None = None
    human_maps: Literal["replace", "keep"] | None = None
    trust: Trust | None = None
    guide_classes: tuple[str, ...] | None = None
    post: PostProcessing | None = None
    human_post: PostProcessing | None = None
    alpha_start: Fraction | None = None
    soft_labels: Fraction | None = None

    def changes(self) -> dict[str, Any]:
        """The words of `Guiding` that it sets."""
        given = {name: getattr(self, name) for name in Guiding.model_fields}
        return {name: value for name, value in given.items() if value is not None}


class Domain(Settings):
    """One of several tables of images in a study; what it leaves open is as in the study.

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


class StudyConfig(Guiding):
    """The whole protocol: baselines, Teachers, Students, controls, seeds and what decides.

    Args:
        manifest: The table of images; with `{seed}` in its path, a table a seed, so that seeds
            are new draws of the data and intervals are over these draws.
        domains: In the place of `manifest`, several tables: name → manifest and what differs. The
            protocol is run on each by itself; the tested family is over all of them.
        positive: The class whose probability is the score; needed for two classes.
        primary: The evaluation set of the hypothesis tests; None = the first test set.
        teachers: Backbones of the Teachers.
        students: Backbones of the Students, and of baselines and ceiling.
        weights: hub, none or a file, for all backbones or by backbone.
        backbone_args: Further arguments, by backbone.
        seeds: How many (0, 1, …), or a list.
        annotated: How many annotated images there are taken to be, see `RunConfig`.
        annotated_seed: Of that draw.
        annotated_per_seed: Redraw it for each seed.
        alphas: α grid of Students, Baseline 1, controls and ceiling; None = the distance's default
            grid.
        teacher_alphas: α of the human-guided Teachers.
        data_driven: Also train Teachers without guidance.
        maps: Teachers that need no training: name → folder of maps or map store.
        saliency: How Teachers mark: cam (their own guided map), rise, or both.
        rise: How RISE marks.
        plan: staged (choose the Teacher with one probe Student, then train all) or full.
        probe: The Student backbone of stage 1; None = the first.
        probe_alpha: Its α; None = 0.1 if in the grid, else the grid's first.
        selection: highest (AUC on the worst validation set decides), or what decides among those
            that it cannot tell apart: guided (the maps that agree best with human maps of
            validation images) or val_auc (the smaller α).
        validation_negatives: A validation set whose images stand in for the classes that another
            validation set lacks, see `RunConfig`; None = every set must have every class.
        controls: shuffled (the Teacher's maps, permuted within class), centre (one centred map),
            distilled (no maps, the same Teacher's probabilities as soft labels of weight 1 − α),
            mixed (all images, human maps on the annotated ones, no Teacher).
        controls_alpha: own (each control is trained at every α of the Student's grid and chosen by
            the Student's rule) or student (at the α that was chosen for the Student, which suits
            the Teacher's maps and not the control's; fewer trainings).
        variants: Students that differ from the study's own in named words: name → words.
        ceiling: Train on all images with all human maps there are.
        budget: Numbers of annotated images at which Baseline 1, the chosen Teacher and its Student
            are trained again, each drawn anew for every seed: how many are enough?
        budget_gain: The gain in AUC from one of these numbers to the next that is worth having.
        threshold: Where test sets are decided: the rule by which each model's validation scores
            fix its threshold: eer or fdr=x, see `fixed_threshold`.
        terms: What error rates are called: pad, medical or generic.
        training: How every model is trained; precision, channels_last and compile may be auto.
        speed: What stands for auto, by backbone; filled by a probe when the study starts.
        store: Where runs are kept; several studies may share one. None = inside the study.
    """

    manifest: ConfigPath | None = None
    domains: Mapping[str, Domain] = {}
    positive: str | None = None
    primary: str | None = None
    teachers: Annotated[tuple[str, ...], Field(min_length=1)]
    students: Annotated[tuple[str, ...], Field(min_length=1)]
    weights: Weights | Mapping[str, Weights] = "none"
    backbone_args: Mapping[str, Mapping[str, Any]] = {}
    seeds: Positive | Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = 3
    annotated: Amount | None = None
    annotated_seed: Annotated[int, Field(ge=0)] = 0
    annotated_per_seed: bool = False
    alphas: Annotated[tuple[Alpha, ...], Field(min_length=1)] | None = None
    teacher_alphas: Annotated[tuple[Alpha, ...], Field(min_length=1)] = (PAPER_ALPHA,)
    data_driven: bool = True
    maps: Mapping[str, ConfigPath] = {}
    saliency: Annotated[tuple[Method, ...], Field(min_length=1)] = ("cam",)
    rise: RiseSettings = RiseSettings()
    plan: Literal["staged", "full"] = "staged"
    probe: str | None = None
    probe_alpha: Alpha | None = None
    selection: Literal["highest", "guided", "val_auc"] = "highest"
    validation_negatives: str | None = None
    controls: tuple[Control, ...] = ("shuffled", "centre", "distilled", "mixed")
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

    @model_validator(mode="after")
    def _consistent(self) -> StudyConfig:
        if isinstance(self.seeds, int) and self.seeds > MOST_SEEDS:
            raise ValueError(
                f"seeds: {self.seeds:,} are more than the {MOST_SEEDS:,} of a study; for one seed "
                f"of this number write [{self.seeds}]"
            )
        wrong: list[str] = []
        if (self.manifest is None) == (not self.domains):
            wrong.append("a study has one of manifest and domains; name the table, or several")
        for name in self.domains:
            if re.fullmatch(r"[^\W_][\w .-]*", name) is None:
                wrong.append(
                    f"domains: {name!r} is no name; letters, digits, blanks, . and - make one"
                )
        if self.probe is not None and self.probe not in self.students:
            wrong.append(f"probe {self.probe} is not among the students; name one of them")
        for name, variant in self.variants.items():
            try:
                self.guiding(variant)
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
                wrong.append(f"{name} has something twice: {list(values)}; remove one")
        if "rise" in self.saliency:
            turned = ["turns"] if self.turns else []
            turned += [f"variants.{name}.turns" for name, one in self.variants.items() if one.turns]
            wrong += [
                f"{where} goes with cam, and saliency has rise; remove one" for where in turned
            ]
        known = {*self.teachers, *self.students}
        unknown = (set(self.backbone_args) | set(self.speed)) - known
        if not isinstance(self.weights, str):
            unknown |= set(self.weights) - known
            missing = sorted(known - set(self.weights))
            if missing:
                wrong.append(
                    f"weights: none given for {', '.join(missing)}; add hub, none or a file"
                )
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
        """The seeds."""
        return tuple(range(self.seeds)) if isinstance(self.seeds, int) else self.seeds

    @property
    def budgets(self) -> tuple[int, ...]:
        """The numbers of annotated images to compare, rising."""
        return tuple(sorted(self.budget or ()))

    def by_domain(self) -> dict[str, StudyConfig]:
        """A study of one manifest for each domain; itself under "" where it has no domains."""
        if not self.domains:
            return {"": self}
        found = {}
        for name, domain in self.domains.items():
            own = {key: value for key, value in domain if value is not None}
            found[name] = self.model_copy(update={"domains": {}} | own)
        return found

    @property
    def draws(self) -> bool:
        """Whether every seed has a manifest of its own."""
        return "{seed}" in str(self.manifest)

    def manifest_of(self, seed: int) -> Path:
        """The manifest of a seed, of a study without domains."""
        assert self.manifest is not None, "a study of several domains has several manifests"
        return Path(str(self.manifest).replace("{seed}", str(seed)))

    def guiding(self, variant: Variant | None = None) -> Guiding:
        """The study's levers, or a variant's."""
        own = {name: getattr(self, name) for name in Guiding.model_fields}
        return Guiding.model_validate(own | (variant.changes() if variant else {}))

    @property
    def alpha_grid(self) -> tuple[float, ...]:
        """The α grid of Students, Baseline 1, controls and ceiling."""
        return self.alphas or ALPHA_GRIDS[self.training.distance]

    @property
    def probe_backbone(self) -> str:
        """The Student backbone of stage 1."""
        return self.probe or self.students[0]

    @property
    def stage_one_alpha(self) -> float:
        """α of the probe Student."""
        if self.probe_alpha is not None:
            return self.probe_alpha
        return 0.1 if 0.1 in self.alpha_grid else self.alpha_grid[0]

    def training_of(self, backbone: str) -> Training:
        """How a backbone is trained: what was auto is what the probe chose for it."""
        chosen = self.speed.get(backbone)
        if chosen is None:
            return self.training
        free = self.training.left_to_probe
        return self.training.model_copy(update={name: getattr(chosen, name) for name in free})

    def annotated_seed_of(self, seed: int) -> int:
        """The seed of the draw of the annotated images in the runs of a study's seed."""
        return self.annotated_seed + (seed if self.annotated_per_seed else 0)

    def run_config(self, backbone: str, draw: int, **values: object) -> RunConfig:
        """The run config of a backbone and a seed of the study.

        Args:
            backbone: Backbone of the model.
            draw: Seed of the study: of the data and, unless `values` name another, of the training.
            values: What differs from a guided run on all training images.
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
        """A run of a backbone before the probe and on any classes: what is auto is as in `Speed()`,
        and no class is positive.
        """
        training = self.training.without_auto()
        study = next(iter(self.by_domain().values()))
        return study.run_config(backbone, self.seed_list[0], positive=None, training=training)

    @property
    def backbones(self) -> tuple[str, ...]:
        """All backbones, each once: those of the Teachers first."""
        return tuple(dict.fromkeys([*self.teachers, *self.students]))

    def weights_of(self, backbone: str) -> str:
        """hub, none or the file of a backbone."""
        return self.weights if isinstance(self.weights, str) else self.weights[backbone]


def _first_line(error: ValueError) -> str:
    """What a validation error says, without pydantic's frame."""
    if isinstance(error, ValidationError):
        return str(error.errors()[0]["msg"]).removeprefix("Value error, ")
    return str(error)
