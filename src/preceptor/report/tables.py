"""Tables of results for the page, the summary and the model card."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from preceptor.metrics.operating_points import APCERS, FDRS, TERMS, TOO_SMALL, Terms, rule_rate
from preceptor.metrics.paired_tests import mean_std, paired_difference
from preceptor.metrics.scores import ALL_SOURCES
from preceptor.report.blocks import Cell, Line, Table, common_seeds_text, mean_std_text, short
from preceptor.results.comparisons import BY_TEACHER, Reproduction
from preceptor.results.domain import Results
from preceptor.results.ladder import LINES
from preceptor.results.record import (
    DEVICE_MEMORY,
    EPOCHS,
    OVERALL,
    Row,
    records,
    select_arm,
    whole_set,
)
from preceptor.study.config import PAPER_ALPHA, Setting, StudyConfig
from preceptor.study.plan import Plan
from preceptor.study.steps import Arm
from preceptor.utils.text import DASH, interval, number, p_value

_QUESTIONS = {
    "RQ1": "human-guided minus data-driven",
    "saliency": "RISE maps minus CAMs",
    "RQ2": "against the baselines",
    "RQ3": f"against Baseline 1 at α {PAPER_ALPHA:g}",
    "overall": "the mean over backbones, seed by seed",
    "control": "against the controls",
    "detector": "against the mapper as a detector",
    "ceiling": "against the ceiling",
    "start": "all from the mapper's weights",
}


def _arms(results: Results, table: pd.DataFrame, backbone: str) -> Iterator[tuple[Row, Any]]:
    """Rows of the main table with their part of a table by run, where there is one."""
    for row in results.setup.rows:
        if backbone in row.arms and len(part := select_arm(table, row.arms[backbone])):
            yield row, part


def set_table(plan: Plan, results: Results, evaluation: str) -> Table | None:
    """Mean ± std of the AUC on one whole set: rows are arms, columns backbones and "overall"."""
    table = whole_set(results.table, evaluation)
    if table.empty:
        return None
    backbones, study = set(table["backbone"]), plan.protocol.study
    # A mapper that is used as a detector may have a backbone that no Student has.
    order = dict.fromkeys([*study.students, *study.teachers, OVERALL])
    columns = [name for name in order if name in backbones]
    ranked = table[[results.may_be_best(key, evaluation) for key in table["key"]]]
    best = ranked.groupby("backbone")["mean"].max()

    def cell(row: Row, column: str, line: dict[str, Any] | None) -> Cell:
        if line is None:
            return Cell()
        notes = [_setting_note(row, row.arms[column]) if column in row.arms else ""]
        if (trials := line["trials"]) is not None and trials > 1:
            notes.append(f"{trials:.0f} trials")
        notes.append(_seeds_note(results, line["n"]))
        if results.is_trained_on(row.key, evaluation):
            notes.append("trained on images of this set")
        is_best = results.may_be_best(row.key, evaluation) and line["mean"] == best[column]
        return Cell(_spread(line), ", ".join(filter(None, notes)), is_best)

    lines = []
    for row in results.setup.rows:
        mine = {line["backbone"]: line for line in records(table[table["key"] == row.key])}
        if mine:
            cells = [cell(row, column, mine.get(column)) for column in columns]
            lines.append(Line(row.heading, cells, row.key == "student"))
    images = int(table["images"].iloc[0])
    positive = results.setup.positive
    what = f"AUC of {positive}" if positive is not None else "one-vs-rest AUC"
    caption = f"{evaluation}: {what}, mean ± standard deviation over seeds ({images:,} images"
    caption += f"{' in the first draw' if results.setup.draws else ''})."
    return Table(caption, "", columns, lines)


def _spread(line: dict[str, Any], prefix: str = "") -> str:
    mean, std = ("mean", "std") if not prefix else (prefix, f"{prefix}_std")
    return mean_std_text(line[mean], line[std])


def _seeds_note(results: Results, n: int) -> str:
    """Number of seeds of a mean; "" if it has all, or none."""
    seeds = len(results.setup.seeds)
    return f"{n} of {seeds} seeds" if 0 < n < seeds else ""


def _mean_cell(results: Results, values: Sequence[float] | pd.Series) -> Cell:
    """Mean ± std of the values that are known, with a note if some are not."""
    known = [value for value in values if not math.isnan(value)]
    return Cell(mean_std_text(*mean_std(known)), _seeds_note(results, len(known)))


def _setting_note(row: Row, arm: Arm) -> str:
    """Selected setting of an arm; "" if nothing was selected."""
    if row.key in ("baseline2", "mapper", "mapper_all"):  # at most the length, or the maps alone
        return f"{arm.steps:,} steps" if arm.steps else ""
    if (arm.alpha == 1 and not arm.steps) or row.key == "baseline1_paper":
        return arm.guidance
    return str(arm.setting)


def source_table(results: Results, evaluation: str, backbone: str) -> Table | None:
    """AUC by source: rows are sources, columns arms."""
    table = results.table
    table = table[(table["set"] == evaluation) & (table["backbone"] == backbone)]
    keys = [row.key for row in results.setup.rows if (table["key"] == row.key).any()]
    lines = []
    for source in sorted(set(table["source"]) - {ALL_SOURCES}):
        here = table[table["source"] == source]
        if not here["mean"].notna().any():
            continue  # a source with negatives only has no AUC
        best = here[[results.may_be_best(key, evaluation) for key in here["key"]]]["mean"].max()
        mine = {line["key"]: line for line in records(here)}
        cells = [
            Cell(
                _spread(mine[key]),
                _seeds_note(results, mine[key]["n"]),
                best=results.may_be_best(key, evaluation) and mine[key]["mean"] == best,
            )
            if key in mine
            else Cell()
            for key in keys
        ]
        lines.append(Line(f"{source} ({int(here['images'].iloc[0]):,})", cells))
    if not lines:
        return None
    caption = f"{backbone} on {evaluation}: AUC by source (images of the source in brackets)."
    return Table(caption, "Source", [short(key) for key in keys], lines)


def worst_source_table(results: Results, evaluation: str, backbone: str) -> Table | None:
    """Worst source and mean of sources: accuracy and AUC of each row, and the Student's gain.

    The worst source is that of each seed's model, as the worst group of the literature on spurious
    correlations (S. Sagawa et al., ICLR 2020).
    """
    figures = results.figures
    here = figures[(figures["set"] == evaluation) & (figures["source"] != ALL_SOURCES)]
    if here["source"].nunique() < 2:
        return None
    by_row = {
        row.key: part.drop_duplicates(["seed", "source"]).groupby("seed")[["accuracy", "auc"]]
        for row, part in _arms(results, here, backbone)
    }
    worst = {key: part.min() for key, part in by_row.items()}
    titles, lines = {row.key: row.heading for row in results.setup.rows}, []
    for key, part in by_row.items():
        spreads = [worst[key]["accuracy"], part.mean()["accuracy"], worst[key]["auc"]]
        cells = [_mean_cell(results, spread) for spread in spreads]
        if "student" in worst and key != "student":
            ours, theirs = worst["student"]["accuracy"], worst[key]["accuracy"]
            seeds = ours.index.intersection(theirs.index)
            pair = paired_difference(ours[seeds], theirs[seeds])
            cells.append(Cell(number(pair.mean, sign=True), interval(pair.low, pair.high)))
            cells.append(Cell(p_value(pair.p)))
        else:
            cells += [Cell(), Cell()]
        lines.append(Line(titles[key], cells, key == "student"))
    caption = (
        f"{backbone} on {evaluation}: worst source and mean of sources, mean ± std over seeds. "
        "Accuracy is of the most probable class; AUC is of the classes of a source, of positives "
        "alone with the negatives of the set. The difference has its 95 % interval over seeds."
    )
    columns = ["Worst accuracy", "Mean accuracy", "Worst AUC", "Student − row, worst accuracy", "p"]
    return Table(caption, "", columns, lines) if lines else None


def comparison_tables(results: Results, questions: Sequence[str]) -> list[Table]:
    """A table of paired comparisons for each question that has some."""
    tables = []
    for question in questions if len(results.comparisons) else ():
        here = results.comparisons[results.comparisons["question"] == question]
        if here.empty:
            continue
        family, by_teacher = question == "RQ2", question in BY_TEACHER
        columns = ["Difference", "95 % interval, seeds", "p (sign-flip)"]
        columns += ["p (Holm)"] if family else []
        columns += ["95 %, seeds × images", "Seeds for ±0.01", "By seed"]
        lines = []
        for row in records(here):
            heading = f"{row['backbone']}: {short(row['key_b'])}"
            if by_teacher:
                heading = f"{row['teacher_a']} − {row['teacher_b']}"
            cells = [
                Cell(number(row["mean"], sign=True), "" if row["n"] > 1 else "one seed"),
                Cell(interval(row["low"], row["high"])),
                _p_cell(row),
            ]
            cells += [Cell(p_value(row["p_holm"]))] if family else []
            expected, cautious = row["seeds_needed"], row["seeds_cautious"]
            more = f"up to {cautious:,.0f}" if cautious > expected else ""
            cells += [
                Cell(interval(row["image_low"], row["image_high"])),
                Cell(f"{expected:,.0f}", more) if row["n"] > 2 else Cell(),
                Cell(", ".join(number(value, sign=True) for value in row["difference_by_seed"])),
            ]
            lines.append(Line(heading, cells))
        whose, corner = "Student minus the model of the row", "Backbone and model"
        if by_teacher:
            whose = f"Probe Students ({here['backbone'].iloc[0]}) by their Teacher"
            corner = "Teachers"
        kind = "tested family" if family else "descriptive"
        caption = f"{whose} on {results.setup.primary}, {_QUESTIONS[question]} ({kind})."
        tables.append(Table(caption, corner, columns, lines))
    return tables


# Columns of the table of guidance methods by the key that a method is compared with.
_AGAINST = {
    "shuffled": "− shuffled",
    "shuffled_human": "− shuffled",
    "centre": "− centered map",
    "baseline2": "− no maps",
}


def guidance_tables(results: Results) -> list[Table]:
    """A table for each backbone and source of maps: a row for each way of guiding."""
    tables, compared = [], results.comparisons
    compared = compared[compared["question"] == "guidance"] if len(compared) else compared
    for (backbone, role), part in compared.groupby(["backbone", "key_a"], sort=False):
        keys, lines = list(dict.fromkeys(part["key_b"])), []
        for way, own in part.groupby("a", sort=False):
            rows = {row["key_b"]: row for row in records(own)}
            arm = next(
                arm
                for arm in results.setup.ways
                if (arm.role, arm.backbone, arm.guidance) == (role, backbone, way)
            )
            aucs = whole_set(select_arm(results.figures, arm), results.setup.primary)["auc"]
            cells = [Cell(mean_std_text(*mean_std(aucs.to_numpy(float))))]
            for key in keys:
                row = rows.get(key)
                gain = "" if row is None else number(row["mean"], sign=True)
                cells.append(Cell(gain, interval(row["low"], row["high"])) if row else Cell())
                if key in ("shuffled", "shuffled_human"):
                    cells.append(Cell(p_value(row["p_holm"])) if row else Cell())
            cells += [_epochs(results, arm), Cell(*_relative_costs(results, arm))]
            lines.append(Line(f"{way}, α {arm.alpha:g}", cells))
        columns = ["AUC"]
        for key in keys:
            columns.append(_AGAINST[key])
            columns += ["p (Holm)"] if key in ("shuffled", "shuffled_human") else []
        whose = "the Teacher's maps" if role == "student" else "people's maps on all images"
        caption = (
            f"{backbone} on {results.setup.primary}, guided by {whose}: each method at its best "
            "α on validation, minus the method with other maps, and minus no maps (95 % interval "
            "over seeds). Epochs: mean AUC on the worst validation set at the selected epoch and "
            "at the last one. Cost, relative to Baseline 2: time of a training image; on a GPU, "
            "also memory."
        )
        tables.append(Table(caption, "Method", [*columns, "Epochs", "Cost"], lines))
    return tables


def _epochs(results: Results, arm: Arm) -> Cell:
    """Validation AUC at the selected and at the last epoch, mean over seeds."""
    runs = select_arm(results.runs, arm)
    # Archives of earlier versions do not have them.
    selected, last = (runs[epoch].mean() if epoch in runs else math.nan for epoch in EPOCHS)
    return Cell(number(selected), f"last {number(last)}")


def _relative_costs(results: Results, arm: Arm) -> tuple[str, str]:
    """Median time of an image and median GPU memory, relative to Baseline 2 of the backbone."""
    runs = results.runs[results.runs["finished"].astype(bool)]
    plain = runs[(runs["role"] == "baseline2") & (runs["backbone"] == arm.backbone)]
    parts = [select_arm(runs, arm), plain]
    own, base = ((part["seconds"] / part["images_seen"]).astype(float).median() for part in parts)
    time = number(own / base, 2) if base > 0 else DASH
    if DEVICE_MEMORY not in runs:
        return time, ""
    own, base = (part[DEVICE_MEMORY].astype(float).median() for part in parts)
    return time, f"memory {number(own / base, 2)}"


def _p_cell(row: dict[str, Any]) -> Cell:
    return Cell(p_value(row["p"]), f"floor {p_value(row['p_floor'])}")


def teacher_table(plan: Plan, results: Results) -> Table | None:
    """Candidates of stage 1 with the values used by the selection."""
    choice = plan.teacher_choice
    if results.teachers.empty or choice is None:
        return None
    lines = []
    for row in records(results.teachers):
        difference = interval(row["low"], row["high"]) if row["low"] or row["high"] else "the best"
        won = row["name"] == choice.winner
        cells = [
            Cell(number(row["value"]), row["worst_set"]),
            Cell(difference),
            Cell("yes" if row["tied"] else "no"),
            Cell(number(row["agreement"], 2)),
            Cell("selected" if won else ""),
        ]
        lines.append(Line(row["name"], cells, won))
    columns = ["Validation AUC of its Students", "Difference to the best", "Tied with the best"]
    columns += ["Agreement with human maps (r)", "Selection"]
    caption = "Teachers in stage 1: AUC of their probe Students on the worst validation set."
    return Table(caption, "Teacher", columns, lines)


def alpha_table(results: Results) -> Table | None:
    """Validation AUC of each setting for Baseline 1, Student and ceiling; the selected is best."""
    roles = ("baseline1", "student", "ceiling")
    table = results.alphas
    if table.empty or (table := table[table["role"].isin(roles) & table["value"].notna()]).empty:
        return None
    table = table.assign(setting=[*map(str, map(Setting, table["alpha"], table["guidance"]))])
    table = table.sort_values(["guidance", "alpha"], kind="stable")
    columns = {
        f"{backbone}: {short(str(role))}": part.drop_duplicates("setting").set_index("setting")
        for (backbone, role), part in table.groupby(["backbone", "role"], sort=False)
    }
    lines = []
    for setting in dict.fromkeys(table["setting"]):
        cells = []
        for part in columns.values():
            there = setting in part.index
            value = number(part.at[setting, "value"]) if there else DASH
            cells.append(Cell(value, best=there and bool(part.at[setting, "chosen"])))
        lines.append(Line(setting, cells))
    caption = "Validation AUC on the worst set, mean over seeds; ▲ marks the selected setting."
    return Table(caption, "Setting", [*columns], lines)


def domain_table(domains: pd.DataFrame) -> Table | None:
    """Table on RQ4: Student and both baselines, one row per domain (and backbone).

    Which baseline is the stronger one is open where one of them has no results yet.
    """
    if domains.empty:
        return None
    lines, baselines = [], ("baseline1", "baseline2")
    several = domains["backbone"].nunique() > 1
    for (domain, backbone), part in domains.groupby(["domain", "backbone"], sort=False):
        rows = {row["key_b"]: row for row in records(part)}
        hardest = min(rows.values(), key=lambda row: row["mean"])
        cells = [Cell(f"{hardest['primary']}", f"{hardest['images']:,} images")]
        cells += [Cell(_spread(rows[k], "baseline")) if k in rows else Cell() for k in baselines]
        cells.append(Cell(_spread(hardest, "student")))
        if len(rows) == len(baselines):
            larger = max(row["p_holm"] for row in rows.values())
            own = (hardest[name] for name in ("mean", "student", "baseline", "n"))
            cells += [
                Cell(number(hardest["mean"], sign=True), common_seeds_text(*own)),
                Cell(interval(hardest["low"], hardest["high"])),
                Cell(interval(hardest["image_low"], hardest["image_high"])),
                Cell(p_value(larger)),
            ]
        else:
            cells += [Cell()] * 4
        lines.append(Line(f"{domain}: {backbone}" if several else str(domain), cells))
    columns = ["Set", *map(short, baselines), "Student", "Student − stronger baseline"]
    columns += ["95 % interval, seeds", "95 %, seeds × images", "larger p (Holm, all domains)"]
    return Table("AUC by domain, mean ± std over seeds.", "Domain", columns, lines)


def budget_table(study: StudyConfig, results: Results, backbone: str) -> Table | None:
    """Results by number of annotated images."""
    curve = results.budget[results.budget["backbone"] == backbone]
    if curve.empty:
        return None
    timed = curve["minutes"].notna().all()
    shown = {line: name for line, name in LINES.items() if line in set(curve["line"])}
    lines = []
    for size in study.budgets:
        here = {row["line"]: row for row in records(curve[curve["size"] == size])}
        if not here:
            continue
        cells = [Cell(number(next(iter(here.values()))["minutes"], 1))] if timed else []
        for line in shown:
            point, cell = here.get(line), Cell()
            if point is not None:
                spread = f"{number(point['low'])} to {number(point['high'])}"
                cell = Cell(number(point["mean"]), spread if math.isfinite(point["low"]) else "")
            cells.append(cell)
        lines.append(Line(f"{size:,}", cells))
    columns = [*(["Minutes"] if timed else []), *shown.values()]
    caption = (
        f"{backbone}: AUC on {results.setup.primary} by the number of annotated images, mean and "
        "95 % interval over seeds; the images are a new draw for every seed."
    )
    return Table(caption, "Annotated", columns, lines)


def published_table(results: Results, reproduced: Sequence[Reproduction]) -> Table:
    """Published results beside those of the study."""
    lines = []
    for own in reproduced:
        cells = [
            Cell(mean_std_text(*own.published)),
            Cell(mean_std_text(own.mean, own.std), f"{own.n} seed{'s' if own.n != 1 else ''}"),
            Cell(number(own.difference, sign=True)),
            Cell(interval(own.low, own.high)),
        ]
        lines.append(Line(f"{own.backbone}: {short(own.key)}", cells, own.key == "student"))
    caption = (
        f"AUC on {results.setup.primary}, mean ± standard deviation over trainings. The interval "
        "is a t interval over the seeds of this study; the published mean is treated as exact, "
        "because its number of trainings is not known. An interval with its error would be wider."
    )
    columns = ["Published", "This study", "This study − published", "95 % interval"]
    return Table(caption, "Row", columns, lines)


# Error rates and metrics other than AUC

Operating = tuple[str, float, str]  # measure, operating point (0 if it has none) and source


def roc_rate_table(
    study: StudyConfig, results: Results, evaluation: str, backbone: str
) -> Table | None:
    """Error rates on the test ROC curve, with thresholds chosen on the test scores."""
    terms = TERMS[study.terms]
    columns: dict[str, Operating] = {terms.eer: ("eer", 0, "")}
    columns |= {f"{terms.tdr} at {terms.fdr} {_share(x)}": ("tdr", x, "") for x in FDRS}
    columns |= {
        f"{terms.bpcer} at {terms.worst_apcer} ≤ {_share(x)}": ("bpcer", x, "") for x in APCERS
    }
    rates = results.rates[(results.rates["set"] == evaluation) & (results.rates["kind"] == "roc")]
    caption = (
        f"{backbone} on {evaluation}: error rates on the test ROC curve, mean ± std over seeds. "
        "The thresholds are chosen on the test set and are not achievable in deployment."
    )
    small = dict.fromkeys(note for note in rates["note"] if note)
    caption += f" {'; '.join(small)}." if small else ""
    return _rate_table(results, rates, backbone, caption, columns)


def fixed_rate_table(
    study: StudyConfig, results: Results, evaluation: str, backbone: str
) -> Table | None:
    """Error rates at the threshold of each model that was fixed on its validation scores."""
    if results.setup.positive is None:
        return None
    terms, rates = TERMS[study.terms], results.rates
    rates = rates[(rates["set"] == evaluation) & (rates["kind"] == "fixed")]
    sources = sorted({*rates.loc[rates["measure"] == "apcer", "source"]} - {""})
    columns: dict[str, Operating] = {f"{terms.apcer}: {one}": ("apcer", 0, one) for one in sources}
    columns |= {
        terms.worst_apcer if sources else terms.apcer: ("worst_apcer", 0, ""),
        terms.bpcer: ("bpcer", 0, ""),
        terms.acer: ("acer", 0, ""),
    }
    caption = (
        f"{backbone} on {evaluation}: error rates at the threshold fixed on validation "
        f"({rule_words(study.threshold, terms)}), mean ± std over seeds; "
        f"{terms.acer} is the mean of the previous two."
    )
    if (dfr_set := results.setup.dfr_set) is not None:
        caption += f" “{short('dfr')}” has none: it is trained on {dfr_set}, which fixes them."
    without, undefined = [], []
    for row, part in _arms(results, whole_set(results.figures, evaluation), backbone):
        models = part["seed"].nunique()
        count = models - select_arm(rates, row.arms[backbone])["seed"].nunique()
        if count and row.key not in ("dfr", "student_dfr"):
            without.append(f"{count} of {models} models of “{short(row.key)}”")
            undefined.append(Line(row.heading, [Cell()] * len(columns), row.key == "student"))
    if without:
        caption += (
            f" Without such a threshold, and left out: {', '.join(without)}; there are too few "
            "validation negatives, or too many of them have the float32 score 1."
        )
    table = _rate_table(results, rates, backbone, caption, columns)
    return table or (Table(caption, "", [*columns], undefined) if undefined else None)


def _rate_table(
    results: Results,
    rates: pd.DataFrame,
    backbone: str,
    caption: str,
    columns: Mapping[str, Operating],
) -> Table | None:
    lines = []
    for row, part in _arms(results, rates, backbone):
        known: dict[Operating, dict[int, tuple[float, str]]] = {}
        for one in records(part.fillna({"at": 0.0})):
            source = one["source"] if one["measure"] == "apcer" else ""
            by_seed = known.setdefault((one["measure"], one["at"], source), {})
            by_seed.setdefault(one["seed"], (one["value"], one["note"]))  # a run may have two roles
        cells = []
        for operating in columns.values():
            values = list(known.get(operating, {}).values())
            if any(note for _, note in values):
                cells.append(Cell(TOO_SMALL))
            else:
                cells.append(_mean_cell(results, [value for value, _ in values]))
        lines.append(Line(row.heading, cells, row.key == "student"))
    return Table(caption, "", [*columns], lines) if lines else None


def rule_words(rule: str, terms: Terms) -> str:
    """Threshold rule in words."""
    rate = rule_rate(rule)
    return terms.eer if rate is None else f"{terms.fdr} {_share(rate)}"


def _share(rate: float) -> str:
    return f"{100 * rate:g} %"


def further_table(results: Results, evaluation: str, backbone: str) -> Table | None:
    """AUC, average precision, accuracy, Brier score and EER of each row on a whole set."""
    names = {"auc": "AUC", "average_precision": "Average precision", "accuracy": "Accuracy"}
    names |= {"brier": "Brier score", "eer": "EER"}
    if results.setup.positive is None:
        del names["eer"]
    lines = []
    for row, part in _arms(results, whole_set(results.figures, evaluation), backbone):
        mine = part.drop_duplicates("seed")
        cells = [_mean_cell(results, mine[name]) for name in names]
        lines.append(Line(row.heading, cells, row.key == "student"))
    caption = (
        f"{backbone} on {evaluation}: further metrics, mean ± std over seeds. Accuracy is by "
        "the most probable class; for Brier score and EER, lower is better."
    )
    return Table(caption, "", list(names.values()), lines) if lines else None
