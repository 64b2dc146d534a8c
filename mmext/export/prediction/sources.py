# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The images that are detected in: files, folders, patterns and videos."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from mmext.errors import UserError
from mmext.utils.images import (
    find_images,
    is_bomb,
    picture_names,
    read_pixels,
)

VIDEOS = ('.avi', '.m4v', '.mkv', '.mov', '.mp4', '.webm')


@dataclass(frozen=True)
class Source:
    """An image file, or a video.

    Args:
        path: The file.
        name: A relative name of its own.
        frames: The number of images, as the file says.
    """

    path: Path
    name: str
    frames: int = 1

    def read(self) -> Iterator[tuple[str, np.ndarray | None]]:
        """Yields names and pixels; None if an image cannot be read."""
        if self.path.suffix.lower() not in VIDEOS:
            bad = is_bomb(self.path)
            pixels = None if bad else read_pixels(self.path, cv2.IMREAD_COLOR)
            yield self.name, pixels
            return
        video = cv2.VideoCapture(str(self.path))
        number = 0
        try:
            while (read := video.read())[0]:
                yield f'{self.name}/{number:06d}.png', read[1]
                number += 1
        finally:
            video.release()
        if not number:
            yield self.name, None


def find_sources(given: Sequence[str | Path]) -> list[Source]:
    """Returns the images and videos in files, folders and patterns.

    Raises:
        UserError: There are none, or one is neither image nor video.
    """
    paths: list[Path] = []
    for text in map(str, given):
        found = [text]
        if glob.has_magic(text) and not Path(text).exists():
            found = sorted(glob.glob(text, recursive=True))
            if not found:
                raise UserError(
                    f'no file has a name such as {text}', 'Check the pattern.'
                )
        paths += map(Path, found)
    is_video = [p.suffix.lower() in VIDEOS and p.is_file() for p in paths]
    videos = [p for p, video in zip(paths, is_video, strict=True) if video]
    others = [p for p, video in zip(paths, is_video, strict=True) if not video]
    images = find_images(others) if others else []
    files = [*images, *map(Path.absolute, videos)]
    names = picture_names(files, paths)
    return [
        Source(file, name, _length(file) if i >= len(images) else 1)
        for i, (file, name) in enumerate(zip(files, names, strict=True))
    ]


def _length(video: Path) -> int:
    capture = cv2.VideoCapture(str(video))
    try:
        return max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 1)
    finally:
        capture.release()
