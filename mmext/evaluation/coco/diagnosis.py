# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Where a run gains and loses AP: curves, kinds of errors, and images."""

from __future__ import annotations

import numpy as np

from mmext.evaluation.coco.ground_truth import GroundTruth
from mmext.evaluation.coco.matching import (
    RECALL_THRESHOLDS,
    Matches,
    make_evaluator,
)
from mmext.evaluation.coco.predictions import Predictions

MIN_SCORE = 0.3
#: TIDE's names and ours.
KINDS = {
    'Cls': 'class',
    'Loc': 'location',
    'Both': 'class and location',
    'Dupe': 'duplicate',
    'Bkg': 'background',
    'Miss': 'missed',
}


def class_curve(matches: Matches, k: int, t: int = 0) -> np.ndarray:
    """Returns (101,) precision at recall 0 to 1, nan without objects."""
    dets = matches.classes[k]
    objects = int(matches.objects[:, k, 0].sum())
    if not objects:
        return np.full(len(RECALL_THRESHOLDS), np.nan)
    hits = (dets.hit[0] >> t) & 1
    counted = 1 - ((dets.ignored[0] >> t) & 1)
    found = np.cumsum(hits)
    precision = found / np.maximum(np.cumsum(counted), 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(found / objects, RECALL_THRESHOLDS, side='left')
    return np.append(precision, 0.0)[at]


def mean_curve(matches: Matches, t: int = 0) -> np.ndarray:
    """Returns the mean of `class_curve` over the classes with objects."""
    curves = [class_curve(matches, k, t) for k in range(len(matches.names))]
    curves = [c for c in curves if not np.isnan(c[0])]
    if not curves:
        return np.full(len(RECALL_THRESHOLDS), np.nan)
    return np.mean(curves, axis=0)


def error_types(truth: GroundTruth, preds: Predictions) -> dict[str, float]:
    """Returns the AP50 that each kind of error costs, from 0 to 1.

    That is AP50 with all errors of the kind corrected, minus AP50 (TIDE,
    Bolya et al., ECCV 2020).
    """
    if not len(preds):
        anns = truth.dataset['annotations']
        objects = any(not a.get('iscrowd') for a in anns)
        return {**dict.fromkeys(KINDS.values(), 0.0), 'missed': float(objects)}
    evaluator = make_evaluator(truth, preds)
    evaluator.evaluate()
    delta = evaluator.tide_errors()['delta_ap']
    return {name: float(delta[kind]) for kind, name in KINDS.items()}


def most_different(
    a: Matches, b: Matches, count: int = 6
) -> list[tuple[int, int]]:
    """Returns (image index, balance of ``b`` minus that of ``a``).

    The largest absolute differences come first.
    """
    gap = _balance(b) - _balance(a)
    order = np.argsort(-abs(gap), kind='stable')[:count]
    return [(int(i), int(gap[i])) for i in order if gap[i]]


def _balance(matches: Matches) -> np.ndarray:
    """(I,) objects found at IoU 0.5 minus false positives."""
    balance = np.zeros(matches.num_images, int)
    for dets in matches.classes:
        hits = (dets.hit[0] & 1).astype(int)
        counted = 1 - (dets.ignored[0] & 1).astype(int)
        value = (2 * hits - counted) * (dets.score >= MIN_SCORE)
        np.add.at(balance, dets.image, value)
    return balance
