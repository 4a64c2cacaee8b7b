"""Interface of the prediction of uploads, and its implementation in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from preceptor.runtime.cores import core_count
from preceptor.serve.batcher import Batcher
from preceptor.serve.served_model import (
    Answer,
    DecodedUpload,
    LoadedModel,
    ModelPath,
    ModelState,
    ServedModel,
    Watch,
    predict_batch,
)
from preceptor.serve.settings import ServeSettings
from preceptor.serve.uploads import Upload, decode_upload


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
        self._models = {one.name: ServedModel(one, settings) for one in models}
        self._batchers = {
            name: _batcher(name, model, settings, done) for name, model in self._models.items()
        }
        self._decoders = ThreadPoolExecutor(
            settings.workers or core_count(), thread_name_prefix="serve-decode"
        )
        self._watch = Watch(self._models.values(), settings.reload)

    @property
    def names(self) -> list[str]:
        """Names of the models."""
        return list(self._models)

    async def state(self, name: str) -> ModelState:
        """State of a model."""
        return self._models[name].state

    async def predict(
        self, name: str, uploads: Sequence[Upload], *, maps: bool, until: float
    ) -> list[Answer]:
        """Predict images by one version of a model, see `Engine.predict`."""
        model, batcher = self._models[name].current, self._batchers[name]
        return await all_or_none(
            [self._predict_one(model, batcher, one, maps, until) for one in uploads]
        )

    async def _predict_one(
        self,
        model: LoadedModel,
        batcher: Batcher[DecodedUpload, Answer],
        upload: Upload,
        maps: bool,
        until: float,
    ) -> Answer:
        canvases = await asyncio.get_running_loop().run_in_executor(
            self._decoders, decode_upload, upload, model.predictor.formats
        )
        future = batcher.submit(DecodedUpload(model, canvases, maps), until=until)
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Answer what waits, and end the threads."""
        self._watch.close()
        self._decoders.shutdown(cancel_futures=True)
        for batcher in self._batchers.values():
            batcher.close()


async def all_or_none(calls: Sequence[Awaitable[Answer]]) -> list[Answer]:
    """Answers of concurrent calls; after a failure or a cancellation the others are cancelled."""
    tasks = [asyncio.ensure_future(one) for one in calls]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()


def _batcher(
    name: str,
    model: ServedModel,
    settings: ServeSettings,
    done: Callable[[str, int, float], None],
) -> Batcher[DecodedUpload, Answer]:
    return Batcher(
        predict_batch,
        size=lambda: model.current.batch_size,
        delay=settings.delay,
        done=lambda size, seconds: done(name, size, seconds),
    )
