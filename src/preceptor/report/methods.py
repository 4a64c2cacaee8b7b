"""Methods section of the report, in sentences for a paper."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from preceptor.config.guidance import CamClass, distance_weights
from preceptor.config.training import Training
from preceptor.evaluation.operating_points import TERMS
from preceptor.evaluation.paired_tests import EXACT_UP_TO
from preceptor.evaluation.sequential import sequential_level
from preceptor.models.spec import Pool
from preceptor.report.rate_tables import rule_words
from preceptor.report.sentences import names_of
from preceptor.results.domain import Results
from preceptor.runtime.formatting import duration
from preceptor.runtime.result_folder import is_finished
from preceptor.study.config import StudyConfig
from preceptor.study.plan import Plan
from preceptor.study.run_configs import training_of
from preceptor.study.seeds import AutoSeeds
from preceptor.study.selection import Rule
from preceptor.study.shared_images import shared_images
from preceptor.training.record import RunRecord

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
    training, seeds = study.training, len(plan.seeds)
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
        + (
            "the Teacher's maps replace the human maps."
            if study.human_maps == "replace"
            else "the human maps are kept."
        ),
        "All selections used validation sets only, with the AUC on the worst of several sets. "
        + selection_sentence(study.selection, draws=study.draws)
        + search_sentence(study)
        + (" Selections used the first seeds only." if study.looks else "")
        + " Test sets were scored "
        + ("after the selection only" if study.looks else "once, after the selection")
        + "; decision thresholds "
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
        + f"The smallest relevant difference in AUC is {study.relevant_difference:g}: two sides "
        "are called equivalent if the 95 % intervals of their difference, over seeds and, where it "
        "is known, over seeds and images, lie within ± this value (two one-sided tests). Standard "
        "deviations have the divisor n − 1. All other results are descriptive.",
    ]
    if study.looks:
        paragraphs.append(looks_sentence(study, results))
    if study.budgets:
        paragraphs.append(
            f"Baseline 1, the selected Teacher and its Students were trained again with "
            f"{names_of(f'{size:,}' for size in study.budgets)} annotated images, with a new draw "
            "for every seed (smaller sets are subsets of larger ones), at the α selected with all "
            "annotations of the study."
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


def search_sentence(study: StudyConfig) -> str:
    """Which candidates of a selection were not trained with every seed; "" if all were."""
    *rungs, _ = study.rungs
    if not rungs:
        return ""
    halved = ", and at most half of the candidates were kept each time"
    return (
        f" Candidates were compared after {names_of(map(str, rungs))} seeds: those whose interval "
        "of the difference to the best was below 0 got no further seeds"
        f"{halved if study.search == 'halving' else ''}."
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


def looks_sentence(study: StudyConfig, results: Results) -> str:
    """How the number of seeds was found, and how intervals and p-values are corrected for it."""
    assert isinstance(study.seeds, AutoSeeds)
    width = study.seeds.auto.width
    numbers = f"{names_of(map(str, study.looks[:-1]))} and at most {study.looks[-1]} seeds"
    done = len(results.looked)
    times = {0: "not been looked at yet", 1: "been looked at once"}.get(
        done, f"been looked at {done} times"
    )
    last = f" In the last look, {results.looked[-1].reason}" if results.looked else ""
    return (
        f"The number of seeds was not fixed: after {numbers}, the study stopped if the intervals "
        f"of all primary comparisons (Student minus each baseline, for every backbone) were at "
        f"most {width:g} wide, and ran further seeds otherwise. The test set {results.primary} "
        f"has {times}, and the intervals are corrected for these looks: they are t intervals and "
        f"bootstrap intervals of level {sequential_level(study.looks):.1%}, which cover 95 % for "
        "normal differences under any rule that stops by standard deviations. A sign-flip p-value "
        "is the sum, over all looks that may be made, of the probability of so small a "
        f"p-value.{last}"
    )


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
        return f"Guidance {words(study.training, study.alpha_grid)}"
    known = [
        f"“{name}” ({words(way.training(study.training), way.alpha_grid(study.alpha_grid))})"
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
    """Precision and memory layout, by backbone if a probe chose them."""
    study = plan.protocol.study
    if not study.training.left_to_probe:
        return study.training.speed.words
    names = dict.fromkeys([*study.teachers, *study.students])
    return "; ".join(f"{name}: {training_of(study, name).speed.words}" for name in names)


def _guided_map(plan: Plan) -> str:
    """Kind of the guided map, by backbone if they differ."""
    study = plan.protocol.study
    if study.training.cam_source == "cyborg":
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
    if study.mapper is not None:
        names.append("probabilities of a mark in each cell, of mappers trained on human maps alone")
    return names_of(names)


def _data(plan: Plan) -> str:
    """Data of the study."""
    table = plan.protocol.workspace.manifest.table
    counts = table.groupby("split", sort=False).size()
    sets = names_of(f"{name} {count:,}" for name, count in counts.items())
    config = plan.protocol.config(plan.protocol.study.students[0], plan.protocol.study.seed_list[0])
    annotated = int(plan.protocol.workspace.annotated(config).sum())
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
