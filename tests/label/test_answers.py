"""Answers whose marks are changed afterwards."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from tests.commands import here
from tests.label.serving import Client, Running, blob

SIZE = (40, 30)


def stored(client: Client, server: Running) -> tuple[int, int, int, int]:
    """Answers of ann that count: finished images; marked, nothing to mark; own ones."""
    lead = client.get("/api/lead").json
    (one,) = [one for one in lead["people"] if one["name"] == "ann"]
    totals = client.get("/api/state").json["totals"]
    assert totals["done"] == lead["done"]
    told = here("label", "status", server.labeling.database.path)
    assert f"{lead['done']} of 12 images done" in told.out
    return lead["done"], one["marked"], one["nothing"], totals["mine_done"]


def newest(client: Client, image: int) -> str:
    strokes: list[dict[str, Any]] = client.image(image)["strokes"]
    return str(strokes[-1]["uuid"])


def test_nothing_to_mark_does_not_count_with_a_mark(server: Running) -> None:
    ann = server.client("ann")
    image, other = ann.queue()[:2]
    ann.answer(image, "nothing", label="plain", certainty=2)
    ann.answer(other, "nothing")
    before = ann.image(image)["answer"]
    assert stored(ann, server) == (2, 0, 2, 2)
    ann.stroke(image, blob(*SIZE))
    assert stored(ann, server) == (1, 0, 1, 1)
    assert image in ann.queue()
    assert image not in server.client("bo").queue()  # kept for the person
    # It is what it was, once the marks are as they were.
    ann.turn(image, "undo", newest(ann, image))
    assert stored(ann, server) == (2, 0, 2, 2)
    assert ann.image(image)["answer"] == before
    assert image not in ann.queue()
    assert ann.queue("&before=0") == [other, image]
    ann.turn(image, "redo", newest(ann, image))
    assert ann.image(image)["answer"] == before  # the page compares it with the marks
    ann.answer(image, "marked")
    assert stored(ann, server) == (2, 1, 1, 2)
    ann.turn(image, "undo", newest(ann, image))
    assert stored(ann, server) == (1, 0, 1, 1)


@pytest.mark.parametrize("state", ["cannot_judge", "skipped"])
def test_other_answers_do_not_depend_on_marks(server: Running, state: str) -> None:
    ann = server.client("ann")
    image = ann.queue()[0]
    ann.answer(image, state)
    ann.stroke(image, blob(*SIZE))
    answer = ann.image(image)["answer"]
    assert answer["state"] == state
    ann.answer(image, "marked")
    ann.turn(image, "undo", newest(ann, image))
    ann.answer(image, state)
    ann.turn(image, "redo", newest(ann, image))
    assert ann.image(image)["answer"]["state"] == state
    assert stored(ann, server)[0] == int(state == "cannot_judge")


def test_marks_that_are_gone_are_no_judgement_of_the_export(server: Running) -> None:
    """Nor of the agreement of two people."""
    manifest = server.labeling.source.root / "manifest.csv"
    ann = server.client("ann")
    bo = server.client("bo", tab="other")
    first, second = ann.queue()[:2]
    for image in (first, second):
        for person in (ann, bo):
            person.stroke(image, blob(*SIZE))
            person.answer(image, "marked")
    bo.stroke(first, blob(*SIZE), erase=True)
    ann.turn(second, "undo", newest(ann, second))
    bo.turn(second, "undo", newest(bo, second))
    assert ann.get("/api/lead").json["pairs"] == []
    to = manifest.parent / "export"
    told = here("label", "export", server.labeling.database.path, "--to", to)
    assert told.code == 0, told
    table = pd.read_csv(to / "manifest.csv", keep_default_na=False)
    paths = {image: ann.image(image)["name"] for image in (first, second)}
    table.index = [path.rpartition("/")[2] for path in table["path"]]
    assert table.loc[paths[first], ["annotated", "annotators"]].tolist() == [1, "1"]
    assert table.loc[paths[second], "annotators"] == ""
