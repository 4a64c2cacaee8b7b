"""Text files are UTF-8, whatever the locale is."""

from __future__ import annotations

import locale
import sys
from pathlib import Path

from preceptor.models.build import build_model, load_model, save_model
from tests import forked


def keep_model() -> None:
    """Write and read a model where the locale knows ASCII only."""
    locale.setlocale(locale.LC_ALL, "C")
    assert locale.getpreferredencoding(False).upper() in ("ANSI_X3.4-1968", "US-ASCII", "646")
    classes = ["gr\u00fcn", "\u8d64"]
    model = build_model("test_byobnet", classes=classes, weights="none", input_size=32)
    save_model(model, Path(sys.argv[1]))
    assert load_model(Path(sys.argv[1])).spec.classes == model.spec.classes


def test_a_model_with_classes_beyond_ascii_is_kept_in_any_locale(tmp_path: Path) -> None:
    done = forked.run(keep_model, [tmp_path / "model"])
    assert done.returncode == 0, done.stderr
