"""The command `preceptor export`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from preceptor.config.settings import ImageFormat
from preceptor.deploy.export import synthetic_images
from preceptor.deploy.model_info import threshold_text
from tests.commands import assert_refused, here
from tests.exported_files import labelled_images, model_folder


def manifest_of(folder: Path, model: Path, count: int = 24) -> Path:
    """Validation images with the labels that the model gives them."""
    labels = labelled_images(model, count).labels
    assert labels is not None
    images = synthetic_images(ImageFormat(64), count)
    lines = ["path,label,split"]
    for number, image in enumerate(images.read(images.positions)):
        Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(
            folder / f"{number}.png"
        )
        lines.append(f"{number}.png,{('real', 'fake')[labels[number]]},val")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder / "manifest.csv"


def test_a_file_is_checked_on_validation_images(tmp_path: Path) -> None:
    model, out = model_folder("plain"), tmp_path / "model.pt2"
    manifest = manifest_of(tmp_path, model)
    shown = here("export", model, "--to", "torch_export", "--out", out, "--manifest", manifest,
                 "--images", 20, "--fixed-size")  # fmt: skip
    assert (shown.code, shown.err) == (0, "")
    assert f"wrote {out}" in shown.out
    assert "decision: positive at a score of 0.5 or more" in shown.out
    assert "on 20 validation images" in shown.out
    assert "AUC on val: 1.0000 of the model, 1.0000 of the export, difference +0.0000" in shown.out
    again = here("export", model, "--to", "torch_export", "--out", out)
    assert_refused(again, ["exists already"])


def test_without_a_manifest_the_images_are_synthetic(tmp_path: Path) -> None:
    out = tmp_path / "model.pt2"
    shown = here("export", model_folder("plain"), "--to", "torch_export", "--out", out, "--no-map")
    assert shown.code == 0
    assert "16 synthetic images" in shown.out
    assert "note: without a manifest" in shown.out


def test_a_threshold_close_to_1_is_printed_with_its_log_odds() -> None:
    assert threshold_text(0.25) == "0.25"
    assert threshold_text(1 - 2e-9) == "0.999999998 (log-odds 20.03)"
    assert threshold_text(2e-9) == "2e-09 (log-odds -20.03)"
    assert threshold_text(1.0) == "1, the highest possible score"
