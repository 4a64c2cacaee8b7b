"""Mount points as outputs, which no folder can replace."""

from __future__ import annotations

from pathlib import Path

import pytest

from preceptor.runtime.mount_points import check_no_mount_point
from tests.mounted import run_mounted

REPLACE = """
import sys
from pathlib import Path
from preceptor.errors import InputError
from preceptor.runtime.replace_file import replacing
try:
    with replacing(Path(sys.argv[1])) as partial:
        print("work")
        partial.mkdir()
    print("done")
except InputError as error:
    print(error)
"""


@pytest.mark.parametrize("mount", ['mount -t tmpfs none "$1"', 'mount --bind "$2" "$1"'])
def test_a_mount_point_is_refused_before_the_work(tmp_path: Path, mount: str) -> None:
    """A disk of its own, and a folder of the same disk, which has the same device number."""
    for name in ("my out", "other"):
        (tmp_path / name).mkdir()
    told = run_mounted(mount, REPLACE, tmp_path / "my out", tmp_path / "other")
    assert told == (
        f"{tmp_path}/my out is a mount point, which cannot be replaced; name a new folder in it, "
        f"such as {tmp_path}/my out/result\n"
    )
    assert sorted(one.name for one in tmp_path.iterdir()) == ["my out", "other"]


def test_folders_of_a_mount_point_are_no_mount_points(tmp_path: Path) -> None:
    mount, folder = 'mount -t tmpfs none "$2"', tmp_path / "disk"
    folder.mkdir()
    assert run_mounted(mount, REPLACE, folder / "new", folder) == "work\ndone\n"
    for one in (tmp_path, folder, tmp_path / "none"):
        check_no_mount_point(one)


def test_an_output_on_a_read_only_disk_is_refused(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from preceptor.cli.output_files import check_target
from preceptor.errors import InputError
try:
    check_target("--out", Path(sys.argv[1], "a.csv"))
except InputError as error:
    print(error)
"""
    told = run_mounted('mount -t tmpfs -o ro none "$1"', program, tmp_path)
    assert told == (
        f"--out {tmp_path}/a.csv: folder {tmp_path} cannot be written; choose another one\n"
    )
