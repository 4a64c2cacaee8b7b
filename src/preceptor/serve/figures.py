"""What a server counts and measures."""

from __future__ import annotations

import os
import time
from pathlib import Path

from preceptor.serve.metrics import SECONDS, SIZES, Counter, Gauge, Histogram, Labels, text_of
from preceptor.serve.served_model import LoadedModel
from preceptor.version import __version__

_MEMORY = Path("/proc/self/statm")
# Weight of the last batch in the moving average of the speed.
_WEIGHT = 0.2


class Figures:
    """Metrics of a server."""

    def __init__(self) -> None:
        self.requests = Counter(
            "preceptor_requests_total", "Answered requests.", ("path", "status")
        )
        self.seconds = Histogram(
            "preceptor_predict_seconds",
            "Time from the head of a request of predictions to its answer.",
            SECONDS,
        )
        self.images = Counter("preceptor_images_total", "Predicted images.", ("model",))
        self.batch_sizes = Histogram(
            "preceptor_batch_size", "Images per pass of the network.", SIZES, ("model",)
        )
        self.batch_seconds = Histogram(
            "preceptor_batch_seconds", "Time of a pass of the network.", SECONDS, ("model",)
        )
        self._seconds_per_image = 0.0
        self._started = time.time()

    def batch(self, model: str, size: int, seconds: float) -> None:
        """Take note of a pass of the network."""
        self.images.add(model, by=size)
        self.batch_sizes.observe(size, model)
        self.batch_seconds.observe(seconds, model)
        last, mean = seconds / size, self._seconds_per_image
        self._seconds_per_image = last if not mean else mean + _WEIGHT * (last - mean)

    def wait_for(self, images: int) -> int:
        """Estimated whole seconds until so many images are predicted, from 1 to 60."""
        return min(60, max(1, round(images * self._seconds_per_image)))

    def text(self, *, in_flight: int, limit: int, models: dict[str, LoadedModel]) -> str:
        """Text of all metrics.

        Args:
            in_flight: Number of images that are being answered.
            limit: Largest possible number.
            models: Served models.
        """
        infos: dict[Labels, float] = {
            (name, one.predictor.info.backbone, one.revision): 1 for name, one in models.items()
        }
        return text_of(
            [
                self.requests,
                self.seconds,
                self.images,
                self.batch_sizes,
                self.batch_seconds,
                _gauge("preceptor_images_in_flight", "Images that are being answered.", in_flight),
                _gauge("preceptor_images_limit", "Largest number of images in flight.", limit),
                Gauge(
                    "preceptor_model_info",
                    "Served models.",
                    ("model", "backbone", "revision"),
                    lambda: infos,
                ),
                Gauge(
                    "preceptor_build_info",
                    "Version of the library.",
                    ("version",),
                    lambda: {(__version__,): 1},
                ),
                _gauge(
                    "process_start_time_seconds", "Start of the process since 1970.", self._started
                ),
                Gauge("process_resident_memory_bytes", "Memory of the process.", (), _memory),
            ]
        )


def _gauge(name: str, meaning: str, value: float) -> Gauge:
    return Gauge(name, meaning, (), lambda: {(): value})


def _memory() -> dict[Labels, float]:
    """Resident memory in bytes, where the system tells it."""
    try:
        pages = int(_MEMORY.read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return {}
    return {(): pages * os.sysconf("SC_PAGE_SIZE")}
