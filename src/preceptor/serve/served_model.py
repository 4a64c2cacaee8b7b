"""Models that are served."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from preceptor.errors import InputError, is_control
from preceptor.predictor.inputs import Canvas
from preceptor.predictor.load import files_digest, load
from preceptor.predictor.prediction import Prediction
from preceptor.predictor.predictor import Predictor
from preceptor.serve.settings import ServeSettings

_LONGEST_NAME = 60


@dataclass(frozen=True)
class ModelPath:
    """Model to be served.

    Args:
        name: Name in requests.
        path: Model folder or exported file.
    """

    name: str
    path: Path


def model_paths(texts: Sequence[str]) -> list[ModelPath]:
    """Models by name, from `PATH` or `NAME=PATH`.

    Without a name it is that of the folder, or of the file without its suffix.

    Raises:
        InputError: A name is invalid, or is there twice.

    Example:
        >>> [one.name for one in model_paths(["study/best", "small=other/best", "net.onnx"])]
        ['best', 'small', 'net']
    """
    found: list[ModelPath] = []
    for text in texts:
        name, given, path = text.partition("=")
        # A path may contain the character itself.
        if not given or Path(text).exists():
            name, path = Path(text).absolute().name.removesuffix(".onnx"), text
        if not 1 <= len(name) <= _LONGEST_NAME or any(map(is_control, name)):
            raise InputError(f"{text}: a name of a model has 1 to {_LONGEST_NAME} characters")
        if name in (one.name for one in found):
            raise InputError(
                f"{text}: there is another model {name!r}; give each a name: NAME={path}"
            )
        found.append(ModelPath(name, Path(path)))
    return found


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """Served model.

    Args:
        predictor: Predictor.
        revision: First 12 hexadecimal digits of the hash of its files.
        batch_size: Largest number of images per pass.
    """

    predictor: Predictor
    revision: str
    batch_size: int


def load_model(model: ModelPath, settings: ServeSettings) -> LoadedModel:
    """Load a model, whose batch size is that of the settings or of a short probe.

    Raises:
        InputError: The model cannot be loaded.
    """
    predictor = load(model.path, threshold=settings.threshold, device=settings.device)
    predictor.check_maps()  # rather than when a request asks for them
    # The probe of the batch size also makes the first request as fast as the others.
    size = settings.batch_size or predictor.batch_size
    return LoadedModel(predictor, files_digest(model.path)[:12], size)


@dataclass(frozen=True)
class DecodedUpload:
    """Decoded image.

    Args:
        canvas: Image on its canvas.
        maps: Whether the map is needed.
    """

    canvas: Canvas
    maps: bool


def predict_batch(predictor: Predictor, batch: Sequence[DecodedUpload]) -> Sequence[Prediction]:
    """Predictions for a batch, with maps if one of them is needed."""
    maps = any(one.maps for one in batch) and predictor.info.map_kind != "none"
    return predictor.predict_decoded([one.canvas for one in batch], maps=maps)
