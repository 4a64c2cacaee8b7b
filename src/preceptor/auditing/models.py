"""Models to be audited: of this library, of timm, of torchvision, of a Python file, or ONNX.

    FOLDER                           model folder of this library
    NAME:FILE.safetensors            weights of the timm network NAME
    torchvision/NAME:FILE.safetensors
    FILE.py:FUNCTION                 function that returns the trained network
    FILE.onnx                        classifier of another tool

Nothing is unpickled here. A function may read what it likes: it is the user's own code.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
import torchvision
from numpy.typing import NDArray
from scipy.special import expit, softmax
from torch import nn

from preceptor.config.settings import ImageFormat, NetworkFactory
from preceptor.data.loader import Rows
from preceptor.deploy.prediction import INFO_KEY
from preceptor.errors import InputError, check_choice, reason
from preceptor.inference.predict import predict
from preceptor.models.build import build_model, load_model
from preceptor.models.custom import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    TORCHVISION,
    NetworkParts,
    called,
    guide_made,
    is_factory,
)
from preceptor.models.guided_model import GuidedModel
from preceptor.models.networks import head_in, weights_file
from preceptor.models.spec import Head
from preceptor.utils.results import check_model_folder

Normalization = Literal["imagenet", "half", "unit", "none"]
"""Input of a network: imagenet (ImageNet's mean 0 and deviation 1), half (−1 to 1), unit (0 to 1),
or none (0 to 255)."""
Pixels = NDArray[np.uint8]
Probabilities = NDArray[np.float64]

# Mean and standard deviation of a pixel in [0, 1].
_NORMALIZATIONS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": (IMAGENET_MEAN, IMAGENET_STD),
    "half": ((0.5,) * 3, (0.5,) * 3),
    "unit": ((0.0,) * 3, (1.0,) * 3),
    "none": ((0.0,) * 3, (1 / 255,) * 3),
}
_BATCH = 32  # of ONNX files
_KINDS = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8}


@dataclass(frozen=True)
class OpenedModel:
    """Trained classifier of any origin."""

    name: str  # in messages
    classes: tuple[str, ...]  # in the order of the probabilities
    positive: str | None  # class whose probability is the score
    image_format: ImageFormat
    guided: GuidedModel | None  # with features and maps; None = probabilities only (ONNX)
    notes: tuple[str, ...] = ()  # what was assumed about a model that does not say it
    outputs: Callable[[Pixels], Probabilities] | None = None  # without `guided`

    def probabilities(self, pixels: Pixels) -> Probabilities:
        """(k, C) probabilities of (k, side, side, channels) uint8 images.

        Raises:
            InputError: A probability is not a finite number.
        """
        if self.guided is not None:
            rows = Rows.in_memory(pixels, np.zeros(len(pixels), int), self.image_format.fit)
            values = predict(self.guided, rows).probabilities
        else:
            assert self.outputs is not None
            values = self.outputs(pixels)
        if wrong := int((~np.isfinite(values).all(1)).sum()):
            raise InputError(
                f"{self.name}: the probabilities of {wrong:,} of {len(values):,} images are not "
                "finite; check its weights, and that its input has the right normalization"
            )
        return values

    def maps(self, pixels: Pixels, labels: NDArray[np.int64]) -> NDArray[np.float32] | None:
        """(k, h, w) decision maps of (k,) classes, not normalized; None if there are none."""
        if self.guided is None:
            return None
        rows = Rows.in_memory(pixels, labels, self.image_format.fit)
        cams = predict(self.guided, rows, cams="decision").cams
        assert cams is not None
        return cast(NDArray[np.float32], cams.numpy())


@dataclass(frozen=True)
class _Setting:
    classes: tuple[str, ...]
    positive: str | None
    input_size: int | None
    normalization: Normalization | None

    @property
    def scale(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return _NORMALIZATIONS[self.normalization or "imagenet"]

    def notes(self, *, scaled: bool = False) -> tuple[str, ...]:
        """What is assumed about a network; `scaled`: its normalization is known."""
        notes = [
            f"its outputs are taken to be the classes {', '.join(self.classes)}, in this order"
        ]
        if not scaled and self.normalization is None:
            notes.append("its input is taken to have the normalization imagenet")
        return tuple(notes)


def open_model(
    model: str | Path | nn.Module,
    *,
    classes: Sequence[str],
    positive: str | None = None,
    input_size: int | None = None,
    normalization: Normalization | None = None,
) -> OpenedModel:
    """Open a trained classifier of any origin.

    Args:
        model: One of the forms above, or a network in memory.
        classes: Class names of the images. A model that has no names has its outputs in this order.
        positive: Class whose probability is the score; None = that of the model.
        input_size: Side of the input in pixels, for models that do not say it; None = that of the
            network, else 224.
        normalization: Normalization of the input, for models that do not say it; None = that of
            the network in timm, else imagenet.

    Raises:
        InputError: There is no such model, it has other classes, its weights do not fit, or the
            head and the features of a network cannot be found.
    """
    if normalization is not None:
        check_choice("normalization", normalization, Normalization)
    if positive is not None and positive not in classes:
        raise InputError(f"positive {positive!r} is not one of the classes {list(classes)}")
    how = _Setting(tuple(classes), positive, input_size, normalization)
    if isinstance(model, nn.Module):
        return _of_module(type(model).__name__, model, how)
    text, path = str(model), Path(model)
    before, _, after = text.rpartition(":")
    if path.is_dir():
        check_model_folder(path)
        return _guided(text, load_model(path), how, own=True)
    if path.suffix.lower() == ".onnx":
        return _of_onnx(path, how)
    if before.endswith(".py"):
        return _of_function(Path(before), after, how)
    if before and after.lower().endswith(".safetensors"):
        return _of_weights(text, before, after, how)
    check_model_folder(Path(after) if before else path)  # which says what there is
    raise AssertionError(text)


def _guided(
    name: str, model: GuidedModel, how: _Setting, *, own: bool = False, scaled: bool = False
) -> OpenedModel:
    """Opened model of a guided model; `own`: of this library, with all that it needs to know."""
    spec = model.spec
    if spec.image_classes is None:
        raise InputError(f"{name}: it is a mapper, which marks images; name a classifier")
    if set(spec.classes) != set(how.classes):
        raise InputError(
            f"{name}: the model has the classes {', '.join(spec.classes)}, and the images "
            f"{', '.join(how.classes)}; use images of its classes"
        )
    if not own and how.normalization is not None:
        mean, std = how.scale
        model.spec = spec = replace(spec, mean=mean, std=std)
        for key, values in (("mean", mean), ("std", std)):
            model.get_buffer(key).copy_(torch.tensor(values).view(1, -1, 1, 1))
    positive, notes = how.positive or spec.positive, () if own else how.notes(scaled=scaled)
    model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    return OpenedModel(name, spec.classes, positive, spec.image_format, model, notes)


def _of_module(name: str, made: nn.Module | NetworkParts, how: _Setting) -> OpenedModel:
    if isinstance(made, GuidedModel):
        return _guided(name, made, how, own=True)
    model = guide_made(
        made, classes=how.classes, positive=how.positive, input_size=how.input_size, name=name
    )
    scaled = isinstance(made, NetworkParts) and made.mean is not None
    return _guided(name, model, how, scaled=scaled)


def _of_function(file: Path, name: str, how: _Setting) -> OpenedModel:
    """Model of FILE.py:FUNCTION, whose module can be imported from now on."""
    if not file.is_file():
        raise InputError(f"{file}: there is no such file; write FILE.py:FUNCTION")
    folder = str(file.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    found = importlib.util.find_spec(file.stem)
    origin = None if found is None else found.origin
    if origin is None or Path(origin).resolve() != file.resolve():
        raise InputError(f"{file}: its name is that of the module {origin}; rename the file")
    try:
        function = getattr(importlib.import_module(file.stem), name, None)
    except Exception as error:  # a module may raise anything when it is imported
        raise InputError(f"{file}: cannot be imported: {reason(error, 200)}") from error
    if not callable(function):
        raise InputError(f"{file} has no function {name}; write FILE.py:FUNCTION")
    target = f"{file.stem}:{name}"
    opened = _of_module(name, called(function, target, len(how.classes), 3, {}), how)
    if is_factory(function) and opened.guided is not None:  # a model folder may name it
        opened.guided.spec = replace(opened.guided.spec, factory=target)
    return opened


def _of_weights(name: str, network: str, weights: str, how: _Setting) -> OpenedModel:
    """Model of a network's name and a file of weights."""
    file = str(weights_file(weights))
    settings: dict[str, Any] = {"positive": how.positive, "input_size": how.input_size}
    if (own := network.removeprefix("torchvision/")) != network:
        if own not in torchvision.models.list_models(module=torchvision.models):
            raise InputError(f"{name}: torchvision has no network {own!r}; check its name")
        settings["network"] = NetworkFactory(factory=TORCHVISION, args={"model": own})
    heads: list[Head] = ["softmax", "sigmoid"] if len(how.classes) == 2 else ["softmax"]
    for head in heads:
        model = build_model(network, how.classes, weights=file, head=head, **settings)
        if head_in(file, model.backbone):
            return _guided(name, model, how, scaled="network" not in settings)
    raise InputError(
        f"{file}: its classifier is missing or has not the {len(how.classes)} classes "
        f"{', '.join(how.classes)} as its outputs; use the weights of a network trained on them"
    )


def _of_onnx(path: Path, how: _Setting) -> OpenedModel:
    """Model of an ONNX file, of any classifier."""
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; name an ONNX file")
    try:
        import onnx as onnx_files
        import onnxruntime
    except ModuleNotFoundError as error:
        raise InputError(
            f"{path}: {error.name} is not installed; pip install '.[onnx]' in the source folder"
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised as well
    try:
        session = onnxruntime.InferenceSession(str(path), sess_options=options)
    except Exception as error:  # ONNX Runtime raises many types
        raise InputError(f"{path}: ONNX Runtime cannot load it: {reason(error, 200)}") from error
    if INFO_KEY in session.get_modelmeta().custom_metadata_map:
        raise InputError(
            f"{path}: it is an export of this library; name the model folder that it is of"
        )
    first, *others = session.get_inputs()
    shape = [one if isinstance(one, int) else None for one in first.shape]
    side = how.input_size or next((one for one in shape[2:] if one), 224)
    fits = len(shape) == 4 and shape[1] in (None, 3) and {*shape[2:]} <= {None, side}
    if others or first.type not in _KINDS or not fits:
        raise InputError(
            f"{path}: its input {first.name} is {first.type} {first.shape}, and one of square "
            f"images (N, 3, {side}, {side}), float32 or uint8, is needed; set input_size to its "
            "side, or export it in this form"
        )
    kind, fixed, count = _KINDS[first.type], shape[0], len(how.classes)
    mean, std = (np.array(one, np.float32) for one in how.scale)

    def run(pixels: Pixels) -> Probabilities:
        found, size = [], fixed or _BATCH
        for start in range(0, len(pixels), size):
            part = pixels[start : start + size]
            batch = part if kind is np.uint8 else (part.astype(np.float32) / 255 - mean) / std
            batch = batch.transpose(0, 3, 1, 2)  # and, if its size is fixed, repeated to it:
            batch = np.resize(batch, (fixed or len(part), *batch.shape[1:]))
            try:
                outputs = session.run(None, {first.name: batch})
            except Exception as error:  # ONNX Runtime raises many types
                what = f"{path}: it cannot compute images of {side} pixels: {reason(error, 200)}"
                raise InputError(f"{what}; set input_size") from error
            tables = [one for one in outputs if getattr(one, "ndim", 0) == 2]
            of = [one for one in tables if one.shape[1] == count]
            of += [one for one in tables if one.shape[1] == 1 and count == 2]
            if not of:
                shapes = ", ".join(str(getattr(one, "shape", "")) for one in outputs)
                raise InputError(
                    f"{path}: no output has a column for each of the {count} classes "
                    f"{', '.join(how.classes)}; its outputs are {shapes}"
                )
            found.append(of[0][: len(part)])
        return np.concatenate(found).astype(np.float64)

    # Whether the output is a probability is seen on a few images; that of one class, in the graph.
    graph = onnx_files.load(str(path), load_external_data=False).graph
    ends = {name: node.op_type for node in graph.node for name in node.output}
    shares = any(ends.get(one.name) == "Sigmoid" for one in graph.output)
    cells = np.arange(side) * 8 // side
    coarse = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3)).astype(np.uint8)
    probe = run(coarse[:, cells][:, :, cells])
    if probe.shape[1] > 1:
        shares = bool((probe >= 0).all()) and np.allclose(probe.sum(1), 1, atol=1e-4)

    def outputs(pixels: Pixels) -> Probabilities:
        values = run(pixels)
        if values.shape[1] > 1:
            return values if shares else softmax(values, 1)
        values = values if shares else expit(values)  # of class 1
        return np.concatenate([1 - values, values], 1)

    form, notes = ImageFormat(side), how.notes()
    return OpenedModel(str(path), how.classes, how.positive, form, None, notes, outputs)
