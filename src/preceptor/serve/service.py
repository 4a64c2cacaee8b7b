"""Service: admission of requests, their predictions, and the state of the server."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from preceptor.serve.answers import Wish, answer_of, check_wish, threshold_of
from preceptor.serve.api import (
    MAP_FORMS,
    ModelAnswer,
    ModelsAnswer,
    ReadyAnswer,
)
from preceptor.serve.engine import LocalEngine
from preceptor.serve.figures import Figures
from preceptor.serve.keys import ApiKeys
from preceptor.serve.settings import ServeSettings
from preceptor.serve.uploads import Upload, check_sizes, uploads_of
from preceptor.web.hosts import Hosts
from preceptor.web.refusal import RefusedError, forbidden, malformed, unknown

_PARAMETERS = ("model", "map", "threshold")
_LONGEST = 60


class BusyError(RefusedError):
    """Request for which there is no room (429).

    Args:
        message: Reason.
        retry_after: Seconds after which the client may try again.
    """

    def __init__(self, message: str, retry_after: int) -> None:
        self.retry_after = retry_after
        super().__init__(429, message)

    def __reduce__(self) -> tuple[type[BusyError], tuple[str, int]]:  # type: ignore[override]
        return type(self), (str(self), self.retry_after)


@dataclass
class Service:
    """State of a server.

    Args:
        engine: Predictions.
        settings: Settings.
        figures: Metrics.
        keys_file: File with the API keys; None = none are needed.
        hosts: Hosts that requests may name; None = any.
    """

    engine: LocalEngine
    settings: ServeSettings
    figures: Figures = field(default_factory=Figures)
    keys_file: Path | None = None
    hosts: Hosts | None = None
    stopping: bool = False

    def __post_init__(self) -> None:
        self.keys = None if self.keys_file is None else ApiKeys.read(self.keys_file)
        self._images = 0
        self._bytes = 0
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="serve-answers")

    def stop(self) -> None:
        """Take no further requests."""
        self.stopping = True

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(cancel_futures=True)

    # ---------------------------------------------------------------- admission

    def check_key(self, headers: Mapping[str, str]) -> None:
        """Check the API key of a request.

        Raises:
            RefusedError: Keys are needed, and it has none of them (401).
        """
        if self.keys is None:
            return
        if not self.keys.allow(headers):
            raise RefusedError(401, "an API key is needed, as Authorization: Bearer KEY")

    def check_host(self, hosts: list[str], headers: Mapping[str, str]) -> None:
        """Check that a request to a server without keys comes from no other site.

        Raises:
            RefusedError: The Host header is missing or names another host, or a page of another
                site has sent the request (403).
        """
        if self.hosts is None:
            return
        if len(hosts) != 1 or not self.hosts.allows(hosts[0]):
            raise RefusedError(
                403, "this host is not served here; use the address that was printed"
            )
        origin = headers.get("origin", "")
        if origin and not self.hosts.allows_origin(origin, hosts[0]):
            raise forbidden("the request comes from another page")

    @contextlib.contextmanager
    def body_room(self) -> Iterator[BodyRoom]:
        """Context in which the bytes of a body are counted."""
        room = BodyRoom(self)
        try:
            yield room
        finally:
            self._bytes -= room.size

    def take_bytes(self, count: int) -> None:
        """Count bytes of a body.

        Raises:
            BusyError: All bodies together are too large.
        """
        if self._bytes + count > self.settings.bodies:
            raise self._busy()
        self._bytes += count

    @contextlib.contextmanager
    def _room(self, count: int) -> Iterator[None]:
        """Context in which images are in flight.

        Raises:
            BusyError: There are too many already.
        """
        if self._images + count > self.settings.queue:
            raise self._busy()
        self._images += count
        try:
            yield
        finally:
            self._images -= count

    def _busy(self) -> BusyError:
        seconds = self.figures.wait_for(max(1, self._images))
        return BusyError(
            f"the server is busy; try again in {seconds} second{'s' if seconds > 1 else ''}",
            seconds,
        )

    # ---------------------------------------------------------------- predictions

    def wish_of(self, query: list[tuple[str, str]]) -> Wish:
        """What the query of a request asks for.

        Raises:
            RefusedError: A parameter is unknown, there twice or invalid (400), or there is no such
                model (404).
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
        model = given.get("model", self.engine.names[0])
        if model not in self.engine.names:
            raise unknown(f"there is no such model; known are {', '.join(self.engine.names)}")
        form = next((one for one in MAP_FORMS if one == given.get("map", "none")), None)
        if form is None:
            raise malformed(f"map: one of {', '.join(MAP_FORMS)} is needed")
        return Wish(model, form, given.get("threshold", self.settings.threshold))

    async def predict(self, wish: Wish, content_type: str, body: bytes) -> bytes:
        """Answer of a request.

        Args:
            wish: What it asks for.
            content_type: Header Content-Type.
            body: Body.

        Returns:
            JSON.

        Raises:
            RefusedError: The request is not carried out.
        """
        loop, settings = asyncio.get_running_loop(), self.settings
        until = time.monotonic() + settings.timeout
        try:
            async with asyncio.timeout(settings.timeout):
                model = self.engine.models[wish.model]
                check_wish(wish, model.predictor.info)
                uploads = await loop.run_in_executor(
                    self._threads, self._uploads, content_type, body
                )
                with self._room(len(uploads)):
                    answers = await self.engine.predict(
                        wish.model, uploads, maps=wish.map != "none", until=until
                    )
                    return await loop.run_in_executor(
                        self._threads, answer_of, wish, model.revision, uploads, answers
                    )
        except TimeoutError as error:
            raise RefusedError(
                504, f"the prediction took longer than {settings.timeout:g} seconds"
            ) from error

    def _uploads(self, content_type: str, body: bytes) -> list[Upload]:
        found = uploads_of(content_type, body, self.settings.images_per_request)
        check_sizes(found, self.settings.pixels)
        return found

    # ---------------------------------------------------------------- state

    def models(self) -> ModelsAnswer:
        """Served models."""
        return ModelsAnswer(
            models=[
                ModelAnswer(
                    name=name,
                    revision=one.revision,
                    backbone=info.backbone,
                    classes=list(info.classes),
                    positive=info.positive,
                    threshold=threshold_of(self.settings.threshold, info),
                    thresholds=dict(info.thresholds),
                    maps=info.map_kind,
                    input_size=info.image_format.size,
                    batch_size=one.batch_size,
                    version=info.version,
                )
                for name, one in self.engine.models.items()
                for info in [one.predictor.info]
            ]
        )

    def readiness(self) -> ReadyAnswer:
        """Whether requests are taken."""
        return ReadyAnswer(
            status="stopping" if self.stopping else "ready",
            models=self.engine.names,
        )

    def metrics(self) -> str:
        """Metrics in the text format of Prometheus."""
        return self.figures.text(
            in_flight=self._images, limit=self.settings.queue, models=self.engine.models
        )


@dataclass
class BodyRoom:
    """Bytes of one body.

    Args:
        service: Service.
        size: Number of bytes so far.
    """

    service: Service
    size: int = 0

    def take(self, count: int) -> None:
        """Count bytes; see `Service.take_bytes`."""
        self.service.take_bytes(count)
        self.size += count
