"""Shell blocks of the pages, and the reasons why some are not run by a test.

    python docs/shell_blocks.py

prints how many pages, commands, configuration keys and public names there are.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_REASON = re.compile(r"<!-- not run: *(.*?) *-->")
_PAGE_REASON = re.compile(r"^<!-- not run on this page: *(.*?) *-->$", re.MULTILINE)
_PROGRAM = re.compile(
    r" {4}\$? ?(?:[A-Z_]+=\S+ )*(?:preceptor|python|pip|make|ray|docker|curl|torchrun|source)\b"
)
_HEREDOC = re.compile(r"<<'(\w+)'")


@dataclass(frozen=True)
class Block:
    """Shell block of a page, and the reason why it is not run; None = it is run."""

    commands: str
    reason: str | None


def blocks_of(text: str) -> list[Block]:
    """Shell blocks of a page: fenced with `sh`, or indented and with the call of a program.

    Example:
        >>> blocks_of("<!-- not run: a server -->\\n\\n```sh\\nserve\\n```\\n```sh\\nls\\n```\\n")
        [Block(commands='serve\\n', reason='a server'), Block(commands='ls\\n', reason=None)]
    """
    everywhere = _PAGE_REASON.search(text)
    found, before = [], ""
    for kind, lines in _parts(text):
        if kind == "sh" or (kind == "indented" and any(map(_PROGRAM.match, lines))):
            reason = _REASON.fullmatch(before) or everywhere
            found.append(Block("".join(lines), reason[1] if reason else None))
        before = lines[-1].strip() or before if kind == "text" else ""
    return found


def _parts(text: str) -> Iterator[tuple[str, list[str]]]:
    """Parts of a page: the language of a fenced block, `indented`, or `text` line by line."""
    lines = iter([*text.splitlines(keepends=True), "\n"])
    indented: list[str] = []
    blank = True
    for line in lines:
        if line.startswith("    ") and (indented or blank):
            indented.append(line)
            continue
        if indented and line.strip():
            yield "indented", indented
            indented = []
        if line.startswith("```"):
            body = []
            for inner in lines:
                if inner.startswith("```"):
                    break
                body.append(inner)
            yield line[3:].strip(), body
        elif not indented:
            yield "text", [line]
        blank = not line.strip()
    if indented:
        yield "indented", indented


def number_of_commands(block: Block) -> int:
    """Number of commands, without comments, outputs and the content of files.

    Example:
        >>> number_of_commands(Block("cat > a <<'END'\\nx\\nEND\\nls \\\\\\n  -l  # all\\n", None))
        2
    """
    number, end = 0, None
    for line in re.sub(r"\\\n", " ", block.commands).splitlines():
        if end is None and line.strip() and not line.strip().startswith("#"):
            number += not line.startswith("    ") or _PROGRAM.match(line) is not None
            end = match[1] if (match := _HEREDOC.search(line)) else None
        elif line == end:
            end = None
    return number


def main() -> None:
    """Print the counts."""
    from reference_pages import FILES, json_schema

    import preceptor

    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    written = [page for page in pages if "generated" not in page.parts]
    made = {page for page in pages if "generated" in page.parts and page.suffix == ".md"}
    print(f"pages: {len(written)} written, {len(made)} made by the build")
    counted: Counter[str | None] = Counter()
    for page in written:
        for block in blocks_of(page.read_text(encoding="utf-8")) if page.suffix == ".md" else ():
            counted[block.reason] += number_of_commands(block)
    print(f"commands: {counted.total()}, of which {counted.pop(None, 0)} are run; not run are")
    for reason, number in counted.most_common():
        print(f"  {number:3} {reason}")
    tables = {}
    for name, (_, model, _) in FILES.items():
        schema = json_schema(model)
        tables |= {name: schema} | schema["$defs"]
    keys = [key for one in tables.values() for key in one["properties"].values()]
    described = sum(bool(key.get("description")) for key in keys)
    print(f"configuration keys: {len(keys)} in {len(tables)} tables, {described} described")
    api = (ROOT / "docs" / "reference" / "api.md").read_text(encoding="utf-8")
    names = [name for name in preceptor.__all__ if name != "__version__"]
    shown = sum(re.search(rf":: preceptor\.{name}\n", api) is not None for name in names)
    print(f"public names: {len(names)}, {shown} in the reference")


if __name__ == "__main__":
    main()
