"""Model that is served, and loaded again when its files change."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from preceptor.errors import InputError, PreceptorError, is_control, one_line, reason
from preceptor.predictor.inputs import Canvases
from preceptor.predictor.load import load
from preceptor.predictor.prediction import Prediction
from preceptor.predictor.predictor import Predictor
from preceptor.serve.batcher import Batcher
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


def fingerprint_of(path: Path) -> str:
    """State of the files of a model: names, sizes, times and the checksums that are stored.

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


@dataclass(eq=False)
class LoadedModel:
    """One version of a model.

    Args:
        predictor: Predictor.
        batcher: Its micro-batches.
        revision: Version, 12 hexadecimal digits.
        users: Number of requests that it is answering.
        replaced: Whether there is a newer version.
    """

    predictor: Predictor
    batcher: Batcher
    revision: str
    users: int = 0
    replaced: bool = False


class ServedModel:
    """Model under a name, whose current version is replaced when its files change.

    A version that cannot be loaded replaces nothing: the one before stays, and `error` says why.

    Args:
        model: Name and path.
        settings: Settings.
        done: Function that is told the number of images and the seconds of each batch.

    Raises:
        InputError: The model cannot be loaded.
    """

    def __init__(
        self, model: ModelPath, settings: ServeSettings, done: Callable[[int, float], None]
    ) -> None:
        self.name, self._path, self._settings, self._done = (
            model.name, model.path, settings, done,
        )  # fmt: skip
        self.error = ""
        self.reloads = {"loaded": 0, "failed": 0}
        self._seen = self._fingerprint()
        self.current = self._load(self._seen)
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def in_use(self) -> Iterator[LoadedModel]:
        """Current version, which stays usable within the context."""
        with self._lock:
            model = self.current
            model.users += 1
        try:
            yield model
        finally:
            with self._lock:
                model.users -= 1
                unused = model.replaced and not model.users
            if unused:
                model.batcher.close()

    def look(self) -> None:
        """Load the model again if its files have changed since the last look; of one thread."""
        seen = self._fingerprint()
        if seen == self._seen:
            return
        self._seen = seen
        log = logging.getLogger("preceptor.serve")
        try:
            found = self._load(seen)
        except Exception as error:  # whatever is wrong with the files, the old version works
            told = str(error) if isinstance(error, PreceptorError) else reason(error)
            self.error = one_line(told)
            self.reloads["failed"] += 1
            log.warning("%s: not loaded again: %s", self.name, self.error)
            return
        with self._lock:
            old, self.current, self.error = self.current, found, ""
            old.replaced = True
            unused = not old.users
            self.reloads["loaded"] += 1
        if unused:
            old.batcher.close()
        log.warning("%s: loaded again, revision %s", self.name, found.revision)

    def close(self) -> None:
        """Predict what waits, and end the thread."""
        self.current.batcher.close()

    def _fingerprint(self) -> str:
        try:
            return fingerprint_of(self._path)
        except OSError as error:  # a file that is just being replaced
            return f"{self._path}: {error}"

    def _load(self, seen: str) -> LoadedModel:
        settings = self._settings
        predictor = load(
            self._path, threshold=settings.threshold, tta=settings.tta, device=settings.device
        )

        def predict(decoded: list[Canvases], maps: bool) -> Sequence[Prediction]:
            return predictor.predict_decoded(
                decoded, maps=maps and predictor.info.map_kind != "none"
            )

        # The probe of the batch size also makes the first request as fast as the others.
        size = settings.batch_size or predictor.batch_size
        batcher = Batcher(predict, size=size, delay=settings.delay, done=self._done)
        return LoadedModel(predictor, batcher, hashlib.sha256(seen.encode()).hexdigest()[:12])
