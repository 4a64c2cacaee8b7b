"""Process that decodes files for another one, which has started it.

    python -m preceptor.data.decode_worker          images; does not import torch
    python -m preceptor.data.decode_map_worker      images and maps

It reads a `CacheTarget`, or None, with Pillow's limit of pixels, and then parts of files from the
standard input, and writes what it found, or an exception, to the standard output, all of them
pickled. It ends when the other process closes the pipe, also if that is killed.
"""

from __future__ import annotations

import os
import pickle
import queue
import sys
import threading
from typing import BinaryIO

from PIL import Image

from preceptor.data.cache_writers import CacheTarget, CacheWriters, StoredMap
from preceptor.data.file_parts import FilePart, PartRead, read_part


def decode_part(part: FilePart, target: CacheTarget | None, stored: StoredMap | None) -> PartRead:
    """Read a part and write what a cache lacks into shards of its own.

    Args:
        part: Files.
        target: Cache; None = decode only.
        stored: Function that makes stored maps; None = no maps are written.

    Raises:
        OSError: The disk of the cache is full, or cannot be written.
    """
    if target is None:
        return read_part(part, None)
    images, maps = int(part.is_image.sum()), int(part.is_map.sum())
    writers = CacheWriters(target, [images] * len(target.formats) + [maps], stored)
    try:
        return read_part(part, writers)
    finally:
        writers.finish()


def _receive(source: BinaryIO, parts: queue.SimpleQueue[FilePart]) -> None:
    """Hand on what comes; end the process when the pipe is closed."""
    while True:
        try:
            parts.put(pickle.load(source))
        except (EOFError, OSError):
            os._exit(1)


def decode_parts(stored: StoredMap | None = None) -> None:
    """Decode parts until the pipe is closed.

    Args:
        stored: Function that makes stored maps; None = no maps are written.
    """
    source, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    target: CacheTarget | None
    target, Image.MAX_IMAGE_PIXELS = pickle.load(source)
    parts: queue.SimpleQueue[FilePart] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(source, parts), daemon=True).start()
    while True:
        answer: PartRead | Exception
        try:
            answer = decode_part(parts.get(), target, stored)
        except Exception as error:  # it is raised in the other process
            answer = error
        pickle.dump(answer, answers, pickle.HIGHEST_PROTOCOL)
        answers.flush()


if __name__ == "__main__":
    decode_parts()
