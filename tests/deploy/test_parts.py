"""Parts of the server: multipart bodies, keys, names."""

from __future__ import annotations

import asyncio
import io
import struct
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from preceptor.config.settings import ImageFormat
from preceptor.data.images import pixel_formats
from preceptor.deploy.api import Upload, check_sizes, decode_upload, uploads_of
from preceptor.deploy.http import ApiKeys, RefusedError
from preceptor.deploy.serve import Batcher, model_paths
from preceptor.errors import InputError
from tests.data.sound_manifest import dicom
from tests.deploy.serving import multipart


# Without backslashes: python-multipart reads a name that begins like a path of Windows as a path.
@given(st.lists(st.tuples(st.text("ab cé.", min_size=1), st.binary()), min_size=1, max_size=5))
def test_what_is_put_into_a_body_comes_out(files: list[tuple[str, bytes]]) -> None:
    body, headers = multipart(files)
    kind = headers["content-type"]
    assert uploads_of(kind, body, 5) == files
    with pytest.raises(RefusedError, match="more than"):
        uploads_of(kind, body, len(files) - 1)


@given(st.binary(max_size=200), st.integers(0, 300))
def test_a_body_that_is_cut_off_is_refused(content: bytes, cut: int) -> None:
    body, headers = multipart([("a", content), ("b", content)])
    end = len(body) - len(b"--\r\n")
    if cut < end:
        with pytest.raises(RefusedError) as caught:
            uploads_of(headers["content-type"], body[:cut], 9)
        assert caught.value.status == 400


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


def test_names_of_models(tmp_path: Path) -> None:
    (tmp_path / "a=b").mkdir()
    found = model_paths([str(tmp_path / "a=b"), "x=y=z", "/w/best/"])
    assert list(found) == ["a=b", "x", "best"]
    assert [str(path) for path in found.values()][1:] == ["y=z", "/w/best"]
    for texts in (["a/best", "b/best"], ["x=a", "x=b"], ["n" * 61 + "=a"], ["a\nb=c"], ["/"]):
        with pytest.raises(InputError):
            model_paths(texts)


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
    upload = Upload("a", content)
    check_sizes([upload], pixels=10_000)
    with pytest.raises(RefusedError, match="a: cannot be decoded"):
        decode_upload(upload, ImageFormat(16))


def test_a_sound_dicom_file_that_is_not_read_is_not_called_damaged(tmp_path: Path) -> None:
    file = dicom(tmp_path / "plan.dcm", np.zeros((2, 2), np.uint8))
    plan = pydicom.dcmread(file)
    del plan.PixelData
    plan.save_as(file)
    with pytest.raises(RefusedError, match=r"plan\.dcm: .*the DICOM file has no image"):
        decode_upload(Upload("plan.dcm", file.read_bytes()), ImageFormat(16))


def test_the_pixels_of_a_request_are_limited() -> None:
    def upload(width: int, height: int) -> Upload:
        file = io.BytesIO()
        Image.new("L", (width, height)).save(file, "PNG")
        return Upload("a", file.getvalue())

    check_sizes([upload(10, 10)] * 4, pixels=100)
    with pytest.raises(RefusedError, match="500 pixels; at most 400 are decoded") as told:
        check_sizes([upload(10, 10)] * 5, pixels=100)
    assert told.value.status == 413
    with pytest.raises(RefusedError, match="a: 11 × 10 pixels; at most 100 are decoded") as told:
        check_sizes([upload(11, 10)], pixels=100)
    assert told.value.status == 422


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
