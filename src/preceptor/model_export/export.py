"""Export of a model folder to one of the formats, checked against the model before it is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, get_args

import torch
from torch.export import ExportedProgram

from preceptor.errors import InputError
from preceptor.model_export.check_images import CheckImages, synthetic_images
from preceptor.model_export.deployed_model import DeployedModel
from preceptor.model_export.parity import (
    TOLERANCE,
    Computation,
    ExportError,
    Parity,
    measure,
    model_outputs,
)
from preceptor.model_export.torch_export import (
    check_package,
    package_outputs,
    read_package,
    write_package,
)
from preceptor.model_export.traced import LARGER, takes_other_sizes, trace
from preceptor.models.guided_model import GuidedModel
from preceptor.models.model_folder import MODEL_FILES, load_model
from preceptor.predictor.model_info import CARD_KEY, EXPORT_KEY, INFO_KEY
from preceptor.predictor.reference import Reference
from preceptor.predictor.reference_files import REFERENCE_FILES, find_reference
from preceptor.predictor.referenced_network import referenced_info
from preceptor.predictor.threshold import find_threshold
from preceptor.predictor.torch_network import info_of
from preceptor.runtime.checksums import write_checksums
from preceptor.runtime.memory import out_of_memory
from preceptor.runtime.replace_file import copy_folder, replacing
from preceptor.runtime.strict_json import strict_json

Target = Literal["onnx", "torch_export", "folder"]
SUFFIXES: dict[str, tuple[str, ...]] = {"onnx": (".onnx",), "torch_export": (".pt2",)}
"""Suffixes of the formats that are files."""
InputType = Literal["uint8", "float32"]

Made = TypeVar("Made")


@dataclass(frozen=True)
class ExportSettings:
    """Settings of an export.

    Args:
        to: onnx, torch_export (a .pt2 package) or folder (a copy of the model folder).
        threshold: Threshold of the output `decision`: name of a rule, a number, or None = eer if
            the model has it, else the most probable class.
        maps: Whether the file computes maps.
        input_type: Type of the input: uint8, or float32 with values from 0 to 255.
        dynamic_size: Whether height and width of the input may differ from the model's, where the
            backbone allows it.
    """

    to: Target
    threshold: str | float | None = None
    maps: bool = True
    input_type: InputType = "uint8"
    dynamic_size: bool = True


@dataclass(frozen=True)
class Exported:
    """Result of an export.

    Args:
        parity: Differences from the model.
        dynamic_size: Whether height and width of the input are dynamic; None for a folder.
        threshold: Threshold of the output `decision`; None = the most probable class.
    """

    parity: Parity
    dynamic_size: bool | None
    threshold: float | None


def export_model(
    folder: Path, out: Path, settings: ExportSettings, images: CheckImages | None = None
) -> Exported:
    """Export a model folder; nothing is written if the export differs from the model.

    Args:
        folder: Model folder.
        out: Path of the new file or folder, which is replaced atomically.
        settings: Settings.
        images: Validation images of the check; None = synthetic images.

    Raises:
        InputError: The folder is no model folder, a setting is invalid, or the model or its map
            cannot be exported.
        ExportError: The export differs from the model by more than the tolerance.
    """
    check_settings(settings)
    model = load_model(folder)
    checked = synthetic_images(model.spec.image_format) if images is None else images
    card = folder / "README.md"
    info = info_of(model)
    reference = find_reference(folder, info.positive is not None)
    if settings.to == "folder":
        return _copy(model, folder, out, checked)
    if reference is not None:
        info = referenced_info(info, reference)
    threshold = find_threshold(settings.threshold, info)
    deployed = DeployedModel(model, threshold, maps=settings.maps, reference=reference)
    metadata = {
        INFO_KEY: (info if settings.maps else replace(info, map_kind="none")).to_json(),
        CARD_KEY: card.read_text(encoding="utf-8") if card.is_file() else "",
    }
    writer = _write_package if settings.to == "torch_export" else _write_onnx
    return writer(_Export(model, reference, deployed, settings, metadata, checked), out)


def check_settings(settings: ExportSettings) -> None:
    """Check settings before a model is loaded.

    Raises:
        InputError: Settings are unknown or exclude each other.
    """
    if settings.to not in get_args(Target):
        raise InputError(f"format {settings.to!r} is unknown; write {', '.join(get_args(Target))}")
    if settings.to == "folder" and settings != ExportSettings("folder"):
        raise InputError(
            "a folder is copied as it is; the threshold, the map, the type and the size of the "
            "input are options of onnx and torch_export"
        )


@dataclass(frozen=True)
class _Export:
    """What the writers of all formats need."""

    model: GuidedModel
    reference: Reference | None
    deployed: DeployedModel
    settings: ExportSettings
    metadata: dict[str, str]
    images: CheckImages

    @property
    def dtype(self) -> torch.dtype:
        return torch.uint8 if self.settings.input_type == "uint8" else torch.float32

    def described(self, *, dynamic_size: bool) -> dict[str, str]:
        """Metadata of the file."""
        settings = self.settings
        values = {
            "threshold": self.deployed.threshold,
            "input_type": settings.input_type,
            "dynamic_size": dynamic_size,
            "precision": "float32",
        }
        return self.metadata | {EXPORT_KEY: strict_json(values, indent=None)}

    @property
    def itself(self) -> Computation:
        """Outputs of the model."""
        return model_outputs(self.model, maps=self.settings.maps, reference=self.reference)

    def parity_of(self, compute: Computation) -> Parity:
        """Differences of a computation from the model on the images of the check."""
        own = self.deployed
        return measure(self.itself, compute, self.images, own.positive, own.threshold)

    def settled(self, make: Callable[[ExportedProgram], tuple[Made, Computation]]) -> Settled[Made]:
        """What `make` returns for a graph with dynamic sizes, or where that fails with fixed ones.

        Args:
            make: Function from a traced model to an artifact and its computation.
        """
        if self.settings.dynamic_size and takes_other_sizes(self.deployed, self.dtype):
            try:
                made, compute = make(trace(self.deployed, self.dtype, dynamic_size=True))
            except InputError:  # the sizes, or the model in any case: the next attempt tells
                pass
            else:
                if self._takes_larger(compute):
                    return Settled(made, compute, dynamic_size=True)
        made, compute = make(trace(self.deployed, self.dtype, dynamic_size=False))
        return Settled(made, compute, dynamic_size=False)

    def _takes_larger(self, compute: Computation) -> bool:
        """Whether images of another size give the outputs of the model."""
        images = synthetic_images(self.model.spec.image_format, 2, LARGER)
        try:
            return measure(self.itself, compute, images, None).within_tolerance
        except Exception as error:  # the runtimes raise many types for a wrong size
            if out_of_memory(error):
                raise
            return False


@dataclass(frozen=True)
class Settled(Generic[Made]):
    """Artifact of an export and its computation.

    Args:
        made: The artifact.
        compute: Its computation.
        dynamic_size: Whether it takes images of other sizes.
    """

    made: Made
    compute: Computation
    dynamic_size: bool


def _write_package(export: _Export, out: Path) -> Exported:
    """Write a package of torch.export."""
    names = export.deployed.outputs

    def make(program: ExportedProgram) -> tuple[ExportedProgram, Computation]:
        check_package(program, export.deployed)
        return program, package_outputs(program.module(), export.dtype, names)

    settled = export.settled(make)
    with replacing(out) as partial:
        write_package(settled.made, partial, export.described(dynamic_size=settled.dynamic_size))
        parity = export.parity_of(package_outputs(read_package(partial), export.dtype, names))
        accept(parity)
    return Exported(parity, settled.dynamic_size, export.deployed.threshold)


def _write_onnx(export: _Export, out: Path) -> Exported:
    """Write an ONNX file."""
    from preceptor.model_export.onnx import graph_outputs, to_onnx, write_onnx

    def make(program: ExportedProgram) -> tuple[Any, Computation]:
        graph = to_onnx(program, export.deployed)
        return graph, graph_outputs(graph.SerializeToString())

    settled = export.settled(make)
    with replacing(out) as partial:
        write_onnx(settled.made, partial, export.described(dynamic_size=settled.dynamic_size))
        parity = export.parity_of(graph_outputs(partial.read_bytes()))
        accept(parity)
    return Exported(parity, settled.dynamic_size, export.deployed.threshold)


def _copy(model: GuidedModel, folder: Path, out: Path, images: CheckImages) -> Exported:
    """Write a copy of a model folder, which was checked, with checksums of its own."""
    with replacing(out) as partial:
        copy_folder(folder, partial)
        files = (*MODEL_FILES, *REFERENCE_FILES)
        write_checksums(partial, [name for name in files if (partial / name).is_file()])
        copied = load_model(partial)
        parity = measure(
            model_outputs(model, maps=True),
            model_outputs(copied, maps=True),
            images,
            None if model.spec.positive is None else model.spec.positive_index,
        )
        accept(parity)
    return Exported(parity, None, None)


def accept(parity: Parity) -> None:
    """Refuse an export whose outputs differ from those of its model."""
    if not parity.within_tolerance:
        maps = "" if parity.maps is None else f", of a map {parity.maps:.1e}"
        gap = parity.distances
        distances = "" if gap is None else f", of a distance (relative) {gap:.1e}"
        raise ExportError(
            f"the export differs from the model: the largest difference of a probability is "
            f"{parity.probabilities:.1e}{maps}{distances} over {parity.images:,} images, above "
            f"{TOLERANCE:g}; nothing was written"
        )
