"""Model that is served, and loaded again when its files change."""

from __future__ import annotations

import hashlib
import logging
import math
import os
import re
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from preceptor.errors import InputError, PreceptorError, is_control, one_line, reason
from preceptor.predictor.inputs import Canvases
from preceptor.predictor.load import files_digest, load
from preceptor.predictor.model_info import ModelInfo
from preceptor.predictor.prediction import Prediction
from preceptor.predictor.predictor import Predictor
from preceptor.serve.settings import ServeSettings

_LONGEST_NAME = 60
_FIRST_RETRY, _LAST_RETRY = 10.0, 600.0
"""Seconds between attempts to load a version that failed."""


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


def fingerprint_of(path: Path) -> str:
    """State of the files of a model: names, sizes, times, and the stored checksums.

    A change of the files changes it; that the files are those of the checksums is checked when they
    are loaded.
    """
    state = hashlib.sha256()
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    for file in files:
        if file.is_file():
            told = file.stat()
            state.update(repr((file.name, told.st_size, told.st_mtime_ns, told.st_ino)).encode())
            if file.suffix == ".json":
                state.update(file.read_bytes())
    return state.hexdigest()


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """One version of a model.

    Args:
        predictor: Predictor.
        revision: First 12 hexadecimal digits of the hash of its files.
        batch_size: Largest number of images per pass.
    """

    predictor: Predictor
    revision: str
    batch_size: int


@dataclass(frozen=True)
class ModelState:
    """State of a served model.

    Args:
        info: Description of the model.
        revision: First 12 hexadecimal digits of the hash of its files.
        batch_size: Largest number of images per pass.
        error: Reason why a newer version could not be loaded; "" = there is none.
        reloads: Number of reloads by outcome, loaded and failed.
    """

    info: ModelInfo
    revision: str
    batch_size: int
    error: str = ""
    reloads: Mapping[str, int] = field(default_factory=dict)


class ServedModel:
    """Model under a name, whose current version is replaced when its files change.

    A version that cannot be loaded replaces nothing: the one before stays, and the state says why.

    Args:
        model: Name and path.
        settings: Settings.

    Raises:
        InputError: The model cannot be loaded.
    """

    def __init__(self, model: ModelPath, settings: ServeSettings) -> None:
        self._name, self._path, self._settings = model.name, model.path, settings
        self._error = ""
        self._reloads = {"loaded": 0, "failed": 0}
        self._wait, self._retry = _FIRST_RETRY, math.inf
        self._seen = self._fingerprint()
        self.current = self._load()

    @property
    def state(self) -> ModelState:
        """State of the model."""
        current = self.current
        return ModelState(
            current.predictor.info,
            current.revision,
            current.batch_size,
            self._error,
            dict(self._reloads),
        )

    def look(self) -> None:
        """Load the model again if its files have changed since the last look; of one thread.

        After a failure it is tried again at growing intervals, since the cause may lie elsewhere:
        in the memory of the machine.
        """
        seen, now = self._fingerprint(), time.monotonic()
        if seen == self._seen and now < self._retry:
            return
        self._wait = _FIRST_RETRY if seen != self._seen else min(2 * self._wait, _LAST_RETRY)
        self._seen, self._retry = seen, now + self._wait
        log = logging.getLogger("preceptor.serve")
        try:
            found = self._load()
        except Exception as error:  # whatever is wrong with the files, the old version works
            self._error = one_line(self._without_path(_told(error)))
            self._reloads["failed"] += 1
            log.warning("%s: not loaded again: %s", self._name, self._error)
            return
        # Requests that have begun keep the version that they have.
        self.current, self._error, self._retry = found, "", math.inf
        self._reloads["loaded"] += 1
        log.warning("%s: loaded again, revision %s", self._name, found.revision)

    def _fingerprint(self) -> str:
        try:
            return fingerprint_of(self._path)
        except OSError as error:  # a file that is just being replaced
            return f"{self._path}: {error}"

    def _without_path(self, text: str) -> str:
        """Text without the path of the model: answers that anybody may ask for show it."""
        path, sep = re.escape(str(self._path)), re.escape(os.sep)
        return re.sub(
            rf"(?<![\w{sep}]){path}(: |{sep}|(?!\w))",
            lambda found: "" if found[1] else self._name,
            text,
        )

    def _load(self) -> LoadedModel:
        settings = self._settings
        revision = files_digest(self._path)[:12]
        predictor = load(
            self._path,
            threshold=settings.threshold,
            tta=settings.tta,
            device=settings.device,
        )
        predictor.check_maps()  # rather than when a request asks for them
        # The probe of the batch size also makes the first request as fast as the others.
        return LoadedModel(predictor, revision, settings.batch_size or predictor.batch_size)


def _told(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) if isinstance(error, PreceptorError) else reason(error)


class Watch:
    """Thread that looks at the files of models again and again.

    Args:
        models: Models.
        seconds: Seconds between two looks; 0 = never.
    """

    def __init__(self, models: Iterable[ServedModel], seconds: float) -> None:
        self._models, self._seconds = list(models), seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="serve-reload", daemon=True)
        if seconds:
            self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._seconds):
            for model in self._models:
                model.look()


@dataclass(frozen=True)
class DecodedUpload:
    """Decoded image, and the version of the model that it is for.

    Args:
        model: Version of the model.
        canvases: Image on its canvases.
        maps: Whether the map is needed.
    """

    model: LoadedModel
    canvases: Canvases
    maps: bool


class Answer(NamedTuple):
    """Prediction and the version of the model that made it.

    Args:
        prediction: Prediction.
        revision: Version of the model.
    """

    prediction: Prediction
    revision: str


def predict_batch(batch: Sequence[DecodedUpload]) -> list[Answer]:
    """Predictions for a batch: one pass, or one per version while the model is being replaced."""
    found: dict[int, Answer] = {}
    for model in dict.fromkeys(one.model for one in batch):
        places = [at for at, one in enumerate(batch) if one.model is model]
        maps = any(batch[at].maps for at in places) and model.predictor.info.map_kind != "none"
        predictions = model.predictor.predict_decoded(
            [batch[at].canvases for at in places], maps=maps
        )
        found |= {
            at: Answer(one, model.revision) for at, one in zip(places, predictions, strict=True)
        }
    return [found[at] for at in range(len(batch))]
