# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Compares our metrics with those of pycocotools, the reference."""

from __future__ import annotations

import contextlib
import copy
import io

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmext.errors import UserError
from mmext.evaluation.coco.accumulate import METRICS
from mmext.evaluation.coco.ground_truth import GroundTruth
from mmext.evaluation.coco.predictions import Predictions


def verify(
    truth: GroundTruth, preds: Predictions, metrics: dict[str, float]
) -> None:
    """Raises `UserError` if a metric, from 0 to 1, differs by over 1e-10."""
    if not len(preds):
        raise UserError(
            f'pycocotools cannot evaluate {preds.path}: it has no detections'
        )
    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO()
        gt.dataset = copy.deepcopy(truth.dataset)
        # pycocotools counts an object of id 0 as missed even if found.
        for i, ann in enumerate(gt.dataset['annotations'], 1):
            ann.update(id=i, iscrowd=ann.get('iscrowd', 0))
        gt.createIndex()
        evaluator = COCOeval(gt, gt.loadRes(preds.records()), preds.iou_type)
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    stats = np.where(evaluator.stats < 0, np.nan, evaluator.stats)
    for name, expected in zip(METRICS, stats, strict=True):
        if name in metrics and not np.isclose(
            metrics[name], expected, rtol=0, atol=1e-10, equal_nan=True
        ):
            raise UserError(
                f'{preds.path}: {name} is {metrics[name]:.6f} here and '
                f'{expected:.6f} in pycocotools',
                'Please report this with the two files.',
            )
