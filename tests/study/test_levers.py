"""A study over draws with every lever at once: its rows, its sentences, its report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from preceptor.benchmark.forged import write_draws
from preceptor.benchmark.forged_settings import PRESETS
from preceptor.config.yaml_file import load_config, parse_config
from preceptor.evaluation.paired_tests import paired_difference
from preceptor.maps.store import read_store
from preceptor.results.domain import gather
from preceptor.results.rows import CONTROLS
from preceptor.study.config import StudyConfig
from preceptor.study.setting import Setting
from preceptor.study.student_runs import variant_run
from preceptor.study.teacher import teachers_of
from preceptor.study_folder import reopen
from tests.datasets import FORGED_STUDY
from tests.studies import run_serially

SETTINGS: dict[str, Any] = FORGED_STUDY | {
    "controls": list(CONTROLS),
    "dfr_set": "val",
    "primary": "test-seen",
    "alphas": [0.1],
    "data_driven": False,
    "variants": {
        "everything": {
            "committee": 2,
            "generations": 2,
            "human_maps": "keep",
            "trust": "agreement",
            "guide_classes": ["forged"],
            "post": {"blur": 0.1, "power": 2, "threshold": 0.2, "dilate": 0.1},
            "human_post": {"threshold": 0.2, "shape": "hull"},
            "soft_labels": 0.5,
        },
        "other": {"teacher_rows": "all", "distance": "kl", "alpha": 0.01},
    },
    "training": {"input_size": 32, "epochs": 1, "batch_size": 16, "lr": 0.01},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("skimage", reason="the forged photographs are scikit-image's")
    folder = tmp_path_factory.mktemp("levers")
    manifest = write_draws(folder / "tiny_forgeries", PRESETS["tiny"], [0, 1])
    study = parse_config(SETTINGS | {"manifest": manifest}, StudyConfig)
    result = run_serially(study, folder / "study")
    assert not result.failed
    assert result.missing == 0
    return folder / "study"


def test_controls_and_variants_are_rows(finished: Path) -> None:
    table = pd.read_csv(finished / "table.csv")
    primary = table[(table["set"] == "test-seen") & table["source"].isna()]
    assert list(primary["key"]) == [
        "baseline1_paper",
        "baseline1",
        "baseline2",
        "student",
        "variant everything",
        "variant other",
        *CONTROLS,
        "ceiling",
    ]
    alpha = primary.set_index("key")["alpha"]
    assert alpha["variant other"] == 0.01
    assert alpha["variant everything"] == alpha["student"] == 0.1
    assert alpha["baseline2"] == alpha["masked"] == 1
    assert alpha["distilled"] == 0.1  # the share of the labels' own term; the grid has one α


def test_intervals_are_over_draws(finished: Path) -> None:
    results = pd.read_csv(finished / "results.csv")
    here = results[(results["set"] == "test-seen") & results["source"].isna()]
    compared = pd.read_csv(finished / "comparisons.csv")
    assert set(compared[compared["question"] == "variant"]["a"]) == {
        "Variant: everything",
        "Variant: other",
    }
    student = here[here["role"] == "student"].set_index("seed")["auc"]
    varied = here[here["role"] == "variant everything"].set_index("seed")["auc"]
    expected = paired_difference(varied, student)
    line = compared[compared["a"] == "Variant: everything"].iloc[0]
    np.testing.assert_allclose(line["mean"], expected.mean, atol=1e-5)
    np.testing.assert_allclose(
        [line["low"], line["high"]], [expected.low, expected.high], rtol=1e-4
    )
    assert line["image_low"] == line["low"]


def test_the_report_says_that_seeds_are_draws(finished: Path) -> None:
    html = (finished / "report.html").read_text()
    assert "new draw of the data" in html
    assert "tiny forgeries" in html
    assert "Variant everything" in html
    for name in ("Soft labels", "Mixed, no Teacher"):
        assert name in html


def test_every_student_of_a_draw_was_marked_on_that_draw(finished: Path) -> None:
    plan = reopen(finished).first
    protocol = plan.protocol
    for seed in (0, 1):
        teacher = teachers_of(protocol.study)[0]
        steps = variant_run(protocol, "everything", teacher, "test_byobnet", Setting(0.1), seed)
        store = read_store(protocol.maps_folder(steps[-2].id), ("map", "score", "agreement"))
        table = protocol.workspaces.of(seed).manifest.table
        assert set(store.paths) == set(table.loc[table["split"] == "train", "name"])
        assert store.agreement is not None
        assert store.agreement.min() >= -1
    shares = gather(plan).shares
    assert set(shares["key"]) == {"student", "variant everything", "variant other"}


def test_the_study_as_written_reads_back(finished: Path) -> None:
    again = load_config(finished / "study.yaml", StudyConfig)
    assert again.variants["everything"].post is not None
    assert again.variants["everything"].human_post is not None
    assert again.variants["other"].distance == "kl"
    assert again.draws
