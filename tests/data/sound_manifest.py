"""A sound manifest of six images in tests, and what is wrong with a changed one."""

from pathlib import Path
from typing import Any

import numpy as np
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


def dicom(file: Path, pixels: np.ndarray, **tags: object) -> Path:
    """File as a scanner writes it."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = Dataset()
    data.file_meta = meta
    data.SOPClassUID, data.SOPInstanceUID = meta[0x0002, 0x0002].value, meta[0x0002, 0x0003].value
    data.Rows, data.Columns = pixels.shape[:2]
    data.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
    data.BitsAllocated = data.BitsStored = 8 * pixels.itemsize
    data.HighBit, data.PixelRepresentation = data.BitsStored - 1, int(pixels.dtype.kind == "i")
    data.PhotometricInterpretation = "MONOCHROME2" if pixels.ndim == 2 else "RGB"
    if pixels.ndim == 3:
        data.PlanarConfiguration = 0
    data.PixelData = pixels.tobytes()
    for name, value in tags.items():
        setattr(data, name, value)
    data.save_as(file, enforce_file_format=True)
    return file
