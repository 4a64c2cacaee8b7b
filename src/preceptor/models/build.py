"""Build, save and load models.

The class activation map is exact only if the logits are a linear head on mean-pooled features.
`build_model` checks this on the built network (`preceptor.models.probes`). Other backbones get
Grad-CAM through the head, or are rejected with the reason.
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
from preceptor.models.guided_model import GuidedModel
from preceptor.models.outputs import ModelOutput
from preceptor.models.pooling import Pool
from preceptor.models.probes import check_cam_identity, check_grad_cam, check_trained
from preceptor.models.spec import Head, ModelSpec
from preceptor.runtime.checksums import (
    CHECKSUMS,
    files_that_differ,
    read_checksums,
    write_checksums,
)
from preceptor.runtime.memory import out_of_memory
from preceptor.runtime.modes import evaluating
from preceptor.runtime.result_folder import checksum, is_finished
from preceptor.runtime.strict_json import strict_json

CamKind = Literal["auto", "cam", "gradcam"]

MODEL_FILES = ("model.json", "model.safetensors")
"""Files of a model folder that determine its predictions."""


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
    pool: Pool | None = None,
) -> GuidedModel:
    """Build a timm backbone for guided training, with the kind of saliency that it supports.

    Args:
        backbone: Name of a timm backbone. The paper's four: densenet121, resnet50,
            legacy_xception, inception_v3.
        classes: Class names in logit order, at least two.
        positive: Class whose probability is the score.
        weights: "hub" (pretrained weights of timm's hub), "none" (random), or a .safetensors file
            with timm's key names. Input channels and head are adapted by timm.
        in_chans: Number of input channels, 1 or 3.
        input_size: Side of the input in pixels; None = the default of the backbone.
        fit: Method that makes images square, stored in the specification of the model.
        backbone_args: Further arguments of the backbone, for example {"output_stride": 8}.
        head: softmax (one logit per class); or sigmoid (one logit z for two classes, returned as
            (−z/2, z/2)).
        cam: Kind of saliency map: auto (the exact CAM if the backbone has one, else Grad-CAM), cam
            or gradcam.
        cam_source: Features of the CAM: head_input (input of the head); or cyborg (the layers of
            the authors' released code, whose maps do not add up to the logits).
        pool: Pooling of the CAMs to logits; None = mean, as in the backbone itself. Others need an
            exact CAM.

    Raises:
        InputError: The backbone or an argument is unknown, the weights do not match or cannot be
            loaded, or the backbone has neither an exact CAM nor a trainable Grad-CAM.

    Example:
        >>> model = build_model("test_resnet", ["real", "fake"], positive="fake", input_size=64)
        >>> out = model(torch.zeros(2, 3, 64, 64))
        >>> out.logits.shape, out.features.shape
        (torch.Size([2, 2]), torch.Size([2, 96, 2, 2]))
        >>> model(torch.zeros(2, 3, 64, 64), torch.tensor([0, 1])).saliency.shape
        torch.Size([2, 2, 2])
    """
    classes = tuple(classes)
    _check_arguments(classes, positive, in_chans, head)
    outputs = 1 if head == "sigmoid" else len(classes)
    network, arguments = _sized(
        backbone, outputs, in_chans, dict(backbone_args or {}), weights, input_size
    )
    _reset_head(network)
    mean, std, default_size = _input_of(network, in_chans)
    spec = ModelSpec(
        backbone=backbone,
        classes=classes,
        positive=positive,
        in_chans=in_chans,
        input_size=input_size or default_size,
        mean=mean,
        std=std,
        fit=fit,
        backbone_args=arguments,
        head=head,
        cam_source=cam_source,
    )
    if cam_source == "cyborg":
        if cam == "gradcam":
            raise InputError("cam_source: cyborg needs cam: cam, and cam is gradcam; change one")
        if pool is not None and pool.kind != "mean":
            raise InputError(
                f"cam_source: cyborg has maps that do not add up to the logits, and pool is "
                f"{pool.kind}; set cam_source: head_input, or pool: mean"
            )
        return _with_cyborg_taps(network, spec)
    model = _probed(network, spec, cam)
    return model if pool is None else with_pool(model, pool)


def with_pool(model: GuidedModel, pool: Pool) -> GuidedModel:
    """The same network with another pooling of its CAMs to logits.

    Raises:
        InputError: The model has no exact CAM, or `pool.top` is larger than its grid.
    """
    if pool.kind != "mean" and model.spec.cam != "cam":
        raise InputError(
            f"{model.spec.backbone}: pool: {pool.kind} needs an exact class activation map, and "
            "the backbone has Grad-CAM only; set pool: mean, or use another backbone"
        )
    if pool.kind == "top":
        height, width = model.grid()
        if pool.count(height * width) > height * width:
            raise InputError(
                f"{model.spec.backbone}: pool_top is {pool.top}, and the feature grid has {height} "
                f"× {width} = {height * width} cells; lower pool_top"
            )
    return GuidedModel(model.backbone, replace(model.spec, pool=pool))


def _check_arguments(
    classes: tuple[str, ...], positive: str | None, in_chans: int, head: Head
) -> None:
    """Refuse classes, a number of channels or a head that no model can have."""
    if len(classes) < 2 or len(set(classes)) != len(classes):
        raise InputError(f"classes {list(classes)}: name at least two different classes")
    if positive is not None and positive not in classes:
        raise InputError(f"positive {positive!r} is not one of the classes {list(classes)}")
    if in_chans not in (1, 3):
        raise InputError(f"in_chans is {in_chans}; images have 1 or 3 channels")
    if head == "sigmoid" and len(classes) != 2:
        raise InputError(
            f"head: sigmoid needs two classes, and there are {len(classes)}; set head: softmax"
        )


def _sized(
    backbone: str,
    outputs: int,
    in_chans: int,
    arguments: dict[str, Any],
    weights: str,
    input_size: int | None,
) -> tuple[nn.Module, dict[str, Any]]:
    """Network for an input size, and the arguments of the backbone that it was created with.

    Networks with position embeddings for patches or windows are created for one size.
    """
    network = create_network(backbone, outputs, in_chans, arguments, weights)
    if not input_size or "img_size" in arguments or _is_for(network, in_chans, input_size):
        return network, arguments
    sized = arguments | {"img_size": input_size}
    try:
        return create_network(backbone, outputs, in_chans, sized, weights), sized
    except InputError:  # no such argument: `_trial` checks the size
        return network, arguments


def _reset_head(network: nn.Module) -> None:
    """Give the head the same initialization in all backbones.

    In some families new heads have weights 25 times larger, and an initial cross-entropy of 2.5 for
    two classes; in others zeros, and no saliency.
    """
    for part in classifiers(network):
        for layer in part.modules():
            if isinstance(layer, nn.Linear):
                layer.reset_parameters()


def _input_of(
    network: nn.Module, in_chans: int
) -> tuple[tuple[float, ...], tuple[float, ...], int]:
    """Mean and standard deviation of each channel, and the default input size in pixels."""
    config = resolve_model_data_config(network)  # type: ignore[no-untyped-call]
    mean, std = tuple(config["mean"]), tuple(config["std"])
    if in_chans == 1:
        mean, std = (sum(mean) / len(mean),), (sum(std) / len(std),)
    return mean, std, int(config["input_size"][-1])


def _is_for(network: nn.Module, in_chans: int, side: int) -> bool:
    """Whether a network takes square images of this side without resampled position embeddings."""
    embedding = getattr(getattr(network, "patch_embed", None), "img_size", None)
    if embedding and embedding[0] != side:
        return False
    try:
        with evaluating(network), torch.no_grad():
            network(torch.zeros(1, in_chans, side, side))
    except Exception:  # `_trial` reports the cause
        return False
    return True


def _with_cyborg_taps(network: nn.Module, spec: ModelSpec) -> GuidedModel:
    """Model with the taps of the authors' code, if its head has that many input channels."""
    try:
        model = GuidedModel(network, spec)
    except InputError as error:
        raise InputError(f"{spec.backbone}: {error}") from error
    channels = int(_trial(model).features.shape[1])
    if channels != model.head.in_features:
        raise InputError(
            f"{spec.backbone}: cam_source: cyborg has {channels} channels and the head needs "
            f"{model.head.in_features}; set cam_source: head_input"
        )
    return model


def _probed(network: nn.Module, spec: ModelSpec, cam: CamKind) -> GuidedModel:
    """Model with the kind of saliency that its network supports."""
    model = GuidedModel(network, spec)
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
        model = GuidedModel(network, replace(spec, cam="gradcam", tap=tap))
        wrong = check_grad_cam(model)
        if wrong is None:
            return model
        why += f"Grad-CAM{' from the last block' if tap else ''}: {wrong}; "
    raise InputError(f"{spec.backbone}: guidance is refused: {why.removesuffix('; ')}")


def _trial(model: GuidedModel) -> ModelOutput:
    """Check a network by one forward pass.

    Raises:
        InputError: The network does not accept the input size, or has no grid of features.
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
            f"{spec.backbone}: the head returns logits {logits} for 2 images and {classes} "
            "classes; set global pooling (backbone_args: global_pool)"
        )
    return out


def save_model(
    model: GuidedModel, folder: Path, thresholds: Mapping[str, float] | None = None
) -> None:
    """Write a model folder: `model.safetensors`, `model.json` and their checksums."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {key: value.contiguous() for key, value in model.backbone.state_dict().items()}
    save_file(state, folder / "model.safetensors")
    spec = replace(model.spec, thresholds=dict(thresholds or model.spec.thresholds))
    (folder / "model.json").write_text(strict_json(asdict(spec)) + "\n")
    write_checksums(folder, MODEL_FILES)


def check_model_files(folder: Path) -> dict[str, str]:
    """Check the files of a model folder against their checksums.

    The model folder of a run that an earlier version trained has its checksums in `run.json`.

    Returns:
        Checksum of each file.

    Raises:
        InputError: A file does not match its checksum, or there are no checksums.
    """
    known, run = read_checksums(folder), folder.absolute().parent
    if not known and is_finished(run):
        inside = folder.absolute().name
        known = {name: checksum(run, f"{inside}/{name}") for name in MODEL_FILES}
    known = {name: known[name] for name in MODEL_FILES if known.get(name)}
    if len(known) < len(MODEL_FILES):
        raise InputError(
            f"{folder}: {CHECKSUMS} with the checksums of the model is missing or incomplete; copy "
            "the whole folder again, or write best/ of an older study again: preceptor report STUDY"
        )
    if changed := files_that_differ(folder, known):
        raise InputError(
            f"{folder}: {changed[0]} does not match its checksum: it was changed or damaged after "
            "it was written; copy the folder again"
        )
    return known


def load_model(folder: str | Path) -> GuidedModel:
    """Load a model folder; nothing is unpickled.

    Raises:
        InputError: The folder is not a model folder, a file does not match its checksum, the folder
            is inconsistent, or its model has CAMs that do not add up to the logits.
    """
    folder = Path(folder)
    file = folder / "model.json"
    if not file.is_file():
        raise InputError(f"{folder} is not a model folder: it has no model.json")
    check_model_files(folder)
    try:
        values = json.loads(file.read_text())
        for key in ("classes", "mean", "std"):
            values[key] = tuple(values[key])
        values["pool"] = Pool(**values["pool"])
        spec = ModelSpec(**values)
        outputs = 1 if spec.head == "sigmoid" else len(spec.classes)
        network = create_network(spec.backbone, outputs, spec.in_chans, spec.backbone_args, "none")
        network.load_state_dict(load_file(folder / "model.safetensors"))
        model = GuidedModel(network, spec)
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
