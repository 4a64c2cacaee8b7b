"""Results of a study as tables and files: metrics by run, main table, comparisons.

Results are computed from finished folders at any time; missing ones are omitted and listed.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import yaml

from preceptor.config.files import dump_yaml
from preceptor.errors import PreceptorError
from preceptor.metrics.operating_points import RULES, roc_rates, threshold_rates
from preceptor.metrics.paired_tests import Excluded, excluded, mean_std
from preceptor.metrics.scores import (
    deployed_scores,
    figure_rows,
    fixed_thresholds,
    positive_log_odds,
    set_auc,
    validation_rows,
)
from preceptor.metrics.split_names import kind_or_none
from preceptor.results.comparisons import FALL, Fall, compare, correct, largest_fall, shares
from preceptor.results.ladder import Ladder, budget_curve, ladder_table, ladders, more_marks
from preceptor.results.record import (
    OVERALL,
    Row,
    Setup,
    StudyRecord,
    identity_of,
    read_archive,
    record_of,
    records,
    row_order,
    select_arm,
    whole_set,
    write_archive,
)
from preceptor.results.tables import (
    BUDGET,
    COMPARISONS,
    CSV_FILES,
    DOMAINS,
    FIGURES,
    LADDER,
    RATES,
    RUNS,
    TABLE,
    read_table,
)
from preceptor.study.checks import coarse_share
from preceptor.study.plan import Plan, StudyPlan
from preceptor.study.protocol import training_of
from preceptor.study.selection import Candidate
from preceptor.study.steps import Arm, Member
from preceptor.training.prepare import method_of
from preceptor.training.record import RunRecord
from preceptor.utils.files import new_folder, replacing
from preceptor.utils.results import is_finished, write_atomically

OFFERED = ("student", "baseline1", "mapper", "repair", "student_repair", "baseline2")
"""Rows of the main table whose models are offered for use: the network without maps only with clean
labels or swapped images, since on a set with the training's shortcut it is best by the shortcut."""


@dataclass(frozen=True)
class Best:
    """Model for use, with its thresholds by rule."""

    arm: Arm
    seed: int  # the median of the seeds
    run: str
    value: float  # AUC on the worst validation set
    mean: float  # the same, mean over seeds
    tied: bool  # whether the interval of its difference from the best model includes 0
    thresholds: dict[str, float]


@dataclass
class Results:
    """Results of one domain, from which tables, figures and sentences of the report are made.

    The columns of tables are described in `results.tables`; the source "" is the whole set.
    """

    record: StudyRecord
    runs: pd.DataFrame
    figures: pd.DataFrame  # metrics by run, set and source
    table: pd.DataFrame = field(default_factory=TABLE.empty)
    rates: pd.DataFrame = field(default_factory=RATES.empty)
    comparisons: pd.DataFrame = field(default_factory=COMPARISONS.empty)
    shares: pd.DataFrame = field(default_factory=pd.DataFrame)  # of the way, see `shares`
    ladders: list[Ladder] = field(default_factory=list)  # the primary set of a backbone first
    teachers: pd.DataFrame = field(default_factory=pd.DataFrame)  # candidates of stage 1
    alphas: pd.DataFrame = field(default_factory=pd.DataFrame)  # by role, backbone and α
    budget: pd.DataFrame = field(default_factory=BUDGET.empty)
    best: dict[str, Best] = field(default_factory=dict)  # for use, by key; the selected one first
    missing: list[str] = field(default_factory=list)  # trainings that have not finished
    unscored: list[str] = field(default_factory=list)  # finished without the test scores due

    @property
    def setup(self) -> Setup:
        """Settings and choices of the domain."""
        return self.record.setup

    @property
    def seeds(self) -> int:
        """Number of seeds."""
        return len(self.setup.seeds)

    @property
    def primary_ladders(self) -> list[Ladder]:
        """Ladders on the primary set, one per backbone."""
        return [ladder for ladder in self.ladders if ladder.set == self.setup.primary]

    def may_be_best(self, key: str, evaluation: str) -> bool:
        """Whether a row is ranked on a set: not with all human maps, nor trained on the set."""
        return key not in ("ceiling", "mapper_all") and not self.is_trained_on(key, evaluation)

    def is_trained_on(self, key: str, evaluation: str) -> bool:
        """Whether the models of a row are trained on images that a set has or borrows."""
        chosen = self.setup.dfr_set
        borrows = chosen == self.setup.negatives and kind_or_none(evaluation) == "val"
        return key in ("dfr", "student_dfr") and (evaluation == chosen or borrows)

    @property
    def family(self) -> pd.DataFrame:
        """Comparisons of the tested family."""
        if self.comparisons.empty:
            return pd.DataFrame()
        return self.comparisons[self.comparisons["question"] == "RQ2"].assign(
            domain=self.setup.domain
        )

    @property
    def untested(self) -> list[str]:
        """Backbones whose Student has not been compared with both baselines."""
        family = self.family
        if family.empty:
            return list(self.setup.students)
        compared = family[family["mean"].notna()].groupby("backbone")["b"].nunique().to_dict()
        return [name for name in self.setup.students if compared.get(name, 0) < 2]

    @property
    def progress(self) -> tuple[int, int]:
        """Numbers of finished and of known trainings; trainings with two roles are counted once."""
        once = self.runs.drop_duplicates("run")
        return int(once["finished"].sum()), len(once)


@pd.option_context("mode.string_storage", "python")  # Arrow's take milliseconds in small tables
def results_of(record: StudyRecord) -> Results:
    """Results of one domain from its record."""
    setup = record.setup
    results = Results(
        record,
        runs=RUNS.empty(),
        figures=FIGURES.empty(),
        best=_best(record),
        teachers=_candidates(setup, teachers=True),
        alphas=_candidates(setup, teachers=False),
    )
    _add_runs(results, record)
    if not results.figures.empty:
        levels = {
            "set": setup.sets,
            "key": row_order(setup.rows),
            "backbone": [*setup.students, *setup.teachers, OVERALL],
        }
        results.table = TABLE.table(_table(results), levels)
        results.comparisons = COMPARISONS.table(compare(record, results.figures))
        results.shares = shares(record, results.figures)
        results.ladders = ladders(record, results.figures, results.runs, results.comparisons)
        results.budget = BUDGET.table(budget_curve(record, results.figures, results.runs))
    return results


def _add_runs(results: Results, record: StudyRecord) -> None:
    """Fill the tables by run, and the lists of missing trainings and scores."""
    setup, classes, positive = record.setup, [*record.setup.classes], record.setup.positive
    runs, figures, rates, named = [], [], [], set[str]()
    for member in record.members:
        arm, identity = member.arm, identity_of(member)
        validated, tested = record.scores(member)
        if member.run not in named:
            named.add(member.run)
            alpha = "auto" if math.isnan(arm.alpha) else f"{arm.alpha:g}"
            name = f"{arm.label} {arm.backbone} α {alpha} seed {member.seed}"
            if member.run not in record.entries:
                results.missing.append(f"{name} is not trained")
            elif tested is None and member.run in record.due:
                results.unscored.append(f"{name} has no scores of the test sets")
        unknown = dict.fromkeys(("seconds", "images_seen", "best_epoch"))
        entry = record.entries.get(member.run, unknown)
        runs.append(identity | {"finished": member.run in record.entries} | dict(entry))
        figures += [
            row | identity
            for scores, negatives in ((validated, setup.negatives), (tested, None))
            if scores is not None
            for row in figure_rows(scores, classes, positive, negatives)
        ]
        if validated is not None and tested is not None and positive is not None:
            rule, fixed = setup.threshold, None
            if arm.role not in (
                "dfr",
                "student_dfr",
            ):  # which has learned the labels of a set that fixes thresholds
                fixed = fixed_thresholds(validated, positive, [rule]).get(rule)
            rates += [row | identity for row in error_rates(tested, classes, positive, fixed)]
    results.runs = RUNS.table(pd.DataFrame(runs))
    results.figures = FIGURES.table(pd.DataFrame(figures), {"set": setup.sets})
    results.rates = RATES.table(pd.DataFrame(rates))


def _best(record: StudyRecord) -> dict[str, Best]:
    """Models for use by key of `OFFERED`, the selected one first, each of its median seed."""
    setup, scored = record.setup, dict[tuple[str, Arm], dict[int, tuple[Member, pd.DataFrame]]]()
    for row in setup.rows:
        judged = setup.clean_labels or setup.swapped
        offered = row.key in OFFERED and (row.key != "baseline2" or judged)
        for arm in row.arms.values() if offered else ():
            scored[row.key, arm] = {
                member.seed: (member, table)
                for member in record.members_of(arm)
                if (table := record.validation(member)) is not None
            }
    students = [[*found] for (key, _), found in scored.items() if key == "student"]
    if not (seeds := max(students, key=len, default=[])):
        return {}
    named = {f"{key} {arm.backbone}": (key, arm) for key, arm in scored}
    choice = record.choose(
        [
            Candidate(name, of[1].setting, [runs[s][1] for s in seeds])
            for name, of in named.items()
            if {*seeds} <= (runs := scored[of]).keys()
        ]
    )
    best: dict[str, Best] = {}
    for line in sorted(choice.table, key=lambda one: (one["name"] != choice.winner, -one["value"])):
        key, arm = named[line["name"]]
        if key not in best:
            tables = [scored[key, arm][seed] for seed in seeds]
            by_auc = sorted(tables, key=lambda pair: _worst_auc(setup, pair[1]))
            member, scores = by_auc[(len(by_auc) - 1) // 2]
            thresholds = fixed_thresholds(scores, setup.positive, (*RULES, setup.threshold))
            value, mean, tied = _worst_auc(setup, scores), line["value"], line["tied"]
            best[key] = Best(arm, member.seed, member.run, value, mean, tied, thresholds)
    return best


def _worst_auc(setup: Setup, scores: pd.DataFrame) -> float:
    """AUC on the worst validation set."""
    return min(
        set_auc(
            validation_rows(scores, name, setup.classes, setup.negatives),
            setup.classes,
            setup.positive,
        )
        for name in scores["split"].unique()
    )


def _candidates(setup: Setup, *, teachers: bool) -> pd.DataFrame:
    """Candidates of the choice among Teachers, or of the choices of settings."""
    return pd.DataFrame(
        [
            {"role": one.role, "backbone": one.backbone, "chosen": row["name"] == one.choice.winner}
            | dict(row)
            for one in setup.choices
            if (one.role == "teacher") == teachers
            for row in one.choice.table
        ]
    )


def error_rates(
    tested: pd.DataFrame, classes: list[str], positive: str, threshold: float | None
) -> list[dict[str, Any]]:
    """Error rates of one run on each test set: rows with set, kind and the fields of `Rate`.

    The ROC curve is that of the log-odds; the threshold that was fixed on validation, if any, is
    applied to the float32 scores of the model in use.
    """
    splits, labels, sources = (tested[key].to_numpy(object) for key in ("split", "label", "source"))
    scores, in_use = positive_log_odds(tested, classes, positive), deployed_scores(tested, positive)
    lines: list[dict[str, Any]] = []
    for name in dict.fromkeys(splits):
        rows = splits == name
        truth, groups = labels[rows] == positive, list(sources[rows])
        rates = {"roc": roc_rates(truth, scores[rows], groups)}
        if threshold is not None:
            rates["fixed"] = threshold_rates(truth, in_use[rows], groups, threshold)
        for kind, several in rates.items():
            lines += [{"set": str(name), "kind": kind} | asdict(rate) for rate in several]
    return lines


def _groups(figures: pd.DataFrame) -> Iterable[tuple[Any, pd.DataFrame]]:
    """Metrics by evaluation set and source."""
    return figures.groupby(["set", "source"], sort=False, observed=True)


def _table(results: Results) -> pd.DataFrame:
    lines = []
    places = [(str(part), str(source)) for (part, source), _ in _groups(results.figures)]
    for row in results.setup.rows:
        parts = {name: select_arm(results.figures, arm) for name, arm in row.arms.items()}
        groups = {name: dict(list(_groups(part))) for name, part in parts.items()}
        for images in places:
            aucs: dict[str, pd.Series] = {}
            for backbone, own in groups.items():
                if images in own:
                    here = own[images].sort_values("seed")
                    aucs[backbone] = here.set_index("seed")["auc"]
                    setting = row.arms[backbone].setting
                    way = _spent(results, row.arms[backbone])
                    way |= {"guidance": setting.guidance, "alpha": f"{setting.alpha:g}"}
                    way |= {"steps": setting.steps or None}
                    lines.append(_line(row, backbone, images, aucs[backbone], here) | way)
            # The same backbones in each row; a mapper may have some that no Student has.
            if len(results.setup.students) > 1 and aucs.keys() >= {*results.setup.students}:
                of_all = [aucs[name].rename(name) for name in results.setup.students]
                common = pd.concat(of_all, axis=1, join="inner")
                mean = common.dropna().mean(axis=1)
                every = pd.concat([parts[name] for name in results.setup.students])
                here = every[(every["set"] == images[0]) & (every["source"] == images[1])]
                # The seeds of the mean; a source with negatives only has no AUC in any.
                here = here[here["seed"].isin((mean if len(mean) else common).index)]
                here = here.sort_values(["backbone", "seed"])  # fixed order of summation
                if len(here):
                    lines.append(_line(row, OVERALL, images, mean, here))
    return pd.DataFrame(lines)


def _spent(results: Results, arm: Arm) -> dict[str, Any]:
    """Trials of the setting of an arm; images and seconds of a training, mean over seeds."""
    choices = [
        one.choice
        for one in results.setup.choices
        if (one.role, one.backbone) == (arm.role, arm.backbone)
    ]
    trained = select_arm(results.runs, arm)[["images_seen", "seconds"]].astype(float).mean()
    seen = trained["images_seen"]
    return {
        "trials": len(choices[0].table) if choices else 1,
        "images_seen": round(seen) if math.isfinite(seen) else None,
        "seconds": trained["seconds"],
    }


def _line(
    row: Row, backbone: str, images: tuple[str, str], aucs: pd.Series, part: pd.DataFrame
) -> dict[str, Any]:
    aucs = aucs.dropna() if aucs.notna().any() else aucs  # a draw may lack a class of the set
    summary = mean_std(aucs.to_numpy(float))
    names = {"key": row.key, "title": row.title, "backbone": backbone, "guidance": "", "alpha": ""}
    own: dict[str, Any] = dict.fromkeys(("steps", "trials", "images_seen", "seconds"))
    own |= {"set": images[0], "source": images[1], "mean": summary.mean, "std": summary.std}
    metrics = ("accuracy", "eer", "average_precision", "brier")
    same = part[part["seed"].isin(aucs.index)]
    means = {name: float(same[name].mean()) for name in metrics}
    return names | own | means | {"n": len(aucs), "images": int(part["images"].iloc[0])}


@dataclass(frozen=True)
class Hints:
    """What a domain shows besides its verdict, and what to do next; None and "" if it does not."""

    fall: Fall | None
    teachers: dict[bool, tuple[float, str]]  # best on validation if data-driven, and of marks
    coarse: tuple[float, tuple[int, int], str] | None  # share of maps under half a cell, its grid
    more: tuple[float, int, int, str] | None  # gain in AUC between numbers of images, backbone
    drawn: bool  # `more` counts the annotated images of a budget, else those with marks
    next: Literal["family", "marks", "nothing", ""]


def hints_of(plan: Plan, results: Results) -> Hints:
    """Hints on one domain."""
    study, workspace, winner = plan.study, plan.protocol.workspace, plan.winner()
    fall = largest_fall(results.record, results.table)
    best, coarse = dict[bool, tuple[float, str]](), None
    for row in records(results.teachers) if winner and winner.kind == "data" else ():
        own = (kind := plan.teacher_of(row["name"]).kind) == "data"
        if kind != "given":
            best[own] = max(best.get(own, (0.0, "")), (row["value"], row["name"]))
    with contextlib.suppress(PreceptorError, OSError, KeyError):  # images or trainings are gone
        student = results.best["student"]
        run = RunRecord.read(plan.protocol.run_folder(student.run))
        if share := coarse_share(workspace, training_of(study), run.input_size, run.grid):
            coarse = share, run.grid, student.arm.backbone
    masks = [workspace.drawn(study.annotated, 0), workspace.train_mask]
    marked = [int((mask & workspace.manifest.map_mask).sum()) for mask in masks]
    ladders = results.primary_ladders
    seeds, students = len(results.setup.seeds), study.students
    more = more_marks(ladders, results.budget, students, study.budgets, marked, seeds)
    ways = map(method_of, (training_of(study, name) for name in [*study.guidances] or [""]))
    apart = fall and not fall.sources and not fall.high_auc - fall.student < FALL
    if apart and all(way is None or way.needs == {"map"} for way in ways):
        return Hints(fall, best, coarse, more, bool(study.budgets), "family")
    family = results.family if not results.untested else pd.DataFrame()
    if more or family.empty or family["n"].min() < max(3, seeds):
        return Hints(fall, best, coarse, more, bool(study.budgets), "marks" if more else "")
    ends = ["low", "high", "image_low", "image_high"]
    worst = family.loc[family.groupby("backbone")["mean"].idxmin(), ends].to_numpy(float)
    sides = [excluded(a, b, (c, d)) for a, b, c, d in worst]
    nothing = all(side in (Excluded.GAIN, Excluded.BOTH) for side in sides)
    return Hints(fall, best, coarse, more, bool(study.budgets), "nothing" if nothing else "")


@dataclass
class StudyResults:
    """Results of a study."""

    by_domain: dict[str, Results]  # results by domain; one entry under "" without domains
    domains: pd.DataFrame = field(default_factory=DOMAINS.empty)

    @property
    def has_domains(self) -> bool:
        """Whether the study has domains, even if only one."""
        return list(self.by_domain) != [""]

    @property
    def first(self) -> Results:
        """Results of the first domain, or the only ones."""
        return next(iter(self.by_domain.values()))

    @property
    def seeds(self) -> int:
        """Number of seeds, the same in all domains."""
        return self.first.seeds

    @property
    def family(self) -> pd.DataFrame:
        """Comparisons of the tested family, of all domains."""
        parts = [family for results in self.by_domain.values() if len(family := results.family)]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()

    @property
    def untested(self) -> list[str]:
        """Backbones, with their domain, whose Student has not been compared with both baselines."""
        several = len(self.by_domain) > 1
        return [
            f"{name} in {domain}" if several else name
            for domain, results in self.by_domain.items()
            for name in results.untested
        ]

    @property
    def progress(self) -> tuple[int, int]:
        """Numbers of finished and of known trainings."""
        counts = [results.progress for results in self.by_domain.values()]
        return sum(done for done, _ in counts), sum(total for _, total in counts)

    @property
    def missing(self) -> list[str]:
        """Descriptions of trainings that have not finished, with their domain."""
        return self._named(lambda results: results.missing)

    @property
    def unscored(self) -> list[str]:
        """Descriptions of finished trainings without scores of the test sets, with their domain."""
        return self._named(lambda results: results.unscored)

    def _named(self, texts: Callable[[Results], list[str]]) -> list[str]:
        return [
            f"{domain}: {text}" if domain else text
            for domain, results in self.by_domain.items()
            for text in texts(results)
        ]


def gather_study(study: StudyPlan) -> StudyResults:
    """Collect the results of every domain; the tested family includes all domains."""
    return study_results([record_of(plan) for plan in study])


def study_results(records: Sequence[StudyRecord]) -> StudyResults:
    """Results of a study from the record of each domain."""
    study = StudyResults({record.setup.domain: results_of(record) for record in records})
    size = 2 * sum(len(results.setup.students) for results in study.by_domain.values())
    corrected = correct([results.comparisons for results in study.by_domain.values()], size)
    for one, comparisons in zip(study.by_domain.values(), corrected, strict=True):
        one.comparisons = comparisons
    if study.has_domains:
        study.domains = _domains(study)
    return study


def archive_study(study: StudyPlan, folder: Path, out: Path) -> int:
    """Write the scores, choices and tables of a study to a new folder, without weights and maps."""
    out = new_folder(out)
    records = [record_of(plan) for plan in study]
    tables = csv_files(study_results(records))
    kept = ("table.csv", "comparisons.csv", "ladder.csv", "budget.csv", "domains.csv")
    values = yaml.safe_load((folder / "study.yaml").read_text(encoding="utf-8"))
    changed = study.config.model_dump(mode="json", exclude_defaults=True)
    files = {name: tables[name] for name in kept if name in tables}
    files["study.yaml"] = dump_yaml(_also_in(values, changed))
    with replacing(out, new=True) as partial:
        write_archive(records, partial, files)
    return sum(len(record.entries) for record in records)


def _also_in(values: Any, changed: Any) -> Any:
    """Entries of a study file that differ from the defaults, as they are written there."""
    if not (isinstance(values, dict) and isinstance(changed, dict)):
        return values
    return {key: _also_in(values[key], changed[key]) for key in values if key in changed}


def write_archived_tables(folder: Path) -> list[str]:
    """Write the tables of an archive again, from its scores."""
    tables = csv_files(study_results(read_archive(folder)))
    del tables["runs.csv"]
    for name, text in tables.items():
        write_atomically(folder / name, text)
    return sorted(tables)


def csv_files(study: StudyResults) -> dict[str, str]:
    """CSV files by name, with a first column `domain` if there are several domains."""
    parts = {name: _by_file(results) for name, results in study.by_domain.items()}
    tables = parts.get("", {})
    if study.has_domains:
        for file in dict.fromkeys(file for one in parts.values() for file in one):
            own = [
                one[file].assign(domain=name)[["domain", *one[file].columns]]
                for name, one in parts.items()
                if file in one
            ]
            filled = [table for table in own if len(table)]
            tables[file] = pd.concat(filled or own[:1], ignore_index=True)
        tables["domains.csv"] = study.domains
    return {file: CSV_FILES[file].csv(table) for file, table in tables.items()}


def _by_file(results: Results) -> dict[str, pd.DataFrame]:
    """Tables of one domain by file name."""
    files = {
        "results.csv": results.figures,
        "rates.csv": results.rates,
        "runs.csv": results.runs,
        "table.csv": results.table,
        "comparisons.csv": results.comparisons,
        "ladder.csv": LADDER.table(ladder_table(results.ladders)),
    }
    return files | ({"budget.csv": results.budget} if results.setup.budgets else {})


def _domains(study: StudyResults) -> pd.DataFrame:
    lines = []
    for line in records(study.family):
        results = study.by_domain[line["domain"]]
        whole = whole_set(results.table, results.setup.primary)
        whole = whole[whole["backbone"] == line["backbone"]].set_index("key")
        kept = {key: value for key, value in line.items() if key not in ("question", "a")}
        kept |= {"primary": results.setup.primary, "images": int(whole.loc["student", "images"])}
        for side, key in (("student", "student"), ("baseline", line["key_b"])):
            kept |= {side: whole.loc[key, "mean"], f"{side}_std": whole.loc[key, "std"]}
        lines.append(kept)
    return DOMAINS.table(pd.DataFrame(lines))


def lost_runs(study: StudyPlan, out: Path) -> str:
    """Finished trainings in the tables of a study folder that new tables would lack, in words.

    They are missing, or no part of the study any more since its data or settings have changed.
    """
    table = read_table(out / "runs.csv", RUNS)
    table = table[table["finished"].astype(bool)].drop_duplicates("run")
    planned = {run.id for run in study.planned_runs()}
    lost: dict[str, list[str]] = {"missing": [], "of other data or settings": []}
    for row in table.to_dict("records"):
        name = f"{row['role']} {row['backbone']}, seed {row['seed']}: {row['run']}"
        if not is_finished(study.first.protocol.run_folder(row["run"])):
            lost["missing"].append(name)
        # Every study has the runs of Baseline 2, whatever it selects.
        elif row["role"] == "baseline2" and row["run"] not in planned:
            lost["of other data or settings"].append(name)
    return ", ".join(
        f"{len(several)} of {len(table)} {why} (first: {several[0]})"
        for why, several in lost.items()
        if several
    )
