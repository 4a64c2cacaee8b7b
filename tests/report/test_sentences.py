"""Each comparison of a study has a sentence, which tells what was compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from preceptor.config.files import parse_config
from preceptor.report.words import sentences
from preceptor.results.record import OVERALL
from preceptor.study.config import StudyConfig
from preceptor.study.plan import Plan
from preceptor.study.protocol import Protocol
from preceptor.study.workspaces import Workspaces
from tests.datasets import squares
from tests.report.ladders import compared

SPREAD = "+0.100, 95 % interval +0.050 to +0.150"


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return squares(tmp_path_factory.mktemp("sentences"))


def plan(manifest: Path, **changes: Any) -> Plan:
    values: dict[str, Any] = {
        "manifest": str(manifest),
        "positive": "marked",
        "primary": "test",
        "teachers": ["net"],
        "students": ["net", "other"],
    }
    study = parse_config(values | changes, StudyConfig)
    store = manifest.parent / "store"
    return Plan(Protocol(study, Workspaces.of_study(study, store), store))


def line(question: str, b: str, key_b: str, **more: Any) -> dict[str, Any]:
    """Comparison of a Student that is ahead by 0.1."""
    images = {"image_low": 0.02, "image_high": 0.2, "p_holm": 0.03}
    return compared(0.1, question=question, b=b, key_b=key_b, **images | more)


def said(plan: Plan, *lines: dict[str, Any]) -> list[str]:
    return sentences(plan, pd.DataFrame(lines), pd.DataFrame())


def test_a_control_has_an_alpha_of_its_own(manifest: Path) -> None:
    (text,) = said(plan(manifest), line("control", "C", "centre"))
    assert text == f"net: the Student's AUC is above “C” (at its own α, 0.9; {SPREAD})."


def test_every_comparison_has_a_sentence(manifest: Path) -> None:
    found = said(
        plan(manifest),
        line("RQ2", "Baseline 2", "baseline2"),
        line("RQ3", "Baseline 1: paper", "baseline1_paper"),
        line("ceiling", "Ceiling", "ceiling"),
        line("detector", "Mapper", "mapper"),
        line("control", "Masked", "masked", alpha_b=1.0),
        line("start", "Baseline 2 from M", "baseline2_started", a="Student from M"),
        line("overall", "Baseline 2", "baseline2", backbone=OVERALL),
        line("RQ1", "Students of D", "", a="Students of H"),
        line("saliency", "Students of C", "", a="Students of R"),
    )
    over = "over 8 seeds; over seeds and images +0.020 to +0.200"
    assert found[1:] == [
        f"net: the Student's AUC on test is above Baseline 2 ({SPREAD} {over}).",
        f"net: the Student's AUC is above “Baseline 1: paper” ({SPREAD}).",
        f"net: the Student's AUC is above “Masked” (without guidance; {SPREAD}).",
        f"net: the Student's AUC is above “Mapper” ({SPREAD}).",
        f"net: the Student's AUC is above “Ceiling” ({SPREAD}).",
        f"net: “Student from M” is above “Baseline 2 from M” ({SPREAD}).",
        f"Mean over backbones: the Student's AUC is above Baseline 2 ({SPREAD}).",
        "RQ1: Students of H minus Students of D: AUC +0.100 (95 % interval +0.050 to +0.150).",
        f"RISE or CAM: Students of R are above Students of C ({SPREAD}).",
    ]


def test_a_significant_loss_is_not_counted_as_a_gain(manifest: Path) -> None:
    lost = {"mean": -0.1, "low": -0.15, "high": -0.05, "p_holm": 0.02}
    study = plan(manifest, students=["net"])
    lines = [
        line("RQ2", "Baseline 1", "baseline1", **lost),
        line("RQ2", "Baseline 2", "baseline2", **lost),
    ]
    first = said(study, *lines)[0]
    assert first.startswith(
        "On test, the Student's mean AUC is above both baselines for no backbone; after Holm's "
        "correction it is significantly above the baseline in 0 of 2 comparisons and significantly "
        "below it in 2 ("
    )
    lines[1] |= {"mean": 0.1, "low": 0.05, "high": 0.15}
    assert (
        "above the baseline in 1 of 2 comparisons and significantly below it in 1 ("
        in said(study, *lines)[0]
    )
    lines[0] |= {"p_holm": 0.5}
    assert "above the baseline in 1 of 2 comparisons (" in said(study, *lines)[0]


NAN = float("nan")


@pytest.mark.parametrize(
    ("mean", "seeds", "images", "words"),
    [
        (0.0, (-0.02, 0.02), (-0.02, 0.02), ""),
        (0.0, (-0.005, 0.005), (-0.005, 0.005), "; equivalent within ±0.01"),
        (-0.02, (-0.045, 0.005), (-0.045, 0.005), "; a gain of 0.01 is excluded"),
        (0.02, (-0.005, 0.045), (-0.005, 0.045), "; a loss of 0.01 is excluded"),
        (0.0, (NAN, NAN), (NAN, NAN), ""),
        # The interval over images has to exclude it, too.
        (0.001, (-0.004, 0.006), (-0.03, 0.009), "; a gain of 0.01 is excluded"),
        (0.001, (-0.004, 0.006), (-0.009, 0.03), "; a loss of 0.01 is excluded"),
        (0.001, (-0.004, 0.006), (-0.03, 0.03), ""),  # too few test images
        # A mean over backbones.
        (0.001, (-0.004, 0.006), (NAN, NAN), "; equivalent within ±0.01 on these test images"),
        # A gain over seeds.
        (0.002, (0.001, 0.003), (-0.030, 0.034), "; not shown for other test images"),
        (0.002, (0.001, 0.003), (0.0005, 0.0035), "; equivalent within ±0.01"),
        (0.002, (0.001, 0.003), (0.0005, 0.0200), ""),
    ],
)
def test_a_sentence_says_what_its_intervals_exclude(
    manifest: Path,
    mean: float,
    seeds: tuple[float, float],
    images: tuple[float, float],
    words: str,
) -> None:
    shown = {"mean": mean, "low": seeds[0], "high": seeds[1]}
    shown |= {"image_low": images[0], "image_high": images[1]}
    (text,) = said(plan(manifest), line("ceiling", "Ceiling", "ceiling", **shown))
    assert text.endswith(f"{words}).")
    assert bool(words) == any(word in text for word in ("excluded", "equivalent", "not shown"))


def test_two_sides_with_an_auc_of_1_are_not_called_equivalent(manifest: Path) -> None:
    """No seed and no resample differs, whatever another set of images would show."""
    shown = dict.fromkeys(("mean", "low", "high", "image_low", "image_high"), 0.0)
    (text,) = said(plan(manifest), line("ceiling", "Ceiling", "ceiling", **shown))
    assert "equivalent" not in text
    assert text.startswith("net: the Student's AUC is equal to that of “Ceiling” (0.000, ")
