from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from preceptor.annotations.agreement import pearson, read_annotators
from preceptor.data.manifest import Manifest
from preceptor.report.annotators_on_grid import (
    Grid,
    agreement_on_grid,
    annotator_sentence,
    attainable_correlation,
    folder_of,
)
from preceptor.report.page import chapter
from preceptor.report.tables import domain_tables
from preceptor.report.words import study_findings
from preceptor.results.domain import gather_study
from tests.annotations.trees import annotated_folder
from tests.report.conftest import Written, effect, plans_of
from tests.studies import write_down


def cells(pixels: np.ndarray, rows: int, columns: int) -> np.ndarray:
    height, width = pixels.shape
    return pixels.reshape(rows, height // rows, columns, width // columns).mean(axis=(1, 3))


def test_each_map_is_compared_with_the_mean_of_the_others_on_the_grid(tmp_path: Path) -> None:
    folder = annotated_folder(tmp_path / "a")
    manifest = Manifest.read(folder / "manifest.csv", need=())
    found = agreement_on_grid(read_annotators(folder), manifest, Grid(8, 10, "squash", 224))
    values, attainable = [], []
    for number in (2, 6):  # the validation images
        own = [
            cells(np.asarray(Image.open(folder / "annotators" / name / f"{number}.png")), 8, 10)
            for name in ("ann", "bo", "cy")
        ]
        values += [
            np.corrcoef(own[k].ravel(), (own[k - 1] + own[k - 2]).ravel())[0, 1] for k in range(3)
        ]
        pairs = np.mean(np.corrcoef([one.ravel() for one in own])[np.triu_indices(3, 1)])
        attainable.append(np.sqrt(3 * pairs / (1 + 2 * pairs)))
    assert found.images == 2
    assert found.with_others == pytest.approx(np.mean(values), abs=1e-6)
    assert found.attainable == pytest.approx(np.mean(attainable), abs=1e-6)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_a_map_of_what_people_have_in_common_is_above_the_agreement_of_people(count: int) -> None:
    """Maps of a common part and independent errors of equal variance, on 49 cells."""
    draws = np.random.default_rng(count)
    reached, others, predicted = [], [], []
    for _ in range(400):
        true = draws.normal(size=49)
        own = true + draws.normal(size=(count, 49))
        total = own.sum(0)
        reached.append(pearson(true, total / count))
        others.append(np.mean([pearson(one, (total - one) / (count - 1)) for one in own]))
        pairs = np.corrcoef(own)[np.triu_indices(count, 1)].mean()
        predicted.append(attainable_correlation(float(pairs), count))
    assert np.mean(reached) > np.mean(others) + 0.2
    assert np.mean(reached) == pytest.approx(np.mean(predicted), abs=0.02)
    assert attainable_correlation(-0.1, count) == 0


def test_the_report_has_it_beside_the_teachers_agreement(
    two_domains: Written, tmp_path: Path
) -> None:
    own = plans_of(Path(shutil.copytree(two_domains.out.parent, tmp_path / "own")))
    write_down(own, effect)  # all has finished: its choices are made
    name, plan = next(iter(own.plans.items()))
    manifest = plan.protocol.workspaces.first.manifest
    folder = Path(str(manifest.source)).parent
    assert folder_of(manifest) is None
    assert annotator_sentence(plan) == ""
    for person in ("ann", "bo"):
        shutil.copytree(folder / "maps", folder / "annotators" / person)
    sentence = annotator_sentence(plan)
    found = gather_study(own)
    findings = study_findings(own, found)
    results = found.by_domain[name]
    made = chapter(plan, results, findings.by_domain[name], domain_tables(plan, results), None, "")
    assert "on 6 validation images with several annotators" in sentence
    assert "correlation of 1.00 with the mean of the others' maps, on the grid of the" in sentence
    assert "selected Teacher (4 × 4)" in sentence
    assert "would have a correlation of 1.00 (Spearman-Brown)" in sentence
    (section,) = (one for one in made.sections if one.key == "rq1")
    assert sentence in [getattr(block, "text", "") for block in section.blocks]
