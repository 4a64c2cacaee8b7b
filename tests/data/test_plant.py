"""Planted shortcuts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image

from preceptor.data.images import decode_image, decode_map
from preceptor.data.manifest import Manifest
from preceptor.data.plant import Planted, PlantSettings, plant
from preceptor.data.splits import draw_annotated
from preceptor.errors import InputError, ProblemsError
from tests.commands import Outcome, assert_refused, here
from tests.datasets import squares

SPLITS = {"train": 24, "val": 8, "val-clean": 8, "test": 8}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return squares(tmp_path_factory.mktemp("plant"), splits=SPLITS, size=(64, 48))


def read(path: Path) -> Manifest:
    return Manifest.read(path, verify=False, need=("train",))


def planted(data: Path, to: Path, **settings: object) -> Planted:
    return plant(read(data), to, PlantSettings.model_validate(settings), workers=2)


def changed(data: Path, written: Path) -> dict[str, NDArray[np.bool_]]:
    """Pixels of each image that differ from the original, by name."""
    before, after = read(data), read(written)
    assert after.table["name"].tolist() == before.table["name"].tolist()
    return {
        name: (decode_image(Path(one)) != decode_image(Path(other))).any(axis=2)
        for name, one, other in zip(
            before.table["name"], before.table["path"], after.table["path"], strict=True
        )
    }


def save(folder: Path, images: dict[str, Image.Image], **columns: list[object]) -> Path:
    """A manifest of training images, of the classes a and b in turn."""
    folder.mkdir(exist_ok=True)
    for name, image in images.items():
        image.save(folder / name)
    count = len(images)
    table = pd.DataFrame({"path": list(images), "label": (["a", "b"] * count)[:count]})
    table["split"] = "train"
    for column, cells in columns.items():
        table[column] = cells
    table.to_csv(folder / "manifest.csv", index=False)
    return folder / "manifest.csv"


def test_a_class_is_marked_in_train_and_val_and_nowhere_else(data: Path, tmp_path: Path) -> None:
    done = planted(data, tmp_path / "out")
    assert done.settings.label == "marked"  # the only class with maps
    assert done.clean_validation
    assert done.splits == {"train": (12, 12), "val": (4, 4)}
    table = read(data).table.set_index("name")
    for name, where in changed(data, done.manifest).items():
        row = table.loc[name]
        expected = row["label"] == "marked" and row["split"] in ("train", "val")
        assert where.sum() == (60 if expected else 0)
        assert expected == (name in done.marks)


def test_which_images_are_marked_is_independent_of_which_are_annotated(tmp_path: Path) -> None:
    """Both are drawn from seed 0 unless told otherwise."""
    images = {f"{number:03d}.png": Image.new("L", (32, 32), 90) for number in range(80)}
    manifest = save(tmp_path / "data", images, annotated=[1] * 80)
    done = planted(manifest, tmp_path / "out", label="a", rate=0.5)
    names = read(done.manifest).table["name"]
    drawn = set(names[draw_annotated(read(done.manifest), 0.5, 0)])
    assert len(done.marks) == 20
    assert 5 <= len(drawn & set(done.marks)) <= 15


def test_a_moving_stamp_touches_no_map(data: Path, tmp_path: Path) -> None:
    done = planted(data, tmp_path / "out")
    table = read(data).table.set_index("name")
    boxes = set()
    for name, where in changed(data, done.manifest).items():
        if where.any():
            box = done.marks[name]
            boxes.add(box)
            assert not where[: box.top].any()
            assert where[box.top : box.top + box.height, box.left : box.left + box.width].all()
            region = decode_map(Path(table.loc[name, "saliency"])) > 0
            # One pixel around the stamp is free as well.
            around = region[
                box.top - 1 : box.top + box.height + 1, box.left - 1 : box.left + box.width + 1
            ]
            assert around.shape == (box.height + 2, box.width + 2)
            assert not around.any()
    assert len(boxes) > 10


def test_a_corner_stamp_has_one_place(data: Path, tmp_path: Path) -> None:
    done = planted(data, tmp_path / "out", place="corner")
    assert {*done.marks.values()} == {(42, 51, 5, 12)}


def test_maps_of_another_size_and_with_noise_bound_the_stamp(tmp_path: Path) -> None:
    """A map on a coarser or finer grid covers the whole image; faint values are not its region."""
    coarse = np.full((4, 4), 5, np.uint8)
    coarse[:, 2:] = 255
    fine = np.zeros((301, 301), np.uint8)
    fine[:, 151:] = 200
    images = {f"{i}.png": Image.new("L", (96, 96), 90) for i in range(60)}
    data = save(tmp_path / "data", images, saliency=["coarse.png", "fine.png"] * 30)
    Image.fromarray(coarse).save(tmp_path / "data" / "coarse.png")
    Image.fromarray(fine).save(tmp_path / "data" / "fine.png")
    for label in ("a", "b"):
        done = planted(data, tmp_path / label, label=label)
        ends = [box.left + box.width for box in done.marks.values()]
        assert len(ends) == 30
        assert 40 < max(ends) < 48  # one pixel is its margin


def test_an_image_whose_map_leaves_no_place_stays_as_it_is(tmp_path: Path) -> None:
    images = {f"{i}.jpg": Image.effect_noise((64, 64), 50) for i in range(4)}
    data = save(tmp_path / "data", images, saliency=["", "some.png", "", "all.png"])
    Image.new("L", (8, 8), 255).save(tmp_path / "data" / "all.png")
    some = np.zeros((8, 8), np.uint8)
    some[:2] = 9
    Image.fromarray(some).save(tmp_path / "data" / "some.png")
    done = planted(data, tmp_path / "out", label="b")
    assert done.no_place == ("3.jpg",)
    assert list(done.marks) == ["1.jpg"]
    assert done.splits["train"] == (2, 1)
    assert not done.clean_validation
    paths = read(done.manifest).table["path"]
    assert Path(paths[3]).samefile(tmp_path / "data" / "3.jpg")
    assert [path.name for path in (tmp_path / "out" / "stamped").iterdir()] == ["000001-1.png"]


@pytest.mark.parametrize("rate", [0.0, 0.25, 0.5, 1.0])
def test_a_rate_marks_a_share_of_each_split_and_a_higher_one_marks_the_same_and_more(
    data: Path, tmp_path: Path, rate: float
) -> None:
    done = planted(data, tmp_path / "out", rate=rate)
    assert [marked for _, marked in done.splits.values()] == [12 * rate, 4 * rate]
    more = planted(data, tmp_path / "more", rate=min(1.0, rate + 0.25))
    assert done.marks.items() <= more.marks.items()


def test_the_same_seed_gives_the_same_images_and_another_seed_other_places(
    data: Path, tmp_path: Path
) -> None:
    first, again = (planted(data, tmp_path / name, seed=3) for name in ("first", "again"))
    assert first.marks == again.marks
    assert first.marks != planted(data, tmp_path / "other", seed=4).marks
    names = {path.relative_to(tmp_path / "first") for path in (tmp_path / "first").rglob("*.png")}
    for name in names:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_other_images_stay_where_they_are_and_all_columns_are_kept(
    data: Path, tmp_path: Path
) -> None:
    frame = pd.read_csv(data)
    frame["scanner"] = [f"s{i % 3}" for i in range(len(frame))]
    frame.loc[0, "path"] = str(data.parent / frame["path"][0])
    frame.to_parquet(data.with_name("manifest.parquet"))
    before = read(data.with_name("manifest.parquet"))
    done = planted(data.with_name("manifest.parquet"), tmp_path / "out")
    assert done.manifest == tmp_path / "out" / "manifest.parquet"
    after = read(done.manifest)
    columns = [name for name in before.table if name not in ("path", "saliency")]
    pd.testing.assert_frame_equal(after.table[columns], before.table[columns])
    for name, path, old in zip(
        after.table["name"], after.table["path"], before.table["path"], strict=True
    ):
        stamped = Path(path).parent == tmp_path / "out" / "stamped"
        assert stamped == (name in done.marks)
        assert stamped or Path(path).samefile(old)
    for path, old in zip(after.table["saliency"], before.table["saliency"], strict=True):
        assert bool(path) == bool(old)
        assert not path or Path(path).samefile(old)


def test_the_record_names_the_settings(data: Path, tmp_path: Path) -> None:
    done = planted(data, tmp_path / "out", strength=40, seed=2)
    record = json.loads((tmp_path / "out" / "plant.json").read_text())
    assert PlantSettings.model_validate(record["settings"]) == done.settings
    assert (done.settings.strength, done.settings.place) == (40, "moving")
    assert planted(data, tmp_path / "empty", rate=0).marks == {}


def test_marked_images_keep_their_mode_and_their_other_pixels(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (70, 64, 4)).astype(np.uint8)
    deep = np.random.default_rng(0).integers(0, 65536, (70, 64)).astype(np.uint16)
    color = Image.fromarray(noise[..., :3])
    images = {
        "gray.png": Image.fromarray(noise[..., 0]),
        "deep.png": Image.fromarray(deep),
        "color.jpg": color,
        "palette.gif": color.quantize(16),
        "clear.png": Image.fromarray(noise),
        "cmyk.jpg": color.convert("CMYK"),
    }
    other = {"other.png": images["gray.png"]}
    data = save(tmp_path / "data", images | other, label=["b"] * 6 + ["a"])
    done = planted(data, tmp_path / "out", label="b", place="corner")
    paths = dict(zip(images, read(done.manifest).table["path"], strict=False))
    modes = {name: Image.open(path).mode for name, path in paths.items()}
    assert modes == {
        "gray.png": "L",
        "deep.png": "L",
        "color.jpg": "RGB",
        "palette.gif": "RGB",
        "clear.png": "RGB",
        "cmyk.jpg": "RGB",
    }
    for name, where in changed(data, done.manifest).items():
        assert not where[: 70 - 6].any(), name
        assert not where[:, : 64 - 13].any(), name
        assert where.any() == (name != "other.png"), name


def test_problems_of_images_are_listed_together_and_nothing_is_written(tmp_path: Path) -> None:
    images = {f"{i}.png": Image.effect_noise((64, 64), 50) for i in range(8)}
    images["3.png"] = Image.new("L", (13, 40))
    data = save(tmp_path / "data", images)
    (tmp_path / "data" / "5.png").write_bytes(b"no image")
    with pytest.raises(ProblemsError) as caught:
        planted(data, tmp_path / "out", label="b")
    assert [problem.where for problem in caught.value.problems] == ["3.png", "5.png"]
    size, damage = (problem.what for problem in caught.value.problems)
    assert size == "path 3.png: 13 × 40 pixels, smaller than a stamp with its margin, 14 × 7"
    assert damage.startswith("path 5.png: not an image")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_the_class_is_told_by_its_maps_or_asked_for(tmp_path: Path) -> None:
    images = {f"{i}.png": Image.effect_noise((64, 64), 50) for i in range(4)}
    data = save(tmp_path / "data", images)
    with pytest.raises(InputError, match=r"no class has human maps.*name one of the classes: a, b"):
        planted(data, tmp_path / "out")
    Image.new("L", (8, 8)).save(tmp_path / "data" / "map.png")
    data = save(tmp_path / "data", images, saliency=["map.png", "map.png", "", ""])
    with pytest.raises(InputError, match=r"2 classes have human maps.*: a, b"):
        planted(data, tmp_path / "out")
    data = save(tmp_path / "data", images, saliency=["map.png", "", "", ""])
    assert planted(data, tmp_path / "out").settings.label == "a"


def test_the_command_says_what_it_wrote_and_refuses_invalid_input(
    data: Path, tmp_path: Path
) -> None:
    def command(*options: object, to: object = tmp_path / "out", manifest: Path = data) -> Outcome:
        return here("data", "plant", manifest, "--to", to, *options)

    done = command("--place", "corner", "--rate", 0.5)
    assert done.code == 0, done
    assert done.out.splitlines()[:3] == [
        f"wrote {tmp_path / 'out' / 'manifest.csv'}: 48 images",
        "train: 6 of 12 images of class marked have a stamp",
        "val: 2 of 4 images of class marked have a stamp",
    ]
    assert here("data", "check", tmp_path / "out" / "manifest.csv").code == 0
    other = tmp_path / "other"
    (tmp_path / "file").touch()
    assert_refused(command(), [f"{tmp_path / 'out'} exists already"])
    assert_refused(command(to=tmp_path / "file"), ["exists already"])
    assert_refused(command(to=other / "deep"), [f"{other}: there is no such folder"])
    assert_refused(command("--label", "tumor", to=other), ["'tumor'", "name one of marked, plain"])
    assert_refused(command("--rate", 1.5, to=other), ["rate: value 1.5"], 1)
    assert_refused(command("--strength", 0, to=other), ["strength: value 0"], 1)
    assert_refused(command("--seed", -1, to=other), ["seed: value -1"], 1)
    nowhere = tmp_path / "nowhere.csv"
    assert_refused(command(manifest=nowhere, to=other), ["there is no such file"], 1)
    assert not other.exists()
