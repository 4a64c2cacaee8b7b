"""Networks of which two layers share a weight: training, files and interruptions."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from safetensors.torch import save_model as save_once
from torch import nn

from preceptor.config.settings import NetworkFactory
from preceptor.models.build import build_model
from preceptor.models.model_folder import load_model, save_model
from preceptor.training.checkpoint import Progress, load_progress, save_progress, snapshot
from preceptor.training.run import train
from tests.datasets import squares
from tests.networks import tied
from tests.training.small_runs import SMALL, small

CLASSES = ("plain", "marked")
NETWORK = NetworkFactory(factory="tests.networks:tied")
PAIR = ("2.weight", "4.weight")


def test_a_model_folder_has_them_under_both_names(tmp_path: Path) -> None:
    model = build_model("mine", CLASSES, input_size=32, network=NETWORK)
    save_model(model, tmp_path / "model")
    stored = load_file(tmp_path / "model" / "model.safetensors")
    assert set(stored) == set(model.backbone.state_dict())
    again = load_model(tmp_path / "model")
    one, other = (again.backbone.get_parameter(f"module.{name}") for name in PAIR)
    assert one is other
    images = torch.randn(2, 3, 32, 32)
    model.eval(), again.eval()
    torch.testing.assert_close(again(images).logits, model(images).logits, rtol=0, atol=0)


def test_files_that_have_them_once_can_be_loaded(tmp_path: Path) -> None:
    torch.manual_seed(7)
    network = tied(2, 3).module
    save_once(network, str(tmp_path / "once.safetensors"))
    assert len(set(PAIR) & set(load_file(tmp_path / "once.safetensors"))) == 1
    model = build_model(
        "mine", CLASSES, input_size=32, network=NETWORK, weights=tmp_path / "once.safetensors"
    )
    found = model.backbone.get_parameter(f"module.{PAIR[1]}")
    assert torch.equal(found, network.get_parameter(PAIR[1]))


def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, other = tied(2, 3).module, tied(2, 3).module

    def optimizer(network: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)

    trained = optimizer(model)
    model(torch.randn(2, 3, 32, 32)).square().mean().backward()
    trained.step()
    progress = Progress(epoch=1, best_state=snapshot(model))
    save_progress(tmp_path / "state", "a", progress, model, trained)
    found = load_progress(tmp_path / "state", "a", other, optimizer(other))
    assert found.epoch == 1
    for key, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[key])
        assert torch.equal(value, found.best_state[key])


def test_they_stay_tied_in_a_run(tmp_path: Path) -> None:
    config = small(
        squares(tmp_path / "data"),
        backbone="mine",
        backbone_args={},
        network=NETWORK,
        training=SMALL.model_copy(update={"epochs": 1}),
    )
    result = train(config, tmp_path / "runs")
    stored = load_file(result.folder / "model" / "model.safetensors")
    assert torch.equal(*(stored[f"module.{name}"] for name in PAIR))
    load_model(result.folder / "model")
