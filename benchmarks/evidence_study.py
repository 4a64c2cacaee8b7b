"""A finished study and the numbers of docs/evidence.md that no table of the library has."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from preceptor.config.image_format import ImageFormat
from preceptor.data.rows import MapTargets
from preceptor.evaluation.paired_tests import PairedResult, mean_std, paired_difference
from preceptor.evaluation.share_of_the_way import ShareResult
from preceptor.evaluation.split_names import split_kind
from preceptor.execution.perform import perform
from preceptor.maps.store import is_store, read_store
from preceptor.report.cells import short
from preceptor.results.comparisons import set_aucs, share_of_way
from preceptor.results.domain import gather
from preceptor.results.rows import set_order
from preceptor.runtime.result_folder import is_finished
from preceptor.saliency.agreement import correlation
from preceptor.study.plan import Plan
from preceptor.study.selection import Candidate, choose
from preceptor.study.setting import Setting
from preceptor.study.steps import Arm, Evaluate, Role, Step
from preceptor.study.student_runs import student_run, variant_run

# Lines whose α is chosen on validation.
CHOSEN = {"baseline1": "Baseline 1", "student": "Student", "ceiling": "Ceiling"}

Compared = tuple[PairedResult, int]


class Study:
    """A study as far as it has got, and what the blocks ask of it."""

    def __init__(self, name: str, plan: Plan) -> None:
        self.name, self.plan, self.config = name, plan, plan.protocol.study
        self.results = gather(plan)
        sets = set_order(plan)
        self.tests = [name for name in sets if split_kind(name) == "test"]  # the primary one first
        self.vals = [name for name in sets if split_kind(name) == "val"]
        self.rows = {row.key: row for row in self.results.rows}
        self.lines = [key for key, row in self.rows.items() if not row.variant]
        self.backbones, self.seeds = self.config.students, self.config.seed_list
        what = (
            ", each a new draw of all images" if self.config.draws else " on the same test images"
        )
        self.over = f"{len(self.seeds)} seeds{what}"

    def arm(self, key: str, backbone: str) -> Arm | None:
        """The arm behind a line, if there is one."""
        return self.rows[key].arms.get(backbone) if key in self.rows else None

    def aucs(self, arm: Arm | None, name: str) -> pd.Series:
        """AUC of an arm on an evaluation set, by seed."""
        if arm is None:
            return pd.Series(dtype=float)
        return set_aucs(self.results.figures, arm, name).sort_index()

    def compare(self, backbone: str, key: str, other: str, name: str) -> Compared | None:
        """One line minus another on a set, paired by seed, and on how many seeds it is above."""
        a, b = (self.aucs(self.arm(one, backbone), name) for one in (key, other))
        seeds = a.index.intersection(b.index)
        if seeds.empty:
            return None
        return paired_difference(a.loc[seeds], b.loc[seeds]), int(
            (a.loc[seeds] > b.loc[seeds]).sum()
        )

    def worst_gain(self, backbone: str, key: str) -> float:
        """A line minus the Student by what selection looks at: the worst validation set's mean."""
        one, other = (
            pd.DataFrame({name: self.aucs(self.arm(side, backbone), name) for name in self.vals})
            for side in (key, "student")
        )
        seeds = one.index.intersection(other.index)
        return float(one.loc[seeds].mean().min() - other.loc[seeds].mean().min())

    def variants(self, backbone: str) -> list[str]:
        """The keys of variants, the best on the worst validation set first."""
        gains = {key: self.worst_gain(backbone, key) for key in self.rows if key not in self.lines}
        return sorted(gains, key=lambda key: -gains[key] if math.isfinite(gains[key]) else math.inf)


def share(study: Study, key: str, backbone: str, name: str) -> ShareResult | None:
    """A line's share of the way on a test set; the baseline is the better one on that set."""
    figures, files = study.results.figures, study.results.files
    found = share_of_way(study.plan, study.rows, figures, files, key, backbone, name)
    return found[1] if found else None


def stores(study: Study) -> dict[tuple[Path | None, ...], list[str]]:
    """The map stores that guide, one a seed, and whose they are: the Student's and variants'."""
    protocol = study.plan.protocol
    teacher, found = study.plan.winner(), dict[tuple[Path | None, ...], list[str]]()
    if teacher is None:
        return {}
    for name in (None, *study.config.variants):
        paths = []
        for seed in study.seeds:
            asked = teacher, study.backbones[0], Setting(0.5), seed
            if name is None:
                steps = student_run(protocol, *asked)
            else:
                steps = variant_run(protocol, name, *asked)
            config = steps[-1].config
            paths.append(config.maps.path if config is not None else None)
        found.setdefault(tuple(paths), []).append(short(f"variant {name}" if name else "student"))
    return found


def map_quality(study: Study, path: Path | None, seed: int) -> NDArray[np.float64] | None:
    """Correlation of a store's maps with human maps of training images outside A.

    Returns:
        (6,) means over images: all, each quarter by the store's score (lowest first), and the
        maps shuffled within their class. None where there is no store or no such image.
    """
    if path is None or not is_store(path):
        return None
    workspace = study.plan.protocol.workspaces.of(seed)
    table, store = workspace.manifest.table, read_store(path, ("map", "score"))
    given = study.plan.protocol.config(study.backbones[0], seed)
    known = workspace.annotated(given) | (table["saliency"] == "").to_numpy()
    place = pd.Series(np.arange(len(store.paths)), index=store.paths).reindex(table["name"])
    chosen = np.flatnonzero(workspace.train_mask & ~known & place.notna().to_numpy())
    if not len(chosen):
        return None
    found = place.to_numpy()[chosen].astype(np.int64)
    targets = MapTargets.human(np.ones(len(chosen), np.float32))
    training = given.training
    form = ImageFormat(store.info.side, store.info.fit, training.in_chans)
    grid = (store.maps.shape[1], store.maps.shape[2])
    rows = workspace.rows(chosen, form, cache=training.cache, targets=targets, grid=grid)
    human = rows.maps_on_grid(np.arange(len(rows)))
    maps = torch.from_numpy(store.maps[found].astype(np.float32))
    moved = np.arange(len(rows))
    for label in np.unique(rows.labels):  # in order, so that only a lone image keeps its own map
        own = np.flatnonzero(rows.labels == label)
        moved[own] = np.roll(own, len(own) // 2)
    values, shuffled = (
        correlation(side, human).values.numpy() for side in (maps, maps[torch.from_numpy(moved)])
    )
    quarters = np.array_split(np.argsort(store.scores[found], kind="stable"), 4)
    parts = [values, *(values[quarter] for quarter in quarters), shuffled]
    return np.array([mean_std(part[np.isfinite(part)]).mean for part in parts])


def rules(study: Study, role: Role, backbone: str) -> tuple[dict[float, Arm], dict[str, float]]:
    """The candidates of a choice of α and what each rule takes, on validation alone.

    `val` takes the highest mean on the first validation set, `worst set` on the worst of all;
    `val_auc` and `guided` are the library's own, see `study.selection`.
    """
    made, winner = study.plan.setting_choice(role, backbone), study.plan.winner()
    if made is None:
        return {}, {}
    teacher, protocol = str(winner) if role == "student" else "", study.plan.protocol
    files = study.results.files
    arms = {row["alpha"]: Arm(role, backbone, row["alpha"], teacher) for row in made.table}
    settings = [Setting(row["alpha"]) for row in made.table]
    candidates = []
    for setting, row in zip(settings, made.table, strict=True):
        members = [member for member in study.plan.members if member.arm == arms[row["alpha"]]]
        tables = [files.validation(protocol, one) for one in sorted(members, key=lambda m: m.seed)]
        scores = [table for table in tables if table is not None]
        candidates.append(Candidate(row["name"], setting, scores, row["agreement"]))
    means = pd.DataFrame(
        [[study.aucs(arm, name).mean() for name in study.vals] for arm in arms.values()],
        columns=study.vals,
    )
    first = "val" if "val" in study.vals else study.vals[0]
    taken = {
        first: settings[int(means[first].argmax())].alpha,
        "worst set": settings[int(means.min(axis=1).argmax())].alpha,
    }
    for rule in ("val_auc", "guided"):
        name = choose(
            candidates,
            classes=study.results.classes,
            positive=study.results.positive,
            rule=rule,
            draws=study.config.draws,
        ).winner
        taken[rule] = settings[[one.name for one in candidates].index(name)].alpha
    return arms, taken


def score_all(plan: Plan) -> None:
    """Score the test sets with every finished candidate of a choice of α."""
    protocol, teachers = plan.protocol, ("", str(plan.winner()))
    for member in plan.members:
        arm = member.arm
        if arm.role not in CHOSEN or arm.teacher not in teachers:
            continue
        if is_finished(protocol.run_folder(member.run)):
            work = Evaluate(protocol.config(arm.backbone, member.seed), member.run)
            step = Step(protocol.evaluation_id(member), work, member.run, (member.run,))
            perform(step, protocol.store, protocol.workspaces)
