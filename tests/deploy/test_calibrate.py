"""`preceptor calibrate`: the folder that it writes, and the model in use with it."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import preceptor
from preceptor.deploy.calibrate import alarm_interval, smallest_rate
from preceptor.deploy.network import Reference, find_reference
from preceptor.errors import InputError
from preceptor.models.build import load_model
from preceptor.utils.results import write_checksums
from tests.calibrated import RATE, TEMPERATURE, Calibrated
from tests.commands import assert_refused, here
from tests.drawn_labels import drawn_labels
from tests.model_folders import model_folder


def known_at(distances: np.ndarray) -> Reference:  # type: ignore[type-arg]
    """Reference whose validation images have these distances."""
    none, labels = np.zeros((0, 2), np.float32), np.zeros(0, np.int64)
    return Reference(None, "energy", 0.1, None, none, labels, distances)


def images_of(calibrated: Calibrated, split: str) -> list[Path]:
    table = pd.read_csv(calibrated.manifest)
    return [calibrated.manifest.parent / name for name in table["path"][table["split"] == split]]


def test_the_temperature_of_the_labels_is_found(calibrated: Calibrated) -> None:
    reference = find_reference(calibrated.folder, True)
    assert reference is not None
    assert reference.calibration is not None
    assert reference.calibration.temperature == pytest.approx(TEMPERATURE, rel=0.35)
    assert "Temperature scaling, T = 2." in calibrated.printed
    card = (calibrated.folder / "README.md").read_text()
    for text in ("## Calibration", "## Unfamiliar images", "T = 2.", "eer 0.5"):
        assert text in card
    assert (calibrated.folder / "reliability.svg").read_text().startswith("<svg")


def test_the_rate_that_a_message_names_is_possible() -> None:
    for images in range(2, 3000):
        rate = smallest_rate(images)
        low, _ = alarm_interval(images, rate)  # NaN if no validation image may be flagged
        assert low > 0
        assert images >= math.ceil(1 / rate - 1e-9) - 1
        assert rate <= 1.1 / (images + 1)


def test_the_model_itself_is_unchanged(calibrated: Calibrated) -> None:
    for name in ("model.json", "model.safetensors"):
        assert (calibrated.model / name).read_bytes() == (calibrated.folder / name).read_bytes()
    assert not (calibrated.model / "reference.json").exists()
    assert load_model(calibrated.folder).spec == load_model(calibrated.model).spec


@pytest.fixture(scope="module")
def isotonic(calibrated: Calibrated, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model with isotonic regression."""
    out = tmp_path_factory.mktemp("isotonic") / "best"
    where = ("--out", out, "--false-alarms", RATE, "--device", "cpu", "--method", "isotonic")
    found = here("calibrate", calibrated.model, calibrated.manifest, *where)
    assert "Centered isotonic regression with" in found.out
    return out


@pytest.mark.parametrize("threshold", ["eer", "fdr5%", "fdr1%"])
@pytest.mark.parametrize("method", ["temperature", "isotonic"])
def test_scores_change_and_decisions_do_not(
    calibrated: Calibrated, isotonic: Path, method: str, threshold: str
) -> None:
    folder = isotonic if method == "isotonic" else calibrated.folder
    images = images_of(calibrated, "test")
    plain = preceptor.load(calibrated.model, device="cpu", batch_size=64, threshold=threshold)(
        images
    )
    ours = preceptor.load(folder, device="cpu", batch_size=64, threshold=threshold)(images)
    assert plain.decision == ours.decision
    assert len(set(plain.decision)) == 2
    assert (np.argsort(plain.score) == np.argsort(ours.score)).all()
    assert abs(plain.score - ours.score).max() > 0.05
    np.testing.assert_allclose(ours.probabilities.sum(1), 1, atol=1e-6)
    np.testing.assert_array_equal(ours.raw_map, plain.raw_map)


def test_unfamiliar_is_the_share_of_validation_images_as_far(calibrated: Calibrated) -> None:
    predictor = preceptor.load(calibrated.folder, device="cpu", batch_size=64)
    assert predictor.reference is not None
    known = predictor.reference.distances
    valid = predictor(images_of(calibrated, "val"), maps=False)
    np.testing.assert_allclose(np.sort(valid.output.distances), np.sort(known), rtol=1e-4)
    flagged = np.mean([bool(one) for one in valid.unfamiliar or []])
    assert RATE - 2 / len(known) <= flagged <= RATE
    one = predictor(images_of(calibrated, "test")[0])
    assert one.unfamiliar is not None
    assert valid.output.distances is not None
    found = predictor(images_of(calibrated, "test")[:1]).output.distances
    assert found is not None
    assert one.unfamiliar.share == pytest.approx((1 + (known >= found[0]).sum()) / (1 + len(known)))
    plain = preceptor.load(calibrated.model, device="cpu", batch_size=64)
    assert plain(images_of(calibrated, "test")[0]).unfamiliar is None


def test_an_image_of_another_kind_is_flagged(calibrated: Calibrated) -> None:
    stripes = np.zeros((48, 48, 3), np.uint8)
    stripes[:, ::8, 0] = 255
    found = preceptor.load(calibrated.folder, device="cpu", batch_size=64)(stripes)
    assert found.unfamiliar


def test_the_false_alarm_rate_is_as_stated() -> None:
    """Exchangeable distances: the rate is at most, and on average, the stated one."""
    generator = np.random.default_rng(0)
    for images, rate in ((99, 0.01), (240, 0.05), (500, 0.1)):
        drawn = generator.gamma(2, size=(4000, images + 1))
        alarms = [known_at(row[1:]).shares_of(row[:1])[0] <= rate for row in drawn]
        wanted = np.floor(rate * (images + 1) + 1e-9) / (images + 1)
        assert np.mean(alarms) == pytest.approx(wanted, abs=4 * np.sqrt(rate / 4000))
    # Over validation sets, the rate on further images is within the stated interval.
    low, high = alarm_interval(240, 0.05)
    rates = []
    for _ in range(2000):
        known = generator.random(240)
        limit = np.sort(known)[-12]  # the 12 = 0.05 · 241 farthest are flagged
        assert known_at(known).shares_of(np.array([limit]))[0] == pytest.approx(13 / 241)
        rates.append(1 - limit)
    inside = np.mean([(low <= rate <= high) for rate in rates])
    assert inside == pytest.approx(0.95, abs=0.05)


def test_models_without_a_positive_class(tmp_path: Path) -> None:
    model = model_folder(tmp_path / "model", "test_resnet", classes=("a", "b", "c"), positive=None)
    manifest = drawn_labels(tmp_path / "data", model, 2.0, {"train": 20, "val": 60})
    where = ("--out", tmp_path / "out", "--false-alarms", 0.1, "--device", "cpu")
    refused = ("isotonic regression is of the score, and the model has no positive class",)
    assert_refused(here("calibrate", model, manifest, *where, "--method", "isotonic"), refused)
    here("calibrate", model, manifest, *where)
    found = preceptor.load(tmp_path / "out", device="cpu", batch_size=64)(
        np.zeros((9, 9, 3), np.uint8)
    )
    assert sum(found.probabilities.values()) == pytest.approx(1, abs=1e-6)


def test_bad_input_is_one_line(calibrated: Calibrated, tmp_path: Path) -> None:
    where = ("--out", tmp_path / "out")
    run = ("calibrate", calibrated.model, calibrated.manifest)
    needs = ("a false alarm rate of 0.001 needs 999 validation images, and there are 240",)
    assert_refused(here(*run, *where, "--false-alarms", "0.001"), needs)
    assert_refused(here(*run, "--out", calibrated.model), ["exists already"])
    inside = calibrated.model / "calibrated"
    assert_refused(here(*run, "--out", inside), ["--out", "is inside", "which is copied"])
    assert not inside.exists()
    again = here("calibrate", calibrated.folder, calibrated.manifest, *where)
    assert_refused(again, ["is calibrated already"])
    assert_refused(here("calibrate", tmp_path, calibrated.manifest, *where), ["no model.json"])
    table = pd.read_csv(calibrated.manifest)
    table["path"] = [str(calibrated.manifest.parent / name) for name in table["path"]]
    table["label"] = table["label"].where(table["split"] != "val", "real")
    table.to_csv(tmp_path / "one.csv", index=False)
    lacks = ("no validation images of the class 'fake'",)
    assert_refused(here("calibrate", calibrated.model, tmp_path / "one.csv", *where), lacks)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["reference.json", "reference.safetensors"])
def test_a_changed_byte_is_refused(calibrated: Calibrated, tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(calibrated.folder, tmp_path / "copy")
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name} does not match its checksum"):
        preceptor.load(folder, device="cpu", batch_size=64)
    (folder / name).unlink()
    with pytest.raises(InputError, match=f"{name} does not match its checksum"):
        preceptor.load(folder, device="cpu", batch_size=64)


def test_a_reference_that_was_added_later_is_refused(
    calibrated: Calibrated, tmp_path: Path
) -> None:
    folder = shutil.copytree(calibrated.model, tmp_path / "copy")
    for name in ("reference.json", "reference.safetensors"):
        shutil.copy(calibrated.folder / name, folder / name)
    with pytest.raises(InputError, match="added after the model was calibrated"):
        preceptor.load(folder, device="cpu", batch_size=64)


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("calibration", "temperature"), 0),
        (("calibration", "temperature"), "2"),
        (("calibration", "kind"), "beta"),
        (("calibration", "knots"), [0.2]),
        (("unfamiliar", "kind"), "energy of another kind"),
        (("unfamiliar", "rate"), None),
        (("unfamiliar",), []),
        (("description",), 3),
    ],
)
def test_an_invalid_reference_is_one_line(
    calibrated: Calibrated, tmp_path: Path, keys: tuple[str, ...], value: object
) -> None:
    folder = shutil.copytree(calibrated.folder, tmp_path / "copy")
    values = json.loads((folder / "reference.json").read_text())
    inner = values
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    (folder / "reference.json").write_text(json.dumps(values))
    names = [file.name for file in folder.glob("*.json") if file.name != "checksums.json"]
    write_checksums(folder, [*names, "model.safetensors", "reference.safetensors"])
    with pytest.raises(InputError, match="the reference cannot be read") as caught:
        preceptor.load(folder, device="cpu", batch_size=64)
    assert "\n" not in str(caught.value)
