# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Which masks COCO can draw.

pycocotools passes coordinates and run lengths to C code that does not check
them: a polygon at 1e9 or NaN ends the process, or fills the memory. Masks are
checked here before.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pycocotools import mask as mask_utils

from mmext.datasets.coco import is_number
from mmext.utils.text import short

#: COCO's C code counts the pixels of an image with 32 bits.
_MOST_PIXELS = 2**32
#: Groups of five bits in a number of pixels; more do not fit into 64 bits.
_MOST_GROUPS = 12


def mask_problem(mask: object, size: tuple[float, float] | None) -> str:
    """Returns why a mask cannot be drawn, such as ``'is not a list ...'``.

    ``size`` is the height and width of the image. Without it, an RLE is
    checked with its own size, and polygons only for being numbers.
    """
    return mask_problems([mask], [size])[0]


def mask_problems(
    masks: Sequence[object], sizes: Sequence[tuple[float, float] | None]
) -> list[str]:
    """Returns the problem of each mask, empty if there is none."""
    coded = {
        i: mask['counts']
        for i, mask in enumerate(masks)
        if isinstance(mask, dict) and isinstance(mask.get('counts'), str)
    }
    pixels = rle_pixels([*coded.values()]).tolist()
    pixels_of = dict(zip(coded, pixels, strict=True))
    return [
        _problem(mask, size, pixels_of.get(i))
        for i, (mask, size) in enumerate(zip(masks, sizes, strict=True))
    ]


def encode(mask: list | dict, size: tuple[float, float] | None) -> dict:
    """Returns a mask without a problem as a compressed RLE."""
    if isinstance(mask, list):
        return mask_utils.merge(mask_utils.frPyObjects(mask, *size))
    if isinstance(mask['counts'], list):
        return mask_utils.frPyObjects(mask, *mask['size'])
    return {'size': mask['size'], 'counts': mask['counts']}


def _problem(
    mask: object, size: tuple[float, float] | None, pixels: int | None
) -> str:
    if size and size[0] * size[1] >= _MOST_PIXELS:
        return f'is in an image of {size[1]:g} x {size[0]:g}'
    if isinstance(mask, list):
        return _polygon_problem(mask, size)
    if isinstance(mask, dict):
        return _rle_problem(mask, size, pixels)
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


def _rle_problem(
    mask: dict, expected: tuple[float, float] | None, pixels: int | None
) -> str:
    size, counts = mask.get('size'), mask.get('counts')
    if expected and size != [*expected]:
        return (
            f'is an RLE of size {short(size)} in an image of height and width '
            f'{[*expected]}'
        )
    is_pair = isinstance(size, list) and len(size) == 2
    height, width = size if is_pair else (0, 0)
    if not (
        type(height) is type(width) is int
        and min(height, width) > 0
        and height * width < _MOST_PIXELS
    ):
        return f'is an RLE of size {short(size)}'
    if isinstance(counts, list):
        if not all(type(n) is int and n >= 0 for n in counts):
            return 'has RLE counts that are not whole numbers'
        pixels = sum(counts)
    elif pixels == -1:
        return 'has RLE counts that cannot be decoded'
    elif pixels is None:
        return 'is an RLE without counts'
    if pixels != height * width:
        return f'is an RLE of {pixels} pixels in an image of {size}'
    return ''


def rle_pixels(counts: Sequence[str]) -> np.ndarray:
    """(N,) pixels of the images of COCO's compressed RLEs.

    They are -1 for a damaged string. Source: ``rleFrString`` of pycocotools'
    ``maskApi.c``, which would write beyond the mask.
    """
    if not counts:
        return np.zeros(0, np.int64)
    counts = [c if c and c.isascii() else ' ' for c in counts]
    data = np.frombuffer(''.join(counts).encode(), np.uint8) - np.uint8(48)
    ends = np.cumsum([*map(len, counts)])
    starts = np.append(0, ends[:-1])
    # Groups of five bits, the lowest first; bit 32 marks all but the last.
    is_last = data & 32 == 0
    bad = (np.maximum.reduceat(data, starts) > 63) | ~is_last[ends - 1]
    is_last[ends - 1] = True
    last = np.flatnonzero(is_last)
    first = np.append(0, last[:-1] + 1)
    length = last + 1 - first
    start = np.searchsorted(last, starts)  # the first run of each mask
    bad |= np.maximum.reduceat(length, start) > _MOST_GROUPS
    runs = (data[first] & 31).astype(np.int64)
    for n in range(1, min(length.max(), _MOST_GROUPS)):
        longer = np.flatnonzero(length > n)
        group = (data[first[longer] + n] & 31).astype(np.int64)
        runs[longer] |= group << 5 * n
    ones = -1 << 5 * np.minimum(length, _MOST_GROUPS)
    runs |= np.where(data[last] & 16, ones, 0)
    # From the fourth of a mask on, a run is stored as the difference to the
    # run before the previous one: sums over every second one, less what the
    # masks before have added.
    total = np.zeros(len(runs) + 2, np.int64)
    for begin in (0, 1):
        np.cumsum(runs[begin::2], out=total[2 + begin :: 2])
    before = np.repeat(start, np.diff(start, append=len(runs)))
    before -= (np.arange(len(runs)) - before) & 1
    found = total[2:] - total[before + 2]
    found[start] = runs[start]
    bad |= np.minimum.reduceat(found, start) < 0
    return np.where(bad, -1, np.add.reduceat(found, start))
