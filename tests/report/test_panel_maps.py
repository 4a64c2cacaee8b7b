"""Panels show the maps that the Student's guidance compares, and none that is noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from preceptor.config.run import RiseSettings
from preceptor.inference.annotate import rise_rows
from preceptor.inference.predict import predict
from preceptor.maps.store import largest_error
from preceptor.models.build import build_model, load_model, save_model
from preceptor.models.guided_model import GuidedModel
from preceptor.report import panels as panels_module
from preceptor.report.panels import MOST_MASKS, Panels, choose_rows, make_panels, model_maps
from preceptor.report.write import write_results
from preceptor.results.domain import gather_study
from preceptor.saliency.maps import normalize
from preceptor.study.plan import Plan, StudyPlan
from tests.datasets import squares
from tests.studies import study, walk, write_down


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose scores change from image to image."""
    folder = tmp_path_factory.mktemp("model") / "model"
    made = build_model(
        "test_byobnet",
        ["marked", "plain"],
        input_size=32,
        positive="marked",
        backbone_args={"output_stride": 8},
    )
    save_model(made, folder)
    return folder


def written(folder: Path, model: Path, **values: Any) -> Plan:
    """A study whose scores are written down, and whose models are one model."""
    training = {"input_size": 32, "epochs": 1, "batch_size": 8, "schedule": "constant"}
    training |= values.pop("training", {})
    values = {"controls": (), "ceiling": False} | values  # which no panel shows
    config = study(squares(folder / "data"), training=training, **values)
    plan = walk(config, folder / "store", compute=False)
    write_down(StudyPlan.of(plan), lambda arm, seed: 1.0 + seed, model)
    return plan


def drawn_panels(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> tuple[Panels, dict[str, list[np.ndarray]]]:
    """Six panels, and the maps that they draw, by model."""
    drawn: dict[str, list[np.ndarray]] = {}
    results = gather_study(StudyPlan.of(plan)).first
    draw = panels_module._layers

    def keep(entry: Any, row: int, looks: Any, fit: Any) -> Any:
        for heading, look in looks.items():
            drawn.setdefault(heading, []).append(look.maps.get(row))
        return draw(entry, row, looks, fit)

    monkeypatch.setattr(panels_module, "_layers", keep)
    found = make_panels(plan, results, 6)
    assert found is not None
    return found, drawn


def test_the_maps_of_a_mapper_are_called_so(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = written(tmp_path, model, mapper=True, teacher_alphas=(), data_driven=False)
    found, _ = drawn_panels(plan, monkeypatch)
    assert found.teacher == "test_byobnet mapper; its maps are the probability of a mark"


@pytest.mark.parametrize("cam_class", ["label", "decision"])
def test_panels_show_the_maps_that_guidance_compares(
    tmp_path: Path, model: Path, cam_class: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = written(tmp_path, model, training={"cam_class": cam_class})
    found, drawn = drawn_panels(plan, monkeypatch)
    assert set(drawn) == {"Teacher", "Student", "Baseline 2"}
    assert found.maps == cam_class
    network = load_model(model)
    workspace = plan.protocol.workspaces.first
    table = workspace.manifest.table
    rows = np.array([table.index[table["name"] == one.name][0] for one in found.panels])
    data = workspace.rows(rows, network.spec.image_format)
    cams = predict(network, data, cams=cam_class).cams
    assert cams is not None
    other = predict(network, data, cams="decision" if cam_class == "label" else "label").cams
    assert other is not None
    for maps in drawn.values():
        np.testing.assert_allclose(np.stack(maps), normalize(cams).numpy(), atol=1e-5)
        assert not np.allclose(np.stack(maps), normalize(other).numpy(), atol=1e-2)
    out = tmp_path / "out"
    write_results(StudyPlan.of(plan), out, {})
    page = (out / "report.html").read_text(encoding="utf-8")
    words = "maps of the label's class:" if cam_class == "label" else "decision maps of the label ("
    assert f"<p>Images with the {words}" in page


def test_maps_of_rise_that_have_not_settled_are_not_drawn(tmp_path: Path, model: Path) -> None:
    plan = written(tmp_path, model, saliency=["rise"])
    network = load_model(model)
    workspace = plan.protocol.workspaces.first
    rows = np.flatnonzero(workspace.manifest.table["split"] == "test-unseen")[:4]
    assert plan.protocol.study.rise.max_masks > MOST_MASKS

    def settled_rows(network: GuidedModel) -> tuple[set[int], set[int]]:
        found = model_maps(plan, workspace, network, rows, "label", "rise")
        data = workspace.rows(rows, network.spec.image_format)
        direct = rise_rows(network, data, data.labels, RiseSettings(max_masks=MOST_MASKS))
        assert int(direct.masks_used.max()) <= MOST_MASKS
        good = direct.error.numpy() <= largest_error(0.05)
        assert found.maps.keys() == {*rows[good].tolist()}
        assert found.unsettled == {*rows[~good].tolist()}
        return {*found.maps}, {*found.unsettled}

    settled_rows(network)
    constant = load_model(model)
    constant.head.weight.detach().zero_()
    assert settled_rows(constant) == (set(), {*rows.tolist()})
    save_model(constant, tmp_path / "constant")
    constant_plan = written(tmp_path / "own", tmp_path / "constant", saliency=["rise"])
    results = gather_study(StudyPlan.of(constant_plan)).first
    found = make_panels(constant_plan, results, 4)
    assert found is not None
    for panel in found.panels:
        (teacher,) = (one for one in panel.layers if one.heading == "Teacher")
        assert (teacher.uri, teacher.note) == (None, "not settled")


def test_names_of_remote_images_are_shown_without_credentials(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = written(tmp_path, model)
    results = gather_study(StudyPlan.of(plan)).first
    make = panels_module._layers

    def remote(entry: pd.Series, *others: Any) -> Any:
        found = make(entry, *others)
        entry["name"] = f"https://me:secret@host/{entry['name']}?signature=1"
        return found

    monkeypatch.setattr(panels_module, "_layers", remote)
    found = make_panels(plan, results, 4)
    assert found is not None
    assert all(one.name.startswith("https://host/") for one in found.panels)
    assert not any("secret" in one.name or "signature" in one.name for one in found.panels)


def frame(count: int, mapped: list[bool]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "name": [f"{number}.png" for number in range(count)],
            "label": ["x"] * count,
            "source": [f"s{number % 3}" for number in range(count)],
            "mapped": mapped,
        }
    )


def test_panels_are_half_hits_half_misses_with_maps_first() -> None:
    mapped = [number % 2 == 0 for number in range(60)]
    hit = np.array([number % 3 != 0 for number in range(60)])
    chosen = choose_rows(frame(60, mapped), hit, 12)
    assert [bool(hit[place]) for place in chosen] == [True] * 6 + [False] * 6
    assert all(mapped[place] for place in chosen)
    assert chosen == choose_rows(frame(60, mapped), hit, 12)
    assert {place % 3 for place in chosen[:6]} == {1, 2}
