# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Reads image files as training does, and what is wrong with them."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError
from rich.console import Console
from rich.progress import track

from mmext.utils.files import Stamp, stamp
from mmext.utils.images import decode, orientation, turned_size

#: Share of the rows of a damaged image that may be missing.
MISSING = 0.1


@dataclass(frozen=True)
class ImageFacts:
    """What is known of an image file that was decoded."""

    width: int = 0  # as stored; 0 if the file cannot be read
    height: int = 0
    orientation: int = 1  # EXIF's if OpenCV applies it
    ignored: int = 1  # EXIF's if OpenCV does not apply it to this format
    digest: str = ''  # of the pixels, whatever the format of the file
    problem: str = ''  # why training cannot use the file
    damage: str = ''  # what is wrong with a file that training can use
    #: Type of the stored values if they are not 8-bit numbers.
    dtype: str = ''
    values: tuple[int, int] = (0, 255)  # the range after their conversion
    stamp: Stamp = None  # of the file when it was read

    def size(self, turned: bool) -> tuple[int, int]:
        """Returns width and height, as stored or turned by EXIF."""
        if turned:
            return turned_size(self.width, self.height, self.orientation)
        return self.width, self.height


Facts = Mapping[Path, ImageFacts]
_STORED = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION


def read_image(path: Path) -> ImageFacts:
    """Decodes a file as mmcv does for training, with OpenCV.

    Pillow decodes it too, unless it has very many pixels: some versions of
    OpenCV fill the rest of a truncated image with grey without an error.
    """
    found = stamp(path)
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        return ImageFacts(problem=str(error.strerror), stamp=found)
    if not data.size:
        return ImageFacts(problem='is empty', stamp=found)
    return replace(_decode(data), stamp=found)


def _decode(data: np.ndarray) -> ImageFacts:
    pixels, deep = decode(data, _STORED), _deep_values(data)
    raw = pixels if deep is None else deep
    if raw is None:
        return ImageFacts(problem=_why_unreadable(data))
    height, width = raw.shape[:2]
    turn, ignored, damage = 1, 1, ''
    # Pillow refuses images with very many pixels.
    asked = width * height <= (Image.MAX_IMAGE_PIXELS or np.inf)
    if asked:
        turn, damage = _ask_pillow(data)
    if turn != 1 or not asked:
        shown = decode(data, cv2.IMREAD_COLOR)
        if np.array_equal(pixels, shown):
            turn, ignored = 1, turn
        elif not asked:
            turn = 6 if len(shown) == width else 3  # or one of the same size
    problem, values = '', (0, 255)
    if pixels is None:
        problem = f'OpenCV cannot convert its {deep.dtype} values to 8 bits'
    elif deep is not None:
        values = (int(pixels.min()), int(pixels.max()))
    if damage and (missing := _missing_rows(raw)) > MISSING:
        problem = f'{damage}; {missing:.0%} of its rows are missing'
    digest = hashlib.blake2b(np.ascontiguousarray(raw), digest_size=16)
    digest.update(f'{width} {turn} {raw.dtype}'.encode())
    return ImageFacts(
        width=width,
        height=height,
        orientation=turn,
        ignored=ignored,
        digest=digest.hexdigest(),
        problem=problem,
        damage=damage,
        dtype='' if deep is None else str(deep.dtype),
        values=values,
    )


def _deep_values(data: np.ndarray) -> np.ndarray | None:
    """Returns the values as stored if they have more than 8 bits."""
    start = bytes(data[:26])
    if start.startswith(b'\x89PNG'):
        eight = len(start) < 25 or start[24] <= 8
    else:
        eight = start.startswith((b'\xff\xd8', b'BM', b'RIFF'))
    if eight:
        return None
    stored = decode(data, cv2.IMREAD_UNCHANGED)
    if stored is None or stored.dtype == np.uint8:
        return None
    return stored


def _ask_pillow(data: np.ndarray) -> tuple[int, str]:
    """Returns the EXIF orientation, and what fails if Pillow decodes it."""
    turn = 1
    try:
        with Image.open(io.BytesIO(data)) as image:
            turn = orientation(image)
            image.load()
    except (UnidentifiedImageError, NotImplementedError):
        return turn, ''  # a format that only OpenCV reads
    except Exception as error:  # its type depends on the format
        return turn, str(error) or repr(error)
    return turn, ''


def _why_unreadable(data: np.ndarray) -> str:
    try:
        with Image.open(io.BytesIO(data)) as image:
            kind = Image.MIME.get(image.format or '', image.format)
            image.load()
    except UnidentifiedImageError:
        return 'it is not an image'
    except Exception as error:  # its type depends on the format
        return str(error) or repr(error)
    return f'is {kind}, which OpenCV and so mmcv cannot read'


def _missing_rows(pixels: np.ndarray) -> float:
    """Returns the share of rows at the end that have one color only."""
    rows = (pixels != pixels[-1, -1]).reshape(len(pixels), -1).any(1)
    return float(np.argmax(rows[::-1]) / len(rows)) if rows.any() else 1.0


def read_images(
    paths: Iterable[Path], workers: int = 1, progress: bool = False
) -> dict[Path, ImageFacts]:
    """Decodes files in several threads; decoding releases Python's lock."""
    pool = ThreadPoolExecutor(max(1, workers))
    try:
        jobs = {pool.submit(read_image, p): p for p in dict.fromkeys(paths)}
        done = track(
            as_completed(jobs),
            'Reading images',
            total=len(jobs),
            transient=True,
            console=Console(stderr=True),
            disable=not progress,
        )
        return {jobs[job]: job.result() for job in done}
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
