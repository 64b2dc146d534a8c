# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Matches detections to objects with hotcoco, by COCO's rules.

hotcoco computes IoUs and the greedy assignment for every image and class that
has objects. If a class has no object on an image, each of its detections is a
false positive (or outside the area range), which needs no matching. Images
are matched in groups of 500, so that memory does not grow with the data set.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace

import hotcoco
import numpy as np

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

_GROUP = 500  # images
_ALL_BITS = (1 << len(IOU_THRESHOLDS)) - 1
_BITS = 1 << np.arange(len(IOU_THRESHOLDS))


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
    order = np.lexsort((-preds.score, image, category))
    rank = _place_in_run((category * num_images + image)[order])
    best = rank < MAX_DETS[-1]
    rows, rank = order[best], rank[best]
    image, category = image[rows], category[rows]
    area = preds.area()[rows]
    hit = np.zeros((len(areas), len(rows)), np.uint16)
    ignored = np.zeros_like(hit)
    for a, name in enumerate(areas):
        low, high = AREAS[name]
        ignored[a, (area < low) | (area > high)] = _ALL_BITS

    objects = _Objects(truth)
    place = np.full(len(preds), -1)
    place[rows] = np.arange(len(rows))
    may_match = rows[objects.may_match(preds, rows, image, category)]
    for a, cell_rows, cell_hit, cell_ignored in _hotcoco(
        truth, preds, np.sort(may_match), areas
    ):
        hit[a, place[cell_rows]] = cell_hit
        ignored[a, place[cell_rows]] = cell_ignored

    by_score = np.lexsort((rank, image, -preds.score[rows], category))
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
    dataset: dict | None = None,
) -> hotcoco.COCOeval:
    """Returns hotcoco's evaluator, which has not run yet.

    Detections are numbered from 1 in the order of rows, annotations from 1 in
    the order of the file. ``dataset`` is a part of `GroundTruth.numbered`.
    """
    coco = hotcoco.COCO(dataset or truth.numbered(preds.iou_type))
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


def _place_in_run(key: np.ndarray) -> np.ndarray:
    """0, 1, 2, ... within each stretch of equal keys, which are sorted."""
    return np.arange(len(key)) - np.searchsorted(key, key)


class _Objects:
    """The annotations as arrays, sorted by image and class."""

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
        """(I, K, A) objects that count: not crowds, in the area range."""
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
        """Whether each detection could match an object of its class.

        A box whose IoU with every object is below the lowest threshold never
        matches and does not keep another box from matching. Masks could match
        any object of their class on their image.
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
    """Yields (area, rows, hit bits, ignored bits) of every image and class."""
    numbered = truth.numbered(preds.iou_type)
    anns = defaultdict(list)
    for ann in numbered['annotations']:
        anns[ann['image_id']].append(ann)
    image = np.searchsorted(truth.image_ids, preds.image_id[rows])
    ranges = {tuple(AREAS[name]): a for a, name in enumerate(areas)}
    for start in range(0, len(truth.image_ids), _GROUP):
        stop = start + _GROUP
        here = rows[(image >= start) & (image < stop)]
        if not len(here):
            continue
        images = numbered['images'][start:stop]
        part = {
            'images': images,
            'annotations': [a for r in images for a in anns[r['id']]],
            'categories': numbered['categories'],
        }
        evaluator = make_evaluator(truth, preds.select(here), areas, part)
        evaluator.evaluate()
        for cell in evaluator.eval_imgs:
            if cell is None or not cell['dtIds']:
                continue
            matched = _BITS @ np.array(cell['dtMatched'], np.int64)
            ignored = _BITS @ np.array(cell['dtIgnore'], np.int64)
            yield (
                ranges[tuple(cell['aRng'])],
                here[np.array(cell['dtIds']) - 1],
                matched & ~ignored,
                ignored,
            )
