"""Predictor: images in any form in, predictions out; decoding overlaps the network."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from preceptor.config.settings import ImageFormat
from preceptor.data.geometry import render
from preceptor.data.images import ImageError, load_image, opaque_of
from preceptor.deploy.prediction import (
    ModelInfo,
    Prediction,
    Predictions,
    find_threshold,
    joined,
)
from preceptor.errors import InputError, one_line
from preceptor.utils.process import core_count
from preceptor.utils.results import file_digest

if TYPE_CHECKING:
    from preceptor.deploy.network import TorchNetwork

ImageInput = str | os.PathLike[str] | bytes | Image.Image | NDArray[np.uint8]
"""Path or URL, content of a file, image of Pillow, or uint8 array (H, W), (H, W, 1), (H, W, 3) or
RGBA."""

# An opened image of Pillow is decoded when it is used first, which two threads cannot do at once.
# Images share a lock by chance, which is harmless.
_LOCKS = [Lock() for _ in range(64)]
# Batches that are decoded ahead of the network.
_AHEAD = 3
BATCH_SIZE = 32
"""Number of images per pass, unless another one is given."""


@dataclass(frozen=True)
class BadImage:
    """Input that cannot be decoded."""

    source: str  # path, or the kind of the input
    reason: str  # reason in one line, without the source


class Canvas(NamedTuple):
    """Decoded image on the canvas of a model."""

    size: tuple[int, int]  # width and height of the upright image in pixels
    pixels: NDArray[np.uint8]  # (side, side, channels) uint8


def _opaque(image: ImageInput, channels: int) -> Image.Image:
    """Image in mode RGB or L: a large one takes memory twice, decoded and on white, not more."""
    if isinstance(image, bytes | bytearray | memoryview):
        return load_image(Path("bytes"), channels, bytes(image))
    if isinstance(image, Image.Image):
        with _LOCKS[(id(image) >> 4) % len(_LOCKS)]:
            return opaque_of(image, channels, source_of(image))
    if isinstance(image, np.ndarray):
        return opaque_of(_from_array(image), channels, "array")
    if isinstance(image, str | os.PathLike):
        return load_image(_path(image), channels)
    raise InputError(
        f"an image is of type {type(image).__name__}; give a path, bytes, an image of Pillow, or a "
        "uint8 array (H, W, 3)"
    )


def canvas_of(image: ImageInput, form: ImageFormat) -> Canvas | BadImage:
    """Input on the canvas of a format, or the reason why it cannot be decoded."""
    try:
        opaque = _opaque(image, form.channels)
    except ImageError as error:
        return BadImage(source_of(image), one_line(error.reason))
    return Canvas(opaque.size, render(opaque, form.fit, form.size))


def source_of(image: ImageInput) -> str:
    """Name of an input in messages: its path, or its kind."""
    if isinstance(image, str | os.PathLike):
        return os.fspath(image)
    if isinstance(image, Image.Image):
        return str(getattr(image, "filename", "")) or "image"
    return "array" if isinstance(image, np.ndarray) else "bytes"


def _path(image: str | os.PathLike[str]) -> str:
    text = os.fspath(image)
    if "\0" in text:
        raise ImageError(text.replace("\0", "\\0"), "a path cannot contain a null character")
    return text


def _from_array(array: NDArray[np.uint8]) -> Image.Image:
    if array.dtype != np.uint8:
        raise InputError(f"an array has the data type {array.dtype}; convert it to uint8, 0 to 255")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim != 2 and not (array.ndim == 3 and array.shape[2] in (3, 4)):
        raise InputError(
            f"an array has the shape {array.shape}; give (H, W), (H, W, 3) or (H, W, 4)"
        )
    if 0 in array.shape:
        raise ImageError(Path("array"), f"{array.shape[1]} × {array.shape[0]} pixels")
    return Image.fromarray(np.ascontiguousarray(array))


@dataclass(frozen=True)
class Batch:
    """Predictions for consecutive inputs."""

    predictions: Predictions | None  # for the images that could be decoded
    bad: dict[int, BadImage]  # the other ones, by position
    count: int  # of inputs

    def results(self) -> Iterator[Prediction | BadImage]:
        """Prediction or reason for each input, in their order."""
        good = iter(self.predictions or ())
        for place in range(self.count):
            yield self.bad[place] if place in self.bad else next(good)


class Predictor:
    """Trained model in use; made by `preceptor.load`.

    Args:
        network: Network.
        threshold: Threshold of the decision, see `find_threshold`.
        batch_size: Number of images per pass.
        workers: Number of threads that decode; None = one per core.

    Raises:
        InputError: The model has no such threshold.
    """

    def __init__(
        self,
        network: TorchNetwork,
        *,
        threshold: str | float | None = None,
        batch_size: int = BATCH_SIZE,
        workers: int | None = None,
    ) -> None:
        self._network = network
        self.batch_size = batch_size
        self._workers = workers or core_count()
        self.threshold = find_threshold(threshold, network.info)

    @property
    def info(self) -> ModelInfo:
        """Description of the model."""
        return self._network.info

    @overload
    def __call__(
        self, images: ImageInput, *, map_of: str | None = ..., maps: bool = ...
    ) -> Prediction: ...

    @overload
    def __call__(
        self,
        images: list[Any] | tuple[ImageInput, ...],
        *,
        map_of: str | None = ...,
        maps: bool = ...,
    ) -> Predictions: ...

    def __call__(
        self,
        images: ImageInput | list[Any] | tuple[ImageInput, ...],
        *,
        map_of: str | None = None,
        maps: bool = True,
    ) -> Prediction | Predictions:
        """Prediction for an image, or predictions for a sequence of images.

        Args:
            images: Path or URL, content of a file, image of Pillow, or uint8 array (H, W, 3) in RGB
                order or (H, W); or a list of these, or an array (B, H, W, 3).
            map_of: Class of the maps; None = the positive class, or for models without one the most
                probable class of each image.
            maps: Whether maps are computed.

        Raises:
            ImageError: An image cannot be decoded.
            InputError: An input is of another type, or there is no class `map_of`.
        """
        several = isinstance(images, np.ndarray) and images.ndim == 4
        one = not (several or isinstance(images, list | tuple))
        inputs: list[Any] = [images] if one else list(images)  # type: ignore[arg-type]
        if not inputs:
            raise InputError("there are no images; give at least one")
        predictions: list[Predictions] = []
        for batch in self.batches(inputs, map_of=map_of, maps=maps):
            for bad in batch.bad.values():
                raise ImageError(bad.source, bad.reason)
            assert batch.predictions is not None
            predictions.append(batch.predictions)
        return predictions[0][0] if one else joined(predictions)

    def stream(
        self, images: Iterable[ImageInput], *, map_of: str | None = None, maps: bool = True
    ) -> Iterator[Prediction | BadImage]:
        """Predictions for any number of images, one by one in their order, in bounded memory.

        Images that cannot be decoded give a `BadImage`. Arguments as in `__call__`.
        """
        for batch in self.batches(images, map_of=map_of, maps=maps):
            yield from batch.results()

    def batches(
        self, images: Iterable[ImageInput], *, map_of: str | None = None, maps: bool = True
    ) -> Iterator[Batch]:
        """Predictions for the next `batch_size` inputs each, of which some may be bad.

        Results therefore do not depend on where an iteration starts.
        """
        wanted = self._map_index(map_of)
        for decoded in self._decoded(images, self.batch_size):
            good = [one for one in decoded if isinstance(one, Canvas)]
            bad = {at: one for at, one in enumerate(decoded) if isinstance(one, BadImage)}
            predictions = self._predict(good, wanted, maps) if good else None
            yield Batch(predictions, bad, len(decoded))

    def predict_decoded(self, decoded: Sequence[Canvas], *, maps: bool = True) -> Predictions:
        """Predictions for images that were decoded by `canvas_of`, at least one, in one pass."""
        return self._predict(decoded, None, maps)

    def _predict(self, decoded: Sequence[Canvas], wanted: int | None, maps: bool) -> Predictions:
        count, positive = len(decoded), self.info.positive_index
        sizes = np.array([one.size for one in decoded], np.int64)
        canvases = np.stack([one.pixels for one in decoded])
        classes = None if wanted is None else np.full(count, wanted, np.int64)
        out = self._network(canvases, maps=maps, map_classes=classes)
        if wrong := int((~np.isfinite(out.probabilities).all(1)).sum()):
            raise InputError(
                f"{self.info.backbone}: probabilities of {wrong:,} of {count:,} images are "
                "not finite; the weights are damaged"
            )
        if classes is None and positive is not None:
            classes = np.full(count, positive, np.int64)
        elif classes is None:
            classes = np.asarray(out.probabilities.argmax(1), np.int64)
        return Predictions(self.info, out, sizes, self.threshold, classes)

    def _map_index(self, name: str | None) -> int | None:
        """Class of the maps."""
        index = None
        if name is not None:
            if name not in self.info.classes:
                known = ", ".join(self.info.classes)
                raise InputError(f"map_of {name!r} is not a class of the model; it has {known}")
            index = self.info.classes.index(name)
        return index

    def _decoded(
        self, images: Iterable[ImageInput], size: int
    ) -> Iterator[list[Canvas | BadImage]]:
        """Decoded batches of `size` inputs; threads decode the next ones meanwhile."""
        form = self.info.image_format
        with ThreadPoolExecutor(self._workers) as pool:
            waiting: deque[list[Future[Canvas | BadImage]]] = deque()
            try:
                left = iter(images)
                while batch := list(islice(left, size)):
                    waiting.append([pool.submit(canvas_of, image, form) for image in batch])
                    if len(waiting) >= _AHEAD:
                        yield [one.result() for one in waiting.popleft()]
                while waiting:
                    yield [one.result() for one in waiting.popleft()]
            finally:
                pool.shutdown(wait=False, cancel_futures=True)


def load(
    model: str | os.PathLike[str],
    *,
    threshold: str | float | None = None,
    device: str = "auto",
    batch_size: int = BATCH_SIZE,
    workers: int | None = None,
) -> Predictor:
    """Load a trained model for use.

    Args:
        model: Model folder, such as `best`.
        threshold: Threshold of the decision: the name of a rule (eer, fdr5%, bpcer1%), or a number;
            None = eer if the model has it, else the decision is the most probable class.
        device: auto (a GPU if there is one), cpu, cuda or cuda:N.
        batch_size: Number of images per pass.
        workers: Number of threads that decode; None = one per core.

    Raises:
        InputError: The path is no model folder, the model is damaged, or a setting is invalid.
    """
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; it must be 1 or more")
    # The library of the network is imported only now.
    from preceptor.deploy.network import TorchNetwork

    network = TorchNetwork.open(Path(model), device=device)
    return Predictor(network, threshold=threshold, batch_size=batch_size, workers=workers)


def files_digest(model: Path) -> str:
    """Hash of the files of a model folder."""
    digest = hashlib.blake2b(digest_size=10)
    for file in sorted([*model.glob("model.*"), *model.glob("calibration.*")]):
        digest.update(file_digest(file).encode())
    return digest.hexdigest()
