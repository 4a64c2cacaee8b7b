"""The command line as a user meets it: its words, and how it stops."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import typer

from preceptor.cli.main import SECTIONS, app, main
from preceptor.utils.files import replacing
from preceptor.utils.leases import lease
from tests.commands import here


def names(group: Any, above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """All commands and groups."""
    inner = getattr(group, "commands", {})
    return [above, *(one for key in inner for one in names(inner[key], (*above, key)))]


# Help


@pytest.mark.parametrize("command", names(typer.main.get_command(app)))
def test_every_command_has_help(command: tuple[str, ...]) -> None:
    shown = here(*command, "--help")
    assert here(*command, "-h").out == shown.out
    assert shown.code == 0
    assert shown.out.startswith("Usage: ")
    assert not shown.err


def test_the_first_page_has_every_command_by_section() -> None:
    shown = {name.split()[0] for section in SECTIONS.values() for name in section}
    assert shown == set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    assert len(here("--help").out.splitlines()) < 40


@pytest.mark.parametrize(
    "arguments",
    [
        ["frobnicate"],
        ["train"],
        ["train", "x.yaml", "--no-such"],
        ["data", "chekc"],
        ["study", "x.yaml"],
        ["study", "plan"],
        ["study", "x.yaml", "y.yaml", "--out", "x"],
    ],
)
def test_words_that_are_no_command(arguments: list[str]) -> None:
    done = here(*arguments)
    assert done.code == 2
    assert "Usage: preceptor" in done.err
    assert "Traceback" not in done.err


# Interruptions


def test_sigterm_ends_a_command_in_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def long_command(**_: object) -> None:
        with lease(tmp_path / "run"), replacing(tmp_path / "a.txt") as partial:
            partial.touch()
            signal.raise_signal(signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("preceptor.cli.main.command", lambda: long_command)
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 143
    said = capsys.readouterr().err
    assert said == "terminated; repeat the command; studies, trainings and map stores resume\n"
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) == before
