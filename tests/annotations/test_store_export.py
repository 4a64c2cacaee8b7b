from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from preceptor.annotations import read_labelstudio
from preceptor.annotations.export import map_over_image, store_images
from preceptor.data.geometry import content_pixels, render
from preceptor.data.manifest import Manifest
from preceptor.errors import InputError
from preceptor.maps.store import MapStore, StoreInfo, write_store
from tests.commands import flags, here

SIDE = 64


def info(fit: Any, method: str = "cam") -> StoreInfo:
    return StoreInfo("teacher-1", method, fit, SIDE, ("clean", "crack"), {})


def spot(width: int, height: int, x: float, y: float) -> np.ndarray:
    down, across = np.mgrid[:height, :width]
    away = ((across - x) ** 2 + (down - y) ** 2) / (0.12 * min(width, height)) ** 2
    return np.exp(-0.5 * away).astype(np.float32)


@pytest.mark.parametrize("interpolation", ["linear", "area"])
@pytest.mark.parametrize("fit", ["squash", "letterbox", "crop"])
@pytest.mark.parametrize("size", [(150, 90), (70, 130), (64, 64)])
def test_a_map_lies_where_the_model_saw_it(
    fit: Any, size: tuple[int, int], interpolation: Any
) -> None:
    """A spot of the image, seen on the canvas and cut into cells, comes back to its place."""
    width, height = size
    truth = spot(width, height, width * 0.45, height * 0.55)
    pixels = np.rint(truth * 255).astype(np.uint8)[..., None]
    canvas = render(pixels, fit, SIDE)[..., 0].astype(np.float32)
    left, top, inner_width, inner_height = content_pixels(width, height, fit, SIDE)
    inside = np.zeros((SIDE, SIDE), bool)
    inside[top : top + inner_height, left : left + inner_width] = True
    cells = np.where(inside, canvas, 0).reshape(16, 4, 16, 4).mean(axis=(1, 3))
    found = map_over_image(cells, info(fit), size, interpolation)
    assert found.shape == (height, width)
    assert np.corrcoef(found.ravel(), truth.ravel())[0, 1] > 0.95
    rows, columns = np.mgrid[:height, :width]
    strong = found >= 0.5
    assert columns[strong].mean() == pytest.approx(width * 0.45, abs=width / 32)
    assert rows[strong].mean() == pytest.approx(height * 0.55, abs=height / 32)


def test_outside_of_a_crop_is_not_marked() -> None:
    found = map_over_image(np.array([[0, 1], [1, 1]], np.float32), info("crop"), (200, 100), "area")
    assert not found[:, :50].any()
    assert not found[:, 150:].any()
    assert (found[50:, 50:150] == 1).all()


def test_maps_are_normalized_except_probabilities_of_marks() -> None:
    grid = np.array([[0.2, 0.3], [0.3, 0.4]], np.float32)
    assert map_over_image(grid, info("squash"), (2, 2), "area").max() == 1
    assert map_over_image(grid, info("squash", "cells"), (2, 2), "area").max() == np.float32(0.4)
    assert not map_over_image(np.full((2, 2), 0.7, np.float32), info("squash"), (5, 5)).any()


@pytest.fixture
def store(tmp_path: Path) -> Path:
    rows = []
    for number in range(3):
        Image.new("RGB", (60, 40)).save(tmp_path / f"{number}.png")
        rows.append((f"{number}.png", ("crack", "clean")[number % 2], "train"))
    frame = pd.DataFrame(rows, columns=["path", "label", "split"])
    frame.to_csv(tmp_path / "manifest.csv", index=False)
    maps = np.zeros((2, 4, 4), np.float16)
    maps[0, :2, 2:] = 1
    maps[1, 2:, :2] = 1
    paths = np.array(["0.png", "1.png"], object)
    write_store(
        tmp_path / "store",
        MapStore(
            info("squash"),
            paths,
            maps,
            np.array([1, 0], np.int32),
            np.array([0.9, 0.6], np.float32),
        ),
    )
    return tmp_path / "store"


def test_a_store_becomes_predictions_of_label_studio(store: Path, tmp_path: Path) -> None:
    outcome = here(
        "data",
        "export",
        "labelstudio",
        store,
        *flags(manifest=tmp_path / "manifest.csv", to=tmp_path / "out"),
        *flags(positive="crack", interpolation="area", threshold="0.7"),
    )
    assert (outcome.code, outcome.err) == (0, "")
    assert "2 images, 1 with marks" in outcome.out
    first, second = json.loads((tmp_path / "out" / "tasks.json").read_text())
    assert "annotations" not in first
    prediction = first["predictions"][0]
    assert prediction["model_version"] == "teacher-1 cam"
    assert prediction["score"] == pytest.approx(0.9)
    value = prediction["result"][0]["value"]
    across, down = zip(*value["points"], strict=True)  # corners are rounded
    assert (min(across), max(across), min(down), max(down)) == (50, 100, 0, 50)
    assert value["polygonlabels"] == ["crack"]
    assert second["predictions"][0]["result"] == []
    assert '<Label value="crack"/>' in (tmp_path / "out" / "labeling_config.xml").read_text()
    read = {one.name: one for one in read_labelstudio(tmp_path / "out" / "tasks.json")}
    assert [one.prediction for one in read["/data/local-files/?d=0.png"].annotations] == [True]


def test_maps_above_the_tolerance_are_left_out(tmp_path: Path) -> None:
    """Four maps of RISE, of which one has settled."""
    for number in range(4):
        Image.new("RGB", (32, 32)).save(tmp_path / f"{number}.png")
    rows = [(f"{number}.png", ("clean", "crack")[number % 2], "train") for number in range(4)]
    frame = pd.DataFrame(rows, columns=["path", "label", "split"])
    frame.to_csv(tmp_path / "manifest.csv", index=False)
    noise = MapStore(
        replace(info("squash", "rise"), settings={"tolerance": 0.05}),
        np.array([f"{number}.png" for number in range(4)], object),
        np.random.default_rng(0).random((4, 4, 4)).astype(np.float16),
        np.array([0, 1, 0, 1], np.int32),
        np.full(4, 0.5, np.float32),
        error=np.array([0.01, 1, 1, 1], np.float32),
    )
    write_store(tmp_path / "store", noise)
    images = list(store_images(noise, Manifest.read(tmp_path / "manifest.csv", need=())))
    assert [one.pixels is not None for one in images] == [True, False, False, False]
    run = ("data", "export", "masks", tmp_path / "store", "--manifest", tmp_path / "manifest.csv")
    out = here(*run, "--to", tmp_path / "out").out
    assert "4 images, 1 with marks" in out
    assert "3 maps did not reach the tolerance and were left out" in out
    classes = noise.info.classes
    out = here(*run, "--to", tmp_path / "one", "--positive", classes[0]).out
    assert "1 maps did not reach" in out


def test_a_store_of_another_manifest_is_refused(store: Path, tmp_path: Path) -> None:
    outcome = here("data", "export", "coco", store, "--to", tmp_path / "out")
    assert outcome.code == 2
    assert "name the manifest of its images by --manifest" in outcome.err
    table = Manifest.read(tmp_path / "manifest.csv", need=())
    made = MapStore(
        info("squash"),
        np.array(["x.png"], object),
        np.zeros((1, 4, 4), np.float16),
        np.zeros(1, np.int32),
        np.zeros(1, np.float32),
    )
    with pytest.raises(InputError, match="1 images of the map store are not in the manifest"):
        next(store_images(made, table))
