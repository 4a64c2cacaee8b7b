"""Methods section of the report, in sentences for a paper, and the model card."""

from __future__ import annotations

import math
from pathlib import Path

from preceptor.config.training import Augmentation, CamClass, Training, distance_weights
from preceptor.metrics.operating_points import TERMS
from preceptor.metrics.paired_tests import EXACT_UP_TO, RELEVANT_DIFFERENCE
from preceptor.models.spec import Pool
from preceptor.report.blocks import names_of
from preceptor.report.tables import fixed_rate_table, rule_words, set_table, source_table
from preceptor.report.words import DomainFindings, parts_of, templates
from preceptor.results.domain import Results
from preceptor.study.checks import shared_images
from preceptor.study.config import StudyConfig
from preceptor.study.plan import Plan, StudyPlan
from preceptor.study.protocol import training_of
from preceptor.training.record import RunRecord
from preceptor.training.validation import MOST_SWAPPED
from preceptor.utils.results import is_finished
from preceptor.utils.text import percent, threshold_text

MAPS: dict[CamClass, str] = {
    "label": "map of the label",
    "predicted": "map of the predicted class",
    "decision": "map of the label's log-odds",
}


def methods(plan: Plan, results: Results) -> list[str]:
    """Paragraphs of the methods section."""
    study, workspace = plan.protocol.study, plan.protocol.workspace
    training, table = training_of(study), workspace.manifest.table
    seed = study.seed_list[0] if study.annotated_per_seed else 0
    sets = table.groupby("split", sort=False).size().items()
    finished = results.runs[results.runs["finished"].astype(bool)]
    seen = finished["images_seen"].dropna().astype(int)
    seconds = float(results.runs.drop_duplicates("run")["seconds"].astype(float).sum())
    manifest = workspace.manifest
    annotated = workspace.drawn(study.annotated, seed)
    guided = table["label"].isin(study.guide_classes or manifest.classes).to_numpy()
    maps = {
        "annotated": annotated & manifest.map_mask,
        "train": manifest.train_mask & manifest.map_mask & guided,
    }
    folders = {plan.protocol.run_folder(member.run) for member in plan.members}
    records = [RunRecord.read(folder) for folder in sorted(folders) if is_finished(folder)]
    ways = [
        (name, training_of(study, name), way.alpha_grid(study))
        for name, way in study.guidances.items()
    ]
    return parts_of(
        "methods",
        domain=plan.domain,
        study=study,
        training=training,
        manifest=manifest,
        table=table,
        sets=[f"{name} {count:,}" for name, count in sets],
        annotated=int(annotated.sum()),
        maps={name: f"{mask.sum():,}" for name, mask in maps.items()},
        seeds=plan.seeds,
        seen=[f"{count:,}" for count in sorted({seen.min(), seen.max()})] if len(seen) else [],
        ways=ways,
        methods=[*dict.fromkeys(own.method for _, own, _ in ways if own.by_method)],
        guided_map=_guided_map(plan),
        guided_classes=MAPS,
        marking=_marking(plan),
        clean=[name for name in results.setup.validation_sets if name != "val"],
        swapped=MOST_SWAPPED if results.setup.swapped else 0,
        rule=rule_words(study.threshold, TERMS[study.terms]),
        primary=results.setup.primary,
        fixed=bool((results.rates["kind"] == "fixed").any()),
        exact=EXACT_UP_TO,
        margin=RELEVANT_DIFFERENCE,
        shared=shared_images(plan.protocol.workspaces)[1] if study.draws else "",
        sizes=[f"{size:,}" for size in study.budgets],
        machines=[*dict.fromkeys(map(_machine, records))],
        seconds=seconds if math.isfinite(seconds) else 0.0,
        distance=_distance,
        pooling=_pooling,
        mapper_pool=Pool("top", training.pool_top).words,
        initial=_initial(study),
        changes=_changes(training.augmentation),
    )


def _initial(study: StudyConfig) -> str:
    """Initial weights of the backbones, without the folders of files."""
    given = study.weights
    names = {given: None} if isinstance(given, str) else dict.fromkeys(given.values())
    known = {"none": "random initial weights", "hub": "initial weights of the model hub"}
    return " or ".join(known.get(name, f"initial weights {Path(name).name}") for name in names)


def _changes(settings: Augmentation) -> list[str]:
    """Random changes of training images."""
    words = {
        "random flips": settings.flip,
        "quarter turns": settings.quarter_turns,
        f"crops of at least {percent(settings.crop_area)} of the area": settings.crop_area < 1,
        f"color changes of strength {settings.color:g}": settings.color > 0,
        f"half of the images changed outside their maps ({settings.outside})": settings.outside
        != "none",
    }
    return [name for name, is_on in words.items() if is_on] or ["no augmentation"]


def _distance(training: Training) -> str:
    """Distance of the guidance term; several with their weights."""
    weights = distance_weights(training.distance)
    return " + ".join(
        name if len(weights) == 1 else f"{weight:g} {name}" for name, weight in weights.items()
    )


def _pooling(training: Training) -> str:
    """Pooling of the maps to logits and read-out, if they are not the backbone's own."""
    pool = Pool(training.pool, training.pool_top)
    words = "" if pool.kind == "mean" else f"logits from the {pool.words}, "
    if training.readout == "auto":
        words += (
            "read-out of each finished model by the pooling with the highest AUC on the worst "
            "validation set, "
        )
    return words


def _machine(record: RunRecord) -> str:
    """Device, machine and library versions of a training."""
    versions = dict(record.versions)
    where = f"{record.device} ({versions.pop('machine', '?')})"
    return f"{where} with {', '.join(f'{name} {one}' for name, one in versions.items())}"


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


def _marking(plan: Plan) -> list[str]:
    """Saliency methods of the Teachers, with the settings of RISE."""
    study = plan.protocol.study
    rise = study.rise
    methods = {
        "cam": "the guided map",
        "rise": f"RISE ({rise.estimator} estimator of the {rise.score}, {rise.cells} × "
        f"{rise.cells} cells, up to {rise.max_masks:,} masks per image, tolerance "
        f"{rise.tolerance:g}, fill {rise.fill}; maps above the tolerance do not guide)",
    }
    classify = study.teacher_alphas or study.data_driven
    used = study.saliency if classify else ()
    names = [methods[method] for method in used]
    names += [f"the given maps {name}" for name in study.maps]
    if study.mapper:
        names.append("probabilities of a mark in each cell, of mappers trained on human maps alone")
    return names


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


def model_card(plan: Plan, results: Results, found: DomainFindings) -> str:
    """Card of the model in `best/`, as Markdown."""
    key, best = next(iter(results.best.items()))
    study, primary, backbone = plan.protocol.study, results.setup.primary, best.arm.backbone
    terms = TERMS[study.terms]
    tables = [
        set_table(plan, results, primary),
        fixed_rate_table(study, results, primary, backbone),
        source_table(results, primary, backbone),
    ]
    template = templates().get_template("card.j2")
    text = template.render(
        best=best,
        key=key,
        classes=results.setup.classes,
        positive=results.setup.positive,
        size=RunRecord.read(plan.protocol.run_folder(best.run)).input_size,
        teacher=plan.winner(),
        generations=study.generations,
        seeds=len(plan.seeds),
        found=found,
        tables=[table for table in tables if table is not None],
        thresholds=[
            (rule, rule_words(rule, terms), threshold_text(at))
            for rule, at in best.thresholds.items()
        ],
        tests=plan.protocol.workspace.manifest.eval_splits("test"),
        methods=methods(plan, results),
    )
    return f"{text}\n"
