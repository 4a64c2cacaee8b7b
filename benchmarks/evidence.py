"""The numbers and figures of docs/evidence.md, from finished study folders; nothing is trained.

    python benchmarks/evidence.py forged=STUDY_FOLDER tiles=OTHER [--doc FILE] [--score-all]

Prose is written by hand. Numbers stand between `<!-- evidence: KIND STUDY -->` and `<!-- end -->`:
every block whose study is given is filled again, the others stay as they are. Kinds: main,
comparisons, shares, levers, maps, selection; main and levers also draw a figure into `images/`
beside the page. The same studies give the same bytes.

`--score-all` first scores the test sets with every candidate of a choice of α, not only with the
chosen ones, so that `selection` can say what each rule costs; the scores stay in the studies'
stores.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from evidence_figures import DrawPanel, figure, levers_panel, main_panel
from evidence_study import Study, score_all
from evidence_tables import (
    comparisons_block,
    levers_block,
    main_block,
    maps_block,
    selection_block,
    shares_block,
)

from preceptor.errors import InputError, PreceptorError
from preceptor.runtime.result_folder import write_atomically
from preceptor.study_folder import reopen

PAGE = Path(__file__).resolve().parents[1] / "docs" / "evidence.md"
MARK = re.compile(r"<!-- evidence:(.*?)-->|<!-- end -->")
KINDS: dict[str, Callable[[Study], Iterator[str]]] = {
    "main": main_block,
    "comparisons": comparisons_block,
    "shares": shares_block,
    "levers": levers_block,
    "maps": maps_block,
    "selection": selection_block,
}
FIGURES: dict[str, tuple[str, DrawPanel]] = {
    "main": ("AUC of every seed (dots) and means (bars)", main_panel),
    "levers": ("Variants minus Student: mean and 95 % interval", levers_panel),
}


def find_blocks(text: str, page: Path) -> list[tuple[str, str, slice]]:
    """Kind, study and place of every block; the place is what stands between its markers.

    Raises:
        InputError: A marker that cannot be read, an unknown kind, or a block without its end.
    """
    found: list[tuple[str, str, slice]] = []
    begun: tuple[str, str, int, str] | None = None
    for mark in MARK.finditer(text):
        where = f"{page}, line {text.count(chr(10), 0, mark.start()) + 1}"
        if mark[1] is None:
            if begun is None:
                raise InputError(f"{where}: an end without a block; remove it")
            found.append((begun[0], begun[1], slice(begun[2], mark.start())))
            begun = None
            continue
        if begun is not None:
            break
        words = mark[1].split()
        if len(words) != 2 or words[0] not in KINDS:
            kinds = ", ".join(KINDS)
            raise InputError(
                f"{where}: unknown block {' '.join(words)!r}; write one of {kinds}, and a study"
            )
        begun = words[0], words[1], mark.end(), where
    if begun is not None:
        raise InputError(f"{begun[3]}: the block has no end; add <!-- end -->")
    return found


def fill(kind: str, study: Study) -> str:
    """What stands in a block."""
    if study.results.figures.empty or "student" not in study.rows:
        return "No Student is chosen yet."
    parts = list(KINDS[kind](study))
    if kind in FIGURES:
        parts.append(f"![{FIGURES[kind][0]}](images/{picture(kind, study.name)})")
    return "\n\n".join(parts)


def picture(kind: str, name: str) -> str:
    """The file of a figure."""
    return f"evidence-{name}-{kind}.svg"


def update(page: Path, given: Sequence[str], *, everything: bool = False) -> list[Path]:
    """Fill the page and draw its figures; nothing is written unless all of it can be.

    Args:
        page: Markdown with markers.
        given: NAME=STUDY_FOLDER.
        everything: Score the test sets with all candidates first.

    Returns:
        The files written.

    Raises:
        InputError: The page or a study cannot be used, or a study has no block.
    """
    try:
        text = page.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{page}: {error.strerror}") from error
    blocks = find_blocks(text, page)
    studies: dict[str, Study] = {}
    for one in given:
        name, _, folder = one.partition("=")
        if not folder or name in studies:
            raise InputError(f"{one}: write NAME=STUDY_FOLDER, each name once")
        if name not in {study for _, study, _ in blocks}:
            raise InputError(f"{one}: {page} has no block of a study {name!r}")
        plan = reopen(folder).first
        if everything:
            score_all(plan)
        studies[name] = Study(name, plan)
    written: dict[Path, str] = {}
    for kind, name, place in reversed(blocks):
        if name in studies:
            body = fill(kind, studies[name])
            text = f"{text[: place.start]}\n\n{body}\n\n{text[place.stop :]}"
            if picture(kind, name) in body:
                drawn = figure(studies[name], *FIGURES[kind])
                written[page.parent / "images" / picture(kind, name)] = drawn
    for path, content in (written | {page: text}).items():
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, content)
    return [*written, page]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("studies", nargs="+", metavar="NAME=STUDY_FOLDER")
    parser.add_argument("--doc", type=Path, default=PAGE, help="the page (%(default)s)")
    parser.add_argument("--score-all", action="store_true", help="score all candidates first")
    given = parser.parse_args(arguments)
    try:
        for path in update(given.doc, given.studies, everything=given.score_all):
            print(path)
    except PreceptorError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
