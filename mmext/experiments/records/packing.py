# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Matches of detections as a few small arrays, and back.

AP follows from the order of the detections, and not from their scores; the
rank of a detection among those of its class in its image follows from the
order too. Neither is stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mmext.errors import UserError
from mmext.evaluation.coco.matching import (
    AREAS,
    IOU_THRESHOLDS,
    MAX_DETS,
    ClassMatches,
    Matches,
)
from mmext.evaluation.image_results import require_fit, take

#: Numbers that the table of objects of a record may have in memory.
_MOST = 1 << 28


def pack(matches: Matches) -> dict[str, np.ndarray]:
    """Returns the arrays of matches.

    They are: ``detections`` (K,), the number of detections of each class;
    of all N detections, class by class, best score first, ``image`` (N,) and
    ``hit`` and ``ignored`` (A, N), as in `ClassMatches`; ``cell`` (M,), the
    places ``image * K + class`` that have objects, ascending, and
    ``objects`` (M, A), their numbers.
    """
    classes = matches.classes
    flat = matches.objects.reshape(-1, len(matches.areas))
    cell = np.flatnonzero(flat.any(1))
    return {
        'detections': np.array([len(c.image) for c in classes], np.int64),
        'image': np.concatenate([c.image for c in classes]),
        'hit': np.concatenate([c.hit for c in classes], 1),
        'ignored': np.concatenate([c.ignored for c in classes], 1),
        'cell': cell,
        'objects': flat[cell],
    }


def unpack(
    path: str | Path,
    names: Sequence[str],
    areas: Sequence[str],
    images: int,
    arrays: Mapping[str, np.ndarray],
    fix: str,
) -> Matches:
    """Returns the matches of `pack`; their scores are nan.

    Raises:
        UserError: The arrays of the file do not fit each other.
    """
    if not areas or areas[0] != 'all' or not {*areas} <= {*AREAS}:
        raise UserError(f'{path}: areas are {areas}', fix)
    count, sizes = len(names), len(areas)
    if images * count * sizes > _MOST:
        raise UserError(
            f'{path} was refused: {images} images with {count} classes would '
            'not fit into the memory',
            fix,
        )
    total = take(path, arrays, 'image', (None,), fix)
    number = take(path, arrays, 'detections', (count,), fix).astype(np.int64)
    hit, ignored = (
        take(path, arrays, key, (sizes, len(total)), fix)
        for key in ('hit', 'ignored')
    )
    cell = take(path, arrays, 'cell', (None,), fix).astype(np.int64)
    objects = take(path, arrays, 'objects', (len(cell), sizes), fix)
    for values, end in (
        (total, images),
        (number, len(total) + 1),
        (hit, 1 << len(IOU_THRESHOLDS)),
        (ignored, 1 << len(IOU_THRESHOLDS)),
        (cell, images * count),
        (objects, 1 << 31),
    ):
        inside = (values >= 0) & (values < end)
        require_fit(path, inside.all(), fix)
    require_fit(path, number.sum() == len(total), fix)
    require_fit(path, (np.diff(cell) > 0).all(), fix)
    table = np.zeros((images * count, sizes), np.int32)
    table[cell] = objects
    ends = np.cumsum(number)[:-1]
    parts = zip(
        np.split(total.astype(np.int32), ends),
        np.split(hit.astype(np.uint16), ends, 1),
        np.split(ignored.astype(np.uint16), ends, 1),
        strict=True,
    )
    classes = tuple(
        ClassMatches(i, np.full(len(i), np.nan), _rank(i), h, g)
        for i, h, g in parts
    )
    for found in classes:
        most = found.rank.max(initial=0)
        require_fit(path, most < MAX_DETS[-1], fix)
    table = table.reshape(images, count, sizes)
    return Matches(tuple(names), tuple(areas), table, classes)


def _rank(image: np.ndarray) -> np.ndarray:
    """How often the image of each detection occurred before it."""
    order = np.argsort(image, kind='stable')
    there = image[order]
    rank = np.empty(len(image), np.int16)
    rank[order] = np.arange(len(image)) - np.searchsorted(there, there)
    return rank
