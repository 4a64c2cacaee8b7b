"""Record of a study: everything that its tables are computed from, and the rows of its main table.

A record is made from the plan of a study folder, or read from an archive. An archive holds arms,
settings and choices itself, so that it needs neither the images nor the rules of a plan:

    record.json  runs.csv  scores.parquet  table.csv  comparisons.csv  ladder.csv  study.yaml
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from preceptor.data.splits import draw_annotated
from preceptor.errors import InputError
from preceptor.metrics.scores import ALL_SOURCES
from preceptor.metrics.split_names import SWAPPED, kind_or_none
from preceptor.study.config import OF_TEACHER, PAPER_ALPHA, Control
from preceptor.study.plan import BY_WAY, Plan, mapper_backbone
from preceptor.study.protocol import teachers_of
from preceptor.study.selection import Candidate, Choice, choose
from preceptor.study.steps import Arm, Member, Role, replaced_run
from preceptor.training.record import RunRecord
from preceptor.training.validation import selects_by_swaps
from preceptor.utils.files import replacing
from preceptor.utils.results import SCORES, is_finished, read_scores, write_atomically

RECORD, RUNS, FORMAT = "record.json", "runs.csv", 1
_ARM = ("role", "backbone", "guidance", "alpha", "teacher")  # columns of runs.csv
EPOCHS = ("selected_epoch_auc", "last_epoch_auc")
"""Columns of runs.csv: lowest AUC of a validation set at the selected and at the last epoch."""
DEVICE_MEMORY = "gpu_memory"  # column of runs.csv, of trainings on a GPU
Scores = tuple[pd.DataFrame | None, pd.DataFrame | None]
"""Score tables of the validation sets and of the test sets of a run; None where there are none."""

OVERALL = "overall"  # the mean over backbones, seed by seed
CONTROLS = {
    "shuffled": "Control: the same maps, shuffled",
    "centre": "Control: one centred map",
    "pca": "Control: maps of principal components, no person",
    "shuffled_human": "Control: all human maps, shuffled",
    "mixed": "Control: all images, human maps on the annotated",
    "masked": "Control: trained on the marked regions alone",
    "dfr": "Control: Baseline 2, last layer trained again on {set}",
    "repair": "Baseline 2 repaired: last layer trained again on swapped images, Teacher's maps",
    "repair_shuffled": "Control: Baseline 2 repaired, the maps shuffled",
}
LAST_LAYER: dict[Control, tuple[Role, str]] = {
    "dfr": ("student_dfr", "Student, last layer trained again on {set}"),
    "repair": ("student_repair", "Student repaired: last layer trained again on swapped images"),
}
"""Role and title of the Student whose last layer is trained again, by the control that does so."""
STARTED: dict[str, tuple[Role, str]] = {
    "baseline1_started": ("baseline1", "Baseline 1 from the mapper's weights"),
    "baseline2_started": ("baseline2", "Baseline 2 from the mapper's weights"),
    "student_started": ("student", "Student from the mapper's weights"),
}
"""Rows of runs that start from the weights of a mapper: role and title by key."""
DETECTORS: dict[Role, str] = {
    "mapper": "Mapper as a detector: annotated, human maps",
    "mapper_all": "Mapper as a detector: all human maps",
}


@dataclass(frozen=True)
class Row:
    """Row of the main table: an arm of the study for each backbone."""

    key: str  # of a baseline, the Student, a control, a detector, `STARTED`, or "ceiling"
    title: str
    arms: dict[str, Arm]  # by backbone

    @property
    def heading(self) -> str:
        """Title on pages; files keep the spelling of `title`."""
        return self.title.replace("centred", "centered") if self.key == "centre" else self.title


@dataclass(frozen=True)
class ChosenSetting:
    """Choice of the setting of a role and backbone; of a Teacher with the backbone ""."""

    role: Role
    backbone: str
    choice: Choice


@dataclass(frozen=True)
class TeacherPair:
    """Two Teachers that are compared by their probe Students a and b."""

    question: str  # RQ1 (human-guided and data-driven) or saliency (RISE maps and CAMs)
    a: Arm
    b: Arm


@dataclass(frozen=True)
class Budget:
    """Number of annotated images, with the arms whose setting was selected for this number."""

    size: int
    minutes: float  # annotation time, mean over seeds; NaN if a time is unknown
    arms: tuple[Arm, ...] = ()


@dataclass(frozen=True)
class Setup:
    """Settings and choices of one domain of a study that its tables need."""

    domain: str
    classes: tuple[str, ...]  # in score order
    positive: str | None
    sets: tuple[str, ...]  # evaluation sets; the first one is that of the hypothesis tests
    students: tuple[str, ...]
    teachers: tuple[str, ...]
    seeds: tuple[int, ...]
    draws: bool  # whether every seed has its own images
    negatives: str | None  # validation set with the missing classes, see `validation_rows`
    threshold: str  # rule of the threshold that is fixed on validation
    dfr_set: str | None  # validation set on which the control dfr trains its last layer, or None
    rows: tuple[Row, ...]  # rows of the main table, whose settings are selected
    choices: tuple[ChosenSetting, ...]
    pairs: tuple[TeacherPair, ...] = ()
    budgets: tuple[Budget, ...] = ()
    budget_mapper: str | None = None
    budget_teacher: Arm | None = None  # without a number of images; None if its maps are given
    ways: tuple[Arm, ...] = ()  # of several ways of guiding, each at its best α on validation

    @property
    def primary(self) -> str:
        """Evaluation set of the hypothesis tests."""
        return self.sets[0]

    @property
    def clean_labels(self) -> bool:
        """Regime: whether validation has a set beside `val`, without the training's shortcut."""
        return any(name != "val" for name in self.validation_sets)

    @property
    def swapped(self) -> bool:
        """Whether swapped validation images select as well."""
        return SWAPPED in self.sets

    @property
    def validation_sets(self) -> list[str]:
        """Validation sets."""
        return [name for name in self.sets if kind_or_none(name) == "val"]


@dataclass
class StudyRecord:
    """Record of one domain of a study; score tables are shared and must not be changed."""

    setup: Setup
    members: Sequence[Member]  # a run of several arms occurs several times
    entries: Mapping[str, Mapping[str, float | None]]  # of finished runs in runs.csv, by run id
    scores: Callable[[Member], Scores]
    due: frozenset[str] = frozenset()  # runs whose test scores are part of the plan
    versions: tuple[Mapping[str, str], ...] = ()  # of libraries and machines, each once

    def validation(self, member: Member) -> pd.DataFrame | None:
        """Scores of the validation sets; None if the training has not finished."""
        return self.scores(member)[0]

    def members_of(self, arm: Arm) -> Iterator[Member]:
        """Runs of an arm."""
        return (member for member in self.members if member.arm == arm)

    def tests_of(self, arm: Arm) -> dict[int, pd.DataFrame]:
        """Scores of an arm on the test sets by seed; seeds without scores are omitted."""
        return {
            member.seed: scores
            for member in self.members_of(arm)
            if (scores := self.scores(member)[1]) is not None
        }

    def choose(self, candidates: Sequence[Candidate]) -> Choice:
        """One of the candidates, by the rule of the study's selections on validation."""
        setup = self.setup
        return choose(candidates, setup.classes, setup.positive, setup.draws, setup.negatives)


def record_of(plan: Plan) -> StudyRecord:
    """Record of the finished steps of a plan."""
    protocol, tables = plan.protocol, _ScoreTables()

    def scores(member: Member) -> Scores:
        if member.arm.role == "mapper" and not protocol.mapper_detects:
            return None, None  # scores of a mark, which are none of the classes
        evaluation = protocol.evaluation_folder(protocol.evaluation_id(member))
        tested = tables.read(evaluation, protocol.store)
        return tables.read(protocol.run_folder(member.run)), tested

    finished = {
        member.run: RunRecord.read(folder)
        for member in plan.members
        if is_finished(folder := protocol.run_folder(member.run))
    }
    versions = {json.dumps(record.versions, sort_keys=True) for record in finished.values()}
    return StudyRecord(
        setup_of(plan),
        list(plan.members),
        {run: _entry(record) for run, record in finished.items()},
        scores,
        frozenset(one.run for one in plan.members if protocol.evaluation_id(one) in plan.steps),
        tuple(json.loads(version) for version in sorted(versions)),
    )


def setup_of(plan: Plan) -> Setup:
    """Settings and choices of a plan that its tables need."""
    protocol, study = plan.protocol, plan.protocol.study
    manifest, winner = protocol.workspace.manifest, plan.winner()
    sets = [protocol.primary, *manifest.eval_splits("test"), *manifest.eval_splits("val")]
    sets += [SWAPPED] if selects_by_swaps(protocol.workspace) else []
    teacher = None
    # Of other Teachers, the maps that guide are not the ones whose agreement is recorded.
    if winner and winner.kind != "given" and winner.method != "rise" and study.generations == 1:
        role: Role = "mapper" if winner.kind == "mapper" else "teacher"
        teacher = Arm(role, winner.name, winner.alpha)
    return Setup(
        domain=plan.domain,
        classes=tuple(manifest.classes),
        positive=study.positive,
        sets=tuple(dict.fromkeys(sets)),
        students=tuple(study.students),
        teachers=tuple(study.teachers),
        seeds=study.seed_list,
        draws=study.draws,
        negatives=study.validation_negatives,
        threshold=study.threshold,
        dfr_set=protocol.dfr_set if "dfr" in protocol.controls else None,
        rows=tuple(table_rows(plan)),
        choices=tuple(
            ChosenSetting(selection.role, selection.backbone, choice)
            for selection, choice in plan.choices.items()
            if not selection.annotated
        ),
        pairs=tuple(_teacher_pairs(plan)),
        budgets=tuple(_budgets(plan)),
        budget_mapper=mapper_backbone(plan),
        budget_teacher=teacher,
        ways=tuple(
            Arm.of_setting(role, backbone, one, winner if role in ("student", "shuffled") else None)
            for role in BY_WAY
            for backbone in study.students
            for one in plan.best_by_way(role, backbone)
        ),
    )


def _teacher_pairs(plan: Plan) -> Iterator[TeacherPair]:
    study, teachers = plan.protocol.study, teachers_of(plan.protocol.study)
    for teacher, other in product(teachers, teachers):
        if teacher.kind == "given" or teacher.name != other.name:
            continue
        if (teacher.kind, other.kind) == ("human", "data") and teacher.method == other.method:
            question = "RQ1"
        elif teacher == replace(other, method="rise") and other.method == "cam":
            question = "saliency"
        else:
            continue
        arms = [
            Arm.of_setting("student", study.students[0], setting, by)
            for by in (teacher, other)
            if (setting := plan.probe_setting_of(by)) is not None
        ]
        if len(arms) == 2:
            yield TeacherPair(question, *arms)


def _budgets(plan: Plan) -> Iterator[Budget]:
    roles: tuple[Role, ...] = ("baseline1", "student")
    for size in plan.study.budgets:
        arms = [
            replace(Arm.of_setting(role, backbone, setting), annotated=size)
            for backbone in plan.study.students
            for role in roles
            if (setting := plan.setting_of(role, backbone, size)) is not None
        ]
        yield Budget(size, _minutes(plan, size), tuple(arms))


def _minutes(plan: Plan, size: int) -> float:
    """Annotation time of a number of images in minutes, mean over seeds; NaN if one is unknown."""
    study, minutes = plan.protocol.study, []
    for seed in study.seed_list:
        manifest = plan.protocol.workspaces.of(seed).manifest
        drawn = draw_annotated(manifest, size, seed)
        minutes.append(float(manifest.table["annotation_seconds"][drawn].sum(skipna=False)) / 60)
    return float(np.mean(minutes))


def _entry(record: RunRecord) -> dict[str, float | None]:
    """Entries of a training in runs.csv, whose column guidance has the way of guiding."""
    names = ("seconds", "images_seen", "best_epoch")
    metrics = {
        "guidance_term" if key == "guidance" else key: value
        for key, value in record.metrics.items()
        if key != "epoch"
    }
    epochs = dict(zip(EPOCHS, record.epoch_aucs or (), strict=False))
    memory = {DEVICE_MEMORY: record.peak_memory} if record.device_memory else {}
    return {name: getattr(record, name) for name in names} | metrics | epochs | memory


class _ScoreTables:
    """Score tables of finished folders, read once."""

    def __init__(self) -> None:
        self._tables: dict[Path, pd.DataFrame | None] = {}
        self._images: list[pd.DataFrame] = []

    def read(self, folder: Path, store: Path | None = None) -> pd.DataFrame | None:
        """Score table of a folder; None if it has none, or scores of replaced weights."""
        if folder not in self._tables:
            there = is_finished(folder) and not (store and replaced_run(folder, store))
            self._tables[folder] = self._shared(read_scores(folder)) if there else None
        return self._tables[folder]

    def _shared(self, table: pd.DataFrame) -> pd.DataFrame:
        scores = [name for name in map(str, table) if name.startswith("score_")]
        own = table.drop(columns=scores)
        for images in self._images:
            if images.equals(own):
                return images.assign(**{name: table[name] for name in scores})
        self._images.append(own.copy())
        return table


def write_archive(
    records: Sequence[StudyRecord], out: Path, files: Mapping[str, str] | None = None
) -> None:
    """Write an archive."""
    out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, str]] = []
    parts: dict[tuple[str, str, str], pd.DataFrame] = {}
    domains: list[dict[str, Any]] = []
    for record in records:
        arms = list(dict.fromkeys(member.arm for member in record.members))
        setup, versions = asdict(record.setup), [dict(version) for version in record.versions]
        name = record.setup.domain
        own = {"domain": name} if name else {}
        domains.append({"setup": setup, "arms": [*map(asdict, arms)], "versions": versions})
        for member in record.members:
            entry = record.entries.get(member.run)
            row = dict(zip((*_ARM, "steps"), _identity(member.arm), strict=True))
            row |= {"seed": str(member.seed), "run": member.run, "finished": str(entry is not None)}
            known = {key: repr(value) for key, value in (entry or {}).items() if value is not None}
            rows.append({"domain": name} | row | known)
            for kind, table in zip(("val", "test"), record.scores(member), strict=True):
                if table is not None and (name, member.run, kind) not in parts:
                    parts[name, member.run, kind] = table.assign(run=member.run, **own)
    if not parts:
        raise InputError("no training of the study has scores; restore its store, or repeat it")
    values = {"format": FORMAT, "scores": SCORES, "domains": domains}
    write_atomically(out / RECORD, json.dumps(values, indent=1, ensure_ascii=False) + "\n")
    write_atomically(out / RUNS, pd.DataFrame(rows).to_csv(index=False, lineterminator="\n"))
    for name, text in (files or {}).items():
        write_atomically(out / name, text)
    with replacing(out / SCORES) as file:
        _write_scores([parts[key] for key in sorted(parts, key=lambda key: key[:2])], file)


def _write_scores(parts: Sequence[pd.DataFrame], file: Path) -> None:
    """Score tables as one Parquet file whose repeated columns take hardly any room."""
    table = pd.concat(parts, ignore_index=True)
    scores = [name for name in map(str, table) if name.startswith("score_")]
    texts = ["run", *(name for name in map(str, table) if name not in (*scores, "run"))]
    columns = {name: pa.array(table[name].astype(str)).dictionary_encode() for name in texts}
    columns |= {name: pa.array(table[name].to_numpy()) for name in scores}
    pq.write_table(
        pa.table(columns), file, compression="zstd", compression_level=19, use_dictionary=texts,
        use_byte_stream_split=scores, row_group_size=max(1, len(table)),
    )  # fmt: skip


def is_archive(folder: Path) -> bool:
    """Whether a folder is an archive of a study."""
    return (folder / RECORD).is_file()


def read_archive(folder: Path) -> list[StudyRecord]:
    """Records of an archive, one for each domain."""
    try:
        values = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        runs = pd.read_csv(folder / RUNS, dtype=str, keep_default_na=False).to_dict("records")
        scores = _archived_scores(folder / values["scores"])
        return [_archived(domain, runs, scores) for domain in values["domains"]]
    except (OSError, ValueError, KeyError, IndexError, TypeError, ValidationError) as error:
        raise InputError(f"{folder}: no archive of a study, or a damaged one: {error}") from error


def _archived(
    values: Mapping[str, Any],
    runs: Sequence[Mapping[Any, str]],
    scores: Callable[[str, Member], Scores],
) -> StudyRecord:
    setup = TypeAdapter(Setup).validate_python(values["setup"])
    listed = TypeAdapter(tuple[Arm, ...]).validate_python(values["arms"])
    arms = {_identity(arm): arm for arm in listed}
    members, entries = [], {}
    inside = {*_ARM, "steps", "domain", "seed", "run", "finished"}
    for row in runs:
        if row["domain"] != setup.domain:
            continue
        arm = arms[(*(row[name] for name in _ARM), row.get("steps", "0"))]
        members.append(Member(arm, int(row["seed"]), row["run"], Path()))
        if row["finished"] == "True":
            entries[row["run"]] = {
                name: float(value) for name, value in row.items() if name not in inside and value
            }
    own = partial(scores, setup.domain)
    return StudyRecord(setup, members, entries, own, versions=tuple(values["versions"]))


def _archived_scores(file: Path) -> Callable[[str, Member], Scores]:
    table = pq.read_table(file)
    keys = [name for name in ("domain", "run") if name in table.column_names]
    columns = [table[name].to_numpy(zero_copy_only=False) for name in keys]
    changes = np.any([column[1:] != column[:-1] for column in columns], axis=0)
    starts = np.flatnonzero(np.r_[True, changes])
    ends = np.r_[starts[1:], len(table)]
    of_runs = zip(*(column[starts] for column in columns), strict=True)
    spans = dict(zip(of_runs, zip(starts, ends, strict=True), strict=True))
    read: dict[tuple[str, ...], Scores] = {}

    @pd.option_context("mode.string_storage", "python")
    def scores(domain: str, member: Member) -> Scores:
        key = (domain, member.run)[-len(keys) :]
        if key not in spans:
            return None, None
        if key not in read:
            start, end = spans[key]
            part = table.slice(start, end - start).drop_columns(keys)
            plain = {
                name: part[name] if name.startswith("score_") else part[name].cast(pa.string())
                for name in part.column_names
            }
            frame = pa.table(plain).to_pandas()
            kinds = frame["split"].map({one: kind_or_none(one) for one in frame["split"].unique()})
            kinds = kinds.where(frame["split"] != SWAPPED, "val")
            val, test = (frame[kinds == kind].reset_index(drop=True) for kind in ("val", "test"))
            read[key] = val if len(val) else None, test if len(test) else None
        return read[key]

    return scores


def identity_of(member: Member) -> dict[str, Any]:
    """Columns of a run in the tables of results."""
    arm = member.arm
    values = arm.label, arm.backbone, arm.guidance, arm.alpha, arm.teacher, member.seed, member.run
    own = {"steps": arm.steps} if arm.steps else {}  # only where there are several lengths
    return dict(zip((*_ARM, "seed", "run"), values, strict=True)) | own


def _identity(arm: Arm) -> tuple[str, ...]:
    """Cells of an arm in runs.csv, which are different for different arms."""
    return arm.label, arm.backbone, arm.guidance, f"{arm.alpha:g}", arm.teacher, str(arm.steps)


# Rows of the main table


def table_rows(plan: Plan) -> list[Row]:
    """Rows of the main table whose settings are selected."""
    study, winner = plan.protocol.study, plan.winner()
    teacher, rows = str(winner), list[Row]()

    def add(key: str, title: str, arms: dict[str, Arm]) -> None:
        if arms:
            rows.append(Row(key, title, arms))

    def chosen(role: Role, of: Role, teacher: str = "", **more: Any) -> dict[str, Arm]:
        settings = {backbone: plan.setting_of(of, backbone) for backbone in study.students}
        return {
            backbone: replace(Arm.of_setting(role, backbone, setting), teacher=teacher, **more)
            for backbone, setting in settings.items()
            if setting is not None
        }

    of = study.paper_setting
    paper = {name: Arm.of_setting("baseline1", name, of) for name in study.students}
    add("baseline1_paper", f"Baseline 1: annotated, human maps, α {PAPER_ALPHA:g}", paper)
    add("baseline1", "Baseline 1 at its best α", chosen("baseline1", "baseline1"))
    add("baseline2", "Baseline 2: all images, no guidance", chosen("baseline2", "baseline2"))
    if winner is not None:
        student = chosen("student", "student", teacher)
        add("student", "Student: all images, Teacher's maps", student)
        for control in plan.protocol.controls:
            arms = chosen(control, control, teacher if control in OF_TEACHER else "")
            add(control, CONTROLS[control].format(set=plan.protocol.dfr_set), arms)
        for control, (role, title) in LAST_LAYER.items():
            if control in plan.protocol.controls:
                title = title.format(set=plan.protocol.dfr_set)
                add(role, title, chosen(role, "student", teacher))
        if study.starts_from_mapper:
            for key, (role, title) in STARTED.items():
                by = teacher if role == "student" else ""
                add(key, title, chosen(role, role, by, start="mapper"))
    if plan.protocol.mapper_detects and winner is not None:
        for role, title in DETECTORS.items():
            if role == "mapper" or study.ceiling:
                add(role, title, {name: Arm(role, name, 0.0) for name in study.teachers})
    if study.ceiling:
        add("ceiling", "Ceiling: all images, all human maps", chosen("ceiling", "ceiling"))
    return rows


def row_order(rows: Iterable[Row]) -> list[str]:
    """Keys of rows in the order of the tables."""
    first = ["baseline1_paper", "baseline1", "baseline2", "student"]
    again = [role for role, _ in LAST_LAYER.values()]
    order = [*first, *CONTROLS, *again, *STARTED, *DETECTORS, "ceiling"]
    return sorted((row.key for row in rows), key=order.index)


def whole_set(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Rows of a table on a whole evaluation set."""
    return table[(table["set"] == name) & (table["source"] == ALL_SOURCES)]


def select_arm(figures: pd.DataFrame, arm: Arm) -> pd.DataFrame:
    """Metrics of one arm."""
    # In NumPy: pandas takes milliseconds for each comparison, whatever the size of the table.
    alphas = figures["alpha"].to_numpy(float)
    mask: NDArray[np.bool_] = np.isnan(alphas) if math.isnan(arm.alpha) else alphas == arm.alpha
    wanted = {"role": arm.label, "backbone": arm.backbone, "guidance": arm.guidance}
    for name, value in (wanted | ({"teacher": arm.teacher} if arm.teacher else {})).items():
        mask &= figures[name].to_numpy(object) == value
    if "steps" in figures:
        mask &= np.nan_to_num(figures["steps"].to_numpy(float)) == arm.steps
    return figures[mask]


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of a table as dicts."""
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]
