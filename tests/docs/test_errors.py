"""Page of the error messages: made from the code."""

from __future__ import annotations

from tests.documents import docs_module

PAGE = docs_module("error_pages").errors_page()


def test_it_has_the_messages_with_their_exit_codes() -> None:
    lines = PAGE.splitlines()
    assert "- `{folder}: it is not empty; name a new folder`" in lines
    assert "- `run {id}: {state} was changed by another process` (1)" in lines
    assert PAGE.count("\n- `") > 400


def test_constants_are_filled_in() -> None:
    assert "pip install '.[onnx]' in the source folder" in PAGE
    assert "`{model}: checksums.json is missing" in PAGE
