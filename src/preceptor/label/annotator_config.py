"""Settings of simulated annotators: what their work costs, and how far their marks deviate."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from preceptor.config.settings import Settings

Seconds = Annotated[float, Field(ge=0, le=3600)]
Deviation = Annotated[float, Field(ge=0, le=2)]


class Costs(Settings):
    """Seconds that an annotator needs.

    Args:
        open: Time to look at a new image and decide.
        answer: Time of a key press: an answer, or adopting a proposal.
        judge: Additional time to judge a proposal.
        stroke: Time of a stroke of no length: aim, press, release.
        steer: Time for each unit of length ÷ width, where width is how far the pointer may deviate.

    Reference:
        steer: J. Accot, S. Zhai, "Beyond Fitts' Law: Models for Trajectory-Based HCI Tasks", CHI
        1997. The default is of the order of what is reported for mice, and is an assumption.
    """

    open: Seconds = 2.0
    answer: Seconds = 0.5
    judge: Seconds = 0.7
    stroke: Seconds = 0.8
    steer: Seconds = 0.1


class Error(Settings):
    """Deviation of an annotator's marks from the known ones.

    Args:
        shift: Standard deviation of the displacement of a mark, as a share of the square root of
            its area.
        scale: Standard deviation of the growth of a mark's radius, as the same share.
        tolerance: Deviation of a border that is accepted, as a share of the longer side of the
            image: borders are traced within twice this width, and thinner deviations of a proposal
            are left.
    """

    shift: Deviation = 0.03
    scale: Deviation = 0.03
    tolerance: Annotated[float, Field(gt=0, le=1)] = 0.01


class AnnotatorConfig(Settings):
    """Settings of simulated annotators.

    Args:
        costs: Seconds of each action.
        error: Deviation of marks from the known ones.
    """

    costs: Costs = Costs()
    error: Error = Error()
