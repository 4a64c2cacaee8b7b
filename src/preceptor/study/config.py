"""Config of a study: the protocol."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from preceptor.config.maps import PCA_COMPONENTS, Method, RiseSettings
from preceptor.config.network import NetworkFactory
from preceptor.config.paths import ConfigPath, Weights
from preceptor.config.settings import Amount, Few
from preceptor.config.training import Speed, Training
from preceptor.errors import InputError
from preceptor.evaluation.operating_points import Field as TermsField
from preceptor.evaluation.operating_points import normal_rule
from preceptor.evaluation.paired_tests import RELEVANT_DIFFERENCE
from preceptor.study.alphas import PAPER_ALPHA, Alpha, default_alphas
from preceptor.study.config_problems import (
    backbone_problems,
    dfr_problems,
    duplicate_problems,
    guidance_problems,
    mapper_problems,
    name_problems,
    saliency_problems,
    variant_problems,
)
from preceptor.study.controls import ControlName
from preceptor.study.domain import Domain, Sizes
from preceptor.study.options import Guidance, GuidanceConfig, MapperSetting, Variant
from preceptor.study.recommended import with_recommended
from preceptor.study.seeds import AutoSeeds, Seeds, every_seed, seed_problems, selection_rungs
from preceptor.study.setting import Setting
from preceptor.study.setting_grids import (
    compared_settings,
    guided_settings,
    plain_settings,
    probe_alpha,
)

Publication = Literal["teaching-ai-to-teach"]
"""Publication whose results a report can show beside its own."""


def _rule(rule: str) -> str:
    """Threshold rule in its canonical spelling."""
    try:
        return normal_rule(rule)
    except InputError as error:
        raise ValueError(str(error)) from error


class StudyConfig(GuidanceConfig):
    """Config of a study: baselines, Teachers, Students, controls, seeds and selection.

    Args:
        recipe: recommended (the settings of `preceptor.study.recommended` for all settings of the
            method that are not given), or None = the defaults, which follow the paper.
        manifest: Path of the manifest. With `{seed}` in the path, every seed has its own manifest,
            so that seeds are draws of the data (without common images) and intervals are over them.
        domains: Several manifests instead of `manifest`: name → manifest and settings that differ.
            The protocol runs on each separately; the tested family includes all of them.
        positive: Class whose probability is the score; required for two classes.
        primary: Evaluation set of the hypothesis tests; None = the first test set.
        teachers: Backbones of the Teachers.
        students: Backbones of the Students, baselines and ceiling.
        weights: Initial weights for all backbones or by backbone: hub, none or a file.
        backbone_args: Further arguments by backbone.
        backbones: Networks from outside timm, by the names of `teachers` and `students`.
        seeds: Number of seeds (0, 1, …), a list of seeds, or auto: as many as are needed for
            narrow intervals of the primary comparisons, see `SeedLooks`.
        annotated: Number or fraction of the annotated images that are used, see `RunConfig`.
        annotated_seed: Random seed of the subset of annotated images.
        annotated_per_seed: Draw a new subset for each seed.
        alphas: α grid of Students, Baseline 1, controls and ceiling; None = the default grid of the
            distance.
        guidances: Ways of guiding to choose from: name → settings of the loss that differ from
            `training`. Students, Baseline 1, controls and ceiling each get the way and the α with
            the highest AUC on validation; runs without guidance the pooling. Teachers and probe
            Students are trained with `training` and the first way. Empty = `training` only.
        teacher_alphas: α grid of the human-guided Teachers.
        data_driven: Also train Teachers without guidance.
        mapper: Also train Teachers on the maps alone; true = with the default settings.
        maps: Teachers without training: name → folder of maps or map store.
        saliency: Saliency methods of the Teachers: cam, rise, plugins' names, or several of these.
        excluded_teachers: Teachers that are no candidates, such as "densenet121 data-driven, RISE":
            one that cannot be trained or has maps of noise would otherwise block the choice.
        rise: Settings of RISE.
        probe: Student backbone of stage 1, by which Teachers are compared at up to three α of the
            grid; None = the first.
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
            mean color outside the human map, or the Teacher's where there is none), dfr (Baseline 2
            with its last layer trained again on the validation set `dfr_set`: deep feature
            reweighting), or plugins' names, whose runs have the setting of the Students.
        dfr_set: Validation set of the control dfr, whose labels that control sees: one without the
            shortcuts of the training images.
        pca_components: Number of principal components of the control pca.
        controls_alpha: own (each control is trained at every α of the Student's grid and selected
            by the Student's rule) or student (at the α selected for the Student, which is optimal
            for the Teacher's maps but not for the control's; fewer trainings).
        variants: Students that differ from the study's own in some settings: name → settings.
        ceiling: Train on all images with all available human maps.
        budget: Numbers of annotated images at which Baseline 1, the selected Teacher, its Student
            and a mapper, if any, are trained again, with a new draw for every seed.
        relevant_difference: Smallest relevant difference in AUC: of equivalence, and of budgets.
        threshold: Rule of the decision threshold of each model on its validation scores: eer or
            fdr=x, see `fixed_threshold`.
        terms: Names of the error rates: pad, medical or generic.
        published: Publication of results on the same data, which the report shows beside those of
            the study; None = none.
        training: Training settings; precision and channels_last may be auto.
        speed: Values of settings that are auto, by backbone; chosen by a probe at the start.
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
    backbones: Mapping[str, NetworkFactory] = {}
    seeds: Seeds = 3
    annotated: Amount | None = None
    annotated_seed: Annotated[int, Field(ge=0)] = 0
    annotated_per_seed: bool = False
    alphas: Annotated[tuple[Alpha, ...], Field(min_length=1)] | None = None
    guidances: Mapping[str, Guidance] = {}
    teacher_alphas: Annotated[tuple[Alpha, ...], Field(min_length=1)] = (PAPER_ALPHA,)
    data_driven: bool = True
    mapper: MapperSetting = None
    maps: Mapping[str, ConfigPath] = {}
    saliency: Annotated[tuple[Method, ...], Field(min_length=1)] = ("cam",)
    excluded_teachers: tuple[str, ...] = ()
    rise: RiseSettings = RiseSettings()
    probe: str | None = None
    selection: Literal["highest", "guided", "val_auc"] = "highest"
    search: Literal["grid", "racing", "halving"] = "grid"
    validation_negatives: str | None = None
    controls: tuple[ControlName, ...] = ("shuffled", "centre", "pca", "distilled", "mixed")
    dfr_set: str | None = None
    pca_components: Few = PCA_COMPONENTS
    controls_alpha: Literal["own", "student"] = "own"
    variants: Mapping[str, Variant] = {}
    ceiling: bool = True
    budget: Sizes | None = None
    relevant_difference: Annotated[float, Field(gt=0, lt=1)] = RELEVANT_DIFFERENCE
    threshold: Annotated[str, AfterValidator(_rule)] = "eer"
    terms: TermsField = "generic"
    published: Publication | None = None
    training: Training = Training()
    speed: Mapping[str, Speed] = {}
    store: ConfigPath | None = None

    @model_validator(mode="before")
    @classmethod
    def _fill_from_recipe(cls, values: Any) -> Any:
        chosen = isinstance(values, dict) and values.get("recipe") == "recommended"
        return with_recommended(values) if chosen else values

    @model_validator(mode="after")
    def _consistent(self) -> StudyConfig:
        if found := seed_problems(self.seeds):
            raise ValueError("\n".join(found))
        wrong: list[str] = []
        if (self.manifest is None) == (not self.domains):
            wrong.append("exactly one of manifest and domains is needed; set one of them")
        wrong += name_problems("domains", self.domains)
        if self.probe is not None and self.probe not in self.students:
            wrong.append(f"probe {self.probe} is not among the students; name one of them")
        if self.mapper is not None and self.manifest is not None:
            wrong += mapper_problems(self.positive)
        wrong += dfr_problems(self.controls, self.dfr_set, self.mean_setting)
        wrong += guidance_problems(self.guidances, self.training)
        wrong += variant_problems(self.variants, self.training, self.guiding)
        wrong += duplicate_problems(
            {
                "teachers": self.teachers,
                "students": self.students,
                "seeds": self.seed_list,
                "alphas": self.alpha_grid,
                "teacher_alphas": self.teacher_alphas,
                "saliency": self.saliency,
                "controls": self.controls,
                "budget": self.budget or (),
            }
            | {f"guidances.{name}.alphas": way.alphas or () for name, way in self.guidances.items()}
            | {f"domains.{name}.budget": one.budget or () for name, one in self.domains.items()}
        )
        wrong += saliency_problems(self.saliency)
        wrong += backbone_problems(
            {*self.teachers, *self.students},
            self.weights,
            {*self.backbone_args},
            {*self.backbones},
            {*self.speed},
        )
        if wrong:
            raise ValueError("\n".join(wrong))
        return self

    @property
    def seed_list(self) -> tuple[int, ...]:
        """All seeds, for `auto` up to the limit."""
        return every_seed(self.seeds)

    @property
    def looks(self) -> tuple[int, ...]:
        """Numbers of seeds after which a study may stop; () if the number of seeds is fixed."""
        return self.seeds.auto.looks if isinstance(self.seeds, AutoSeeds) else ()

    @property
    def first_seeds(self) -> tuple[int, ...]:
        """Seeds of all selections: those of the first look, or all if their number is fixed."""
        return self.seed_list[: self.looks[0]] if self.looks else self.seed_list

    @property
    def rungs(self) -> tuple[int, ...]:
        """Numbers of seeds after which the candidates of a selection are compared."""
        return selection_rungs(len(self.first_seeds), all_at_once=self.search == "grid")

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

    def guiding(self, variant: Variant | None = None) -> GuidanceConfig:
        """Options of the method of the study, or of a variant."""
        own = {name: getattr(self, name) for name in GuidanceConfig.model_fields}
        return GuidanceConfig.model_validate(own | (variant.changes() if variant else {}))

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
        return guided_settings(self.guidances, self.alpha_grid)

    @property
    def paper_setting(self) -> Setting:
        """The first way of guiding at the paper's α."""
        return Setting(PAPER_ALPHA, self.first_guidance)

    @property
    def baseline_settings(self) -> tuple[Setting, ...]:
        """Settings of Baseline 1: those of guided runs and the paper's."""
        if self.paper_setting in self.settings:
            return self.settings
        grid = (*self.settings, self.paper_setting)
        return grid if self.guidances else tuple(sorted(grid))

    @property
    def plain_settings(self) -> tuple[Setting, ...]:
        """Settings to choose from in runs without guidance: one for each pooling."""
        return plain_settings(self.guidances, self.training)

    @property
    def starts_from_mapper(self) -> bool:
        """Whether baselines and Students are also trained from the weights of a mapper."""
        return self.mapper is not None and self.mapper.start

    @property
    def mean_setting(self) -> Setting | None:
        """Setting without guidance whose pooling is the mean; None if there is none."""
        for setting in self.plain_settings:
            way = self.guidances.get(setting.guidance)
            if (way.training(self.training) if way else self.training).pool == "mean":
                return setting
        return None

    @property
    def probe_backbone(self) -> str:
        """Backbone of the Students by which Teachers are compared (RQ1)."""
        return self.probe or self.students[0]

    @property
    def probe_alpha(self) -> float:
        """α of a further generation of a Teacher without an α of its own."""
        return probe_alpha(self.settings, self.first_guidance)

    @property
    def probe_settings(self) -> tuple[Setting, ...]:
        """Settings of the Students by which Teachers are compared, see `compared_settings`."""
        return compared_settings(self.settings, self.first_guidance)

    @property
    def backbone_names(self) -> tuple[str, ...]:
        """All distinct backbones, those of the Teachers first."""
        return tuple(dict.fromkeys([*self.teachers, *self.students]))
