"""Ids of runs: what changes one, what does not, and a finished run is taken from the store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from preceptor.config.run import MapSource, RunConfig
from preceptor.data.workspace import Workspace
from preceptor.losses.guidance import METHODS, catalogue
from preceptor.training.prepare import files_digest, guided_rows, run_id, run_id_of
from preceptor.training.run import build_untrained
from preceptor.utils.results import digest
from tests.training.small_runs import SMALL, small


def test_ids_mean_what_is_computed(manifest: Path, tmp_path: Path) -> None:
    workspace = Workspace.open(manifest, tmp_path)

    def identity(config: RunConfig, **training: Any) -> str:
        settings = config.training.model_copy(update=training)
        return run_id_of(workspace, config.model_copy(update={"training": settings}))

    base = small(manifest)
    same = identity(base)
    assert identity(base, device="cpu") == same
    assert identity(base, cache="none") == same
    assert identity(base, threads=2) != same
    assert identity(base, precision="bf16-mixed") != same
    assert identity(small(manifest, seed=1)) != same
    assert identity(small(manifest, alpha=0.1)) != same
    # Plain classes have no human maps, so guiding only the marked class is the same run.
    assert identity(small(manifest, guide_classes=("marked",))) == same
    # α does not matter where nothing guides, nor does the distance.
    plain = small(manifest, maps=MapSource(kind="none"))
    assert identity(plain) == identity(small(manifest, alpha=1.0))
    assert identity(plain, distance="mse") == identity(plain)
    # The agreement of its maps is measured by decision maps, if they are those of the settings.
    assert identity(plain, cam_class="predicted") == identity(plain)
    assert identity(plain, cam_class="decision") != identity(plain)
    # All annotated images and all images differ, and so does the draw.
    few = small(manifest, rows="annotated", annotated=0.5)
    assert len({identity(few), same, identity(few.model_copy(update={"annotated_seed": 1}))}) == 3


def test_masks_of_other_classes_change_the_id(manifest: Path, tmp_path: Path) -> None:
    """Examined images of a class without maps are guided by masks that are 1 everywhere."""
    workspace = Workspace.open(manifest, tmp_path)
    cells = SMALL.model_copy(update={"distance": "cells", "cam_class": "decision"})
    chosen: list[tuple[str, ...] | None] = [None, ("marked",), ("marked", "plain")]
    configs = [small(manifest, training=cells, guide_classes=one) for one in chosen]
    model = build_untrained(workspace, configs[0])
    weights = [guided_rows(workspace, one, model).targets for one in configs]
    guided = [0 if one is None else int((one.weight > 0).sum()) for one in weights]
    assert guided == [24, 12, 24]
    ids = [run_id_of(workspace, one) for one in configs]
    assert ids[1] not in (ids[0], ids[2])


@pytest.mark.parametrize("alpha", [0.1, 1.0])
def test_marks_that_are_labels_change_the_id(manifest: Path, tmp_path: Path, alpha: float) -> None:
    cells = SMALL.model_copy(update={"distance": "cells", "cam_class": "decision"})
    config = small(manifest, training=cells, labels="marks", rows="annotated", alpha=alpha)
    table = pd.read_csv(manifest)
    row = table.index[(table["split"] == "train") & table["saliency"].notna()][0]
    table.loc[row, "saliency"], table["annotated"] = None, 1
    less = manifest.with_name("less.csv")
    table.to_csv(less, index=False)
    ids = {run_id_of(Workspace.open(one, tmp_path), config) for one in (manifest, less)}
    assert len(ids) == 2


def test_files_in_lists_and_mappings_of_arguments_count(tmp_path: Path) -> None:
    file = tmp_path / "layers.json"

    def digests(content: str) -> list[str]:
        file.write_text(content)
        name = str(file)
        nested = ({"a": {"b": name}}, {"a": [1, name]}, {"a": [{"b": [name]}]})
        return [files_digest(one) for one in ({"a": name}, *nested)]

    one, other = digests("1"), digests("2")
    assert all(one)
    assert all(a != b for a, b in zip(one, other, strict=True))
    assert len(set(one)) == len(one)
    assert files_digest({"a": {"b": 1}, "c": ["text", {"d": None}]}) == ""


def test_maps_below_a_linked_folder_are_part_of_the_id(manifest: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "linked").symlink_to(tmp_path / "disk")
    config = small(manifest, maps={"kind": "store", "path": tmp_path / "maps"}, alpha=0.5)

    def id_with(name: str, content: str) -> str:
        (tmp_path / "disk" / name).write_text(content)
        return run_id_of(Workspace.open(manifest, tmp_path / "cache"), config)

    first = id_with("a.png", "1")
    assert first != id_with("a.png", "2")
    assert first == id_with("a.png", "1") == id_with(".DS_Store", "1")


def run(**values: Any) -> RunConfig:
    return RunConfig.model_validate({"manifest": "/m", "backbone": "b"} | values)


def identity(**values: Any) -> str:
    return run_id(run(**values), "rows", "none")


def test_the_defaults_are_those_that_ids_leave_out() -> None:
    advice = (
        "a key was added or removed: change the hash here; a default changed: raise NUMERICS in "
        "preceptor.training.prepare as well, since ids leave defaults out"
    )
    assert digest(run().model_dump(mode="json")) == "6e7a6140813e9748a0ac", advice


def test_a_default_that_is_written_changes_nothing() -> None:
    assert identity(**run().model_dump(mode="json")) == identity()
    assert identity(training={"recipe": "paper"}) == identity(training={"lr": 0.005})
    assert identity(training={"recipe": "cyborg"}) != identity()


@pytest.mark.parametrize(
    "values",
    [
        {"maps": {"kind": "centre"}},
        {"guide_classes": ("a",)},
        {"training": {"distance": "mse"}},
        {"training": {"distance": "kl"}},
        {"training": {"cam_class": "predicted"}},
    ],
    ids=str,
)
def test_what_guides_is_part_of_the_id_of_a_guided_run_alone(values: dict[str, Any]) -> None:
    assert identity(**values) != identity()
    assert identity(**values, alpha=1.0) == identity(alpha=1.0)
    plain = {"maps": {"kind": "none"}}
    assert identity(**(values | plain)) == identity(alpha=1.0)


def test_the_outside_of_maps_is_part_of_the_id_where_there_are_maps() -> None:
    def changed(**values: Any) -> dict[str, Any]:
        return {"training": {"augmentation": values}}

    assert identity(maps={"kind": "none"}, **changed(outside="noise")) == identity(alpha=1.0)
    settings: list[dict[str, Any]] = [
        {},
        {"outside": "noise"},
        {"outside": "mean"},
        {"outside": "noise", "outside_rate": 0.4},
    ]
    for alpha in (0.5, 1.0):
        assert len({identity(alpha=alpha, **changed(**one)) for one in settings}) == 4
        noisy = changed(outside="noise")
        assert identity(alpha=alpha, **noisy) != identity(alpha=alpha)
    # Without a guidance term, the distance has no effect.
    masked = {"outside": "noise"}
    distance = {"training": {"distance": "mse", "augmentation": masked}}
    assert identity(alpha=1.0, **distance) == identity(alpha=1.0, **changed(**masked))
    # Without maps, or never drawn, nothing is changed.
    for one in settings:
        assert identity(maps={"kind": "none"}, **changed(**one)) == identity(alpha=1.0)
        assert identity(**changed(**(one | {"outside_rate": 0}))) == identity()


def test_what_a_guidance_method_computes_is_part_of_the_id(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"manifest": "/m.csv", "backbone": "a", "alpha": 0.5}

    def identity(**training: Any) -> str:
        return run_id(RunConfig.model_validate(values | {"training": training}), "rows", "none")

    rrr = {"method": "gradient", "preset": "xil"}
    before = identity(**rrr)
    own = {"method": "gradient", "preset": {"scalar": "logp", "penalty": "square_sum"}}
    assert identity(**own) == before  # the same settings by another name
    with monkeypatch.context() as changed:
        changed.setitem(catalogue()["gradient"]["presets"], "xil", {"settings": {"scalar": "ce"}})
        assert identity(**rrr) != before
    monkeypatch.setattr(METHODS["gradient"], "numerics", 2)
    assert identity(**rrr) != before
