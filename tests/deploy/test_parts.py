"""Parts of the server: keys, bodies, batches."""

from __future__ import annotations

import asyncio
import io
import struct
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

from preceptor.config.settings import ImageFormat
from preceptor.data.images import pixel_formats
from preceptor.deploy.http import ApiKeys, RefusedError
from preceptor.deploy.serve import Batcher, decode_body
from preceptor.errors import InputError
from tests.data.sound_manifest import dicom


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "there are no keys"),
        (b"# only a remark\n\n", "there are no keys"),
        (b"0123456789abcdef\nshort\n", "line 2: a key has at least 16"),
        (b"0123456789abcdef with blanks\n", "line 1"),
        ("0123456789abcdé0".encode(), "line 1"),
        (b"\xff\xfe", "not text in UTF-8"),
    ],
)
def test_files_of_keys_that_are_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    file = tmp_path / "keys"
    file.write_bytes(content)
    with pytest.raises(InputError, match=reason):
        ApiKeys.read(file)


def test_keys_are_needed_whole() -> None:
    keys = ApiKeys(["0123456789abcdef", "another-key-0123"])
    assert keys.allow({"authorization": "Bearer 0123456789abcdef"})
    assert keys.allow({"authorization": "bearer  another-key-0123 "})
    assert keys.allow({"x-api-key": "another-key-0123"})
    for headers in (
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"x-api-key": ""},
        {"authorization": "Bearer 0123456789abcde"},
        {"x-api-key": "0123456789abcdef0"},
        {"authorization": "Basic 0123456789abcdef"},
        {"x-api-key": "\udcff"},
    ):
        assert not keys.allow(headers)


def test_formats_that_run_programs_are_not_decoded() -> None:
    assert {"PNG", "JPEG", "GIF", "BMP", "TIFF", "PPM"} <= set(pixel_formats())
    assert not {"EPS", "PDF", "WMF", "FITS", "HDF5"} & set(pixel_formats())


def test_a_file_of_two_formats_is_decoded_in_the_one_that_was_measured() -> None:
    # An icon (which is no format of this server) of 400 × 400 pixels. Its head is also that of a
    # TGA file of 32 × 256 pixels: the bits per pixel are the width, the number of bytes the rest.
    picture = io.BytesIO()
    Image.new("RGB", (400, 400)).save(picture, "PNG")
    size = 0x080100
    head = struct.pack("<3H4B2H2I", 0, 1, 1, 16, 16, 0, 0, 1, 32, size, 22)
    content = head + picture.getvalue().ljust(size, b"\0")
    with pytest.raises(RefusedError, match="cannot be decoded"):
        decode_body(content, ImageFormat(16), 10_000)


def test_a_sound_dicom_file_that_is_not_read_is_not_called_damaged(tmp_path: Path) -> None:
    file = dicom(tmp_path / "plan.dcm", np.zeros((2, 2), np.uint8))
    plan = pydicom.dcmread(file)
    del plan.PixelData
    plan.save_as(file)
    with pytest.raises(RefusedError, match="the DICOM file has no image"):
        decode_body(file.read_bytes(), ImageFormat(16), 100)


def test_a_failure_of_a_batch_is_that_of_its_images_alone() -> None:
    calls: list[int] = []

    def predict(batch: list[int]) -> list[int]:
        calls.append(len(batch))
        if len(calls) == 1:
            raise ValueError("the first one")
        return [-one for one in batch]

    async def ask() -> None:
        batcher = Batcher(predict, size=2, delay=0.01)
        first = await asyncio.gather(*map(batcher, range(2)), return_exceptions=True)
        assert [str(one) for one in first] == ["the first one"] * 2
        assert await asyncio.gather(*map(batcher, range(5))) == [0, -1, -2, -3, -4]
        batcher.close()

    asyncio.run(ask())
    assert calls == [2, 2, 2, 1]
