"""Bodies of requests, checked before anything is done."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from preceptor.errors import is_control
from preceptor.label.clock import in_utc
from preceptor.web.refusal import malformed

LARGEST = 8 * 2**20
"""Largest body in bytes."""
MOST_IMAGES = 24
"""Largest number of images that are handed out at a time."""


def _utc(value: str) -> str:
    moment = datetime.fromisoformat(value)
    try:
        return in_utc(moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC))
    except OverflowError as error:
        raise ValueError("the time is out of range") from error


def _line(value: str) -> str:
    if any(map(is_control, value)):
        raise ValueError("no control characters are possible")
    return value


Number = Annotated[int, Field(ge=0, le=2**53)]
Line = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_line)]
Tab = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Uuid = Annotated[str, Field(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
Time = Annotated[str, Field(max_length=40), AfterValidator(_utc)]
# A day at most: a computer may have slept.
Seconds = Annotated[float, Field(ge=0), AfterValidator(lambda value: min(value, 86400.0))]


class Body(BaseModel):
    """Body of a tab."""

    model_config = ConfigDict(strict=True, frozen=True)
    tab: Tab


class StrokeBody(Body):
    """A stroke; its rectangle lies in an image of `width` × `height` pixels."""

    uuid: Uuid
    tool: Literal["brush", "eraser", "polygon", "box", "wand", "proposal"]
    class_: str = Field(alias="class")
    erase: bool
    width: Number
    height: Number
    x: Number
    y: Number
    w: Annotated[Number, Field(ge=1)]
    h: Annotated[Number, Field(ge=1)]
    runs: str
    started: Time
    seconds: Seconds
    proposal: Number | None = None
    version: Line | None = None


class TurnBody(Body):
    """A stroke that is undone or redone."""

    uuid: Uuid


class AnswerBody(Body):
    """An answer, and whether the next image is handed out."""

    state: Literal["marked", "nothing", "cannot_judge", "skipped"]
    label: str | None = None
    certainty: Annotated[int, Field(ge=1, le=3)] | None = None
    seconds: Seconds
    proposal: Number | None = None
    version: Line | None = None
    next: bool = True


class OpenBody(Body):
    """An image that is opened, taken over or closed, and the images that come next."""

    line: Annotated[list[Number], Field(max_length=MOST_IMAGES)] = []
    close: bool = False
    take: bool = False


class SeenBody(Body):
    """From when until when an image was shown, and with which proposal."""

    from_: Time = Field(alias="from")
    until: Time
    proposal: Number | None = None


B = TypeVar("B", bound=Body)


def checked(kind: type[B], body: dict[str, Any]) -> B:
    """Body of a kind.

    Raises:
        RefusedError: It is malformed (400).
    """
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise malformed(f"{key}: {first['msg']}") from error
