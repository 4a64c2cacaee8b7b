"""`benchmarks/evidence.py` on a real study of two tiny draws: its numbers, and what it refuses."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import stats

from preceptor.benchmark.forged import write_draws
from preceptor.benchmark.forged_settings import PRESETS
from preceptor.config.yaml_file import parse_config
from preceptor.evaluation.auc import auc
from preceptor.evaluation.share_of_the_way import ShareResult
from preceptor.maps.store import read_store
from preceptor.runtime.result_folder import read_scores
from preceptor.study.config import StudyConfig
from preceptor.study.setting import Setting
from preceptor.study.student_runs import student_run
from preceptor.study.teacher import teachers_of
from preceptor.study_folder import reopen
from tests.datasets import FORGED_STUDY
from tests.studies import run_serially

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import evidence
from evidence_tables import percent

TESTS = ("test-seen", "test-unseen")
SETTINGS: dict[str, Any] = FORGED_STUDY | {
    "primary": "test-seen",
    "alphas": [0.5, 0.1],
    "data_driven": False,
    "controls": ["shuffled"],
    "variants": {"kept": {"human_maps": "keep"}},
    "training": {"input_size": 32, "epochs": 1, "batch_size": 16, "lr": 0.01},
}
KINDS = ("main", "comparisons", "shares", "levers", "maps", "selection")
TITLES = {
    "baseline1": "Baseline 1 at its best α",
    "baseline2": "Baseline 2: all images, no guidance",
    "student": "Student: all images, Teacher's maps",
    "shuffled": "Control: the same maps, shuffled",
    "ceiling": "Ceiling: all images, all human maps",
}


def page_of(*blocks: str) -> str:
    return "# Title\n\nProse.\n" + "\n".join(
        f"\n<!-- evidence: {block} -->\nold\n<!-- end -->\n\nMore prose.\n" for block in blocks
    )


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("skimage", reason="the forged photographs are scikit-image's")
    folder = tmp_path_factory.mktemp("evidence")
    manifest = write_draws(folder / "draws", PRESETS["tiny"], [0, 1])
    config = parse_config(SETTINGS | {"manifest": manifest}, StudyConfig)
    result = run_serially(config, folder / "study")
    assert not result.failed
    return folder / "study"


@pytest.fixture(scope="module")
def page(study: Path) -> Path:
    """A page with every block, filled before any candidate but the chosen ones is scored."""
    file = study.parent / "docs" / "evidence.md"
    file.parent.mkdir()
    file.write_text(page_of(*(f"{kind} forged" for kind in KINDS), "main tiles"))
    assert evidence.main([f"forged={study}", "--doc", str(file)]) == 0
    return file


@pytest.fixture(scope="module")
def results(study: Path) -> pd.DataFrame:
    table = pd.read_csv(study / "results.csv")
    return table[table["source"].isna()]


def block(page: Path, kind: str, study: str = "forged") -> str:
    found = re.search(
        rf"<!-- evidence: {kind} {study} -->(.*?)<!-- end -->", page.read_text(), re.S
    )
    assert found is not None
    return found[1]


def tables(text: str) -> list[dict[str, list[str]]]:
    """Each Markdown table: the cells of a line by its first cell."""
    found = re.findall(r"(?:^\|.*\n?)+", text, re.M)
    return [
        {
            cells[0]: cells[1:]
            for cells in (
                [cell.strip() for cell in line.strip("|").split(" | ")]
                for line in one.strip().split("\n")
            )
        }
        for one in found
    ]


def numbers(cell: str) -> list[float]:
    return [float(one) for one in re.findall(r"[+-]?\d+\.?\d*", cell.replace("−", "-"))]


def chosen(study: Path, key: str) -> float:
    """The α of a line, from selection.json."""
    if key == "baseline2":
        return 1.0
    role = key if key in ("baseline1", "ceiling", "shuffled") else "student"
    choice = pd.read_json(study / "selection.json", typ="series")[f"{role}:test_byobnet"]
    return float(choice["winner"].removeprefix("α "))


def by_seed(study: Path, results: pd.DataFrame, key: str, name: str) -> np.ndarray:
    part = results[(results["role"] == key) & (results["set"] == name)]
    part = part[part["alpha"] == chosen(study, key)].sort_values("seed")
    assert list(part["seed"]) == [0, 1]
    return part["auc"].to_numpy()


def t_interval(values: np.ndarray) -> list[float]:
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return [values.mean() - half, values.mean() + half]


def close(cell: str, expected: list[float]) -> None:
    np.testing.assert_allclose(numbers(cell)[: len(expected)], expected, atol=6e-4)


def test_main_equals_the_results(page: Path, study: Path, results: pd.DataFrame) -> None:
    found = tables(block(page, "main"))
    assert len(found) == 2
    for table, name in zip(found, TESTS, strict=True):
        assert not any("kept" in title for title in table)
        for key, title in TITLES.items():
            values = by_seed(study, results, key, name)
            close(table[title][0], [values.mean(), values.std(ddof=1), *t_interval(values)])


def test_comparisons_equal_the_results(page: Path, study: Path, results: pd.DataFrame) -> None:
    found = tables(block(page, "comparisons"))
    own = pd.read_csv(study / "comparisons.csv").set_index("b")
    for table, name in zip(found, TESTS, strict=True):
        student = by_seed(study, results, "student", name)
        for key, title in TITLES.items():
            if key == "student":
                continue
            values = student - by_seed(study, results, key, name)
            close(table[title][0], [values.mean(), *t_interval(values)])
            assert table[title][1] == f"{(values > 0).sum()} of 2"
            assert float(table[title][2]) in (0.5, 1)
    assert "p cannot fall below 0.5" in block(page, "comparisons")
    seen, unseen = found
    assert float(seen[TITLES["baseline2"]][3]) == own.loc[TITLES["baseline2"], "p_holm"]
    assert seen[TITLES["ceiling"]][3] == ""
    assert len(unseen[TITLES["baseline2"]]) == 3


def test_levers_equal_the_results(page: Path, study: Path, results: pd.DataFrame) -> None:
    (table,) = tables(block(page, "levers"))
    alpha = chosen(study, "student")
    words, worst, *cells = table["Variant kept"]
    assert words == "`human_maps: keep`"
    sets = ("val", "val-noshort", *TESTS)
    varied = results[(results["role"] == "variant kept") & (results["alpha"] == alpha)]
    means = []
    for name, cell in zip(sets, cells, strict=True):
        ours = varied[varied["set"] == name].sort_values("seed")["auc"].to_numpy()
        theirs = by_seed(study, results, "student", name)
        close(cell, [(ours - theirs).mean(), *t_interval(ours - theirs)])
        assert cell.endswith(f", {(ours > theirs).sum()} of 2")
        means.append((ours.mean(), theirs.mean()))
    close(worst, [min(one for one, _ in means[:2]) - min(one for _, one in means[:2])])
    assert "Scale: Baseline 2" in table


def test_shares_are_those_of_the_study_on_the_primary_set(page: Path, study: Path) -> None:
    (table,) = tables(block(page, "shares"))
    assert set(table) >= {"Student", "Variant kept"}
    said = (study / "summary.json").read_text()
    cell = table["Student"][0]
    if cell == "none":
        assert "share of the way to the ceiling of the Student is not given" in said
        reason = re.search(r"None on test-seen, test_byobnet: (.*)\.", block(page, "shares"))
        assert reason is not None
        assert reason[1] in said
    else:
        share = cell.split(" [")[0]
        assert share.replace(" %", "%").replace("−", "-") in said


def test_a_share_is_a_percentage_whose_interval_may_be_open() -> None:
    assert percent(ShareResult(0.624, -0.1, np.inf, "")) == "62 % [−10 %, ∞]"
    assert percent(ShareResult(None, None, None, "why")) == "none"
    assert percent(None) == "none"


def test_maps_are_compared_with_unused_human_maps(page: Path, study: Path) -> None:
    (table,) = tables(block(page, "maps"))
    assert "Student, Variant kept" in table, "keeping human maps leaves the store as it is"
    plan = reopen(study).first
    found = []
    for seed in (0, 1):
        chain = student_run(
            plan.protocol, teachers_of(plan.protocol.study)[0], "test_byobnet", Setting(0.5), seed
        )
        store = read_store(plan.protocol.maps_folder(chain[-2].id))
        manifest = plan.protocol.workspaces.of(seed).manifest
        seen = plan.protocol.workspaces.of(seed).annotated(
            plan.protocol.config("test_byobnet", seed)
        )
        values = {}
        for row, line in enumerate(manifest.table.itertuples()):
            if line.split == "train" and line.saliency and not seen[row]:
                position = list(store.paths).index(line.name)
                marked = store.maps[position].astype(float)
                side = 32 // len(marked)
                human = np.asarray(Image.open(line.saliency), float)
                human = human.reshape(len(marked), side, len(marked), side).mean((1, 3))
                correlation = np.corrcoef(marked.ravel(), human.ravel())[0, 1]
                values[position] = store.scores[position], correlation
        assert len(values) == 12  # half of 24 forged images are annotated
        rising = [correlation for _, correlation in sorted(values.values())]
        quarters = np.reshape(rising, (4, 3)).mean(1)
        found.append([np.mean(rising), *quarters])
    expected = np.mean(found, 0)
    cells = table["Student, Variant kept"]
    np.testing.assert_allclose([numbers(cell)[0] for cell in cells[:5]], expected, atol=0.005)


def test_figures_are_drawn_and_named(page: Path) -> None:
    for kind in ("main", "levers"):
        assert f"](images/evidence-forged-{kind}.svg)" in block(page, kind)
        picture = page.parent / "images" / f"evidence-forged-{kind}.svg"
        root = ElementTree.parse(picture).getroot()
        space = "{http://www.w3.org/2000/svg}"
        assert len(root.findall(f"{space}svg")) == 2, "a panel a test set"
        dots = len(list(root.iter(f"{space}circle")))
        assert dots == (2 * 6 * 2 if kind == "main" else 2)
    assert not list(page.parent.glob("images/*tiles*"))


def test_another_studys_block_and_the_prose_stay(page: Path) -> None:
    assert block(page, "main", "tiles") == "\nold\n"
    assert page.read_text().count("More prose.") == len(KINDS) + 1
    assert page.read_text().startswith("# Title\n\nProse.\n")


def test_twice_gives_the_same_bytes(page: Path, study: Path) -> None:
    def contents() -> dict[Path, bytes]:
        return {file: file.read_bytes() for file in page.parent.rglob("*") if file.is_file()}

    before = contents()
    assert evidence.main([f"forged={study}", "--doc", str(page)]) == 0
    assert contents() == before


def test_a_block_need_not_have_been_filled_once(page: Path, study: Path, tmp_path: Path) -> None:
    file = tmp_path / "evidence.md"
    file.write_text("<!-- evidence: main forged --><!-- end -->")
    assert evidence.main([f"forged={study}", "--doc", str(file)]) == 0
    assert block(file, "main") == block(page, "main")


def test_a_study_that_has_not_begun_has_no_numbers(study: Path, tmp_path: Path) -> None:
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "study.yaml").write_bytes((study / "study.yaml").read_bytes())
    file = tmp_path / "evidence.md"
    file.write_text(page_of(*(f"{kind} forged" for kind in KINDS)))
    assert evidence.main([f"forged={tmp_path / 'begun'}", "--doc", str(file)]) == 0
    for kind in KINDS:
        assert block(file, kind) == "\n\nNo Student is chosen yet.\n\n"
    assert not (tmp_path / "images").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (page_of("mian forged"), "line 5: unknown block 'mian forged'"),
        (page_of("main"), "line 5: unknown block 'main'"),
        ("a\n<!-- evidence: main forged -->\n", "line 2: the block has no end"),
        ("<!-- evidence: main forged -->\n" + page_of("main forged"), "line 1: the block has no"),
        (page_of("main forged") + "<!-- end -->", "an end without a block"),
        (page_of("main tiles"), "no block of a study 'forged'"),
    ],
)
def test_bad_pages_are_refused_and_left(
    study: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    text: str,
    said: str,
) -> None:
    file = tmp_path / "evidence.md"
    file.write_text(text)
    assert evidence.main([f"forged={study}", "--doc", str(file)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert said in error
    assert file.read_text() == text
    assert [one.name for one in tmp_path.iterdir()] == ["evidence.md"]


def test_bad_arguments_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "evidence.md"
    file.write_text(page_of("main forged"))
    for given, said in (
        (["forged"], "NAME=STUDY_FOLDER"),
        ([f"forged={tmp_path}"], "not a study folder"),
        ([f"forged={tmp_path}", "--doc", str(tmp_path / "no.md")], "No such file"),
    ):
        assert evidence.main(["--doc", str(file), *given]) == 2
        assert said in capsys.readouterr().err


def test_selection_says_what_rules_cost(
    page: Path, study: Path, results: pd.DataFrame, tmp_path: Path
) -> None:
    """Last, since it scores further candidates."""
    assert "candidates are scored on the test sets" in block(page, "selection")
    file = tmp_path / "evidence.md"
    file.write_text(page_of("selection forged", "main forged"))
    assert evidence.main([f"forged={study}", "--doc", str(file), "--score-all"]) == 0
    text = block(file, "selection")
    assert "not scored" not in text
    assert "candidates are scored" not in text
    assert block(file, "main") == block(page, "main")
    lines = [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in text.split("\n")
        if line.startswith("| Student")
    ]
    plan = reopen(study).first
    found: dict[float, dict[str, list[float]]] = {0.5: {}, 0.1: {}}
    for member in plan.members_of("student"):
        for folder in (
            plan.protocol.run_folder(member.run),
            plan.protocol.evaluation_folder(plan.protocol.evaluation_id(member)),
        ):
            for name, part in read_scores(folder).groupby("split"):
                value = float(auc((part["label"] == "forged").to_numpy(), part["score_forged"]))
                found[member.arm.alpha].setdefault(str(name), []).append(value)
    means = {
        alpha: {name: np.mean(values) for name, values in sets.items()}
        for alpha, sets in found.items()
    }
    taken = {rule: float(alpha) for _, rule, alpha, *_ in lines if rule != "oracle"}
    assert list(taken) == ["val", "worst set", "val_auc", "guided"]
    assert taken["val"] == max(means, key=lambda alpha: means[alpha]["val"])
    worst = {alpha: min(sets["val"], sets["val-noshort"]) for alpha, sets in means.items()}
    assert taken["worst set"] == max(worst, key=lambda alpha: worst[alpha])
    assert taken["worst set"] == chosen(study, "student")
    best = [max(sets[name] for sets in means.values()) for name in TESTS]
    for _, rule, alpha, *cells in lines:
        for cell, name, most in zip(cells, TESTS, best, strict=True):
            own = most if rule == "oracle" else means[float(alpha)][name]
            close(cell, [own] if rule == "oracle" else [own, most - own])
