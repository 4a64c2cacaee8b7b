"""Write what a study found: tables as CSV and Markdown, the summary and the page."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from preceptor.errors import PreceptorError
from preceptor.report import tables
from preceptor.report.page import FILES, render_page
from preceptor.report.panels import make_panels
from preceptor.report.words import study_name, verdict
from preceptor.runs import write_atomically
from preceptor.study.plan import Plan
from preceptor.study.results import OVERALL, Results, gather

_WHOLE = ["images_seen", "best_epoch", "images", "positives", "n"]

# Of files that have no row yet, so that whatever reads them finds its columns.
_RUN = "role backbone alpha teacher seed"
_HEADS = {
    "results.csv": f"{_RUN} set source images positives auc eer accuracy run",
    "runs.csv": f"{_RUN} run finished seconds images_seen best_epoch",
    "table.csv": "key title backbone alpha set source mean std n accuracy eer images",
    "comparisons.csv": "question backbone a b n mean std low high p p_floor p_holm image_low "
    "image_high difference_by_seed",
}


def write_results(plan: Plan, out: Path, failed: dict[str, str]) -> None:
    """Gather what has finished and write it into the study folder.

    Two equal studies give byte-identical tables, whatever order their runs finished in; times are
    in runs.csv and on the page alone.

    Args:
        plan: The study; its choices say which runs are shown.
        out: The study folder.
        failed: Steps that could not be done, by title, with the reason.
    """
    out.mkdir(parents=True, exist_ok=True)
    results = gather(plan)
    for name, frame in frames(plan, results).items():
        write_atomically(out / name, csv_text(frame))
    write_atomically(out / "table.md", markdown(study_name(plan), _tables(plan, results)))
    found = verdict(results)
    summary = {
        "primary": results.primary,
        "verdict": {"kind": found.kind, "headline": found.headline, "text": found.text},
        "sentences": results.sentences,
        "missing": results.missing,
        "failed": failed,
    }
    write_atomically(out / "summary.json", json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
    panels, note = None, "No Student has been scored on the primary set yet."
    try:
        panels = make_panels(plan, results)
    except (PreceptorError, OSError) as error:  # a moved image must not cost the whole report
        note = f"They could not be made: {error}"
    page = render_page(
        plan,
        results,
        panels=panels,
        panels_note=note,
        failed=failed,
        files=[name for name in FILES if (out / name).exists()],
    )
    write_atomically(out / "report.html", page)


def _tables(plan: Plan, results: Results) -> list[tables.Table]:
    """Every set, the primary one first, then by source."""
    sets = tables.set_order(plan, results)
    found = [tables.set_table(plan, results, name) for name in sets]
    for name in sets:
        for backbone in plan.protocol.study.students:
            found.append(tables.source_table(results, name, backbone))
    return [table for table in found if table is not None]


def frames(plan: Plan, results: Results) -> dict[str, pd.DataFrame]:
    """The CSV files by name, their rows in an order that depends on the study alone."""
    sets = {name: place for place, name in enumerate(tables.set_order(plan, results))}
    backbones = [*plan.protocol.study.students, OVERALL]
    keys = tables.ordered(row.key for row in results.rows)

    def place(frame: pd.DataFrame, columns: dict[str, Any]) -> pd.DataFrame:
        if frame.empty:
            return frame
        order = pd.DataFrame(
            {
                name: frame[name].map(rank) if rank is not None else frame[name]
                for name, rank in columns.items()
            }
        ).fillna(len(sets) + len(keys) + len(backbones))
        return frame.loc[order.sort_values(list(columns), kind="stable").index]

    run = _RUN.split()
    by_set: dict[str, Any] = {"set": sets, "source": None}
    comparisons = results.comparisons
    if not comparisons.empty:
        seeds = comparisons["difference_by_seed"].map(
            lambda values: " ".join(f"{value:.6g}" for value in values)
        )
        comparisons = comparisons.assign(difference_by_seed=seeds)
    figures = place(results.figures, by_set | dict.fromkeys(run))
    if not figures.empty:
        first = [*run, "set", "source"]
        figures = figures[[*first, *(name for name in figures if name not in first)]]
    table_order = by_set | {
        "key": {key: position for position, key in enumerate(keys)},
        "backbone": {name: position for position, name in enumerate(backbones)},
    }
    found = {
        "results.csv": figures,
        "runs.csv": place(results.runs, dict.fromkeys(run)),
        "table.csv": place(results.table, table_order),
        "comparisons.csv": comparisons,
    }
    return {
        name: pd.DataFrame(columns=_HEADS[name].split()) if frame.empty else frame
        for name, frame in found.items()
    }


def csv_text(frame: pd.DataFrame) -> str:
    """A frame as CSV: six significant digits, whole numbers whole."""
    whole = {name: "Int64" for name in _WHOLE if name in frame}
    text: str = frame.astype(whole).to_csv(index=False, float_format="%.6g", lineterminator="\n")
    return text


def markdown(title: str, shown: Iterable[tables.Table]) -> str:
    """Tables as Markdown; the best of a column is bold."""
    parts = [f"# {title}"]
    for table in shown:
        head = [table.corner, *table.columns]
        rows = [[line.heading, *(_marked(cell) for cell in line.cells)] for line in table.lines]
        parts.append(
            "\n".join(
                [f"**{_plain(table.caption)}**", "", _bars(head), _bars(["---"] * len(head))]
                + [_bars(row) for row in rows]
            )
        )
    return "\n\n".join(parts) + "\n"


def _marked(cell: tables.Cell) -> str:
    text = f"**{_plain(cell.text)}**" if cell.best else _plain(cell.text)
    return f"{text} ({_plain(cell.note)})" if cell.note else text


def _plain(text: str) -> str:
    return text.replace("|", "\\|")


def _bars(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
