# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Image files: where they are, their sizes and their EXIF rotation."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from mmext.errors import UserError, did_you_mean
from mmext.utils.files import replacing
from mmext.utils.text import some

#: Lower-case suffixes of the formats that OpenCV, and so mmcv, reads.
SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')
_TAG = 0x0112  # EXIF's orientation
SWAPPING = (5, 6, 7, 8)  # orientations that swap width and height
_ENDINGS = f'Image files end in {", ".join(SUFFIXES)}.'


def is_image(path: Path) -> bool:
    """Whether a file is an image by its suffix."""
    return path.suffix.lower() in SUFFIXES


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden, or macOS added it to an archive."""
    return name.startswith(('.', '__MACOSX'))


def files_in(folder: Path) -> list[Path]:
    """Returns all files below a folder, sorted; links are followed.

    Hidden files and folders are left out.
    """
    found, visited = [], set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        folders[:] = [f for f in folders if not is_hidden(f)]
        if real in visited:  # a link to a folder above
            folders.clear()
            continue
        visited.add(real)
        found += [Path(place, n) for n in names if not is_hidden(n)]
    return sorted(found)


def find_images(
    paths: Sequence[str | Path], limit: int | None = None
) -> list[Path]:
    """Finds image files, and those in folders and their sub-folders.

    Returns absolute paths without repetitions, those of a folder sorted; at
    most ``limit`` of them, evenly spaced. Hidden files in folders are left
    out. Raises `UserError` if a path does not exist, is not an image or holds
    none.
    """
    paths = [Path(path) for path in paths]
    if missing := [path for path in paths if not path.exists()]:
        folder = missing[0].parent
        beside = folder.iterdir() if folder.is_dir() else ()
        raise UserError(
            f'image {missing[0]} does not exist'
            + (f', nor do {some(missing[1:])}' if missing[1:] else ''),
            did_you_mean(missing[0].name, [p.name for p in beside])
            or f'Look into {folder.absolute()}.',
        )
    files = [path for path in paths if not path.is_dir()]
    if others := [path for path in files if not is_image(path)]:
        raise UserError(
            f'{others[0]} is not an image by its name'
            + (f', nor are {some(others[1:])}' if others[1:] else ''),
            _ENDINGS,
        )
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        files = files_in(path)
        inside = [file for file in files if is_image(file)]
        if not inside:
            suffixes = sorted({file.suffix for file in files} - {''})
            raise UserError(
                f'folder {path} holds no image; it has '
                + (some(suffixes, 6) or 'nothing'),
                _ENDINGS,
            )
        found += inside
    found = [Path(p) for p in dict.fromkeys(map(os.path.abspath, found))]
    if limit is None or limit >= len(found):
        return found
    return [found[i * len(found) // limit] for i in range(limit)]


def decode(data: np.ndarray, flags: int) -> np.ndarray | None:
    """Decodes the bytes of an image file with OpenCV.

    Returns None if OpenCV cannot decode them, or has too many pixels to.
    """
    try:
        return cv2.imdecode(data, flags) if data.size else None
    except cv2.error:
        return None


def read_pixels(path: Path, flags: int) -> np.ndarray | None:
    """Reads an image file with OpenCV; None if it cannot be read."""
    if not os.path.isfile(path):  # a pipe would be waited for
        return None
    return decode(np.fromfile(path, np.uint8), flags)


def write_image(path: Path, pixels: np.ndarray) -> None:
    """Writes an image; OpenCV would not notice a disk that is full.

    Raises:
        OSError: The file could not be written.
    """
    with replacing(path) as part:
        part.write_bytes(cv2.imencode(path.suffix, pixels)[1])


def is_bomb(path: Path) -> bool:
    """Whether an image has so many pixels that Pillow refuses to read it.

    A file of some kilobytes may decode to gigabytes.
    """
    try:
        Image.open(path).close()
    except Image.DecompressionBombError:
        return True
    except Exception:  # its type depends on the format
        return False
    return False


def as_picture(image: np.ndarray) -> np.ndarray:
    """Returns an image of any type as 8-bit values in three channels (BGR).

    Images of other types than 8 bits are scaled by their largest value.
    """
    if image.dtype != np.uint8:
        top = max(float(image.max()), 1e-9)
        image = (image * (255 / top)).clip(0, 255).astype(np.uint8)
    if image.ndim == 2:
        image = image[..., None]
    if image.shape[-1] < 3:
        image = image[..., :1].repeat(3, -1)
    return np.ascontiguousarray(image[..., :3])


def orientation(image: Image.Image) -> int:
    """Returns the EXIF orientation of an image: 1 if it has none."""
    return image.getexif().get(_TAG) or 1


def shown_size(path: Path) -> tuple[int, int]:
    """Returns the width and height of an image file as OpenCV reads it.

    Decodes the file only if its EXIF tag may turn it, which depends on the
    format, or if Pillow cannot read its size. Raises `ValueError` if OpenCV
    cannot decode it then.
    """
    try:
        with Image.open(path) as image:
            if orientation(image) == 1:
                return image.size
    except (Image.DecompressionBombError, UnidentifiedImageError):
        pass  # it has very many pixels, or a format that only OpenCV reads
    shown = read_pixels(path, cv2.IMREAD_COLOR)
    if shown is None:
        raise ValueError('OpenCV cannot decode it')
    height, width = shown.shape[:2]
    return width, height


def picture_names(
    images: Sequence[Path], given: Sequence[str | Path]
) -> list[str]:
    """Returns a relative name of its own for each image, to write it under.

    Args:
        images: Files of :func:`find_images`.
        given: The files and folders that they were found in.

    An image of a folder keeps its path in it, after the name of the folder if
    there are several. Names that would be equal get more of their folders.
    """
    bases = [Path(os.path.abspath(path)) for path in given]
    homes = []
    for image in images:
        base = next(b for b in bases if image == b or b in image.parents)
        alone = image == base or len(bases) > 1
        homes.append(base.parent if alone else base)
    while True:
        pairs = [*zip(images, homes, strict=True)]
        names = [image.relative_to(home).as_posix() for image, home in pairs]
        uses = Counter(names)
        clashing = {
            h for h, n in zip(homes, names, strict=True) if uses[n] > 1
        }
        if not clashing:
            return names
        homes = [home.parent if home in clashing else home for home in homes]


def turned_size(width: int, height: int, orientation: int) -> tuple[int, int]:
    """Returns width and height after a turn by an EXIF orientation."""
    return (height, width) if orientation in SWAPPING else (width, height)
