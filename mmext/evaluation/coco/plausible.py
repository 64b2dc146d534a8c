# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Checks whether boxes and categories of predictions mean what COCO's do.

Detections of a useful detector cover objects. If they do so only when their
numbers are read in another order, they are of another format, and AP would be
wrong without an error.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
from pycocotools import mask as mask_utils
from scipy.optimize import linear_sum_assignment

from mmext.errors import UserError
from mmext.evaluation.coco.ground_truth import GroundTruth
from mmext.utils.text import some

#: Images that are looked at, and detections of each, the first of the file.
IMAGES, DETECTIONS = 300, 100
#: Objects that the detections must cover in another order of the numbers.
COVERED = 0.3
#: Share of the objects that any detector covers, or of its detections on them.
MISSED = 0.1
#: Detections on objects from which categories are checked.
PAIRS = 10
#: Other meanings of four numbers -> conversion to x, y, width, height.
FORMATS: dict[str, Callable[..., tuple]] = {
    '[x1, y1, x2, y2]': lambda a, b, c, d: (a, b, c - a, d - b),
    '[centre x, centre y, width, height]': (
        lambda a, b, c, d: (a - c / 2, b - d / 2, c, d)
    ),
    '[y1, x1, y2, x2]': lambda a, b, c, d: (b, a, d - b, c - a),
    '[y, x, height, width]': lambda a, b, c, d: (b, a, d, c),
}
#: Rows of the detections of an image, and its objects.
Sample = list[tuple[np.ndarray, list[dict]]]
REWRITE = 'Write [x, y, width, height] in pixels of the original image.'


def require_coco_boxes(
    path: Path, truth: GroundTruth, image_id: np.ndarray, box: np.ndarray
) -> None:
    """Raises `UserError` if N boxes are of another format than COCO's.

    They are fractions of the image, or cover objects only in another format.
    """
    sides = np.array([a['bbox'][2:] for a in truth.dataset['annotations']])
    small = np.mean(abs(box) <= 1.5)
    if len(sides) and small > 0.95 and np.median(sides) > 3:
        raise UserError(
            f'{path}: {100 * small:.0f} % of the numbers of boxes are at most '
            f'1.5 (the first box is {box[0].tolist()}): fractions of the '
            'image, not pixels',
            REWRITE,
        )
    sample = _sample(truth, image_id)
    row = _covering(box, sample)
    objects, ours = len(row), int((row >= 0).sum())
    covered = {
        name: int((_covering(_convert(box, convert), sample) >= 0).sum())
        for name, convert in FORMATS.items()
    }
    best = max(covered, key=covered.get)
    if covered[best] >= max(3, COVERED * objects, 2 * ours + 1):
        raise UserError(
            f'{path}: boxes seem to be {best}: read in that order, they '
            f'cover {covered[best]} of {objects} objects (IoU 0.5 or '
            f"more), and in COCO's order {ours}",
            REWRITE,
        )


def check_plausible(
    path: Path,
    truth: GroundTruth,
    image_id: np.ndarray,
    box: np.ndarray,
    category_id: np.ndarray,
) -> list[str]:
    """Returns warnings about N detections, given by (N, 4) boxes."""
    sample = _sample(truth, image_id)
    row = _covering(box, sample)
    objects, ours = len(row), int((row >= 0).sum())
    theirs = np.array([a['category_id'] for _, anns in sample for a in anns])
    pairs = np.stack([category_id[row], theirs], 1)[row >= 0]
    found = [
        *_check_edges(path, truth, image_id, box),
        *_check_categories(path, truth, pairs),
    ]
    least = min(objects, sum(len(rows) for rows, _ in sample))
    if least >= PAIRS and ours < MISSED * least and not found:
        found.append(
            f'{path}: detections cover {ours} of {objects} objects (IoU 0.5 '
            'or more). If the detector is better than that, image ids mean '
            'other images, or boxes are not in pixels of the original images.'
        )
    return found


def _check_categories(
    path: Path, truth: GroundTruth, pairs: np.ndarray
) -> list[str]:
    """Checks (P, 2) categories of detections and of the objects they cover.

    They seem to be numbered differently if detections of several categories
    are mostly on objects of one other category each.
    """
    if len(pairs) < PAIRS or np.mean(pairs[:, 0] == pairs[:, 1]) >= 0.25:
        return []
    ids, index = np.unique(pairs, return_inverse=True)
    counts = np.zeros((len(ids), len(ids)), int)
    np.add.at(counts, tuple(index.reshape(pairs.shape).T), 1)
    pairing = linear_sum_assignment(counts, maximize=True)
    number = counts[pairing]
    # A detector that only knows one class is on objects of others, too.
    if number.sum() < 0.6 * len(pairs) or np.sort(number)[-2] < 0.1 * len(
        pairs
    ):
        return []
    names = truth.all_names
    words = [
        f'{names[c]} ({c:.0f}) on {names[o]} ({o:.0f})'
        for c, o, n in zip(*ids[np.array(pairing)], number, strict=True)
        if c != o and n
    ]
    return [
        f'{path}: categories seem to be numbered differently from '
        f'{truth.path}: detections are mostly of {some(words, 3)}. Give the '
        'names in the order of the numbers: --categories 0:data.yaml.'
    ]


def _check_edges(
    path: Path, truth: GroundTruth, image_id: np.ndarray, box: np.ndarray
) -> list[str]:
    ids, place = np.unique(image_id, return_inverse=True)
    sizes = [truth.sizes.get(int(i), (np.nan, np.nan)) for i in ids]
    height, width = np.array(sizes).T[:, place]
    known = ~np.isnan(width)

    def beyond(
        x: np.ndarray, y: np.ndarray, w: np.ndarray, h: np.ndarray
    ) -> float:
        """Share of boxes that leave their image by 5 % of its side."""
        bad = (w < 0) | (x < -0.05 * width) | (x + w > 1.05 * width)
        bad |= (h < 0) | (y < -0.05 * height) | (y + h > 1.05 * height)
        return float(bad[known].mean())

    columns = np.ascontiguousarray(box.T)
    if not known.any() or (share := beyond(*columns)) < 0.2:
        return []
    inside = [
        name
        for name, convert in FORMATS.items()
        if beyond(*convert(*columns)) <= 0.01
    ]
    if not inside:
        return []
    return [
        f'{path}: {100 * share:.0f} % of the boxes reach beyond their '
        f'image, and none does if they are {" or ".join(inside)}. Are they? '
        f'{REWRITE}'
    ]


def _convert(box: np.ndarray, convert: Callable[..., tuple]) -> np.ndarray:
    return np.stack(convert(*box.T), 1)


def _sample(truth: GroundTruth, image_id: np.ndarray) -> Sample:
    """The first detections of the first images with objects."""
    anns = defaultdict(list)
    for ann in truth.dataset['annotations']:
        if not ann.get('iscrowd'):
            anns[ann['image_id']].append(ann)
    order = np.argsort(image_id, kind='stable')
    found = []
    for image in [*anns][:IMAGES]:
        first = np.searchsorted(image_id, image, 'left', order)
        stop = np.searchsorted(image_id, image, 'right', order)
        found.append((order[first:stop][:DETECTIONS], anns[image]))
    return found


def _covering(box: np.ndarray, sample: Sample) -> np.ndarray:
    """(M,) row of the box that covers each object at IoU 0.5, or -1."""
    found = [np.zeros(0, int)]
    for rows, anns in sample:
        if not len(rows):
            found.append(np.full(len(anns), -1))
            continue
        objects = np.array([a['bbox'] for a in anns], float)
        boxes = np.ascontiguousarray(box[rows])
        iou = mask_utils.iou(boxes, objects, [0] * len(anns))
        best = rows[iou.argmax(0)]
        found.append(np.where(iou.max(0) >= 0.5, best, -1))
    return np.concatenate(found)
