"""How a study was done, in sentences that a paper can take over."""

from __future__ import annotations

import math

import pandas as pd

from preceptor.evaluation.terms import TERMS
from preceptor.report.rate_tables import rule_words
from preceptor.report.verdict import names_of
from preceptor.results.domain import Results
from preceptor.runtime.formatting import duration
from preceptor.runtime.result_folder import is_finished
from preceptor.study.plan import Plan
from preceptor.training.record import RunRecord

_TIED = (
    "Candidates whose paired bootstrap difference to the best includes 0 are tied, and ties go to "
)
SELECTION = {
    "highest": "The highest mean AUC over seeds won.",
    "guided": _TIED + "the maps that agree best with human maps of validation images.",
    "val_auc": _TIED + "the smaller α.",
}


def methods(plan: Plan, results: Results) -> list[str]:
    """How it was done, as sentences that a paper can take over."""
    family = "domains × backbones × baselines" if plan.domain else "backbones × baselines"
    study = plan.protocol.study
    training, seeds = study.training, len(study.seed_list)
    recipe = f"recipe {training.recipe}: " if training.recipe else ""
    length = (
        f"{training.epochs} epoch{'s' if training.epochs != 1 else ''}"
        if training.length == "epochs"
        else f"{training.steps} steps"
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
        _data(plan),
        f"Students of {names_of(study.students)} and Teachers of {names_of(study.teachers)} were "
        f"trained with {seeds} seed{'s' if seeds != 1 else ''} each "
        f"({', '.join(map(str, study.seed_list))}; {recipe}{optimiser}, learning rate "
        f"{training.lr:g}, weight decay {training.weight_decay:g}, schedule "
        f"{training.schedule}, {length}, batch {training.batch_size}, {size}, fit {training.fit}, "
        f"{_computed(plan)}); {kept}{_seen(results)}. "
        "The loss of a guided model is (1 − α) · d(human or Teacher's map, model's map) + α · "
        "cross-entropy (CYBORG: Boyd et al., WACV 2023; Teacher and Student: Crum et al., BMVC "
        f"2023). Guidance distance {training.distance}, map of the "
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
        + " Test sets were scored once, after the choice; decision thresholds "
        f"({rule_words(study.threshold, TERMS[study.terms])}) were fixed on each model's own "
        "validation scores.",
        f"The hypotheses were tested on {results.primary}: differences paired by seed with 95 % t "
        + (
            "intervals, exact sign-flip tests, and Holm's correction over "
            f"{family}. "
            "Every seed is a new draw of the data, so that the intervals are over draws. "
            if study.draws
            else "intervals, exact sign-flip tests (Fisher 1935), Holm's correction over "
            f"{family}, and a two-level bootstrap over seeds and images (groups where there are "
            "any). "
        )
        + "Standard deviations are with n − 1. All other figures are descriptive.",
    ]
    if study.budgets:
        paragraphs.append(
            f"Baseline 1, the chosen Teacher and its Students were trained again with "
            f"{names_of(f'{size:,}' for size in study.budgets)} annotated images, drawn anew for "
            "every seed, smaller draws within larger ones, at the α chosen with all annotations of "
            "the study; a step that bought the Student less than "
            f"{study.budget_gain:g} AUC counts as not worth it."
        )
    records = _records(plan)
    if records:
        places = dict.fromkeys(map(_place, records))
        paragraphs.append(f"Computed on {'; on '.join(places)}.")
    divided = [record for record in records if record.parts > 1]
    if divided:
        most = max(record.parts for record in divided)
        paragraphs.append(
            f"{len(divided)} of {len(records)} trainings ran out of memory and computed each batch "
            f"in up to {most} parts, whose gradients were added up: where there is batch norm, it "
            "saw the statistics of parts."
        )
    seconds = _computing(results.runs)
    if seconds:
        paragraphs.append(f"The finished trainings took {duration(seconds)} of computing in all.")
    return paragraphs


def _records(plan: Plan) -> list[RunRecord]:
    """What the finished trainings say of themselves, each once."""
    folders = {plan.protocol.run_folder(member.run) for member in plan.members}
    return [RunRecord.read(folder) for folder in sorted(folders) if is_finished(folder)]


def _place(record: RunRecord) -> str:
    """The device, the machine and the versions of a training."""
    versions = dict(record.versions)
    where = f"{record.device} ({versions.pop('machine', '?')})"
    said = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"{where} with {said}"


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
    for member in plan.members:
        folder = plan.protocol.run_folder(member.run)
        if member.arm.backbone not in kinds and is_finished(folder):
            kinds[member.arm.backbone] = names[RunRecord.read(folder).saliency]
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


def _data(plan: Plan) -> str:
    """What the study was done on."""
    table = plan.protocol.workspace.manifest.table
    counts = table.groupby("split", sort=False).size()
    sets = names_of(f"{name} {count:,}" for name, count in counts.items())
    config = plan.protocol.config(plan.protocol.study.students[0], plan.protocol.study.seed_list[0])
    annotated = int(plan.protocol.workspace.annotated(config).sum())
    where = f"{plan.domain}: " if plan.domain else ""
    return (
        f"{where}{len(table):,} images of the classes "
        f"{names_of(plan.protocol.workspace.manifest.classes)} ({sets}), of which {annotated:,} "
        "training images counted as annotated."
    )


def _seen(results: Results) -> str:
    """Images seen in one training, where the Student and its baselines saw as many."""
    runs = results.runs
    if runs.empty or not runs["finished"].any():
        return ""
    seen = runs[runs["finished"]]["images_seen"].dropna().astype(int)
    spread = sorted({int(seen.min()), int(seen.max())})
    return f"; each training saw {' to '.join(f'{count:,}' for count in spread)} images"


def _computing(runs: pd.DataFrame) -> float:
    """Of all trainings, each counted once though it may stand in several rows."""
    if runs.empty:
        return 0.0
    total = float(runs.drop_duplicates("run")["seconds"].astype(float).sum())
    return total if math.isfinite(total) else 0.0
