"""A sound manifest of six images in tests, and what is wrong with a changed one."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from preceptor.data.manifest import Manifest
from preceptor.errors import ProblemsError

HEADER = "path,label,split,saliency,annotated,source,group,map_weight,sample_weight,age"


def save(path: Path, size: tuple[int, int] = (8, 6), mode: str = "RGB") -> Path:
    """One black image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size).save(path)
    return path


def sound() -> list[str]:
    """Lines of the sound manifest."""
    return [
        HEADER,
        "images/a.png,fake,train,maps/a.png,,gan1,p1,,,31",
        "images/b.png,fake,val-unseen,maps/b.png,1,gan2,p2,0.5,2,32",
        "images/c.png,real,train,,1,,p1,1,1,33",
        "images/d.png,real,val,,0,,p3,,,34",
        "images/e.png,real,test,,,,,,,",
        "images/f.png,fake,test-gan3,,no,gan3,,,,36",
    ]


def write(folder: Path, *lines: str, name: str = "m.csv") -> Path:
    """A manifest of these lines."""
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / name


def problems(path: Path, **options: Any) -> list[str]:
    """What is wrong, told in the order of rows."""
    with pytest.raises(ProblemsError) as caught:
        Manifest.read(path, **options)
    assert caught.value.exit_code == 2
    return [str(problem) for problem in caught.value.problems]


def with_line(folder: Path, number: int, line: str) -> Path:
    """The sound manifest with one line replaced, numbered as an editor does."""
    lines = sound()
    lines[number - 1] = line
    return write(folder, *lines)
