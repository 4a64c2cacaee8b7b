"""Server of `preceptor label` and Chromium, for measurements and pictures of its page."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

PHOTOGRAPHS = ("coffee", "chelsea", "rocket", "camera", "coins", "immunohistochemistry")
"""Photographs of scikit-image that come with the package."""


def write_photographs(folder: Path, side: int, names: tuple[str, ...] = PHOTOGRAPHS) -> Path:
    """Photographs as JPEG files whose longer side has so many pixels."""
    from skimage import data

    folder.mkdir(parents=True)
    for name in names:
        image = Image.fromarray(getattr(data, name)()).convert("RGB")
        scale = side / max(image.size)
        size = (round(image.width * scale), round(image.height * scale))
        image.resize(size, Image.Resampling.LANCZOS).save(folder / f"{name}.jpg", quality=95)
    return folder


@contextmanager
def served(source: Path, folder: Path, *options: str) -> Iterator[dict[str, str]]:
    """A server as a process of its own; gives the link as `open`."""
    command = [sys.executable, "-m", "preceptor", "label", "run", str(source), "--no-open"]
    command += ["--database", str(folder / "label.sqlite"), *options]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "XDG_CACHE_HOME": str(folder / "cache")},
    )
    assert process.stdout is not None
    try:
        links: dict[str, str] = {}
        for line in process.stdout:
            if found := re.match(r"(\w+):? (http\S+)", line):
                links[found[1]] = found[2]
            if "open" in links:
                break
        yield links
    finally:
        process.terminate()
        process.wait()


@contextmanager
def browser() -> Iterator[Any]:
    """Chromium without a window."""
    from playwright.sync_api import sync_playwright

    names = ("chromium", "google-chrome", "chromium-browser")
    path = next((found for name in names if (found := shutil.which(name))), None)
    if path is None:
        raise SystemExit(f"no browser is here: none of {', '.join(names)} is on the path")
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])


def enter(page: Any, link: str, name: str = "Ada") -> None:
    """Open the page and sign in."""
    page.goto(link)
    page.wait_for_selector("#person, body[data-image]:not([data-image=''])")
    if page.locator("#person").count():
        page.fill("#person", name)
        page.keyboard.press("Enter")
    page.wait_for_selector("body[data-image]:not([data-image=''])")


def saved(page: Any) -> None:
    """Wait until all is saved."""
    page.wait_for_function("() => document.getElementById('save').dataset.kind === 'saved'")
