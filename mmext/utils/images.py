# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Image files: where they are, their sizes and their EXIF rotation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from mmext.errors import UserError, did_you_mean
from mmext.utils.text import some

#: Lower-case suffixes of the formats that OpenCV, and so mmcv, reads.
SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')
_TAG = 0x0112  # EXIF's orientation
SWAPPING = (5, 6, 7, 8)  # orientations that swap width and height
_ENDINGS = f'Image files end in {", ".join(SUFFIXES)}.'


def is_image(path: Path) -> bool:
    """Whether a file is an image by its suffix."""
    return path.suffix.lower() in SUFFIXES


def find_images(
    paths: Sequence[str | Path], limit: int | None = None
) -> list[Path]:
    """Finds image files, and those in folders and their sub-folders.

    Returns absolute paths without repetitions, those of a folder sorted; at
    most ``limit`` of them, evenly spaced. Raises `UserError` if a path does
    not exist, is not an image or holds none.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = [p for p in path.rglob('*') if is_image(p)]
            if not inside:
                suffixes = sorted({p.suffix for p in path.rglob('*')} - {''})
                raise UserError(
                    f'folder {path} holds no image; it has '
                    + (some(suffixes, 6) or 'nothing'),
                    _ENDINGS,
                )
            found += sorted(inside)
        elif not path.exists():
            folder = path.parent
            beside = folder.iterdir() if folder.is_dir() else ()
            raise UserError(
                f'image {path} does not exist',
                did_you_mean(path.name, [p.name for p in beside])
                or f'Look into {folder.absolute()}.',
            )
        elif not is_image(path):
            raise UserError(f'{path} is not an image by its name', _ENDINGS)
        else:
            found.append(path)
    found = list(dict.fromkeys(p.absolute() for p in found))
    if limit is None or limit >= len(found):
        return found
    return [found[i * len(found) // limit] for i in range(limit)]


def stored_size(path: Path, image: Image.Image) -> tuple[int, int, int]:
    """Returns the size of an image file and how OpenCV turns it.

    ``image`` is the file, opened by Pillow. Returns width and height of the
    stored pixels, and the EXIF orientation that OpenCV applies when it reads
    the file: 1 if it applies none, as in some formats. Raises `ValueError` if
    OpenCV cannot decode the file.
    """
    width, height = image.size
    orientation = image.getexif().get(_TAG, 1)
    if orientation in (0, 1):
        return width, height, 1
    data = np.fromfile(path, np.uint8)
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    stored = cv2.imdecode(data, flags)
    shown = cv2.imdecode(data, cv2.IMREAD_COLOR)
    if stored is None or shown is None:
        raise ValueError('cannot be decoded by OpenCV')
    height, width = stored.shape[:2]
    if np.array_equal(stored, shown):
        orientation = 1
    return width, height, orientation


def turned_size(width: int, height: int, orientation: int) -> tuple[int, int]:
    """Returns width and height after a turn by an EXIF orientation."""
    return (height, width) if orientation in SWAPPING else (width, height)
