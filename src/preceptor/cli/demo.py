"""The command `demo`: a small study on decoys, in bars and a sentence."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from preceptor.cli.options import JobsOption
from preceptor.cli.study import finish
from preceptor.errors import InputError
from preceptor.utils.process import bulk_import

if TYPE_CHECKING:
    from preceptor.driver import StudyResult

SETTINGS = Path(__file__).with_name("demo.yaml")
ROWS = {
    "baseline1": "{marked} marked images alone",
    "baseline2": "all images, no maps",
    "dfr": "no maps, last layer on clean labels",
    "repair": "no maps, repaired",
    "shuffled": "all images, shuffled maps",
    "student": "all images, Teacher's maps: Student",
    "student_repair": "the Student, repaired",
}


def demo(
    out: Path = Path("demo-study"),
    jobs: JobsOption = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Run a small study on digits beside a patch that gives them away (five minutes).

    Args:
        out: Folder of the images and the study.
        seed: Seed of the first draw.
    """
    finish(run_demo(out, jobs, seed, partial(print, flush=True)), show_demo)


def run_demo(out: Path, jobs: int | None, first: int, tell: Callable[[str], None]) -> StudyResult:
    """Generate decoys, in draws from seed `first` on, and run the demo on them."""
    with bulk_import():
        from rich.console import Console

        from preceptor.benchmark.decoys import DecoySettings, write_decoys
        from preceptor.cli.output import live
        from preceptor.config.files import parse_config, read_yaml
        from preceptor.driver import run_study
        from preceptor.study.config import StudyConfig

    if out.is_file():
        raise InputError(f"{out}: it is a file; name a folder")
    values = read_yaml(SETTINGS.read_text(encoding="utf-8"))[0]
    study, images = values["study"], DecoySettings(**values["decoys"])
    seeds = list(range(first, first + study["seeds"]))
    tell(values["about"].format(**values["decoys"], **study))
    for seed in seeds:
        write_decoys(out / "decoys" / str(seed), images, seed)
    study |= {"manifest": out / "decoys" / "{seed}" / "manifest.csv", "seeds": seeds}
    config, console = parse_config(study, StudyConfig, source="the demo"), Console()
    show = partial(live, console=console, lines=False) if console.is_terminal else None
    return run_study(config, out / f"study-{first}", jobs=jobs, tell=tell, show=show)


def show_demo(folder: Path) -> str:
    """Bars and sentence of a finished demo, which also stand on a page beside the report."""
    from preceptor.metrics.paired_tests import paired_difference
    from preceptor.report.panels import make_panels
    from preceptor.report.words import say
    from preceptor.results.domain import gather_study
    from preceptor.study_folder import reopen
    from preceptor.utils.results import write_atomically
    from preceptor.utils.text import interval, number

    results = gather_study(study := reopen(folder)).by_domain[""]
    table = results.figures.query("set == 'test' and source == ''")
    right = table.pivot_table(index="seed", columns="role", values="accuracy", observed=True)
    bars = [(ROWS[role].format(marked=study.config.annotated), right[role].mean()) for role in ROWS]
    gain = paired_difference(right["student"], right["baseline2"])
    more = paired_difference(right["student_repair"], right["student"])
    best = right[["baseline1", "baseline2", "shuffled", "student"]].idxmax(axis=1)
    ahead, draws = int((best == "student").sum()), len(right)
    sentence = (
        f"In {f'all {draws}' if ahead == draws else f'{ahead} of {draws}'} draws "
        "the Student names more digits right than without maps, with shuffled maps and with the "
        f"marked images alone: {number(gain.mean, sign=True)} over no maps (95 % interval "
        f"{interval(gain.low, gain.high)}, exact p {gain.p:.3g}; with {draws} draws p cannot fall "
        f"below {gain.p_floor:.3g}). Repaired, which takes seconds, the Student names "
        f"{number(more.mean, sign=True)} more right ({interval(more.low, more.high)})."
    )
    panels = make_panels(study.first, results, 8)  # half of them errors of the Student
    shown, page = panels.panels[:6] if panels else [], folder.parent / "demo.html"
    text = say("demo.html", bars=bars, sentence=sentence, panels=shown, study=folder.name)
    write_atomically(page, text)
    return "\n".join(
        ["Digits named right in the test, where the patch tells nothing (mean of draws)", ""]
        + [f"{title:36}{'█' * round(34 * value):34} {value:.0%}" for title, value in bars]
        + ["", *textwrap.wrap(sentence, 80), "", f"with six images and their maps: {page}"]
    )
