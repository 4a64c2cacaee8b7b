"""Results of a study on one domain as tables: metrics by run, main table, comparisons.

Results are computed from finished folders at any time; missing ones are omitted and listed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import yaml

from preceptor.config.files import dump_yaml
from preceptor.errors import InputError
from preceptor.metrics.operating_points import roc_rates, threshold_rates
from preceptor.metrics.paired_tests import RELEVANT_DIFFERENCE, mean_std
from preceptor.metrics.scores import (
    ALL_SOURCES,
    deployed_scores,
    figure_rows,
    fixed_thresholds,
    positive_log_odds,
)
from preceptor.results.best import Best, chosen_student
from preceptor.results.budgets import budget_curve, budget_steps
from preceptor.results.comparisons import compare, correct, shares
from preceptor.results.ladder import Ladder, ladder_table, ladders
from preceptor.results.record import (
    Setup,
    StudyRecord,
    read_archive,
    record_of,
    write_archive,
)
from preceptor.results.rows import OVERALL, Row, records, row_order, select_arm
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
)
from preceptor.study.config import Setting
from preceptor.study.plan import Plan, StudyPlan
from preceptor.study.steps import Arm
from preceptor.utils.files import replacing
from preceptor.utils.results import write_atomically


@dataclass
class Results:
    """Results of one domain, from which tables, figures and sentences of the report are made.

    Args:
        primary: Evaluation set of the hypothesis tests.
        positive: Positive class, or None.
        classes: Class names in score order.
        runs: Trainings, with their validation metrics at the selected epoch; columns in
            `schema.RUNS`.
        figures: Metrics by run, set and source ("" = whole set); columns in `schema.FIGURES`.
        rows: Rows of the main table, in order.
        table: Results by row, backbone (and "overall"), set and source: mean, std and n of the AUC
            over seeds, means of the other metrics; columns in `schema.TABLE`.
        rates: Error rates by run and test set as in `operating_points.Rate`, of kind roc (test ROC
            curve) or fixed (at the threshold fixed on validation); columns in `schema.RATES`.
        comparisons: Paired comparisons, see `comparisons.compare`; columns in `schema.COMPARISONS`.
        shares: Share of the way by backbone and row (Student, variants): key, title, share, low,
            high, reason.
        ladders: Ladders by backbone and evaluation set, the primary set of a backbone first.
        teachers: Candidates of stage 1: name, value, low, high, tied, agreement, alpha.
        alphas: Candidates by role, backbone and α: values used by the selection (value, worst_set,
            low, high, tied, agreement), and whether the α was selected.
        budget: Results by annotated images, see `budgets.budget_curve`; columns in `schema.BUDGET`.
        budget_steps: Gains between budgets, see `budgets.budget_steps`.
        best: Selected Student; None if none has finished.
        missing: Descriptions of trainings that have not finished.
        unscored: Descriptions of finished trainings without the scores of test sets that are due.
        controls_alpha: own or student, see `StudyConfig`.
        relevant_difference: Smallest relevant difference in AUC, see `StudyConfig`.
        domain: Domain, or "".
        seeds: Number of seeds; None if it is found by looks.
        looks: Numbers of seeds after which the study may stop; () if the number of seeds is fixed.
        record: Record from which the results were computed.
        has_budget: Whether the study has numbers of annotated images to compare.
        students: Backbones of the Students of the study, also of those without results.
        dfr_set: Validation set on which the control dfr trains its last layer, or None.
    """

    primary: str
    positive: str | None
    classes: list[str]
    runs: pd.DataFrame
    figures: pd.DataFrame
    rows: list[Row] = field(default_factory=list)
    table: pd.DataFrame = field(default_factory=TABLE.empty)
    rates: pd.DataFrame = field(default_factory=RATES.empty)
    comparisons: pd.DataFrame = field(default_factory=COMPARISONS.empty)
    shares: pd.DataFrame = field(default_factory=pd.DataFrame)
    ladders: list[Ladder] = field(default_factory=list)
    teachers: pd.DataFrame = field(default_factory=pd.DataFrame)
    alphas: pd.DataFrame = field(default_factory=pd.DataFrame)
    budget: pd.DataFrame = field(default_factory=BUDGET.empty)
    budget_steps: pd.DataFrame = field(default_factory=pd.DataFrame)
    best: Best | None = None
    missing: list[str] = field(default_factory=list)
    unscored: list[str] = field(default_factory=list)
    controls_alpha: Literal["own", "student"] = "own"
    relevant_difference: float = RELEVANT_DIFFERENCE
    domain: str = ""
    seeds: int | None = None
    looks: tuple[int, ...] = ()
    record: StudyRecord | None = None
    has_budget: bool = False
    students: tuple[str, ...] = ()
    dfr_set: str | None = None

    def tests_of(self, arm: Arm) -> dict[int, pd.DataFrame]:
        """Scores of an arm on the test sets by seed; seeds without scores are omitted."""
        return {} if self.record is None else self.record.tests_of(arm)

    def ladders_on(self, evaluation: str) -> list[Ladder]:
        """Ladders on one evaluation set, one per backbone."""
        return [ladder for ladder in self.ladders if ladder.set == evaluation]

    def may_be_best(self, key: str, evaluation: str) -> bool:
        """Whether a row is ranked on a set: not the ceiling, nor models that are trained on it."""
        return key != "ceiling" and not self.is_trained_on(key, evaluation)

    def is_trained_on(self, key: str, evaluation: str) -> bool:
        """Whether the models of a row are trained on an evaluation set."""
        return key == "dfr" and evaluation == self.dfr_set

    @property
    def family(self) -> pd.DataFrame:
        """Comparisons of the tested family."""
        if self.comparisons.empty:
            return pd.DataFrame()
        return self.comparisons[self.comparisons["question"] == "RQ2"].assign(domain=self.domain)

    @property
    def untested(self) -> list[str]:
        """Backbones whose Student has not been compared with both baselines."""
        family = self.family
        if family.empty:
            return list(self.students)
        compared = family[family["mean"].notna()].groupby("backbone")["b"].nunique().to_dict()
        return [name for name in self.students if compared.get(name, 0) < 2]

    @property
    def progress(self) -> tuple[int, int]:
        """Numbers of finished and of known trainings; trainings with two roles are counted once."""
        once = self.runs.drop_duplicates("run")
        return int(once["finished"].sum()), len(once)


def gather(plan: Plan) -> Results:
    """Collect the results of all finished steps of one domain.

    Args:
        plan: Plan of the domain; its choices determine the runs of the main table.
    """
    return results_of(record_of(plan))


def results_of(record: StudyRecord) -> Results:
    """Results of one domain from its record."""
    setup = record.setup
    classes, positive, sets = list(setup.classes), setup.positive, setup.sets
    runs, found, rates = [], [], []
    results = Results(
        primary=setup.primary,
        positive=positive,
        classes=classes,
        runs=RUNS.empty(),
        figures=FIGURES.empty(),
        rows=list(setup.rows),
        controls_alpha="own" if setup.controls_alpha == "own" else "student",
        relevant_difference=setup.relevant_difference,
        best=chosen_student(record),
        domain=setup.domain,
        seeds=len(setup.seeds),
        record=record,
        has_budget=bool(setup.budgets),
        students=setup.students,
        dfr_set=setup.dfr_set,
    )
    named = set[str]()
    for member in record.members:
        arm = member.arm
        identity: dict[str, Any] = {
            "role": arm.label,
            "backbone": arm.backbone,
            "guidance": arm.guidance,
            "alpha": arm.alpha,
            "teacher": arm.teacher,
            "seed": member.seed,
            "run": member.run,
        }
        validated, tested = record.scores(member)
        if member.run not in named:
            named.add(member.run)
            alpha = "auto" if math.isnan(arm.alpha) else f"{arm.alpha:g}"
            name = f"{arm.label} {arm.backbone} α {alpha} seed {member.seed}"
            if validated is None:
                results.missing.append(f"{name} is not trained")
            elif tested is None and member.run in record.due:
                results.unscored.append(f"{name} has no scores of the test sets")
        unknown = dict.fromkeys(("seconds", "images_seen", "best_epoch"))
        entry = record.entries.get(member.run, unknown)
        runs.append(identity | {"finished": validated is not None} | dict(entry))
        found += [
            row | identity
            for scores, negatives in ((validated, setup.negatives), (tested, None))
            if scores is not None
            for row in figure_rows(scores, classes, positive, negatives)
        ]
        if validated is not None and tested is not None and positive is not None:
            rule, fixed = setup.threshold, None
            if arm.role != "dfr":  # which has learned the labels of a set that fixes thresholds
                fixed = fixed_thresholds(validated, positive, [rule]).get(rule)
            rates += [row | identity for row in error_rates(tested, classes, positive, fixed)]
    results.runs = RUNS.table(pd.DataFrame(runs))
    results.figures = FIGURES.table(pd.DataFrame(found), {"set": sets})
    results.rates = RATES.table(pd.DataFrame(rates))
    if not results.figures.empty:
        levels = {
            "set": sets,
            "key": row_order(results.rows),
            "backbone": [*setup.students, *setup.teachers, OVERALL],
        }
        results.table = TABLE.table(_table(results), levels)
        results.comparisons = COMPARISONS.table(compare(record, results.figures))
        results.shares = shares(record, results.figures)
        results.ladders = ladders(record, results.figures, results.runs, results.comparisons)
        results.budget = BUDGET.table(budget_curve(record, results.figures, results.runs))
        results.budget_steps = budget_steps(results.budget)
    results.teachers = pd.DataFrame(
        [row for one in setup.choices if one.role == "teacher" for row in one.choice.table]
    )
    results.alphas = _alphas(setup)
    return results


def error_rates(
    tested: pd.DataFrame, classes: list[str], positive: str, threshold: float | None
) -> list[dict[str, Any]]:
    """Error rates of one run on each test set.

    The ROC curve is that of the log-odds; the threshold is applied to the float32 scores of the
    model in use.

    Args:
        tested: Score table of the test sets.
        classes: Class names.
        positive: Positive class.
        threshold: Threshold that was fixed on validation; None = there is none.

    Returns:
        Rows with set, kind (roc or fixed) and the fields of `Rate`.
    """
    lines: list[dict[str, Any]] = []
    splits, labels, sources = (
        tested[name].to_numpy(object) for name in ("split", "label", "source")
    )
    scores = positive_log_odds(tested, classes, positive)
    in_use = deployed_scores(tested, positive)
    for name in dict.fromkeys(splits):
        rows = splits == name
        truth, groups = labels[rows] == positive, list(sources[rows])
        own = [("roc", rate) for rate in roc_rates(truth, scores[rows], groups)]
        if threshold is not None:
            found = threshold_rates(truth, in_use[rows], groups, threshold)
            own += [("fixed", rate) for rate in found]
        lines += [{"set": str(name), "kind": kind} | asdict(rate) for kind, rate in own]
    return lines


def _groups(figures_table: pd.DataFrame) -> Iterable[tuple[Any, pd.DataFrame]]:
    """Metrics by evaluation set and source."""
    return figures_table.groupby(["set", "source"], sort=False, observed=True)


def _table(results: Results) -> pd.DataFrame:
    lines = []
    places = [place for place, _ in _groups(results.figures)]
    for row in results.rows:
        parts = {name: select_arm(results.figures, arm) for name, arm in row.arms.items()}
        groups = {name: dict(list(_groups(part))) for name, part in parts.items()}
        for evaluation, source in places:
            by_backbone: dict[str, pd.Series] = {}
            for backbone, own in groups.items():
                if (evaluation, source) not in own:
                    continue
                here = own[evaluation, source].sort_values("seed")
                by_backbone[backbone] = here.set_index("seed")["auc"]
                lines.append(
                    _line(
                        row,
                        backbone,
                        row.arms[backbone].setting,
                        str(evaluation),
                        str(source),
                        by_backbone[backbone],
                        here,
                    )
                )
            # The same backbones in each row; a mapper may have some that no Student has.
            if len(results.students) > 1 and by_backbone.keys() >= {*results.students}:
                of_all = [by_backbone[name].rename(name) for name in results.students]
                common = pd.concat(of_all, axis=1, join="inner")
                mean = common.dropna().mean(axis=1)
                every = pd.concat([parts[name] for name in results.students])
                here = every[(every["set"] == evaluation) & (every["source"] == source)]
                # The seeds of the mean; a source with negatives only has no AUC in any.
                here = here[here["seed"].isin((mean if len(mean) else common).index)]
                here = here.sort_values(["backbone", "seed"])  # fixed order of summation
                if len(here):
                    place = str(evaluation), str(source)
                    lines.append(_line(row, OVERALL, None, *place, mean, here))
    return pd.DataFrame(lines)


def _line(
    row: Row,
    backbone: str,
    setting: Setting | None,
    evaluation: str,
    source: str,
    aucs: pd.Series,
    part: pd.DataFrame,
) -> dict[str, object]:
    summary = mean_std(aucs.to_numpy(float))
    return {
        "key": row.key,
        "title": row.title,
        "backbone": backbone,
        "guidance": setting.guidance if setting else "",
        "alpha": f"{setting.alpha:g}" if setting else "",
        "set": evaluation,
        "source": source,
        "mean": summary.mean,
        "std": summary.std,
        "n": len(aucs),
        "accuracy": float(part["accuracy"].mean()),
        "eer": float(part["eer"].mean()),
        "average_precision": float(part["average_precision"].mean()),
        "brier": float(part["brier"].mean()),
        "images": int(part["images"].iloc[0]),
    }


def _alphas(setup: Setup) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "role": one.role,
                "backbone": one.backbone,
                "chosen": row["name"] == one.choice.winner,
                **row,
            }
            for one in setup.choices
            if one.role != "teacher"
            for row in one.choice.table
        ]
    )


@dataclass
class StudyResults:
    """Results of a study.

    Args:
        by_domain: Results by domain; one entry under "" without domains.
        domains: RQ4, a row a domain, backbone and baseline: the AUCs of both sides (mean and std
            over seeds) and their paired difference as in `comparisons.compare`; columns in
            `schema.DOMAINS`.
    """

    by_domain: dict[str, Results]
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
    def seeds(self) -> int | None:
        """Number of seeds, the same in all domains; None if it is found by looks."""
        return self.first.seeds

    @property
    def looks(self) -> tuple[int, ...]:
        """Numbers of seeds after which the study may stop; the same in all domains."""
        return self.first.looks

    @property
    def relevant_difference(self) -> float:
        """Smallest relevant difference in AUC; the same in all domains."""
        return self.first.relevant_difference

    @property
    def family(self) -> pd.DataFrame:
        """Comparisons of the tested family, of all domains."""
        parts = [family for one in self.by_domain.values() if len(family := one.family)]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()

    @property
    def untested(self) -> list[str]:
        """Backbones, with their domain, whose Student has not been compared with both baselines."""
        several = len(self.by_domain) > 1
        return [
            f"{name} in {domain}" if several else name
            for domain, one in self.by_domain.items()
            for name in one.untested
        ]

    @property
    def progress(self) -> tuple[int, int]:
        """Numbers of finished and of known trainings."""
        counts = [one.progress for one in self.by_domain.values()]
        return sum(done for done, _ in counts), sum(total for _, total in counts)

    @property
    def missing(self) -> list[str]:
        """Descriptions of trainings that have not finished, with their domain."""
        return self._named(lambda one: one.missing)

    @property
    def unscored(self) -> list[str]:
        """Descriptions of finished trainings without scores of the test sets, with their domain."""
        return self._named(lambda one: one.unscored)

    def _named(self, texts: Callable[[Results], list[str]]) -> list[str]:
        return [
            f"{one.domain}: {text}" if one.domain else text
            for one in self.by_domain.values()
            for text in texts(one)
        ]


def gather_study(study: StudyPlan) -> StudyResults:
    """Collect the results of every domain; the tested family includes all domains."""
    return study_results([record_of(plan) for plan in study])


def study_results(records: Sequence[StudyRecord]) -> StudyResults:
    """Results of a study from the record of each domain."""
    found = StudyResults({one.setup.domain: results_of(one) for one in records})
    corrected = correct([one.comparisons for one in found.by_domain.values()])
    for one, comparisons in zip(found.by_domain.values(), corrected, strict=True):
        one.comparisons = comparisons
    if found.has_domains:
        found.domains = _domains(found)
    return found


def archive_study(study: StudyPlan, folder: Path, out: Path) -> int:
    """Write the scores, choices and tables of a study to a new folder, without weights and maps.

    Args:
        study: Plan of the study with its choices.
        folder: Study folder.
        out: New folder.

    Returns:
        Number of finished runs in the archive.

    Raises:
        InputError: The output exists, its parent does not, or a run is damaged.
    """
    if out.exists():
        raise InputError(f"{out}: exists already; name a new folder")
    if not out.parent.is_dir():
        raise InputError(f"{out}: there is no folder {out.parent}; create it first")
    records = [record_of(plan) for plan in study]
    tables = csv_files(study_results(records))
    kept = ("table.csv", "comparisons.csv", "ladder.csv", "budget.csv", "domains.csv")
    values = yaml.safe_load((folder / "study.yaml").read_text(encoding="utf-8"))
    changed = study.config.model_dump(mode="json", exclude_defaults=True)
    files = {name: tables[name] for name in kept if name in tables}
    files["study.yaml"] = dump_yaml(_also_in(values, changed))
    with replacing(out) as partial:
        write_archive(records, partial, files)
    return sum(len(one.entries) for one in records)


def _also_in(values: Any, changed: Any) -> Any:
    """Entries of a study file that differ from the defaults, as they are written there."""
    if not (isinstance(values, dict) and isinstance(changed, dict)):
        return values
    return {key: _also_in(values[key], changed[key]) for key in values if key in changed}


def write_archived_tables(folder: Path) -> list[str]:
    """Write the tables of an archive again, from its scores.

    Args:
        folder: Archive. Its runs.csv, from which tables are made, is kept.

    Returns:
        Names of the files.
    """
    tables = csv_files(study_results(read_archive(folder)))
    del tables["runs.csv"]
    for name, text in tables.items():
        write_atomically(folder / name, text)
    return sorted(tables)


def csv_files(found: StudyResults) -> dict[str, str]:
    """CSV files by name, with a first column `domain` if there are several domains."""
    tables: dict[str, pd.DataFrame] = {}
    parts = {name: _by_file(one) for name, one in found.by_domain.items()}
    if found.has_domains:
        for file in dict.fromkeys(file for one in parts.values() for file in one):
            own = [
                one[file].assign(domain=name)[["domain", *one[file].columns]]
                for name, one in parts.items()
                if file in one
            ]
            filled = [table for table in own if len(table)]
            tables[file] = pd.concat(filled or own[:1], ignore_index=True)
        tables["domains.csv"] = found.domains
    else:
        tables = parts[""]
    return {file: CSV_FILES[file].csv(table) for file, table in tables.items()}


def _by_file(results: Results) -> dict[str, pd.DataFrame]:
    """Tables of one domain by file name."""
    found = {
        "results.csv": results.figures,
        "rates.csv": results.rates,
        "runs.csv": results.runs,
        "table.csv": results.table,
        "comparisons.csv": results.comparisons,
        "ladder.csv": LADDER.table(ladder_table(results.ladders)),
    }
    return found | ({"budget.csv": results.budget} if results.has_budget else {})


def _domains(found: StudyResults) -> pd.DataFrame:
    lines = []
    for line in records(found.family):
        results = found.by_domain[line["domain"]]
        table = results.table
        whole = table[(table["set"] == results.primary) & (table["source"] == ALL_SOURCES)]
        whole = whole[whole["backbone"] == line["backbone"]].set_index("key")
        kept = {key: value for key, value in line.items() if key not in ("question", "a")}
        lines.append(
            kept
            | {
                "primary": results.primary,
                "images": int(whole.loc["student", "images"]),
                "student": whole.loc["student", "mean"],
                "student_std": whole.loc["student", "std"],
                "baseline": whole.loc[line["key_b"], "mean"],
                "baseline_std": whole.loc[line["key_b"], "std"],
            }
        )
    return DOMAINS.table(pd.DataFrame(lines))
