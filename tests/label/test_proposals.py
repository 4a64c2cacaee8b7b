"""Which images have a proposal: their split, and the overlap of the Teacher with people's marks."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

from preceptor.label.db import connect, read_settings
from preceptor.label.queue import Proposal, add_teacher, proposal_for, write_proposals
from tests.label.serving import command


def test_evaluation_sets_have_proposals_only_if_the_command_says_so(manifest: Path) -> None:
    database = manifest.with_name("manifest.label.sqlite")
    after: tuple[tuple[str, set[str]], ...] = (
        ("", {"train"}),
        ("--proposals-on-evaluation", {"train", "val"}),
        ("", {"train", "val"}),  # what is not given does not change
        ("--no-proposals-on-evaluation", {"train"}),
    )
    for start, (option, expected) in enumerate(after):
        with command(manifest, "--proposals", "first", *filter(None, [option])):
            pass
        with closing(connect(database)) as connection:
            splits = dict(connection.execute("SELECT id, split FROM images").fetchall())
            if start == 0:
                rows = [Proposal(image, 0, 0, 2, 1, bytes([0, 2])) for image in splits]
                write_proposals(connection, add_teacher(connection, "teacher", 2), rows)
            settings = read_settings(connection)
            found = {
                split
                for image, split in splits.items()
                if proposal_for(connection, image, 1, settings) is not None
            }
        assert found == expected, option


def test_a_teacher_that_overlaps_the_marks_too_little_proposes_nothing(manifest: Path) -> None:
    database = manifest.with_name("manifest.label.sqlite")
    with command(manifest, "--proposals", "first", "--splits", "train"):
        pass
    with closing(connect(database)) as connection:
        image = connection.execute("SELECT id FROM images WHERE split = 'train'").fetchone()[0]

        def shown(least: float = 0.6) -> int | None:
            settings = replace(read_settings(connection), least_overlap=least)
            found = proposal_for(connection, image, 1, settings)
            return None if found is None else found["teacher"]

        def teacher(agreement: float | None) -> int:
            number = add_teacher(connection, "teacher", 2, agreement)
            write_proposals(connection, number, [Proposal(image, 0, 0, 2, 1, bytes([0, 2]))])
            return number

        assert read_settings(connection).least_overlap == 0.6
        weak = teacher(0.59)
        assert shown() is None
        assert shown(0.5) == shown(0.0) == weak
        good = teacher(0.6)
        assert shown() == good
        weaker = teacher(0.3)
        assert shown() == good  # the newest that overlaps enough
        assert shown(0.0) == weaker
        unknown = teacher(None)
        assert shown() == unknown


def test_the_least_overlap_is_an_option_of_the_command(manifest: Path) -> None:
    database = manifest.with_name("manifest.label.sqlite")
    for options, expected in ((("--least-overlap", "0.25"), 0.25), ((), 0.25)):
        with command(manifest, *options):
            pass
        with closing(connect(database)) as connection:
            assert read_settings(connection).least_overlap == expected


def test_where_the_newest_teacher_finds_nothing_nothing_is_proposed(manifest: Path) -> None:
    database = manifest.with_name("manifest.label.sqlite")
    with command(manifest, "--proposals", "first", "--splits", "train"):
        pass
    with closing(connect(database)) as connection:
        image = connection.execute("SELECT id FROM images WHERE split = 'train'").fetchone()[0]
        settings = read_settings(connection)
        for agreement, box, expected in (
            (0.7, (0, 0, 2, 1, bytes([0, 2])), True),
            (0.3, (0, 0, 0, 0, b""), True),  # it overlaps people's marks too little
            (0.9, (0, 0, 0, 0, b""), False),
            (0.9, (0, 0, 2, 1, bytes([0, 2])), True),
        ):
            number = add_teacher(connection, "teacher", 2, agreement)
            write_proposals(connection, number, [Proposal(image, *box)])
            found = proposal_for(connection, image, 1, settings)
            assert (found is not None) is expected
