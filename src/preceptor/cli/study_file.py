"""A commented study file for a manifest (`preceptor study init`), and the plan of a study."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from preceptor.cli.options import CONFIG_FORMATS, check_target
from preceptor.config.files import parse_config, read_yaml
from preceptor.data.manifest import Manifest
from preceptor.data.workspace import Workspace
from preceptor.errors import InputError
from preceptor.execution.local import jobs_at_first
from preceptor.models.networks import weights_file
from preceptor.study.checks import cache_bytes, count_kinds, estimate_seconds, weight_bytes
from preceptor.study.config import RECOMMENDED, StudyConfig
from preceptor.study.plan import Plan, outline
from preceptor.study.protocol import Protocol, plain_run
from preceptor.study.workspaces import Workspaces
from preceptor.study_folder import open_study, replay
from preceptor.training.prepare import build_for
from preceptor.utils.process import RUN_THREADS, checked_jobs
from preceptor.utils.results import write_atomically
from preceptor.utils.text import as_time, gibibytes

_TEMPLATE = """\
# Study of {manifest_name}: {images:,} images, {training:,} of them for training, of which
# {annotated:,} are annotated. Estimated time on this machine: {time} with {jobs} job(s).
# Run it with:  preceptor study {file} --out {out}

manifest: {manifest}
{positive_line}
primary: {primary}            # evaluation set of the hypothesis tests

teachers: [{backbone}]     # backbones of the Teachers
students: [{backbone}]     # backbones of Students and baselines; the paper's: densenet121,
                           # resnet50, legacy_xception, inception_v3
weights: {weights}              # hub (pretrained, needs internet), none, or a .safetensors file
seeds: 3                   # with 3 seeds, p cannot fall below 0.25

# The recommended settings of the method. Teachers: classifiers, α 0.1 or without guidance, and
# mappers, which are trained on the maps alone. All other guided models: α 0.5 and 0.1 (smaller =
# stronger guidance). Validation selects among Teachers, α and read-outs. Controls: shuffled,
# centre, pca, shuffled_human, mixed. Settings that are given here replace them.
recipe: recommended
mapper: {mapper}               # needs two classes, and maps of the positive one
# alphas: [0.9, 0.5, 0.1]
# teacher_alphas: [0.5, 0.1]
# annotated: 200           # use only this number (or fraction) of the annotated images
ceiling: {ceiling}              # false, unless all training images are annotated
{controls_line}
saliency: [cam]            # saliency methods: cam (CAM or Grad-CAM), rise (uses scores only)
# guide_classes: [{marked}]   # classes with guidance
# budget: [25, 50, 100]    # annotation budget: three or four more trainings per number and seed
threshold: eer             # rule of the decision threshold on validation: eer, or fdr=0.01
terms: generic             # names of the error rates: pad (attacks), medical, generic

training:
  # recipe: cyborg         # or paper: the published settings, 50 epochs at 224 or 299 px
  input_size: {size}
  batch_size: 20
  epochs: 20
  optimizer: sgd
  lr: 0.005
  schedule: cosine
  checkpoint: best_auc
  precision: 32-true       # or bf16-mixed, on a GPU
  threads: {threads}               # of one run; part of the run's id
  augmentation: {{flip: true, quarter_turns: false, crop_area: 1.0, color: 0.0}}
"""


def write_study_file(
    manifest_path: Path,
    target: Path,
    *,
    backbone: str = "resnet50",
    weights: str = "hub",
    size: int = 224,
    positive: str | None = None,
) -> tuple[str, str | None]:
    """Write a commented study file; returns the measured time estimate and the positive class.

    The positive class is by default the only one of two whose training images have maps, else the
    rarer one; None with more than two classes. An existing file is not overwritten.

    Raises:
        InputError: The manifest or the weights are invalid, the target exists, or the backbone
            cannot be guided at this size.
    """
    check_target("--to", target, formats=CONFIG_FORMATS)
    manifest = Manifest.read(manifest_path, verify=False)
    classes, training = manifest.classes, manifest.table[manifest.train_mask]
    annotated = training[manifest.annotated_mask[manifest.train_mask]]
    with_maps = training[(manifest.annotated_mask & manifest.map_mask)[manifest.train_mask]]
    marked = sorted(set(with_maps["label"]))
    if positive is None and len(classes) == 2:
        rarer = str(training["label"].value_counts().index[-1])
        positive = marked[0] if len(marked) == 1 else rarer
    if positive is not None and positive not in classes:
        raise InputError(f"--positive {positive!r} is not among the classes {classes}")
    if weights not in ("hub", "none"):  # paths in a config are relative to its file
        weights_file(weights)  # raises if it is none
        weights = os.path.relpath(weights, target.parent)
    ceiling = len(annotated) == len(training)
    values = {
        "manifest_name": manifest_path.name,
        "images": len(manifest),
        "training": len(training),
        "annotated": len(annotated),
        "file": target.name,
        "out": "study" if target.stem == "study" else f"{target.stem}-study",
        "manifest": _quoted(os.path.relpath(manifest_path, target.parent)),
        "positive_line": _positive_line(classes, positive),
        "marked": _quoted(positive or min(marked or classes)),
        "ceiling": "true" if ceiling else "false",
        "controls_line": _controls_line(ceiling),
        "mapper": "true" if len(classes) == 2 and positive in marked else "false",
        "primary": _quoted(manifest.eval_splits("test")[0]),
        "backbone": _quoted(backbone),
        "weights": _quoted(weights),
        "size": size,
        "threads": RUN_THREADS,
        "jobs": "…",
        "time": "…",
    }
    settings, _ = read_yaml(_TEMPLATE.format(**values))
    study = parse_config(settings, StudyConfig, base=target.parent)
    store = Path("store")  # where none is needed
    jobs = jobs_at_first("auto", study.training.threads)
    plain = plain_run(study, backbone)
    build_for(plain, classes, load_weights=False).guidable_grid()  # raises if too coarse
    workspace = Workspace(manifest)  # default cache folder, since there is no study folder yet
    path = study.manifest_of(study.seed_list[0])
    manifests = dict.fromkeys(study.seed_list, path)
    workspaces = Workspaces(manifests, {path: workspace.cache_dir}, {path: workspace})
    first, later = outline(Plan(Protocol(study, workspaces, store)))
    validation = len(workspace.split_rows("val"))
    time = as_time(estimate_seconds([*first, *later], study, classes, validation, jobs))
    write_atomically(target, _TEMPLATE.format(**values | {"time": time, "jobs": jobs}))
    return time, positive


def _positive_line(classes: Sequence[str], positive: str | None) -> str:
    """Line of the study file that has the positive class, or says what it would do."""
    if positive is None:
        return (
            f"# positive: CLASS          # without it, the mean one-vs-rest AUC of "
            f"{', '.join(classes)};\n"
            "                           # with it, the AUC of this class, and a threshold on its\n"
            "                           # score"
        )
    others = ", ".join(name for name in classes if name != positive)
    return (
        f"positive: {_quoted(positive)}            # class whose probability is the score; "
        f"other classes: {others}"
    )


def _controls_line(ceiling: bool) -> str:
    """Line of the study file that has the controls, without those that guide too few images."""
    every = RECOMMENDED["controls"]
    if ceiling:
        return f"# controls: [{', '.join(every)}]"
    fewer = [name for name in every if name != "shuffled_human"]
    return (
        f"controls: [{', '.join(fewer)}]   # without shuffled_human, which would guide\n"
        "                           # the annotated images only"
    )


def _quoted(word: str) -> str:
    """Word or path as YAML, quoted if necessary."""
    plain = re.fullmatch(r"[A-Za-z][\w./-]*", word, re.ASCII)
    if plain and word.lower() not in {"yes", "no", "on", "off", "true", "false", "null"}:
        return word
    return json.dumps(word, ensure_ascii=False)


def print_plan(
    study: StudyConfig, out: Path, jobs: int | None, tell: Callable[[str], None]
) -> None:
    """Print the plan of a study: stages, steps that are left, estimated time and disk space."""
    training = study.training
    jobs = checked_jobs(jobs, training.threads, tell) or jobs_at_first("auto", training.threads)
    opened = open_study(study, out, run=False, report_to=tell)
    with contextlib.suppress(InputError, OSError, ValueError):  # damaged results count as none
        replay(opened)
    names = (
        "stage 1 (baselines, ceiling, Teachers, probe Students)",
        "stage 2 (Students, controls, tests)",
    )
    total = 0.0
    weights = caches = 0
    for domain, plan in opened.plans.items():
        if domain:
            tell(f"{domain}:")
        workspace = plan.protocol.workspace
        caches += cache_bytes(plan.study, plan.protocol.workspaces.all())
        classes, validation = workspace.manifest.classes, len(workspace.split_rows("val"))
        for name, steps in zip(names, outline(plan), strict=True):
            work = [step for step in steps if step.kind != "select"]
            left = [step for step in work if not opened.is_finished(step)]
            seconds = estimate_seconds(left, study, classes, validation, jobs)
            total += seconds
            weights += weight_bytes(left, classes)
            tell(f"{name}: {count_kinds(steps)}")
            tell(f"  left: {len(left)} of {len(work)}; about {as_time(seconds)}")
    tell(f"disk: about {gibibytes(weights)} of models, {gibibytes(caches)} of image caches")
    tell(f"together about {as_time(total)} with {jobs} job{'s' if jobs != 1 else ''}")
