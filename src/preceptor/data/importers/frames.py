"""Frame of annotations: whether they were made on the image as stored, or turned by its EXIF."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from preceptor.data.images import stored_size, turned
from preceptor.data.importers.shapes import Frame, Pixels

ExifRule = Literal["auto", "upright", "stored"]


@dataclass(frozen=True)
class ImageFrame:
    """Size of the pixels that coordinates refer to, and how they are turned upright.

    Args:
        width, height: Size in pixels.
        orientation: EXIF orientation (1 to 8) by which a map of this size is turned.
    """

    width: int
    height: int
    orientation: int = 1

    def upright(self, drawn: Pixels) -> Pixels:
        """Map of this frame, turned as the image is when it is decoded."""
        if self.orientation == 1:
            return drawn
        return np.asarray(turned(Image.fromarray(drawn), self.orientation))


def frame_of(
    path: Path,
    stated: tuple[int, int] | None,
    by_tool: Frame,
    rule: ExifRule = "auto",
    content: bytes | None = None,
) -> ImageFrame:
    """Frame of the annotations of one image.

    With `auto`, a stated size decides where the orientation exchanges the sides; otherwise the
    annotations are in the frame of the tool that wrote them.

    Args:
        path: Image file.
        stated: (width, height) from the annotation file, or None.
        by_tool: Frame of the tool.
        rule: `auto`, or the frame that the user states.
        content: Content of the file, if it was read already.

    Raises:
        ImageError: The image cannot be read.
        ValueError: The stated size is not that of the image.
    """
    (width, height), orientation = stored_size(path, content)
    upright = (height, width) if orientation in (5, 6, 7, 8) else (width, height)
    chosen: Frame = by_tool if rule == "auto" else rule
    if rule == "auto" and stated is not None and upright != (width, height):
        chosen = "upright" if stated == upright else "stored"
    size = upright if chosen == "upright" else (width, height)
    if stated is not None and stated != size:
        real = f"{size[0]}×{size[1]}"
        if orientation != 1 and upright != (width, height):
            real = f"{upright[0]}×{upright[1]} upright and {width}×{height} as stored"
        raise ValueError(f"the annotations are for {stated[0]}×{stated[1]}, the image is {real}")
    return ImageFrame(*size, 1 if chosen == "upright" else orientation)
