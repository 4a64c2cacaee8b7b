"""Metrics in the text format of Prometheus, version 0.0.4.

Three kinds of metrics and one page of text need no library: a test reads the text with the parser
of `prometheus_client`.
"""

from __future__ import annotations

import math
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds of the buckets of durations."""
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Upper bounds of the buckets of batch sizes."""

Labels = tuple[str, ...]


class Counter:
    """Number of events by labels.

    Args:
        name: Name, which ends with `_total`.
        help: Meaning, in one line.
        labels: Names of the labels.
    """

    kind = "counter"

    def __init__(self, name: str, help: str, labels: Labels = ()) -> None:  # noqa: A002
        self.name, self.help, self._labels = name, help, labels
        self._values: dict[Labels, float] = {} if labels else {(): 0}
        self._lock = threading.Lock()

    def add(self, *values: str, by: float = 1) -> None:
        """Count events.

        Args:
            values: Values of the labels.
            by: Number of events.
        """
        with self._lock:
            self._values[values] = self._values.get(values, 0) + by

    def lines(self) -> Iterator[str]:
        """Samples."""
        with self._lock:
            values = dict(self._values)
        for labels, value in values.items():
            yield _sample(self.name, zip(self._labels, labels, strict=True), value)


class Gauge:
    """Value that is read when the metrics are.

    Args:
        name: Name.
        help: Meaning, in one line.
        labels: Names of the labels.
        read: Function that returns the values by the values of the labels.
    """

    kind = "gauge"

    def __init__(
        self,
        name: str,
        help: str,  # noqa: A002
        labels: Labels,
        read: Callable[[], dict[Labels, float]],
    ) -> None:
        self.name, self.help, self._labels, self._read = name, help, labels, read

    def lines(self) -> Iterator[str]:
        """Samples."""
        for labels, value in self._read().items():
            yield _sample(self.name, zip(self._labels, labels, strict=True), value)


class Histogram:
    """Distribution of a value by labels.

    Args:
        name: Name.
        help: Meaning, in one line.
        bounds: Upper bounds of the buckets, increasing.
        labels: Names of the labels.
    """

    kind = "histogram"

    def __init__(
        self,
        name: str,
        help: str,  # noqa: A002
        bounds: Sequence[float],
        labels: Labels = (),
    ) -> None:
        self.name, self.help, self._bounds, self._labels = name, help, tuple(bounds), labels
        self._counts: dict[Labels, list[int]] = {}
        self._sums: dict[Labels, float] = {}
        self._lock = threading.Lock()

    def observe(self, value: float, *labels: str) -> None:
        """Add a value.

        Args:
            value: Value.
            labels: Values of the labels.
        """
        with self._lock:
            counts = self._counts.setdefault(labels, [0] * (len(self._bounds) + 1))
            counts[bisect_left(self._bounds, value)] += 1
            self._sums[labels] = self._sums.get(labels, 0.0) + value

    def lines(self) -> Iterator[str]:
        """Samples."""
        with self._lock:
            counts = {labels: list(one) for labels, one in self._counts.items()}
            sums = dict(self._sums)
        for labels, each in counts.items():
            pairs, total = list(zip(self._labels, labels, strict=True)), 0
            for bound, count in zip((*self._bounds, math.inf), each, strict=True):
                total += count
                yield _sample(f"{self.name}_bucket", [*pairs, ("le", _number(bound))], total)
            yield _sample(f"{self.name}_sum", pairs, sums[labels])
            yield _sample(f"{self.name}_count", pairs, total)


def text_of(metrics: Iterable[Counter | Gauge | Histogram]) -> str:
    """Text of metrics.

    Example:
        >>> counter = Counter("cups_total", "Cups of tea.", ("kind",))
        >>> counter.add("green")
        >>> print(text_of([counter]), end="")
        # HELP cups_total Cups of tea.
        # TYPE cups_total counter
        cups_total{kind="green"} 1
    """
    lines = []
    for metric in metrics:
        meaning = metric.help.replace("\\", r"\\").replace("\n", r"\n")
        lines += [f"# HELP {metric.name} {meaning}", f"# TYPE {metric.name} {metric.kind}"]
        lines += metric.lines()
    return "".join(f"{line}\n" for line in lines)


def _sample(name: str, labels: Iterable[tuple[str, str]], value: float) -> str:
    shown = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels)
    return f"{name}{{{shown}}} {_number(value)}" if shown else f"{name} {_number(value)}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    """Number in the format of Go's ParseFloat."""
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if math.isnan(value):
        return "NaN"
    return str(int(value)) if value == int(value) and abs(value) < 2**53 else repr(float(value))
