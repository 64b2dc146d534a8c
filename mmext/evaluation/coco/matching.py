# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Matches detections to ground truth with hotcoco, COCO's rules unchanged.

hotcoco computes IoUs and the greedy assignment for every image and class that
has objects. Where a class has no object on an image, each of its detections
is a false positive (or out of the area range), which needs no matching.
Images go through in pieces, so memory does not grow with the data set.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import hotcoco
import numpy as np

from mmext.evaluation.coco.ground_truth import GroundTruth
from mmext.evaluation.coco.matches import (
    AREAS,
    IOU_THRESHOLDS,
    MAX_DETS,
    ClassMatches,
    Matches,
)
from mmext.evaluation.coco.predictions import Predictions

_PIECE = 500  # images
_ALL_BITS = (1 << len(IOU_THRESHOLDS)) - 1
_BITS = 1 << np.arange(len(IOU_THRESHOLDS))


def match(
    truth: GroundTruth,
    preds: Predictions,
    areas: tuple[str, ...] = tuple(AREAS),
) -> Matches:
    """Matches a run's detections to the ground truth.

    Args:
        truth: Ground truth.
        preds: Detections on it.
        areas: Labels of the area ranges wanted, ``'all'`` first. Default:
            COCO's four.
    """
    rows = _best_of_each_cell(preds)
    image = np.searchsorted(truth.image_ids, preds.image_id[rows])
    category = np.searchsorted(truth.category_ids, preds.category_id[rows])
    order = np.lexsort((rows, -preds.score[rows], image, category))
    rows, image, category = rows[order], image[order], category[order]
    rank = _place_in_run(category * len(truth.image_ids) + image)
    area = preds.area()[rows]
    hit = np.zeros((len(areas), len(rows)), np.uint16)
    ignored = np.zeros_like(hit)
    for a, name in enumerate(areas):
        low, high = AREAS[name]
        ignored[a, (area < low) | (area > high)] = _ALL_BITS

    anns = _Annotations(truth)
    at = np.full(len(preds), -1)
    at[rows] = np.arange(len(rows))
    may_match = rows[anns.may_match(preds, rows, image, category)]
    for a, their_rows, their_hit, their_ignored in _hotcoco(
        truth, preds, np.sort(may_match), areas
    ):
        hit[a, at[their_rows]] = their_hit
        ignored[a, at[their_rows]] = their_ignored

    classes = []
    bounds = np.searchsorted(category, np.arange(len(truth.names) + 1))
    score = preds.score[rows]
    for start, stop in zip(bounds[:-1], bounds[1:], strict=True):
        part = np.arange(start, stop)
        by_score = part[np.lexsort((rank[part], image[part], -score[part]))]
        classes.append(
            ClassMatches(
                image=image[by_score].astype(np.int32),
                score=score[by_score],
                rank=rank[by_score].astype(np.int16),
                hit=hit[:, by_score],
                ignored=ignored[:, by_score],
                row=rows[by_score],
            )
        )
    return Matches(
        image_ids=truth.image_ids,
        category_ids=truth.category_ids,
        names=truth.names,
        areas=areas,
        objects=anns.count(areas),
        classes=tuple(classes),
        iou_type=preds.iou_type,
    )


def _best_of_each_cell(preds: Predictions) -> np.ndarray:
    """Rows of the 100 best detections of every image and class."""
    order = np.lexsort((-preds.score, preds.category_id, preds.image_id))
    both = np.stack([preds.image_id[order], preds.category_id[order]])
    new = np.any(np.diff(both, axis=1, prepend=-1) != 0, axis=0)
    place = _place_in_run(np.cumsum(new))
    return np.sort(order[place < MAX_DETS[-1]])


def _place_in_run(key: np.ndarray) -> np.ndarray:
    """0, 1, 2... within each stretch of equal keys."""
    index = np.arange(len(key))
    if not len(key):
        return index
    new = np.concatenate([[True], key[1:] != key[:-1]])
    return index - np.maximum.accumulate(np.where(new, index, 0))


class _Annotations:
    """The ground truth as arrays, sorted by image and class."""

    def __init__(self, truth: GroundTruth) -> None:
        anns = truth.dataset['annotations']
        image = np.searchsorted(truth.image_ids, [a['image_id'] for a in anns])
        category = np.searchsorted(
            truth.category_ids, [a['category_id'] for a in anns]
        )
        self.shape = (len(truth.image_ids), len(truth.names))
        cell = image * self.shape[1] + category
        order = np.argsort(cell, kind='stable')
        self.cell = cell[order]
        area = np.array([a['area'] for a in anns], float)
        crowd = np.array([bool(a.get('iscrowd')) for a in anns], bool)
        box = np.array([a['bbox'] for a in anns], float).reshape(-1, 4)
        self.area, self.crowd, self.box = area[order], crowd[order], box[order]

    def count(self, areas: tuple[str, ...]) -> np.ndarray:
        """(I, K, A) objects that count: not crowd, of that area."""
        objects = np.zeros((self.shape[0] * self.shape[1], len(areas)), int)
        for a, name in enumerate(areas):
            low, high = AREAS[name]
            ok = ~self.crowd & (self.area >= low) & (self.area <= high)
            np.add.at(objects[:, a], self.cell[ok], 1)
        return objects.reshape(*self.shape, len(areas)).astype(np.int32)

    def may_match(
        self,
        preds: Predictions,
        rows: np.ndarray,
        image: np.ndarray,
        category: np.ndarray,
    ) -> np.ndarray:
        """Which detections could match an object of their image and class.

        A box under the lowest IoU threshold with all of them never matches
        and keeps no other from matching. For masks, every detection with an
        object of its class on its image.
        """
        cell = image * self.shape[1] + category
        first = np.searchsorted(self.cell, cell, 'left')
        count = np.searchsorted(self.cell, cell, 'right') - first
        if preds.mask is not None:
            return count > 0
        result = np.zeros(len(rows), bool)
        for start in range(0, len(rows), 50_000):
            part = np.arange(start, min(start + 50_000, len(rows)))
            det = np.repeat(part, count[part])
            obj = np.repeat(first[part], count[part])
            obj += _place_in_run(det)
            a, b = preds.box[rows[det]], self.box[obj]
            low = np.maximum(a[:, :2], b[:, :2])
            high = np.minimum(a[:, :2] + a[:, 2:], b[:, :2] + b[:, 2:])
            inter = np.prod(np.maximum(high - low, 0), axis=1)
            union = np.prod(a[:, 2:], axis=1)
            other = np.prod(b[:, 2:], axis=1) - inter
            union += np.where(self.crowd[obj], 0, other)
            near = inter >= 0.999 * IOU_THRESHOLDS[0] * union
            result[det[near]] = True
        return result


def _hotcoco(
    truth: GroundTruth,
    preds: Predictions,
    rows: np.ndarray,
    areas: tuple[str, ...],
) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
    """Yields (area, rows, hit bits, ignored bits) cell by cell."""
    numbered = truth.numbered(preds.iou_type)
    anns = defaultdict(list)
    for ann in numbered['annotations']:
        anns[ann['image_id']].append(ann)
    image = np.searchsorted(truth.image_ids, preds.image_id[rows])
    ranges = {tuple(AREAS[name]): a for a, name in enumerate(areas)}
    for start in range(0, len(truth.image_ids), _PIECE):
        stop = start + _PIECE
        here = rows[(image >= start) & (image < stop)]
        if not len(here):
            continue
        images = numbered['images'][start:stop]
        coco = hotcoco.COCO(
            {
                'images': images,
                'annotations': [a for r in images for a in anns[r['id']]],
                'categories': numbered['categories'],
            }
        )
        evaluator = hotcoco.COCOeval(
            coco, load_detections(coco, truth, preds, here), preds.iou_type
        )
        evaluator.params.area_rng = [list(AREAS[name]) for name in areas]
        evaluator.params.area_rng_lbl = list(areas)
        evaluator.evaluate()
        for cell in evaluator.eval_imgs:
            if cell is None or not cell['dtIds']:
                continue
            yield (
                ranges[tuple(cell['aRng'])],
                here[np.array(cell['dtIds']) - 1],
                _BITS @ np.array(cell['dtMatched'], np.int64)
                & ~(_BITS @ np.array(cell['dtIgnore'], np.int64)),
                _BITS @ np.array(cell['dtIgnore'], np.int64),
            )


def load_detections(
    coco: hotcoco.COCO,
    truth: GroundTruth,
    preds: Predictions,
    rows: np.ndarray,
) -> hotcoco.COCO:
    """Detections, numbered from 1 in the order of rows.

    Args:
        coco: Made of ``truth.numbered``.
        truth: Ground truth.
        preds: Detections on it.
        rows: Those wanted.
    """
    image = np.searchsorted(truth.image_ids, preds.image_id[rows])
    category = np.searchsorted(truth.category_ids, preds.category_id[rows])
    if preds.mask is not None:
        return coco.load_res(
            [
                {
                    'image_id': int(i),
                    'category_id': int(c),
                    'score': float(preds.score[r]),
                    'segmentation': preds.mask[r],
                }
                for r, i, c in zip(rows, image, category, strict=True)
            ]
        )
    table = np.column_stack(
        [image, preds.box[rows], preds.score[rows], category]
    )
    return coco.load_res(table.astype(np.float64))
