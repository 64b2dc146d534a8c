# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Checks whether boxes and categories of predictions mean what COCO's do.

Detections of a useful detector cover objects. If they do so only when their
numbers are read in another order, they are of another format, and AP would be
wrong without an error.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment

from mmext.errors import UserError
from mmext.evaluation.coco.ground_truth import GroundTruth
from mmext.utils.text import some

#: Images that are looked at, and detections of each, the first of the file.
IMAGES, DETECTIONS = 300, 100
#: Objects that the detections must cover in another order of the numbers.
COVERED = 0.3
#: Detections on objects from which categories are checked.
PAIRS = 10
#: Other meanings of four numbers -> conversion to x, y, width, height.
FORMATS: dict[str, Callable[..., tuple]] = {
    '[x1, y1, x2, y2]': lambda a, b, c, d: (a, b, c - a, d - b),
    '[centre x, centre y, width, height]': lambda a, b, c, d: (
        a - c / 2,
        b - d / 2,
        c,
        d,
    ),
    '[y1, x1, y2, x2]': lambda a, b, c, d: (b, a, d - b, c - a),
    '[y, x, height, width]': lambda a, b, c, d: (b, a, d, c),
}
REWRITE = 'Write [x, y, width, height] in pixels of the original image.'


def check_boxes(
    path: Path, image_id: np.ndarray, box: np.ndarray, truth: GroundTruth
) -> list[str]:
    """Checks that (N, 4) boxes are x, y, width, height in pixels.

    Returns:
        A warning if only the edges of the images suggest another format.

    Raises:
        UserError: The boxes cover objects only in another format.
    """
    anns = truth.dataset['annotations']
    objects = np.array([a['bbox'] for a in anns], float).reshape(-1, 4)
    small = np.mean(abs(box) <= 1.5)
    if len(objects) and small > 0.95 and np.median(objects[:, 2:]) > 3:
        raise UserError(
            f'{path}: {100 * small:.0f} % of the numbers of boxes are at most '
            f'1.5 (the first box is {box[0].tolist()}): fractions of the '
            'image, not pixels',
            REWRITE,
        )
    covered = {
        name: _covered(image_id, _convert(box, convert), truth)
        for name, convert in {'': lambda *x: x, **FORMATS}.items()
    }
    best = max(covered, key=lambda name: covered[name].sum())
    count, ours = covered[best].sum(), covered[''].sum()
    if best and count >= max(3, COVERED * len(covered[best]), 2 * ours + 1):
        raise UserError(
            f'{path}: boxes seem to be {best}: read in that order, they '
            f'cover {count} of {len(covered[best])} objects (IoU 0.5 or '
            f"more), and in COCO's order {ours}",
            REWRITE,
        )
    return _check_edges(path, image_id, box, truth)


def check_categories(
    path: Path,
    image_id: np.ndarray,
    box: np.ndarray,
    truth: GroundTruth,
    category_id: np.ndarray,
) -> list[str]:
    """Returns a warning if most detections are on objects of another class.

    That is so if detections of several categories are mostly on objects of one
    other category each, as if categories were numbered differently.
    """
    rows = _covered(image_id, box, truth, category_id)
    rows = rows[rows[:, 0] >= 0]
    pairs = len(rows)
    if pairs < PAIRS or np.mean(rows[:, 0] == rows[:, 1]) >= 0.25:
        return []
    found, index = np.unique(rows, return_inverse=True)
    counts = np.zeros((len(found), len(found)), int)
    np.add.at(counts, tuple(index.reshape(rows.shape).T), 1)
    pairing = linear_sum_assignment(counts, maximize=True)
    number = counts[pairing]
    # A detector that only knows one class is on objects of others, too.
    if number.sum() < 0.6 * pairs or np.sort(number)[-2] < 0.1 * pairs:
        return []
    names = truth.all_names
    words = [
        f'{names[c]} ({c:.0f}) on {names[o]} ({o:.0f})'
        for c, o, n in zip(*found[np.array(pairing)], number, strict=True)
        if c != o and n
    ]
    return [
        f'{path}: categories seem to be numbered differently from '
        f'{truth.path}: detections are mostly of {some(words, 3)}. Give the '
        'names in the order of the numbers: --categories 0:data.yaml.'
    ]


def _check_edges(
    path: Path, image_id: np.ndarray, box: np.ndarray, truth: GroundTruth
) -> list[str]:
    ids, place = np.unique(image_id, return_inverse=True)
    sizes = [truth.sizes.get(int(i), (np.nan, np.nan)) for i in ids]
    height, width = np.array(sizes)[place].T
    limit = np.stack([width, height], 1)

    def beyond(boxes: np.ndarray) -> float:
        """Share of boxes that leave their image by 5 % of its side."""
        low = boxes[:, :2] < -0.05 * limit
        high = boxes[:, :2] + boxes[:, 2:] > 1.05 * limit
        bad = (low | high).any(1) | (boxes[:, 2:] < 0).any(1)
        return float(bad[~np.isnan(width)].mean())

    if np.isnan(width).all() or beyond(box) < 0.2:
        return []
    inside = [
        name
        for name, convert in FORMATS.items()
        if beyond(_convert(box, convert)) <= 0.01
    ]
    if not inside:
        return []
    return [
        f'{path}: {100 * beyond(box):.0f} % of the boxes reach beyond their '
        f'image, and none does if they are {" or ".join(inside)}. Are they? '
        f'{REWRITE}'
    ]


def _convert(box: np.ndarray, convert: Callable[..., tuple]) -> np.ndarray:
    return np.stack(convert(*box.T), 1)


def _covered(
    image_id: np.ndarray,
    box: np.ndarray,
    truth: GroundTruth,
    category_id: np.ndarray | None = None,
) -> np.ndarray:
    """(M,) whether a detection covers an object, at IoU 0.5 or more.

    With ``category_id`` (M, 2): the categories of the detection that covers
    it best, -1 if none does, and of the object.
    """
    anns: dict[int, list[dict]] = {}
    for ann in truth.dataset['annotations']:
        if not ann.get('iscrowd'):
            anns.setdefault(ann['image_id'], []).append(ann)
    order = np.argsort(image_id, kind='stable')
    found = []
    for image in list(anns)[:IMAGES]:
        first = np.searchsorted(image_id, image, 'left', order)
        stop = np.searchsorted(image_id, image, 'right', order)
        rows = order[first : min(stop, first + DETECTIONS)]
        objects = np.array([a['bbox'] for a in anns[image]], float)
        iou = _iou(objects, box[rows])
        best = iou.max(1, initial=0.0)
        if category_id is None:
            found.append(best >= 0.5)
            continue
        theirs = np.full(len(objects), -1.0)
        if len(rows):
            theirs = np.where(
                best >= 0.5, category_id[rows[iou.argmax(1)]], -1.0
            )
        ours = [a['category_id'] for a in anns[image]]
        found.append(np.stack([theirs, ours], 1))
    width = (0,) if category_id is None else (0, 2)
    return np.concatenate([np.zeros(width, bool), *found])


def _iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(N, M) IoU of boxes as x, y, width, height; 0 for a negative size."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(
        (a[:, :2] + a[:, 2:])[:, None], (b[:, :2] + b[:, 2:])[None]
    )
    inter = np.prod(np.maximum(high - low, 0), axis=2)
    good = (b[:, 2:] > 0).all(1)
    area = a[:, 2:].prod(1)[:, None] + b[:, 2:].prod(1)[None]
    with np.errstate(divide='ignore', invalid='ignore'):
        return np.where(good[None], inter / (area - inter), 0.0)
