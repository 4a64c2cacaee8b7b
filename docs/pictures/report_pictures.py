"""Pictures of docs/report.md: reports of finished studies in Chromium.

    CIRCUIT_BOARDS=… preceptor report boards
    python docs/pictures/report_pictures.py --first boards

    preceptor demo --out demo-study
    python docs/pictures/report_pictures.py --panels demo-study

    python docs/pictures/report_pictures.py --budget squares

The first page, the graph and the page on a phone are those of the study of circuit boards, of which
`boards` is a copy of the archive. The panels are those of the demo, since images of other people's
data sets are not shown. The section on the number of annotations is that of a small study of
generated squares, which is made in the folder `squares` and takes some minutes.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from label_browser import browser
from PIL import Image

WIDTH = 1100
STUDY = """\
manifest: manifest.csv
positive: spot
primary: test
teachers: [test_byobnet]
students: [test_byobnet]
backbone_args: {test_byobnet: {output_stride: 8}}
seeds: 3
alphas: [0.5]
teacher_alphas: [0.5]
data_driven: false
controls: []
budget: [6, 18, 54]
training:
  input_size: 32
  in_chans: 1
  batch_size: 20
  length: steps
  steps: 40
  epochs: 1
  optimizer: adamw
  lr: 0.003
  schedule: one_cycle
  checkpoint: last
  augmentation: {flip: true, quarter_turns: true}
"""


def write_squares(folder: Path) -> None:
    """Squares with noise, half of them with a bright spot; the first 60 of 200 are annotated."""
    random = np.random.default_rng(0)
    rows, cols = np.mgrid[:32, :32]
    lines = ["path,label,split,saliency,annotated"]
    for name in ("images", "maps"):
        (folder / name).mkdir(parents=True)
    for number in range(320):
        split = "train" if number < 200 else "val" if number < 260 else "test"
        row, col = random.integers(6, 26, size=2)
        spot = (rows - row) ** 2 + (cols - col) ** 2 <= 12
        bad = number % 2 == 1
        gray = random.normal(100, 30, size=(32, 32)) + 30 * spot * bad
        image, human = f"images/{number:03}.png", ""
        Image.fromarray(gray.clip(0, 255).astype(np.uint8)).save(folder / image)
        if bad and number < 60:
            human = f"maps/{number:03}.png"
            Image.fromarray(spot).save(folder / human)
        label = "spot" if bad else "clean"
        lines.append(f"{image},{label},{split},{human},{int(number < 60)}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    (folder / "study.yaml").write_text(STUDY)


def budget_study(folder: Path) -> Path:
    """Study of the squares with several numbers of annotations; finished steps are kept."""
    if not (folder / "study.yaml").is_file():
        write_squares(folder)
    command = [sys.executable, "-m", "preceptor", "study", "study.yaml", "--out", "study"]
    subprocess.run(command, cwd=folder, check=True)
    return folder / "study"


def keep(taken: bytes, file: Path) -> None:
    """Write a picture with few colors, which report pages have."""
    picture = Image.open(io.BytesIO(taken)).convert("RGB")
    picture.quantize(192, dither=Image.Dither.NONE).save(file, optimize=True)
    print(f"{file} {file.stat().st_size:,} bytes")


def opened(chromium: Any, study: Path, width: int, height: int, **options: Any) -> Any:
    """Report of a study in a window."""
    page = chromium.new_page(viewport={"width": width, "height": height}, **options)
    page.goto((study / "report.html").resolve().as_uri())
    return page


def first_pictures(chromium: Any, study: Path, to: Path) -> None:
    """First page, graph, and the page on a phone."""
    page = opened(chromium, study, WIDTH, 1330)
    keep(page.screenshot(), to / "report.png")
    graph = page.locator("section[aria-labelledby=graph] figure").first
    keep(graph.screenshot(), to / "report-graph.png")
    page.close()
    phone = opened(chromium, study, 390, 844, device_scale_factor=2, color_scheme="dark")
    keep(phone.screenshot(), to / "report-phone.png")
    phone.close()


def panels_picture(chromium: Any, study: Path, to: Path) -> None:
    """Maps over images."""
    page = opened(chromium, study, WIDTH, 1330)
    top = page.locator(".filters").bounding_box()["y"]
    panels = {"x": 0, "y": top, "width": WIDTH, "height": 1068}
    page.locator("section[aria-labelledby=files]").scroll_into_view_if_needed()  # loads all maps
    keep(page.screenshot(full_page=True, clip=panels), to / "report-panels.png")
    page.close()


def budget_picture(chromium: Any, study: Path, to: Path) -> None:
    """Section on the number of annotations."""
    page = opened(chromium, study, WIDTH, 1050)
    section = page.locator("section[aria-labelledby=budget]")
    keep(section.screenshot(), to / "report-budget.png")
    page.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--first", type=Path, help="folder of a finished study")
    parser.add_argument("--panels", type=Path, help="folder of a finished study")
    parser.add_argument("--budget", type=Path, help="folder of the study of squares")
    parser.add_argument("--to", type=Path, default=Path("docs/images"))
    options = parser.parse_args()
    with browser() as chromium:
        if options.first is not None:
            first_pictures(chromium, options.first, options.to)
        if options.panels is not None:
            panels_picture(chromium, options.panels, options.to)
        if options.budget is not None:
            budget_picture(chromium, budget_study(options.budget), options.to)


if __name__ == "__main__":
    main()
