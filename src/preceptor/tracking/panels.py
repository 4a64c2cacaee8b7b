"""The panels of a study's page as pictures: an image beside its maps, with headings."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

SIDE = 240  # pixels of a tile's longer side
_GAP, _HEAD = 8, 22
_PAPER, _INK = "white", "#222222"


@dataclass
class _Panel:
    """Data URIs as the page has them: the image, and by heading its maps or none."""

    image: str
    tiles: list[tuple[str, str]] = field(default_factory=list)
    caption: str = ""


class _Page(HTMLParser):
    """Reads the panels of a page, and nothing else of it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.panels: list[_Panel] = []
        self._inside = self._caption = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {key: value or "" for key, value in attrs}
        if tag == "figure" and found.get("class") == "panel":
            image = re.search(r"--image:\s*url\(([^)]*)\)", found.get("style", ""))
            self.panels.append(_Panel(image[1] if image else ""))
            self._inside = True
        elif self._inside and tag == "div" and "data-name" in found:
            self.panels[-1].tiles.append((found["data-name"], ""))
        elif self._inside and tag == "img" and self.panels[-1].tiles:
            self.panels[-1].tiles[-1] = self.panels[-1].tiles[-1][0], found.get("src", "")
        elif self._inside and tag == "figcaption":
            self._caption = True

    def handle_endtag(self, tag: str) -> None:
        if tag == "figcaption":
            self._caption = False
        elif tag == "figure":
            self._inside = False

    def handle_data(self, data: str) -> None:
        if self._caption:
            self.panels[-1].caption += data


def pictures(page: Path) -> Iterator[tuple[str, str, bytes]]:
    """A short name, the caption and a PNG of each panel of a page, in its order.

    The page has made them already; models are not asked again.
    """
    if not page.is_file():
        return
    panels = _Page(page.read_text(encoding="utf-8")).panels
    for number, panel in enumerate((one for one in panels if one.image), 1):
        caption = " ".join(panel.caption.split())
        outcome = "hit" if "✓" in caption else "miss"
        yield f"{number:02d}-{outcome}", caption, _drawn(panel)


def _drawn(panel: _Panel) -> bytes:
    image = _decoded(panel.image).convert("RGB")
    scale = SIDE / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    image = image.resize(size, Image.Resampling.BILINEAR)
    tiles = panel.tiles or [("Image", "")]
    sheet = Image.new("RGB", (len(tiles) * (size[0] + _GAP) - _GAP, size[1] + _HEAD), _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for place, (heading, overlay) in enumerate(tiles):
        left = place * (size[0] + _GAP)
        draw.text((left, 2), heading, _INK, font)
        tile = image
        if overlay:
            colours = _decoded(overlay).convert("RGBA").resize(size, Image.Resampling.BILINEAR)
            tile = Image.alpha_composite(image.convert("L").convert("RGBA"), colours).convert("RGB")
        elif place:  # a map that is not there
            tile = Image.new("RGB", size, "#eeeeee")
        sheet.paste(tile, (left, _HEAD))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def _decoded(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
