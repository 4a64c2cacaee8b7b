"""Panels are written beside the page as PNG files that its index describes."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from preceptor.report.panels import Layer, Panel, Panels, Picture, write_panels
from tests.report.conftest import Written


def encoded(folder: Path, pixels: np.ndarray) -> Picture:
    file = folder / "picture.png"
    Image.fromarray(pixels).save(file)
    return Picture("PNG", file.read_bytes())


def panels(folder: Path, *hits: bool) -> Panels:
    """Panels of a red image with an opaque blue map of the Student, and no human map."""
    red = encoded(folder, np.full((40, 80, 3), (200, 0, 0), np.uint8))
    blue = encoded(folder, np.full((4, 8, 4), (0, 0, 255, 255), np.uint8))
    layers = [Layer("Human", None, "no human map"), Layer("Student", blue)]
    shown = [
        Panel(f"image, {place}.png", "marked", "", "marked", 0.25, hit, math.nan, red, 2.0, layers)
        for place, hit in enumerate(hits)
    ]
    return Panels("test_byobnet", 1, "a Teacher", shown)


def test_files_have_the_image_and_its_maps_side_by_side(tmp_path: Path) -> None:
    (written,) = write_panels({"": panels(tmp_path, True)}, tmp_path)
    sheet = Image.open(tmp_path / written.file).convert("RGB")
    width = 240 + 8
    middles = [sheet.getpixel((240 // 2 + width * place, 22 + 240 // 4)) for place in range(3)]
    assert middles == [(200, 0, 0), (238, 238, 238), (0, 0, 255)]
    assert sheet.size == (3 * width - 8, 240 // 2 + 22)


def test_files_are_numbered_over_domains_and_the_index_describes_them(tmp_path: Path) -> None:
    (tmp_path / "panels").mkdir()
    (tmp_path / "panels" / "99-hit.png").write_text("of an earlier report")
    shown = {"A": panels(tmp_path, True, False), "B": None, "C": panels(tmp_path, False)}
    written = write_panels(shown, tmp_path)
    names = ["panels/01-hit.png", "panels/02-miss.png", "panels/03-miss.png"]
    assert [one.file for one in written] == names
    assert sorted(file.name for file in (tmp_path / "panels").glob("*.png")) == [
        Path(name).name for name in names
    ]
    index = pd.read_csv(tmp_path / "panels" / "index.csv", keep_default_na=False)
    assert list(index["file"]) == names
    assert list(index["domain"]) == ["A", "A", "C"]
    assert list(index["hit"]) == [True, False, False]
    assert list(index["image"]) == ["image, 0.png", "image, 1.png", "image, 0.png"]
    assert written[1].caption == "✗ miss · marked · Student: marked 0.250 image, 1.png"
    assert not write_panels({"": None}, tmp_path)
    assert not (tmp_path / "panels").exists()


def test_a_report_has_a_file_for_each_panel_of_its_page(two_domains: Written) -> None:
    index = pd.read_csv(two_domains.out / "panels" / "index.csv")
    page = (two_domains.out / "report.html").read_text(encoding="utf-8")
    assert len(index) == page.count('class="panel"') > 4
    assert index["hit"].sum() == page.count("✓ hit")
    assert set(index["domain"]) == set(two_domains.study.plans)
    assert all((two_domains.out / file).is_file() for file in index["file"])
    assert 'href="panels/"' in page
