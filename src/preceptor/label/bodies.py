"""Bodies of requests: JSON of a known shape, checked before anything is done."""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

from preceptor.errors import is_control
from preceptor.label.answers import STATES, Answer
from preceptor.label.clock import in_utc
from preceptor.label.runs import LIMIT, check_tight, from_text
from preceptor.label.settings import LabelSettings
from preceptor.label.strokes import TOOLS, Stroke
from preceptor.web.refusal import conflict, malformed

LARGEST = 8 * 2**20
"""Largest body in bytes."""
MOST_IMAGES = 24
"""Largest number of images that are handed out at a time."""
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TAB = re.compile(r"[A-Za-z0-9_-]{1,64}")
_DAY = 86400.0
_NUMBER = 2**53


def text(body: dict[str, Any], key: str, longest: int = 200) -> str:
    """Text of a key, in one line."""
    value = body.get(key)
    if not isinstance(value, str) or not 1 <= len(value) <= longest:
        raise malformed(f"{key}: a text of 1 to {longest} characters is needed")
    if any(map(is_control, value)):
        raise malformed(f"{key}: no control characters are possible")
    return value


def one_of(body: dict[str, Any], key: str, known: Collection[str]) -> str:
    """Text of a key that is one of several."""
    value = body.get(key)
    if not isinstance(value, str) or value not in known:
        raise malformed(f"{key}: one of {', '.join(known) or 'nothing'} is needed")
    return value


def whole(body: dict[str, Any], key: str, low: int, high: int) -> int:
    """Whole number of a key, from `low` to `high`."""
    value = body.get(key)
    if type(value) is not int or not low <= value <= high:
        raise malformed(f"{key}: a whole number from {low} to {high} is needed")
    return value


def optional_whole(body: dict[str, Any], key: str, low: int, high: int) -> int | None:
    """Whole number of a key, or None."""
    return None if body.get(key) is None else whole(body, key, low, high)


def images(body: dict[str, Any], key: str) -> list[int]:
    """Numbers of images of a key, at most `MOST_IMAGES` of them; none without the key."""
    value = body.get(key, [])
    if not isinstance(value, list) or len(value) > MOST_IMAGES:
        raise malformed(f"{key}: a list of at most {MOST_IMAGES} numbers is needed")
    for one in value:
        if type(one) is not int or not 0 <= one <= _NUMBER:
            raise malformed(f"{key}: whole numbers from 0 to {_NUMBER} are needed")
    return value


def yes_no(body: dict[str, Any], key: str, default: bool | None = None) -> bool:
    """Truth value of a key."""
    value = body.get(key, default)
    if not isinstance(value, bool):
        raise malformed(f"{key}: true or false is needed")
    return value


def seconds(body: dict[str, Any], key: str = "seconds") -> float:
    """Duration of a key; longer ones than a day are one day."""
    value = body.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise malformed(f"{key}: a number of seconds is needed")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not number >= 0:
        raise malformed(f"{key}: a number of seconds from 0 is needed")
    return min(number, _DAY)


def time(body: dict[str, Any], key: str) -> str:
    """Time of a key with a zone, in UTC."""
    value = text(body, key, 40)
    try:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return in_utc(moment)
    except (ValueError, OverflowError) as error:
        raise malformed(f"{key}: a time in ISO 8601 is needed") from error


def uuid(body: dict[str, Any]) -> str:
    """The uuid of a stroke."""
    value = body.get("uuid")
    if not isinstance(value, str) or not _UUID.fullmatch(value):
        raise malformed("uuid: a UUID in small letters is needed")
    return value


def tab(body: dict[str, Any]) -> str:
    """Name of a tab."""
    value = body.get("tab")
    if not isinstance(value, str) or not _TAB.fullmatch(value):
        raise malformed("tab: 1 to 64 letters, digits, - or _ are needed")
    return value


def stroke(body: dict[str, Any], settings: LabelSettings, width: int, height: int) -> Stroke:
    """Stroke on an image of a size.

    Raises:
        RefusedError: It is malformed, or lies beside the image (400), or was drawn on one of
            another size (409).
    """
    drawn = whole(body, "width", 1, _NUMBER), whole(body, "height", 1, _NUMBER)
    if drawn != (width, height):
        raise conflict(
            f"the image has {width} × {height} pixels, and this was drawn on {drawn[0]} × "
            f"{drawn[1]}: its file was replaced"
        )
    x, y = whole(body, "x", 0, width - 1), whole(body, "y", 0, height - 1)
    w, h = whole(body, "w", 1, width - x), whole(body, "h", 1, height - y)
    if w * h > LIMIT:
        raise malformed(f"the rectangle has more than {LIMIT:,} pixels")
    runs = body.get("runs")
    if not isinstance(runs, str):
        raise malformed("runs: a text in base64 is needed")
    try:
        code = from_text(runs)
        check_tight(code, w, h)
    except ValueError as error:
        raise malformed(f"runs: {error}") from error
    return Stroke(
        uuid(body),
        one_of(body, "tool", TOOLS),
        one_of(body, "class", settings.classes),
        yes_no(body, "erase"),
        x,
        y,
        w,
        h,
        code,
        time(body, "started"),
        seconds(body),
        optional_whole(body, "proposal", 1, _NUMBER),
        version(body),
    )


def answer(body: dict[str, Any], settings: LabelSettings) -> Answer:
    """Answer to an image.

    Raises:
        RefusedError: It is malformed (400).
    """
    label = None if body.get("label") is None else one_of(body, "label", settings.labels)
    return Answer(
        one_of(body, "state", STATES),
        label,
        optional_whole(body, "certainty", 1, 3),
        seconds(body),
        proposal(body),
        settings.proposals,
        version(body),
    )


def proposal(body: dict[str, Any]) -> int | None:
    """Number of a proposal that was shown, or None."""
    return optional_whole(body, "proposal", 1, _NUMBER)


def version(body: dict[str, Any]) -> str | None:
    """Version of the file that was shown, or None."""
    return None if body.get("version") is None else text(body, "version", 64)
