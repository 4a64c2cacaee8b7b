"""Micro-batches: images of concurrent requests are predicted in one pass."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class Job(Generic[Item, Result]):
    """Image that waits for its prediction.

    Args:
        item: Decoded image.
        until: Time of `time.monotonic` after which the prediction is not needed any more.
        since: Time of `time.monotonic` of its arrival.
        future: Place of the prediction.
    """

    item: Item
    until: float
    since: float = field(default_factory=time.monotonic)
    future: Future[Result] = field(default_factory=Future)


class Batcher(Generic[Item, Result]):
    """Thread that predicts waiting images, batch by batch.

    A batch begins with the first image that waits. It is complete when it has `size` images, or
    when its first image has waited for `delay`. While a batch is computed the next one gathers, so
    that the delay matters only if the network is idle. Images whose request was cancelled or has
    run out of time are left out.

    Args:
        predict: Function that predicts images.
        size: Function that returns the largest number of images per batch.
        delay: Longest wait in seconds for further images.
        done: Function that is told the number of images and the seconds of each batch.
    """

    def __init__(
        self,
        predict: Callable[[list[Item]], Sequence[Result]],
        *,
        size: Callable[[], int],
        delay: float,
        done: Callable[[int, float], None] = lambda size, seconds: None,
    ) -> None:
        self._predict, self._size, self._delay, self._done = predict, size, delay, done
        self._jobs: deque[Job[Item, Result]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="serve-batches", daemon=True)
        self._thread.start()

    def submit(self, item: Item, *, until: float) -> Future[Result]:
        """Add an image.

        Args:
            item: Decoded image.
            until: Time of `time.monotonic` after which the prediction is not needed any more.

        Returns:
            Future of its prediction; `TimeoutError` if it was not begun in time.

        Raises:
            RuntimeError: The batcher is closed.
        """
        job: Job[Item, Result] = Job(item, until)
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
            current: list[Job[Item, Result]] = []
            for job in jobs:
                if not job.future.set_running_or_notify_cancel():
                    continue
                if job.until <= now:
                    job.future.set_exception(TimeoutError())
                else:
                    current.append(job)
            if current:
                self._answer(current)

    def _answer(self, jobs: list[Job[Item, Result]]) -> None:
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

    def _take(self) -> list[Job[Item, Result]]:
        """Next batch; [] when the batcher is closed and nothing waits."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._closed)
            size = self._size()
            full = self._jobs[0].since + self._delay if self._jobs else 0.0
            while len(self._jobs) < size and not self._closed:
                left = full - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            return [self._jobs.popleft() for _ in range(min(size, len(self._jobs)))]
