"""Predictors of real model folders, against the model itself, and with inputs of all kinds."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import preceptor
from preceptor.data.geometry import normalized, render
from preceptor.data.images import ImageError, decode_image
from preceptor.deploy.network import TorchNetwork
from preceptor.deploy.prediction import Prediction, decide
from preceptor.deploy.predictor import BadImage, Predictor
from preceptor.errors import InputError
from preceptor.models.build import build_model, load_model, save_model
from preceptor.models.guided_model import GuidedModel, GuidedOutput
from preceptor.saliency.maps import normalize
from tests.image_files import ImageFiles

NAMES = ["plain", "letterbox", "gray", "sigmoid", "three", "gradcam"]


def canvases(model: GuidedModel, paths: list[Path]) -> torch.Tensor:
    """(B, C, side, side) uint8."""
    spec = model.spec
    pixels = [
        render(decode_image(path, spec.in_chans), spec.fit, spec.input_size) for path in paths
    ]
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)


def expected(model: GuidedModel, images: torch.Tensor) -> GuidedOutput:
    """Output with the decision maps that a predictor must return."""
    model.eval()
    classes: Any = "predicted"
    if model.spec.positive is not None:
        classes = torch.full((len(images),), model.spec.positive_index)
    with torch.no_grad():
        out: GuidedOutput = model(model.preprocess(images), classes, decision=True)
    return out


@pytest.mark.parametrize("name", NAMES)
def test_predictions_are_those_of_the_model(
    models: dict[str, Path], image_files: ImageFiles, name: str
) -> None:
    model = load_model(models[name])
    out = expected(model, canvases(model, image_files.good))
    predictor = preceptor.load(models[name], device="cpu")
    found = predictor(image_files.good)
    probabilities = out.logits.softmax(1).numpy()
    np.testing.assert_allclose(found.probabilities, probabilities, atol=1e-5)
    assert found.raw_map is not None
    scale = float(out.saliency.abs().max())
    np.testing.assert_allclose(found.raw_map, out.saliency.numpy(), atol=1e-4 * scale)
    assert len(found) == len(image_files.good)
    for number, one in enumerate(found):
        assert isinstance(one, Prediction)
        assert one.probabilities == {
            label: pytest.approx(float(value), abs=1e-5)
            for label, value in zip(model.spec.classes, probabilities[number], strict=True)
        }
        assert one.map.shape == model.grid()
        assert one.map.min() >= 0
        assert one.map.max() <= 1
        width, height = one.size
        assert decode_image(image_files.good[number]).shape[:2] == (height, width)
        assert one.map_at_image().shape == (height, width)
    assert np.allclose([one.score for one in found], found.score)
    if name == "three":
        assert found.decision == [model.spec.classes[at] for at in probabilities.argmax(1)]
        assert [one.map_class for one in found] == found.decision
        np.testing.assert_allclose(found.score, probabilities.max(1), atol=1e-5)
    else:
        np.testing.assert_allclose(found.score, probabilities[:, 1], atol=1e-5)
        assert found.decision == ["fake" if s >= 0.5 else "real" for s in found.score]
        assert {one.map_class for one in found} == {"fake"}


def test_every_form_of_an_image_gives_the_same_prediction(
    models: dict[str, Path], image_files: ImageFiles
) -> None:
    predictor = preceptor.load(models["plain"], device="cpu")
    for path in image_files.good:
        wanted = predictor(path)
        assert isinstance(wanted, Prediction)
        forms: list[Any] = [str(path), path.read_bytes(), decode_image(path)]
        with Image.open(path) as image:
            forms.append(image)
            for form in forms:
                found = predictor(form)
                np.testing.assert_array_equal(found.class_probabilities, wanted.class_probabilities)
                np.testing.assert_array_equal(found.raw_map, wanted.raw_map)
                assert found.size == wanted.size
    gray = decode_image(image_files.good[0], 1)
    one = [predictor(form).score for form in (gray, gray[..., 0], np.repeat(gray, 3, 2))]
    assert one[0] == one[1] == one[2]
    batch = np.stack([np.zeros((9, 7, 3), np.uint8), np.full((9, 7, 3), 200, np.uint8)])
    assert len(predictor(batch)) == 2  # type: ignore[arg-type]
    assert predictor(batch[1]).score == pytest.approx(predictor(list(batch))[1].score, abs=1e-6)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (3, "type int"),
        (None, "type NoneType"),
        (np.zeros((4, 4, 3), np.float32), "float32"),
        (np.zeros((4, 4, 2), np.uint8), r"shape \(4, 4, 2\)"),
        (np.zeros(4, np.uint8), r"shape \(4,\)"),
        (np.zeros((0, 4, 3), np.uint8), "4 × 0 pixels"),
        (b"", "empty"),
        (b"GIF89a", "bytes: "),
        ("no such file.png", "no such file.png: there is no such file"),
        ("with\0null", "null character"),
        (".", "it is a folder"),
        ([], "no images"),
        (["missing.png", "b.png"], "missing.png"),
    ],
)
def test_inputs_that_are_no_images(models: dict[str, Path], image: Any, expected: str) -> None:
    predictor = preceptor.load(models["plain"], device="cpu")
    with pytest.raises(InputError, match=expected) as caught:
        predictor(image)
    assert "\n" not in str(caught.value)


def test_bad_files_raise_alone_and_are_reported_in_a_stream(
    models: dict[str, Path], image_files: ImageFiles
) -> None:
    predictor = preceptor.load(models["plain"], device="cpu", batch_size=4)
    for path, reason in image_files.bad.items():
        with pytest.raises(ImageError, match=reason):
            predictor(path)
    paths = sorted([*image_files.good, *image_files.bad])
    found = list(predictor.stream(iter(paths)))
    assert len(found) == len(paths)
    for path, one in zip(paths, found, strict=True):
        if path in image_files.bad:
            assert isinstance(one, BadImage)
            assert one.source == str(path)
            assert image_files.bad[path] in one.reason
        else:
            assert isinstance(one, Prediction)
            assert one.score == pytest.approx(predictor(path).score, abs=1e-6)


def test_a_stream_reads_no_further_than_it_must(
    models: dict[str, Path], image_files: ImageFiles
) -> None:
    predictor = preceptor.load(models["plain"], device="cpu", batch_size=2)
    taken: list[int] = []

    def endless() -> Any:
        number = 0
        while True:
            taken.append(number)
            yield image_files.good[0]
            number += 1

    stream = predictor.stream(endless(), maps=False)
    for _ in range(20):
        assert isinstance(next(stream), Prediction)
    stream.close()
    assert len(taken) <= 20 + 3 * 2


@pytest.mark.parametrize("name", ["plain", "three", "gradcam"])
def test_a_map_of_another_class(
    models: dict[str, Path], image_files: ImageFiles, name: str
) -> None:
    model = load_model(models[name])
    images = canvases(model, image_files.good[:3])
    other = model.spec.classes[0]
    with torch.no_grad():
        out = model.eval()(
            model.preprocess(images), torch.zeros(3, dtype=torch.int64), decision=True
        )
    predictor = preceptor.load(models[name], device="cpu")
    found = predictor(image_files.good[:3], map_of=other)
    scale = float(out.saliency.abs().max())
    np.testing.assert_allclose(found.raw_map, out.saliency.numpy(), atol=1e-4 * scale)
    assert found[0].map_class == other
    with pytest.raises(InputError, match=r"map_of 'cat' is not a class of the model; it has"):
        predictor(image_files.good[0], map_of="cat")


def test_scores_that_are_not_finite_are_no_predictions(
    models: dict[str, Path], image_files: ImageFiles, tmp_path: Path
) -> None:
    """Not the negative class, which a comparison of NaN with a threshold would give."""
    model = load_model(models["plain"])
    with torch.no_grad():
        model.head.weight.fill_(torch.nan)
    save_model(model, tmp_path / "damaged")
    predictor = preceptor.load(tmp_path / "damaged", device="cpu")
    with pytest.raises(InputError, match="probabilities of 1 of 1 images are not finite"):
        predictor(image_files.good[0])


@pytest.mark.parametrize(
    ("name", "threshold", "expected"),
    [
        ("plain", "fdr2%", r"no such threshold; it has eer, fdr=0.05, fdr=0.01"),
        ("plain", "", "is not a rule"),
        ("plain", "nan", "a score is a probability"),
        ("plain", float("inf"), "a score is a probability"),
        ("plain", "50", "a score is a probability; give a number from 0 to 1, or the name"),
        ("plain", -0.1, "threshold -0.1: a score is a probability"),
        ("three", 0.5, "no positive class"),
    ],
)
def test_thresholds_that_there_are_not(
    models: dict[str, Path], name: str, threshold: Any, expected: str
) -> None:
    with pytest.raises(InputError, match=expected):
        preceptor.load(models[name], device="cpu", threshold=threshold)


def test_models_that_cannot_be_loaded(models: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is not a model folder"):
        preceptor.load(tmp_path)
    with pytest.raises(InputError, match=r"is not a model folder"):
        preceptor.load(tmp_path / "missing")
    study = tmp_path / "study"
    study.mkdir()
    (study / "best").symlink_to(models["plain"])
    with pytest.raises(InputError, match=f"^{study} is not .*; name {study / 'best'}$"):
        preceptor.load(study)
    with pytest.raises(InputError, match=r"device 'tpu'"):
        preceptor.load(models["plain"], device="tpu")
    with pytest.raises(InputError, match=r"batch_size is 0"):
        preceptor.load(models["plain"], batch_size=0)
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match=r"has 0 GPUs"):
            preceptor.load(models["plain"], device="cuda")


@pytest.mark.parametrize("size", [1, 3, 64])
def test_predictions_do_not_depend_on_the_batch_size(models: dict[str, Path], size: int) -> None:
    images = list(np.random.default_rng(0).integers(0, 256, (17, 20, 20, 3), dtype=np.uint8))
    alone = preceptor.load(models["plain"], device="cpu", batch_size=17)(images)
    predictor = preceptor.load(models["plain"], device="cpu", batch_size=size)
    found = predictor(images)
    np.testing.assert_allclose(found.probabilities, alone.probabilities, atol=1e-5)
    part = found[3:5]
    np.testing.assert_array_equal(part.probabilities, found.probabilities[3:5])
    assert part.decision == found.decision[3:5]


def test_one_predictor_in_several_threads() -> None:
    """A pass of Grad-CAM keeps its state on the model."""
    torch.manual_seed(0)
    model = build_model("test_vit", ["a", "b"], positive="b", weights="none", input_size=64)
    assert model.spec.cam == "gradcam"
    predict = Predictor(TorchNetwork(model, device="cpu"))
    images = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    alone = [predict(image) for image in images]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(predict, [*images] * 8))
    for at, one in enumerate(found):
        assert one.score == alone[at % 4].score
        assert (one.map == alone[at % 4].map).all()


def test_thresholds_are_compared_in_float64() -> None:
    """A threshold between two neighboring float32 scores tells them apart."""
    low = np.float32(0.3)
    high = np.nextafter(low, np.float32(1))
    scores = np.array([[1 - low, low], [1 - high, high]], np.float32)
    threshold = 0.5 * float(low) + 0.5 * float(high)
    assert decide(scores, 1, threshold).tolist() == [0, 1]
    three: NDArray[np.float32] = np.array([[0.5, 0.2, 0.3]], np.float32)
    assert decide(three, 2, 0.3 - 1e-9).tolist() == [2]
    assert decide(three, 2, 0.4).tolist() == [0]


def test_normalization_is_that_of_tensors() -> None:
    random = np.random.default_rng(0)
    maps = random.normal(size=(8, 5, 7)).astype(np.float32)
    maps[1] = 3.5
    maps[2] = 1 + 1e-6 * maps[2]
    maps[3] = 0
    maps[4] *= 1e-35
    expected = normalize(torch.from_numpy(maps)).numpy()
    np.testing.assert_array_equal(normalized(maps), expected)
    assert not expected[1:5].any()
