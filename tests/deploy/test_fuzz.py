"""Mutated requests: answered or refused, never more."""

from __future__ import annotations

from tests.deploy.fuzzing import fuzz
from tests.deploy.serving import Running
from tests.image_files import ImageFiles


def test_mutated_requests_break_nothing(server: Running, pictures: ImageFiles) -> None:
    statuses = fuzz(server, sorted([*pictures.good, *pictures.bad]), 400)
    for status in (200, 400, 415, 422):
        assert statuses[status], statuses
