"""From an export of each annotation tool to the report of a study, with the commands of a user.

    python benchmarks/import_to_study.py MANIFEST [--work FOLDER] [--images 120] [--formats ...]

A part of the images of the manifest (three sets, both classes) is written in each format: by
`preceptor data export` where it exists, otherwise by the few lines here. Then, for each format,
`data import`, `study init` and `study` run one after the other, with the smallest of networks for
one epoch. Printed are the seconds of each command, and whether the imported maps are the masks of
the manifest, pixel for pixel (boxes, for the formats that have boxes only).
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray
from PIL import Image

EXPORTED = ("coco", "labelstudio", "labelme", "cvat", "masks")
BOXES = ("yolo", "voc")


def command(*arguments: object) -> float:
    """Run a command of preceptor; returns its seconds."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "preceptor", *map(str, arguments)], capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, arguments))}: {done.stderr or done.stdout}")
    return time.perf_counter() - started


def part_of(manifest: Path, count: int, folder: Path) -> Path:
    """Manifest of some images of the training, a validation and a test set, copied flat."""
    table = pd.read_csv(manifest, keep_default_na=False)
    table = table[table["split"].isin(["train", "val", "test"])]
    each = count // 6
    table = table.groupby(["split", "label"]).head(each).reset_index(drop=True)
    for column in ("path", "saliency"):
        (folder / column).mkdir(parents=True, exist_ok=True)
        for row, name in table[column].items():
            if name:
                target = Path(column) / Path(name).name
                shutil.copy(manifest.parent / name, folder / target)
                table.loc[row, column] = target.as_posix()
    table[["path", "label", "split", "saliency", "annotated"]].to_csv(
        folder / "manifest.csv", index=False
    )
    return folder / "manifest.csv"


def mask_of(folder: Path, name: str, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Mask of an image; empty without a map."""
    if not name:
        return np.zeros(size[::-1], np.uint8)
    return np.where(np.asarray(Image.open(folder / name).convert("L")) >= 128, 255, 0).astype(
        np.uint8
    )


def box_of(mask: NDArray[np.uint8]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the marked pixels; the last two are outside."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def write_yolo(folder: Path, table: pd.DataFrame, out: Path) -> list[object]:
    (out / "labels").mkdir(parents=True)
    shutil.copytree(folder / "path", out / "images")
    names = {"names": ["tumour"], "path": ".", "train": "images", "val": "images"}
    (out / "data.yaml").write_text(yaml.safe_dump(names))
    for row in table.itertuples():
        with Image.open(folder / row.path) as image:
            wide, high = image.size
        mask = mask_of(folder, row.saliency, (wide, high))
        line = ""
        if mask.any():
            x1, y1, x2, y2 = box_of(mask)
            values = (x1 + x2) / 2 / wide, (y1 + y2) / 2 / high, (x2 - x1) / wide, (y2 - y1) / high
            line = "0 " + " ".join(f"{value:.10f}" for value in values) + "\n"
        (out / "labels" / f"{Path(row.path).stem}.txt").write_text(line)
    return [out / "data.yaml", "--images", out / "images", "--unmarked", "examined"]


def write_voc(folder: Path, table: pd.DataFrame, out: Path) -> list[object]:
    out.mkdir(parents=True)
    for row in table.itertuples():
        with Image.open(folder / row.path) as image:
            wide, high = image.size
        mask = mask_of(folder, row.saliency, (wide, high))
        text = f"<filename>{Path(row.path).name}</filename><size><width>{wide}</width>"
        text += f"<height>{high}</height><depth>3</depth></size>"
        if mask.any():
            corners = zip(("xmin", "ymin", "xmax", "ymax"), box_of(mask), strict=True)
            box = "".join(f"<{name}>{value}</{name}>" for name, value in corners)
            text += f"<object><name>tumour</name><bndbox>{box}</bndbox></object>"
        file = out / f"{Path(row.path).stem}.xml"
        file.write_text(f"<annotation>{text}</annotation>")
    return [out, "--images", folder / "path", "--unmarked", "examined"]


def write_folders(folder: Path, table: pd.DataFrame, out: Path) -> list[object]:
    for row in table.itertuples():
        image, place = Path(row.path).name, Path(row.split) / row.label
        for base in ("images", "masks"):
            (out / base / place).mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / row.path, out / "images" / place / image)
        if row.saliency:
            shutil.copy(folder / row.saliency, (out / "masks" / place / image).with_suffix(".png"))
    masks = ["--masks", out / "masks", "--unmarked", "examined"]
    return [out / "images", "--images", out / "images", *masks]


WRITERS: dict[str, Callable[[Path, pd.DataFrame, Path], list[object]]] = {
    "yolo": write_yolo,
    "voc": write_voc,
    "folders": write_folders,
}


def exported(format_: str, manifest: Path, out: Path) -> list[object]:
    """Export by the library; arguments that read it back."""
    shapes = [] if format_ == "masks" else ["--shapes", "masks"]
    command("data", "export", format_, manifest, "--to", out, *shapes)
    source = {
        "coco": sorted(out.glob("*.json")),
        "labelstudio": sorted(out.glob("*.json")),
        "cvat": sorted(out.glob("*.xml")),
    }.get(format_) or [out / "masks" if (out / "masks").is_dir() else out]
    labels = ["--labels", out / "labels.csv", "--unmarked", "examined"]
    return [*source, "--images", manifest.parent / "path", *labels]


def equal_maps(imported: Path, folder: Path, table: pd.DataFrame, boxes: bool) -> tuple[int, int]:
    """Numbers of equal maps and of all images."""
    found = pd.read_csv(imported / "manifest.csv", keep_default_na=False)
    maps = {Path(row.path).name: row.saliency for row in found.itertuples()}
    equal = 0
    for row in table.itertuples():
        with Image.open(folder / row.path) as image:
            mask = mask_of(folder, row.saliency, image.size)
        if boxes and mask.any():
            x1, y1, x2, y2 = box_of(mask)
            mask[y1:y2, x1:x2] = 255
        name = maps[Path(row.path).name]
        own = np.asarray(Image.open(imported / name)) if name else np.zeros_like(mask)
        equal += int(np.array_equal(own, mask))
    return equal, len(table)


def small_study(file: Path) -> None:
    """The study of `study init`, with one seed, one α and one epoch."""
    values = yaml.safe_load(file.read_text())
    values |= {"seeds": 1, "alphas": [0.5], "teacher_alphas": [0.5], "data_driven": False}
    values |= {"controls": ["shuffled"], "ceiling": False}
    values["training"] |= {"epochs": 1, "batch_size": 16}
    file.write_text(yaml.safe_dump(values))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--work", type=Path, default=Path("import-to-study"))
    parser.add_argument("--images", type=int, default=120)
    parser.add_argument("--formats", nargs="+", default=[*EXPORTED, *WRITERS])
    options = parser.parse_args()
    work = options.work.resolve()
    manifest = part_of(options.manifest.resolve(), options.images, work / "part")
    table = pd.read_csv(manifest, keep_default_na=False)
    for name in options.formats:
        out = work / name
        if name in WRITERS:
            source = WRITERS[name](manifest.parent, table, out / "export")
        else:
            out.mkdir(parents=True)
            source = exported(name, manifest, out / "export")
        # The others have their splits in labels.csv or in the folders.
        split = ["--split", "0.5,0.25,0.25"] if name in BOXES else []
        seconds = [command("data", "import", name, *source, "--to", out / "data", *split)]
        equal = equal_maps(out / "data", manifest.parent, table, name in BOXES)
        file = out / "study.yaml"
        given = "--to", file, "--backbone", "test_resnet", "--weights", "none", "--size", 64
        seconds.append(command("study", "init", out / "data" / "manifest.csv", *given))
        small_study(file)
        seconds.append(command("study", file, "--out", out / "study"))
        assert (out / "study" / "report.html").is_file()
        told = ", ".join(f"{one:.0f}" for one in seconds)
        print(f"{name}: {equal[0]} of {equal[1]} maps equal; {told} s", flush=True)


if __name__ == "__main__":
    main()
