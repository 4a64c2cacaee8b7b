"""What a mutated file goes through: the commands' own functions, behind their own handler."""

from __future__ import annotations

from os.path import realpath
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from preceptor.config.files import dump_config, load_config
from preceptor.config.run import RunConfig
from preceptor.config.training import Training
from preceptor.data.checks import COLUMNS
from preceptor.data.manifest import Manifest
from preceptor.data.workspace import Workspace
from preceptor.maps.store import MapStore, StoreInfo, write_store
from preceptor.study.checks import check_study
from preceptor.study.config import StudyConfig
from preceptor.study.workspaces import Workspaces
from preceptor.study_folder import open_study
from preceptor.training.prepare import build, guided_rows, run_id_of
from preceptor.training.run import train
from tests.datasets import SHORT, SQUARES_RUN

_TRAINING: dict[str, Any] = SHORT | {
    "epochs": 2,
    "batch_size": 4,
    "checkpoint": "best_auc",
    "augmentation": {"flip": True, "crop_area": 0.8, "color": 0.1},
}
_RUN = {"manifest": "manifest.csv"} | SQUARES_RUN
RUNS: tuple[dict[str, Any], ...] = (
    _RUN | {"training": {"input_size": 32, "epochs": 2}},
    _RUN
    | {
        "weights": "none",
        "rows": "all",
        "annotated": 0.5,
        "annotated_seed": 1,
        "guide_classes": ["marked"],
        "alpha": 0.5,
        "seed": 3,
        "training": _TRAINING | {"length": "steps", "steps": 6},
        "maps": {"kind": "store", "path": "teacher", "shuffle_seed": 2, "human": "keep"},
    },
    _RUN
    | {
        "annotated": 4,
        "training": {"recipe": "paper", "input_size": 32, "epochs": 1},
    },
)
_STUDY: dict[str, Any] = {
    "manifest": "manifest.csv",
    "positive": "marked",
    "teachers": ["test_byobnet"],
    "students": ["test_byobnet"],
    "backbone_args": {"test_byobnet": {"output_stride": 8}},
    "training": _TRAINING,
}
STUDIES: tuple[dict[str, Any], ...] = (
    _STUDY,
    _STUDY
    | {
        "students": ["test_byobnet", "test_resnet"],
        "primary": "test-new",
        "weights": {"test_byobnet": "none", "test_resnet": "none"},
        "seeds": [0, 2],
        "annotated": 0.5,
        "annotated_per_seed": True,
        "alphas": [0.1, 0.5],
        "teacher_alphas": [0.5],
        "data_driven": True,
        "maps": {"segmenter": "maps"},
        "saliency": ["cam", "rise"],
        "rise_masks": 100,
        "controls": ["shuffled", "centre", "pca", "mixed"],
        "ceiling": True,
        "budget": [4, 8],
        "threshold": "fdr=0.05",
        "terms": "pad",
        "training": _TRAINING | {"input_size": 64},
        "store": "store",
        "guide_classes": ["marked"],
    },
    _STUDY
    | {
        "seeds": 2,
        "generations": 2,
        "mapper": "start",
        "annotated": 6,
        "guidances": {"weak": {"distance": "mse"}, "masks": {"alphas": [0.1]}},
        "training": _TRAINING | {"clip": 1.0},
    },
    {
        "domains": {
            "Marks": {"manifest": "manifest.csv", "primary": "test"},
            "more": {"manifest": "draws/{seed}.csv"},
        },
        "positive": "marked",
        "teachers": ["test_byobnet"],
        "students": ["test_byobnet"],
        "seeds": 2,
        "controls": [],
        "ceiling": False,
        "data_driven": False,
        "alphas": [0.5],
        "training": _TRAINING | {"input_size": 64},
    },
)


def make_data(folder: Path) -> Path:
    """Twenty tiny images with maps, a manifest, two draws, and a folder of maps; the folder."""
    generator = np.random.default_rng(0)
    (folder / "maps").mkdir(parents=True)
    (folder / "draws").mkdir()
    rows = ["path,label,split,saliency,annotated,source,group,map_weight,sample_weight"]
    splits = ["train"] * 8 + ["val"] * 4 + ["test"] * 4 + ["test-new"] * 4
    for number, split in enumerate(splits):
        pixels = generator.integers(0, 256, (12, 16, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        Image.fromarray(pixels[..., 0]).save(folder / "maps" / f"{number}.png")
        label = ("plain", "marked")[number % 2]
        rows.append(f"{number}.png,{label},{split},maps/{number}.png,1,s{number % 3},g{number},1,1")
    store = MapStore(
        StoreInfo("a Teacher", "cam", "squash", 32, ("marked", "plain"), {}),
        np.array([f"{number}.png" for number in range(8)], object),
        generator.random((8, 4, 4)).astype(np.float16),
        (np.arange(8) % 2).astype(np.int32),
        np.full(8, 0.5, np.float32),
    )
    write_store(folder / "teacher", store)
    text = "\n".join(rows) + "\n"
    (folder / "manifest.csv").write_text(text)
    away = text.replace("\n", "\n../").removesuffix("../").replace(",maps/", ",../maps/")
    for seed in range(2):
        (folder / "draws" / f"{seed}.csv").write_text(away)
    return folder


def check_table(file: Path) -> None:
    """As `preceptor data check` begins; an accepted table, written and read again, is the same."""
    manifest = Manifest.read(file, verify=False)
    again = file.with_name(f".again{file.suffix}")
    manifest.write(again)
    found, wanted = (
        # An absolute path is written as the way to it.
        one.table[[*COLUMNS]].assign(
            path=one.table["path"].map(realpath), saliency=one.table["saliency"].map(realpath)
        )
        for one in (Manifest.read(again, verify=False), manifest)
    )
    pd.testing.assert_frame_equal(found, wanted)


class Paths:
    """The way of a run file and of a study file up to where networks are built."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder, self.cache = folder, cache
        self.opened: dict[Path, Workspace] = {}

    def run(self, file: Path, *, whole: bool = False) -> None:
        """As `preceptor train` begins: the config, its manifest, the run's id."""
        config = load_config(file, RunConfig)
        self._same(config)
        if config.manifest not in self.opened:
            self.opened[config.manifest] = Workspace.open(config.manifest, self.cache)
        workspace = self.opened[config.manifest]
        run_id_of(workspace, config)
        if whole and _is_small(config.training):
            train(config, self.folder / "runs", workspace=workspace)
        elif whole:
            guided_rows(workspace, config, build(workspace, config))

    def study(self, file: Path, *, whole: bool = False) -> None:
        """As `preceptor study` begins: the config, its manifests, the checks of both."""
        study = load_config(file, StudyConfig)
        self._same(study)
        if whole:
            plan = open_study(study, self.folder / "out", run=False, report_to=lambda line: None)
            plan.outline()
            return
        for own in study.by_domain().values():
            workspaces = Workspaces.of_study(own, self.cache)
            workspaces.opened = self.opened
            workspaces.caches = dict.fromkeys(workspaces.caches, self.cache)
            check_study(own, workspaces, networks=False)

    def _same(self, config: Any) -> None:
        """An accepted config, written and read again, is the same."""
        again = self.folder / ".again.yaml"
        again.write_text(dump_config(config), encoding="utf-8")
        assert load_config(again, type(config)) == config


def _is_small(training: Training) -> bool:
    """Whether a training of eight images takes a moment."""
    steps = training.steps or 2 * training.epochs
    return steps <= 20 and training.batch_size <= 64 and (training.input_size or 999) <= 96


def spoil_folder(folder: Path) -> None:
    """Files beside the images of `make_data` that no manifest should name."""
    (folder / "dir").mkdir()
    (folder / "empty.png").touch()
    (folder / "text.png").write_text("not an image\n")
    (folder / "cut.png").write_bytes((folder / "0.png").read_bytes()[:60])
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "away.png").symlink_to("nowhere.png")
    Image.new("L", (90, 4)).save(folder / "wide.png")
