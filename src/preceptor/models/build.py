"""Build models, and save and load model folders.

The class activation map is exact only if the logits are a linear head on mean-pooled features.
`build_model` checks this on the built network (`preceptor.models.probes`). Other backbones get
Grad-CAM through the head, or are rejected with the reason. Nothing in a model folder is unpickled.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file, save_file
from timm.data.config import resolve_model_data_config
from torch import nn

from preceptor.config.files import validated
from preceptor.config.settings import Fit, NetworkFactory
from preceptor.errors import InputError, PreceptorError, check_choice, reason
from preceptor.models.custom import (
    NetworkParts,
    check_classes,
    create_parts,
    guide_made,
    per_channel,
    with_parts,
)
from preceptor.models.features import last_block
from preceptor.models.guided_model import GuidedModel, ModelOutput
from preceptor.models.networks import classifiers, create_network, head_in, load_weights, separate
from preceptor.models.probes import check_trained, with_saliency
from preceptor.models.spec import CamKind, CamSource, Head, ModelSpec, Pool, Tap
from preceptor.utils.files import tensors_to
from preceptor.utils.process import evaluating, out_of_memory
from preceptor.utils.results import (
    CHECKSUMS,
    check_model_folder,
    files_that_differ,
    read_checksums,
    strict_json,
    write_checksums,
)


def build_model(
    backbone: str,
    classes: Sequence[str],
    *,
    positive: str | None = None,
    weights: str = "none",
    new_head: bool = False,
    in_chans: int = 3,
    input_size: int | None = None,
    fit: Fit = "squash",
    backbone_args: Mapping[str, Any] | None = None,
    head: Head = "softmax",
    cam: CamKind = "auto",
    cam_source: CamSource = "head_input",
    pool: Pool | None = None,
    network: NetworkFactory | None = None,
) -> GuidedModel:
    """Build a timm backbone for guided training, with the kind of saliency that it supports.

    Args:
        backbone: Name of a timm backbone. The paper's four: densenet121, resnet50, legacy_xception,
            inception_v3.
        classes: Class names in logit order, at least two.
        positive: Class whose probability is the score.
        weights: "hub" (pretrained weights of timm's hub), "none" (random), or a .safetensors file
            with timm's key names. Input channels are adapted by timm. The head is new, except from
            a file whose head has the same shape: its outputs must be the classes, in their order.
        new_head: Whether the head is new in any case.
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
        network: Factory of a network from outside timm, with its arguments; `backbone` is then only
            its name. For a module that exists already, see `guide`.

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
    check_classes(classes, positive, in_chans)
    check_choice("fit", fit, Fit)
    check_choice("head", head, Head)
    check_choice("cam_source", cam_source, CamSource)
    if head == "sigmoid" and len(classes) != 2:
        raise InputError(
            f"head: sigmoid needs two classes, and there are {len(classes)}; set head: softmax"
        )
    outputs = 1 if head == "sigmoid" else len(classes)
    if network is not None:
        if backbone_args or cam_source == "cyborg":
            wrong = "cam_source: cyborg" if cam_source == "cyborg" else "backbone_args"
            raise InputError(f"{backbone}: {wrong} is for backbones of timm; remove it")
        made = create_parts(network.factory, outputs, in_chans, network.args)
        model = guide_made(
            made, classes=classes, positive=positive, input_size=input_size, in_chans=in_chans,
            fit=fit, cam=cam, name=backbone
        )  # fmt: skip
        assert model.spec.module is not None
        if model.spec.head != head:
            raise InputError(
                f"{backbone}: head is {head}, which has num_classes={outputs}, and the network of "
                f"{network.factory} has another number of logits; let it use num_classes"
            )
        if weights != "none":
            own_head = model.spec.module.head
            module = made.module if isinstance(made, NetworkParts) else made
            load_weights(module, own_head, weights, backbone, new_head=new_head)
        spec = replace(model.spec, factory=network.factory, backbone_args=dict(network.args))
        model = GuidedModel(model.backbone, spec)
        return model if pool is None else with_pool(model, pool)
    created, arguments = _sized(
        backbone, outputs, in_chans, dict(backbone_args or {}), weights, input_size
    )
    # The same initialization in all backbones: in some families new heads have weights 25 times
    # larger, and an initial cross-entropy of 2.5 for two classes; in others zeros, and no saliency.
    for part in classifiers(created):
        for layer in part.modules():
            if isinstance(layer, nn.Linear):
                layer.reset_parameters()
    if weights not in ("hub", "none") and not new_head:
        created.load_state_dict(head_in(weights, created), strict=False)
    config = resolve_model_data_config(created)  # type: ignore[no-untyped-call]
    spec = ModelSpec(
        backbone=backbone,
        classes=classes,
        positive=positive,
        in_chans=in_chans,
        input_size=input_size or int(config["input_size"][-1]),
        mean=per_channel(config["mean"], in_chans),
        std=per_channel(config["std"], in_chans),
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
        try:
            model = GuidedModel(created, spec)
        except InputError as error:
            raise InputError(f"{backbone}: {error}") from error
        channels = int(_trial(model).features.shape[1])
        if channels != model.head.in_features:
            raise InputError(
                f"{backbone}: cam_source: cyborg has {channels} channels and the head needs "
                f"{model.head.in_features}; set cam_source: head_input"
            )
        return model
    _trial(GuidedModel(created, spec))
    taps: dict[Tap, str] = {"": ""}
    if last_block(created) is not None:
        taps["last_block"] = " from the last block"
    model = with_saliency(partial(GuidedModel, created), spec, cam, taps)
    return model if pool is None else with_pool(model, pool)


def with_pool(model: GuidedModel, pool: Pool) -> GuidedModel:
    """The same network with another pooling of its CAMs to logits; the model if it has that one."""
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
    if pool == model.spec.pool:  # a second model would add its own hooks to the network
        return model
    return GuidedModel(model.backbone, replace(model.spec, pool=pool), model.takes)


def _sized(
    backbone: str,
    outputs: int,
    in_chans: int,
    arguments: dict[str, Any],
    weights: str,
    input_size: int | None,
) -> tuple[nn.Module, dict[str, Any]]:
    """Network for an input size, and the arguments of the backbone that it was created with."""
    network = create_network(backbone, outputs, in_chans, arguments, weights)
    if input_size and "img_size" not in arguments and not _is_for(network, in_chans, input_size):
        sized = arguments | {"img_size": input_size}
        with contextlib.suppress(InputError):  # no such argument: `_trial` checks the size
            return create_network(backbone, outputs, in_chans, sized, weights), sized
    return network, arguments


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


def _trial(model: GuidedModel) -> ModelOutput:
    """Check a network by one forward pass."""
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


_SPEC = TypeAdapter(ModelSpec)
WEIGHTS = "model.safetensors"
"""Weights in a model folder."""
MODEL_FILES = ("model.json", WEIGHTS)
"""Files of a model folder that determine its predictions."""


def save_model(
    model: GuidedModel, folder: str | Path, thresholds: Mapping[str, float] | None = None
) -> None:
    """Write a model folder: `model.safetensors`, `model.json` and their checksums."""
    (folder := Path(folder)).mkdir(parents=True, exist_ok=True)
    with tensors_to(folder / WEIGHTS):
        save_file(separate(model.backbone.state_dict()), folder / WEIGHTS)
    spec = replace(model.spec, thresholds=dict(thresholds or model.spec.thresholds))
    (folder / "model.json").write_text(strict_json(asdict(spec)) + "\n", encoding="utf-8")
    write_checksums(folder, MODEL_FILES)


def check_model_files(folder: Path) -> dict[str, str]:
    """Checksums of the files of a model folder, which these match; else an InputError."""
    sums = read_checksums(folder)
    sums = {name: sums[name] for name in MODEL_FILES if sums.get(name)}
    if len(sums) < len(MODEL_FILES):
        raise InputError(
            f"{folder}: {CHECKSUMS} with the checksums of the model is missing or incomplete; copy "
            "the whole folder again, or remove the run and train it again"
        )
    if changed := files_that_differ(folder, sums):
        raise InputError(
            f"{folder}: {changed[0]} does not match its checksum: it was changed or damaged after "
            "it was written; copy the folder again"
        )
    return sums


def load_model(folder: str | Path, network: nn.Module | NetworkParts | None = None) -> GuidedModel:
    """Load a model folder; nothing is unpickled.

    Args:
        folder: The model folder.
        network: Network of a model that was made from an object by `guide`, with any weights; None
            = timm's, or that of the factory which the folder names.

    Raises:
        InputError: The folder is not a model folder, a file does not match its checksum, the folder
            is inconsistent, or its model has CAMs that do not add up to the logits.
    """
    folder = Path(folder)
    check_model_folder(folder)
    check_model_files(folder)
    try:
        spec = validated(_SPEC, (folder / "model.json").read_bytes(), "model.json")
        model = _empty(spec, network)
        model.backbone.load_state_dict(load_file(folder / WEIGHTS))
        check_trained(model)
        return model
    except InputError as error:
        raise InputError(f"{folder}: {error}") from error
    except PreceptorError:
        raise
    except Exception as error:  # a network that cannot be built, tensors of another shape
        if out_of_memory(error):  # it says nothing of the model
            raise
        raise InputError(f"{folder}: cannot be loaded: {reason(error)}") from error


def _empty(spec: ModelSpec, network: nn.Module | NetworkParts | None) -> GuidedModel:
    """Model of a specification, before its weights are loaded."""
    outputs = 1 if spec.head == "sigmoid" else len(spec.classes)
    if spec.module is None:
        if network is not None:
            raise InputError(f"its network is timm's {spec.backbone}; remove the argument network")
        created = create_network(spec.backbone, outputs, spec.in_chans, spec.backbone_args, "none")
        return GuidedModel(created, spec)
    if network is None and not spec.factory:
        raise InputError(
            f"its network, {spec.backbone}, is not timm's and has no factory; give it: "
            "load_model(folder, network=…)"
        )
    if network is None:
        network = create_parts(spec.factory, outputs, spec.in_chans, spec.backbone_args)
    if isinstance(network, NetworkParts):
        return with_parts(network.module, spec, network.logits)
    return with_parts(network, spec, None)
