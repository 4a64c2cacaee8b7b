"""Pages of finished studies, made from their tables in benchmarks/evidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from preceptor.data.marks import MarkPlaces
from preceptor.report.cells import short
from preceptor.report.export import standalone
from preceptor.report.figures import Difference, differences
from preceptor.results import StudyTables, read
from preceptor.runtime.formatting import DASH, interval, number, p_value

HERE = Path(__file__).parent
GENERATED = HERE / "gallery" / "generated"
EVIDENCE = HERE.parent / "benchmarks" / "evidence"


@dataclass(frozen=True)
class Shown:
    """Study with an archive.

    Args:
        name: Name of its page.
        folder: Folder of its tables in benchmarks/evidence.
        title: Title of the page.
        primary: Evaluation set of the tests.
        seed: What a seed is.
        marks: Annotated training images, of all training images.
        places: Row of its marks in benchmarks/evidence/mark_places.
    """

    name: str
    folder: str
    title: str
    primary: str
    seed: str
    marks: str
    places: str


STUDIES = (
    Shown(
        "spots", "spots_evidence", "Small forged regions", "test-seen", "draw", "60 of 6,000",
        "small forged regions",
    ),
    Shown(
        "spots-densenet", "spots_densenet", "Small forged regions, DenseNet", "test-seen", "draw",
        "60 of 6,000", "small forged regions",
    ),
    Shown(
        "brain-mri-planted", "brain_mri_planted", "Brain MRI with a planted stamp", "test-unseen",
        "seed", "12 %", "brain MRI with a planted stamp",
    ),
    Shown(
        "circuit-boards", "circuit_boards", "Circuit boards", "test-unseen", "seed", "120 of 1,245",
        "circuit boards",
    ),
    Shown(
        "forged", "forged_evidence", "Forged photographs", "test-seen", "draw", "100 of 1,500",
        "forged photographs",
    ),
    Shown(
        "road-cracks", "road_cracks", "Road cracks", "test-unseen", "seed", "12 %", "road cracks",
    ),
    Shown(
        "magnetic-tiles", "magnetic_tile", "Magnetic tiles", "test-unseen", "seed",
        "120 of 688", "magnetic tiles",
    ),
    Shown(
        "brain-mri", "brain_mri", "Brain MRI of other hospitals", "test-unseen", "seed",
        "12 %", "brain MRI",
    ),
    Shown(
        "brain-mri-imagenet", "brain_mri_imagenet", "Brain MRI, ImageNet weights",
        "test-unseen", "seed", "12 %", "brain MRI",
    ),
)  # fmt: skip


def marks_of(study: Shown) -> MarkPlaces:
    """Size and places of the marks of a study."""
    row = pd.read_csv(EVIDENCE / "mark_places" / "marks.csv").set_index("data").loc[study.places]
    return MarkPlaces(float(row["area"]), float(row["overlap"]), int(row["n"]))


def write_pages() -> None:
    """Write the page and the figure of every study."""
    GENERATED.mkdir(parents=True, exist_ok=True)
    for study in STUDIES:
        tables = read(EVIDENCE / study.folder)
        for name, text in {
            f"{study.name}.md": page_of(study, tables),
            f"{study.name}.svg": figure_of(tables),
        }.items():
            (GENERATED / name).write_text(text, encoding="utf-8")


def page_of(study: Shown, tables: StudyTables) -> str:
    """Markdown page of a study."""
    whole = tables.table[tables.table["source"] == ""]
    count, seeds = int(whole["n"].max()), f"{study.seed}s"
    parts = [
        f"# {study.title}",
        f"{count} {seeds}; tables of `benchmarks/evidence/{study.folder}`. "
        "[Gallery](../../gallery.md) says what the study is and what to look at.",
        "## AUC of each row",
        f"Mean ± standard deviation over {seeds}; the primary set is `{study.primary}`.",
        _means(whole, study.primary),
        "## The Student minus each row",
        f"On `{study.primary}`, paired by {study.seed}, with 95 % intervals. p: exact, by sign "
        f"flips, not corrected; with {count} {seeds} it cannot fall below {number(2 / 2**count)}.",
        f"![Differences with their intervals, as in the table below]({study.name}.svg)",
        _differences(tables.comparisons),
        f"## Every {study.seed}",
        f"AUC on `{study.primary}` by role and α.",
        _seeds(tables.results, study.primary, study.seed),
        "## What the place of the maps is worth",
        "The rungs of the [ladder](../../report.md#the-ladder-what-the-maps-are-worth), with "
        "the gain of each over the one below.",
        _ladder(tables.ladder[tables.ladder["set"] == study.primary]),
    ]
    return "\n\n".join(parts) + "\n"


def figure_of(tables: StudyTables) -> str:
    """Figure of the Student minus each row, as an SVG file."""
    rows = [
        (short(row["key_b"]), [Difference("", row["mean"], row["low"], row["high"], "student")])
        for row in _compared(tables.comparisons).to_dict("records")
    ]
    drawn = differences(rows, "Student minus each row", "AUC of the Student minus that of the row")
    assert drawn is not None
    return standalone(drawn)


def _compared(comparisons: pd.DataFrame) -> pd.DataFrame:
    """Differences of the Student, without those over backbones."""
    return comparisons[
        comparisons["question"].isin(["RQ2", "RQ3", "control", "detector", "ceiling"])
    ]


def _means(whole: pd.DataFrame, primary: str) -> str:
    """Main table: a row per title, a column per evaluation set, the primary one first."""
    sets = [primary, *(name for name in whole["set"].unique() if name != primary)]
    cells = {
        (row["title"], row["set"]): f"{number(row['mean'])} ± {number(row['std'])}"
        for row in whole.to_dict("records")
    }
    titles = list(dict.fromkeys(whole.loc[whole["set"] == primary, "title"]))
    rows = [[title, *(cells.get((title, name), DASH) for name in sets)] for title in titles]
    return table(["", *(f"`{name}`" for name in sets)], rows)


def _differences(comparisons: pd.DataFrame) -> str:
    rows = [
        [
            row["b"],
            number(row["mean"], sign=True),
            interval(row["low"], row["high"]),
            _above(row["difference_by_seed"]),
            p_value(row["p"]),
        ]
        for row in _compared(comparisons).to_dict("records")
    ]
    return table(["Student minus", "difference", "95 % interval", "above on", "p"], rows)


def _above(by_seed: Sequence[float]) -> str:
    return f"{sum(value > 0 for value in by_seed)} of {len(by_seed)}"


def _seeds(results: pd.DataFrame, primary: str, seed: str) -> str:
    """AUC of every seed, by role and α."""
    found = results[(results["set"] == primary) & (results["source"] == "")]
    wide = found.pivot_table(index=["role", "alpha"], columns="seed", values="auc").dropna()
    rows = [
        [f"`{role}`", f"{alpha:g}", *(number(value) for value in values)]
        for (role, alpha), values in zip(wide.index, wide.to_numpy(), strict=True)
    ]
    return table(["role", "α", *(f"{seed} {one}" for one in wide.columns)], rows)


def _ladder(ladder: pd.DataFrame) -> str:
    names = {
        "none": "no maps", "any": "any map", "teacher": "the Teacher's maps",
        "human": "all human maps",
    }  # fmt: skip
    rows = [
        [
            names[row["rung"]],
            row["title"],
            number(row["mean"]),
            number(row["gain"], sign=True),
            interval(row["gain_low"], row["gain_high"]),
        ]
        for row in ladder.to_dict("records")
    ]
    return table(["rung", "row", "AUC", "gain", "95 % interval"], rows)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
