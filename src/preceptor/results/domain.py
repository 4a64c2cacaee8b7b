"""Results of a study on one domain as tables: metrics by run, main table, comparisons.

Results are computed from finished folders at any time; missing ones are omitted and listed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from preceptor.evaluation.equivalence import RELEVANT_DIFFERENCE
from preceptor.evaluation.paired_tests import mean_std
from preceptor.evaluation.scores import figure_rows, fixed_thresholds
from preceptor.results.best import Best, chosen_student
from preceptor.results.budgets import budget_curve, budget_steps
from preceptor.results.comparisons import compare
from preceptor.results.error_rates import error_rates
from preceptor.results.ladder import Ladder, ladders
from preceptor.results.rows import (
    OVERALL,
    Row,
    records,
    row_order,
    select_arm,
    set_order,
    table_rows,
)
from preceptor.results.schema import BUDGET, COMPARISONS, FIGURES, RATES, RUNS, TABLE
from preceptor.results.score_files import ScoreFiles
from preceptor.results.shares import shares
from preceptor.study.looks import LookResult
from preceptor.study.plan import Plan
from preceptor.study.setting import Setting
from preceptor.training.record import RunRecord


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
        looked: Looks made so far, in order.
        files: Score files from which the results were computed.
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
    looked: list[LookResult] = field(default_factory=list)
    files: ScoreFiles = field(default_factory=ScoreFiles)
    students: tuple[str, ...] = ()
    dfr_set: str | None = None

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
    protocol = plan.protocol
    classes, positive = protocol.workspace.manifest.classes, protocol.study.positive
    sets, files = set_order(plan), ScoreFiles()
    runs, found, rates, unscored = [], [], [], set[str]()
    for member in plan.members:
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
        validated, tested = files.validation(protocol, member), files.test(protocol, member)
        done = validated is not None
        if tested is None and protocol.evaluation_id(member) in plan.steps:
            unscored.add(member.run)
        folder = protocol.run_folder(member.run)
        runs.append(identity | {"finished": done} | _recorded(folder if done else None))
        found += [
            row | identity
            for scores, negatives in (
                (validated, protocol.study.validation_negatives),
                (tested, None),
            )
            if scores is not None
            for row in figure_rows(scores, classes, positive, negatives)
        ]
        if validated is not None and tested is not None and positive is not None:
            rule, fixed = protocol.study.threshold, None
            if arm.role != "dfr":  # which has learned the labels of a set that fixes thresholds
                fixed = fixed_thresholds(validated, positive, [rule]).get(rule)
            rates += [row | identity for row in error_rates(tested, classes, positive, fixed)]
    results = Results(
        primary=protocol.primary,
        positive=positive,
        classes=classes,
        runs=RUNS.table(pd.DataFrame(runs)),
        figures=FIGURES.table(pd.DataFrame(found), {"set": sets}),
        rates=RATES.table(pd.DataFrame(rates)),
        controls_alpha=protocol.study.controls_alpha,
        relevant_difference=protocol.study.relevant_difference,
        best=chosen_student(plan, files),
        domain=plan.domain,
        seeds=None if protocol.study.looks else len(protocol.study.seed_list),
        looks=protocol.study.looks,
        looked=list(plan.looks.values()),
        files=files,
        students=tuple(protocol.study.students),
        dfr_set=protocol.study.dfr_set,
    )
    results.rows = table_rows(plan)
    for row in records(pd.DataFrame(runs).drop_duplicates("run")):
        alpha = "auto" if math.isnan(row["alpha"]) else f"{row['alpha']:g}"
        name = f"{row['role']} {row['backbone']} α {alpha} seed {row['seed']}"
        if not row["finished"]:
            results.missing.append(f"{name} is not trained")
        elif row["run"] in unscored:
            results.unscored.append(f"{name} has no scores of the test sets")
    if not results.figures.empty:
        levels = {
            "set": sets,
            "key": row_order(results.rows),
            "backbone": [*protocol.study.students, *protocol.study.teachers, OVERALL],
        }
        results.table = TABLE.table(_table(results), levels)
        shown = plan, results.rows, results.figures, files
        results.comparisons = COMPARISONS.table(compare(*shown))
        results.shares = shares(*shown)
        results.ladders = ladders(*shown, results.runs, results.comparisons)
    choice = plan.teacher_choice
    results.teachers = pd.DataFrame(choice.table if choice else ())
    results.alphas = _alphas(plan)
    if not results.figures.empty:
        results.budget = BUDGET.table(budget_curve(plan, results.figures, results.runs))
        results.budget_steps = budget_steps(results.budget)
    return results


def _recorded(folder: Path | None) -> dict[str, float | None]:
    """Entries of a training in the table of runs; None if it has not finished."""
    record = None if folder is None else RunRecord.read(folder)
    if record is None:
        return dict.fromkeys(("seconds", "images_seen", "best_epoch"))
    kept: dict[str, float | None] = {
        "seconds": record.seconds,
        "images_seen": record.images_seen,
        "best_epoch": record.best_epoch,
    }
    names = {"guidance": "guidance_term"}  # the column guidance has the way of guiding
    metrics = {names.get(key, key): value for key, value in record.metrics.items()}
    return kept | {key: value for key, value in metrics.items() if key != "epoch"}


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


def _alphas(plan: Plan) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "role": selection.role,
                "backbone": selection.backbone,
                "chosen": row["name"] == choice.winner,
                **row,
            }
            for selection, choice in plan.choices.items()
            if selection.role != "teacher" and not selection.seeds
            for row in choice.table
        ]
    )
