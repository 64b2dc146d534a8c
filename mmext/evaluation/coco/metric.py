# Licensed under the Apache License, Version 2.0. See LICENSE.
"""mmdet's ``CocoMetric``, corrected, and computed by hotcoco in seconds.

pycocotools sorts the ids of the classes, and mmdet names AP of classes by
their order in the file, so that names were exchanged if categories are not
sorted. A model that finds nothing had no AP instead of 0. `correct` changes
both in ``CocoMetric``.

In `FastCocoMetric`, only matching and accumulation are hotcoco's. mmdet
converts the results, sets the parameters and prints, and pycocotools'
``summarize`` computes the numbers. The first evaluation that finds an object
runs both engines on the same data. If they disagree, the metric logs a warning
and uses pycocotools.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import hotcoco
import numpy as np
from mmdet.datasets.api_wrappers import COCO, COCOeval
from mmdet.evaluation.metrics import coco_metric
from mmdet.evaluation.metrics.coco_metric import CocoMetric
from mmengine.logging import print_log
from mmengine.registry import METRICS


class GivenOrder:
    """Mixin of an evaluator: results have the classes in the given order."""

    def evaluate(self) -> None:
        """Matches the detections to the objects."""
        given = list(self.params.catIds)
        super().evaluate()
        self._order = np.searchsorted(self.params.catIds, given)

    def accumulate(self, p: object = None) -> None:
        """Computes precision and recall; the axis of classes is sorted."""
        super().accumulate(p)
        if not self.params.useCats:
            return
        # precision and scores: (T, R, K, A, M), recall: (T, K, A, M)
        for key in ('precision', 'recall', 'scores'):
            values = self.eval[key]
            axis = values.ndim - 3
            self.eval[key] = np.take(values, self._order, axis)


class AcceptsNothing(COCO):
    """Annotations; a detector may have found nothing in their images."""

    def loadRes(self, resFile: Any) -> COCO:  # noqa: N802, N803
        """Returns the detections; pycocotools fails if there are none."""
        if not isinstance(resFile, list) or resFile:
            return super().loadRes(resFile)
        nothing = type(self)()
        nothing.dataset = {**self.dataset, 'annotations': []}
        nothing.createIndex()
        return nothing


def correct(module: ModuleType) -> None:
    """Makes mmdet's ``CocoMetric`` right about classes and empty results.

    AP of classes are named by their ids. If nothing was found, AP is 0.

    Args:
        module: ``mmdet.evaluation.metrics.coco_metric``.
    """
    module.COCO = AcceptsNothing
    for name in ('COCOeval', 'COCOevalMP'):
        evaluator = getattr(module, name, None)
        if evaluator is not None and not issubclass(evaluator, GivenOrder):
            # Named as the original, so that COCOevalMP can be pickled.
            place = {'__module__': module.__name__}
            setattr(module, name, type(name, (GivenOrder, evaluator), place))


class _HotcocoSteps(COCOeval):
    def evaluate(self) -> None:
        p = self.params
        p.imgIds = sorted(set(p.imgIds))
        p.catIds = sorted(set(p.catIds))
        truth = hotcoco.COCO(
            {
                key: self.cocoGt.dataset.get(key, [])
                for key in ('images', 'annotations', 'categories')
            }
        )
        fast = hotcoco.COCOeval(truth, self._detections(truth), p.iouType)
        fast.params.img_ids = list(map(int, p.imgIds))
        fast.params.cat_ids = list(map(int, p.catIds))
        fast.params.iou_thrs = [float(t) for t in p.iouThrs]
        fast.params.max_dets = sorted(map(int, p.maxDets))
        fast.params.use_cats = bool(p.useCats)
        fast.evaluate()
        self._fast = fast

    def accumulate(self, p: object = None) -> None:
        # In pycocotools' layout.
        self._fast.accumulate()
        self.eval = {
            key: np.asarray(self._fast.eval[key])
            for key in ('precision', 'recall', 'scores')
        }
        self.eval['params'] = self.params

    def _detections(self, truth: hotcoco.COCO) -> hotcoco.COCO:
        anns = self.cocoDt.dataset['annotations']
        if self.params.iouType == 'bbox':
            table = [
                [a['image_id'], *a['bbox'], a['score'], a['category_id']]
                for a in anns
            ]
            return truth.load_res(np.array(table, np.float64).reshape(-1, 7))
        keys = ('image_id', 'category_id', 'segmentation', 'score')
        return truth.load_res([{k: a[k] for k in keys} for a in anns])


class HotcocoEval(GivenOrder, _HotcocoSteps):
    """pycocotools' evaluator with hotcoco in its two slow steps."""


@METRICS.register_module()
class FastCocoMetric(CocoMetric):
    """``CocoMetric`` with the same arguments, computed by hotcoco.

    Example:
        >>> val_evaluator = dict(type='FastCocoMetric', ann_file='val.json')
    """

    _trusted: bool | None = None

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Returns the same as ``CocoMetric``, computed by hotcoco.

        An annotation of id 0 gets another id: pycocotools would count its
        object as missed even if it is found.
        """
        if self._coco_api is not None and 0 in self._coco_api.anns:
            annotations = self._coco_api.anns
            zero = annotations.pop(0)  # the other tables share this dict
            zero['id'] = max(annotations, default=0) + 1
            annotations[zero['id']] = zero
        if self._trusted is False or self.format_only:
            return super().compute_metrics(results)
        try:
            with _engine(HotcocoEval):
                fast = super().compute_metrics(results)
        except Exception as error:  # hotcoco must not end a training run
            self._distrust(f'it failed: {type(error).__name__}: {error}')
            return super().compute_metrics(results)
        if self._trusted is None:
            reference = super().compute_metrics(results)
            wrong = [
                f'{key} {fast.get(key)} instead of {value}'
                for key, value in reference.items()
                if not _equal(fast.get(key), value)
            ]
            if wrong:
                self._distrust(', '.join(wrong))
                return reference
            if not any(
                isinstance(v, int | float) and v > 0
                for v in reference.values()
            ):
                return reference  # zeros do not show that hotcoco is right
            self._trusted = True
            print_log(
                'hotcoco equals pycocotools on this data. Evaluations from '
                'now on use hotcoco.',
                'current',
            )
        return fast

    def _distrust(self, why: str) -> None:
        self._trusted = False
        print_log(
            f'Evaluations use pycocotools, because hotcoco differs: {why}',
            'current',
            level=logging.WARNING,
        )


correct(coco_metric)


@contextmanager
def _engine(evaluator: type) -> Iterator[None]:
    """Replaces the evaluator that ``CocoMetric`` finds in its module."""
    before = {
        name: getattr(coco_metric, name)
        for name in ('COCOeval', 'COCOevalMP')
        if hasattr(coco_metric, name)
    }
    try:
        vars(coco_metric).update(dict.fromkeys(before, evaluator))
        yield
    finally:
        vars(coco_metric).update(before)


def _equal(a: object, b: object) -> bool:
    if isinstance(b, (int, float)) and isinstance(a, (int, float)):
        return bool(np.isclose(a, b, rtol=0, atol=1e-9, equal_nan=True))
    return a == b
