"""A commented study file for a manifest (`preceptor study init`), and the plan of a study."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from preceptor.cli.output_files import CONFIG_FORMATS, check_target
from preceptor.config.files import parse_config
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
selection: highest         # AUC on the worst validation set; or guided, val_auc (break ties)
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


@dataclass(frozen=True)
class WrittenStudy:
    """Study file that was written.

    Args:
        time: Time estimate as text.
        positive: Positive class; None = none, with more than two classes.
    """

    time: str
    positive: str | None


def write_study_file(
    manifest_path: Path,
    target: Path,
    *,
    backbone: str = "resnet50",
    weights: str = "hub",
    size: int = 224,
    positive: str | None = None,
) -> WrittenStudy:
    """Write a commented study file with a measured time estimate.

    Args:
        manifest_path: Path of the manifest; its images are not decoded.
        target: Output file; an existing one is not overwritten.
        backbone: Backbone of Teacher and Student.
        weights: Initial weights: hub, none or a .safetensors file.
        size: Side of the model's input in pixels.
        positive: Positive class; None = of two classes the only one of the training images that has
            maps, else the rarer one; of more classes none.

    Returns:
        The time estimate and the positive class.

    Raises:
        InputError: The manifest or the weights are invalid, the target exists, or the backbone
            cannot be guided at this size.
    """
    check_target("--to", target, formats=CONFIG_FORMATS)
    manifest = Manifest.read(manifest_path, verify=False)
    training = manifest.table[manifest.train_mask]
    positive = positive or _likely_positive(manifest)
    if positive is not None and positive not in manifest.classes:
        raise InputError(f"--positive {positive!r} is not among the classes {manifest.classes}")
    if weights not in ("hub", "none"):  # paths in a config are relative to its file
        weights_file(weights)  # raises if it is none
        weights = os.path.relpath(weights, target.parent)
    values = {
        "manifest_name": manifest_path.name,
        "images": len(manifest),
        "training": len(training),
        "annotated": int((manifest.annotated_mask & manifest.train_mask).sum()),
        "file": target.name,
        "out": "study" if target.stem == "study" else f"{target.stem}-study",
        "manifest": _quoted(os.path.relpath(manifest_path, target.parent)),
        "positive_line": _positive_line(manifest, positive),
        "marked": _quoted(positive or min(_classes_with_maps(manifest) or manifest.classes)),
        "ceiling": "true" if _ceiling_is_possible(manifest) else "false",
        "controls_line": _controls_line(manifest),
        "mapper": "true" if _mapper_is_possible(manifest, positive) else "false",
        "primary": _quoted(manifest.eval_splits("test")[0]),
        "backbone": _quoted(backbone),
        "weights": _quoted(weights),
        "size": size,
        "threads": RUN_THREADS,
        "jobs": "…",
        "time": "…",
    }
    import yaml

    study = parse_config(
        yaml.safe_load(_TEMPLATE.format(**values)), StudyConfig, base=target.parent
    )
    store = Path("store")  # where none is needed
    jobs = jobs_at_first("auto", study.training.threads)
    plain = plain_run(study, backbone)
    build_for(plain, manifest.classes, load_weights=False).guidable_grid()  # raises if too coarse
    workspace = Workspace(manifest)  # default cache folder, since there is no study folder yet
    path = study.manifest_of(study.seed_list[0])
    manifests = dict.fromkeys(study.seed_list, path)
    workspaces = Workspaces(manifests, {path: workspace.cache_dir}, {path: workspace})
    first, later = outline(Plan(Protocol(study, workspaces, store)))
    seconds = estimate_seconds(
        [*first, *later], study, manifest.classes, len(workspace.split_rows("val")), jobs
    )
    values |= {"time": as_time(seconds), "jobs": jobs}
    write_atomically(target, _TEMPLATE.format(**values))
    return WrittenStudy(as_time(seconds), positive)


def _likely_positive(manifest: Manifest) -> str | None:
    """Of two classes the only one that has maps, else the rarer one, of the training images."""
    if len(manifest.classes) > 2:
        return None
    marked = _classes_with_maps(manifest)
    if len(marked) == 1:
        return marked.pop()
    counts = manifest.table.loc[manifest.train_mask, "label"].value_counts()
    return str(counts.index[-1])


def _positive_line(manifest: Manifest, positive: str | None) -> str:
    """Line of the study file that has the positive class, or says what it would do."""
    if positive is None:
        among = ", ".join(manifest.classes)
        return (
            f"# positive: CLASS          # without it, the mean one-vs-rest AUC of {among};\n"
            "                           # with it, the AUC of this class, and a threshold on its\n"
            "                           # score"
        )
    others = ", ".join(name for name in manifest.classes if name != positive)
    return (
        f"positive: {_quoted(positive)}            # class whose probability is the score; "
        f"other classes: {others}"
    )


def _classes_with_maps(manifest: Manifest) -> set[str]:
    """Classes of the annotated training images with maps."""
    rows = manifest.train_mask & manifest.annotated_mask & manifest.map_mask
    return set(manifest.table.loc[rows, "label"])


def _mapper_is_possible(manifest: Manifest, positive: str | None) -> bool:
    """Whether there are two classes, and annotated images of the positive one with maps."""
    return len(manifest.classes) == 2 and positive in _classes_with_maps(manifest)


def _ceiling_is_possible(manifest: Manifest) -> bool:
    """Whether all training images are annotated."""
    return bool(manifest.annotated_mask[manifest.train_mask].all())


def _controls_line(manifest: Manifest) -> str:
    """Line of the study file that has the controls, without those that guide too few images."""
    every = RECOMMENDED["controls"]
    if _ceiling_is_possible(manifest):
        return f"# controls: [{', '.join(every)}]"
    fewer = [name for name in every if name != "shuffled_human"]
    return (
        f"controls: [{', '.join(fewer)}]   # without shuffled_human, which would guide\n"
        "                           # the annotated images only"
    )


def _quoted(word: str) -> str:
    """Word or path as YAML, quoted if necessary."""
    plain = word[:1].isalpha() and all(
        letter.isascii() and (letter.isalnum() or letter in "_-./") for letter in word
    )
    if plain and word.lower() not in {"yes", "no", "on", "off", "true", "false", "null"}:
        return word
    return json.dumps(word, ensure_ascii=False)


def print_plan(
    study: StudyConfig, out: Path, jobs: int | None, tell: Callable[[str], None]
) -> None:
    """Print the plan of a study: stages, steps, estimated time and disk space.

    Args:
        study: Study config.
        out: Study folder; its finished steps are not counted.
        jobs: Maximum number of concurrent steps.
        tell: Function that receives the lines.
    """
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
