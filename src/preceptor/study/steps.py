"""Steps of a study: what is computed, and which other steps it needs.

A step has an id that is equal for equal work in any study, so that results are shared between
studies with one store. What a step computes is one of the classes `Train`, `MakeMaps`, `JoinMaps`,
`Evaluate` and `Select`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from preceptor.config.maps import Method, RiseSettings
from preceptor.config.run import RunConfig
from preceptor.inference.shards import Shard
from preceptor.study.config import Setting
from preceptor.utils.results import checksum, is_finished, read_record

_WEIGHTS = "weights"  # entry of a record: checksum of the weights by run id
_FILE = "model/model.safetensors"

Kind = Literal["train", "shard", "maps", "evaluate", "select"]

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
    "mixed",
    "masked",
    "dfr",
    "control",
    "generation",
    "mapper",
    "mapper_all",
]
"""Roles of a run: the rows of the paper's table, the controls, `control` for the controls of
plugins, and the Teachers of later generations, which stand in no table. A mapper, taught maps
alone, is a Teacher and, by its highest cells, a detector: of A, or of all human maps."""


@dataclass(frozen=True)
class Arm:
    """Arm of a study: the role of a run and what distinguishes it within the role.

    Args:
        role: Role of the run.
        backbone: Backbone of the model.
        alpha: α of the loss; 1 without guidance.
        teacher: Teacher configuration whose maps guide, as text; "" without a Teacher.
        plugin: Name of the plugin, for the role control.
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
    plugin: str = ""
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
        """Role, plugin, generation, start and budget as one text, as tables write them.

        Example:
            >>> Arm("student", "densenet121", 0.5, annotated=50).label
            'student @ 50'
        """
        name: str = self.role
        if self.role == "control":
            name = f"{self.role} {self.plugin}"
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
        annotated: Number of annotated images of an annotation budget; 0 = the study's own number.
    """

    domain: str
    role: Role
    backbone: str = ""
    annotated: int = 0

    @property
    def label(self) -> str:
        """Role, with the number of annotated images of a budget, as in `Arm.label`."""
        return f"{self.role} @ {self.annotated}" if self.annotated else self.role

    @property
    def name(self) -> str:
        """Name of the selection within its domain, as `selection.json` writes it."""
        return f"{self.label}:{self.backbone}" if self.backbone else self.role

    @property
    def step_id(self) -> str:
        """Id of the step that makes the selection."""
        return f"select:{self.domain}:{self.name}"


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
    """Selection on validation scores.

    Args:
        selection: Identifier of the selection.
        choose: Makes the choice and returns the steps that follow from it.
    """

    selection: Selection
    choose: Callable[[], list[Step]] = field(compare=False)
    kind: ClassVar[Kind] = "select"
    verb: ClassVar[str] = "choose"


Work = Train | MakeMaps | JoinMaps | Evaluate | Select

STEP_FOLDERS: dict[Kind, str] = {
    "train": "runs",
    "shard": "shards",
    "maps": "maps",
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


def map_steps(
    work: MakeMaps,
    shards: tuple[Shard, ...],
    identity: str,
    name: str,
    needs: tuple[str, ...],
    cost: float,
    *,
    join_one: bool = False,
) -> list[Step]:
    """Steps that make the maps of a model: one, or one for each shard and one that joins them.

    Args:
        work: The work; its shard and `joined` are replaced.
        shards: All shards.
        identity: Id of the step that leaves the map store.
        name: Name of the model.
        needs: Ids of the steps that come first.
        cost: Cost of an image.
        join_one: Whether a single shard has a step of its own beside the join.
    """
    if len(shards) == 1 and not join_one:
        (only,) = shards
        whole = replace(work, shard=only, joined="")
        return [Step(identity, whole, name, needs, cost=(only.stop - only.start) * cost)]
    made = [
        Step(
            shard_id(identity, place),
            replace(work, shard=shard, joined=identity),
            f"{name}, shard {place + 1} of {len(shards)}",
            needs,
            cost=(shard.stop - shard.start) * cost,
        )
        for place, shard in enumerate(shards)
    ]
    needs = (*needs, *(step.id for step in made))
    return [*made, Step(identity, JoinMaps(shards), name, needs)]


def shard_id(joined: str, place: int) -> str:
    """Id of the step that makes the maps of one shard."""
    return f"{joined}-{place:05d}"


def used_weights(store: Path, runs: Iterable[str]) -> dict[str, dict[str, str]]:
    """Part of a record: the weights of the runs that a step uses.

    Args:
        store: Folder of runs, maps and evaluations.
        runs: Ids of finished runs.
    """
    return {_WEIGHTS: {run: checksum(_run(store, run), _FILE) for run in runs}}


def joined_weights(records: Iterable[dict[str, Any]]) -> dict[str, dict[str, str]]:
    """Part of a record: the weights of all records from which a step makes its result."""
    found: dict[str, str] = {}
    for record in records:
        found |= record.get(_WEIGHTS, {})
    return {_WEIGHTS: found}


def trained_again(folder: Path, store: Path) -> list[str]:
    """Runs that have other weights now than those with which a result was made.

    Weights that are unknown are not compared: those of a run that has not finished, of a run in an
    archive, and of a result of an earlier version.

    Args:
        folder: Folder of a finished evaluation or map store.
        store: Folder of runs, maps and evaluations.
    """
    found = []
    for run, before in read_record(folder).get(_WEIGHTS, {}).items():
        if before and is_finished(_run(store, run)):
            now = checksum(_run(store, run), _FILE)
            if now and now != before:
                found.append(run)
    return found


def _run(store: Path, run: str) -> Path:
    return store / STEP_FOLDERS["train"] / run
