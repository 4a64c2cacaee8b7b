"""Content hashes by row, and the hash of all of them."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from numpy.typing import NDArray

from preceptor.data import file_contents
from preceptor.data.file_contents import FileContents, packed, written

IMAGES = [hashlib.blake2b(bytes([number]), digest_size=16).hexdigest() for number in range(7)]
MAPS = ["" if number % 3 else IMAGES[6 - number] for number in range(7)]


def slow_digest(images: list[str], maps: list[str]) -> str:
    rows = (f"{image}{mapped or '0' * 32}" for image, mapped in zip(images, maps, strict=True))
    return hashlib.blake2b(bytes.fromhex("".join(rows)), digest_size=16).hexdigest()


@pytest.mark.parametrize("part", [1, 3, 7, 100])
def test_the_hash_of_all_is_that_of_their_bytes(monkeypatch: pytest.MonkeyPatch, part: int) -> None:
    monkeypatch.setattr(file_contents, "_PART", part)
    found = FileContents.of(packed(IMAGES), packed(MAPS))
    assert found.digest == slow_digest(IMAGES, MAPS)
    assert (written(found.images), written(found.maps)) == (IMAGES, MAPS)


def test_selected_rows_have_the_hash_of_their_own() -> None:
    mask: NDArray[np.bool_] = np.arange(7) % 2 == 0
    found = FileContents.of(packed(IMAGES), packed(MAPS)).select(mask)
    assert len(found) == 4
    assert found.digest == slow_digest(IMAGES[::2], MAPS[::2])
