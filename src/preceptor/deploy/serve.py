"""Server of trained models: keys, batches of concurrent requests, limits, metrics, routes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar, get_args

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from preceptor.deploy.api import (
    MapForm,
    ServeSettings,
    Upload,
    answer_of,
    check_sizes,
    decode_upload,
    uploads_of,
)
from preceptor.deploy.http import (
    ApiKeys,
    Hosts,
    RefusedError,
    Reply,
    forbidden,
    malformed,
    refused,
    told,
    unknown,
)
from preceptor.deploy.http_server import http_error, read_body, response_of, with_headers
from preceptor.deploy.prediction import ModelInfo, Prediction, find_threshold
from preceptor.deploy.predictor import Canvas, Predictor, files_digest, load
from preceptor.errors import InputError, is_control
from preceptor.utils.process import core_count
from preceptor.version import __version__

Item = TypeVar("Item")
Result = TypeVar("Result")

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_LONGEST = 60  # name of a model, value of a parameter


class _Job(NamedTuple, Generic[Item, Result]):
    item: Item
    since: float
    future: asyncio.Future[Result]


class Batcher(Generic[Item, Result]):
    """Predicts waiting images of concurrent requests in a thread, batch by batch.

    A batch is complete when it has `size` images, or when its first image has waited for `delay`
    seconds; the next one gathers while it is computed. `done` is told the images and the seconds.
    An image whose request has ended meanwhile is not predicted.
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
        self._jobs: asyncio.Queue[_Job[Item, Result]] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(1, "serve-batches")
        self._running: asyncio.Task[None] | None = None

    async def __call__(self, item: Item) -> Result:
        """Prediction of an image."""
        loop = asyncio.get_running_loop()
        self._running = self._running or loop.create_task(self._run())
        job = _Job[Item, Result](item, loop.time(), loop.create_future())
        self._jobs.put_nowait(job)
        return await job.future

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            jobs = [await self._jobs.get()]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(jobs[0].since + self._delay):
                    while len(jobs) < self._size:
                        jobs.append(await self._jobs.get())
            jobs = [job for job in jobs if not job.future.done()]
            if not jobs:
                continue
            started = time.monotonic()
            try:
                items = [job.item for job in jobs]
                results = list(await loop.run_in_executor(self._thread, self._predict, items))
            except Exception as error:  # of this batch alone; its requests report it
                for job in jobs:
                    if not job.future.done():
                        job.future.set_exception(error)
                continue
            self._done(len(jobs), time.monotonic() - started)  # who has an answer finds it counted
            for job, result in zip(jobs, results, strict=True):
                if not job.future.done():
                    job.future.set_result(result)


class ServedModel(NamedTuple):
    """Model that is served."""

    predictor: Predictor
    revision: str  # first 12 hexadecimal digits of the hash of its files

    @property
    def info(self) -> ModelInfo:
        """Description of the model."""
        return self.predictor.info

    def threshold(self, wanted: str | None) -> float | None:
        """Threshold of a rule or a number; RefusedError (422) if the model has none."""
        try:
            return find_threshold(wanted, self.info)
        except InputError as error:
            raise RefusedError(422, str(error)) from error


def model_paths(texts: Sequence[str]) -> dict[str, Path]:
    """Paths of models by name, from `NAME=PATH` or `PATH`, whose name is the folder.

    Example:
        >>> list(model_paths(["study/best", "small=other/best"]))
        ['best', 'small']
    """
    paths: dict[str, Path] = {}
    for text in texts:
        name, given, path = text.partition("=")
        # A path may contain the character itself.
        if not given or Path(text).exists():
            name, path = Path(text).absolute().name, text
        if not 1 <= len(name) <= _LONGEST or any(map(is_control, name)):
            raise InputError(f"{text}: a name of a model has 1 to {_LONGEST} characters")
        if name in paths:
            raise InputError(
                f"{text}: there is another model {name!r}; give each a name: NAME={path}"
            )
        paths[name] = Path(path)
    return paths


class Metrics:
    """What a server counts and measures."""

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
        for name, model in models.items():
            info.labels(name, model.info.backbone, model.revision).set(1)

    def batch(self, model: str, size: int, seconds: float) -> None:
        """Take note of a pass of the network."""
        self._images.labels(model).inc(size)
        self._batch_sizes.labels(model).observe(size)
        self._batch_seconds.labels(model).observe(seconds)

    def text(self) -> bytes:
        """Text of all metrics."""
        return generate_latest(self._registry)


class Wish(NamedTuple):
    """What a request asks for."""

    model: str
    map: MapForm = "none"
    threshold: str | None = None


class Service:
    """Predictions of requests within limits: threads that decode, and one per model that predicts.

    No keys: none are needed. No hosts: requests may name any.
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
        self.models: dict[str, ServedModel] = {}
        for name, path in paths.items():
            predictor = load(
                path,
                threshold=settings.threshold,
                device=settings.device,
                batch_size=settings.batch_size,
            )
            predictor(np.zeros((8, 8, 3), np.uint8))  # the first request is as fast as the others
            self.models[name] = ServedModel(predictor, files_digest(path)[:12])
        self.metrics = Metrics(self.models, settings.queue)
        self._batchers = {name: self._batcher(name, model) for name, model in self.models.items()}
        self._decoders = ThreadPoolExecutor(settings.workers or core_count())
        self._threads = ThreadPoolExecutor(4)
        self._images = 0
        self._bytes = 0

    def _batcher(self, name: str, model: ServedModel) -> Batcher[tuple[Canvas, bool], Prediction]:
        def predict(batch: list[tuple[Canvas, bool]]) -> Sequence[Prediction]:
            maps = any(wanted for _, wanted in batch)
            return model.predictor.predict_decoded([canvas for canvas, _ in batch], maps=maps)

        return Batcher(
            predict,
            size=self.settings.batch_size,
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
        """Refuse requests that name another host or come from its pages (403), or lack a key (401).

        Another name may be a rebound DNS name, by which a page reaches a server without keys.
        """
        if self.hosts is not None:
            hosts = request.headers.getlist("host")
            if len(hosts) != 1 or not self.hosts.allows(hosts[0]):
                raise forbidden("this host is not served here; use the address that was printed")
            origin = request.headers.get("origin", "")
            if origin and not self.hosts.allows_origin(origin, hosts[0]):
                raise forbidden("the request comes from another page")
        if key and self.keys is not None and not self.keys.allow(request.headers):
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
        message = "the server is busy; try again in 1 second"
        return RefusedError(429, message, {"retry-after": "1"})

    def wish_of(self, query: list[tuple[str, str]]) -> Wish:
        """What a query asks for; an invalid one is refused (400, 404, 422)."""
        given: dict[str, str] = {}
        for key, value in query:
            if key not in Wish._fields:
                raise malformed(f"a parameter is unknown; known are {', '.join(Wish._fields)}")
            if key in given:
                raise malformed(f"{key} is there twice")
            if len(value) > _LONGEST:
                raise malformed(f"{key} has more than {_LONGEST} characters")
            given[key] = value
        name = given.get("model", next(iter(self.models)))
        if name not in self.models:
            raise unknown(f"there is no such model; known are {', '.join(self.models)}")
        forms: tuple[MapForm, ...] = get_args(MapForm)
        form = next((each for each in forms if each == given.get("map", "none")), None)
        if form is None:
            raise malformed(f"map: one of {', '.join(forms)} is needed")
        wish = Wish(name, form, given.get("threshold", self.settings.threshold))
        self.models[name].threshold(wish.threshold)
        return wish

    async def predict(self, wish: Wish, content_type: str, body: bytes) -> Reply:
        """Answer to a request; RefusedError if it is not carried out."""
        settings, run = self.settings, asyncio.get_running_loop().run_in_executor
        try:
            async with asyncio.timeout(settings.timeout):
                uploads = await run(self._threads, self._uploads, content_type, body)
                with self._room(len(uploads)):
                    calls = [self._predict_one(wish, upload) for upload in uploads]
                    results = await _all_or_none(calls)
                    return await run(self._threads, self._answer, wish, uploads, results)
        except TimeoutError as error:
            raise RefusedError(
                504, f"the prediction took longer than {settings.timeout:g} seconds"
            ) from error

    def _uploads(self, content_type: str, body: bytes) -> list[Upload]:
        uploads = uploads_of(content_type, body, self.settings.images_per_request)
        check_sizes(uploads, self.settings.pixels)
        return uploads

    async def _predict_one(self, wish: Wish, upload: Upload) -> Prediction:
        form = self.models[wish.model].info.image_format
        loop = asyncio.get_running_loop()
        canvas = await loop.run_in_executor(self._decoders, decode_upload, upload, form)
        return await self._batchers[wish.model]((canvas, wish.map != "none"))

    def _answer(
        self, wish: Wish, uploads: Sequence[Upload], predictions: Sequence[Prediction]
    ) -> Reply:
        model = self.models[wish.model]
        threshold = model.threshold(wish.threshold)
        pairs = zip(uploads, predictions, strict=True)
        answers = [answer_of(upload.name, each, threshold, wish.map) for upload, each in pairs]
        given = {"model": wish.model, "revision": model.revision, "threshold": threshold}
        return told(given | {"predictions": answers})

    def model_answers(self) -> list[dict[str, Any]]:
        """Served models; the first one answers requests that name none."""
        return [
            {
                "name": name,
                "revision": model.revision,
                "backbone": model.info.backbone,
                "classes": model.info.classes,
                "positive": model.info.positive,
                "threshold": model.threshold(self.settings.threshold),
                "thresholds": dict(model.info.thresholds),
                "maps": model.info.map_kind,
                "input_size": model.info.image_format.size,
                "batch_size": self.settings.batch_size,
                "version": model.info.version,
            }
            for name, model in self.models.items()
        ]


async def _all_or_none(calls: Sequence[Awaitable[Prediction]]) -> list[Prediction]:
    """Results of concurrent calls; after a failure or a cancellation the others are cancelled."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()


def application(service: Service) -> ASGIApp:
    """ASGI application of a service: routes and refusals."""
    document = Path(__file__).with_name("openapi.json").read_bytes()

    async def predict(request: Request) -> Reply:
        if service.stopping:
            raise RefusedError(503, "the server is stopping; try again on another one")
        wish = service.wish_of(request.query_params.multi_items())
        with service.body_room() as take:
            body = await read_body(request, service.settings.body, take=take)
            kind = request.headers.get("content-type", "")
            work = asyncio.ensure_future(service.predict(wish, kind, body))
            gone = asyncio.ensure_future(_gone(request))
            try:
                await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
                if not work.done():
                    raise ClientDisconnect
                return work.result()
            finally:
                for task in (work, gone):
                    task.cancel()

    async def models(_: Request) -> Reply:
        return told({"models": service.model_answers()})

    async def metrics(_: Request) -> Reply:
        kind = "text/plain; version=0.0.4; charset=utf-8"
        return Reply(service.metrics.text(), kind, headers={"cache-control": "no-store"})

    async def health(_: Request) -> Reply:
        return told({"status": "ok", "version": __version__})

    async def readiness(_: Request) -> Reply:
        status = "stopping" if service.stopping else "ready"
        answer = {"status": status, "models": list(service.models)}
        return told(answer, 503 if service.stopping else 200)

    async def openapi(_: Request) -> Reply:
        return Reply(document, headers={"cache-control": "no-cache"})

    def wrapped(
        path: str, handler: Callable[[Request], Awaitable[Reply]], key: bool
    ) -> Callable[[Request], Awaitable[Response]]:
        async def route(request: Request) -> Response:
            started = time.monotonic()
            try:
                if path not in ("/healthz", "/readyz"):
                    service.check_access(request, key=key)
                reply = await handler(request)
            except RefusedError as error:
                reply = refused(error.status, str(error), error.headers)
            except ClientDisconnect:
                reply = refused(400, "the connection was closed")
            except Exception:
                logging.getLogger("preceptor.serve").exception("an answer failed")
                reply = refused(500, "something went wrong; the log of the server says what")
            service.metrics.requests.labels(path, reply.status).inc()
            if handler is predict:
                service.metrics.seconds.observe(time.monotonic() - started)
            response = response_of(reply)
            if service.stopping:
                response.headers["connection"] = "close"
            return response

        return route

    ways: list[tuple[str, str, Callable[[Request], Awaitable[Reply]], bool]] = [
        ("POST", "/predict", predict, True),
        ("GET", "/models", models, True),
        ("GET", "/metrics", metrics, True),
        ("GET", "/healthz", health, False),
        ("GET", "/readyz", readiness, False),
        ("GET", "/openapi.json", openapi, False),
    ]
    routes = [Route(path, wrapped(path, call, key), methods=[way]) for way, path, call, key in ways]
    app = Starlette(routes=routes, exception_handlers={HTTPException: http_error})
    app.router.redirect_slashes = False
    return with_headers(app)


async def _gone(request: Request) -> None:
    """Return when the client has closed the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
