"""A finished study of two tiny domains with a budget, and its report, made once for these tests.

Its scores are written down and its models are one untrained model: what a report shows of them is
looked at here, not how good they are. `test_report.py` reports on a study that was trained.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from preceptor.config.files import parse_config
from preceptor.models.build import build_model, save_model
from preceptor.report.write import write_results
from preceptor.study.config import StudyConfig
from preceptor.study.plan import StudyPlan
from preceptor.study.steps import Arm, Failure
from preceptor.study_folder import read_study
from tests.datasets import squares
from tests.made_once import made_once
from tests.studies import write_down

NASTY = "a_b & 50% {x} #1 $y ~^\\ α ± − × <b>|"
"""A source's name that HTML, SVG, Markdown and CSV must each write in their own way."""
PRIMARY = "test-unseen & <new> 50 %"
DOMAINS = ("Squares A", "squares-a")  # both would be squares-a in an anchor or a file's name


@dataclass(frozen=True)
class Written:
    """A study with the folder of its report."""

    study: StudyPlan
    out: Path


def _manifest(folder: Path, size: tuple[int, int], *, timed: bool, nasty: bool) -> Path:
    """Squares of three sources; with what annotating took, or with names that need care."""
    manifest = squares(folder, size=size)
    table = pd.read_csv(manifest, dtype=str, keep_default_na=False)
    own = table["label"] == "marked"
    names = [NASTY, "[kind] 2", "*kind 10"] if nasty else ["kind 1", "kind 2", "kind 10"]
    table.loc[own, "source"] = [names[place % 3] for place in range(own.sum())]
    if nasty:
        table["split"] = table["split"].replace("test-unseen", PRIMARY)
    if timed:
        table["annotation_seconds"] = ["12" if s == "train" else "" for s in table["split"]]
    table.to_csv(manifest, index=False)
    return manifest


def _write_manifests(folder: Path) -> None:
    _manifest(folder / "plain", (40, 32), timed=True, nasty=False)
    _manifest(folder / "nasty", (32, 48), timed=False, nasty=True)


def plans_of(folder: Path) -> StudyPlan:
    """The study's plans; nothing of it is computed."""
    config = {
        "domains": {
            DOMAINS[0]: {
                "manifest": str(folder / "plain" / "manifest.csv"),
                "primary": "test-unseen",
            },
            DOMAINS[1]: {"manifest": str(folder / "nasty" / "manifest.csv"), "primary": PRIMARY},
        },
        "positive": "marked",
        "annotated": 0.5,
        "teachers": ["test_byobnet"],
        "students": ["test_byobnet"],
        "backbone_args": {"test_byobnet": {"output_stride": 8}},
        "seeds": 3,
        "alphas": [0.5, 0.1],
        "budget": [4, 8],
        "threshold": "fdr=0.5",
        "terms": "pad",
        "store": str(folder / "store"),
        "training": {"input_size": 32, "epochs": 1, "batch_size": 8, "schedule": "constant"},
    }
    study = parse_config(config, StudyConfig)
    return read_study(study, folder)


def effect(arm: Arm, seed: int) -> float:
    """Students are better than baselines, Baseline 1 is best at the Teacher's α, and each run
    differs a little."""
    better = 1.0 if arm.role == "student" else 0.5
    better += 0.5 * (arm.role == "baseline1" and arm.alpha == 0.5)
    own = f"{arm.label} {arm.backbone} {arm.alpha:g} {arm.teacher}"
    return better + float(np.random.default_rng([seed, *own.encode()]).normal(0, 0.3))


@pytest.fixture(scope="session")
def two_domains() -> Written:
    """All of its results are there."""

    def make(folder: Path) -> None:
        _write_manifests(folder)
        model = build_model(
            "test_byobnet",
            ["marked", "plain"],
            input_size=32,
            positive="marked",
            backbone_args={"output_stride": 8},
        )
        save_model(model, folder / "model")
        study = plans_of(folder)
        write_down(study, effect, folder / "model")
        write_results(study, folder / "out", {})

    folder, _ = made_once("two-domains", make)
    study = plans_of(folder)
    write_down(study, effect)  # all has finished: its choices are made
    return Written(study, folder / "out")


@pytest.fixture(scope="session")
def not_begun() -> Written:
    """The same study before anything is computed, and what a page says of much that failed."""

    def make(folder: Path) -> None:
        _write_manifests(folder)
        study = plans_of(folder)
        study.start()
        full = "the disk is full & more"
        failed = {
            f"run-{number}": Failure("train", f"train teacher <{number}>", full)
            for number in range(12)
        }
        failed["blocked"] = Failure("train", "train student", "needs it", blocked=True)
        write_results(study, folder / "out", failed)

    folder, _ = made_once("not-begun", make)
    study = plans_of(folder)
    study.start()
    return Written(study, folder / "out")


VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """Reads a page and keeps what the tests ask about."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.ids: Counter[str] = Counter()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.headers: list[dict[str, str | None]] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags[tag] += 1
        if "id" in found:
            self.ids[str(found["id"])] += 1
        if tag == "a":
            self.links.append(str(found["href"]))
        self.loaded += [str(found[key]) for key in ("src", "srcset", "data") if key in found]
        if tag == "link":
            self.loaded.append(str(found["href"]))
        if tag == "img":
            self.images.append(found)
        if tag == "th":
            self.headers.append(found)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
