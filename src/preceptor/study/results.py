"""What a study found, as plain tables: figures by run, the main table, comparisons, sentences.

Everything is made from finished folders, so it can be made at any time; what is missing is left
out and counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from preceptor.config import PAPER_ALPHA
from preceptor.evaluation.scores import ALL_SOURCES, figures
from preceptor.evaluation.statistics import (
    floor_note,
    holm,
    mean_std,
    paired_difference,
    share_of_the_way,
    two_level_bootstrap,
)
from preceptor.runs import is_finished, read_record, read_scores
from preceptor.study.graph import Arm
from preceptor.study.plan import Plan
from preceptor.study.selection import stack

OVERALL = "overall"  # the mean over backbones, seed by seed


@dataclass(frozen=True)
class Row:
    """One line of the main table: an arm of the study under the name it is shown by.

    Args:
        key: baseline1_paper, baseline1, baseline2, student, shuffled, centre or ceiling.
        title: For people, without the backbone.
        arms: By backbone.
    """

    key: str
    title: str
    arms: dict[str, Arm]


@dataclass
class Results:
    """Everything that tables, figures and sentences are made of.

    Args:
        primary: The evaluation set of the hypothesis tests.
        positive: The positive class, or None.
        classes: Class names in score order.
        runs: A row a training: role, backbone, alpha, teacher, seed, run, finished, seconds,
            images_seen, best_epoch, and validation metrics at the kept epoch (`val_auc`, …).
        figures: A row a run, set and source: role, backbone, alpha, teacher, seed, run, set,
            source ("" = whole set), images, positives, auc, eer, accuracy.
        rows: The lines of the main table that the study has, in order.
        table: A row a line, backbone (and "overall"), set and source: key, title, backbone, alpha,
            set, source, mean, std, n (AUC over seeds), accuracy, eer (means).
        comparisons: See `_compare`.
        shares: A row a backbone: share, low, high, reason.
        teachers: Stage 1 as selection saw it: name, value, low, high, tied, agreement, alpha.
        alphas: A row a role, backbone, α: mean and std of the worst validation AUC, chosen.
        sentences: What was found, in plain words.
        missing: What is not there, in plain words.
    """

    primary: str
    positive: str | None
    classes: list[str]
    runs: pd.DataFrame
    figures: pd.DataFrame
    rows: list[Row] = field(default_factory=list)
    table: pd.DataFrame = field(default_factory=pd.DataFrame)
    comparisons: pd.DataFrame = field(default_factory=pd.DataFrame)
    shares: pd.DataFrame = field(default_factory=pd.DataFrame)
    teachers: pd.DataFrame = field(default_factory=pd.DataFrame)
    alphas: pd.DataFrame = field(default_factory=pd.DataFrame)
    sentences: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def gather(plan: Plan) -> Results:
    """Collect what has finished.

    Args:
        plan: Its choices say which runs the table shows.
    """
    protocol = plan.protocol
    classes, positive = protocol.workspace.manifest.classes, protocol.study.positive
    runs, found = [], []
    for member in protocol.members:
        folder = protocol.run_folder(member.run)
        arm = member.arm
        identity = {
            "role": arm.role, "backbone": arm.backbone, "alpha": arm.alpha,
            "teacher": arm.teacher, "seed": member.seed, "run": member.run,
        }  # fmt: skip
        done = is_finished(folder)
        record = read_record(folder) if done else {}
        kept = {key: record.get(key) for key in ("seconds", "images_seen", "best_epoch")}
        metrics = {key: value for key, value in record.get("metrics", {}).items() if key != "epoch"}
        runs.append(identity | {"finished": done} | kept | metrics)
        evaluation = protocol.evaluation_folder(protocol.evaluation_id(member.run))
        for place in (folder, evaluation):
            if is_finished(place):
                part = figures(read_scores(place), classes, positive)
                found.append(part.assign(**identity))
    results = Results(
        primary=protocol.primary,
        positive=positive,
        classes=classes,
        runs=pd.DataFrame(runs),
        figures=pd.concat(found, ignore_index=True) if found else pd.DataFrame(),
    )
    results.rows = _rows(plan)
    results.missing = [
        f"{row.role} {row.backbone} α {row.alpha:g} seed {row.seed} is not trained"
        for row in results.runs.itertuples()
        if not row.finished
    ]
    if not results.figures.empty:
        results.table = _table(results)
        results.comparisons = _compare(plan, results)
        results.shares = _shares(plan, results)
    choice = plan.choices.get("teacher")
    results.teachers = pd.DataFrame(choice.table if choice else ())
    results.alphas = _alphas(plan)
    results.sentences = _sentences(plan, results)
    return results


def _rows(plan: Plan) -> list[Row]:
    """The lines of the main table whose α are chosen."""
    study, winner = plan.protocol.study, plan.winner()
    rows: list[Row] = []

    def add(key: str, title: str, arms: dict[str, Arm | None]) -> None:
        known = {backbone: arm for backbone, arm in arms.items() if arm is not None}
        if known:
            rows.append(Row(key, title, known))

    def chosen(role: str, of: str, teacher: str = "") -> dict[str, Arm | None]:
        arms: dict[str, Arm | None] = {}
        for backbone in study.students:
            alpha = plan.alpha_of(of, backbone)
            arms[backbone] = None if alpha is None else Arm(role, backbone, alpha, teacher)
        return arms

    paper = {name: Arm("baseline1", name, PAPER_ALPHA) for name in study.students}
    add("baseline1_paper", f"Baseline 1: annotated, human maps, α {PAPER_ALPHA:g}", {**paper})
    add("baseline1", "Baseline 1 at its best α", chosen("baseline1", "baseline1"))
    plain = {name: Arm("baseline2", name, 1.0) for name in study.students}
    add("baseline2", "Baseline 2: all images, no guidance", {**plain})
    if winner is not None:
        add(
            "student",
            "Student: all images, Teacher's maps",
            chosen("student", "student", str(winner)),
        )
        if "shuffled" in study.controls:
            title = "Control: the same maps, shuffled"
            add("shuffled", title, chosen("shuffled", "student", str(winner)))
        if "centre" in study.controls:
            add("centre", "Control: one centred map", chosen("centre", "student"))
    if study.ceiling:
        add("ceiling", "Ceiling: all images, all human maps", chosen("ceiling", "ceiling"))
    return rows


def select_arm(figures_table: pd.DataFrame, arm: Arm) -> pd.DataFrame:
    """The figures of one arm."""
    mask = (
        (figures_table["role"] == arm.role)
        & (figures_table["backbone"] == arm.backbone)
        & (figures_table["alpha"] == arm.alpha)
    )
    if arm.role in ("student", "shuffled"):
        mask &= figures_table["teacher"] == arm.teacher
    return figures_table[mask]


def _table(results: Results) -> pd.DataFrame:
    lines = []
    for row in results.rows:
        parts = {name: select_arm(results.figures, arm) for name, arm in row.arms.items()}
        for (evaluation, source), _ in results.figures.groupby(["set", "source"], sort=False):
            by_backbone: dict[str, pd.Series] = {}
            for backbone, part in parts.items():
                here = part[(part["set"] == evaluation) & (part["source"] == source)]
                if here.empty:
                    continue
                by_backbone[backbone] = here.set_index("seed")["auc"]
                lines.append(
                    _line(row, backbone, f"{row.arms[backbone].alpha:g}", str(evaluation),
                          str(source), by_backbone[backbone], here)
                )  # fmt: skip
            if len(by_backbone) > 1 and len(by_backbone) == len(row.arms):
                mean = pd.DataFrame(by_backbone).dropna().mean(axis=1)
                every = pd.concat(parts.values())
                here = every[(every["set"] == evaluation) & (every["source"] == source)]
                lines.append(_line(row, OVERALL, "", str(evaluation), str(source), mean, here))
    return pd.DataFrame(lines)


def _line(
    row: Row,
    backbone: str,
    alpha: str,
    evaluation: str,
    source: str,
    aucs: pd.Series,
    part: pd.DataFrame,
) -> dict[str, object]:
    summary = mean_std(aucs.to_numpy(float))
    return {
        "key": row.key, "title": row.title, "backbone": backbone, "alpha": alpha,
        "set": evaluation, "source": source, "mean": summary.mean, "std": summary.std,
        "n": len(aucs), "accuracy": float(part["accuracy"].mean()), "eer": float(part["eer"].mean()),
        "images": int(part["images"].iloc[0]),
    }  # fmt: skip


def _scores(plan: Plan, results: Results, arm: Arm) -> dict[int, pd.DataFrame]:
    """Test score tables of an arm by seed."""
    protocol = plan.protocol
    found = {}
    part = select_arm(results.figures, arm)
    for seed, run in part[["seed", "run"]].drop_duplicates().itertuples(index=False):
        folder = protocol.evaluation_folder(protocol.evaluation_id(run))
        if is_finished(folder):
            found[int(seed)] = read_scores(folder)
    return found


def _compare(plan: Plan, results: Results) -> pd.DataFrame:
    """Paired comparisons on the primary set.

    Columns: question (RQ1, RQ2, control, ceiling), backbone, a, b (titles), n, mean, std, low, high
    (paired by seed), p, p_floor, p_holm (the family alone, else NaN), image_low, image_high (the
    two-level bootstrap), difference_by_seed.
    """
    rows = {row.key: row for row in results.rows}
    pairs: list[tuple[str, str, Arm, Arm, str, str]] = []
    if "student" in rows:
        for key, question in (
            ("baseline1", "RQ2"), ("baseline2", "RQ2"), ("baseline1_paper", "RQ3"),
            ("shuffled", "control"), ("centre", "control"), ("ceiling", "ceiling"),
        ):  # fmt: skip
            if key in rows:
                pairs += [
                    (question, name, arm, rows[key].arms[name], "Student", rows[key].title)
                    for name, arm in rows["student"].arms.items()
                    if name in rows[key].arms
                ]
    pairs += _teacher_pairs(plan)
    lines = []
    for question, backbone, a, b, title_a, title_b in pairs:
        ours, theirs = _scores(plan, results, a), _scores(plan, results, b)
        seeds = sorted(set(ours) & set(theirs))
        if not seeds:
            continue
        labels, left, groups = stack(
            [ours[seed] for seed in seeds], results.primary, results.classes, results.positive
        )
        _, right, _ = stack(
            [theirs[seed] for seed in seeds], results.primary, results.classes, results.positive
        )
        aucs = [
            select_arm(results.figures, arm)
            .query("set == @results.primary and source == @ALL_SOURCES")
            .set_index("seed")["auc"]
            .loc[seeds]
            .to_numpy(float)
            for arm in (a, b)
        ]
        paired = paired_difference(*aucs)
        images = two_level_bootstrap(labels, left, right, groups)
        lines.append(
            {
                "question": question, "backbone": backbone, "a": title_a, "b": title_b,
                "n": paired.n, "mean": paired.mean, "std": paired.std, "low": paired.low,
                "high": paired.high, "p": paired.p, "p_floor": paired.p_floor,
                "p_holm": np.nan, "image_low": images.low, "image_high": images.high,
                "difference_by_seed": [round(float(value), 6) for value in aucs[0] - aucs[1]],
            }
        )  # fmt: skip
    table = pd.DataFrame(lines)
    if not table.empty:
        family = table["question"] == "RQ2"
        table.loc[family, "p_holm"] = holm(table.loc[family, "p"].to_numpy(float))
    return table


def _teacher_pairs(plan: Plan) -> list[tuple[str, str, Arm, Arm, str, str]]:
    """RQ1: the probe Students of each human-guided Teacher against the data-driven one's."""
    study, teachers = plan.protocol.study, plan.protocol.teachers()
    backbone = study.probe_backbone
    alpha = study.stage_one_alpha if study.plan == "staged" else study.alpha_grid[0]
    pairs = []
    for human in teachers:
        for data in teachers:
            if (human.kind, data.kind) == ("human", "data") and (human.name, human.method) == (
                data.name,
                data.method,
            ):
                pairs.append(
                    (
                        "RQ1",
                        backbone,
                        Arm("student", backbone, alpha, str(human)),
                        Arm("student", backbone, alpha, str(data)),
                        f"Students of {human}",
                        f"Students of {data}",
                    )  # fmt: skip
                )
    return pairs


def best_baseline(results: Results, backbone: str) -> str | None:
    """The key of the baseline with the higher mean AUC on the primary set: baseline1 or 2."""
    table = results.table
    if table.empty:
        return None
    here = table[
        (table["backbone"] == backbone)
        & (table["set"] == results.primary)
        & (table["source"] == ALL_SOURCES)
        & table["key"].isin(["baseline1", "baseline2"])
    ]
    return None if here.empty else str(here.sort_values("mean")["key"].iloc[-1])


def _shares(plan: Plan, results: Results) -> pd.DataFrame:
    rows = {row.key: row for row in results.rows}
    if not {"student", "ceiling"} <= set(rows):
        return pd.DataFrame()
    lines = []
    for backbone, arm in rows["student"].arms.items():
        best = best_baseline(results, backbone)
        if best is None or backbone not in rows["ceiling"].arms:
            continue
        arms = (arm, rows[best].arms[backbone], rows["ceiling"].arms[backbone])
        frames = [_scores(plan, results, one) for one in arms]
        seeds = sorted(set.intersection(*(set(part) for part in frames)))
        if not seeds:
            continue
        stacked = [
            stack(
                [part[seed] for seed in seeds], results.primary, results.classes, results.positive
            )
            for part in frames
        ]
        labels, _, groups = stacked[0]
        share = share_of_the_way(labels, *(part[1] for part in stacked), groups)
        lines.append(
            {
                "backbone": backbone, "baseline": best, "share": share.share, "low": share.low,
                "high": share.high, "reason": share.reason,
            }
        )  # fmt: skip
    return pd.DataFrame(lines)


def _alphas(plan: Plan) -> pd.DataFrame:
    lines = []
    for name, choice in plan.choices.items():
        if name == "teacher":
            continue
        role, backbone = name.split(":", 1)
        lines += [
            {"role": role, "backbone": backbone, "chosen": row["name"] == choice.winner, **row}
            for row in choice.table
        ]
    return pd.DataFrame(lines)


def _sentences(plan: Plan, results: Results) -> list[str]:
    """What the numbers support, and what they do not."""
    said: list[str] = []
    compared = results.comparisons
    if compared.empty:
        return ["No Student has been compared with a baseline yet."]
    n = int(compared["n"].min())
    for backbone in plan.protocol.study.students:
        here = compared[(compared["backbone"] == backbone) & (compared["question"] == "RQ2")]
        if here.empty:
            continue
        for line in here.itertuples():
            said.append(
                f"{backbone}: the Student's AUC on {results.primary} is "
                f"{_gain(line.mean, line.low, line.high)} {line.b} "
                f"({line.mean:+.3f}, 95 % interval {_interval(line.low, line.high)} over "
                f"{line.n} seeds; over images too: {_interval(line.image_low, line.image_high)})."
            )
        for line in compared[
            (compared["backbone"] == backbone) & (compared["question"] == "control")
        ].itertuples():
            said.append(
                f"{backbone}: against the control ({line.b.removeprefix('Control: ')}) the Student "
                f"is {_gain(line.mean, line.low, line.high)} it ({line.mean:+.3f}, "
                f"{_interval(line.low, line.high)})."
            )
    family = compared[compared["question"] == "RQ2"]
    if not family.empty:
        passed = family[family["p_holm"] <= 0.05]
        both = family.groupby("backbone")["mean"].min()
        won = int((both > 0).sum())
        said.insert(
            0,
            f"On {results.primary}, the Student's mean AUC is above both baselines for {won} of "
            f"{len(both)} backbone{'s' if len(both) != 1 else ''}; "
            f"{len(passed)} of {len(family)} comparisons hold after Holm's correction "
            f"({floor_note(n)}).",
        )
    for line in compared[compared["question"] == "RQ1"].itertuples():
        said.append(
            f"RQ1: {line.a} have AUC {line.mean:+.3f} against {line.b} "
            f"(95 % interval {_interval(line.low, line.high)})."
        )
    for line in results.shares.itertuples():
        if line.share is not None and np.isfinite(line.share):
            said.append(
                f"{line.backbone}: the Student goes {line.share:.0%} of the way from its best "
                f"baseline to the ceiling ({line.low:.0%} to {line.high:.0%})."
            )
        else:
            said.append(f"{line.backbone}: no share of the way is given: {line.reason}.")
    return said


def _gain(mean: float, low: float, high: float) -> str:
    if not (np.isfinite(low) and np.isfinite(high)):
        return "above" if mean > 0 else "not above"
    if low > 0:
        return "above"
    if high < 0:
        return "below"
    return "not distinguishable from"


def _interval(low: float, high: float) -> str:
    if not (np.isfinite(low) and np.isfinite(high)):
        return "none from one seed"
    return f"{low:+.3f} to {high:+.3f}"


def seeds_of(results: Results) -> Sequence[int]:
    """The seeds that occur."""
    return sorted(int(seed) for seed in results.runs["seed"].unique())
