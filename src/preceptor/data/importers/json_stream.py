"""JSON files read element by element, so that a long array is never in memory as a whole."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from preceptor.errors import InputError

_CHUNK = 1 << 20
_BLANK = re.compile(r"[ \t\n\r]*")


class JsonStream:
    """Position in a JSON file.

    Args:
        path: File, UTF-8 with or without a byte order mark.

    Raises:
        InputError: In every method: the file is not JSON, or is cut short.
    """

    def __init__(self, path: Path, chunk: int = _CHUNK) -> None:
        self.path = Path(path)
        self._file = self.path.open("rb")
        self._decode = codecs.getincrementaldecoder("utf-8-sig")()
        decoder = json.JSONDecoder()
        self._raw_decode = decoder.raw_decode
        self._scan: Callable[[str, int], tuple[Any, int]] = vars(decoder)["scan_once"]
        self._chunk = chunk
        self._text = ""
        self._at = 0
        self._before = 0  # characters of the file before `_text`
        self._ended = False

    def __enter__(self) -> JsonStream:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def peek(self) -> str:
        """Next character that is not blank; "" at the end of the file."""
        while True:
            self._at = _BLANK.match(self._text, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def value(self) -> Any:
        """Next value, decoded as a whole."""
        self.peek()
        while True:
            try:
                value, end = self._raw_decode(self._text, self._at)
            except RecursionError:
                raise self._error("it is nested too deeply") from None
            except json.JSONDecodeError as error:
                if self._more():
                    continue
                if error.pos >= len(self._text.rstrip()) or "Unterminated" in error.msg:
                    raise self._error("it is cut short") from None
                self._at = error.pos
                raise self._error(f"not JSON ({error.msg})") from None
            except ValueError as error:  # a number of thousands of digits
                raise self._error(f"not JSON ({str(error)[:80]})") from None
            # A number at the end of the chunk may go on.
            if end == len(self._text) and self._more():
                continue
            self._at = end
            return value

    def elements(self) -> Iterator[Any]:
        """Elements of the next array, each decoded as a whole."""
        self._expect("[", "a list")
        if self.peek() == "]":
            self._at += 1
            return
        while True:
            value = self.value()
            while True:
                yield value
                # Most elements lie within the chunk, and are followed by a comma and a blank.
                text, at = self._text, self._at
                if not text.startswith(",", at):
                    break
                try:
                    value, end = self._scan(
                        text, at + 2 if text.startswith(" ", at + 1) else at + 1
                    )
                except (StopIteration, ValueError, RecursionError):
                    break
                if end == len(text):
                    break
                self._at = end
            if not self._goes_on("]"):
                return

    def items(self) -> Iterator[str]:
        """Keys of the next object: the position is before each value; the caller reads it."""
        self._expect("{", "an object")
        if self.peek() == "}":
            self._at += 1
            return
        while True:
            if self.peek() != '"':
                raise self._error("not JSON (a key is expected)" if self.peek() else "cut short")
            key = str(self.value())
            self._expect(":", "a colon")
            yield key
            if not self._goes_on("}"):
                return

    def end(self) -> None:
        """Check that nothing follows."""
        if self.peek():
            raise self._error("there is more text after the end of the JSON")

    def _goes_on(self, close: str) -> bool:
        letter = self.peek()
        if letter not in (",", close) or not letter:
            wrong = f"not JSON (',' or {close!r} is expected)" if letter else "it is cut short"
            raise self._error(wrong)
        self._at += 1
        return letter == ","

    def _expect(self, letter: str, name: str) -> None:
        found = self.peek()
        if found != letter:
            raise self._error(f"{name} is expected, not {found!r}" if found else "it is cut short")
        self._at += 1

    def _more(self) -> bool:
        """Read on; False at the end of the file."""
        if self._ended:
            return False
        # As much again as is held, so that a long value is scanned a few times only.
        data = self._file.read(max(self._chunk, len(self._text) - self._at))
        self._ended = not data
        try:
            text = self._decode.decode(data, final=self._ended)
        except UnicodeDecodeError:
            raise self._error("it is not UTF-8 text") from None
        self._before += self._at
        self._text = self._text[self._at :] + text
        self._at = 0
        return bool(text) or self._more()

    def _error(self, what: str) -> InputError:
        place = self._before + self._at
        return InputError(
            f"{self.path}: {what} at character {place:,}; export it again from the tool"
        )


def read_json(path: Path) -> Any:
    """Value of a small JSON file.

    Raises:
        InputError: The file is not JSON, or is cut short.
    """
    with JsonStream(path) as stream:
        value = stream.value()
        stream.end()
    return value
