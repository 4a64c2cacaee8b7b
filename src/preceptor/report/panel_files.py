"""The panels of a report as PNG files beside the page, with an index."""

from __future__ import annotations

import io
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
from PIL import Image, ImageDraw, ImageFont

from preceptor.report.panels import Panel, Panels
from preceptor.runtime.files import replacing
from preceptor.runtime.text import number

FOLDER = "panels"
INDEX = "index.csv"
SIDE = 240  # pixels of a tile's longer side
_GAP, _HEAD = 8, 22
_PAPER, _INK, _EMPTY = "white", "#222222", "#eeeeee"


@dataclass(frozen=True)
class PanelFile:
    """Panel as a PNG file; the fields are the columns of the index.

    Args:
        file: Path of the PNG file, relative to the study folder.
        domain: Domain of the study, or "".
        backbone, seed: Backbone and seed of the Student.
        image, label, source: Image, label and source as in the manifest.
        scored: Class of the score.
        score: The Student's score of that class.
        hit: Whether the Student's most probable class is the label.
        agreement: Correlation of the Student's map with the human map; NaN without a human map.
    """

    file: str
    domain: str
    backbone: str
    seed: int
    image: str
    label: str
    source: str
    scored: str
    score: float
    hit: bool
    agreement: float

    @property
    def name(self) -> str:
        """Name of the file without suffix."""
        return Path(self.file).stem

    @property
    def caption(self) -> str:
        """Caption of the panel in one line."""
        parts = ["✓ hit" if self.hit else "✗ miss", self.label]
        parts += [self.source] if self.source else []
        parts.append(f"Student: {self.scored} {self.score:.3f}")
        if math.isfinite(self.agreement):
            parts.append(f"agreement {number(self.agreement, 2)}")
        return f"{' · '.join(parts)} {self.image}"


def write_panels(domains: Mapping[str, Panels | None], out: Path) -> list[PanelFile]:
    """Write the panels of all domains and their index to `out/panels`.

    Args:
        domains: Panels by domain, or None.
        out: Study folder. Earlier panels are replaced.

    Returns:
        Files, one per panel, numbered over all domains.
    """
    folder = out / FOLDER
    found = list(_entries(domains))
    if not found:
        shutil.rmtree(folder, ignore_errors=True)
        return []
    with replacing(folder, flush=False) as partial:
        partial.mkdir()
        for entry, panel in found:
            (partial / Path(entry.file).name).write_bytes(_drawn(panel))
        files = [entry for entry, _ in found]
        index = pd.DataFrame([asdict(entry) for entry in files])
        index.to_csv(partial / INDEX, index=False, float_format="%.6g", lineterminator="\n")
    return files


def _entries(domains: Mapping[str, Panels | None]) -> Iterator[tuple[PanelFile, Panel]]:
    place = 0
    for domain, panels in domains.items():
        for panel in panels.panels if panels is not None else ():
            place += 1
            assert panels is not None
            yield (
                PanelFile(
                    f"{FOLDER}/{place:02d}-{'hit' if panel.hit else 'miss'}.png",
                    domain,
                    panels.backbone,
                    panels.seed,
                    panel.name,
                    panel.label,
                    panel.source,
                    panel.scored,
                    panel.score,
                    panel.hit,
                    panel.agreement,
                ),
                panel,
            )


def _drawn(panel: Panel) -> bytes:
    """Image and maps side by side with headings."""
    image = panel.image.decoded().convert("RGB")
    scale = SIDE / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    image = image.resize(size, Image.Resampling.BILINEAR)
    tiles = [("Image", image)]
    for layer in panel.layers:
        if layer.picture is None:
            tiles.append((layer.heading, Image.new("RGB", size, _EMPTY)))
        else:
            tiles.append((layer.heading, _laid_over(image, layer.picture.decoded())))
    return _sheet(tiles, size)


def _laid_over(image: Image.Image, overlay: Image.Image) -> Image.Image:
    """Map over the grayscale image."""
    colors = overlay.convert("RGBA").resize(image.size, Image.Resampling.BILINEAR)
    grey = image.convert("L").convert("RGBA")
    return Image.alpha_composite(grey, colors).convert("RGB")


def _sheet(tiles: Sequence[tuple[str, Image.Image]], size: tuple[int, int]) -> bytes:
    """PNG of tiles of equal size in a row."""
    sheet = Image.new("RGB", (len(tiles) * (size[0] + _GAP) - _GAP, size[1] + _HEAD), _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for place, (heading, tile) in enumerate(tiles):
        left = place * (size[0] + _GAP)
        draw.text((left, 2), heading, _INK, font)
        sheet.paste(tile, (left, _HEAD))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", compress_level=3)  # half the time of 6 for an eighth more bytes
    return buffer.getvalue()
