"""Image files of all kinds that users have, good and bad."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class ImageFiles:
    """Files of a folder."""

    good: list[Path]
    bad: dict[Path, str]


def write_image_files(folder: Path) -> ImageFiles:
    """Write one file of each kind; the names are sorted, good and bad ones in turn."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    color = Image.fromarray(generator.integers(0, 256, (48, 80, 3), dtype=np.uint8))
    good: list[Path] = []
    bad: dict[Path, str] = {}

    def add(name: str) -> Path:
        good.append(folder / name)
        return folder / name

    def add_bad(name: str, reason: str) -> Path:
        bad[folder / name] = reason
        return folder / name

    color.save(add("a color.jpg"), quality=95)
    color.save(add("b color.png"))
    whole = good[1].read_bytes()
    add_bad("c text.png", "not an image").write_text("an image was to be here")
    add_bad("d truncated.png", "truncated").write_bytes(whole[: len(whole) // 2])
    jpeg = good[0].read_bytes()
    add_bad("e truncated.jpg", "truncated").write_bytes(jpeg[: len(jpeg) // 2])
    color.resize((1, 1)).save(add("f one pixel.png"))
    add_bad("g empty.png", "empty").write_bytes(b"")
    deep = generator.integers(0, 65536, (40, 40), dtype=np.uint16)
    Image.fromarray(deep).save(add("h 16 bits.png"))
    color.convert("CMYK").save(add("i cmyk.jpg"))
    alpha = color.convert("RGBA")
    alpha.putalpha(Image.fromarray(generator.integers(0, 256, (48, 80), dtype=np.uint8)))
    alpha.save(add("j alpha.png"))
    frames = [color.rotate(angle).convert("P") for angle in (0, 90, 180)]
    frames[0].save(add("k animated.gif"), save_all=True, append_images=frames[1:])
    add_bad("l huge.png", "too large to decode safely").write_bytes(_huge_png(30_000))
    Image.fromarray(np.full((20, 20), 70_000, np.int32)).save(
        add_bad("m 32 bits.tif", "no known scale")
    )
    exif = Image.Exif()
    exif[0x0112] = 6
    color.save(add("n turned.jpg"), exif=exif, quality=95)
    return ImageFiles(good, bad)


def _huge_png(side: int) -> bytes:
    """Valid black PNG with one bit per pixel."""
    packer = zlib.compressobj(1)
    row = bytes(1 + (side + 7) // 8)
    data = b"".join(packer.compress(row * 100) for _ in range(side // 100)) + packer.flush()

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + chunk(b"IDAT", data) + chunk(b"IEND", b"")
