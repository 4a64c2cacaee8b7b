"""The report: what the page says, in the order in which it says it; the template lays it out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from preceptor.evaluation.scores import ALL_SOURCES
from preceptor.evaluation.statistics import p_floor
from preceptor.report import figures, tables
from preceptor.report.panels import Panels
from preceptor.runs import is_finished, read_record
from preceptor.study.plan import Plan
from preceptor.study.results import Results

LEVEL = 0.05
FILES = {
    "table.csv": "the main table, every evaluation set and source",
    "table.md": "the same as Markdown",
    "results.csv": "figures of every run, set and source",
    "comparisons.csv": "paired comparisons with intervals and p-values",
    "runs.csv": "every training, with times",
    "summary.json": "the sentences of this page, what is missing and what failed",
    "selection.json": "what was chosen on validation, and why",
    "study.yaml": "the resolved study file",
    "best/": "the chosen Student as a model folder",
}


@dataclass(frozen=True)
class Verdict:
    """Whether the Student won, plainly.

    Args:
        kind: won, ahead, mixed, lost or open.
        headline: A few words.
        text: One or two sentences.
    """

    kind: str
    headline: str
    text: str


def verdict(results: Results) -> Verdict:
    """What may be concluded on the primary set from this many seeds."""
    done, total = int(results.runs["finished"].sum()), len(results.runs)
    progress = f"{done} of {total} trainings are finished"
    compared = results.comparisons
    family = compared[compared["question"] == "RQ2"] if not compared.empty else compared
    if family.empty or family["mean"].isna().any():
        return Verdict(
            "open", "No answer yet",
            f"No Student can be set against the baselines on {results.primary} yet: {progress}.",
        )  # fmt: skip
    worst = family.groupby("backbone", sort=False)["mean"].min()
    whole = family.groupby("backbone", sort=False)["b"].nunique() == 2
    ahead, count, n = int((worst[whole] > 0).sum()), len(worst), int(family["n"].min())
    if not whole.all():
        return Verdict(
            "open", "No answer yet", f"A baseline is missing for some backbones: {progress}."
        )
    where = f"{ahead} of {count} backbones" if count > 1 else str(worst.index[0])
    if n < 2:
        lead = f"ahead of both baselines for {where}" if ahead else "not ahead of both baselines"
        return Verdict(
            "open", "Nothing can be concluded from one seed",
            f"With one seed the Student is {lead} on {results.primary}; another seed may well turn "
            "that round.",
        )  # fmt: skip
    proven = bool(((family["p_holm"] <= LEVEL) & (family["mean"] > 0)).all())
    if ahead == count and proven:
        return Verdict(
            "won", "The Student won",
            f"On {results.primary} its mean AUC is above both baselines for every backbone, and "
            "every one of these differences holds after correction for their number.",
        )  # fmt: skip
    limit = _limit(n, len(family))
    if ahead == count:
        return Verdict(
            "ahead", "The Student is ahead, and it is not proven",
            f"On {results.primary} its mean AUC is above both baselines for "
            f"{'every backbone' if count > 1 else where}, but not every difference is beyond "
            f"chance{limit}.",
        )  # fmt: skip
    if ahead:
        return Verdict(
            "mixed", f"The Student is ahead for {where}",
            f"On {results.primary} its mean AUC is above both baselines for {where} only{limit}.",
        )  # fmt: skip
    return Verdict(
        "lost", "The Student did not win",
        f"On {results.primary} its mean AUC is above both baselines for no backbone{limit}.",
    )  # fmt: skip


def _limit(n: int, family: int) -> str:
    """What this many seeds cannot show at all, and how many could."""
    if family * p_floor(n) <= LEVEL:
        return ""
    needed = next(seeds for seeds in range(n, 64) if family * p_floor(seeds) <= LEVEL)
    return (
        f"; {n} seeds cannot prove any difference ({family} comparisons corrected together need "
        f"{needed} seeds or more for that)"
    )


def controls_sentence(results: Results) -> str:
    """What the maps are worth beyond being maps: the gain over the shuffled control."""
    compared = results.comparisons
    if compared.empty:
        return ""
    here = compared[
        (compared["question"] == "control") & compared["b"].str.contains("shuffled")
    ].dropna(subset=["mean"])
    if here.empty:
        return ""
    gain = tables.number(here["mean"].mean(), sign=True)
    if (here["low"] > 0).all():
        meaning = "what the Teacher's maps point at matters"
    elif (here["mean"] > 0).all():
        meaning = "the maps may point at what matters, within what chance allows"
    else:
        meaning = "so far nothing shows that it matters what the maps point at"
    return f"Against the same maps shuffled among images the Student's AUC is {gain}: {meaning}."


def headlines(plan: Plan, results: Results) -> list[dict[str, str]]:
    """For each backbone: the Student, its better baseline, the difference and its interval."""
    if results.table.empty or results.comparisons.empty:
        return []
    whole = results.table[
        (results.table["set"] == results.primary) & (results.table["source"] == ALL_SOURCES)
    ]
    found = []
    for backbone in plan.protocol.study.students:
        compared = results.comparisons
        pairs = compared[(compared["backbone"] == backbone) & (compared["question"] == "RQ2")]
        means = whole[whole["backbone"] == backbone].set_index("key")["mean"]
        pairs = pairs.dropna(subset=["mean"])
        if pairs.empty or "student" not in means:
            continue
        hardest = pairs.loc[pairs["mean"].idxmin()]
        key = next(row.key for row in results.rows if row.title == hardest["b"])
        spread = tables.interval(hardest["low"], hardest["high"])
        found.append(
            {
                "backbone": backbone,
                "student": tables.number(means["student"]),
                "baseline": tables.number(means.get(key)),
                "name": tables.SHORT[key],
                "gain": tables.number(hardest["mean"], sign=True),
                "interval": "one seed: no interval" if spread == tables.DASH else spread,
            }
        )
    return found


def methods(plan: Plan, results: Results) -> list[str]:
    """How it was done, as sentences that a paper can take over."""
    study = plan.protocol.study
    training, seeds = study.training, len(study.seed_list)
    recipe = f"recipe {training.recipe}: " if training.recipe else ""
    length = f"{training.epochs} epochs" if training.length == "epochs" else f"{training.steps} steps"
    size = f"{training.input_size} px" if training.input_size else "the backbones' own input size"
    optimiser = (
        f"SGD, momentum {training.momentum:g}" if training.optimiser == "sgd" else "AdamW"
    )
    kept = {
        "last": "the last epoch was kept",
        "best_accuracy": "the epoch of the best validation accuracy was kept (ties: the later)",
        "best_auc": "the epoch of the best validation AUC was kept (ties: the later)",
    }[training.checkpoint]
    grid = ", ".join(f"{alpha:g}" for alpha in study.alpha_grid)
    paragraphs = [
        f"Students of {_names(study.students)} and Teachers of {_names(study.teachers)} were "
        f"trained with {seeds} seed{'s' if seeds != 1 else ''} each ({recipe}{optimiser}, learning "
        f"rate {training.lr:g}, weight decay {training.weight_decay:g}, schedule "
        f"{training.schedule}, {length}, batch {training.batch_size}, {size}, fit {training.fit}, "
        f"precision {training.precision}); {kept}. Guidance distance {training.distance}, class "
        f"activation map of the {training.cam_class} class, α grid {grid}; guided classes: "
        f"{_names(study.guide_classes) if study.guide_classes else 'all'}. On annotated images the "
        f"Teacher's maps {'replace' if study.human_maps == 'replace' else 'leave'} the human ones"
        f"{'' if study.human_maps == 'replace' else ' as they are'}.",
        "Everything was chosen on validation sets alone; where there are several, the worst counts. "
        "Candidates whose paired bootstrap difference to the best includes 0 are tied, and ties go "
        + (
            "to the maps that agree best with human maps of validation images."
            if study.selection == "guided"
            else "to the smaller α."
        )
        + " Test sets were scored once, after the choice.",
        f"The hypotheses were tested on {results.primary}: differences paired by seed with 95 % t "
        "intervals, exact sign-flip tests, Holm's correction over backbones × baselines, and a "
        "two-level bootstrap over seeds and images (groups where there are any). Standard "
        "deviations are with n − 1. All other figures are descriptive.",
    ]
    record = next(
        (
            read_record(plan.protocol.run_folder(member.run))
            for member in plan.protocol.members
            if is_finished(plan.protocol.run_folder(member.run))
        ),
        None,
    )
    if record is not None:
        versions = record.get("versions", {})
        said = ", ".join(f"{name} {version}" for name, version in versions.items())
        paragraphs.append(f"Computed on {record.get('device', 'an unknown device')} with {said}.")
    seconds = _seconds(results.runs)
    if seconds:
        paragraphs.append(f"The finished trainings took {_duration(seconds)} of computing in all.")
    return paragraphs


def budget(plan: Plan) -> list[tuple[str, str, str]]:
    """What people had to annotate: name, count, remark."""
    protocol = plan.protocol
    study, workspace = protocol.study, protocol.workspace
    manifest = workspace.manifest
    config = protocol.config(study.students[0], study.seed_list[0])
    annotated, mapped = workspace.annotated(config), manifest.map_mask
    share = annotated.sum() / max(int(manifest.train_mask.sum()), 1)
    remark = f"{share:.0%} of the training images"
    if study.annotated_per_seed:
        remark += "; drawn anew for each seed, the first is counted"
    validation = manifest.table["split"].str.startswith("val").to_numpy(bool) & mapped
    used = study.selection == "guided"
    rows = [
        ("Annotated images (A)", f"{annotated.sum():,}", remark),
        (
            "… of these with a human map", f"{(annotated & mapped).sum():,}",
            "the others were examined and have nothing to point at",
        ),
        (
            "All training images (T)", f"{manifest.train_mask.sum():,}",
            "marked by the Teacher; they need labels alone",
        ),
        (
            "Human maps of validation images", f"{validation.sum():,}",
            "used to break ties in selection, so they count as annotations"
            if used
            else "reported, and not used to choose",
        ),
    ]  # fmt: skip
    if study.ceiling:
        ceiling = (manifest.train_mask & mapped).sum()
        rows.append(("Human maps of the ceiling", f"{ceiling:,}", "all there are; a bound"))
    return rows


def render_page(
    plan: Plan,
    results: Results,
    *,
    panels: Panels | None,
    panels_note: str,
    failed: dict[str, str],
    files: list[str],
) -> str:
    """The whole page as HTML.

    Args:
        plan: The study.
        results: What it found.
        panels: Images with maps, or None.
        panels_note: Why there are none.
        failed: Steps that could not be done, with the reason.
        files: Names of the files beside the page.
    """
    sets = tables.set_order(plan, results)
    backbones = list(plan.protocol.study.students)
    choice = plan.choices.get("teacher")
    per_source = [
        table
        for name in sets
        for backbone in backbones
        if (table := tables.source_table(results, name, backbone)) is not None
    ]
    found = verdict(results)
    first = results.sentences[0] if results.sentences and found.kind != "open" else ""
    context: dict[str, Any] = {
        "name": study_name(plan),
        "results": results,
        "facts": _facts(plan, results),
        "verdict": found,
        "summary": [text for text in (found.text, first, controls_sentence(results)) if text],
        "headlines": headlines(plan, results),
        "failed": failed,
        "main": tables.set_table(plan, results, results.primary),
        "others": [
            table for name in sets[1:] if (table := tables.set_table(plan, results, name))
        ],
        "per_source": per_source,
        "comparisons": tables.comparison_tables(results),
        "forest": figures.forest_plot(results),
        "dots": _each(backbones, lambda name: figures.dot_plot(results, name)),
        "alphas": _each(backbones, lambda name: figures.alpha_curve(results, name)),
        "rocs": _each(backbones, lambda name: figures.roc_plot(plan, results, name)),
        "teachers": tables.teacher_table(plan, results),
        "teacher_reason": choice.reason if choice is not None else "",
        "panels": panels,
        "panels_note": panels_note,
        "methods": methods(plan, results),
        "images_seen": tables.images_seen_table(plan, results),
        "budget": budget(plan),
        "files": [(name, text) for name, text in FILES.items() if name in files],
    }
    environment = Environment(
        loader=PackageLoader("preceptor.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(context)


def study_name(plan: Plan) -> str:
    """What the study is called: its manifest's name, or its folder's."""
    manifest = plan.protocol.study.manifest
    generic = manifest.stem.lower() == "manifest"
    return (manifest.absolute().parent.name if generic else manifest.stem).replace("_", " ")


def _facts(plan: Plan, results: Results) -> list[str]:
    study = plan.protocol.study
    seeds = len(study.seed_list)
    facts = [f"primary set {results.primary}", f"classes {_names(results.classes)}"]
    if results.positive is not None:
        facts.append(f"positive {results.positive}")
    done = int(results.runs["finished"].sum())
    facts.append(f"{seeds} seed{'s' if seeds != 1 else ''}")
    facts.append(f"{done} of {len(results.runs)} trainings finished")
    return facts


def _each(backbones: list[str], draw: Any) -> list[tuple[str, Markup]]:
    """The figure of each backbone that has one."""
    return [(name, made) for name in backbones if (made := draw(name)) is not None]


def _names(names: Any) -> str:
    names = list(names)
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _seconds(runs: pd.DataFrame) -> float:
    """Of all trainings, each counted once though it may stand in several rows."""
    if runs.empty:
        return 0.0
    total = float(runs.drop_duplicates("run")["seconds"].astype(float).sum())
    return total if math.isfinite(total) else 0.0


def _duration(seconds: float) -> str:
    """Seconds as people say them.

    Example:
        >>> _duration(30), _duration(7260)
        ('30 s', '2.0 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
