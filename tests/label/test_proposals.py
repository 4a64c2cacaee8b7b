"""Which images have a proposal: those of training splits, and others only where that is asked."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from preceptor.label.database import connect
from preceptor.label.proposals import Proposal, add_teacher, proposal_for, write_proposals
from preceptor.label.settings import read_settings
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
