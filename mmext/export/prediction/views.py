# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Detects in slices of an image and in mirror images, and merges the results.

As SAHI (Akyon et al., 2022): slices overlap, the whole image is one more of
them, and of two boxes that are the same object the better one stays. A box at
the border of a slice is a part of the object, so overlap is measured relative
to the smaller box; between an image and its mirror image it is the IoU, as in
mmdet's test-time augmentation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from mmext.errors import UserError
from mmext.export.detections import Detections

#: Overlap above which two boxes are the same object.
SAME = 0.5


@dataclass(frozen=True)
class View:
    """A part of an image, which may be mirrored: x1, y1, x2, y2 in pixels."""

    window: tuple[int, int, int, int]
    mirrored: bool = False

    def pixels(self, image: np.ndarray) -> np.ndarray:
        """Returns the part of an image (H, W, 3)."""
        x1, y1, x2, y2 = self.window
        part = image[y1:y2, x1:x2]
        return np.ascontiguousarray(part[:, ::-1] if self.mirrored else part)

    def boxes(self, boxes: np.ndarray) -> np.ndarray:
        """Returns boxes of the part, in pixels of the image."""
        left, top, right, _ = self.window
        x1, y1, x2, y2 = boxes.T
        if self.mirrored:
            width = right - left
            x1, x2 = width - x2, width - x1
        corners = np.float32([left, top, left, top])
        return np.stack([x1, y1, x2, y2], 1) + corners

    def mask(self, mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Returns a mask of the part, as one of an image of ``size``."""
        x1, y1, x2, y2 = self.window
        whole = np.zeros(size, bool)
        whole[y1:y2, x1:x2] = mask[:, ::-1] if self.mirrored else mask
        return whole


def find_views(
    size: tuple[int, int],
    piece: tuple[int, int] | None = None,
    overlap: float = 0.2,
    mirror: bool = False,
) -> list[View]:
    """Returns the whole image, slices that cover it, and mirror images.

    Args:
        size: Height and width of the image.
        piece: Width and height of a slice. Default: no slices.
        overlap: The least share of a side that neighbours share, below 1.
            Default: 0.2.
        mirror: Whether each is mirrored too. Default: False.

    Raises:
        UserError: A number cannot be used.
    """
    height, width = size
    views = [View((0, 0, width, height))]
    if piece is not None:
        if min(piece) < 1 or not 0 <= overlap < 1:
            raise UserError(
                f'slices of {piece[0]}x{piece[1]} pixels with an overlap of '
                f'{overlap:g}',
                'Give a size of at least 1 and an overlap from 0 to below 1.',
            )
        columns, rows = (
            _ranges(whole, min(part, whole), overlap)
            for whole, part in zip((width, height), piece, strict=True)
        )
        slices = [
            View((x1, y1, x2, y2))
            for (y1, y2), (x1, x2) in product(rows, columns)
        ]
        views += slices if len(slices) > 1 else []
    if mirror:
        views += [replace(view, mirrored=True) for view in views]
    return views


def _ranges(whole: int, part: int, overlap: float) -> list[tuple[int, int]]:
    step = max(int(part * (1 - overlap)), 1)
    starts = [*range(0, whole - part, step), whole - part]
    return [(start, start + part) for start in starts]


def detect_in_views(
    detect: Callable[[list[np.ndarray]], list[Detections]],
    images: Sequence[np.ndarray],
    views: Sequence[Sequence[View]],
    score_thr: float = 0.0,
) -> list[Detections]:
    """Detects in the views of each image (H, W, 3), each object once."""
    pairs = list(zip(images, views, strict=True))
    parts = [view.pixels(image) for image, of in pairs for view in of]
    found = iter(detect(parts))
    return [
        merge([next(found) for _ in of], of, image.shape[:2], score_thr)
        for image, of in pairs
    ]


def merge(
    found: Sequence[Detections],
    views: Sequence[View],
    size: tuple[int, int],
    score_thr: float = 0.0,
) -> Detections:
    """Returns the detections of all views, each object once.

    Boxes of one view never replace each other: the detector has chosen
    between them.

    Args:
        found: The detections of each view.
        views: The views.
        size: Height and width of the image.
        score_thr: The lowest score of a detection. Default: 0.
    """
    boxes = np.concatenate(
        [
            view.boxes(part.boxes)
            for part, view in zip(found, views, strict=True)
        ]
    )
    scores = np.concatenate([part.scores for part in found])
    labels = np.concatenate([part.labels for part in found])
    view = np.repeat(np.arange(len(found)), [len(part) for part in found])
    row = np.concatenate([np.arange(len(part)) for part in found])
    # The window of a view and of its mirror image are one.
    windows = np.array([view.window for view in views])[view]
    left = scores >= score_thr
    chosen = []
    for i in np.argsort(-scores, kind='stable'):
        if left[i]:
            chosen.append(i)
            mirrored = (windows == windows[i]).all(1)
            left &= (
                (labels != labels[i])
                | (view == view[i])
                | (_overlap(boxes[i], boxes, mirrored) <= SAME)
            )
    masks = None
    if found[0].masks is not None:
        masks = np.zeros((len(chosen), *size), bool)
        for mask, i in zip(masks, chosen, strict=True):
            part = found[view[i]].masks[row[i]]
            mask[:] = views[view[i]].mask(part, size)
    return Detections(boxes[chosen], scores[chosen], labels[chosen], masks)


def _overlap(
    box: np.ndarray, boxes: np.ndarray, of_union: np.ndarray
) -> np.ndarray:
    """Returns IoU, or the share of the smaller box that is in common."""
    low = np.maximum(box[:2], boxes[:, :2])
    high = np.minimum(box[2:], boxes[:, 2:])
    common = np.maximum(high - low, 0).prod(1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1), (box[2:] - box[:2]).prod()
    least = np.where(of_union, sum(areas) - common, np.minimum(*areas))
    return common / np.maximum(least, 1e-9)
