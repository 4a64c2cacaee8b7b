"""Writing of a calibrated model: a copy of the model folder with the reference beside it."""

from __future__ import annotations

from pathlib import Path

from preceptor.calibration.card import RELIABILITY, card_sections, new_card
from preceptor.calibration.make_reference import MadeReference
from preceptor.errors import InputError
from preceptor.models.model_folder import MODEL_FILES
from preceptor.predictor.model_info import ModelInfo
from preceptor.predictor.reference import REFERENCE
from preceptor.predictor.reference_files import REFERENCE_FILES, write_reference
from preceptor.report.export import standalone
from preceptor.report.reliability_figure import reliability_plot
from preceptor.runtime.checksums import write_checksums
from preceptor.runtime.model_paths import check_model_folder
from preceptor.runtime.replace_file import copy_folder, replacing

CARD = "README.md"


def check_uncalibrated(model: Path) -> None:
    """Check that a model can be calibrated.

    Raises:
        InputError: It is no model folder, or it is calibrated already.
    """
    check_model_folder(model)
    if (model / REFERENCE).exists():
        raise InputError(
            f"{model} is calibrated already; calibrate the folder that it was made from"
        )


def write_calibrated(model: Path, made: MadeReference, info: ModelInfo, out: Path) -> None:
    """Copy a model folder, and add the reference, its card and their checksums.

    The files of the model itself are the same bytes.

    Args:
        model: Model folder.
        made: Its reference.
        info: Description of the calibrated model.
        out: New folder, which appears when it is complete.
    """
    with replacing(out) as partial:
        copy_folder(model, partial)
        write_reference(made.reference, partial)
        card = partial / CARD
        text = card.read_text(encoding="utf-8") if card.is_file() else new_card(info)
        card.write_text(f"{text.rstrip()}\n\n{card_sections(made, info)}", encoding="utf-8")
        (partial / RELIABILITY).write_text(_diagram(made, info), encoding="utf-8")
        write_checksums(partial, (*MODEL_FILES, *REFERENCE_FILES))


def _diagram(made: MadeReference, info: ModelInfo) -> str:
    """Reliability diagram on validation as an SVG file."""
    curves = {"baseline2": ("before", made.before.bins)}
    legend = [("baseline2", "before")]
    if made.after is not None:
        curves["student"] = ("after, cross-validated", made.after.bins)
        legend.append(("student", "after, cross-validated"))
    words = ("mean score", f"share of {info.positive}")
    if info.positive is None:
        words = ("mean highest probability", "share of correct decisions")
    figure = reliability_plot(curves, "Reliability on validation", *words)
    return standalone(figure, legend)
