"""Short HTML tables, which notebooks show for an object."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape


def facts_table(caption: str, facts: Mapping[str, object] | Iterable[tuple[str, object]]) -> str:
    """Table of names and values.

    Args:
        caption: Caption.
        facts: Values by name, or pairs of names and values, where a name may occur several times;
            empty texts and None are left out.

    Example:
        >>> facts_table("Model", {"classes": "real, <fake>", "threshold": None})
        '<table><caption>Model</caption><tr><th scope="row">classes</th><td>real, &lt;fake&gt;</td></tr></table>'
    """  # noqa: E501
    pairs = facts.items() if isinstance(facts, Mapping) else facts
    rows = (
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(str(value))}</td></tr>'
        for name, value in pairs
        if value is not None and value != ""
    )
    return f"<table>{_caption(caption)}{''.join(rows)}</table>"


def rows_table(caption: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Table with a header, whose rows begin with their name.

    Args:
        caption: Caption.
        columns: Names of the columns.
        rows: Values of each row.

    Example:
        >>> rows_table("Sets", ["set", "images"], [["val", 3]]).count("<th")
        4
    """
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in columns)
    body = "".join(
        f'<tr><th scope="row">{escape(str(first))}</th>'
        f"{''.join(f'<td>{escape(str(value))}</td>' for value in rest)}</tr>"
        for first, *rest in rows
    )
    return f"<table>{_caption(caption)}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _caption(text: str) -> str:
    return f"<caption>{escape(text)}</caption>"
