"""Runs of controls."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from preceptor.config.guidance import takes_masks
from preceptor.config.maps import MapSource
from preceptor.config.training import Training
from preceptor.errors import InputError
from preceptor.study.baseline_runs import full_run
from preceptor.study.controls import Control, added_control
from preceptor.study.guided_runs import guided_by, on_maps, soft_labels
from preceptor.study.options import GuidanceConfig
from preceptor.study.protocol import Protocol
from preceptor.study.run_configs import training_of
from preceptor.study.setting import Setting
from preceptor.study.steps import Arm, Step, Train
from preceptor.study.teacher import Teacher
from preceptor.study.teacher_maps import maps_of


def control_run(
    protocol: Protocol,
    control: Control,
    teacher: Teacher,
    backbone: str,
    setting: Setting,
    seed: int,
) -> list[Step]:
    """Run of a control, after the steps that make its maps.

    Args:
        control: Name of the control, see `StudyConfig.controls`.
        teacher: Teacher whose maps or soft labels are used, by the controls in `OF_TEACHER`.
        backbone, setting, seed: Backbone, setting and seed of the run. α is the weight of the
            labels' own cross-entropy in the loss; soft labels of `distilled` have the weight
            1 − α. `masked` has α 1, `dfr` the study's setting with the mean pooling.
    """
    if control == "dfr":
        return _dfr_run(protocol, backbone, seed)
    if control == "centre" or control == "pca":
        like = guides_like(protocol, teacher, backbone, setting, seed)
        return [full_run(protocol, control, backbone, setting, seed, like)]
    if control != "shuffled" and control != "distilled" and control != "masked":
        return [full_run(protocol, control, backbone, setting, seed)]
    guiding, alpha = protocol.study.guiding(), setting.alpha
    source, steps = maps_of(protocol, teacher, seed, guiding)
    if control == "shuffled":
        values = guided_by(source, guiding, alpha)
        values["maps"] = protocol.shuffled(source, seed)
    elif control == "masked":
        setting = replace(setting, alpha=1.0)
        values = _masked(source, guiding, training_of(protocol.study, backbone, setting.guidance))
    else:
        values = guided_by(source, guiding, 1.0) | {
            "maps": MapSource(kind="none"),
            "soft_labels": soft_labels(source, 1 - alpha) if alpha < 1 else None,
        }
    return on_maps(
        protocol, Arm.of_setting(control, backbone, setting, teacher), seed, values, steps
    )


def guides_like(
    protocol: Protocol, teacher: Teacher, backbone: str, setting: Setting, seed: int
) -> dict[str, Any]:
    """Settings with which maps of all images guide only the classes that a Teacher's maps guide.

    Returns:
        `marks` of the maps for the maps of a mapper; `guide_classes` for given maps that some
        classes lack; nothing if the Teacher's maps guide all classes.
    """
    study = protocol.study
    if teacher.kind == "mapper" and study.generations == 1:
        # Masks guide all classes, also with the maps of a mapper.
        masks = takes_masks(training_of(study, backbone, setting.guidance).distance)
        return {} if masks else {"marks": True}
    if teacher.kind == "given":
        classes = protocol.classes_of(study.maps[teacher.name], seed)
        if classes is not None:
            chosen = study.guide_classes or classes
            return {"guide_classes": tuple(name for name in chosen if name in classes)}
    return {}


def added_control_run(
    protocol: Protocol, name: str, teacher: Teacher, backbone: str, setting: Setting, seed: int
) -> Step:
    """Run of a control of a plugin, on all training images.

    Args:
        protocol: Builds the steps.
        name: Name of the plugin.
        teacher: Selected Teacher; the maps of the control guide the classes that its maps guide.
        backbone, setting, seed: Backbone, setting and seed of the run; the setting is that of the
            Students.

    Raises:
        InputError: The plugin cannot be used, or gives settings that do not exist.
    """
    own = dict(added_control(name).settings(setting.alpha))
    fixed = {"alpha", "rows", "backbone", "seed", "manifest"} & own.keys()
    if fixed:
        raise InputError(f"controls: {name} sets {min(fixed)}, which the study sets; remove it")
    values = {"maps": MapSource(kind="none"), "annotated": None, "annotated_seed": 0} | own
    like = guides_like(protocol, teacher, backbone, setting, seed)
    maps = MapSource.model_validate(values["maps"])
    if maps.kind not in ("none", "human", "store"):
        values["maps"] = maps.model_copy(update={"marks": like.pop("marks", maps.marks)})
        values = like | values
    config = protocol.config(
        backbone, seed, setting.guidance, rows="all", alpha=setting.alpha, **values
    )
    arm = replace(Arm.of_setting("control", backbone, setting), variant=name)
    return protocol.train(arm, config)


def _dfr_run(protocol: Protocol, backbone: str, seed: int) -> list[Step]:
    """Baseline 2 with the mean pooling, and the run that trains its last layer again."""
    setting = protocol.study.mean_setting
    assert setting is not None
    base = full_run(protocol, "baseline2", backbone, setting, seed)
    assert isinstance(base.work, Train)
    config = base.work.config.model_copy(update={"last_layer": protocol.study.dfr_set})
    step = protocol.train(Arm.of_setting("dfr", backbone, setting), config, (base.id,))
    workspace = protocol.workspaces.at(config.manifest)
    return [base, replace(step, cost=len(workspace.split_rows("val")) / 3)]


def _masked(source: MapSource, guiding: GuidanceConfig, training: Training) -> dict[str, object]:
    """Settings of a run on the marked regions alone.

    Every image is changed outside its map, whatever its class and trust: otherwise the change
    itself would show the class.
    """
    changes = {"outside": "mean", "outside_rate": 1.0, "outside_strength": None}
    augmentation = training.augmentation.model_copy(update=changes)
    own = {"augmentation": augmentation, "consistency": 0.0, "distance": "l2"}
    kept = {"human": "keep", "trust": "none", "marks": False}
    return {
        "alpha": 1.0,
        "maps": source.model_copy(update=kept),
        "guide_classes": None,
        "post": guiding.post,
        "human_post": guiding.human_post,
        "training": training.model_copy(update=own),
    }
