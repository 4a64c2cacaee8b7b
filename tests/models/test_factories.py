"""Factories of networks, tied weights: declared functions, their source, folders and runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from preceptor.config.settings import NetworkFactory
from preceptor.errors import InputError
from preceptor.models.build import build_model, load_model, save_model
from preceptor.models.custom import factory_of
from preceptor.models.networks import head_in
from preceptor.models.spec import Pool
from preceptor.training.run import train
from preceptor.utils.results import source_digest
from tests.datasets import squares
from tests.training.small_runs import SMALL, small

CLASSES = ("real", "fake")
SOURCE = """
from torch import nn
from preceptor import NetworkParts, network_factory
from own_networks.layers import block

@network_factory
def small(num_classes, in_chans, width=8):
    network = nn.Sequential(
        block(in_chans, width), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes)
    )
    return NetworkParts(network, "3", "0")

@network_factory
def sized(num_classes, in_chans):
    network = small(num_classes, in_chans).module
    return NetworkParts(network, "3", "0.1", input_size=48, mean=(0.5,) * 3)

@network_factory
def fixed(num_classes, in_chans):
    return small(2, in_chans)

@network_factory
def wrong(num_classes, in_chans):
    return "a network"

def undeclared(num_classes, in_chans):
    return small(num_classes, in_chans)
"""
LAYERS = """
from torch import nn

def block(in_chans, width):
    return nn.Sequential(nn.Conv2d(in_chans, width, 5, stride=4), nn.ReLU())
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Package of a user, which can be imported."""
    folder = tmp_path / "own" / "own_networks"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "layers.py").write_text(LAYERS)
    (folder / "unused.py").write_text("")
    (folder / "nets.py").write_text(SOURCE)
    (folder / "broken.py").write_text("import a_library_that_is_not_there\n")
    monkeypatch.syspath_prepend(folder.parent)
    yield folder
    forget()


def forget() -> None:
    """Remove the modules of the package from those that are imported."""
    for name in [name for name in sys.modules if name.startswith("own_networks")]:
        del sys.modules[name]


def built(target: str, **arguments: object) -> NetworkFactory:
    return NetworkFactory(factory=target, args=arguments)


def test_a_model_of_a_factory_and_its_folder(package: Path, tmp_path: Path) -> None:
    network = built("own_networks.nets:small", width=6)
    for head in ("softmax", "sigmoid"):
        torch.manual_seed(0)
        model = build_model(
            "mine", CLASSES, positive="fake", input_size=32, in_chans=1, head=head,
            network=network, pool=Pool("top", top=3)
        ).eval()  # fmt: skip
        assert (model.spec.backbone, model.spec.cam, model.spec.head) == ("mine", "cam", head)
        assert model.head.weight.shape[1] == 6
        save_model(model, tmp_path / head)
        loaded = load_model(tmp_path / head).eval()
        assert loaded.spec == model.spec
        images = torch.randn(2, 1, 32, 32)
        torch.testing.assert_close(loaded(images), model(images))
    sized = build_model("mine", CLASSES, network=built("own_networks.nets:sized"))
    assert sized.spec.module is not None
    assert (sized.spec.input_size, sized.spec.module.features) == (48, "0.1")
    assert sized.spec.mean == (0.5, 0.5, 0.5)


def test_weights_of_a_factory(package: Path, tmp_path: Path) -> None:
    network = built("own_networks.nets:small")
    first = build_model("mine", ["a", "b", "c"], input_size=32, network=network)
    module = first.backbone.module
    assert isinstance(module, torch.nn.Module)
    save_file(module.state_dict(), tmp_path / "w.safetensors")
    weights = str(tmp_path / "w.safetensors")
    second = build_model("mine", CLASSES, input_size=32, network=network, weights=weights)
    own = second.backbone.module
    assert isinstance(own, torch.nn.Module)
    assert torch.equal(own[0][0].weight, module[0][0].weight)
    assert own[3].weight.shape == (2, 8)  # a head of another size is left as it is
    same = {"classes": ["a", "b", "c"], "input_size": 32, "network": network, "weights": weights}
    kept = build_model("mine", **same).backbone.module
    new = build_model("mine", new_head=True, **same).backbone.module
    assert isinstance(kept, torch.nn.Module)
    assert isinstance(new, torch.nn.Module)
    assert torch.equal(kept[3].weight, module[3].weight)
    assert not torch.equal(new[3].weight, module[3].weight)
    assert torch.equal(new[0][0].weight, module[0][0].weight)
    deeper = tmp_path / "deeper.safetensors"
    save_file(module.state_dict() | {"0.2.weight": torch.ones(2)}, deeper)
    with pytest.raises(InputError, match=r"mine: it has 1 tensors .* first '0\.2\.weight'"):
        build_model("mine", CLASSES, input_size=32, network=network, weights=str(deeper))
    save_model(first, tmp_path / "trained")  # as a study starts from the weights of a mapper
    same["weights"] = str(tmp_path / "trained" / "model.safetensors")
    for new_head in (False, True):
        started = build_model("mine", new_head=new_head, **same).backbone.module
        assert isinstance(started, torch.nn.Module)
        assert torch.equal(started[0][0].weight, module[0][0].weight)
        assert torch.equal(started[3].weight, module[3].weight) != new_head
    assert head_in(same["weights"], first.backbone).keys() == {"module.3.weight", "module.3.bias"}
    other = built("own_networks.nets:small", width=4)
    with pytest.raises(InputError, match=r"does not fit mine: 2 tensors .* first '0\.0\.weight'"):
        build_model("mine", CLASSES, input_size=32, network=other, weights=weights)
    with pytest.raises(InputError, match="mine is not on timm's hub"):
        build_model("mine", CLASSES, input_size=32, network=network, weights="hub")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("not_there.nets:f", "there is no module not_there here; install it, or add the folder"),
        ("own_networks.not_there:f", "there is no module own_networks.not_there here"),
        ("own_networks.broken:f", "own_networks.broken cannot be imported: "),
        ("own_networks.nets:f", "own_networks.nets has no f"),
        ("own_networks.nets:undeclared", "write @preceptor.network_factory above it"),
        ("os:system", "system is not declared as a factory"),
    ],
)
def test_factories_that_are_refused(package: Path, target: str, message: str) -> None:
    with pytest.raises(InputError) as found:
        factory_of(target)
    assert message in str(found.value)


def test_what_a_factory_does_is_one_line(package: Path) -> None:
    for network, message in (
        (built("own_networks.nets:small", depth=3), "unexpected keyword argument 'depth'"),
        (built("own_networks.nets:wrong"), "returns a str; return NetworkParts"),
    ):
        with pytest.raises(InputError, match=message) as found:
            build_model("mine", CLASSES, input_size=32, network=network)
        assert "\n" not in str(found.value)
    fixed = built("own_networks.nets:fixed")
    with pytest.raises(InputError, match="head is sigmoid, which has num_classes=1, and the"):
        build_model("mine", CLASSES, input_size=32, network=fixed, head="sigmoid")
    small = built("own_networks.nets:small")
    with pytest.raises(InputError, match="backbone_args is for backbones of timm"):
        build_model("mine", CLASSES, network=small, backbone_args={"output_stride": 8})
    with pytest.raises(InputError, match="cam_source: cyborg is for backbones of timm"):
        build_model("mine", CLASSES, network=small, cam_source="cyborg")


def test_the_source_is_the_module_and_what_it_imports(package: Path) -> None:
    target = "own_networks.nets:small"
    first = source_digest(target)
    (package / "unused.py").write_text("x = 1")
    assert source_digest(target) == first
    (package / "layers.py").write_text(LAYERS + "\n# changed")
    second = source_digest(target)
    assert second != first
    (package / "nets.py").write_text(SOURCE + "\n# changed")
    assert source_digest(target) not in (first, second)
    with pytest.raises(InputError, match="not_there:f: there is no module not_there here"):
        source_digest("not_there:f")


MARKS = ("plain", "marked")
NETWORK = NetworkFactory(factory="tests.networks:tied")
PAIR = ("2.weight", "4.weight")


def test_a_model_folder_has_them_under_both_names(tmp_path: Path) -> None:
    model = build_model("mine", MARKS, input_size=32, network=NETWORK)
    save_model(model, tmp_path / "model")
    stored = load_file(tmp_path / "model" / "model.safetensors")
    assert set(stored) == set(model.backbone.state_dict())
    again = load_model(tmp_path / "model")
    one, other = (again.backbone.get_parameter(f"module.{name}") for name in PAIR)
    assert one is other
    images = torch.randn(2, 3, 32, 32)
    model.eval(), again.eval()
    torch.testing.assert_close(again(images).logits, model(images).logits, rtol=0, atol=0)


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
