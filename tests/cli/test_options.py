"""The choices of options against the configs whose choices they repeat."""

from __future__ import annotations

from typing import get_args

from preceptor.batch_prediction import rows
from preceptor.batch_prediction.map_files import MapFiles
from preceptor.benchmark.forged_settings import PRESETS
from preceptor.benchmark.forgeries import StampPlace
from preceptor.calibration import fit
from preceptor.cli import options
from preceptor.config.training import Precision, Training
from preceptor.data.shortcut_marks import MarkKind
from preceptor.execution import executors
from preceptor.label import settings
from preceptor.model_export import export


def test_choices_of_options_are_those_of_the_configs() -> None:
    fields = Training.model_fields
    assert get_args(options.Cache) == get_args(fields["cache"].annotation)
    assert get_args(options.Device) == get_args(fields["device"].annotation)
    assert options.Engine == executors.Engine
    assert options.StampPlace == StampPlace
    assert options.MarkKind == MarkKind
    assert options.MapFiles == MapFiles
    assert options.Log == rows.Log
    assert options.CalibrationMethod == fit.Method
    assert options.ExportTarget == export.Target
    assert options.InputType == export.InputType
    assert options.LabelOrder == settings.Order
    assert options.Proposals == settings.ProposalsMode
    assert options.Precision == Precision
    assert set(get_args(options.Preset)) == set(PRESETS)
