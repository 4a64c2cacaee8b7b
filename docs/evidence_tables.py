"""Tables of results in the documentation, written from the archives in benchmarks/evidence.

    python docs/evidence_tables.py

Writes the blocks between `<!-- evidence: NAME -->` and `<!-- end -->` of all pages again, and their
figures. A test compares both with the archives.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from agreement import mean_agreement
from budget_tables import BUDGETS, budget_figure, budget_table
from difference import Difference
from gallery_pages import EVIDENCE, STUDIES, Shown, table
from image_intervals import image_intervals
from places_table import places
from predictor_table import predictor_table
from record_table import record_table
from steps_table import steps_table

from preceptor.report.export import standalone
from preceptor.report.figures import Difference as Mark
from preceptor.report.figures import differences
from preceptor.report.sentences import LEVEL
from preceptor.results import StudyTables, read
from preceptor.results.ladder import ANY_MAP
from preceptor.runtime.formatting import DASH, number, p_value

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"(<!-- evidence: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
FIGURE = ROOT / "docs" / "images" / "evidence.svg"
PAGES = (
    "README.md",
    "docs/evidence.md",
    "docs/explanation/controls.md",
    "docs/explanation/when-marks-help.md",
)


@dataclass(frozen=True)
class Row:
    """Student of a study beside its baselines, the best of any map, and all human maps.

    Args:
        study: Study.
        repeats: Number of draws or seeds.
        student, baseline1, baseline2, any_map, ceiling: Mean AUC on the primary set.
        gain: Student minus the better of the two baselines.
        place: Teacher's maps minus the best of any map, selected on validation; shown only if
            `strongest` is as well.
        strongest: Student minus the control of any map that has the highest AUC on the primary set;
            shown if the intervals of the differences from all of these controls are above 0. p is
            the largest of all, an intersection–union test.
        shuffled, centre: Mean AUC of these controls.
        mapper, mapper_all: Mean AUC of the mapper as a detector, trained on the annotated images
            and on all human maps; NaN if the study has none.
        unguided, guided: Mean correlation with human maps of validation images of the maps of
            Baseline 2, and of the ceiling; NaN if the archive has no records of runs.
    """

    study: Shown
    repeats: int
    student: float
    baseline1: float
    baseline2: float
    any_map: float
    ceiling: float
    gain: Difference
    place: Difference
    strongest: Difference
    shuffled: float
    centre: float
    mapper: float
    mapper_all: float
    unguided: float
    guided: float

    @property
    def data(self) -> str:
        """Name of the data with the number of repeats."""
        return f"{self.study.title}, {self.repeats} {self.study.seed}s"

    @property
    def strongest_auc(self) -> float:
        """Mean AUC of the strongest control."""
        return self.student - self.strongest.mean

    @property
    def student_text(self) -> str:
        """AUC of the Student; bold if a gain over both baselines is shown."""
        return f"**{number(self.student)}**" if _shown(self.gain) else number(self.student)


def row_of(study: Shown) -> Row:
    """Row of a study."""
    tables = read(EVIDENCE / study.folder)
    whole = tables.table
    means = whole[(whole["set"] == study.primary) & (whole["source"] == "")].set_index("key")
    family = tables.comparisons[tables.comparisons["question"] == "RQ2"]
    gain = _difference(family.nsmallest(1, "mean"), "p_holm")
    gain = replace(gain, shown=gain.low > 0 and gain.p <= LEVEL)
    strongest = _strongest(tables)
    rungs = tables.ladder[tables.ladder["set"] == study.primary].set_index("rung")
    found: Any = rungs.loc["teacher"]
    place = Difference(
        found["gain"], found["gain_low"], found["gain_high"], found["p"],
        shown=found["gain_low"] > 0 and strongest.shown,
    )  # fmt: skip
    return Row(
        study=study,
        repeats=int(means["n"].max()),
        student=float(means.loc["student", "mean"]),
        baseline1=float(means.loc["baseline1", "mean"]),
        baseline2=float(means.loc["baseline2", "mean"]),
        any_map=float(rungs.loc["any", "mean"]),
        ceiling=float(means.loc["ceiling", "mean"]),
        gain=gain,
        place=place,
        strongest=strongest,
        shuffled=float(means.loc["shuffled", "mean"]),
        centre=float(means.loc["centre", "mean"]),
        mapper=float(means["mean"].get("mapper", math.nan)),
        mapper_all=float(means["mean"].get("mapper_all", math.nan)),
        unguided=mean_agreement(tables, "baseline2", float(means.loc["baseline2", "alpha"])),
        guided=mean_agreement(tables, "ceiling", float(means.loc["ceiling", "alpha"])),
    )


def _strongest(tables: StudyTables) -> Difference:
    """Smallest difference of the Student from a control whose maps do not know the place."""
    controls = tables.comparisons[tables.comparisons["question"] == "control"]
    controls = controls[controls["key_b"].isin(ANY_MAP)]
    found = _difference(controls.nsmallest(1, "mean"), "p")
    return replace(found, p=float(controls["p"].max()), shown=bool((controls["low"] > 0).all()))


def _difference(row: pd.DataFrame, p: str) -> Difference:
    (found,) = row.to_dict("records")
    return Difference(found["mean"], found["low"], found["high"], found[p])


def summary(rows: Sequence[Row]) -> str:
    """Two tables: the mean AUC of each row of the studies, and the two differences."""
    header = [
        "data", "annotated", "Baseline 1", "Baseline 2", "any map", "Student", "all human maps",
        "mapper: annotated; all maps",
    ]  # fmt: skip
    means = table(
        header,
        [
            [
                one.data, one.study.marks, number(one.baseline1), number(one.baseline2),
                number(one.any_map), one.student_text, number(one.ceiling),
                f"{number(one.mapper)}; {number(one.mapper_all)}" if one.mapper > 0 else DASH,
            ]
            for one in rows
        ],
    )  # fmt: skip
    header = [
        "data", "Student minus the better baseline", "Student minus any map",
        "Student minus the strongest control",
    ]  # fmt: skip
    gains = table(
        header,
        [
            [
                one.data,
                f"{one.gain.text}, p\u00a0{p_value(one.gain.p)}",
                f"{one.place.text}, p\u00a0{p_value(one.place.p)}",
                f"{one.strongest.text}, p\u00a0{p_value(one.strongest.p)}",
            ]
            for one in rows
        ],
    )
    return f"{means}\n\n{gains}"


def _shown(one: Difference) -> bool:
    return bool(one.shown) and one.p < 0.05


def gains(rows: Sequence[Row]) -> str:
    """Student minus the better baseline."""
    return table(
        ["data", "annotated", "better baseline", "Student", "gain", "all human maps"],
        [
            [
                one.data, one.study.marks, number(max(one.baseline1, one.baseline2)),
                number(one.student), one.gain.text, number(one.ceiling),
            ]
            for one in rows
        ],
    )  # fmt: skip


def controls(rows: Sequence[Row]) -> str:
    """Controls beside the Student."""
    header = [
        "data", "no maps", "shuffled", "centred", "strongest control", "Student",
        "all human maps", "Student minus the strongest control",
    ]  # fmt: skip
    return table(
        header,
        [
            [
                one.data, number(one.baseline2), number(one.shuffled), number(one.centre),
                number(one.strongest_auc), number(one.student), number(one.ceiling),
                one.strongest.text,
            ]
            for one in rows
        ],
    )  # fmt: skip


def readme(rows: Sequence[Row]) -> str:
    """Student, baselines, controls and ceiling of the studies with at least three repeats."""
    header = [
        "data", "Baseline 1", "Baseline 2", "strongest control", "Student", "ceiling",
        "Student minus the better baseline", "Student minus the strongest control",
    ]  # fmt: skip
    return table(
        header,
        [
            [
                one.data, number(one.baseline1), number(one.baseline2),
                number(one.strongest_auc), one.student_text, number(one.ceiling), one.gain.text,
                one.strongest.text,
            ]
            for one in rows
        ],
    )  # fmt: skip


def agreement(rows: Sequence[Row]) -> str:
    """Agreement of unguided and guided maps with human maps, and the gain of the place."""
    return table(
        [
            "data", "maps without guidance and human maps, r", "with all human maps, r",
            "Student minus the strongest control",
        ],
        [
            [one.data, number(one.unguided, 2), number(one.guided, 2), one.strongest.text]
            for one in rows
            if not math.isnan(one.unguided)
        ],
    )  # fmt: skip


def figure(rows: Sequence[Row]) -> str:
    """Figure of the differences of the studies as an SVG file."""
    drawn = differences(
        [
            (
                one.study.title,
                [
                    Mark("over the better baseline", *_ends(one.gain), "student"),
                    Mark("over the strongest control", *_ends(one.strongest), "shuffled"),
                ],
            )
            for one in rows
        ],
        "AUC of the Student over the better baseline, and over the strongest control",
        "AUC difference",
    )
    assert drawn is not None
    legend = [("student", "over the better baseline"), ("shuffled", "over the strongest control")]
    return standalone(drawn, legend, marks=True)


def _ends(one: Difference) -> tuple[float, float, float]:
    return one.mean, one.low, one.high


BLOCKS: dict[str, Callable[[Sequence[Row]], str]] = {
    "summary": summary,
    "gains": gains,
    "controls": controls,
    "readme": readme,
    "agreement": agreement,
    "places": places,
}


def with_tables(page: str, rows: Sequence[Row]) -> str:
    """A page with its blocks as the archives give them."""
    others = {
        "images": image_intervals(),
        "predictors": predictor_table(),
        "records": record_table(),
        "steps": steps_table(),
    }
    others |= {one.folder: budget_table(one) for one in BUDGETS}
    return BLOCK.sub(
        lambda found: f"{found[1]}\n{others.get(found[2]) or BLOCKS[found[2]](rows)}\n\n{found[3]}",
        page,
    )


def main() -> None:
    """Write the blocks of all pages and the figures."""
    rows = [row_of(study) for study in STUDIES]
    for name in PAGES:
        page = ROOT / name
        page.write_text(with_tables(page.read_text(encoding="utf-8"), rows), encoding="utf-8")
    FIGURE.write_text(figure(rows), encoding="utf-8")
    for budget in BUDGETS:
        (FIGURE.parent / budget.figure).write_text(budget_figure(budget), encoding="utf-8")


if __name__ == "__main__":
    main()
