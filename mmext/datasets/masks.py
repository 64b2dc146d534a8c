# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Which masks COCO can draw.

pycocotools passes coordinates and run lengths to C code that does not check
them: a polygon at 1e9 or NaN ends the process, or fills the memory. Masks are
checked here before.
"""

from __future__ import annotations

import numpy as np

from mmext.datasets.coco import is_number
from mmext.utils.text import short

#: COCO's C code counts the pixels of an image with 32 bits.
_MOST_PIXELS = 2**32


def mask_problem(mask: object, size: tuple[float, float] | None) -> str:
    """Returns why a mask cannot be drawn, such as ``'is not a list ...'``.

    ``size`` is the height and width of the image. Without it, an RLE is
    checked with its own size, and polygons only for being numbers.
    """
    if size and size[0] * size[1] >= _MOST_PIXELS:
        return f'is in an image of {size[1]:g} x {size[0]:g}'
    if isinstance(mask, list):
        return _polygon_problem(mask, size)
    if isinstance(mask, dict):
        return _rle_problem(mask, size)
    return f'is {short(mask)}, neither polygons nor an RLE'


def is_polygon(coordinates: list[float]) -> bool:
    """Returns whether COCO can draw it: 3 points or more, x and y of each."""
    return len(coordinates) >= 6 and len(coordinates) % 2 == 0


def _polygon_problem(mask: list, size: tuple[float, float] | None) -> str:
    if not all(isinstance(polygon, list) for polygon in mask):
        return 'is not a list of polygons'
    values = [v for polygon in mask for v in polygon]
    if odd := [v for v in values if not is_number(v)]:
        return f'has {short(odd[0])} where a coordinate should be'
    if size is None:
        return ''
    # pycocotools walks along every edge, and would use all memory.
    length = max(size)
    for value in values:
        if not -length <= value <= 2 * length:
            return (
                f'has a coordinate of {value:g} in an image of '
                f'{size[1]:g} x {size[0]:g}'
            )
    return ''


def _rle_problem(mask: dict, expected: tuple[float, float] | None) -> str:
    size, counts = mask.get('size'), mask.get('counts')
    if expected and size != [*expected]:
        return (
            f'is an RLE of size {short(size)} in an image of height and width '
            f'{[*expected]}'
        )
    if not (
        isinstance(size, list)
        and len(size) == 2
        and all(type(n) is int and n > 0 for n in size)
        and size[0] * size[1] < _MOST_PIXELS
    ):
        return f'is an RLE of size {short(size)}'
    if isinstance(counts, list):
        if not all(type(n) is int and n >= 0 for n in counts):
            return 'has RLE counts that are not whole numbers'
        pixels = sum(counts)
    elif isinstance(counts, str):
        runs = rle_runs(counts)
        if runs is None or (runs < 0).any():
            return 'has RLE counts that cannot be decoded'
        pixels = int(runs.sum())
    else:
        return 'is an RLE without counts'
    if pixels != size[0] * size[1]:
        return f'is an RLE of {pixels} pixels in an image of {size}'
    return ''


def rle_runs(counts: str) -> np.ndarray | None:
    """Returns the run lengths of COCO's compressed RLE.

    Source: ``rleFrString`` of pycocotools' ``maskApi.c``, which would write
    beyond the mask if the string is damaged; this returns None.
    """
    try:
        data = np.frombuffer(counts.encode('ascii'), np.uint8).astype(np.int64)
    except UnicodeEncodeError:
        return None
    data -= 48
    if not len(data) or data.min() < 0 or data.max() > 63 or data[-1] & 32:
        return None
    # Groups of five bits, the lowest first; bit 32 marks all but the last.
    last = np.flatnonzero((data & 32) == 0)
    first = np.concatenate([[0], last[:-1] + 1])
    place = np.arange(len(data)) - np.repeat(first, last - first + 1)
    if place.max() > 11:
        return None
    runs = np.add.reduceat((data & 31) << (5 * place), first)
    negative = (data[last] & 16) != 0
    runs -= np.where(negative, 1 << (5 * (last - first + 1)), 0)
    # From the fourth on, a run is stored as the difference to the run before
    # the previous one.
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs
