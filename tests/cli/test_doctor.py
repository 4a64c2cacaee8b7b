"""`preceptor doctor`: what it finds in installations that lack something."""

from __future__ import annotations

from pathlib import Path

import pytest

from preceptor.cli import doctor
from preceptor.cli.doctor import Installation, inspect_folder
from tests.commands import Outcome, here


def installed_with(
    folder: Path, monkeypatch: pytest.MonkeyPatch, requirements: list[str], extras: list[str]
) -> None:
    """Record of an installation of this library, which Python finds before the real one."""
    record = folder / "preceptor-0.1.0.dist-info"
    record.mkdir()
    lines = ["Metadata-Version: 2.4", "Name: preceptor", "Version: 0.1.0"]
    lines += [f"Requires-Dist: {one}" for one in requirements]
    lines += [f"Provides-Extra: {one}" for one in extras]
    (record / "METADATA").write_text("\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(folder)


def fits(outcome: Outcome) -> bool:
    return max(map(len, outcome.out.splitlines())) <= 80


def test_a_package_that_is_missing_broken_or_too_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "half_there.py").write_text("import no_such_module_of_its_own\n")
    half = tmp_path / "half_there-1.0.dist-info"
    half.mkdir()
    (half / "METADATA").write_text("Metadata-Version: 2.4\nName: half-there\nVersion: 1.0\n")
    needed = ["numpy>=2.0", "no-such-package>=3", "half-there", "pydantic>=99"]
    wanted = ["no-such-extra>=1; extra == 'fast'", "numpy; extra == 'there'"]
    installed_with(tmp_path, monkeypatch, needed + wanted, ["fast", "there", "dev"])
    monkeypatch.chdir(tmp_path)

    shown = here("doctor")
    assert (shown.code, shown.err) == (1, "")
    assert fits(shown)
    text = " ".join(shown.out.split())
    assert "broken: no-such-package: is not installed what to do: pip install" in text
    assert "half-there: cannot be imported: No module named 'no_such_module_of_its_own'" in text
    assert "pip install 'half-there' --force-reinstall" in text
    assert "is not >=99 what to do: pip install 'pydantic>=99'" in text
    assert "extra fast without no-such-extra: pip install '.[fast]' in the source folder" in text
    assert "extra there installed" in text
    assert "extra dev" not in text
    assert "numpy:" not in text
    assert "Something that training needs is broken." in text


def test_a_whole_installation() -> None:
    shown = here("doctor")
    assert (shown.code, shown.err) == (0, "")
    names = [line[:20].strip() for line in shown.out.splitlines()]
    assert {"torch", "timm", "CPU", "GPU", "extra ray", "image caches"} <= {*names}
    assert "broken: " not in shown.out
    assert shown.out.endswith("Training works here.\n")


def notes_on(path: Path) -> list[str]:
    state = Installation()
    inspect_folder(state, "image caches", path, "set PRECEPTOR_CACHE")
    return [str(one) for one in state.notes]


def test_little_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new = tmp_path / "not" / "yet"
    monkeypatch.setattr(doctor, "LEAST_DISK", 0)
    assert not notes_on(new)
    monkeypatch.setattr(doctor, "LEAST_DISK", 2**60)
    (note,) = notes_on(new)
    assert f"{new}: " in note
    assert "are free" in note
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no folder that refuses files")
def test_a_folder_that_takes_no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LEAST_DISK", 0)
    (note,) = notes_on(Path("/proc"))
    assert "cannot be written to" in note
    assert note.endswith("set PRECEPTOR_CACHE")
