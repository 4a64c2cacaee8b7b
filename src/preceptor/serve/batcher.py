"""Micro-batches: images of concurrent requests are predicted in one pass."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from preceptor.predictor.inputs import Canvases
from preceptor.predictor.prediction import Prediction


@dataclass(frozen=True, eq=False)
class Job:
    """Image that waits for its prediction.

    Args:
        canvases: Decoded image.
        maps: Whether its map is needed.
        until: Time of `time.monotonic` after which the prediction is not needed any more.
        future: Place of the prediction.
    """

    canvases: Canvases
    maps: bool
    until: float
    future: Future[Prediction] = field(default_factory=Future)


class Batcher:
    """Thread that predicts waiting images, batch by batch.

    A batch begins with the first image that waits. It is complete when it has `size` images, or
    when its first image has waited for `delay`. While a batch is computed the next one gathers, so
    that the delay matters only if the network is idle. Images whose request was cancelled or has
    run out of time are left out.

    Args:
        predict: Function that predicts images, with or without maps.
        size: Largest number of images per batch.
        delay: Longest wait in seconds for further images.
        done: Function that is told the number of images and the seconds of each batch.
    """

    def __init__(
        self,
        predict: Callable[[list[Canvases], bool], Sequence[Prediction]],
        *,
        size: int,
        delay: float,
        done: Callable[[int, float], None] = lambda size, seconds: None,
    ) -> None:
        self._predict, self._size, self._delay, self._done = predict, size, delay, done
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="serve-batches", daemon=True)
        self._thread.start()

    def submit(self, canvases: Canvases, *, maps: bool, until: float) -> Future[Prediction]:
        """Add an image.

        Returns:
            Future of its prediction; `TimeoutError` if it was not begun in time.

        Raises:
            RuntimeError: The batcher is closed.
        """
        job = Job(canvases, maps, until)
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
            current: list[Job] = []
            for job in jobs:
                if not job.future.set_running_or_notify_cancel():
                    continue
                if job.until <= now:
                    job.future.set_exception(TimeoutError())
                else:
                    current.append(job)
            if current:
                self._answer(current)
                self._done(len(current), time.monotonic() - now)

    def _answer(self, jobs: list[Job]) -> None:
        try:
            found = self._predict([job.canvases for job in jobs], any(job.maps for job in jobs))
            predictions = list(found)
        except Exception as error:  # of this batch alone; its requests report it
            for job in jobs:
                job.future.set_exception(error)
            return
        for job, prediction in zip(jobs, predictions, strict=True):
            job.future.set_result(prediction)

    def _take(self) -> list[Job]:
        """Next batch; [] when the batcher is closed and nothing waits."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._closed)
            full = time.monotonic() + self._delay
            while len(self._jobs) < self._size and not self._closed:
                left = full - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            return [self._jobs.popleft() for _ in range(min(self._size, len(self._jobs)))]
