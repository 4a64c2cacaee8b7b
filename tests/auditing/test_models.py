"""Models of any origin: their probabilities are those of the network itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import nn

from preceptor.auditing.models import open_model
from preceptor.deploy.export import export_model
from preceptor.errors import InputError
from tests.commands import assert_refused, here
from tests.model_folders import write_model_folders

CLASSES = ("a", "b")
PIXELS = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3)).astype(np.uint8)
FUNCTIONS = """
import torch
import torchvision
from torch import nn

from preceptor import guide, network_factory


@network_factory
def declared(num_classes):
    return torchvision.models.resnet18(num_classes=num_classes)


def trained():
    torch.manual_seed(3)
    return torchvision.models.resnet18(num_classes=2)


def guided():
    return guide(trained(), "fc", "layer3", classes=["b", "a"], input_size=64)


def headless():
    return nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def broken():
    raise OSError("no disk")


number = 3
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    for outputs, name in ((2, "two"), (1, "one"), (3, "three")):
        network = timm.create_model("resnet18", num_classes=outputs)
        save_file(network.state_dict(), folder / f"{name}.safetensors")
    (folder / "functions_of_models.py").write_text(FUNCTIONS, encoding="utf-8")
    return folder


def expected(network: nn.Module, mean: object = None, std: object = None) -> NDArray[np.float64]:
    """Probabilities, computed by hand."""
    mean = (0.485, 0.456, 0.406) if mean is None else mean
    std = (0.229, 0.224, 0.225) if std is None else std
    scaled = torch.from_numpy(((PIXELS / 255 - mean) / std).astype(np.float32))
    with torch.no_grad():
        logits = network.eval()(scaled.permute(0, 3, 1, 2).contiguous()).double()
    if logits.shape[1] == 1:
        logits = torch.cat([torch.zeros_like(logits), logits], 1)
    return logits.softmax(1).numpy()


def loaded(file: Path, outputs: int) -> nn.Module:
    from safetensors.torch import load_file

    network = timm.create_model("resnet18", num_classes=outputs)
    network.load_state_dict(load_file(file))
    return network


def test_weights_are_those_of_timm_or_torchvision(files: Path) -> None:
    two = files / "two.safetensors"
    network = loaded(two, 2)
    for name in (f"resnet18:{two}", f"torchvision/resnet18:{two}"):
        opened = open_model(name, classes=CLASSES, input_size=64)
        assert opened.guided is not None
        assert opened.guided.spec.cam == "cam"
        assert "classes a, b, in this order" in opened.notes[0]
        assert any("imagenet" in note for note in opened.notes) == ("torchvision" in name)
        np.testing.assert_allclose(opened.probabilities(PIXELS), expected(network), atol=1e-5)
        maps = opened.maps(PIXELS, np.array([0, 1, 0, 1, 1]))
        assert maps is not None
        assert maps.shape == (5, 2, 2)
    half = open_model(f"resnet18:{two}", classes=CLASSES, input_size=64, normalization="half")
    np.testing.assert_allclose(half.probabilities(PIXELS), expected(network, 0.5, 0.5), atol=1e-5)
    one = open_model(f"resnet18:{files / 'one.safetensors'}", classes=CLASSES, input_size=64)
    single = expected(loaded(files / "one.safetensors", 1))
    np.testing.assert_allclose(one.probabilities(PIXELS), single, atol=1e-5)


def test_a_function_returns_the_network_or_a_guided_model(files: Path) -> None:
    file = files / "functions_of_models.py"
    torch.manual_seed(3)
    network = torchvision.models.resnet18(num_classes=2)
    opened = open_model(f"{file}:trained", classes=CLASSES, input_size=64)
    np.testing.assert_allclose(opened.probabilities(PIXELS), expected(network), atol=1e-5)
    guided = open_model(f"{file}:guided", classes=CLASSES)
    assert guided.classes == ("b", "a")  # its own order
    np.testing.assert_allclose(guided.probabilities(PIXELS), expected(network), atol=1e-5)


def test_head_and_features_are_found() -> None:
    tokens = torchvision.models.VisionTransformer(64, 16, 3, 4, 32, 64, num_classes=2)
    nn.init.normal_(tokens.heads.head.weight)
    for network, head in (
        (torchvision.models.shufflenet_v2_x0_5(num_classes=2), "fc"),
        (torchvision.models.mobilenet_v3_small(num_classes=2), "classifier.3"),
        (tokens, "heads.head"),
    ):
        model = open_model(network, classes=CLASSES, input_size=64).guided
        assert model is not None
        assert model.spec.module is not None
        assert model.spec.module.head == head
        assert min(model.grid()) > 1


def test_a_file_of_onnx_has_the_probabilities_of_its_network(tmp_path: Path) -> None:
    torch.manual_seed(1)
    plain = torchvision.models.shufflenet_v2_x0_5(num_classes=2).eval()
    cases = {
        "logits": plain,
        "shares": nn.Sequential(plain, nn.Softmax(1)),
        "logit": nn.Sequential(plain, nn.Linear(2, 1)),
        "share": nn.Sequential(plain, nn.Linear(2, 1), nn.Sigmoid()),
    }
    for name, network in cases.items():
        file = tmp_path / f"{name}.onnx"
        image = (torch.zeros(2, 3, 64, 64),)  # a batch of fixed size
        torch.onnx.export(network.eval(), image, file, dynamo=True, verbose=False)
        opened = open_model(file, classes=CLASSES)
        assert (opened.image_format.size, opened.guided) == (64, None)
        assert opened.maps(PIXELS, np.zeros(5, int)) is None
        assert any("normalization imagenet" in note for note in opened.notes)
        own = network[:-1] if name == "share" else plain if name == "shares" else network
        np.testing.assert_allclose(opened.probabilities(PIXELS), expected(own), atol=1e-5)
    with pytest.raises(InputError, match="no output has a column for each of the 3 classes"):
        open_model(tmp_path / "logits.onnx", classes=("a", "b", "c"))
    with pytest.raises(InputError, match="set input_size to its"):
        open_model(tmp_path / "logits.onnx", classes=CLASSES, input_size=32)
    (tmp_path / "damaged.onnx").write_bytes(b"no")
    with pytest.raises(InputError, match="cannot load it"):
        open_model(tmp_path / "damaged.onnx", classes=CLASSES)


def test_an_export_of_this_library_names_its_model_folder(tmp_path: Path) -> None:
    folder = write_model_folders(tmp_path, "plain")["plain"]
    export_model(folder, tmp_path / "plain.onnx")
    with pytest.raises(InputError, match="an export of this library; name the model folder"):
        open_model(tmp_path / "plain.onnx", classes=("fake", "real"))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("resnet18:three.safetensors", "has not the 2 classes a, b"),
        ("resnet50:two.safetensors", "resnet50 cannot be built with weights"),
        ("resnet81:two.safetensors", "not known to timm"),
        ("torchvision/resnet81:two.safetensors", "torchvision has no network 'resnet81'"),
        ("torchvision/resnet50:two.safetensors", "does not fit"),
        ("resnet18:gone.safetensors", "is not a file"),
        ("resnet18:pickled.pth", "nothing is unpickled"),
        ("pickled.pth", "NETWORK:pickled.safetensors"),
        ("two.safetensors", "NETWORK:two.safetensors"),
        ("functions_of_models.py", "functions_of_models.py:FUNCTION"),
        ("functions_of_models.py:gone", "has no function gone"),
        ("functions_of_models.py:number", "has no function number"),
        ("functions_of_models.py:broken", "no disk"),
        ("functions_of_models.py:headless", "return preceptor.guide"),
        ("gone.py:trained", "there is no such file"),
        ("nowhere", "there is no such folder or file"),
    ],
)
def test_what_is_no_model_is_one_line(
    files: Path, monkeypatch: pytest.MonkeyPatch, model: str, message: str
) -> None:
    monkeypatch.chdir(files)
    Path("pickled.pth").write_bytes(b"cos\nsystem\n")  # would run a command
    with pytest.raises(InputError, match=message) as found:
        open_model(model, classes=CLASSES, input_size=64)
    assert "\n" not in str(found.value)


def test_other_classes_and_scores_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    folders = write_model_folders(tmp_path, "plain", "three")
    with pytest.raises(InputError, match="the classes real, fake, and the images a, b"):
        open_model(folders["plain"], classes=CLASSES)
    with pytest.raises(InputError, match="the classes a, b, c, and the images a, b"):
        open_model(folders["three"], classes=CLASSES)
    with pytest.raises(InputError, match="positive 'c' is not one of the classes"):
        open_model(folders["three"], classes=CLASSES, positive="c")
    opened = open_model(folders["plain"], classes=("fake", "real"))
    assert opened.guided is not None
    with torch.no_grad():
        opened.guided.head.weight[0, 0] = torch.nan
    with pytest.raises(InputError, match="probabilities of 5 of 5 images are not finite"):
        opened.probabilities(PIXELS)


def test_evaluate_names_the_form_of_a_model_from_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "mine.pth").write_bytes(b"")
    (tmp_path / "manifest.csv").write_text("path,label,split\n")
    outcome = here("evaluate", tmp_path / "mine.pth", tmp_path / "manifest.csv")
    assert_refused(outcome, ["is not a model folder", "preceptor audit and repair take it as"])
