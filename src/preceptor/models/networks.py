"""timm networks with their weights, and weights files."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from preceptor.errors import InputError, reason
from preceptor.utils.process import out_of_memory

# Arguments of timm that read files or download weights. Only `weights` may decide what is loaded
# (it is part of a run's id), and timm unpickles some of these files.
_LOADING = ("checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")
_WRAPPED = "module."  # before the names of tensors in a `ModuleNetwork`


def create_network(
    backbone: str, outputs: int, in_chans: int, arguments: Mapping[str, Any], weights: str
) -> nn.Module:
    """Create a timm network with its weights."""
    if not timm.is_model(backbone):
        near = difflib.get_close_matches(backbone.split(".")[0], timm.list_models(), n=3)
        hint = f"; near names: {', '.join(near)}" if near else ""
        raise InputError(f"backbone {backbone!r} is not known to timm {timm.__version__}{hint}")
    for key in _LOADING:
        if key in arguments:
            raise InputError(
                f"backbone_args: {key} is not allowed; set `weights` to hub, none or a "
                ".safetensors file"
            )
    if arguments.get("features_only"):
        raise InputError(
            f"backbone_args: features_only leaves {backbone} without a classifier; remove it"
        )
    file = None
    if weights != "none":
        file = _hub_file(backbone) if weights == "hub" else weights_file(weights)
    # timm lists mismatching keys; the error message has one line.
    logger = logging.getLogger("timm.models._builder")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        network: nn.Module = timm.create_model(
            backbone,
            pretrained=file is not None,
            # Some configs of timm 1.0.23 read their weights as npz, whatever the file is.
            pretrained_cfg_overlay={"file": str(file), "custom_load": False} if file else None,
            num_classes=outputs,
            in_chans=in_chans,
            **arguments,
        )
    except Exception as error:  # timm and torch raise many types, all about the arguments
        if out_of_memory(error):
            raise
        given = f" with backbone_args {dict(arguments)}" if arguments else ""
        if file and not arguments:
            raise InputError(
                f"weights: {backbone} cannot be built with weights {file}: {reason(error)}"
            ) from error
        raise InputError(f"backbone {backbone} cannot be built{given}: {reason(error)}") from error
    finally:
        logger.setLevel(level)
    if not (hasattr(network, "forward_features") and hasattr(network, "forward_head")):
        raise InputError(
            f"backbone {backbone} is a {type(network).__name__} without features and head apart; "
            "choose another backbone"
        )
    if file is not None and weights != "hub":
        _check_names(network, file, backbone)
    _thin_before_points(network)
    return network


def classifiers(network: nn.Module) -> list[nn.Module]:
    """Classifiers of a timm network: usually one, two for distilled networks."""
    getter = getattr(network, "get_classifier", None)
    given = getter() if getter is not None else None
    return [part for part in (given if isinstance(given, tuple) else [given]) if part is not None]


class ThinnedConv2d(nn.Conv2d):
    """1 × 1 convolution with a stride, computed by subsampling the input first.

    On a CPU, torch 2.13 writes out of bounds in the weight gradient of such a convolution with 2 to
    5 channels in float32 and channels-last: training RepVGG, MobileOne or FastViT would crash.
    """

    fusible = True  # a batch norm after it can be fused into its weights, as into any Conv2d's

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__(
            convolution.in_channels,
            convolution.out_channels,
            1,
            groups=convolution.groups,
            bias=convolution.bias is not None,
            device="meta",
        )
        self.weight, self.bias = convolution.weight, convolution.bias
        self.every = convolution.stride

    def forward(self, images: Tensor) -> Tensor:
        """Convolution (B, Ch, h, w) of every nth pixel."""
        return super().forward(images[:, :, :: self.every[0], :: self.every[1]])


def _thin_before_points(network: nn.Module) -> None:
    """Replace strided 1 × 1 convolutions of the input image by `ThinnedConv2d`."""
    for name, part in list(network.named_modules()):
        if (
            type(part) is nn.Conv2d
            and part.kernel_size == (1, 1)
            and part.stride != (1, 1)
            and part.padding == (0, 0)
            and part.in_channels < 8
        ):
            network.set_submodule(name, ThinnedConv2d(part))


def _check_names(network: nn.Module, file: Path, backbone: str) -> None:
    """Check that a weights file contains all tensors of the network, and none of another one."""
    with safe_open(file, "pt") as tensors:
        given = set(tensors.keys())
    head = _head_names(network)
    wanted = [key for key in network.state_dict() if not key.endswith("num_batches_tracked")]
    if missing := [key for key in wanted if key not in given and key not in head]:
        raise InputError(
            f"weights: {file} does not fit {backbone}: {len(missing)} of timm's tensor names are "
            f"missing, the first {missing[0]!r}"
        )
    parents = {key.rpartition(".")[0] for key in head}
    others = {key for key in given if key.rpartition(".")[0] not in parents}
    _check_none_left(network, others, file, backbone)


def _head_names(network: nn.Module) -> list[str]:
    """Names of the classifiers' tensors in the state dict of a timm network."""
    head = {id(value) for part in classifiers(network) for value in part.parameters()}
    return [key for key, value in network.state_dict(keep_vars=True).items() if id(value) in head]


# Parts of a file that networks in evaluation, or with another head, do not have: classifiers for
# training, and what timm itself leaves out of the files of vision transformers.
_UNUSED = ("aux", "pre_logits", "mask_token")


def _check_none_left(network: nn.Module, given: set[str], file: Path, name: str) -> None:
    """Check that a network has all tensors of a file, except those of its head."""
    own = {*network.state_dict(), *(key for key, _ in network.named_buffers())}
    left = sorted(key for key in given - own if not key.lower().startswith(_UNUSED))
    if left:
        raise InputError(
            f"weights: {file} does not fit {name}: it has {len(left)} tensors that the network "
            f"lacks, the first {left[0]!r}; use a file of this network, or remove them"
        )


def head_in(weights: str, network: nn.Module) -> dict[str, Tensor]:
    """Tensors of a weights file for the classifier of a network, by name; {} if they do not fit."""
    own, head = network.state_dict(), {}
    with safe_open(weights, "pt") as tensors:
        stored = set(tensors.keys())
        for key in _head_names(network):
            inside = key.removeprefix(_WRAPPED)
            name = inside if inside in stored else key  # a file of weights, or of a trained model
            if name not in stored:
                return {}
            head[key] = tensors.get_tensor(name)
            if head[key].shape != own[key].shape:
                return {}
    return head


def load_weights(
    module: nn.Module, head: str, weights: str, name: str, *, new_head: bool = False
) -> None:
    """Load the weights of a network from outside timm; those of a head of another size are left."""
    if weights == "hub":
        raise InputError(f"weights: {name} is not on timm's hub; use a .safetensors file or none")
    file = weights_file(weights)
    try:
        given = load_file(file)
    except Exception as error:  # a damaged file
        raise InputError(f"weights: {file} cannot be read: {reason(error)}") from error
    own = module.state_dict()
    if all(key.startswith(_WRAPPED) for key in given) and not any(
        key.startswith(_WRAPPED) for key in own
    ):  # the file of a trained model, which has the network in a `ModuleNetwork`
        given = {key.removeprefix(_WRAPPED): value for key, value in given.items()}

    of_head = {key for key in {*own, *given} if head and key.startswith(f"{head}.")}
    wrong = [
        key
        for key, value in own.items()
        if not key.endswith("num_batches_tracked")
        and (key not in given or given[key].shape != value.shape)
    ]
    left = of_head if new_head else of_head & {*wrong}
    if wrong := [key for key in wrong if key not in left]:
        raise InputError(
            f"weights: {file} does not fit {name}: {len(wrong)} tensors are missing or have "
            f"another shape, the first {wrong[0]!r}"
        )
    _check_none_left(module, {*given} - of_head, file, name)
    kept = {key: value for key, value in given.items() if key in own and key not in left}
    module.load_state_dict(kept, strict=False)


def weights_file(weights: str) -> Path:
    """Path of the initial weights of a network."""
    file = Path(weights)
    if not file.is_file():
        raise InputError(f"weights: {file} is not a file; use a .safetensors file, hub or none")
    if file.suffix != ".safetensors":
        raise InputError(
            f"weights: {file} is not a .safetensors file; convert it with "
            "safetensors.torch.save_file, since other formats are never loaded"
        )
    return file


def _hub_file(backbone: str) -> Path:
    """Download the pretrained weights of a backbone from timm's hub, as safetensors only."""
    from huggingface_hub import hf_hub_download

    config = timm.get_pretrained_cfg(backbone)
    if config is None or not config.hf_hub_id:
        raise InputError(
            f"weights: timm has no hub weights for {backbone}; set weights to a .safetensors file "
            "or none"
        )
    try:
        return Path(hf_hub_download(config.hf_hub_id, "model.safetensors"))
    except Exception as error:  # the hub client raises its own exceptions and those of the network
        raise InputError(
            f"weights: the hub weights of {backbone} ({config.hf_hub_id}) cannot be downloaded: "
            f"{reason(error)}; without a network set weights to a .safetensors file"
        ) from error


def hub_problem(backbone: str) -> str:
    """Why the pretrained weights of a backbone cannot be had now; "" if they can."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache

    config = timm.get_pretrained_cfg(backbone)
    file = getattr(config, "hf_hub_id", None) or "", "model.safetensors"
    try:
        if not isinstance(try_to_load_from_cache(*file), str):
            get_hf_file_metadata(hf_hub_url(*file), timeout=5)
    except Exception as error:  # as above
        if file[0] and getattr(error, "response", None) is None:  # nothing has answered
            return f"the hub cannot be reached ({reason(error, 60)})"
        return f"the hub has no pretrained weights of {backbone} now ({reason(error, 60)})"
    return ""


def separate(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors of which no two share memory, as safetensors stores them."""
    seen, tensors = set(), {}
    for key, value in state.items():
        tensor = value.detach().contiguous()
        memory = (tensor.device, tensor.untyped_storage().data_ptr())
        tensors[key] = tensor.clone() if memory in seen else tensor
        seen.add(memory)
    return tensors
