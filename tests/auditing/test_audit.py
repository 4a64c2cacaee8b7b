"""Audits of small models: one reads a stamp outside the marks, one what is inside them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from preceptor import audit
from preceptor.auditing.audit import _verdict, audit_page
from preceptor.auditing.models import open_model
from preceptor.data.swaps import Estimate
from preceptor.errors import InputError
from preceptor.maps.store import MapStore, StoreInfo, write_store
from tests.commands import assert_refused, here
from tests.made_once import made_once

NETWORKS = """
import torch
from torch import nn


class Reader(nn.Module):
    '''The mean of one color decides: red is the stamp, green the evidence.'''

    def __init__(self, color):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False), nn.ReLU())
        self.pool, self.flatten = nn.AdaptiveAvgPool2d(1), nn.Flatten()
        self.head = nn.Linear(3, 2)
        with torch.no_grad():
            self.features[0].weight.copy_(torch.eye(3)[:, :, None, None])
            self.head.weight.zero_()
            self.head.weight[1, color] = 30.0
            self.head.bias.copy_(torch.tensor([1.0, 0.0]))

    def forward(self, x):
        return self.head(self.flatten(self.pool(self.features(x))))


def stamp():
    return Reader(0)


def evidence():
    return Reader(1)
"""


def write_data(folder: Path, count: int = 80, side: int = 32, split: str = "val") -> Path:
    """Noise; images of a class have a green square, which is marked, and a red stamp outside."""
    rng, rows = np.random.default_rng(0), []
    for at in range(count):
        pixels = rng.integers(0, 90, (side, side, 3)).astype(np.uint8)
        name, saliency = f"{at}.png", ""
        if at % 2:
            top, left = rng.integers(0, 14, 2)
            pixels[top : top + 10, left : left + 10, 1] += 120
            pixels[-5:-1, -5:-1, 0] = 255
            mask = np.zeros((side, side), np.uint8)
            mask[top : top + 10, left : left + 10] = 255
            saliency = f"{at}-map.png"
            Image.fromarray(mask).save(folder / saliency)
        Image.fromarray(pixels).save(folder / name)
        rows.append(
            (name, ("plain", "sick")[at % 2], split, saliency, 1, f"hospital {at % 4 // 2}")
        )
    columns = ["path", "label", "split", "saliency", "annotated", "source"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "manifest.csv", index=False)
    (folder / "networks_of_audit.py").write_text(NETWORKS, encoding="utf-8")
    return folder / "manifest.csv"


@pytest.fixture(scope="module")
def data() -> Path:
    def make(folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        return write_data(folder)

    return made_once("audit", make)[1]


def model(data: Path, name: str) -> str:
    return f"{data.parent / 'networks_of_audit.py'}:{name}"


SMALL = ("--input-size", 32)


def test_a_model_that_reads_the_stamp_is_found(data: Path, tmp_path: Path) -> None:
    done = here("audit", model(data, "stamp"), data, *SMALL, "--out", tmp_path / "a")
    assert done.code == 0, done.err
    assert done.out.startswith("Shown: what lies outside the marks decides (80 images of val)")
    *_, order, scale = done.out.strip().split("\n")
    assert len(done.out.strip().split("\n")) == 5
    assert order == "note: its outputs are taken to be the classes plain, sick, in this order"
    assert scale == "note: its input is taken to have the normalization imagenet"
    found = json.loads((tmp_path / "a" / "audit.json").read_text(encoding="utf-8"))
    assert found["verdict"] == "shown"
    assert found["ordinary"]["value"] == 1
    assert found["swapped"]["low"] < 0.5 < found["swapped"]["high"]
    assert found["outside"]["value"] == 1
    assert found["outside_only"]["value"] == 1
    assert found["editing"]["low"] < 0.5
    assert set(found["by_source"]) == {"hospital 0", "hospital 1"}
    assert found["map_inside"] < found["map_chance"]
    page = (tmp_path / "a" / "audit.html").read_text(encoding="utf-8")
    assert page.count("<img ") == 12
    assert "preceptor repair" in page
    assert f"Assumed: {order.removeprefix('note: ')}." in page
    told = here("audit", model(data, "stamp"), data, *SMALL, "--normalization", "unit").out
    assert (told.count("note: "), "imagenet" in told) == (1, False)


def test_a_model_that_reads_the_evidence_is_not_accused(data: Path) -> None:
    found = audit(model(data, "evidence"), data, input_size=32)
    told = found.audit
    assert told.verdict == "not shown"
    assert told.drop.value < 0.1
    assert told.inside_only.value > 0.9
    assert told.map_inside > 2 * told.map_chance
    # Nobody may read that all is well.
    page = audit_page(found)
    for text in ("no shortcut inside the marks", "nothing about images from elsewhere"):
        assert text in page


def test_a_pipeline_fails_above_a_drop(data: Path) -> None:
    bad = here("audit", model(data, "stamp"), data, *SMALL, "--fail-above", 0.1)
    assert bad.code == 1
    assert "the AUC falls by 0.5" in bad.err
    assert here("audit", model(data, "stamp"), data, *SMALL, "--fail-above", 0.9).code == 0


def test_scores_from_elsewhere_give_the_audit_of_the_model(data: Path, tmp_path: Path) -> None:
    done = here("audit", "-", data, *SMALL, "--write-images", tmp_path / "images")
    assert done.code == 0, done.err
    table = pd.read_csv(tmp_path / "images" / "images.csv")
    assert set(table["kind"]) == {"ordinary", "swapped", "outside", "inside"}
    pixels = [np.asarray(Image.open(tmp_path / "images" / name)) for name in table["path"]]
    opened = open_model(model(data, "stamp"), classes=["plain", "sick"], input_size=32)
    sick = opened.probabilities(np.stack(pixels))[:, 1]
    scores = pd.DataFrame({"path": table["path"], "score_plain": 1 - sick, "score_sick": sick})
    scores.to_csv(tmp_path / "scores.csv", index=False)
    own = audit(model(data, "stamp"), data, input_size=32).audit
    given = audit(tmp_path / "scores.csv", data, input_size=32).audit
    assert given.outside == own.outside
    assert np.isnan(given.map_inside)
    assert given.drop == own.drop
    again = here("audit", tmp_path / "scores.csv", data, *SMALL, "--seed", 1)
    assert_refused(again, ["have no score", "the options that --write-images had"])
    scores.assign(score_sick=np.nan).to_csv(tmp_path / "scores.csv", index=False)
    assert_refused(here("audit", tmp_path / "scores.csv", data, *SMALL), ["is no number"])
    scores.drop(columns="score_sick").to_csv(tmp_path / "scores.csv", index=False)
    assert_refused(here("audit", tmp_path / "scores.csv", data, *SMALL), ["score_sick is missing"])
    assert_refused(
        here("audit", "-", data, "--write-images", tmp_path / "images"), ["exists already"]
    )


def test_maps_of_a_teacher_replace_marks(data: Path, tmp_path: Path) -> None:
    table = pd.read_csv(data, keep_default_na=False)
    grids = np.zeros((len(table), 8, 8), np.float16)
    for at, name in enumerate(table["saliency"]):
        if name:
            mask = np.asarray(Image.open(data.parent / name).resize((8, 8)), np.float32)
            grids[at] = mask / 255
    info = StoreInfo("teacher", "cells", "squash", 32, ("plain", "sick"), {})
    number = np.zeros(len(table), np.int32)
    store = MapStore(info, table["path"].to_numpy(object), grids, number, number.astype(np.float32))
    write_store(tmp_path / "maps", store)
    found = audit(model(data, "stamp"), data, maps=tmp_path / "maps", input_size=32).audit
    assert found.marked == 40
    assert found.verdict == "shown"


def test_marked_training_images_are_used_where_validation_has_no_marks(
    data: Path, tmp_path: Path
) -> None:
    manifest, stamp = write_data(tmp_path, 40, split="train"), model(data, "stamp")
    done = here("audit", stamp, manifest, *SMALL)
    assert "(40 images of train)" in done.out
    assert_refused(here("audit", stamp, manifest, "--split", "tset"), ["no split 'tset'"])


def test_bad_input_is_one_message(data: Path, tmp_path: Path) -> None:
    table = pd.read_csv(data, keep_default_na=False)
    table["path"] = [str(data.parent / name) for name in table["path"]]
    table["saliency"] = [str(data.parent / name) if name else "" for name in table["saliency"]]
    file = tmp_path / "manifest.csv"

    def refused(changed: pd.DataFrame, *said: str, problems: int | None = 1) -> None:
        changed.to_csv(file, index=False)
        outcome = here("audit", model(data, "stamp"), file, *SMALL, "--out", tmp_path / "out")
        assert_refused(outcome, said, problems)
        assert not (tmp_path / "out").exists()

    refused(table.assign(saliency=""), "no image has a mark")
    refused(table.iloc[:10], "mark 10 more")
    refused(table.iloc[1:2], "have one class", problems=None)
    odd = tmp_path / "odd.png"
    Image.new("L", (64, 20), 255).save(odd)
    other = table.copy()
    other.loc[1, "saliency"] = str(odd)
    refused(other, "row 3", "64×20")
    three = table.copy()
    three.loc[:9, "label"] = "third"
    refused(three, "classes", problems=None)
    table.to_csv(file, index=False)
    assert_refused(here("audit", "-", file), ["--write-images"])
    opened = open_model(model(data, "stamp"), classes=["plain", "sick"], input_size=32)
    nothing = np.full((1, 2), np.nan)
    broken = replace(opened, guided=None, outputs=lambda pixels: nothing)
    with pytest.raises(InputError, match="not finite"):
        audit(broken, data)


@pytest.mark.parametrize(
    ("drop", "outside", "verdict", "more"),
    [
        ((0.1, 0.05, 0.15), (0.6, 0.55, 0.65), "shown", 0),
        ((0.1, -0.05, 0.2), (0.6, 0.55, 0.65), "not shown", 0),
        ((0.1, 0.05, 0.15), (0.52, 0.45, 0.58), "not shown", 0),
        ((0.1, -0.1, 0.3), (0.6, 0.4, 0.8), "too few marks", 300),
        ((0.1, -0.1, 0.3), (np.nan, np.nan, np.nan), "too few marks", 100),
    ],
)
def test_the_verdict_needs_both_intervals(
    drop: tuple[float, ...], outside: tuple[float, ...], verdict: str, more: int
) -> None:
    assert _verdict(Estimate(*drop), Estimate(*outside), 100) == (verdict, more)


def test_a_model_of_other_classes_is_refused(data: Path, models: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="classes"):
        audit(models["plain"], data)
