"""Plugins by entry points: the example package, installed, and packages that are wrong."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from preceptor.config.run import RunConfig
from preceptor.config.training import Training
from preceptor.data.workspace import Workspace
from preceptor.errors import InputError
from preceptor.losses.guidance import (
    GuidanceBatch,
    GuidedForward,
    guidance_method,
    guided_objective,
)
from preceptor.losses.guided import GuidedLoss, _plugin_distance
from preceptor.maps.store import read_store
from preceptor.models.build import build_model, load_model
from preceptor.study_folder import reopen
from preceptor.training.prepare import run_id_of
from preceptor.training.run import train
from preceptor.utils.plugins import load_plugin, plugin, registered
from tests.datasets import squares
from tests.studies import run_serially, study

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the example package as pip installs it."""
    folder = tmp_path_factory.mktemp("site")
    subprocess.run(
        [
            sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
            "--no-deps", "--no-build-isolation", "--no-compile", "--target", folder,
            ROOT / "examples" / "plugin",
        ],
        check=True,
    )  # fmt: skip
    return folder


@pytest.fixture
def example(installed: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The example package can be imported."""
    monkeypatch.syspath_prepend(installed)
    _plugin_distance.cache_clear()
    yield
    _plugin_distance.cache_clear()
    for name in [name for name in sys.modules if name.startswith("preceptor_example")]:
        del sys.modules[name]


def offer(folder: Path, package: str, group: str, line: str) -> None:
    """Write the metadata of a package that offers one plugin."""
    metadata = folder / f"{package}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[{group}]\n{line}\n")


def test_a_run_with_backbone_and_distance_of_a_plugin(example: None, tmp_path: Path) -> None:
    manifest = squares(tmp_path / "data")
    config = RunConfig(
        manifest=manifest, backbone="example_net", backbone_args={"width": 4}, positive="marked",
        training=Training(input_size=32, epochs=1, batch_size=8, distance="huber"),
    )  # fmt: skip
    run = train(config, tmp_path / "runs")
    spec = load_model(run.folder / "model").spec
    assert (spec.backbone, spec.cam) == ("example_net", "cam")
    assert (spec.factory, spec.backbone_args) == (
        "preceptor_example.network:example_net",
        {"width": 4},
    )
    plain = config.model_copy(
        update={"training": config.training.model_copy(update={"distance": "l2"})}
    )
    workspace = Workspace.open(manifest, tmp_path / "cache")
    assert run_id_of(workspace, config) == run.folder.name != run_id_of(workspace, plain)


@pytest.mark.parametrize("own", [{"distance": "huber"}, {"method": "area", "preset": "twice"}])
def test_the_source_of_a_plugin_is_in_the_id(
    example: None, installed: Path, tmp_path: Path, own: dict[str, Any]
) -> None:
    manifest = squares(tmp_path / "data")
    config = RunConfig(
        manifest=manifest, backbone="example_net", positive="marked",
        training=Training(input_size=32, epochs=1, batch_size=8, **own),
    )  # fmt: skip
    workspace = Workspace.open(manifest, tmp_path / "cache")
    before = run_id_of(workspace, config)
    assert train(config, tmp_path / "runs").record.guided_images == 12
    for name in ("network", "guidance" if "method" in own else "distance"):
        file = installed / "preceptor_example" / f"{name}.py"
        text = file.read_text()
        file.write_text(f"{text}\n# changed\n")
        try:
            assert run_id_of(workspace, config) != before
        finally:
            file.write_text(text)
    assert run_id_of(workspace, config) == before


def test_a_distance_of_a_plugin_in_the_loss(example: None) -> None:
    cam, maps = torch.rand(3, 4, 4, requires_grad=True), torch.rand(3, 4, 4)
    logits, labels = torch.zeros(3, 2), torch.tensor([0, 1, 0])
    loss = GuidedLoss(alpha=0.0, distance="huber")(logits, labels, cam, maps)
    assert loss > 0
    mixed = GuidedLoss(alpha=0.0, distance={"huber": 2.0, "l2": 1.0})(logits, labels, cam, maps)
    alone = GuidedLoss(alpha=0.0, distance="l2")(logits, labels, cam, maps)
    torch.testing.assert_close(mixed, 2 * loss + alone)


def test_a_guidance_method_of_a_plugin(example: None) -> None:
    model = build_model("test_resnet", ["a", "b"], input_size=64)
    maps = torch.tensor([[1.0, 0], [0, 0]]).expand(2, 2, 2)
    batch = GuidanceBatch(torch.randn(2, 3, 64, 64), torch.tensor([0, 1]), maps)
    found = [
        guided_objective(guidance_method("area", preset), batch, GuidedForward(model), 0.5, 1)
        for preset in (None, "twice")
    ]
    once, twice = (one.terms["area"] for one in found)
    areas = once + 0.25  # an area of at most 3 of 4 cells, and at least one
    torch.testing.assert_close(twice, (areas - 0.5).abs())
    with pytest.raises(InputError, match="guidance area: preset 'x' is not one of twice"):
        guidance_method("area", "x")


def test_a_study_with_a_saliency_method_of_a_plugin(
    example: None, installed: Path, tmp_path: Path
) -> None:
    config = study(
        squares(tmp_path / "data"), seeds=1, saliency=("gradients",), controls=(),
        ceiling=False,
    )  # fmt: skip
    out = tmp_path / "out"
    result = run_serially(config, out)
    assert not result.failed
    assert "the method gradients of a plugin" in (out / "report.html").read_text()
    (store,) = (out / "store" / "maps").iterdir()
    made = read_store(store)
    assert (made.info.method, made.maps.shape[1:]) == ("gradients", (4, 4))
    # The source of the plugin is in the ids of the maps, and of what is guided by them.
    ids = {step.id for step in reopen(out).first.steps.values()}
    file = installed / "preceptor_example" / "saliency.py"
    text = file.read_text()
    file.write_text(f"{text}\n# changed\n")
    try:
        assert {step.id for step in reopen(out).first.steps.values()} != ids
    finally:
        file.write_text(text)


def test_unknown_names_list_those_of_plugins(example: None) -> None:
    with pytest.raises(ValidationError, match=r"not one of l2, .*, huber"):
        Training(distance="hubert")
    with pytest.raises(ValidationError, match=r"not one of cam, rise, cells, gradients"):
        study(Path("m.csv"), saliency=("gradient",))
    with pytest.raises(ValidationError, match="cells are the maps of a mapper"):
        study(Path("m.csv"), saliency=("cells",))
    with pytest.raises(InputError, match="near names: example_net"):
        build_model("example_nets", ["a", "b"])


def test_packages_that_are_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(tmp_path, "one", "preceptor.backbones", "net = one.nets:net")
    offer(tmp_path, "two", "preceptor.backbones", "net = two.nets:net")
    offer(tmp_path, "three", "preceptor.distances", "far = not_there_at_all:far")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError) as found:
        build_model("net", ["a", "b"])
    assert str(found.value) == (
        "net: one (one.nets:net) and two (two.nets:net) both offer it in preceptor.backbones; "
        "uninstall one of them"
    )
    assert build_model("test_resnet", ["a", "b"], input_size=64).spec.factory == ""
    far = plugin("preceptor.distances", "far")
    assert far is not None
    with pytest.raises(InputError, match="far: the plugin not_there_at_all:far of three cannot"):
        load_plugin(far)
    assert plugin("preceptor.distances", "near") is None
    assert list(registered("preceptor.backbones")) == ["net"]
