from pathlib import Path

import pytest
from PIL import Image

from preceptor.annotations.text_formats import read_und
from preceptor.errors import InputError, ProblemsError


@pytest.fixture
def release(tmp_path: Path) -> Path:
    images = [
        "real/a.png",
        "real/b.png",
        "gan/c.png",
        "gan/d.jpg",
        "new/real/e.png",
        "new/gan/a.png",
    ]
    for name in images:
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)
    (tmp_path / "heat").mkdir()
    for name in ("a.jpg", "d.png", "other.png"):
        Image.new("L", (4, 4)).save(tmp_path / "heat" / name)
    (tmp_path / "heat" / "notes.txt").write_text("not a map")
    lines = [
        "train,real,/real/a.png",
        "test,real,/real/b.png",
        "train,fake,gan/c.png",
        "test,fake,/gan/d.jpg",
    ]
    (tmp_path / "train.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "gan9.csv").write_text("test,real,/new/real/e.png\ntrain,fake,/new/gan/a.png\n")
    return tmp_path


def read(release: Path, *tests: str, heatmaps: bool = True):  # type: ignore[no-untyped-def]
    return read_und(
        release / "train.csv",
        [release / name for name in tests or ("gan9.csv",)],
        release / "images",
        release / "heat" if heatmaps else None,
    )


def problems(release: Path, *tests: str) -> list[str]:
    with pytest.raises(ProblemsError) as caught:
        read(release, *tests)
    return [str(problem) for problem in caught.value.problems]


def test_the_release_reads_as_it_is(release: Path) -> None:
    table = read(release).table
    assert table["name"].tolist() == [
        "real/a.png",
        "real/b.png",
        "gan/c.png",
        "gan/d.jpg",
        "new/real/e.png",
        "new/gan/a.png",
    ]
    assert table["split"].tolist() == ["train", "val", "train", "val", "test-gan9", "test-gan9"]
    assert table["label"].tolist() == ["real", "real", "fake", "fake", "real", "fake"]
    assert table["source"].tolist() == ["real", "real", "gan", "gan", "new/real", "new/gan"]
    maps = [Path(path).name if path else "" for path in table["saliency"]]
    # The test image that happens to be called a.png as well has no map of its own.
    assert maps == ["a.jpg", "", "", "d.png", "", ""]
    assert table["annotated"].tolist() == [True, False, False, True, False, False]
    assert table["path"][0] == str(release / "images" / "real" / "a.png")


def test_csvs_of_one_class_are_one_test_set_with_a_source_for_each(release: Path) -> None:
    (release / "ffhq.csv").write_text("test,real,/new/real/e.png\n")
    (release / "progan.csv").write_text("test,fake,/new/gan/a.png\n")
    files = [release / "ffhq.csv", release / "progan.csv"]
    manifest = read_und(
        release / "train.csv", files, release / "images", release / "heat", join="test-unseen"
    )
    table = manifest.table
    assert manifest.eval_splits("test") == ["test-unseen"]
    assert table["source"].tolist() == ["real", "real", "gan", "gan", "ffhq", "progan"]
    assert table["saliency"].tolist()[-2:] == ["", ""]
    with pytest.raises(InputError, match="'unseen' is no test set; name it test or test-NAME"):
        read_und(release / "train.csv", files, release / "images", None, join="unseen")


def test_maps_may_lie_in_folders_like_the_images(release: Path) -> None:
    for place in ("real", "new/gan"):
        (release / "heat" / place).mkdir(parents=True)
        Image.new("L", (4, 4)).save(release / "heat" / place / "a.png")
    maps = read(release).table["saliency"].tolist()
    assert maps[0] == str(release / "heat" / "real" / "a.png")
    assert maps[5] == str(release / "heat" / "new" / "gan" / "a.png")


def test_no_heat_maps_and_a_header_row_are_fine(release: Path) -> None:
    text = (release / "train.csv").read_text()
    (release / "train.csv").write_text("Split,Class,Path\n" + text)
    (release / "gan9.csv").rename(release / "test_gan9.csv")
    table = read(release, "test_gan9.csv", heatmaps=False).table
    assert (table["saliency"] == "").all()
    assert table["split"].tolist()[-1] == "test-gan9"
    assert len(table) == 6


def test_two_files_that_would_make_one_test_set_are_refused(release: Path) -> None:
    (release / "test-gan9.csv").write_text((release / "gan9.csv").read_text())
    with pytest.raises(InputError, match=r"test set would be test-gan9, as the one of .*; rename"):
        read(release, "gan9.csv", "test-gan9.csv")


def test_everything_wrong_is_told_at_once(release: Path) -> None:
    with (release / "train.csv").open("a") as stream:
        stream.write("dev,real,/real/x.png\ntrain,,/real/b.png\ntrain,real,/\n")
    Image.new("L", (4, 4)).save(release / "heat" / "d.bmp")
    told = problems(release, "gan9.csv")
    for expected in (
        "train.csv row 4: 'gan/d.jpg' has 2 heat maps",
        "train.csv row 5: split 'dev' is unknown",
        "train.csv row 5: image 'real/x.png' does not exist",
        "train.csv row 6: label is empty",
        "train.csv row 6: image 'real/b.png' is listed already in train.csv row 2",
        "train.csv row 7: path is empty",
    ):
        assert any(expected in problem for problem in told), (expected, told)
    assert len(told) == 6


def test_one_heat_map_for_two_images_is_refused(release: Path) -> None:
    Image.new("RGB", (8, 8)).save(release / "images" / "gan" / "a.png")
    with (release / "train.csv").open("a") as stream:
        stream.write("train,fake,/gan/a.png\n")
    (told,) = problems(release)
    assert told.startswith("train.csv row 5: 'gan/a.png' and train.csv row 1 have one heat map")


def test_missing_folders_are_told(release: Path) -> None:
    with pytest.raises(ProblemsError, match=r"heat maps: .*nowhere is not a folder"):
        read_und(
            release / "train.csv", [release / "gan9.csv"], release / "images", release / "nowhere"
        )
    with pytest.raises(ProblemsError, match=r"image root: .*nowhere is not a folder"):
        read_und(release / "train.csv", [release / "gan9.csv"], release / "nowhere", None)
    with pytest.raises(ProblemsError, match=r"nothing.csv: 1 problem\n.*no such file"):
        read_und(release / "train.csv", [release / "nothing.csv"], release / "images", None)
