"""Interface of the prediction of uploads, and its implementation in this process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from preceptor.predictor.model_info import ModelInfo
from preceptor.predictor.prediction import Prediction
from preceptor.runtime.cores import usable_cores
from preceptor.serve.served_model import LoadedModel, ModelPath, ServedModel
from preceptor.serve.settings import ServeSettings
from preceptor.serve.uploads import Upload, decode_upload


class Answer(NamedTuple):
    """Prediction and the version of the model that made it.

    Args:
        prediction: Prediction.
        revision: Version of the model.
    """

    prediction: Prediction
    revision: str


@dataclass(frozen=True)
class ModelState:
    """State of a served model.

    Args:
        info: Description of the model.
        revision: Version, 12 hexadecimal digits.
        batch_size: Largest number of images per pass.
        error: Reason why a newer version could not be loaded; "" = there is none.
        reloads: Number of loaded and failed reloads.
    """

    info: ModelInfo
    revision: str
    batch_size: int
    error: str = ""
    reloads: Mapping[str, int] | None = None


class Engine(Protocol):
    """Prediction of uploads by named models."""

    @property
    def names(self) -> Sequence[str]:
        """Names of the models."""

    async def state(self, name: str) -> ModelState:
        """State of a model."""

    async def predict(
        self, name: str, uploads: Sequence[Upload], *, maps: bool, until: float
    ) -> list[Answer]:
        """Predict images by one version of a model.

        Args:
            name: Name of the model.
            uploads: Images.
            maps: Whether maps are needed.
            until: Time of `time.monotonic` after which the predictions are not needed any more.

        Raises:
            RefusedError: An image cannot be decoded, or the engine has no room.
            TimeoutError: The time is over.
        """


class LocalEngine:
    """Engine in this process: threads that decode, and one per model that predicts in batches.

    Args:
        models: Models.
        settings: Settings.
        done: Function that is told the model, the number of images and the seconds of each batch.

    Raises:
        InputError: A model cannot be loaded.
    """

    def __init__(
        self,
        models: Sequence[ModelPath],
        settings: ServeSettings,
        done: Callable[[str, int, float], None] = lambda name, size, seconds: None,
    ) -> None:
        self._settings = settings
        self._models = {one.name: ServedModel(one, settings, _of(done, one.name)) for one in models}
        self._decoders = ThreadPoolExecutor(
            settings.workers or usable_cores(), thread_name_prefix="serve-decode"
        )
        self._stop = threading.Event()
        self._watch = threading.Thread(target=self._look, name="serve-reload", daemon=True)
        if settings.reload:
            self._watch.start()

    @property
    def names(self) -> list[str]:
        """Names of the models."""
        return list(self._models)

    async def state(self, name: str) -> ModelState:
        """State of a model."""
        model = self._models[name]
        current = model.current
        return ModelState(
            current.predictor.info,
            current.revision,
            self._settings.batch_size or current.predictor.batch_size,
            model.error,
            dict(model.reloads),
        )

    async def predict(
        self, name: str, uploads: Sequence[Upload], *, maps: bool, until: float
    ) -> list[Answer]:
        """Predict images by one version of a model, see `Engine.predict`."""
        with self._models[name].in_use() as model:
            tasks = [
                asyncio.create_task(self._predict_one(model, one, maps, until)) for one in uploads
            ]
            try:
                return await asyncio.gather(*tasks)
            finally:
                for task in tasks:  # after a failure or a cancellation the others are not needed
                    task.cancel()

    async def _predict_one(
        self, model: LoadedModel, upload: Upload, maps: bool, until: float
    ) -> Answer:
        loop, formats = asyncio.get_running_loop(), model.predictor.formats
        decoded = await loop.run_in_executor(
            self._decoders, decode_upload, upload, formats, self._settings.pixels
        )
        future = model.batcher.submit(decoded, maps=maps, until=until)
        return Answer(await asyncio.wrap_future(future), model.revision)

    def close(self) -> None:
        """Answer what waits, and end the threads."""
        self._stop.set()
        if self._watch.is_alive():
            self._watch.join()
        self._decoders.shutdown(cancel_futures=True)
        for model in self._models.values():
            model.close()

    def _look(self) -> None:
        while not self._stop.wait(self._settings.reload):
            for model in self._models.values():
                model.look()


def _of(done: Callable[[str, int, float], None], name: str) -> Callable[[int, float], None]:
    return lambda size, seconds: done(name, size, seconds)
