"""Plugins by entry points: the example package, installed, and packages that are wrong."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from preceptor.config.files import load_config
from preceptor.config.maps import MapSource
from preceptor.config.run import RunConfig
from preceptor.config.training import Training
from preceptor.data.workspace import Workspace
from preceptor.errors import InputError
from preceptor.losses.guided import GuidedLoss, _plugin_distance
from preceptor.maps.sources import plugin_maps
from preceptor.maps.store import read_store
from preceptor.models.build import build_model, load_model
from preceptor.study.config import Setting, added_control
from preceptor.study.protocol import teachers_of
from preceptor.study_folder import open_study, reopen
from preceptor.training.prepare import run_id_of
from preceptor.training.run import train
from preceptor.utils.plugins import load_plugin, plugin, registered
from preceptor.utils.results import read_record
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


def test_the_source_of_a_plugin_is_in_the_id(
    example: None, installed: Path, tmp_path: Path
) -> None:
    manifest = squares(tmp_path / "data")
    config = RunConfig(
        manifest=manifest, backbone="example_net", positive="marked",
        training=Training(input_size=32, epochs=1, batch_size=8, distance="huber"),
    )  # fmt: skip
    workspace = Workspace.open(manifest, tmp_path / "cache")
    before = run_id_of(workspace, config)
    for name in ("network", "distance"):
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


def test_an_importer_of_a_plugin(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for name in ("a b", "c"):
        Image.new("RGB", (32, 24), "gray").save(tmp_path / "images" / f"{name}.png")
    rows = "image,label,x,y,radius\na b.png,spot,10,12,4\n"
    (tmp_path / "circles.csv").write_text(rows)

    def imported(to: str, *further: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                sys.executable, "-m", "preceptor", "data", "import", "circles",
                tmp_path / "circles.csv", "--images", tmp_path / "images", "--to", tmp_path / to,
                "--unmarked", "examined",
            ],
            env={"PYTHONPATH": ":".join(map(str, (ROOT / "src", installed, *further)))},
            capture_output=True, text=True,
        )  # fmt: skip

    done = imported("out")
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "out" / "manifest.csv", keep_default_na=False)
    marked = table[table["saliency"] != ""].iloc[0]
    assert (marked["label"], Path(marked["path"]).name) == ("spot", "a b.png")
    pixels = Image.open(tmp_path / "out" / marked["saliency"]).convert("L")
    assert (pixels.getpixel((10, 12)), pixels.getpixel((20, 12))) == (255, 0)
    offer(tmp_path, "two", "preceptor.importers", "circles = two.read:read")
    several = imported("several", tmp_path)
    assert several.returncode == 2
    assert "both offer it in preceptor.importers; uninstall one of them" in several.stderr
    (tmp_path / "circles.csv").write_text(f"{rows}c.png,spot,10,far,4\n")
    wrong = imported("wrong")
    assert wrong.returncode == 2
    assert "row 3: x, y or radius is no number" in wrong.stderr


def test_a_study_with_a_saliency_method_and_a_control_of_plugins(
    example: None, installed: Path, tmp_path: Path
) -> None:
    config = study(
        squares(tmp_path / "data"), seeds=1, saliency=("gradients",), controls=("edge_maps",),
        ceiling=False,
    )  # fmt: skip
    out = tmp_path / "out"
    result = run_serially(config, out)
    assert not result.failed
    table = pd.read_csv(out / "table.csv").set_index("key")
    assert table.loc["control edge_maps", "title"].iloc[0] == "Control: maps of edges"
    compared = pd.read_csv(out / "comparisons.csv")
    assert "Control: maps of edges" in set(compared[compared["question"] == "control"]["b"])
    page = (out / "report.html").read_text()
    assert "Control: maps of edges" in page
    assert "the method gradients of a plugin" in page
    plan = reopen(out).first
    (store,) = (out / "store" / "maps").iterdir()
    made = read_store(store)
    assert (made.info.method, made.maps.shape[1:]) == ("gradients", (4, 4))
    correlation = read_record(store)["metrics"]["val_map_correlation"]
    assert -1 <= correlation <= 1  # of the plugin's maps with those of people
    (member,) = plan.members_of("control")
    guided = load_config(plan.protocol.run_folder(member.run) / "config.yaml", RunConfig)
    assert (guided.maps.kind, guided.alpha) == ("edges", 0.5)
    # The source of the plugins is in the ids of the maps, and of what is guided by them.
    ids = {step.id for step in reopen(out).first.steps.values()}
    for name in ("saliency", "map_source"):
        file = installed / "preceptor_example" / f"{name}.py"
        text = file.read_text()
        file.write_text(f"{text}\n# changed\n")
        try:
            assert {step.id for step in reopen(out).first.steps.values()} != ids
        finally:
            file.write_text(text)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("np.zeros((1, 4, 4))", r"gave maps of shape \(1, 4, 4\), not \(2, height, width\)"),
        ("np.zeros((2, 4))", r"gave maps of shape \(2, 4\)"),
        ("-np.ones((2, 4, 4))", "negative or not finite"),
        ("np.full((2, 4, 4), np.nan)", "negative or not finite"),
    ],
)
def test_maps_of_a_plugin_that_are_wrong(
    source: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"maps_{abs(hash(source))}"
    code = f"import numpy as np\ndef make(paths, labels):\n    return {source}\n"
    (tmp_path / f"{name}.py").write_text(code)
    offer(tmp_path, name, "preceptor.map_sources", f"{name} = {name}:make")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=message):
        plugin_maps(name, ["a.png", "b.png"], ["x", "y"])
    with pytest.raises(InputError, match="kind other is of a package that is not installed"):
        plugin_maps("other", [], [])


def test_controls_of_a_plugin_that_are_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "from preceptor.study.config import AddedControl\n"
        "none = 5\n"
        "fixed = AddedControl('Control: fixed', lambda alpha: {'alpha': 0.1})\n"
    )
    (tmp_path / "wrong_controls.py").write_text(code)
    package = tmp_path / "wrong-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: wrong\nVersion: 1.0\n")
    lines = ["[preceptor.controls]", "none = wrong_controls:none", "fixed = wrong_controls:fixed"]
    (package / "entry_points.txt").write_text("\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match="wrong_controls:none is no AddedControl but a int"):
        added_control("none")
    protocol = open_study(
        study(squares(tmp_path / "data"), controls=("fixed",)), tmp_path / "out", run=False,
        report_to=print,
    ).first.protocol  # fmt: skip
    with pytest.raises(InputError, match="fixed sets alpha, which the study sets"):
        protocol.added_control("fixed", teachers_of(protocol.study)[0], "net", Setting(0.5), 0)


def test_unknown_names_list_those_of_plugins(example: None) -> None:
    with pytest.raises(ValidationError, match=r"not one of l2, .*, huber"):
        Training(distance="hubert")
    with pytest.raises(ValidationError, match=r"not one of none, human, .*, edges"):
        MapSource(kind="edge")
    with pytest.raises(ValidationError, match=r"not one of cam, rise, cells, gradients"):
        study(Path("m.csv"), saliency=("gradient",))
    with pytest.raises(ValidationError, match=r"not one of shuffled, .*, edge_maps"):
        study(Path("m.csv"), controls=("edge",))
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
