"""Write what a study found: tables as CSV and Markdown, the summary and the page."""

from __future__ import annotations

import json
from pathlib import Path

from preceptor.errors import PreceptorError
from preceptor.report import tables
from preceptor.report.page import FILES, render_page, study_name, verdict
from preceptor.report.panels import make_panels
from preceptor.runs import write_atomically
from preceptor.study.plan import Plan
from preceptor.study.results import Results, gather


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
    for name, frame in tables.frames(plan, results).items():
        write_atomically(out / name, tables.csv_text(frame))
    write_atomically(out / "table.md", tables.markdown(study_name(plan), _tables(plan, results)))
    found = verdict(results)
    summary = {
        "primary": results.primary,
        "verdict": {"kind": found.kind, "headline": found.headline, "text": found.text},
        "sentences": results.sentences,
        "missing": results.missing,
        "failed": failed,
    }
    write_atomically(
        out / "summary.json", json.dumps(summary, indent=2, ensure_ascii=False) + "\n"
    )
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
