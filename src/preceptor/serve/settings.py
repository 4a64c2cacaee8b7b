"""Limits and settings of a server."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ServeSettings:
    """Settings of a server.

    Args:
        threshold: Threshold of the decision if a request has none, see `find_threshold`.
        device: auto, cpu, cuda or cuda:N.
        batch_size: Largest number of images per pass; None = chosen by a short probe.
        delay: Longest time in seconds that an image waits for others to fill a batch.
        queue: Largest number of images that are being answered; further ones are refused.
        timeout: Longest time in seconds from the body of a request to its answer.
        workers: Number of threads that decode; None = one per core.
        body: Largest body in bytes.
        pixels: Largest number of pixels per image.
        images: Largest number of images per request.
    """

    threshold: str | None = None
    device: str = "auto"
    batch_size: int | None = None
    delay: float = 0.005
    queue: int = 256
    timeout: float = 30.0
    workers: int | None = None
    body: int = 32 * 2**20
    pixels: int = 50_000_000
    images: int = 32

    @property
    def images_per_request(self) -> int:
        """Largest number of images of a request that can be answered."""
        return min(self.images, self.queue)

    @property
    def bodies(self) -> int:
        """Largest size in bytes of all bodies that are being read or answered."""
        return 8 * self.body
