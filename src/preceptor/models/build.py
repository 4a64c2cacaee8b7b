"""Build, save and load models.

The class activation map is exact only where the logits are a linear head on mean-pooled features.
`build_model` measures that on the built network (`preceptor.models.probes`); a backbone that
breaks it gets Grad-CAM through its head instead, or is refused with the reason. Never a wrong map.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from timm.data.config import resolve_model_data_config
from torch import nn

from preceptor.config.image_format import Fit
from preceptor.errors import InputError, PreceptorError, reason
from preceptor.models.backbones import classifiers, create_network
from preceptor.models.feature_layout import CamSource, last_block
from preceptor.models.guided_model import GuidableModel, Head, ModelOutput, ModelSpec
from preceptor.models.probes import check_cam_identity, check_grad_cam, check_trained
from preceptor.runtime.memory import out_of_memory
from preceptor.runtime.modes import evaluating
from preceptor.runtime.strict_json import strict_json

CamKind = Literal["auto", "cam", "gradcam"]


def build_model(
    backbone: str,
    classes: Sequence[str],
    *,
    positive: str | None = None,
    weights: str = "none",
    in_chans: int = 3,
    input_size: int | None = None,
    fit: Fit = "squash",
    backbone_args: Mapping[str, Any] | None = None,
    head: Head = "softmax",
    cam: CamKind = "auto",
    cam_source: CamSource = "head_input",
) -> GuidableModel:
    """Build a timm backbone for guided training and find out how its saliency is to be taken.

    Args:
        backbone: A timm name. The paper's four: densenet121, resnet50, legacy_xception,
            inception_v3.
        classes: At least two class names, in logit order.
        positive: One of them, the class whose probability is the score.
        weights: "hub" (pretrained weights of timm's hub), "none" (random), or a .safetensors file
            with timm's key names. Input channels and head are adapted by timm.
        in_chans: 1 or 3.
        input_size: Side in pixels; None takes the backbone's own.
        fit: Kept in the model's description, so that it is fed as it was trained.
        backbone_args: Passed to the backbone, for example {"output_stride": 8}.
        head: softmax, a logit a class; or sigmoid, one logit z for two classes, handed out as
            (−z/2, z/2), whose softmax it is.
        cam: auto takes the exact CAM where the backbone has one and Grad-CAM elsewhere; cam or
            gradcam insist.
        cam_source: head_input, the features that the head sees; or cyborg, those that the authors'
            released code takes, whose maps do not add up to the logits.

    Raises:
        InputError: Unknown backbone or argument, weights that do not fit or cannot be had, or a
            backbone that has neither an exact CAM nor a Grad-CAM to train through.

    Example:
        >>> model = build_model("test_resnet", ["real", "fake"], positive="fake", input_size=64)
        >>> out = model(torch.zeros(2, 3, 64, 64))
        >>> out.logits.shape, out.features.shape
        (torch.Size([2, 2]), torch.Size([2, 96, 2, 2]))
        >>> model(torch.zeros(2, 3, 64, 64), torch.tensor([0, 1])).saliency.shape
        torch.Size([2, 2, 2])
    """
    classes = tuple(classes)
    if len(classes) < 2 or len(set(classes)) != len(classes):
        raise InputError(f"classes {list(classes)}: at least two different names are needed")
    if positive is not None and positive not in classes:
        raise InputError(f"positive {positive!r} is not one of the classes {list(classes)}")
    if in_chans not in (1, 3):
        raise InputError(f"in_chans is {in_chans}; images have 1 or 3 channels")
    if head == "sigmoid" and len(classes) != 2:
        raise InputError(f"head: sigmoid tells two classes apart, and there are {len(classes)}")
    arguments = dict(backbone_args or {})
    outputs = 1 if head == "sigmoid" else len(classes)
    network = create_network(backbone, outputs, in_chans, arguments, weights)
    if input_size and "img_size" not in arguments and not _is_for(network, in_chans, input_size):
        # Networks with a place for every patch or window are made for one size.
        sized = arguments | {"img_size": input_size}
        try:
            network = create_network(backbone, outputs, in_chans, sized, weights)
        except InputError:  # no such argument: the trial below tells what the size does
            pass
        else:
            arguments = sized
    for part in classifiers(network):
        for layer in part.modules():
            if isinstance(layer, nn.Linear):
                # One start for all backbones: some families give new heads weights 25 times larger,
                # and a first cross-entropy of 2.5 for two classes; others zeros, and no saliency.
                layer.reset_parameters()
    config = resolve_model_data_config(network)  # type: ignore[no-untyped-call]
    mean, std = tuple(config["mean"]), tuple(config["std"])
    if in_chans == 1:
        mean, std = (sum(mean) / len(mean),), (sum(std) / len(std),)
    spec = ModelSpec(
        backbone=backbone,
        classes=classes,
        positive=positive,
        in_chans=in_chans,
        input_size=input_size or int(config["input_size"][-1]),
        mean=mean,
        std=std,
        fit=fit,
        backbone_args=arguments,
        head=head,
        cam_source=cam_source,
    )
    if cam_source == "cyborg":
        if cam == "gradcam":
            raise InputError("cam_source: cyborg makes CAMs; it does not go with cam: gradcam")
        return _with_cyborg_taps(network, spec)
    return _probed(network, spec, cam)


def _is_for(network: nn.Module, in_chans: int, side: int) -> bool:
    """Whether a network takes square images of this side, and not by stretching its places."""
    embedding = getattr(getattr(network, "patch_embed", None), "img_size", None)
    if embedding and embedding[0] != side:
        return False
    try:
        with evaluating(network), torch.no_grad():
            network(torch.zeros(1, in_chans, side, side))
    except Exception:  # what it is, `_trial` tells
        return False
    return True


def _with_cyborg_taps(network: nn.Module, spec: ModelSpec) -> GuidableModel:
    """The model with the authors' taps, where its head takes that many channels."""
    try:
        model = GuidableModel(network, spec)
    except InputError as error:
        raise InputError(f"{spec.backbone}: {error}") from error
    channels = int(_trial(model).features.shape[1])
    if channels != model.head.in_features:
        raise InputError(
            f"{spec.backbone}: cam_source: cyborg gives {channels} channels and the head takes "
            f"{model.head.in_features}; set cam_source: head_input"
        )
    return model


def _probed(network: nn.Module, spec: ModelSpec, cam: CamKind) -> GuidableModel:
    """The model with the kind of saliency that its network allows."""
    model = GuidableModel(network, spec)
    _trial(model)
    why = ""
    if cam != "gradcam":
        try:
            check_cam_identity(model)
        except InputError as error:
            if cam == "cam":
                raise
            why = f"{error}; ".removeprefix(f"{spec.backbone}: ")
        else:
            return model
    for tap in ("", "last_block") if last_block(network) is not None else ("",):
        model = GuidableModel(network, replace(spec, cam="gradcam", tap=tap))
        wrong = check_grad_cam(model)
        if wrong is None:
            return model
        why += f"Grad-CAM{' from the last block' if tap else ''}: {wrong}; "
    raise InputError(f"{spec.backbone}: guidance is refused: {why.removesuffix('; ')}")


def _trial(model: GuidableModel) -> ModelOutput:
    """One forward, so that what the network cannot take is told as such.

    Raises:
        InputError: The network does not take the input size, or gives no grid of features.
    """
    spec, side = model.spec, model.spec.input_size
    try:
        # Not in inference mode: what a network then caches cannot be trained with.
        with evaluating(model), torch.no_grad():
            out: ModelOutput = model(torch.zeros(2, spec.in_chans, side, side))
    except InputError as error:
        raise InputError(f"{spec.backbone}: guidance is refused: {error}") from error
    except Exception as error:  # an input size that the backbone cannot take
        if out_of_memory(error):  # it says nothing of the model
            raise
        raise InputError(f"{spec.backbone} at input size {side}: {reason(error, 200)}") from error
    logits, classes = tuple(out.logits.shape), len(spec.classes)
    if logits != (2, classes):
        raise InputError(
            f"{spec.backbone}: its head gives logits {logits} for 2 images and {classes} classes; "
            "it must pool over places (backbone_args: global_pool)"
        )
    return out


def save_model(
    model: GuidableModel, folder: Path, thresholds: Mapping[str, float] | None = None
) -> None:
    """Write a model folder: `model.safetensors` and `model.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {key: value.contiguous() for key, value in model.backbone.state_dict().items()}
    save_file(state, folder / "model.safetensors")
    spec = replace(model.spec, thresholds=dict(thresholds or model.spec.thresholds))
    (folder / "model.json").write_text(strict_json(asdict(spec)) + "\n")


def load_model(folder: str | Path) -> GuidableModel:
    """Load a model folder; nothing is unpickled.

    Raises:
        InputError: No model folder, one that does not fit together, or one that claims an exact CAM
            whose sum is not the logit.
    """
    folder = Path(folder)
    file = folder / "model.json"
    if not file.is_file():
        raise InputError(f"{folder} is not a model folder: it has no model.json")
    try:
        values = json.loads(file.read_text())
        for key in ("classes", "mean", "std"):
            values[key] = tuple(values[key])
        spec = ModelSpec(**values)
        outputs = 1 if spec.head == "sigmoid" else len(spec.classes)
        network = create_network(spec.backbone, outputs, spec.in_chans, spec.backbone_args, "none")
        network.load_state_dict(load_file(folder / "model.safetensors"))
        model = GuidableModel(network, spec)
        check_trained(model)
        return model
    except InputError as error:
        raise InputError(f"{folder}: {error}") from error
    except PreceptorError:
        raise
    except Exception as error:  # damaged JSON, missing keys, tensors of another shape
        if out_of_memory(error):  # it says nothing of the model
            raise
        raise InputError(f"{folder}: cannot be loaded: {reason(error)}") from error
