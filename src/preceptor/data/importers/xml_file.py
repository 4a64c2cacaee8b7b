"""XML files, read without entities and external references."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml import ElementTree
from defusedxml.common import DefusedXmlException

from preceptor.errors import InputError


def iterate_xml(path: Path, tags: Sequence[str], root: str) -> Iterator[Element]:
    """Elements with one of the tags in the order of the file, each dropped after its use.

    Args:
        path: XML file.
        tags: Names of elements.
        root: Name of the outermost element.

    Raises:
        InputError: The file is not XML, is cut short, has another root or declares entities.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; correct the path")
    depth = 0
    try:
        with path.open("rb") as stream:
            outermost: Element | None = None
            for event, element in ElementTree.iterparse(
                stream, events=("start", "end"), forbid_dtd=False
            ):
                if outermost is None:
                    outermost = element
                    if element.tag != root:
                        raise InputError(
                            f"{path}: its outermost element is <{element.tag}>, not <{root}>; "
                            "it is of another format"
                        )
                if event == "start":
                    depth += element.tag in tags
                elif element.tag in tags:
                    depth -= 1
                    if depth == 0:
                        yield element
                        element.clear()
                        outermost.clear()
    except DefusedXmlException as error:
        raise InputError(
            f"{path}: it declares XML entities ({type(error).__name__}); remove the DOCTYPE"
        ) from None
    except (ParseError, ValueError, LookupError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{path}: not sound XML ({reason}); export it again from the tool"
        ) from None


def read_xml(path: Path, root: str) -> Element:
    """Outermost element of a small XML file.

    Raises:
        InputError: As `iterate_xml`.
    """
    for element in iterate_xml(path, (root,), root):
        return element
    raise InputError(f"{path}: it is cut short; export it again from the tool")


def finite_number(text: str | None) -> float | None:
    """Finite number of a text, or None.

    Example:
        >>> finite_number("1.5"), finite_number("nan"), finite_number("1_000"), finite_number(None)
        (1.5, None, None, None)
    """
    try:
        value = float(text) if text is not None and "_" not in text else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None
