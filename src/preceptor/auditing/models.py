"""Models to be audited: of this library, of timm, of torchvision, of a Python file, or ONNX.

A model has one of these forms:

    FOLDER                           model folder of this library
    NAME:FILE.safetensors            weights of the timm network NAME
    torchvision/NAME:FILE.safetensors
    FILE.py:FUNCTION                 function that returns the trained network
    FILE.py:FUNCTION:FILE.safetensors
    FILE.onnx                        file of `preceptor export`, or any classifier

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

from preceptor.config.settings import Fit, ImageFormat, NetworkFactory
from preceptor.data.cache import in_memory
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
from preceptor.models.networks import head_in, load_weights, weights_file
from preceptor.utils.plugins import check_model_folder

Normalization = Literal["imagenet", "half", "unit", "none"]
"""Input of a network: imagenet (ImageNet's mean 0 and deviation 1), half (−1 to 1), unit (0 to 1),
or none (0 to 255)."""

# Mean and standard deviation of a pixel in [0, 1].
_NORMALIZATIONS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": (IMAGENET_MEAN, IMAGENET_STD),
    "half": ((0.5,) * 3, (0.5,) * 3),
    "unit": ((0.0,) * 3, (1.0,) * 3),
    "none": ((0.0,) * 3, (1 / 255,) * 3),
}
_OF_TORCHVISION = "torchvision/"


Outputs = Callable[
    [NDArray[np.uint8], NDArray[np.int64] | None],
    tuple[NDArray[np.float64], NDArray[np.float32] | None],
]
"""Probabilities of images, and maps of classes where they are given."""


@dataclass(frozen=True)
class OpenedModel:
    """Trained classifier of any origin.

    Args:
        name: Name in messages.
        classes: Classes in the order of the probabilities.
        positive: Class whose probability is the score; None = there is none.
        image_format: Format of its input.
        guided: The model with features and maps; None = it has probabilities only (ONNX).
        notes: What was assumed about a model that does not say it, one sentence each.
    """

    name: str
    classes: tuple[str, ...]
    positive: str | None
    image_format: ImageFormat
    guided: GuidedModel | None
    notes: tuple[str, ...] = ()
    outputs: Outputs | None = None  # without `guided`

    @property
    def side(self) -> int:
        """Side of the square input in pixels."""
        return self.image_format.size

    @property
    def fit(self) -> Fit:
        """Method that makes images square."""
        return self.image_format.fit

    def probabilities(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """(k, C) probabilities of (k, side, side, channels) uint8 images.

        Raises:
            InputError: A probability is not a finite number.
        """
        if self.guided is not None:
            values = predict(self.guided, _rows(pixels, None, self.fit)).probabilities
        else:
            assert self.outputs is not None
            values, _ = self.outputs(pixels, None)
        if wrong := int((~np.isfinite(values).all(1)).sum()):
            raise InputError(
                f"{self.name}: the probabilities of {wrong:,} of {len(values):,} images are not "
                "finite; check its weights, and that its input has the right normalization"
            )
        return values

    def maps(
        self, pixels: NDArray[np.uint8], labels: NDArray[np.int64]
    ) -> NDArray[np.float32] | None:
        """(k, h, w) decision maps of (k,) classes, not normalized; None if there are none."""
        if self.guided is not None:
            cams = predict(self.guided, _rows(pixels, labels, self.fit), cams="decision").cams
            assert cams is not None
            return cast(NDArray[np.float32], cams.numpy())
        return None if self.outputs is None else self.outputs(pixels, labels)[1]


def open_model(
    model: str | Path | nn.Module,
    *,
    classes: Sequence[str],
    positive: str | None = None,
    input_size: int | None = None,
    fit: Fit | None = None,
    normalization: Normalization | None = None,
) -> OpenedModel:
    """Open a trained classifier of any origin.

    Args:
        model: One of the forms above, or a network in memory.
        classes: Class names of the images. A model that has no names has its outputs in this order.
        positive: Class whose probability is the score; None = that of the model.
        input_size: Side of the input in pixels, for models that do not say it; None = that of the
            network, else 224.
        fit: Method that makes images square, for models that do not say it; None = squash.
        normalization: Normalization of the input, for models that do not say it; None = that of
            the network in timm, else imagenet.

    Raises:
        InputError: There is no such model, it has other classes, its weights do not fit, or the
            head and the features of a network cannot be found.
    """
    classes = tuple(classes)
    if normalization is not None:
        check_choice("normalization", normalization, Normalization)
    if positive is not None and positive not in classes:
        raise InputError(f"positive {positive!r} is not one of the classes {list(classes)}")
    how = _Setting(classes, positive, input_size, fit or "squash", normalization)
    if isinstance(model, nn.Module):
        return _of_module(type(model).__name__, model, how)
    text, path = str(model), Path(model)
    before, _, after = text.rpartition(":")
    if path.is_dir():
        check_model_folder(path)
        return _guided(text, load_model(path), how, own=True)
    if path.suffix.lower() == ".onnx":
        return _of_onnx(path, how)
    if before and after.lower().endswith(".safetensors"):
        if ":" in before:
            return _of_function(before, how, after)
        return _of_weights(text, before, after, how)
    if before and (after.isidentifier() or before.endswith(".py")):
        return _of_function(text, how, None)
    check_model_folder(Path(after) if before else path)  # which says what there is
    raise AssertionError(text)


@dataclass(frozen=True)
class _Setting:
    classes: tuple[str, ...]
    positive: str | None
    input_size: int | None
    fit: Fit
    normalization: Normalization | None

    @property
    def scale(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return _NORMALIZATIONS[self.normalization or "imagenet"]

    @property
    def order(self) -> str:
        """Note on the order of the outputs."""
        return f"its outputs are taken to be the classes {', '.join(self.classes)}, in this order"


def _check_classes(name: str, own: Sequence[str], how: _Setting) -> None:
    if set(own) != set(how.classes):
        raise InputError(
            f"{name}: the model has the classes {', '.join(own)}, and the images "
            f"{', '.join(how.classes)}; use images of its classes"
        )


def _guided(
    name: str, model: GuidedModel, how: _Setting, *, own: bool = False, notes: tuple[str, ...] = ()
) -> OpenedModel:
    """Opened model of a guided model; `own`: of this library, with all that it needs to know."""
    spec = model.spec
    if spec.image_classes is None:
        raise InputError(f"{name}: it is a mapper, which marks images; name a classifier")
    _check_classes(name, spec.classes, how)
    if not own and how.normalization is not None:
        mean, std = how.scale
        model.spec = spec = replace(spec, mean=mean, std=std)
        for key, values in (("mean", mean), ("std", std)):
            model.get_buffer(key).copy_(torch.tensor(values).view(1, -1, 1, 1))
    positive = how.positive or spec.positive
    model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    return OpenedModel(name, spec.classes, positive, spec.image_format, model, notes)


def _of_module(name: str, made: nn.Module | NetworkParts, how: _Setting) -> OpenedModel:
    if isinstance(made, GuidedModel):
        return _guided(name, made, how, own=True)
    model = guide_made(
        made, classes=how.classes, positive=how.positive, input_size=how.input_size,
        fit=how.fit, name=name,
    )  # fmt: skip
    return _guided(name, model, how, notes=(how.order,))


def _of_function(target: str, how: _Setting, weights: str | None) -> OpenedModel:
    """Model of FILE.py:FUNCTION or package.module:FUNCTION."""
    file, _, attribute = target.rpartition(":")
    module = _imported(Path(file)) if file.endswith(".py") else file
    target = f"{module}:{attribute}"
    try:
        function = getattr(importlib.import_module(module), attribute, None)
    except Exception as error:  # a module may raise anything when it is imported
        raise InputError(f"{file}: cannot be imported: {reason(error, 200)}") from error
    if not callable(function):
        raise InputError(f"{file} has no function {attribute}; write FILE.py:FUNCTION")
    made = called(function, target, len(how.classes), 3, {})
    opened = _of_module(attribute, made, how)
    model = opened.guided
    assert model is not None
    if isinstance(made, GuidedModel):
        return opened
    if weights is not None:
        assert model.spec.module is not None
        network = made.module if isinstance(made, NetworkParts) else made
        load_weights(network, model.spec.module.head, weights, attribute)
        _check_head(weights, model, how)
    if is_factory(function):  # a model folder may name it
        model.spec = replace(model.spec, factory=target)
    return opened


def _imported(file: Path) -> str:
    """Name of the module of a Python file, which can be imported from now on."""
    if not file.is_file():
        raise InputError(f"{file}: there is no such file; write FILE.py:FUNCTION")
    folder = str(file.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    found = importlib.util.find_spec(file.stem)
    origin = None if found is None else found.origin
    if origin is None or Path(origin).resolve() != file.resolve():
        raise InputError(f"{file}: its name is that of the module {origin}; rename the file")
    return file.stem


def _of_weights(name: str, network: str, weights: str, how: _Setting) -> OpenedModel:
    """Model of a network's name and a file of weights."""
    file = str(weights_file(weights))
    settings: dict[str, Any] = {"positive": how.positive, "input_size": how.input_size}
    settings |= {"weights": file, "fit": how.fit}
    if network.startswith(_OF_TORCHVISION):
        own = network.removeprefix(_OF_TORCHVISION)
        if own not in torchvision.models.list_models(module=torchvision.models):
            raise InputError(f"{name}: torchvision has no network {own!r}; check its name")
        settings["network"] = NetworkFactory(factory=TORCHVISION, args={"model": own})
    model = build_model(network, how.classes, **settings)
    if len(how.classes) == 2 and not head_in(file, model.backbone):
        single = build_model(network, how.classes, head="sigmoid", **settings)
        model = single if head_in(file, single.backbone) else model
    _check_head(file, model, how)
    return _guided(name, model, how, notes=(how.order,))


def _check_head(file: str, model: GuidedModel, how: _Setting) -> None:
    """Check that the weights of the classifier were in a file too."""
    if not head_in(file, model.backbone):
        raise InputError(
            f"{file}: its classifier is missing or has not the {len(how.classes)} classes "
            f"{', '.join(how.classes)} as its outputs; use the weights of a network trained on them"
        )


# ONNX.

_BATCH = 32
_KINDS = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8}


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
    run, side = _runner(path, session, how)
    # Whether the output is a probability is seen on a few images; that of one class, in the graph.
    graph = onnx_files.load(str(path), load_external_data=False).graph
    ends = {name: node.op_type for node in graph.node for name in node.output}
    sigmoid = any(ends.get(one.name) == "Sigmoid" for one in graph.output)
    cells = np.arange(side) * 8 // side
    coarse = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3)).astype(np.uint8)
    probe = run(coarse[:, cells][:, :, cells])
    sums_to_1 = bool((probe >= 0).all()) and np.allclose(probe.sum(1), 1, atol=1e-4)
    shares = sums_to_1 if probe.shape[1] > 1 else sigmoid

    def outputs(
        pixels: NDArray[np.uint8], _: NDArray[np.int64] | None
    ) -> tuple[NDArray[np.float64], None]:
        values = run(pixels)
        if values.shape[1] == 1:  # that of class 1
            values = values if shares else expit(values)
            return np.concatenate([1 - values, values], 1), None
        return values if shares else softmax(values, 1), None

    assumed = f"its input is taken to have the normalization {how.normalization or 'imagenet'}"
    form, notes = ImageFormat(side, how.fit), (how.order, assumed)
    return OpenedModel(str(path), how.classes, how.positive, form, None, notes, outputs)


def _runner(
    path: Path, session: Any, how: _Setting
) -> tuple[Callable[[NDArray[np.uint8]], NDArray[np.float64]], int]:
    """Function of (k, side, side, 3) images that returns the output for the classes; the side."""
    first, *others = session.get_inputs()
    shape = [one if isinstance(one, int) else None for one in first.shape]
    side = how.input_size or next((one for one in shape[2:] if one), 224)
    fits = len(shape) == 4 and shape[1] in (None, 1, 3) and {*shape[2:]} <= {None, side}
    if others or first.type not in _KINDS or not fits:
        raise InputError(
            f"{path}: its input {first.name} is {first.type} {first.shape}, and one of square "
            f"images (N, 3, {side}, {side}), float32 or uint8, is needed; set input_size to its "
            "side, or export it in this form"
        )
    kind, size, count = _KINDS[first.type], shape[0], len(how.classes)
    mean, std = (np.array(one, np.float32) for one in how.scale)

    def run(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        found = []
        for part in _parts(pixels, size or _BATCH):
            batch = part if kind is np.uint8 else (part.astype(np.float32) / 255 - mean) / std
            if shape[1] == 1:
                batch = batch.mean(3, keepdims=True).astype(kind)
            batch = batch.transpose(0, 3, 1, 2)  # and, if its size is fixed, repeated to it:
            batch = np.resize(batch, (size or len(part), *batch.shape[1:]))
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

    return run, side


def _parts(values: NDArray[Any], size: int) -> list[NDArray[Any]]:
    return [values[start : start + size] for start in range(0, len(values), size)]


def _rows(pixels: NDArray[np.uint8], labels: NDArray[np.int64] | None, fit: Fit) -> Rows:
    """Rows of images in memory."""
    if labels is None:
        labels = np.zeros(len(pixels), np.int64)
    return Rows(in_memory(pixels), np.arange(len(pixels)), labels, pixels.shape[1], fit)
