"""Locations as written in manifests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from preceptor.data.images import read_file
from preceptor.data.locations.location import (
    LocalFile,
    ParquetCell,
    RemoteFile,
    TarMember,
    parse,
)
from preceptor.errors import InputError, quoted, reason, without_secrets


@pytest.mark.parametrize(
    ("text", "location"),
    [
        ("/a/b.png", LocalFile("/a/b.png")),
        ("s3://b/c.png", RemoteFile("s3://b/c.png")),
        ("/a/b.tar::c.png", TarMember(LocalFile("/a/b.tar"), "c.png")),
        ("/a/b.TAR::c::d", TarMember(LocalFile("/a/b.TAR"), "c::d")),
        ("/a/b.tar/c.tar::d", TarMember(LocalFile("/a/b.tar/c.tar"), "d")),
        ("/a/b::c.tar::d", TarMember(LocalFile("/a/b::c.tar"), "d")),
        ("/a/b.parquet::c/1", ParquetCell(LocalFile("/a/b.parquet"), "c/1")),
        ("gs://a/b.tar::c.tar::d", TarMember(RemoteFile("gs://a/b.tar"), "c.tar::d")),
        ("/a/b.zip::c.png", LocalFile("/a/b.zip::c.png")),
        ("/a/b.tar::", LocalFile("/a/b.tar::")),
        ("/a/s3://b.png", LocalFile("/a/s3://b.png")),
    ],
)
def test_texts_are_parsed(text: str, location: object) -> None:
    assert parse(text, lambda path: True) == location


def test_a_local_file_may_be_named_like_a_member(tmp_path: Path) -> None:
    file = tmp_path / "a.tar::b.png"
    file.write_bytes(b"content")
    assert read_file(file) == read_file(str(file)) == b"content"
    (tmp_path / "s3:").mkdir()
    (tmp_path / "s3:" / "b.png").write_bytes(b"other")
    assert read_file(os.path.join(tmp_path, "s3://b.png")) == b"other"  # noqa: PTH118


def test_messages_have_no_credentials() -> None:
    text = "https://me:pass@host/a b.tar?X-Sig=se%2Fcret&x=1::c d.png: cannot be read; try again"
    assert without_secrets(text) == "https://host/a b.tar::c d.png: cannot be read; try again"
    assert without_secrets("'s3://b/c.png?sig=x': y") == "'s3://b/c.png': y"
    assert without_secrets("why? a=b") == "why? a=b"
    assert str(InputError("https://h/a?sig=1: bad")) == "https://h/a: bad"


def test_long_credentials_are_removed_before_a_message_is_shortened() -> None:
    secret = "s" * 1000
    assert reason(OSError(f"cannot reach https://me:{secret}@host/a")) == (
        "cannot reach https://host/a"
    )
    assert quoted(f"https://host/a?token={secret}&sig={secret}") == "'https://host/a'"
    assert reason(OSError(f"bucket {secret}"), known=[secret]) == "bucket …"
