"""Grids of settings from which a study selects: ways of guiding and their α."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from preceptor.config.guidance import PoolKind
from preceptor.config.training import Training
from preceptor.study.options import Guidance
from preceptor.study.setting import Setting


def guided_settings(
    guidances: Mapping[str, Guidance], alphas: tuple[float, ...]
) -> tuple[Setting, ...]:
    """Settings of guided runs: every way of guiding with every α of its grid.

    Args:
        guidances: Ways of guiding by name; empty = the training settings of the study.
        alphas: α grid of the study.

    Example:
        >>> [str(one) for one in guided_settings({"fine": Guidance(alphas=(0.2,))}, (0.1, 0.5))]
        ['fine, α 0.2']
        >>> [str(one) for one in guided_settings({}, (0.1, 0.5))]
        ['α 0.1', 'α 0.5']
    """
    if not guidances:
        return tuple(Setting(alpha) for alpha in alphas)
    return tuple(
        Setting(alpha, name) for name, way in guidances.items() for alpha in way.alpha_grid(alphas)
    )


def plain_settings(guidances: Mapping[str, Guidance], training: Training) -> tuple[Setting, ...]:
    """Settings of runs without guidance: one for each pooling.

    Args:
        guidances: Ways of guiding by name.
        training: Training settings of the study.
    """
    found: dict[PoolKind, Setting] = {}
    for name, way in guidances.items():
        found.setdefault(way.training(training).pool, Setting(1.0, name))
    return tuple(found.values()) or (Setting(1.0),)


def probe_alpha(settings: Sequence[Setting], guidance: str) -> float:
    """α of a probe Student that is not given: 0.1 if the way of guiding has it, else its first.

    Args:
        settings: Settings of guided runs.
        guidance: Way of guiding of the probe Student.
    """
    grid = [one.alpha for one in settings if one.guidance == guidance]
    return 0.1 if 0.1 in grid else grid[0]


def compared_settings(settings: Sequence[Setting], guidance: str) -> tuple[Setting, ...]:
    """Settings of the Students by which Teachers are compared: up to three of a way of guiding.

    Of more than three α: the smallest, `probe_alpha` and the largest; if these are two, the one in
    the middle of the others (the smaller of two) as well.

    Args:
        settings: Settings of guided runs.
        guidance: Way of guiding of the Students.

    Example:
        >>> grid = [Setting(alpha) for alpha in (0.01, 0.05, 0.1, 0.25, 0.5, 0.9)]
        >>> [one.alpha for one in compared_settings(grid, "")]
        [0.01, 0.1, 0.9]
        >>> [one.alpha for one in compared_settings(grid[2:], "")]
        [0.1, 0.25, 0.9]
    """
    own = [one for one in settings if one.guidance == guidance]
    if len(own) <= 3:
        return tuple(own)
    ordered = sorted(own)
    kept = {ordered[0], Setting(probe_alpha(settings, guidance), guidance), ordered[-1]}
    others = [one for one in ordered if one not in kept]
    if len(kept) < 3:
        kept.add(others[(len(others) - 1) // 2])
    return tuple(one for one in own if one in kept)
