# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Sizes of image files and their EXIF rotation, as OpenCV reads them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

_TAG = 0x0112  # EXIF's orientation
SWAPPING = (5, 6, 7, 8)  # orientations that swap width and height


def stored_size(path: Path, image: Image.Image) -> tuple[int, int, int]:
    """Returns the size of an image file and how OpenCV turns it.

    Args:
        path: The file.
        image: The file, opened by Pillow.

    Returns:
        Width and height of the stored pixels, and the EXIF orientation that
        OpenCV applies when it reads the file: 1 if it applies none. OpenCV
        ignores EXIF in some formats.

    Raises:
        ValueError: OpenCV cannot decode the file.
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
