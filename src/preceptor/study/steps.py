"""Steps of a study: what is computed, and which other steps it needs; the list of its runs.

A step has an id that is equal for equal work in any study, so that results are shared between
studies with one store. What a step computes is one of the classes `Train`, `MakeMaps`, `JoinMaps`,
`Evaluate` and `Select`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import TypeAdapter

from preceptor.config.run import Method, RiseSettings, RunConfig
from preceptor.inference.annotate import Shard
from preceptor.study.config import Control, Setting
from preceptor.utils.results import (
    checksum,
    is_finished,
    read_record,
    strict_json,
    write_atomically,
)

Kind = Literal["train", "shard", "maps", "evaluate", "select"]

Role = (
    Control
    | Literal["baseline1", "baseline2", "teacher", "student", "student_dfr", "student_repair"]
    | Literal["ceiling", "generation", "mapper", "mapper_all"]
)
"""Roles of a run: the rows of the paper's table, the controls, and the Teachers of later
generations, which have no row. A mapper is a Teacher; its highest cells also make it a detector.
`mapper` is trained on the annotated images A, `mapper_all` on all human maps."""


@dataclass(frozen=True)
class Arm:
    """Arm of a study: the role of a run and what distinguishes it within the role."""

    role: Role
    backbone: str
    alpha: float  # α of the loss; 1 without guidance
    teacher: str = ""  # teacher configuration whose maps guide, as text; "" without a Teacher
    generation: int = 0  # generation of the Teacher (2 and up), for the role generation
    annotated: int | None = None  # number of annotated images, for runs of an annotation budget
    guidance: str = ""  # way of guiding, see `StudyConfig.guidances`; "" = the study's own settings
    steps: int = 0  # one of several training lengths, see `Setting`
    start: Literal["", "mapper"] = ""

    @classmethod
    def of_setting(
        cls, role: Role, backbone: str, setting: Setting, teacher: object | None = None
    ) -> Arm:
        """Arm of a role and a setting; a Teacher configuration is kept as text."""
        name = "" if teacher is None else str(teacher)
        alpha, guidance, steps = setting.alpha, setting.guidance, setting.steps
        return cls(role, backbone, alpha, name, guidance=guidance, steps=steps)

    @property
    def setting(self) -> Setting:
        """α, way of guiding and length."""
        return Setting(self.alpha, self.guidance, self.steps)

    @property
    def label(self) -> str:
        """Role, generation, start and budget as one text, as tables write them."""
        name: str = self.role
        if self.role == "generation":
            name = f"generation {self.generation}"
        if self.start:
            name = f"{name} from {self.start}"
        return name if self.annotated is None else f"{name} @ {self.annotated}"


@dataclass(frozen=True)
class Member:
    """One run of an arm."""

    arm: Arm
    seed: int
    run: str
    manifest: Path  # table of images that the run is trained and tested on


@dataclass(frozen=True, order=True)
class Selection:
    """Identifier of a selection: the Teacher of a domain, or the setting of a role and backbone."""

    domain: str
    role: Role  # role whose setting is chosen; teacher for the choice among Teachers
    backbone: str = ""  # backbone whose setting is chosen; "" for the choice among Teachers
    annotated: int = 0  # number of annotated images of an annotation budget

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
    """Training of one model."""

    config: RunConfig
    arm: Arm
    kind: ClassVar[Kind] = "train"
    verb: ClassVar[str] = "train"


@dataclass(frozen=True)
class MakeMaps:
    """Saliency maps of one shard of images by a trained model."""

    config: RunConfig  # run config of the model: manifest, threads, device and precision
    run: str  # run id of the model
    method: Method
    rise: RiseSettings | None
    shard: Shard
    joined: str = ""  # id of the step that joins the shards; "" where one shard holds all images
    decision: bool = False  # whether the maps of cam are decision maps
    verb: ClassVar[str] = "make maps by"

    @property
    def kind(self) -> Kind:
        """shard or maps."""
        return "shard" if self.joined else "maps"


@dataclass(frozen=True)
class JoinMaps:
    """One map store from the shards of a model's maps."""

    shards: tuple[Shard, ...]  # shards, in the order in which they are joined
    kind: ClassVar[Kind] = "maps"
    verb: ClassVar[str] = "make maps by"


@dataclass(frozen=True)
class Evaluate:
    """Scores of a trained model on the test sets."""

    config: RunConfig
    run: str
    kind: ClassVar[Kind] = "evaluate"
    verb: ClassVar[str] = "score test sets of"


@dataclass(frozen=True)
class Select:
    """Selection on validation scores."""

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
    """One step of a study."""

    id: str  # identifier, equal for equal work in any study
    work: Work
    name: str  # name of the object of the step: a run, a Teacher, a selection
    needs: tuple[str, ...] = ()  # ids of the steps that come first
    cost: float = 0.0  # images that pass a model forward and backward; for order and time estimates

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
    """Failure of a step."""

    kind: Kind
    title: str  # title of the step, for people; several steps may have the same
    reason: str
    blocked: bool = False  # whether the step was not started because a step that it needs failed


def map_steps(
    work: MakeMaps,
    shards: tuple[Shard, ...],
    identity: str,
    name: str,
    needs: tuple[str, ...],
    cost: float,
) -> list[Step]:
    """Steps that make the maps of a model: one, or one for each shard and one that joins them."""
    if len(shards) == 1:
        (only,) = shards
        whole = replace(work, shard=only, joined="")
        return [Step(identity, whole, name, needs, cost=(only.stop - only.start) * cost)]
    made = [
        Step(
            shard_id(identity, number),
            replace(work, shard=shard, joined=identity),
            f"{name}, shard {number + 1} of {len(shards)}",
            needs,
            cost=(shard.stop - shard.start) * cost,
        )
        for number, shard in enumerate(shards)
    ]
    needs = (*needs, *(step.id for step in made))
    return [*made, Step(identity, JoinMaps(shards), name, needs)]


def shard_id(joined: str, number: int) -> str:
    """Id of the step that makes the maps of one shard."""
    return f"{joined}-{number:05d}"


def weights_of(store: Path, run: str) -> str:
    """Checksum of the weights of a run, "" without the run; results keep it."""
    folder = store / STEP_FOLDERS["train"] / run
    return checksum(folder, "model/model.safetensors") if run and is_finished(folder) else ""


def replaced_run(folder: Path, store: Path) -> str:
    """Run whose weights have changed since the result in a folder was made, or ""."""
    record = read_record(folder)
    run, before = str(record.get("run", "")), record.get("weights_checksum")
    now = weights_of(store, run) if before else ""
    return run if now and now != before else ""


PLANNED_RUNS = "planned_runs.json"


@dataclass(frozen=True)
class PlannedRun:
    """Run of a study, in a list that is read without its plan, which needs the images and torch."""

    id: str
    roles: tuple[str, ...]
    backbone: str
    alpha: float
    seed: int
    domain: str = ""
    teacher: str = field(default="", kw_only=True)  # whose maps guide


def write_planned_runs(runs: Iterable[PlannedRun], out: Path) -> None:
    """Write runs to a study folder."""
    rows = [asdict(run) for run in runs]
    write_atomically(out / PLANNED_RUNS, strict_json(rows) + "\n")


def read_planned_runs(out: Path) -> list[PlannedRun] | None:
    """Runs of a study folder; None without a sound file."""
    try:
        return TypeAdapter(list[PlannedRun]).validate_json((out / PLANNED_RUNS).read_bytes())
    except (OSError, ValueError):
        return None
