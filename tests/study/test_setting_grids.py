"""Grids of settings: every way of guiding with its α, and one setting for each pooling."""

from __future__ import annotations

from preceptor.config.training import Training
from preceptor.study.alphas import ALPHA_GRIDS
from preceptor.study.options import Guidance
from preceptor.study.setting import Setting
from preceptor.study.setting_grids import guided_settings, plain_settings, probe_alpha

WAYS = {
    "fine": Guidance(alphas=(0.2, 0.3)),
    "plain": Guidance(),
    "cells": Guidance(distance="cells", pool="top"),
}


def test_every_way_has_its_own_grid() -> None:
    found = guided_settings(WAYS, (0.1, 0.5))
    assert found[:4] == (
        Setting(0.2, "fine"),
        Setting(0.3, "fine"),
        Setting(0.1, "plain"),
        Setting(0.5, "plain"),
    )
    assert [one.alpha for one in found[4:]] == list(ALPHA_GRIDS["cells"])
    assert guided_settings({}, (0.1, 0.5)) == (Setting(0.1), Setting(0.5))


def test_runs_without_guidance_differ_in_the_pooling_only() -> None:
    assert plain_settings(WAYS, Training()) == (Setting(1.0, "fine"), Setting(1.0, "cells"))
    assert plain_settings({}, Training()) == (Setting(1.0),)


def test_the_probe_takes_a_tenth_or_the_first_of_its_way() -> None:
    settings = guided_settings(WAYS, (0.1, 0.5))
    assert probe_alpha(settings, "plain") == 0.1
    assert probe_alpha(settings, "fine") == 0.2
