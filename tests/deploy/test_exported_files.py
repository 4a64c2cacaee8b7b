"""Exported files in use, with and without torch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("onnxscript", reason="the extra onnx is not installed")

import preceptor
from preceptor.deploy.export import export_model
from preceptor.deploy.network import TorchNetwork
from preceptor.deploy.predict_files import row_of
from preceptor.deploy.prediction import Calibration
from preceptor.errors import InputError
from tests.calibrated import add_calibration, calibrated_array
from tests.commands import assert_refused, here
from tests.exported_files import CARD, model_folder, onnx_file

ROOT = Path(__file__).resolve().parents[2]
PREDICT = """
import json, sys
import preceptor
found = preceptor.load(sys.argv[1])([sys.argv[2]])[0]
loaded = [name for name in ("torch", "timm", "pandas", "scipy") if name in sys.modules]
print(json.dumps([found.score, found.decision, found.map.tolist(), loaded]))
"""
REFUSE = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "timm", "pandas", "scipy", "pyarrow", "torchvision"):
            raise ImportError(f"{name} is refused")
sys.meta_path.insert(0, Refuse())
"""


@pytest.fixture(scope="module")
def small_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Model folder of a network of few layers, and its exported file without maps."""
    folder, out = model_folder("small"), tmp_path_factory.mktemp("small") / "model.onnx"
    export_model(folder, out, maps=False)
    return folder, out


def images(count: int, side: int = 64) -> np.ndarray:  # type: ignore[type-arg]
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def test_the_file_and_the_folder_are_the_same_network() -> None:
    from preceptor.deploy.onnx import OnnxNetwork

    file, batch = onnx_file(), images(5)
    one, two = OnnxNetwork(file.path), TorchNetwork.open(file.folder, device="cpu")
    assert one.info == two.info
    assert one.card == CARD
    for classes in (None, np.array([0, 1, 1, 0, 0])):
        mine, theirs = (network(batch, map_classes=classes) for network in (one, two))
        np.testing.assert_allclose(mine.probabilities, theirs.probabilities, atol=1e-5)
        assert mine.raw_map is not None
        assert theirs.raw_map is not None
        np.testing.assert_allclose(mine.raw_map, theirs.raw_map, rtol=1e-4, atol=1e-5)
    assert one(batch, maps=False).raw_map is None


def test_maps_that_a_file_lacks_are_refused_before_an_image_is_read(tmp_path: Path) -> None:
    """Of three classes without a positive one, a file has the map of the most probable one."""
    folder, out = model_folder("three", positive=None), tmp_path / "three.onnx"
    export_model(folder, out)
    refusal = "has the maps of the most probable class only; maps of a given class need the"
    with pytest.raises(InputError, match=refusal):
        preceptor.load(out)("missing.png", map_of="a")
    (alone,) = preceptor.load(out)(list(images(1)))
    assert set(alone.probabilities) == {"a", "b", "c"}
    assert alone.map.max() == 1
    Image.fromarray(images(1)[0]).save(tmp_path / "a.png")
    options = ("--out", tmp_path / "x.csv", "--maps", "png", "--map-of", "a")
    assert_refused(here("predict", out, tmp_path, *options), [refusal])
    assert not list(tmp_path.glob(".x*"))


def test_a_file_decides_by_the_threshold_of_its_export(
    small_file: tuple[Path, Path], tmp_path: Path
) -> None:
    (folder, plain), out = small_file, tmp_path / "model.onnx"
    batch = images(6)
    score = preceptor.load(plain)(list(batch), maps=False).score
    threshold = float(np.sort(score)[4])
    assert abs(threshold - 0.5) > 1e-3
    export_model(folder, out, threshold=threshold, maps=False)
    predictor = preceptor.load(out)
    assert predictor.threshold == threshold
    assert predictor.info.thresholds == {"eer": 0.5, "export": threshold}
    import onnxruntime

    run = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    (decision,) = run.run(["decision"], {"image": batch.transpose(0, 3, 1, 2).copy()})
    found = predictor(list(batch), maps=False).decision
    assert list(found) == [predictor.info.classes[one] for one in decision]
    assert preceptor.load(out, threshold="eer").threshold == 0.5
    assert preceptor.load(out, threshold="export").threshold == threshold


def test_calibration_changes_probabilities_and_no_decision(
    small_file: tuple[Path, Path], tmp_path: Path
) -> None:
    """Of the folder and the file, with each threshold: of scores equal to it, and as written."""
    batch = images(24)
    names = ("folder", "model.onnx")
    plain = {
        name: preceptor.load(path, device="cpu")(list(batch), maps=False)
        for name, path in zip(names, small_file, strict=True)
    }
    for name, before in plain.items():
        scores = before.score
        changed = calibrated_array(before.probabilities, 0.3, 1)
        assert abs(before.probabilities - changed).max() > 0.01
        thresholds = {"eer": float(scores[0]), "fdr=0.01": float(scores[1]), "fdr=0.05": 0.5}
        folder = shutil.copytree(small_file[0], tmp_path / f"of_{name}")
        values = json.loads((folder / "model.json").read_text()) | {"thresholds": thresholds}
        (folder / "model.json").write_text(json.dumps(values))
        add_calibration(folder, Calibration(0.3))
        path = folder
        if name != "folder":
            path = tmp_path / name
            export_model(folder, path, maps=False)
        for rule, threshold in thresholds.items():
            predictor = preceptor.load(path, device="cpu", threshold=rule)
            found = predictor(list(batch), maps=False)
            np.testing.assert_allclose(found.probabilities, changed, atol=1e-5)
            expected = scores.astype(np.float64) >= threshold
            assert [one == "fake" for one in found.decision] == expected.tolist()
            rows = [row_of("a.png", one) for one in found]
            known = predictor.info.thresholds[rule]
            assert [row["score"] >= known for row in rows] == expected.tolist()


def test_damaged_and_foreign_files_are_refused_in_one_line(tmp_path: Path) -> None:
    import onnx

    content = onnx_file().path.read_bytes()
    foreign = onnx.helper.make_model(
        onnx.helper.make_graph([], "g", [], []), opset_imports=[onnx.helper.make_opsetid("", 18)]
    )
    for number, (wrong, message) in enumerate([
        (content[: len(content) // 2], "cannot load it"),
        (foreign.SerializeToString(), "cannot load it|not a file of preceptor export"),
        (b"", "cannot load it"),
        (b"a text", "cannot load it"),
    ]):  # fmt: skip
        file = tmp_path / f"{number}.onnx"
        file.write_bytes(wrong)
        with pytest.raises(InputError, match=message) as found:
            preceptor.load(file)
        assert "\n" not in str(found.value)


def test_a_file_predicts_where_torch_cannot_be_imported(tmp_path: Path) -> None:
    Image.fromarray(images(1, 80)[0]).save(tmp_path / "a.png")
    file = onnx_file()
    done = subprocess.run(
        [sys.executable, "-c", REFUSE + PREDICT, file.path, tmp_path / "a.png"],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    score, decision, shown, loaded = json.loads(done.stdout)
    expected = preceptor.load(file.folder)(tmp_path / "a.png")
    assert loaded == []
    assert score == pytest.approx(expected.score, abs=1e-5)
    assert decision == expected.decision
    np.testing.assert_allclose(shown, expected.map, atol=1e-4)
