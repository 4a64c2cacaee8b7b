"""Model folders: weights, specification and checksums; nothing is unpickled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

from pydantic import TypeAdapter
from safetensors.torch import load_file, save_file
from torch import nn

from preceptor.errors import InputError, PreceptorError, reason
from preceptor.models.custom import NetworkParts, create_parts, with_parts
from preceptor.models.guided_model import GuidedModel
from preceptor.models.networks import create_network, separate
from preceptor.models.probes import check_trained
from preceptor.models.spec import ModelSpec
from preceptor.utils.files import tensors_to
from preceptor.utils.memory import out_of_memory
from preceptor.utils.plugins import check_model_folder
from preceptor.utils.results import (
    CHECKSUMS,
    files_that_differ,
    read_checksums,
    strict_json,
    write_checksums,
)

_SPEC = TypeAdapter(ModelSpec)
WEIGHTS = "model.safetensors"
"""Weights in a model folder."""
MODEL_FILES = ("model.json", WEIGHTS)
"""Files of a model folder that determine its predictions."""


def save_model(
    model: GuidedModel, folder: Path, thresholds: Mapping[str, float] | None = None
) -> None:
    """Write a model folder: `model.safetensors`, `model.json` and their checksums."""
    folder.mkdir(parents=True, exist_ok=True)
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
        spec = _SPEC.validate_json((folder / "model.json").read_bytes())
        model = _empty(spec, network)
        model.backbone.load_state_dict(load_file(folder / WEIGHTS))
        check_trained(model)
        return model
    except InputError as error:
        raise InputError(f"{folder}: {error}") from error
    except PreceptorError:
        raise
    except Exception as error:  # damaged JSON, invalid keys, tensors of another shape
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
