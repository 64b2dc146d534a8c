# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Detects in slices of a large image, which are merged.

As SAHI (Akyon et al., 2022): slices overlap, the whole image is one more of
them, and of two boxes that are the same object the better one stays. A box at
the border of a slice is a part of the object, so overlap is measured relative
to the smaller box.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np

from mmext.errors import UserError
from mmext.export.detections import Detections

#: Share of the smaller box from which on two boxes are the same object.
SAME = 0.5
#: x1, y1, x2, y2 of a slice.
Window = tuple[int, int, int, int]


def windows(
    size: tuple[int, int], piece: tuple[int, int], overlap: float
) -> list[Window]:
    """Returns slices of one size that cover an image.

    Args:
        size: Width and height of the image.
        piece: Width and height of a slice.
        overlap: The least share of a side that neighbours share, below 1.

    Raises:
        UserError: A number cannot be used.
    """
    if min(piece) < 1 or not 0 <= overlap < 1:
        raise UserError(
            f'slices of {piece[0]}x{piece[1]} pixels with an overlap of '
            f'{overlap:g}',
            'Give a size of at least 1 and an overlap from 0 to below 1.',
        )
    starts = []
    for whole, part in zip(size, piece, strict=True):
        part = min(part, whole)
        step = max(int(part * (1 - overlap)), 1)
        last = whole - part
        starts.append([*range(0, last, step), last])
    width, height = (min(a, b) for a, b in zip(size, piece, strict=True))
    return [(x, y, x + width, y + height) for y, x in product(*starts[::-1])]


def detect_in_slices(
    detect: Callable[[list[np.ndarray]], list[Detections]],
    image: np.ndarray,
    piece: tuple[int, int],
    overlap: float,
) -> Detections:
    """Detects in an image (H, W, 3) and in its slices. There are no masks.

    If one slice covers the image, the result is that of the image, with its
    masks.
    """
    height, width = image.shape[:2]
    places = windows((width, height), piece, overlap)
    if len(places) == 1:
        return detect([image])[0]
    places.append((0, 0, width, height))
    parts = [
        np.ascontiguousarray(image[y1:y2, x1:x2]) for x1, y1, x2, y2 in places
    ]
    return merge(detect(parts), places)


def merge(found: Sequence[Detections], places: Sequence[Window]) -> Detections:
    """Returns the detections of all slices, each object once.

    Boxes of one slice never replace each other: the detector has chosen
    between them.
    """
    boxes = np.concatenate(
        [
            part.boxes + np.array([x, y, x, y], np.float32)
            for part, (x, y, _, _) in zip(found, places, strict=True)
        ]
    )
    scores = np.concatenate([part.scores for part in found])
    labels = np.concatenate([part.labels for part in found])
    source = np.repeat(np.arange(len(found)), [len(part) for part in found])
    order = np.argsort(-scores, kind='stable')
    boxes, labels, source = boxes[order], labels[order], source[order]
    left = np.ones(len(order), bool)
    for i in range(len(order)):
        if left[i]:
            rest = slice(i + 1, None)
            same = _share(boxes[i], boxes[rest]) > SAME
            same &= (labels[rest] == labels[i]) & (source[rest] != source[i])
            left[rest] &= ~same
    return Detections(boxes[left], scores[order][left], labels[left])


def _share(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Returns the share of the smaller box that a box has in common."""
    low = np.maximum(box[:2], boxes[:, :2])
    high = np.minimum(box[2:], boxes[:, 2:])
    common = np.maximum(high - low, 0).prod(1)
    areas = np.minimum(
        (boxes[:, 2:] - boxes[:, :2]).prod(1), (box[2:] - box[:2]).prod()
    )
    return common / np.maximum(areas, 1e-9)
