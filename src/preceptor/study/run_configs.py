"""Run configs of a study: the settings of a training, by backbone, seed and way of guiding."""

from __future__ import annotations

from preceptor.config.run import RunConfig
from preceptor.config.training import Training
from preceptor.study.config import StudyConfig


def weights_of(study: StudyConfig, backbone: str) -> str:
    """Initial weights of a backbone: hub, none or a file."""
    return study.weights if isinstance(study.weights, str) else study.weights[backbone]


def training_of(study: StudyConfig, backbone: str, guidance: str = "") -> Training:
    """Training settings of a backbone, with the choices of the probe instead of auto.

    Args:
        study: Config of the study.
        backbone: Name of the backbone.
        guidance: Way of guiding; "" = the study's own settings.
    """
    training = study.training
    if chosen := study.speed.get(backbone):
        free = training.left_to_probe
        training = training.model_copy(update={name: getattr(chosen, name) for name in free})
    return study.guidances[guidance].training(training) if guidance else training


def annotated_seed_of(study: StudyConfig, seed: int) -> int:
    """Random seed of the subset of annotated images for a seed of the study."""
    return study.annotated_seed + (seed if study.annotated_per_seed else 0)


def run_config(study: StudyConfig, backbone: str, draw: int, **values: object) -> RunConfig:
    """Run config for a backbone and a seed of the study.

    Args:
        study: Config of the study, without domains.
        backbone: Backbone of the model.
        draw: Seed of the study, for the data and, unless `values` has another, the training.
        values: Settings that differ from a guided run on all training images.
    """
    base: dict[str, object] = {
        "manifest": study.manifest_of(draw),
        "backbone": backbone,
        "weights": weights_of(study, backbone),
        "backbone_args": study.backbone_args.get(backbone, {}),
        "network": study.backbones.get(backbone),
        "positive": study.positive,
        "annotated": study.annotated,
        "annotated_seed": annotated_seed_of(study, draw),
        "guide_classes": study.guide_classes,
        "human_post": study.human_post,
        "validation_negatives": study.validation_negatives,
        "seed": draw,
        "training": training_of(study, backbone),
    }
    return RunConfig.model_validate(base | values)


def plain_run(study: StudyConfig, backbone: str) -> RunConfig:
    """Run config of a backbone before the probe, for any classes: the defaults of `Speed` instead
    of auto, and no positive class.
    """
    training = study.training.without_auto()
    first = next(iter(study.by_domain().values()))
    return run_config(first, backbone, study.seed_list[0], positive=None, training=training)
