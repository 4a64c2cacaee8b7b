"""Prediction of uploads: threads that decode, and one per model that predicts in batches."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from preceptor.predictor.prediction import Prediction
from preceptor.runtime.cores import core_count
from preceptor.serve.batcher import Batcher
from preceptor.serve.served_model import (
    DecodedUpload,
    LoadedModel,
    ModelPath,
    load_model,
    predict_batch,
)
from preceptor.serve.settings import ServeSettings
from preceptor.serve.uploads import Upload, decode_upload


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
        self.models = {one.name: load_model(one, settings) for one in models}
        self._batchers = {
            name: _batcher(name, model, settings, done) for name, model in self.models.items()
        }
        self._decoders = ThreadPoolExecutor(
            settings.workers or core_count(), thread_name_prefix="serve-decode"
        )

    @property
    def names(self) -> list[str]:
        """Names of the models."""
        return list(self.models)

    async def predict(
        self, name: str, uploads: Sequence[Upload], *, maps: bool, until: float
    ) -> list[Prediction]:
        """Predict images.

        Args:
            name: Name of the model.
            uploads: Images.
            maps: Whether maps are needed.
            until: Time of `time.monotonic` after which the predictions are not needed any more.

        Raises:
            RefusedError: An image cannot be decoded.
            TimeoutError: The time is over.
        """
        return await all_or_none([self._predict_one(name, one, maps, until) for one in uploads])

    async def _predict_one(self, name: str, upload: Upload, maps: bool, until: float) -> Prediction:
        canvases = await asyncio.get_running_loop().run_in_executor(
            self._decoders, decode_upload, upload, self.models[name].predictor.info.image_format
        )
        future = self._batchers[name].submit(DecodedUpload(canvases, maps), until=until)
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Answer what waits, and end the threads."""
        self._decoders.shutdown(cancel_futures=True)
        for batcher in self._batchers.values():
            batcher.close()


async def all_or_none(calls: Sequence[Awaitable[Prediction]]) -> list[Prediction]:
    """Answers of concurrent calls; after a failure or a cancellation the others are cancelled."""
    tasks = [asyncio.ensure_future(one) for one in calls]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()


def _batcher(
    name: str,
    model: LoadedModel,
    settings: ServeSettings,
    done: Callable[[str, int, float], None],
) -> Batcher[DecodedUpload, Prediction]:
    return Batcher(
        lambda batch: predict_batch(model.predictor, batch),
        size=lambda: model.batch_size,
        delay=settings.delay,
        done=lambda size, seconds: done(name, size, seconds),
    )
