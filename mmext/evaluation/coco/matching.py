# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Matches detections to objects by COCO's rules.

pycocotools goes through the detections of every image and class, best score
first, for each area range and IoU threshold. Here the first detections of all
images and classes take their objects at once, then the second ones, and so on,
in all ranges and at all thresholds. The matches are pycocotools' own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import hotcoco
import numpy as np
from pycocotools import mask as mask_utils

from mmext.datasets.masks import encode
from mmext.evaluation.coco.ground_truth import GroundTruth
from mmext.evaluation.coco.predictions import Predictions

#: COCO's IoU thresholds, recall thresholds, area ranges in square pixels and
#: limits on the detections of a class in an image.
IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALL_THRESHOLDS = np.linspace(0.0, 1.0, 101)
AREAS = {
    'all': (0.0, 1e10),
    'small': (0.0, 32.0**2),
    'medium': (32.0**2, 96.0**2),
    'large': (96.0**2, 1e10),
}
MAX_DETS = (1, 10, 100)

_ALL_BITS = (1 << len(IOU_THRESHOLDS)) - 1
_BITS = 1 << np.arange(len(IOU_THRESHOLDS))
_CHUNK = 50_000  # detections whose IoUs are computed at once
_COUNTS = 1 << 20  # more than the objects of an image


@dataclass(frozen=True)
class ClassMatches:
    """The detections of one class over all images, best score first.

    Ties keep the order of images, then of scores within an image, as
    pycocotools' stable sort does.
    """

    image: np.ndarray  # (N,) index of the image
    score: np.ndarray  # (N,) confidence
    rank: np.ndarray  # (N,) place in its image among those of its class
    # (A, N) bit t is set if it is a true positive at IoU threshold t:
    hit: np.ndarray
    # (A, N) bit t is set if it is not counted at IoU threshold t:
    ignored: np.ndarray


@dataclass(frozen=True)
class Matches:
    """The detections of one run, matched to the objects."""

    names: tuple[str, ...]  # K classes
    areas: tuple[str, ...]  # A labels of area ranges, the first is 'all'
    objects: np.ndarray  # (I, K, A) numbers of objects that count
    classes: tuple[ClassMatches, ...]

    @property
    def num_images(self) -> int:
        return len(self.objects)


def match(
    truth: GroundTruth,
    preds: Predictions,
    areas: tuple[str, ...] = tuple(AREAS),
) -> Matches:
    """Matches the detections of a run to the objects.

    ``areas`` are the labels of the area ranges to match in, ``'all'`` first.
    """
    num_images, num_classes = len(truth.image_ids), len(truth.names)
    image = np.searchsorted(truth.image_ids, preds.image_id)
    category = np.searchsorted(truth.category_ids, preds.category_id)
    order = _order(-preds.score, image, category)
    rank = _place_in_run((category * num_images + image)[order])
    best = rank < MAX_DETS[-1]
    rows, rank = order[best], rank[best]
    image, category = image[rows], category[rows]
    area = preds.area()[rows]
    objects = _Objects(truth)
    cell = category * num_images + image
    pairs = objects.overlaps(preds, rows, cell)
    hit, ignored = _assign(cell, *pairs, objects, areas)
    for a, name in enumerate(areas):
        low, high = AREAS[name]
        outside = (area < low) | (area > high)
        ignored[a, outside] |= _ALL_BITS & ~hit[a, outside]

    # Ties stay in the order of images, then of ranks.
    by_score = _order(-preds.score[rows], category)
    bounds = np.searchsorted(category, np.arange(1, num_classes))
    classes = tuple(
        ClassMatches(
            image=image[part].astype(np.int32),
            score=preds.score[rows[part]],
            rank=rank[part].astype(np.int16),
            hit=hit[:, part],
            ignored=ignored[:, part],
        )
        for part in np.split(by_score, bounds)
    )
    return Matches(truth.names, areas, objects.count(areas), classes)


def match_pairs(
    truth: GroundTruth, preds: Predictions
) -> list[tuple[int, int]]:
    """Returns (row of the detection, index of its object) at IoU 0.5."""
    if not len(preds):
        return []
    evaluator = make_evaluator(truth, preds, areas=('all',))
    evaluator.evaluate()
    return [
        (row - 1, annotation - 1)
        for cell in evaluator.eval_imgs
        if cell is not None and cell['dtIds']
        for row, annotation in zip(
            cell['dtIds'], cell['dtMatches'][0], strict=True
        )
        if annotation
    ]


def make_evaluator(
    truth: GroundTruth,
    preds: Predictions,
    areas: tuple[str, ...] = tuple(AREAS),
) -> hotcoco.COCOeval:
    """Returns hotcoco's evaluator, which has not run yet.

    Detections are numbered from 1 in the order of rows, annotations from 1 in
    the order of the file.
    """
    coco = hotcoco.COCO(truth.numbered(preds.iou_type))
    image = np.searchsorted(truth.image_ids, preds.image_id)
    category = np.searchsorted(truth.category_ids, preds.category_id)
    if preds.mask is None:
        records = np.column_stack(
            [image, preds.box, preds.score, category]
        ).astype(np.float64)
    else:
        renamed = replace(preds, image_id=image, category_id=category)
        records = renamed.records()
    evaluator = hotcoco.COCOeval(coco, coco.load_res(records), preds.iou_type)
    evaluator.params.area_rng = [list(AREAS[name]) for name in areas]
    evaluator.params.area_rng_lbl = list(areas)
    return evaluator


def _order(values: np.ndarray, *keys: np.ndarray) -> np.ndarray:
    """Sorts by whole numbers from 0, the last first, then by values.

    Equal ones keep their order. `numpy.lexsort` does the same without the
    radix sort, which NumPy has for numbers of up to 16 bits.
    """
    order = np.argsort(values, kind='stable')
    for key in keys:
        small = key.astype(np.min_scalar_type(key.max(initial=0)))
        order = order[np.argsort(small[order], kind='stable')]
    return order


def _place_in_run(key: np.ndarray) -> np.ndarray:
    """0, 1, 2, ... within each stretch of equal keys, which are sorted."""
    return np.arange(len(key)) - np.searchsorted(key, key)


class _Objects:
    """The annotations as arrays, sorted by class and image (the cell)."""

    def __init__(self, truth: GroundTruth) -> None:
        anns = truth.dataset['annotations']
        image = np.searchsorted(truth.image_ids, [a['image_id'] for a in anns])
        category = np.searchsorted(
            truth.category_ids, [a['category_id'] for a in anns]
        )
        self.truth = truth
        self.shape = (len(truth.names), len(truth.image_ids))
        cell = category * self.shape[1] + image
        self.order = np.argsort(cell, kind='stable')
        self.cell = cell[self.order]
        area = np.array([a['area'] for a in anns], float)
        crowd = np.array([bool(a.get('iscrowd')) for a in anns], bool)
        self.area, self.crowd = area[self.order], crowd[self.order]

    def counted(self, areas: tuple[str, ...]) -> np.ndarray:
        """(M, A) whether an object counts: no crowd, in the area range."""
        low, high = np.array([AREAS[name] for name in areas]).T
        area = self.area[:, None]
        return ~self.crowd[:, None] & (area >= low) & (area <= high)

    def count(self, areas: tuple[str, ...]) -> np.ndarray:
        """(I, K, A) objects that count."""
        counted = self.counted(areas)
        objects = [
            np.bincount(self.cell[ok], minlength=np.prod(self.shape))
            for ok in counted.T
        ]
        objects = np.reshape(objects, (len(areas), *self.shape))
        return objects.T.astype(np.int32)

    def overlaps(
        self, preds: Predictions, rows: np.ndarray, cell: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns pairs with an IoU of at least 0.5, sorted by detection.

        Args:
            preds: The detections.
            rows: (N,) rows of ``preds``.
            cell: (N,) their cells, sorted.

        Returns:
            Places in ``rows``, indices of objects, and IoUs. Pairs of a
            detection are sorted by IoU, equal ones as in the file.
        """
        first = np.searchsorted(self.cell, cell, 'left')
        count = np.searchsorted(self.cell, cell, 'right') - first
        iou_of = self._of_boxes if preds.mask is None else self._of_masks
        least = min(IOU_THRESHOLDS[0], 1 - 1e-10)
        parts = []
        for start in range(0, len(rows), _CHUNK):
            part = np.arange(start, min(start + _CHUNK, len(rows)))
            det = np.repeat(part, count[part])
            obj = np.repeat(first[part], count[part])
            obj += _place_in_run(det)
            iou = iou_of(preds, rows[det], obj)
            near = iou >= least
            parts.append((det[near], obj[near], iou[near]))
        empty = np.zeros(0, int), np.zeros(0, int), np.zeros(0)
        det, obj, iou = map(np.concatenate, zip(empty, *parts, strict=True))
        order = np.lexsort((obj, iou, det))
        return det[order], obj[order], iou[order]

    def _of_boxes(
        self, preds: Predictions, rows: np.ndarray, obj: np.ndarray
    ) -> np.ndarray:
        """Computes IoUs in the order of operations of pycocotools' C code."""
        a, b = preds.box[rows], self._boxes[obj]
        high = np.minimum(a[:, :2] + a[:, 2:], b[:, :2] + b[:, 2:])
        side = (high - np.maximum(a[:, :2], b[:, :2])).clip(min=0)
        inter = side[:, 0] * side[:, 1]
        area, other = a[:, 2] * a[:, 3], b[:, 2] * b[:, 3]
        union = np.where(self.crowd[obj], area, area + other - inter)
        # An empty box on an empty object matches nothing.
        return np.divide(inter, union, np.zeros_like(inter), where=union > 0)

    def _of_masks(
        self, preds: Predictions, rows: np.ndarray, obj: np.ndarray
    ) -> np.ndarray:
        found = [np.zeros(0)]
        ends = np.diff(self.cell[obj]).nonzero()[0] + 1
        for pairs in np.split(np.arange(len(obj)), ends):
            if not len(pairs):
                continue
            ours = np.unique(obj[pairs])
            found.append(
                mask_utils.iou(
                    [preds.mask[r] for r in rows[pairs[:: len(ours)]]],
                    [self._masks[i] for i in self.order[ours]],
                    self.crowd[ours].astype(np.uint8),
                ).ravel()
            )
        return np.concatenate(found)

    @cached_property
    def _boxes(self) -> np.ndarray:
        """(M, 4) x, y, width, height, sorted as the objects are."""
        boxes = [a['bbox'] for a in self.truth.dataset['annotations']]
        return np.array(boxes, float).reshape(-1, 4)[self.order]

    @cached_property
    def _masks(self) -> list[dict]:
        """The run-length encodings of the objects, as in the file."""
        anns = self.truth.dataset['annotations']
        return [
            encode(mask, self.truth.sizes.get(ann['image_id']))
            for ann, mask in zip(anns, self.truth.masks, strict=True)
        ]


def _assign(
    cell: np.ndarray,
    det: np.ndarray,
    obj: np.ndarray,
    iou: np.ndarray,
    objects: _Objects,
    areas: tuple[str, ...],
) -> tuple[np.ndarray, np.ndarray]:
    """Gives each detection the best object that is left.

    Args:
        cell: (N,) the image and class of each detection, sorted.
        det, obj, iou: (P,) pairs; see :meth:`_Objects.overlaps`.
        objects: The objects.
        areas: The area ranges.

    Returns:
        (A, N) bits of thresholds at which a detection has an object that
        counts, and one that does not.
    """
    hit = np.zeros((len(areas), len(cell)), np.uint16)
    ignored = np.zeros_like(hit)
    counted = objects.counted(areas)
    taken = np.zeros((*counted.shape, len(IOU_THRESHOLDS)), bool)
    thresholds = np.minimum(IOU_THRESHOLDS, 1 - 1e-10)
    # An object that counts comes before any other, a higher IoU before a
    # lower one, and of equal ones the last.
    value = 1 + _place_in_run(det)[:, None] + _COUNTS * counted[obj]
    dets, place = np.unique(det, return_inverse=True)
    turn = _place_in_run(cell[dets])[place]
    by_turn = np.argsort(turn, kind='stable')
    bounds = np.searchsorted(
        turn[by_turn], np.arange(1, turn.max(initial=0) + 1)
    )
    for pairs in np.split(by_turn, bounds):
        if not len(pairs):
            continue
        mine, start = np.unique(det[pairs], return_index=True)
        own = obj[pairs]
        free = iou[pairs, None, None] >= thresholds
        free = free & (~taken[own] | objects.crowd[own, None, None])
        best = np.where(free, value[pairs, :, None], 0)
        best = np.maximum.reduceat(best, start)
        counts = best >= _COUNTS
        hit[:, mine] = (counts @ _BITS).T
        ignored[:, mine] = (((best > 0) & ~counts) @ _BITS).T
        d, a, t = best.nonzero()
        chosen = own[start[d] + best[d, a, t] % _COUNTS - 1]
        taken[chosen, a, t] = True
    return hit, ignored
