"""The command `preceptor export`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from preceptor.config.settings import ImageFormat
from preceptor.model_export.check_images import synthetic_images
from tests.commands import here
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


def test_a_folder_is_checked_on_validation_images(tmp_path: Path) -> None:
    model, out = model_folder("plain"), tmp_path / "copy"
    manifest = manifest_of(tmp_path, model)
    shown = here("export", str(model), "--to", "folder", "--out", str(out),
                 "--manifest", str(manifest), "--images", "20")  # fmt: skip
    assert (shown.code, shown.err) == (0, "")
    assert f"wrote {out}" in shown.out
    assert "on 20 validation images" in shown.out
    assert "AUC on val: 1.0000 of the model, 1.0000 of the export, difference +0.0000" in shown.out
    again = here("export", str(model), "--to", "folder", "--out", str(out))
    assert (again.code, again.out) == (2, "")
    assert "exists already" in again.err
    inside = here("export", str(out), "--to", "folder", "--out", str(out / "copy"))
    assert (inside.code, inside.out) == (2, "")
    assert f"is inside {out}, which is copied" in inside.err
    assert not (out / "copy").exists()


def test_without_a_manifest_the_images_are_synthetic(tmp_path: Path) -> None:
    model = str(model_folder("plain"))
    shown = here("export", model, "--to", "folder", "--out", str(tmp_path / "copy"))
    assert shown.code == 0
    assert "16 synthetic images" in shown.out
    assert "note: without a manifest" in shown.out
