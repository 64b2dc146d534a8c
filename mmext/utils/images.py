# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Image files: which files are images, and where they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmext.errors import UserError, did_you_mean
from mmext.utils.text import some

#: Lower-case suffixes of the formats that OpenCV, and so mmcv, reads.
SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')
_ENDINGS = f'Image files end in {", ".join(SUFFIXES)}.'


def is_image(path: Path) -> bool:
    """Whether a file is an image by its suffix."""
    return path.suffix.lower() in SUFFIXES


def find_images(
    paths: Sequence[str | Path], limit: int | None = None
) -> list[Path]:
    """Finds image files, and those in folders and their sub-folders.

    Args:
        paths: Files and folders.
        limit: Return that many at most, evenly spaced. Default: all.

    Returns:
        Absolute paths without repetitions; those of a folder are sorted.

    Raises:
        UserError: A path does not exist, is not an image or holds none.
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
