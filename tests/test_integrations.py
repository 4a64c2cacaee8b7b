"""The guided loss in training loops of other libraries: each example against the plain loop."""

from __future__ import annotations

import importlib
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from preceptor import build_model, guidance_method, load
from preceptor.losses.guidance import GuidanceBatch, GuidedForward, guided_objective
from preceptor.models import save_model

FOLDER = Path(__file__).resolve().parents[1] / "examples" / "integrations"
# Module and library of each example.
EXAMPLES = {
    "lightning_module": "pytorch_lightning",
    "hf_trainer": "transformers",
    "timm_task": "timm.task",
    "ignite_engine": "ignite",
    "monai_trainer": "monai",
}
EPOCHS, STEPS = 2, 12


@pytest.fixture(scope="module", autouse=True)
def _on_the_path() -> Iterator[None]:
    """The folder of the examples on the path, as for a script in it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        yield
    for file in FOLDER.glob("*.py"):
        sys.modules.pop(file.stem, None)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """Loss of each step of the plain loop."""
    losses: list[float] = example("plain_pytorch").main(tmp_path_factory.mktemp("plain"), EPOCHS)
    return losses


def example(name: str) -> ModuleType:
    library = EXAMPLES.get(name, "torch")
    pytest.importorskip(library, reason=f"{library} is not installed: pip install .[integrations]")
    return importlib.import_module(name)


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.py")), ids=lambda file: file.name)
def test_it_is_short(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 70


def test_every_example_is_run() -> None:
    names = {file.stem for file in FOLDER.glob("*.py")}
    assert names == EXAMPLES.keys() | {"plain_pytorch", "squares"}


def test_the_plain_loop_learns(plain: list[float]) -> None:
    quarter = STEPS // 4
    assert sum(plain[-quarter:]) < 0.6 * sum(plain[:quarter])


def test_the_saved_model_gives_the_scores_of_the_loop(tmp_path: Path) -> None:
    squares = example("squares")
    files = squares.write_images(tmp_path, 32)
    torch.manual_seed(0)
    model = build_model(
        "test_byobnet", squares.CLASSES, input_size=64, backbone_args=squares.STRIDE
    )
    data = squares.read_images(files, model)
    example("plain_pytorch").train(model, torch.utils.data.DataLoader(data, batch_size=16), 2)
    save_model(model, tmp_path / "model")
    with torch.no_grad():
        expected = model.eval()(data.tensors[0]).logits.softmax(1)
    found = load(tmp_path / "model", device="cpu")([path for path, _, _ in files])
    np.testing.assert_allclose(found.probabilities, expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name != "monai_trainer"])
def test_every_loss_is_that_of_the_plain_loop(
    name: str, plain: list[float], tmp_path: Path
) -> None:
    """Same seed, same batches: any other factor, or a step more or less, would show."""
    found = example(name).main(tmp_path, EPOCHS)
    assert found == pytest.approx(plain, abs=1e-6)
    assert len(found) == STEPS


def test_the_lightning_example_of_a_method_has_the_loss_of_the_objective() -> None:
    example("lightning_module")
    module = runpy.run_path(str(FOLDER.parent / "guidance" / "lightning_module.py"))
    torch.manual_seed(0)
    model, method = build_model("test_resnet", ["a", "b"], input_size=64), guidance_method("rank")
    batch = GuidanceBatch(torch.randn(4, 3, 64, 64), torch.arange(4) % 2, torch.rand(4, 2, 2))
    loss = module["GuidedModule"](model, method, 2.0).training_step(list(batch[:3]), 0)
    expected = guided_objective(method, batch, GuidedForward(model), 0.5, 2.0).loss
    torch.testing.assert_close(loss, expected)


class Named(NamedTuple):
    logits: Tensor
    saliency: Tensor


class ByHand(nn.Module):
    """A DenseNet of MONAI whose maps are computed by hand."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, labels: Tensor) -> Named:
        features = self.network.features(images).relu()
        head = self.network.class_layers.out
        maps = (head.weight[labels][:, :, None, None] * features).sum(1)
        return Named(head(features.mean((2, 3))), maps)


def test_every_loss_of_monai_is_that_of_the_plain_loop(tmp_path: Path) -> None:
    monai_trainer = example("monai_trainer")
    from monai.data import DataLoader
    from monai.networks.nets import DenseNet
    from squares import write_images

    found = monai_trainer.main(tmp_path, EPOCHS)
    torch.manual_seed(0)
    network = DenseNet(2, 3, 2, init_features=16, growth_rate=8, block_config=(2, 2))
    loader = DataLoader(monai_trainer.read_images(write_images(tmp_path, 96)), batch_size=16)
    batches = [
        (batch["image"], batch["label"], batch["map"][:, 0])
        for _ in range(EPOCHS)
        for batch in loader
    ]
    assert not torch.equal(batches[0][0], batches[STEPS // EPOCHS][0])  # flipped otherwise
    expected = example("plain_pytorch").train(ByHand(network), batches, 1)
    assert found == pytest.approx(expected, abs=1e-6)
    assert len(found) == STEPS


def test_maps_follow_their_images_through_monai(tmp_path: Path) -> None:
    read_images = example("monai_trainer").read_images
    for item in read_images(example("squares").write_images(tmp_path, 8)):
        red = (item["image"][0] - item["image"][1]).relu()[None]
        cells = torch.nn.functional.adaptive_avg_pool2d(red, (8, 8)).flatten()
        if item["label"]:
            assert item["map"].flatten().argmax() in cells.topk(6).indices
        else:
            assert item["map"].max() == 0
