"""Server of a trained model: keys, batches of concurrent requests, limits, metrics, routes."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, NamedTuple, TypeVar, get_args

import numpy as np
from PIL import Image
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from preceptor.config.settings import ImageFormat
from preceptor.data.images import decoding_reason, pixel_formats
from preceptor.deploy.http import (
    ApiKeys,
    Hosts,
    RefusedError,
    Reply,
    forbidden,
    malformed,
    refused,
    told,
)
from preceptor.deploy.http_server import http_error, read_body, response_of, with_headers
from preceptor.deploy.prediction import Prediction, decide, find_threshold
from preceptor.deploy.predictor import (
    BATCH_SIZE,
    BadImage,
    Canvas,
    canvas_of,
    files_digest,
    load,
)
from preceptor.errors import InputError, one_line
from preceptor.utils.process import DECODING, core_count
from preceptor.version import __version__

Item = TypeVar("Item")
Result = TypeVar("Result")

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_LONGEST = 60  # value of a parameter
_DIGITS = 6  # of the values of a map
_LONGEST_SIDE = 65_535  # resampling needs memory for each row and column of an image

MapForm = Literal["none", "grid", "png"]


@dataclass(frozen=True)
class ServeSettings:
    """Settings of a server."""

    threshold: str | None = None  # if a request has none, see `find_threshold`
    device: str = "auto"  # auto, cpu, cuda or cuda:N
    batch_size: int = BATCH_SIZE
    delay: float = 0.005  # longest time in seconds that an image waits for others to fill a batch
    queue: int = 256  # largest number of images that are being answered; further ones are refused
    timeout: float = 30.0  # longest time in seconds from the body of a request to its answer
    body: int = 32 * 2**20  # largest body in bytes
    pixels: int = 50_000_000  # largest number of pixels of an image

    @property
    def bodies(self) -> int:
        """Largest size in bytes of all bodies that are being read or answered."""
        return 8 * self.body


def decode_body(body: bytes, form: ImageFormat, pixels: int) -> Canvas:
    """Image file of a request on the canvas of a model; one that cannot be decoded is refused.

    All threads together decode a limited number of pixels.
    """
    if not body:
        raise RefusedError(422, "the body is empty; send an image file")
    try:  # the header alone
        image = Image.open(io.BytesIO(body), formats=pixel_formats())
    except Exception as error:  # Pillow's plugins raise many types of exceptions on corrupt files
        raise RefusedError(422, one_line(decoding_reason(error))) from error
    with image:
        size = f"{image.width:,} × {image.height:,} pixels"
        if image.width * image.height > pixels:
            raise RefusedError(422, f"{size}; at most {pixels:,} are decoded")
        if max(image.size) > _LONGEST_SIDE:
            raise RefusedError(422, f"{size}; a side has at most {_LONGEST_SIDE:,}")
        with DECODING.reserve(image.width * image.height):
            # Not the body: a file can be of two formats, and that of another one has another size.
            canvas = canvas_of(image, form)
    if isinstance(canvas, BadImage):
        raise RefusedError(422, canvas.reason)
    return canvas


def map_answer(prediction: Prediction, form: MapForm) -> dict[str, Any] | None:
    """Map of an answer in a form."""
    if form == "none":
        return None
    answer = {"of": prediction.map_class, "form": form, "values": None, "png": None}
    if form == "grid":
        return answer | {"values": np.round(prediction.map.astype(np.float64), _DIGITS).tolist()}
    file = io.BytesIO()
    levels = np.rint(prediction.map_at_image() * np.float32(255)).astype(np.uint8)
    Image.fromarray(levels).save(file, "PNG", compress_level=1)
    return answer | {"png": base64.b64encode(file.getvalue()).decode("ascii")}


class _Job(NamedTuple, Generic[Item, Result]):
    item: Item
    since: float
    future: asyncio.Future[Result]


class Batcher(Generic[Item, Result]):
    """Predicts waiting images of concurrent requests in a thread, batch by batch.

    A batch is complete when it has `size` images, or when its first image has waited for `delay`
    seconds. `done` is told the images and the seconds.
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


class Metrics:
    """What a server counts and measures."""

    def __init__(self, backbone: str, revision: str, limit: int) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        given: dict[str, Any] = {"registry": self._registry, "namespace": "preceptor"}
        self.requests = Counter("requests", "Answered requests.", ["path", "status"], **given)
        self.in_flight = Gauge("images_in_flight", "Images that are being answered.", **given)
        self._images = Counter("images", "Predicted images.", **given)
        self._batch_sizes = Histogram(
            "batch_size", "Images per pass of the network.", buckets=_SIZES, **given
        )
        seconds: dict[str, Any] = given | {"buckets": _SECONDS}
        self.seconds = Histogram("predict_seconds", "Time of a request of predictions.", **seconds)
        self._batch_seconds = Histogram("batch_seconds", "Time of a pass.", **seconds)
        Gauge("images_limit", "Largest number of images in flight.", **given).set(limit)
        info = Gauge("model_info", "Served model.", ["version", "backbone", "revision"], **given)
        info.labels(__version__, backbone, revision).set(1)

    def batch(self, size: int, seconds: float) -> None:
        """Take note of a pass of the network."""
        self._images.inc(size)
        self._batch_sizes.observe(size)
        self._batch_seconds.observe(seconds)

    def text(self) -> bytes:
        """Text of all metrics."""
        return generate_latest(self._registry)


class Wish(NamedTuple):
    """What a request asks for."""

    map: MapForm = "none"
    threshold: str | None = None


class Service:
    """Predictions of requests within limits: threads that decode, and one that predicts.

    No keys: none are needed. No hosts: requests may name any.
    """

    def __init__(
        self,
        folder: Path,
        settings: ServeSettings,
        keys: ApiKeys | None = None,
        hosts: Hosts | None = None,
    ) -> None:
        self.settings, self.keys, self.hosts = settings, keys, hosts
        self.stopping = False
        self.predictor = load(
            folder,
            threshold=settings.threshold,
            device=settings.device,
            batch_size=settings.batch_size,
        )
        self.predictor(np.zeros((8, 8, 3), np.uint8))  # the first request is as fast as the others
        self.revision = files_digest(folder)[:12]
        self.metrics = Metrics(self.predictor.info.backbone, self.revision, settings.queue)
        self.batcher = Batcher(
            self._pass, size=settings.batch_size, delay=settings.delay, done=self.metrics.batch
        )
        self._decoders = ThreadPoolExecutor(core_count())
        self._images = 0
        self._bytes = 0

    def _pass(self, batch: list[tuple[Canvas, bool]]) -> Sequence[Prediction]:
        maps = any(wanted for _, wanted in batch)
        return self.predictor.predict_decoded([canvas for canvas, _ in batch], maps=maps)

    def stop(self) -> None:
        """Take no further requests."""
        self.stopping = True

    def close(self) -> None:
        """Answer what waits, and end the threads."""
        self._decoders.shutdown(cancel_futures=True)
        self.batcher.close()

    def check_access(self, request: Request, *, key: bool) -> None:
        """Refuse requests of another host or from its pages (403), or without a key (401)."""
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
    def _room(self) -> Iterator[None]:
        """Context in which an image is in flight."""
        if self._images >= self.settings.queue:
            raise self._busy()
        self._images += 1
        self.metrics.in_flight.set(self._images)
        try:
            yield
        finally:
            self._images -= 1
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
        forms: tuple[MapForm, ...] = get_args(MapForm)
        form = next((each for each in forms if each == given.get("map", "none")), None)
        if form is None:
            raise malformed(f"map: one of {', '.join(forms)} is needed")
        wish = Wish(form, given.get("threshold", self.settings.threshold))
        self.threshold(wish.threshold)
        return wish

    def threshold(self, wanted: str | None) -> float | None:
        """Threshold of a rule or a number; RefusedError (422) if the model has none."""
        try:
            return find_threshold(wanted, self.predictor.info)
        except InputError as error:
            raise RefusedError(422, str(error)) from error

    async def predict(self, wish: Wish, body: bytes) -> Reply:
        """Answer to a request; RefusedError if it is not carried out."""
        settings, form = self.settings, self.predictor.info.image_format
        run = asyncio.get_running_loop().run_in_executor
        try:
            async with asyncio.timeout(settings.timeout):
                with self._room():
                    given = body, form, settings.pixels
                    canvas = await run(self._decoders, decode_body, *given)
                    prediction = await self.batcher((canvas, wish.map != "none"))
                    return await run(self._decoders, self._answer, wish, prediction)
        except TimeoutError as error:
            raise RefusedError(
                504, f"the prediction took longer than {settings.timeout:g} seconds"
            ) from error

    def _answer(self, wish: Wish, prediction: Prediction) -> Reply:
        info, threshold = self.predictor.info, self.threshold(wish.threshold)
        (decision,) = decide(prediction.class_probabilities[None], info.positive_index, threshold)
        width, height = prediction.size
        answer = {
            "revision": self.revision,
            "threshold": threshold,
            "width": width,
            "height": height,
            "score": prediction.score,
            "decision": info.classes[decision],
            "probabilities": prediction.probabilities,
            "map": map_answer(prediction, wish.map),
        }
        return told(answer)

    def model_answer(self) -> dict[str, Any]:
        """Description of the served model."""
        info = self.predictor.info
        return {
            "revision": self.revision,
            "backbone": info.backbone,
            "classes": info.classes,
            "positive": info.positive,
            "threshold": self.threshold(self.settings.threshold),
            "thresholds": dict(info.thresholds),
            "maps": info.map_kind,
            "input_size": info.image_format.size,
            "batch_size": self.settings.batch_size,
            "version": info.version,
        }


def application(service: Service) -> ASGIApp:
    """ASGI application of a service: routes and refusals."""

    async def predict(request: Request) -> Reply:
        if service.stopping:
            raise RefusedError(503, "the server is stopping; try again on another one")
        wish = service.wish_of(request.query_params.multi_items())
        if request.headers.get("content-type", "").lower().startswith("multipart/"):
            raise RefusedError(415, "send the image file itself: curl --data-binary @image.png")
        with service.body_room() as take:
            body = await read_body(request, service.settings.body, take=take)
            work = asyncio.ensure_future(service.predict(wish, body))
            gone = asyncio.ensure_future(_gone(request))
            try:
                await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
                if not work.done():
                    raise ClientDisconnect
                return work.result()
            finally:
                for task in (work, gone):
                    task.cancel()

    async def model(_: Request) -> Reply:
        return told(service.model_answer())

    async def metrics(_: Request) -> Reply:
        kind = "text/plain; version=0.0.4; charset=utf-8"
        return Reply(service.metrics.text(), kind, headers={"cache-control": "no-store"})

    async def health(_: Request) -> Reply:
        return told({"status": "ok", "version": __version__})

    async def readiness(_: Request) -> Reply:
        status = "stopping" if service.stopping else "ready"
        return told({"status": status}, 503 if service.stopping else 200)

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
        ("GET", "/model", model, True),
        ("GET", "/metrics", metrics, True),
        ("GET", "/healthz", health, False),
        ("GET", "/readyz", readiness, False),
    ]
    routes = [Route(path, wrapped(path, call, key), methods=[way]) for way, path, call, key in ways]
    app = Starlette(routes=routes, exception_handlers={HTTPException: http_error})
    app.router.redirect_slashes = False
    return with_headers(app)


async def _gone(request: Request) -> None:
    """Return when the client has closed the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
