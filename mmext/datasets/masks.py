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
    elif pixels == -1:
        return 'has RLE counts that cannot be decoded'
    elif pixels is None:
        return 'is an RLE without counts'
    if pixels != size[0] * size[1]:
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
    data = np.frombuffer(''.join(counts).encode(), np.uint8).astype(np.int64)
    data -= 48
    ends = np.cumsum([*map(len, counts)])
    starts = np.append(0, ends[:-1])
    bad = np.logical_or.reduceat((data < 0) | (data > 63), starts)
    bad |= data[ends - 1] & 32 != 0
    # Groups of five bits, the lowest first; bit 32 marks all but the last.
    is_last = data & 32 == 0
    is_last[ends - 1] = True
    last = np.flatnonzero(is_last)
    length = np.diff(last, prepend=-1)
    first = last - length + 1
    bits = 5 * (np.arange(len(data)) - np.repeat(first, length))
    bad |= np.maximum.reduceat(bits, starts) > 55
    runs = np.add.reduceat((data & 31) << np.minimum(bits, 55), first)
    negative = (data[last] & 16) != 0
    runs -= np.where(negative, 1 << np.minimum(5 * length, 60), 0)
    # From the fourth of a mask on, a run is stored as the difference to the
    # run before the previous one.
    number = np.add.reduceat(is_last, starts, dtype=np.int64)
    start = np.cumsum(number) - number
    place = np.arange(len(runs)) - np.repeat(start, number)
    for begin in (1, 2):
        chosen = np.flatnonzero((place % 2 == begin % 2) & (place > 0))
        own = runs[chosen]
        total = np.cumsum(own)
        (firsts,) = np.nonzero(place[chosen] == begin)
        before = total[firsts] - own[firsts]
        length = np.diff(firsts, append=len(chosen))
        runs[chosen] = total - np.repeat(before, length)
    bad |= np.minimum.reduceat(runs, start) < 0
    return np.where(bad, -1, np.add.reduceat(runs, start))
