"""Methods section of the report, in sentences for a paper, and the model card."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from preceptor.config.training import CamClass, Training, distance_weights
from preceptor.metrics.operating_points import TERMS
from preceptor.metrics.paired_tests import EXACT_UP_TO, RELEVANT_DIFFERENCE
from preceptor.models.spec import Pool
from preceptor.report.cells import names_of
from preceptor.report.rate_tables import rule_words
from preceptor.report.tables import DomainTables
from preceptor.report.words import Verdict
from preceptor.results.best import Best
from preceptor.results.domain import Results
from preceptor.study.checks import shared_images
from preceptor.study.plan import Plan, StudyPlan
from preceptor.study.protocol import training_of
from preceptor.study.selection import Rule
from preceptor.training.record import RunRecord
from preceptor.utils.results import is_finished
from preceptor.utils.text import duration

_BREAKS_TIES: dict[Rule, str] = {
    "guided": "the agreement with human maps of validation images (where it is unknown, the "
    "smaller α)",
    "val_auc": "the smaller α",
}

MAPS: dict[CamClass, str] = {
    "label": "map of the label",
    "predicted": "map of the predicted class",
    "decision": "map of the label's log-odds",
}


def methods(plan: Plan, results: Results) -> list[str]:
    """Paragraphs of the methods section."""
    family = "domains × backbones × baselines" if plan.domain else "backbones × baselines"
    study = plan.protocol.study
    training, seeds = training_of(study), len(plan.seeds)
    recipe = f"recipe {training.recipe}: " if training.recipe else ""
    length = (
        f"{training.epochs} epoch{'s' if training.epochs != 1 else ''}"
        if training.length == "epochs"
        else f"{training.steps} steps"
    )
    size = f"{training.input_size} px" if training.input_size else "the backbones' own input size"
    optimizer = f"SGD, momentum {training.momentum:g}" if training.optimizer == "sgd" else "AdamW"
    kept = {
        "last": "the last epoch was kept",
        "best_accuracy": "the epoch of the best validation accuracy was kept (ties: the later)",
        "best_auc": "the epoch of the best validation AUC was kept (ties: the later)",
    }[training.checkpoint]
    paragraphs = [
        _data(plan),
        f"Students of {names_of(study.students)} and Teachers of {names_of(study.teachers)} were "
        f"trained with {seeds} seed{'s' if seeds != 1 else ''} each "
        f"({', '.join(map(str, plan.seeds))}; {recipe}{optimizer}, learning rate "
        f"{training.lr:g}, weight decay {training.weight_decay:g}, schedule "
        f"{training.schedule}, {length}, batch {training.batch_size}, {size}, fit {training.fit}, "
        f"{_computed(plan)}); {kept}{_seen(results)}. "
        "The loss of a guided model is (1 − α) · d(human or Teacher's map, model's map) + α · "
        "cross-entropy (CYBORG: Boyd et al., WACV 2023; Teacher and Student: Crum et al., BMVC "
        f"2023). {_ways_of_guiding(plan)}; Teachers' maps: {_marking(plan)}; guided classes: "
        f"{names_of(study.guide_classes) if study.guide_classes else 'all'}. On annotated images "
        "the Teacher's maps replace the human maps.",
        "All selections used validation sets only, with the AUC on the worst of several sets. "
        + selection_sentence(study.selection, draws=study.draws)
        + " Test sets were scored once, after the selection; decision thresholds "
        f"({rule_words(study.threshold, TERMS[study.terms])}) were fixed on the validation scores "
        "of each model.",
        f"The hypotheses were tested on {results.primary}: differences paired by seed with 95 % t "
        + (
            f"intervals, {sign_flip_words(seeds)}, and Holm's correction over {family}. "
            f"{_draws(plan)} "
            if study.draws
            else f"intervals, {sign_flip_words(seeds)}, Holm's correction over {family}, and a "
            "two-level bootstrap over seeds and images (or groups). "
        )
        + f"The smallest relevant difference in AUC is {RELEVANT_DIFFERENCE:g}: two sides "
        "are called equivalent if the 95 % intervals of their difference, over seeds and, where it "
        "is known, over seeds and images, lie within ± this value (two one-sided tests). Standard "
        "deviations have the divisor n − 1. All other results are descriptive.",
    ]
    if study.budgets:
        paragraphs.append(
            f"Baseline 1, the selected Teacher and its Students were trained again with "
            f"{names_of(f'{size:,}' for size in study.budgets)} annotated images, with a new draw "
            "for every seed (smaller sets are subsets of larger ones), at the α selected on "
            "validation at each number."
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
            f"in up to {most} micro-batches with gradient accumulation; batch norm used the "
            "statistics of micro-batches."
        )
    seconds = _computing(results.runs)
    if seconds:
        paragraphs.append(f"Total computing time of the finished trainings: {duration(seconds)}.")
    return paragraphs


def selection_sentence(rule: Rule, *, draws: bool) -> str:
    """How a configuration was selected, in a sentence.

    Args:
        rule: Rule of the selection.
        draws: Whether every seed has its own images, so that only seeds are resampled.

    Example:
        >>> selection_sentence("highest", draws=False)
        'The highest mean AUC over seeds was selected.'
    """
    if rule == "highest":
        return "The highest mean AUC over seeds was selected."
    found = "t interval of their difference over draws"
    if not draws:
        found = "interval of their paired bootstrap difference"
    return (
        f"A candidate was tied with the best if the {found} included 0; ties were broken by "
        f"{_BREAKS_TIES[rule]}, or by the higher AUC where the α cannot be compared."
    )


def sign_flip_words(seeds: int) -> str:
    """Name of the sign-flip tests of a number of seeds, see `paired_difference`.

    Example:
        >>> sign_flip_words(10)
        'exact sign-flip tests (Fisher 1935)'
    """
    if seeds <= EXACT_UP_TO:
        return "exact sign-flip tests (Fisher 1935)"
    return "sign-flip tests with random sign patterns (Fisher 1935)"


def _ways_of_guiding(plan: Plan) -> str:
    """Distance, guided map, pooling and α grid; of each way of guiding if there are several."""
    study = plan.protocol.study

    def words(training: Training, grid: Sequence[float]) -> str:
        numbers = ", ".join(f"{alpha:g}" for alpha in grid)
        return (
            f"distance {_distance(training)}, {MAPS[training.cam_class]} ({_guided_map(plan)}), "
            f"{_pooling(training)}α grid {numbers}"
        )

    if not study.guidances:
        return f"Guidance {words(training_of(study), study.alpha_grid)}"
    known = [
        f"“{name}” ({words(training_of(study, name), way.alpha_grid(study.alpha_grid))})"
        for name, way in study.guidances.items()
    ]
    return (
        "Students, Baseline 1, controls and ceiling were each trained with every way of guiding "
        "and every α; the combination with the highest AUC on validation was selected: "
        + "; ".join(known)
    )


def _distance(training: Training) -> str:
    """Distance of the guidance term; several with their weights."""
    weights = distance_weights(training.distance)
    if len(weights) == 1:
        return next(iter(weights))
    return " + ".join(f"{weight:g} {name}" for name, weight in weights.items())


def _pooling(training: Training) -> str:
    """Pooling of the maps to logits and read-out, if they are not the backbone's own."""
    pool = Pool(training.pool, training.pool_top)
    found = "" if pool.kind == "mean" else f"logits from the {pool.words}, "
    if training.readout == "auto":
        found += (
            "read-out of each finished model by the pooling with the highest AUC on the worst "
            "validation set, "
        )
    return found


def _records(plan: Plan) -> list[RunRecord]:
    """Records of all finished trainings."""
    folders = {plan.protocol.run_folder(member.run) for member in plan.members}
    return [RunRecord.read(folder) for folder in sorted(folders) if is_finished(folder)]


def _place(record: RunRecord) -> str:
    """Device, machine and library versions of a training."""
    versions = dict(record.versions)
    where = f"{record.device} ({versions.pop('machine', '?')})"
    said = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"{where} with {said}"


def _computed(plan: Plan) -> str:
    """Precision and memory layout."""
    return training_of(plan.protocol.study).speed.words


def _guided_map(plan: Plan) -> str:
    """Kind of the guided map, by backbone if they differ."""
    study = plan.protocol.study
    if study.training.recipe == "cyborg":
        return "class activation map of the layers used by the released CYBORG code"
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
    """Saliency methods of the Teachers, with the settings of RISE."""
    study = plan.protocol.study
    rise = study.rise
    methods = {
        "cam": "the guided map",
        "rise": f"RISE ({rise.estimator} estimator of the {rise.score}, {rise.cells} × "
        f"{rise.cells} cells, up to {rise.max_masks:,} masks per image, tolerance "
        f"{rise.tolerance:g}, fill {rise.fill}; maps above the tolerance do not guide)",
    }
    names = [methods.get(method, f"the method {method} of a plugin") for method in study.saliency]
    if study.mapper:
        names.append("probabilities of a mark in each cell, of mappers trained on human maps alone")
    return names_of(names)


def _data(plan: Plan) -> str:
    """Data of the study."""
    table = plan.protocol.workspace.manifest.table
    counts = table.groupby("split", sort=False).size()
    sets = names_of(f"{name} {count:,}" for name, count in counts.items())
    study = plan.protocol.study
    seed = study.seed_list[0] if study.annotated_per_seed else 0
    annotated = int(plan.protocol.workspace.drawn(study.annotated, seed).sum())
    where = f"{plan.domain}: " if plan.domain else ""
    return (
        f"{where}{len(table):,} images of the classes "
        f"{names_of(plan.protocol.workspace.manifest.classes)} ({sets}), of which {annotated:,} "
        "training images were used as annotated."
    )


def _draws(plan: Plan) -> str:
    """What the intervals of a study with one manifest per seed are over."""
    shared = shared_images(plan.protocol.workspaces)
    if shared is None:
        return "Every seed is a new draw of the data, so that the intervals are over draws."
    return (
        f"Every seed has its own manifest, but {shared.words} (Nadeau and Bengio 2003): they do "
        "not describe other data of this kind."
    )


def _seen(results: Results) -> str:
    """Number of images seen in one training."""
    runs = results.runs
    if runs.empty or not runs["finished"].any():
        return ""
    seen = runs[runs["finished"]]["images_seen"].dropna().astype(int)
    spread = sorted({int(seen.min()), int(seen.max())})
    return f"; each training saw {' to '.join(f'{count:,}' for count in spread)} images"


def _computing(runs: pd.DataFrame) -> float:
    """Computing time of all trainings in seconds, each counted once."""
    if runs.empty:
        return 0.0
    total = float(runs.drop_duplicates("run")["seconds"].astype(float).sum())
    return total if math.isfinite(total) else 0.0


def study_name(study: StudyPlan) -> str:
    """Name of a study: its domains, or the name of its manifest or of the manifest's folder."""
    if study.has_domains:
        return names_of(study.plans)
    manifest = study.first.protocol.study.manifest
    assert manifest is not None
    generic = manifest.stem.lower() == "manifest"
    folder = manifest.absolute().parent
    if "{seed}" in folder.name:  # one manifest per seed: the name of the collection
        folder = folder.parent if folder.name == "{seed}" else folder
    name = folder.name if generic else manifest.stem
    if generic and name.isdigit():  # one draw of several: 3 alone says nothing
        name = f"{folder.parent.name} {name}"
    return name.replace("{seed}", "").strip("-_ ").replace("_", " ")


def model_card(
    plan: Plan, results: Results, shared: DomainTables, found: Verdict, best: Best
) -> str:
    """Model card as Markdown.

    Args:
        plan, results: Plan and results of the domain.
        shared: Tables of the domain.
        found: Verdict of the domain.
        best: Selected Student.
    """
    study = plan.protocol.study
    folder = plan.protocol.run_folder(best.run)
    record = RunRecord.read(folder)
    positive = results.positive
    scored = (
        f"The score is the probability of `{positive}`." if positive else "Scores of each class."
    )
    parts = [
        f"# {best.arm.backbone}: {' or '.join(results.classes)}",
        f"A {best.arm.backbone} network that classifies images of {record.input_size} × "
        f"{record.input_size} pixels as {' or '.join(results.classes)}. {scored} It is a Student: "
        f"it was trained on all training images, guided ({best.arm.setting}) by the saliency maps "
        f"of a Teacher ({plan.winner()}). It is seed {best.seed} of {len(plan.seeds)} seeds, "
        f"the median on validation (AUC {best.value:.3f} on the worst validation set).",
        "## Results of the study",
        f"**{found.headline}.** {found.sentences}",
    ]
    at = (results.primary, best.arm.backbone)
    shown = [
        shared.sets.get(results.primary),
        shared.fixed_rates.get(at),
        shared.roc_rates.get(at),
        shared.sources.get(at),
    ]
    parts += [table.markdown for table in shown if table is not None]
    if best.thresholds:
        terms = TERMS[study.terms]
        parts += [
            "## Thresholds",
            f"An image is classified as `{positive}` if its score is at least the threshold. The "
            "thresholds were fixed on validation images and are in `model.json`; rules that the "
            "number of validation images does not allow are omitted.",
            "\n".join(
                [
                    "| rule | threshold |",
                    "| --- | --- |",
                    *(
                        f"| {rule_words(rule, terms)} (`{rule}`) | {value:.6f} |"
                        for rule, value in best.thresholds.items()
                    ),
                ]
            ),
        ]
    parts += [
        "## Limitations",
        f"It was tested only on {names_of(plan.protocol.workspace.manifest.eval_splits('test'))}. "
        "Accuracy may be lower on images from other sensors, sources or attacks, and the error "
        "rates at the thresholds may differ: evaluate the model on your own images before use "
        "(`preceptor evaluate`). Saliency maps show where the evidence for a class is, not why.",
        "## Methods",
        *methods(plan, results),
        f"Run `{best.run}`. `preceptor predict` applies this model to images, and `preceptor "
        "evaluate` evaluates it on a manifest; `preceptor.load` loads it.",
    ]
    return "\n\n".join(parts) + "\n"
