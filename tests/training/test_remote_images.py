"""Training on remote images and on members of shards: the same bits as on local files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from preceptor.config.run import RunConfig
from preceptor.config.training import Training
from preceptor.data.workspace import Workspace
from preceptor.errors import InputError
from preceptor.training.run import RunResult, train
from preceptor.utils.results import read_scores
from tests.datasets import squares
from tests.fault_server import FaultServer, fault_server
from tests.shards import contents_of, moved, tar_of

SMALL = Training(input_size=32, epochs=2, batch_size=8, lr=0.01, schedule="constant")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FaultServer]:
    monkeypatch.setenv("PRECEPTOR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("preceptor.data.remote._WAITS", (0.0,) * 4)
    with fault_server() as found:
        yield found


@pytest.fixture
def local(tmp_path: Path) -> Path:
    return squares(tmp_path / "data", splits={"train": 24, "val": 12, "test": 4})


def trained(manifest: Path, store: Path, caches: Path | None) -> RunResult:
    config = RunConfig.model_validate(
        {
            "manifest": manifest,
            "backbone": "test_byobnet",
            "backbone_args": {"output_stride": 8},
            "positive": "marked",
            "training": SMALL.model_copy(update={"cache": "memmap" if caches else "none"}),
        }
    )
    return train(config, store, workspace=Workspace.open(manifest, caches, verify=True))


@pytest.mark.parametrize("cached", [True, False])
def test_a_training_through_faults_is_the_training_on_local_files(
    local: Path, server: FaultServer, tmp_path: Path, cached: bool
) -> None:
    images, maps = contents_of(local, "path"), contents_of(local, "saliency")
    server.files |= images | maps
    server.busy.update(dict.fromkeys(list(images)[::3], 2))
    server.cut.update(dict.fromkeys([*list(images)[::4], *list(maps)[::2]], 1))
    (local.parent / "shard.tar").write_bytes(tar_of(images | maps))
    manifests = {
        "local": moved(local, local.with_name("local.csv"), "{path}"),
        "http": moved(local, local.with_name("http.csv"), server.address + "/{path}"),
        "tar": moved(local, local.with_name("tar.csv"), "shard.tar::{path}"),
    }
    found = {
        kind: trained(manifest, tmp_path / kind, tmp_path / f"{kind}-caches" if cached else None)
        for kind, manifest in manifests.items()
    }
    known = found.pop("local")
    for result in found.values():
        assert result.id == known.id
        assert read_scores(result.folder).equals(read_scores(known.folder))
        weights = [one.folder / "model" / "model.safetensors" for one in (result, known)]
        assert weights[0].read_bytes() == weights[1].read_bytes()
    assert not any(server.busy[name] > 0 or server.cut[name] for name in images | maps)


def test_nothing_is_trained_if_one_body_stays_cut(
    local: Path, server: FaultServer, tmp_path: Path
) -> None:
    images, maps = contents_of(local, "path"), contents_of(local, "saliency")
    server.files |= images | maps
    server.unsized.add("images/train-3.png")
    path = moved(local, local.with_name("http.csv"), server.address + "/{path}")
    with pytest.raises(InputError, match=r"images/train-3\.png.*cut short after"):
        trained(path, tmp_path / "store", tmp_path / "caches")
    assert not list((tmp_path / "store").glob("*"))
