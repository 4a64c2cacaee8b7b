"""What the page says in words: the verdict, the methods, what people annotated."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from preceptor.evaluation.statistics import p_floor
from preceptor.report.tables import number
from preceptor.runs import is_finished, read_record
from preceptor.study.plan import Plan
from preceptor.study.results import Results

LEVEL = 0.05
_TIED = (
    "Candidates whose paired bootstrap difference to the best includes 0 are tied, and ties go to "
)
SELECTION = {
    "highest": "The highest mean AUC over seeds won.",
    "guided": _TIED + "the maps that agree best with human maps of validation images.",
    "val_auc": _TIED + "the smaller α.",
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
    done, total = results.progress
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
            "open",
            "Nothing can be concluded from one seed",
            f"With one seed the Student is {lead} on {results.primary}; another seed may well turn "
            "that round.",
        )
    limit = _limit(n, len(family))
    if ahead == count and ((family["p_holm"] <= LEVEL) & (family["mean"] > 0)).all():
        text = "It is ahead of both baselines for every backbone, and chance does not explain it."
        return Verdict("won", "The Student won", text)
    if ahead == count:
        text = f"It is ahead of both baselines for {'every backbone' if count > 1 else where}, but "
        text += f"not every difference is beyond chance.{limit}"
        return Verdict("ahead", "The Student is ahead, and it is not proven", text)
    if ahead:
        names = names_of([str(name) for name in worst.index[worst > 0]])
        text = f"It is ahead of both baselines for {names} only.{limit}"
        return Verdict("mixed", f"The Student is ahead for {where}", text)
    text = (
        f"No gain over the stronger baseline was found{' for any backbone' if count > 1 else ''}."
    )
    return Verdict("lost", "The Student did not win", text + limit)


def _limit(n: int, family: int) -> str:
    """What this many seeds cannot show at all, and how many could."""
    if family * p_floor(n) <= LEVEL:
        return ""
    needed = next(seeds for seeds in range(n, 64) if family * p_floor(seeds) <= LEVEL)
    return (
        f" {n} seeds cannot prove any difference: {family} comparisons corrected together need "
        f"{needed} seeds or more."
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
    gain = number(here["mean"].mean(), sign=True)
    if (here["low"] > 0).all():
        meaning = "what the Teacher's maps point at matters"
    elif (here["mean"] > 0).all():
        meaning = "the maps may point at what matters, within what chance allows"
    else:
        meaning = "so far nothing shows that it matters what the maps point at"
    against = "Against the same maps shuffled among images"
    return f"{against} the Student's AUC differs by {gain}: {meaning}."


def study_name(plan: Plan) -> str:
    """What the study is called: its manifest's name, or its folder's."""
    manifest = plan.protocol.study.manifest
    generic = manifest.stem.lower() == "manifest"
    folder = manifest.absolute().parent
    if "{seed}" in folder.name:  # a draw a seed: what they are draws of
        folder = folder.parent if folder.name == "{seed}" else folder
    name = folder.name if generic else manifest.stem
    return name.replace("{seed}", "").strip("-_ ").replace("_", " ")


def methods(plan: Plan, results: Results) -> list[str]:
    """How it was done, as sentences that a paper can take over."""
    study = plan.protocol.study
    training, seeds = study.training, len(study.seed_list)
    recipe = f"recipe {training.recipe}: " if training.recipe else ""
    length = (
        f"{training.epochs} epochs" if training.length == "epochs" else f"{training.steps} steps"
    )
    size = f"{training.input_size} px" if training.input_size else "the backbones' own input size"
    optimiser = f"SGD, momentum {training.momentum:g}" if training.optimiser == "sgd" else "AdamW"
    kept = {
        "last": "the last epoch was kept",
        "best_accuracy": "the epoch of the best validation accuracy was kept (ties: the later)",
        "best_auc": "the epoch of the best validation AUC was kept (ties: the later)",
    }[training.checkpoint]
    grid = ", ".join(f"{alpha:g}" for alpha in study.alpha_grid)
    paragraphs = [
        f"Students of {names_of(study.students)} and Teachers of {names_of(study.teachers)} were "
        f"trained with {seeds} seed{'s' if seeds != 1 else ''} each ({recipe}{optimiser}, learning "
        f"rate {training.lr:g}, weight decay {training.weight_decay:g}, schedule "
        f"{training.schedule}, {length}, batch {training.batch_size}, {size}, fit {training.fit}, "
        f"{_computed(plan)}); {kept}. Guidance distance {training.distance}, map of the "
        f"{training.cam_class} class ({_guided_map(plan)}), α grid {grid}; Teachers marked by "
        f"{_marking(plan)}; guided classes: "
        f"{names_of(study.guide_classes) if study.guide_classes else 'all'}. On annotated images "
        + (
            "the Teacher's maps replace the human ones."
            if study.human_maps == "replace"
            else "the human maps are kept."
        ),
        "Everything was chosen on validation sets alone; of several the worst counts. "
        + SELECTION[study.selection]
        + " Test sets were scored once, after the choice.",
        f"The hypotheses were tested on {results.primary}: differences paired by seed with 95 % t "
        + (
            "intervals, exact sign-flip tests, and Holm's correction over backbones × baselines. "
            "Every seed is a new draw of the data, so that the intervals are over draws. "
            if study.draws
            else "intervals, exact sign-flip tests, Holm's correction over backbones × baselines, "
            "and a two-level bootstrap over seeds and images (groups where there are any). "
        )
        + "Standard deviations are with n − 1. All other figures are descriptive.",
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
        versions = dict(record.get("versions", {}))
        where = f"{record.get('device', 'an unknown device')} ({versions.pop('machine', '?')})"
        said = ", ".join(f"{name} {version}" for name, version in versions.items())
        paragraphs.append(f"Computed on {where} with {said}.")
    seconds = _seconds(results.runs)
    if seconds:
        paragraphs.append(f"The finished trainings took {_duration(seconds)} of computing in all.")
    return paragraphs


def _computed(plan: Plan) -> str:
    """Precision and layout, by backbone where a probe chose them."""
    study = plan.protocol.study
    if not study.training.left_to_probe:
        return study.training.speed.words
    names = dict.fromkeys([*study.teachers, *study.students])
    return "; ".join(f"{name}: {study.training_of(name).speed.words}" for name in names)


def _guided_map(plan: Plan) -> str:
    """What was guided, by backbone where they differ: each finished run says it of its model."""
    study = plan.protocol.study
    if study.training.cam_source == "cyborg":
        return "class activation map of what the released CYBORG code taps"
    names = {"cam": "class activation map", "gradcam": "Grad-CAM through the head"}
    kinds: dict[str, str] = {}
    for member in plan.protocol.members:
        folder = plan.protocol.run_folder(member.run)
        if member.arm.backbone not in kinds and is_finished(folder):
            kinds[member.arm.backbone] = names[read_record(folder)["saliency"]]
    if len(set(kinds.values())) < 2:
        return next(iter(kinds.values()), "no training has finished yet")
    return "; ".join(f"{backbone}: {kind}" for backbone, kind in kinds.items())


def _marking(plan: Plan) -> str:
    """How Teachers marked, with what RISE needs to be done again."""
    study = plan.protocol.study
    rise = study.rise
    methods = {
        "cam": "the map that is guided",
        "rise": f"RISE ({rise.estimator} estimator of the {rise.score}, {rise.cells} × "
        f"{rise.cells} cells, up to {rise.max_masks:,} masks an image, tolerance "
        f"{rise.tolerance:g}, fill {rise.fill}; maps that did not settle do not guide)",
    }
    return names_of(methods[method] for method in study.saliency)


def budget(plan: Plan) -> list[tuple[str, str, str]]:
    """What people had to annotate: name, count, remark."""
    protocol = plan.protocol
    study, workspace = protocol.study, protocol.workspace
    manifest = workspace.manifest
    config = protocol.config(study.students[0], study.seed_list[0])
    annotated, mapped = workspace.annotated(config), manifest.map_mask
    share = annotated.sum() / max(int(manifest.train_mask.sum()), 1)
    remark = f"{100 * share:.0f} % of the training images"
    if study.draws:
        remark += "; each seed is a new draw, the first is counted"
    elif study.annotated_per_seed:
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


def names_of(names: Iterable[str]) -> str:
    """Names as a sentence takes them.

    Example:
        >>> names_of(["a", "b", "c"])
        'a, b and c'
    """
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


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
