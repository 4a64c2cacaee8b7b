"""Steps of a study: what is computed, and which other steps it needs.

A step has an id that is equal for equal work in any study, so that results are shared between
studies with one store. What a step computes is one of the classes `Train`, `MakeMaps`, `JoinMaps`,
`AverageMaps`, `Evaluate` and `Select`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from preceptor.config.maps import Method, RiseSettings
from preceptor.config.run import RunConfig
from preceptor.inference.shards import Shard
from preceptor.study.setting import Setting

Kind = Literal["train", "shard", "maps", "committee", "evaluate", "select"]

Role = Literal[
    "baseline1",
    "baseline2",
    "teacher",
    "student",
    "ceiling",
    "shuffled",
    "centre",
    "pca",
    "shuffled_human",
    "distilled",
    "mixed",
    "masked",
    "dfr",
    "variant",
    "control",
    "member",
    "generation",
    "mapper",
    "mapper_all",
]
"""Roles of a run: the rows of the paper's table, the controls, the variants, `control` for the
controls of plugins, and the Teachers that stand in no table (a committee's further members,
Teachers of later generations). A mapper, taught maps alone, is a Teacher and, by its highest cells,
a detector: of A, or of all human maps."""


@dataclass(frozen=True)
class Arm:
    """Arm of a study: the role of a run and what distinguishes it within the role.

    Args:
        role: Role of the run.
        backbone: Backbone of the model.
        alpha: α of the loss; 1 without guidance.
        teacher: Teacher configuration whose maps guide, as text; "" without a Teacher.
        variant: Name of the variant or of the plugin, for the roles variant and control.
        generation: Generation of the Teacher (2 and up), for the role generation.
        annotated: Number of annotated images, for runs of an annotation budget; None = the
            study's own number.
        guidance: Way of guiding, see `StudyConfig.guidances`; "" = the study's own settings.
        start: Source of the initial weights: "" = the study's weights, mapper = a mapper of the
            same backbone and seed.
    """

    role: Role
    backbone: str
    alpha: float
    teacher: str = ""
    variant: str = ""
    generation: int = 0
    annotated: int | None = None
    guidance: str = ""
    start: Literal["", "mapper"] = ""

    @classmethod
    def of_setting(
        cls, role: Role, backbone: str, setting: Setting, teacher: object | None = None
    ) -> Arm:
        """Arm of a role and a setting; a Teacher configuration is kept as text."""
        name = "" if teacher is None else str(teacher)
        return cls(role, backbone, setting.alpha, name, guidance=setting.guidance)

    @property
    def setting(self) -> Setting:
        """α and way of guiding."""
        return Setting(self.alpha, self.guidance)

    @property
    def label(self) -> str:
        """Role, variant, generation, start and budget as one text, as tables write them.

        Example:
            >>> Arm("student", "densenet121", 0.5, annotated=50).label
            'student @ 50'
            >>> Arm("variant", "densenet121", 0.5, variant="blur").label
            'variant blur'
        """
        name: str = self.role
        if self.role in ("variant", "control"):
            name = f"{self.role} {self.variant}"
        elif self.role == "generation":
            name = f"generation {self.generation}"
        if self.start:
            name = f"{name} from {self.start}"
        return name if self.annotated is None else f"{name} @ {self.annotated}"


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


@dataclass(frozen=True, order=True)
class Selection:
    """Identifier of a selection: the Teacher of a domain, or the α of a role and backbone.

    Args:
        domain: Domain, or "" in a study without domains.
        role: Role whose α is chosen; teacher for the choice among Teachers.
        backbone: Backbone whose α is chosen; "" for the choice among Teachers.
        seeds: Number of seeds after which candidates are dropped; 0 for the selection itself.
        annotated: Number of annotated images of an annotation budget; 0 = the study's own number.
    """

    domain: str
    role: Role
    backbone: str = ""
    seeds: int = 0
    annotated: int = 0

    @property
    def label(self) -> str:
        """Role, with the number of annotated images of a budget, as in `Arm.label`."""
        return f"{self.role} @ {self.annotated}" if self.annotated else self.role

    @property
    def name(self) -> str:
        """Name of the selection within its domain, as `selection.json` writes it."""
        name = f"{self.label}:{self.backbone}" if self.backbone else self.role
        return f"{name}:{self.seeds} seeds" if self.seeds else name

    @property
    def step_id(self) -> str:
        """Id of the step that makes the selection."""
        return f"select:{self.domain}:{self.name}"


@dataclass(frozen=True, order=True)
class Look:
    """Identifier of a look at the primary comparisons, after which a study may stop.

    Args:
        domain: Domain, or "" in a study without domains.
        seeds: Number of seeds.
    """

    domain: str
    seeds: int

    @property
    def step_id(self) -> str:
        """Id of the step that looks."""
        return f"look:{self.domain}:{self.seeds} seeds"


@dataclass(frozen=True)
class Train:
    """Training of one model.

    Args:
        config: Run config.
        arm: Arm of the study that the run belongs to. Equal runs of two arms are one step.
    """

    config: RunConfig
    arm: Arm
    kind: ClassVar[Kind] = "train"
    verb: ClassVar[str] = "train"


@dataclass(frozen=True)
class MakeMaps:
    """Saliency maps of one shard of images by a trained model.

    Args:
        config: Run config of the model: manifest, threads, device and precision.
        run: Run id of the model, or its digest outside of a study.
        method: cam, rise or cells.
        rise: Settings of RISE.
        shard: Images.
        joined: Id of the step that joins the shards; "" where one shard holds all images.
        model: Model folder; None = the folder of the run in the store.
        decision: Whether the maps of cam are decision maps.
    """

    config: RunConfig
    run: str
    method: Method
    rise: RiseSettings | None
    shard: Shard
    joined: str = ""
    model: Path | None = None
    decision: bool = False
    verb: ClassVar[str] = "make maps by"

    @property
    def kind(self) -> Kind:
        """shard or maps."""
        return "shard" if self.joined else "maps"


@dataclass(frozen=True)
class JoinMaps:
    """One map store from the shards of a model's maps.

    Args:
        shards: Shards, in the order in which they are joined.
    """

    shards: tuple[Shard, ...]
    kind: ClassVar[Kind] = "maps"
    verb: ClassVar[str] = "make maps by"


@dataclass(frozen=True)
class AverageMaps:
    """Mean map of a committee of Teachers.

    Args:
        stores: Ids of the steps that made the map stores.
    """

    stores: tuple[str, ...]
    kind: ClassVar[Kind] = "committee"
    verb: ClassVar[str] = "average maps of"


@dataclass(frozen=True)
class Evaluate:
    """Scores of a trained model on the test sets.

    Args:
        config: Run config of the model.
        run: Run id of the model.
    """

    config: RunConfig
    run: str
    kind: ClassVar[Kind] = "evaluate"
    verb: ClassVar[str] = "score test sets of"


@dataclass(frozen=True)
class Select:
    """Selection on validation scores, or the decision whether further seeds are run.

    Args:
        selection: Identifier of the selection or of the look.
        choose: Makes the choice and returns the steps that follow from it.
    """

    selection: Selection | Look
    choose: Callable[[], list[Step]] = field(compare=False)
    kind: ClassVar[Kind] = "select"
    verb: ClassVar[str] = "choose"


Work = Train | MakeMaps | JoinMaps | AverageMaps | Evaluate | Select

STEP_FOLDERS: dict[Kind, str] = {
    "train": "runs",
    "shard": "shards",
    "maps": "maps",
    "committee": "maps",
    "evaluate": "evaluations",
    "select": "",
}
"""Folder of a store that holds the results of steps of a kind."""


@dataclass(frozen=True)
class Step:
    """One step of a study.

    Args:
        id: Identifier, equal for equal work in any study.
        work: Work of the step.
        name: Name of the object of the step: a run, a Teacher, a selection.
        needs: Ids of the steps that come first.
        cost: Images that pass a model forward and backward; for order and time estimates.
    """

    id: str
    work: Work
    name: str
    needs: tuple[str, ...] = ()
    cost: float = 0.0

    @property
    def kind(self) -> Kind:
        """Kind of the work."""
        return self.work.kind

    @property
    def title(self) -> str:
        """Title: the kind of work and the name."""
        return f"{self.work.verb} {self.name}"

    @property
    def config(self) -> RunConfig | None:
        """Run config of the model that is trained or used; None for a step without a model."""
        return self.work.config if isinstance(self.work, Train | MakeMaps | Evaluate) else None

    def folder(self, store: Path) -> Path:
        """Folder in a store that receives the step's result."""
        return store / STEP_FOLDERS[self.kind] / self.id


@dataclass(frozen=True)
class Failure:
    """Failure of a step.

    Args:
        kind: Kind of the step.
        title: Title of the step, for people; several steps may have the same.
        reason: Reason, in one line.
        blocked: Whether the step was not started because a step that it needs failed.
    """

    kind: Kind
    title: str
    reason: str
    blocked: bool = False
