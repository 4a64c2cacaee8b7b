"""Predictions of requests within limits: keys, micro-batches, metrics, answers."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import io
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar, get_args

import numpy as np
from PIL import Image
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import generate_latest
from starlette.requests import Request

from preceptor.deploy.api import (
    MapAnswer,
    MapForm,
    ModelAnswer,
    ModelsAnswer,
    PredictAnswer,
    PredictionAnswer,
    ServeSettings,
    UnfamiliarAnswer,
    Upload,
    check_sizes,
    decode_upload,
    uploads_of,
)
from preceptor.deploy.http import (
    Hosts,
    RefusedError,
    forbidden,
    malformed,
    unknown,
)
from preceptor.deploy.inputs import Canvas
from preceptor.deploy.model_info import ModelInfo, find_threshold
from preceptor.deploy.prediction import Prediction, decide
from preceptor.deploy.predictor import Predictor, files_digest, load
from preceptor.errors import InputError
from preceptor.utils.process import core_count
from preceptor.version import __version__

Item = TypeVar("Item")
Result = TypeVar("Result")

SHORTEST_KEY = 16
LARGEST_MAPS = 2**20
"""Largest number of values of the maps of an answer that are written at the size of the images."""
_PARAMETERS = ("model", "map", "threshold")
_LONGEST = 60  # name of a model, value of a parameter
_DIGITS = 6
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
# Weight of the last batch in the moving average of the speed.
_WEIGHT = 0.2


# -------------------------------------------------------------------- batches


@dataclass(frozen=True, eq=False)
class _Job(Generic[Item, Result]):
    item: Item
    until: float
    since: float = field(default_factory=time.monotonic)
    future: Future[Result] = field(default_factory=Future)


class Batcher(Generic[Item, Result]):
    """Thread that predicts waiting images of concurrent requests, batch by batch.

    A batch begins with the first image that waits. It is complete when it has `size` images, or
    when its first image has waited for `delay`. While a batch is computed the next one gathers, so
    that the delay matters only if the network is idle. Images whose request was cancelled or has
    run out of time are left out.

    Args:
        predict: Function that predicts images.
        size: Largest number of images per batch.
        delay: Longest wait in seconds for further images.
        done: Function that is told the number of images and the seconds of each batch.
    """

    def __init__(
        self,
        predict: Callable[[list[Item]], Sequence[Result]],
        *,
        size: int,
        delay: float,
        done: Callable[[int, float], None] = lambda size, seconds: None,
    ) -> None:
        self._predict, self._size, self._delay, self._done = predict, size, delay, done
        self._jobs: deque[_Job[Item, Result]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="serve-batches", daemon=True)
        self._thread.start()

    def submit(self, item: Item, *, until: float) -> Future[Result]:
        """Add an image whose prediction is not needed after a time of `time.monotonic`.

        Returns:
            Future of its prediction; `TimeoutError` if it was not begun in time.

        Raises:
            RuntimeError: The batcher is closed.
        """
        job: _Job[Item, Result] = _Job(item, until)
        with self._changed:
            if self._closed:
                raise RuntimeError("the batcher is closed")
            self._jobs.append(job)
            self._changed.notify()
        return job.future

    def close(self) -> None:
        """Predict what waits, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while jobs := self._take():
            now = time.monotonic()
            current: list[_Job[Item, Result]] = []
            for job in jobs:
                if not job.future.set_running_or_notify_cancel():
                    continue
                if job.until <= now:
                    job.future.set_exception(TimeoutError())
                else:
                    current.append(job)
            if current:
                self._answer(current)

    def _answer(self, jobs: list[_Job[Item, Result]]) -> None:
        started = time.monotonic()
        try:
            predictions = list(self._predict([job.item for job in jobs]))
        except Exception as error:  # of this batch alone; its requests report it
            for job in jobs:
                job.future.set_exception(error)
            return
        self._done(len(jobs), time.monotonic() - started)  # whoever has an answer finds it counted
        for job, prediction in zip(jobs, predictions, strict=True):
            job.future.set_result(prediction)

    def _take(self) -> list[_Job[Item, Result]]:
        """Next batch; [] when the batcher is closed and nothing waits."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._closed)
            full = self._jobs[0].since + self._delay if self._jobs else 0.0
            while len(self._jobs) < self._size and not self._closed:
                left = full - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            return [self._jobs.popleft() for _ in range(min(self._size, len(self._jobs)))]


# -------------------------------------------------------------------- models and keys


class ServedModel(NamedTuple):
    """Model that is served.

    Args:
        predictor: Predictor.
        revision: First 12 hexadecimal digits of the hash of its files.
        batch_size: Largest number of images per pass.
    """

    predictor: Predictor
    revision: str
    batch_size: int

    @property
    def info(self) -> ModelInfo:
        """Description of the model."""
        return self.predictor.info


def load_served(path: Path, settings: ServeSettings) -> ServedModel:
    """Load a model, whose batch size is that of the settings or of a short probe.

    Raises:
        InputError: The model cannot be loaded.
    """
    predictor = load(path, threshold=settings.threshold, device=settings.device)
    predictor.check_maps()  # rather than when a request asks for them
    # The probe of the batch size also makes the first request as fast as the others.
    size = settings.batch_size or predictor.batch_size
    return ServedModel(predictor, files_digest(path)[:12], size)


class ApiKeys:
    """Keys of which each request must have one.

    Only hashes are kept. All of them are compared, each in a time that does not depend on where
    two differ, so that the time of an answer tells nothing about a key.

    Args:
        keys: Keys.
    """

    def __init__(self, keys: list[str]) -> None:
        self._digests = [_digest(key) for key in keys]

    @classmethod
    def read(cls, path: Path) -> ApiKeys:
        """Keys of a file: one per line; empty lines and those that begin with # are left out.

        Raises:
            InputError: The file cannot be read, has no keys, or a key is short or not ASCII.
        """
        try:
            text = path.read_text(encoding="utf-8-sig")  # editors of Windows write a mark
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
            raise InputError(f"{path}: {reason}") from error
        keys = []
        for number, line in enumerate(text.splitlines(), 1):
            key = line.strip()
            if not key or key.startswith("#"):
                continue
            if len(key) < SHORTEST_KEY or not (key.isascii() and key.isprintable()) or " " in key:
                raise InputError(
                    f"{path}: line {number}: a key has at least {SHORTEST_KEY} ASCII characters "
                    "and no blanks; create one: openssl rand -hex 32"
                )
            keys.append(key)
        if not keys:
            raise InputError(f"{path}: there are no keys; write one per line: openssl rand -hex 32")
        return cls(keys)

    def allow(self, headers: Mapping[str, str]) -> bool:
        """Whether headers, with small letters, have a key: `Authorization: Bearer`, `X-API-Key`."""
        kind, _, token = headers.get("authorization", "").partition(" ")
        given = token.strip() if kind.lower() == "bearer" else headers.get("x-api-key", "")
        digest, found = _digest(given), False
        for known in self._digests:
            found |= hmac.compare_digest(digest, known)
        return found


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="surrogatepass")).digest()


# -------------------------------------------------------------------- service


class Metrics:
    """What a server counts and measures.

    Args:
        models: Served models by name.
        limit: Largest number of images in flight.
    """

    def __init__(self, models: Mapping[str, ServedModel], limit: int) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        given: dict[str, Any] = {"registry": self._registry, "namespace": "preceptor"}
        self.requests = Counter("requests", "Answered requests.", ["path", "status"], **given)
        self.seconds = Histogram(
            "predict_seconds", "Time of a request of predictions.", buckets=_SECONDS, **given
        )
        self.in_flight = Gauge("images_in_flight", "Images that are being answered.", **given)
        self._images = Counter("images", "Predicted images.", ["model"], **given)
        self._batch_sizes = Histogram(
            "batch_size", "Images per pass of the network.", ["model"], buckets=_SIZES, **given
        )
        self._batch_seconds = Histogram(
            "batch_seconds", "Time of a pass.", ["model"], buckets=_SECONDS, **given
        )
        Gauge("images_limit", "Largest number of images in flight.", **given).set(limit)
        Gauge("build_info", "Version.", ["version"], **given).labels(__version__).set(1)
        names = ["model", "backbone", "revision"]
        info = Gauge("model_info", "Served models.", names, **given)
        for name, one in models.items():
            info.labels(name, one.info.backbone, one.revision).set(1)
        self._seconds_per_image = 0.0

    def batch(self, model: str, size: int, seconds: float) -> None:
        """Take note of a pass of the network."""
        self._images.labels(model).inc(size)
        self._batch_sizes.labels(model).observe(size)
        self._batch_seconds.labels(model).observe(seconds)
        last, mean = seconds / size, self._seconds_per_image
        self._seconds_per_image = last if not mean else mean + _WEIGHT * (last - mean)

    def wait_for(self, images: int) -> int:
        """Estimated whole seconds until so many images are predicted, from 1 to 60."""
        return min(60, max(1, round(images * self._seconds_per_image)))

    def text(self) -> bytes:
        """Text of all metrics."""
        return generate_latest(self._registry)


class Wish(NamedTuple):
    """What a request asks for: name of the model, form of the map, threshold."""

    model: str
    map: MapForm = "none"
    threshold: str | None = None


class Service:
    """Predictions of requests within limits: threads that decode, and one per model that predicts.

    Args:
        paths: Paths of the models by name.
        settings: Settings.
        keys: API keys; None = none are needed.
        hosts: Hosts that requests may name; None = any.

    Raises:
        InputError: A model cannot be loaded.
    """

    def __init__(
        self,
        paths: Mapping[str, Path],
        settings: ServeSettings,
        keys: ApiKeys | None = None,
        hosts: Hosts | None = None,
    ) -> None:
        self.settings, self.keys, self.hosts = settings, keys, hosts
        self.stopping = False
        self.models = {name: load_served(path, settings) for name, path in paths.items()}
        self.metrics = Metrics(self.models, settings.queue)
        self._batchers = {name: self._batcher(name, one) for name, one in self.models.items()}
        self._decoders = ThreadPoolExecutor(settings.workers or core_count())
        self._threads = ThreadPoolExecutor(4)
        self._images = 0
        self._bytes = 0

    def _batcher(self, name: str, model: ServedModel) -> Batcher[tuple[Canvas, bool], Prediction]:
        def predict(batch: list[tuple[Canvas, bool]]) -> Sequence[Prediction]:
            maps = any(wanted for _, wanted in batch) and model.info.map_kind != "none"
            return model.predictor.predict_decoded([canvas for canvas, _ in batch], maps=maps)

        return Batcher(
            predict,
            size=model.batch_size,
            delay=self.settings.delay,
            done=lambda size, seconds: self.metrics.batch(name, size, seconds),
        )

    def stop(self) -> None:
        """Take no further requests."""
        self.stopping = True

    def close(self) -> None:
        """Answer what waits, and end the threads."""
        self._threads.shutdown(cancel_futures=True)
        self._decoders.shutdown(cancel_futures=True)
        for batcher in self._batchers.values():
            batcher.close()

    def check_access(self, request: Request, *, key: bool) -> None:
        """Check that a request to a server without keys comes from no other site, and its key.

        Raises:
            RefusedError: The Host header is missing or names another host, or a page of another
                site has sent the request (403), or it has no key (401).
        """
        headers = {name.lower(): value for name, value in request.headers.items()}
        if self.hosts is not None:
            hosts = request.headers.getlist("host")
            if len(hosts) != 1 or not self.hosts.allows(hosts[0]):
                raise forbidden("this host is not served here; use the address that was printed")
            origin = headers.get("origin", "")
            if origin and not self.hosts.allows_origin(origin, hosts[0]):
                raise forbidden("the request comes from another page")
        if key and self.keys is not None and not self.keys.allow(headers):
            raise RefusedError(
                401,
                "an API key is needed, as Authorization: Bearer KEY",
                {"www-authenticate": 'Bearer realm="preceptor"'},
            )

    @contextlib.contextmanager
    def body_room(self) -> Iterator[Callable[[int], None]]:
        """Context with a function that counts bytes of a body, and refuses too many (429)."""
        size = 0

        def take(count: int) -> None:
            nonlocal size
            if self._bytes + count > self.settings.bodies:
                raise self._busy()
            self._bytes += count
            size += count

        try:
            yield take
        finally:
            self._bytes -= size

    @contextlib.contextmanager
    def _room(self, count: int) -> Iterator[None]:
        """Context in which images are in flight."""
        if self._images + count > self.settings.queue:
            raise self._busy()
        self._images += count
        self.metrics.in_flight.set(self._images)
        try:
            yield
        finally:
            self._images -= count
            self.metrics.in_flight.set(self._images)

    def _busy(self) -> RefusedError:
        seconds = self.metrics.wait_for(max(1, self._images))
        return RefusedError(
            429,
            f"the server is busy; try again in {seconds} second{'s' if seconds > 1 else ''}",
            {"retry-after": str(seconds)},
        )

    def wish_of(self, query: list[tuple[str, str]]) -> Wish:
        """What the query of a request asks for.

        Raises:
            RefusedError: A parameter is unknown, there twice or invalid (400), there is no such
                model (404), or the model cannot do it (422).
        """
        given: dict[str, str] = {}
        for key, value in query:
            if key not in _PARAMETERS:
                raise malformed(f"a parameter is unknown; known are {', '.join(_PARAMETERS)}")
            if key in given:
                raise malformed(f"{key} is there twice")
            if len(value) > _LONGEST:
                raise malformed(f"{key} has more than {_LONGEST} characters")
            given[key] = value
        model = given.get("model", next(iter(self.models)))
        if model not in self.models:
            raise unknown(f"there is no such model; known are {', '.join(self.models)}")
        forms: tuple[MapForm, ...] = get_args(MapForm)
        form = next((one for one in forms if one == given.get("map", "none")), None)
        if form is None:
            raise malformed(f"map: one of {', '.join(forms)} is needed")
        wish = Wish(model, form, given.get("threshold", self.settings.threshold))
        info = self.models[model].info
        _threshold_of(wish.threshold, info)
        if form != "none" and info.map_kind == "none":
            raise RefusedError(422, f"the model {model!r} has no maps; set map=none")
        return wish

    async def predict(self, wish: Wish, content_type: str, body: bytes) -> bytes:
        """JSON of the answer to a request.

        Raises:
            RefusedError: The request is not carried out.
        """
        settings, run = self.settings, asyncio.get_running_loop().run_in_executor
        until = time.monotonic() + settings.timeout
        try:
            async with asyncio.timeout(settings.timeout):
                uploads = await run(self._threads, self._uploads, content_type, body)
                with self._room(len(uploads)):
                    found = await _all_or_none(
                        [self._predict_one(wish, upload, until) for upload in uploads]
                    )
                    return await run(self._threads, self._answer, wish, uploads, found)
        except TimeoutError as error:
            raise RefusedError(
                504, f"the prediction took longer than {settings.timeout:g} seconds"
            ) from error

    def _uploads(self, content_type: str, body: bytes) -> list[Upload]:
        found = uploads_of(content_type, body, self.settings.images_per_request)
        check_sizes(found, self.settings.pixels)
        return found

    async def _predict_one(self, wish: Wish, upload: Upload, until: float) -> Prediction:
        form = self.models[wish.model].info.image_format
        loop = asyncio.get_running_loop()
        canvas = await loop.run_in_executor(self._decoders, decode_upload, upload, form)
        item = canvas, wish.map != "none"
        return await asyncio.wrap_future(self._batchers[wish.model].submit(item, until=until))

    def _answer(
        self, wish: Wish, uploads: Sequence[Upload], predictions: Sequence[Prediction]
    ) -> bytes:
        model = self.models[wish.model]
        threshold = _threshold_of(wish.threshold, model.info)
        values = sum(width * height for width, height in (one.size for one in predictions))
        if wish.map == "image" and values > LARGEST_MAPS:
            raise RefusedError(
                422,
                f"maps of {values:,} values are too large, at most {LARGEST_MAPS:,} per request "
                "are written; set map=png",
            )
        pairs = zip(uploads, predictions, strict=True)
        answer = PredictAnswer(
            model=wish.model,
            revision=model.revision,
            threshold=threshold,
            predictions=[
                _prediction(upload.name, one, threshold, wish.map) for upload, one in pairs
            ],
        )
        return answer.model_dump_json().encode()

    def model_answers(self) -> ModelsAnswer:
        """Served models."""
        return ModelsAnswer(
            models=[
                ModelAnswer(
                    name=name,
                    revision=one.revision,
                    backbone=one.info.backbone,
                    classes=list(one.info.classes),
                    positive=one.info.positive,
                    threshold=_threshold_of(self.settings.threshold, one.info),
                    thresholds=dict(one.info.thresholds),
                    maps=one.info.map_kind,
                    input_size=one.info.image_format.size,
                    batch_size=one.batch_size,
                    version=one.info.version,
                )
                for name, one in self.models.items()
            ]
        )


async def _all_or_none(calls: Sequence[Awaitable[Prediction]]) -> list[Prediction]:
    """Results of concurrent calls; after a failure or a cancellation the others are cancelled."""
    tasks = [asyncio.ensure_future(one) for one in calls]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()


def _threshold_of(wanted: str | None, info: ModelInfo) -> float | None:
    try:
        return find_threshold(wanted, info)
    except InputError as error:
        raise RefusedError(422, str(error)) from error


def _prediction(
    name: str, prediction: Prediction, threshold: float | None, form: MapForm
) -> PredictionAnswer:
    info, (width, height), far = prediction.info, prediction.size, prediction.unfamiliar
    (decision,) = decide(prediction.class_probabilities[None], info.positive_index, threshold)
    unfamiliar = None
    if far is not None:
        unfamiliar = UnfamiliarAnswer(
            flagged=bool(far), share=far.share, rate=far.rate, distance=far.distance
        )
    return PredictionAnswer(
        name=name,
        width=width,
        height=height,
        score=prediction.score,
        decision=info.classes[decision],
        probabilities=prediction.probabilities,
        map=_map(prediction, form),
        unfamiliar=unfamiliar,
    )


def _map(prediction: Prediction, form: MapForm) -> MapAnswer | None:
    if form == "none":
        return None
    values = prediction.map if form == "grid" else prediction.map_at_image()
    if form == "png":
        file = io.BytesIO()
        levels = np.rint(values * np.float32(255)).astype(np.uint8)
        Image.fromarray(levels).save(file, "PNG", compress_level=1)
        text = base64.b64encode(file.getvalue()).decode("ascii")
        return MapAnswer(of=prediction.map_class, form=form, values=None, png=text)
    rows = np.round(values.astype(np.float64), _DIGITS).tolist()
    return MapAnswer(of=prediction.map_class, form=form, values=rows, png=None)
