"""timm backbones that answer with logits and the features under them, checked at building.

The class activation map is exact only where the logits are a linear head on pooled features.
`build_model` measures that on the built network and refuses a backbone that breaks it, naming the
reason, rather than hand out a wrong map.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from timm.data.config import resolve_model_data_config
from torch import Tensor, nn

from preceptor import __version__
from preceptor.errors import InputError, PreceptorError

# Largest |mean(cam) + bias − logit| ÷ largest |logit|, float32, evaluation mode.
IDENTITY_TOLERANCE = 1e-4


class ModelOutput(NamedTuple):
    """What one forward gives.

    Args:
        logits: (B, C).
        features: (B, Ch, h, w), exactly what the pooled linear head sees.
    """

    logits: Tensor
    features: Tensor


@dataclass(frozen=True)
class ModelSpec:
    """Everything needed to build the model again and to feed it: the content of `model.json`.

    Args:
        backbone: timm's name.
        classes: Class names in logit order.
        positive: The class whose probability is the score (two classes), or None.
        in_chans: 1 or 3.
        input_size: Side of the square input in pixels.
        mean, std: Of the input in [0, 1], a value a channel.
        fit: How an image is brought to the square input.
        backbone_args: Further arguments of the backbone.
        cam: How saliency is taken: "cam", exact on this backbone.
        thresholds: Decision thresholds by name, fixed on validation.
        version: The library's version when the model was built.
    """

    backbone: str
    classes: tuple[str, ...]
    positive: str | None
    in_chans: int
    input_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fit: str = "squash"
    backbone_args: Mapping[str, Any] = field(default_factory=dict)
    cam: str = "cam"
    thresholds: Mapping[str, float] = field(default_factory=dict)
    version: str = __version__


class GuidableModel(nn.Module):
    """A timm backbone whose forward returns logits and features; made by `build_model`.

    Args:
        backbone: The timm network, its classifier included.
        spec: What it is.
    """

    def __init__(self, backbone: nn.Module, spec: ModelSpec) -> None:
        super().__init__()
        self.backbone = backbone
        self.spec = spec
        shape = (1, spec.in_chans, 1, 1)
        self.register_buffer("mean", torch.tensor(spec.mean).view(shape), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(shape), persistent=False)

    def forward(self, images: Tensor) -> ModelOutput:
        """Logits and features of normalised images (B, in_chans, H, W), in one pass."""
        features = self.backbone.forward_features(images)  # type: ignore[operator]
        return ModelOutput(self.backbone.forward_head(features), features)  # type: ignore[operator]

    def preprocess(self, images: Tensor) -> Tensor:
        """Normalise (B, in_chans, H, W) uint8 images to the backbone's mean and spread."""
        mean, std = self.get_buffer("mean"), self.get_buffer("std")
        return images.to(mean.dtype).div_(255).sub_(mean).div_(std)

    @property
    def head(self) -> nn.Linear:
        """The linear classifier: weight (C, Ch), bias (C,)."""
        head = self.backbone.get_classifier()  # type: ignore[operator]
        assert isinstance(head, nn.Linear)
        return head

    def guidable_grid(self) -> tuple[int, int]:
        """The grid, where it has at least 2 × 2 cells.

        Raises:
            InputError: It is coarser: every map on it is constant or nearly so, and guidance would
                do nothing in silence.
        """
        height, width = self.grid()
        if min(height, width) < 2:
            raise InputError(
                f"{self.spec.backbone} at input size {self.spec.input_size} has a {height} × "
                f"{width} feature grid, too coarse to guide; raise input_size, or set "
                "backbone_args: {output_stride: 8} where the backbone takes it"
            )
        return height, width

    def grid(self) -> tuple[int, int]:
        """(h, w) of the features at the model's input size."""
        training = self.training
        self.eval()
        weight = self.head.weight
        size = (1, self.spec.in_chans, self.spec.input_size, self.spec.input_size)
        with torch.inference_mode():
            blank = torch.zeros(size, dtype=weight.dtype, device=weight.device)
            shape = self(blank).features.shape
        self.train(training)
        return int(shape[-2]), int(shape[-1])


def build_model(
    backbone: str,
    classes: Sequence[str],
    *,
    positive: str | None = None,
    weights: str = "none",
    in_chans: int = 3,
    input_size: int | None = None,
    fit: str = "squash",
    backbone_args: Mapping[str, Any] | None = None,
) -> GuidableModel:
    """Build a timm backbone for guided training and check that its CAM is exact.

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

    Raises:
        InputError: Unknown backbone or argument, weights that do not fit or cannot be had, or a
            backbone whose CAM would be wrong.

    Example:
        >>> model = build_model("test_resnet", ["real", "fake"], positive="fake", input_size=64)
        >>> out = model(torch.zeros(2, 3, 64, 64))
        >>> out.logits.shape, out.features.shape
        (torch.Size([2, 2]), torch.Size([2, 96, 2, 2]))
    """
    classes = tuple(classes)
    if len(classes) < 2 or len(set(classes)) != len(classes):
        raise InputError(f"classes {list(classes)}: at least two different names are needed")
    if positive is not None and positive not in classes:
        raise InputError(f"positive {positive!r} is not one of the classes {list(classes)}")
    if in_chans not in (1, 3):
        raise InputError(f"in_chans is {in_chans}; images have 1 or 3 channels")
    if not timm.is_model(backbone):
        near = difflib.get_close_matches(backbone.split(".")[0], timm.list_models(), n=3)
        hint = f"; near names: {', '.join(near)}" if near else ""
        raise InputError(f"backbone {backbone!r} is not known to timm {timm.__version__}{hint}")
    arguments = dict(backbone_args or {})
    network = _create(backbone, len(classes), in_chans, arguments, weights)
    getter = getattr(network, "get_classifier", None)
    head = getter() if getter is not None else None
    if isinstance(head, nn.Linear):
        # One start for all backbones: some families give new heads weights 25 times larger, and
        # a first cross-entropy of 2.5 for two classes.
        head.reset_parameters()
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
    )
    model = GuidableModel(network, spec)
    check_cam_identity(model)
    return model


def _create(
    backbone: str, classes: int, in_chans: int, arguments: Mapping[str, Any], weights: str
) -> nn.Module:
    """The timm network with its weights; every way that can fail named in one line."""
    overlay: dict[str, Any] | None = None
    if weights != "none":
        file = _hub_file(backbone) if weights == "hub" else Path(weights)
        if not file.is_file():
            raise InputError(f"weights: {file} is not a file; use a .safetensors file, hub or none")
        if file.suffix != ".safetensors":
            raise InputError(f"weights: {file} is not a .safetensors file; others are never loaded")
        overlay = {"file": str(file)}
    try:
        network: nn.Module = timm.create_model(
            backbone,
            pretrained=overlay is not None,
            pretrained_cfg_overlay=overlay,
            num_classes=classes,
            in_chans=in_chans,
            **arguments,
        )
    except Exception as error:  # timm and torch raise many kinds, each about the arguments
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        if overlay is not None:
            try:
                timm.create_model(backbone, num_classes=classes, in_chans=in_chans, **arguments)
            except Exception:  # the weights are not to blame
                pass
            else:
                raise InputError(
                    f"weights: {overlay['file']} does not fit {backbone}: {reason}"
                ) from error
        if arguments:
            raise InputError(
                f"backbone_args {dict(arguments)}: {backbone} does not take them: {reason}"
            ) from error
        raise InputError(f"backbone {backbone} cannot be built: {reason}") from error
    if overlay is not None and weights != "hub":
        _check_all_filled(network, Path(overlay["file"]), backbone)
    return network


def _check_all_filled(network: nn.Module, file: Path, backbone: str) -> None:
    """Refuse a weights file that leaves a part of the network random.

    timm loads without `strict` where the number of classes differs from the file's, so a file with
    other key names would change nothing and say nothing.
    """
    with safe_open(file, "pt") as tensors:
        given = set(tensors.keys())
    head = {id(value) for value in network.get_classifier().parameters()}  # type: ignore[operator]
    missing = [
        key
        for key, value in network.state_dict(keep_vars=True).items()
        if key not in given and id(value) not in head and not key.endswith("num_batches_tracked")
    ]
    if missing:
        raise InputError(
            f"weights: {file} does not fit {backbone}: it lacks {len(missing)} tensors under "
            f"timm's names, the first {missing[0]!r}"
        )


def _hub_file(backbone: str) -> Path:
    """Fetch a backbone's pretrained weights from timm's hub, as safetensors only."""
    from huggingface_hub import hf_hub_download

    config = timm.get_pretrained_cfg(backbone)
    if config is None or not config.hf_hub_id:
        raise InputError(
            f"weights: timm has no hub weights for {backbone}; use weights: FILE or none"
        )
    try:
        return Path(hf_hub_download(config.hf_hub_id, "model.safetensors"))
    except Exception as error:  # the hub client raises its own and the network's kinds
        reason = " ".join(str(error).split())[:160]
        raise InputError(
            f"weights: the hub weights of {backbone} ({config.hf_hub_id}) cannot be fetched: "
            f"{reason}; with no network use weights: FILE.safetensors"
        ) from error


def check_cam_identity(model: GuidableModel) -> float:
    """Check that mean(cam_c) + bias_c = logit_c, so that the CAM is what the head sees.

    Returns:
        The largest error ÷ the largest |logit|, on random input in evaluation mode.

    Raises:
        InputError: It does not hold, with the reason.
    """
    spec = model.spec
    refuse = f"{spec.backbone}: no exact class activation map, so guidance is refused: "
    getter = getattr(model.backbone, "get_classifier", None)
    head = getter() if getter is not None else None
    if not isinstance(head, nn.Linear):
        raise InputError(f"{refuse}its classifier is {type(head).__name__}, not one linear layer")
    training = model.training
    model.eval()
    generator = torch.Generator().manual_seed(0)
    side = spec.input_size
    # A head that starts at zero would pass whatever lies under it: check with a random one.
    kept = {key: value.clone() for key, value in head.state_dict().items()}
    try:
        with torch.inference_mode():
            for value in head.state_dict().values():
                value.copy_(torch.randn(value.shape, generator=generator))
            out = model(torch.randn((2, spec.in_chans, side, side), generator=generator))
            pooled_logits = (
                head(out.features.mean((2, 3)))
                if out.features.ndim == 4 and out.features.shape[1] == head.in_features
                else None
            )
    except Exception as error:  # an input size that the backbone cannot take
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{spec.backbone} at input size {side}: {reason}") from error
    finally:
        head.load_state_dict(kept)
        model.train(training)
    logits, features = out
    if features.ndim != 4:
        raise InputError(f"{refuse}its features are {tuple(features.shape)}, not (B, Ch, h, w)")
    if pooled_logits is None:
        raise InputError(
            f"{refuse}the head takes {head.in_features} values and the features have "
            f"{features.shape[1]} channels, so something lies between them"
        )
    gap = float((pooled_logits - logits).abs().max() / logits.abs().max().clamp_min(1e-12))
    if not gap <= IDENTITY_TOLERANCE:
        raise InputError(
            f"{refuse}mean(CAM) + bias differs from the logits by {gap:.1e} of the largest "
            "(pooling is not a plain mean, or a layer lies between pooling and head)"
        )
    return gap


def save_model(
    model: GuidableModel, folder: Path, thresholds: Mapping[str, float] | None = None
) -> None:
    """Write a model folder: `model.safetensors` and `model.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {key: value.contiguous() for key, value in model.backbone.state_dict().items()}
    save_file(state, folder / "model.safetensors")
    spec = replace(model.spec, thresholds=dict(thresholds or model.spec.thresholds))
    (folder / "model.json").write_text(json.dumps(asdict(spec), indent=2) + "\n")


def load_model(folder: str | Path) -> GuidableModel:
    """Load a model folder; nothing is unpickled.

    Raises:
        InputError: No model folder, or one that does not fit together.
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
        network = _create(
            spec.backbone, len(spec.classes), spec.in_chans, spec.backbone_args, "none"
        )
        network.load_state_dict(load_file(folder / "model.safetensors"))
        return GuidableModel(network, spec)
    except PreceptorError:
        raise
    except Exception as error:  # damaged JSON, missing keys, tensors of another shape
        raise InputError(
            f"{folder}: cannot be loaded: {' '.join(str(error).split())[:300]}"
        ) from error
