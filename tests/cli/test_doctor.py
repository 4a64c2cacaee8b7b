"""`preceptor doctor`: what it finds in installations that lack something."""

from __future__ import annotations

import dataclasses
import json
import math
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from preceptor.cli import doctor
from preceptor.cli.doctor import (
    Devices,
    Folder,
    Gpu,
    Hub,
    HubAnswer,
    Installation,
    Package,
    StepTime,
    advice_on,
    as_text,
    inspect_installation,
)
from preceptor.training import prepare as probe
from tests.commands import Outcome, here

# Nobody listens on the port of "discard".
NO_HUB = "http://127.0.0.1:9"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Server on this machine that answers as a hub does."""

    class Answer(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(200 if self.path in ("", "/") else 403)
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


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
    monkeypatch.setenv("HF_ENDPOINT", NO_HUB)

    shown = here("doctor")
    assert (shown.code, shown.err) == (1, "")
    assert fits(shown)
    text = " ".join(shown.out.split())
    assert "broken: no-such-package: is not installed what to do: pip install" in text
    assert "half-there: cannot be imported: No module named 'no_such_module_of_its_own'" in text
    assert "pip install --force-reinstall 'half-there'" in text
    assert "is not >=99 what to do: pip install 'pydantic>=99'" in text
    assert "extra fast without no-such-extra: pip install '.[fast]' in the source folder" in text
    assert "extra there installed" in text
    assert "numpy:" not in text
    assert "Something that training needs is broken." in text

    values = json.loads(here("doctor", "--json").out)
    assert [one["where"] for one in values["broken"]] == [
        "no-such-package",
        "half-there",
        "pydantic",
    ]
    assert {one["name"]: one["missing"] for one in values["extras"]} == {
        "fast": ["no-such-extra"],
        "there": [],
    }
    assert values["hub"]["reachable"] is False
    assert values["devices"] is None


@pytest.mark.slow
def test_what_works_is_measured(hub: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_ENDPOINT", hub)
    for name, value in (("_WARM", 1), ("_TIMED", 1), ("_LEAST", 0.0)):
        monkeypatch.setattr(probe, name, value)
    monkeypatch.setattr(doctor, "SPEED_SECONDS", math.inf)
    found = inspect_installation()
    assert not found.broken
    assert {one.name for one in found.packages} >= {"torch", "torchvision", "timm", "numpy"}
    assert all(one.version for one in found.packages)
    assert found.hub == Hub(hub, True)
    assert found.devices is not None
    assert found.devices.cores >= 1
    assert found.speed[0].precision == "32-true"
    assert all(one.images and one.images > 0 for one in found.speed)
    assert "ray" in {one.name for one in found.extras}
    assert not {"dev", "bench"} & {one.name for one in found.extras}
    assert "Training works here." in as_text(found)
    slow = dataclasses.replace(found, speed=[StepTime("32-true", 1, 0.42)])
    assert "0.42 images/s with 32-true, 1 thread" in as_text(slow)


@pytest.mark.slow
def test_a_busy_machine_has_speeds_that_are_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(doctor, "SPEED_SECONDS", 0.0)
    steps: list[int] = []
    original = torch.optim.SGD.step
    monkeypatch.setattr(torch.optim.SGD, "step", lambda one: (steps.append(1), original(one)))
    found = inspect_installation()
    assert len(steps) == 1
    assert not found.broken
    assert all(one.images is None for one in found.speed)
    notes = [str(one) for one in found.notes if one.where == "speed"]
    assert len(notes) == len(found.speed)
    assert "32-true, 1 thread: not measured, since the machine is slow or busy" in notes[0]
    assert "repeat preceptor doctor" in notes[0]
    text = as_text(found)
    assert "not measured with 32-true, 1 thread" in text
    assert "Training works here." in text


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("HF_ENDPOINT", NO_HUB, "not reachable: Connection refused"),
        ("HF_ENDPOINT", "{hub}/elsewhere", "answered 403"),
        ("HF_ENDPOINT", "not an address", "not reachable: unknown url type"),
        ("HF_HUB_OFFLINE", "1", "switched off by HF_HUB_OFFLINE"),
    ],
)
def test_no_hub(
    hub: str, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, expected: str
) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv(variable, value.format(hub=hub))
    found = HubAnswer().wait()
    assert not found.reachable
    assert expected in found.error


def notes_on(path: Path) -> list[str]:
    found = Installation("0.1.0")
    doctor._inspect_folder(found, "image caches", path, "set --cache-dir")
    return [str(one) for one in found.notes]


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
    assert note.endswith("set --cache-dir")


def test_advice_needs_a_gain() -> None:
    plain = StepTime("32-true", 1, 100.0)
    assert advice_on([]) == advice_on([plain, StepTime("bf16-mixed", 1, 105.0)]) == []
    (found,) = advice_on([plain, StepTime("bf16-mixed", 1, None), StepTime("32-true", 8, 400.0)])
    assert advice_on([StepTime("32-true", 1, None), StepTime("bf16-mixed", 1, 5.0)]) == []
    assert "threads: 8" in found


def test_the_output_fits_a_terminal() -> None:
    gpu = Gpu("NVIDIA H100 80GB HBM3 of a long name", 2**36, 2**35)
    found = Installation(
        "0.1.0",
        packages=[Package("torch", ">=2.6", "2.9.1")],
        devices=Devices(64, "AVX512", (gpu,), "12.8"),
        speed=[StepTime("32-true", 1, 2000.0)],
        folders=[Folder("current folder", "/a/path/" + 20 * "that-is-long/", 2**40)],
        hub=Hub("https://huggingface.co", True),
        advice=["word " * 40],
    )
    lines = as_text(found).splitlines()
    assert max(len(line) for line in lines if "/a/path" not in line) <= 80
    assert lines[-1] == "Training works here."
