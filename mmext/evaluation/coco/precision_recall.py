# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Precision-recall curves, and the images on which two runs differ."""

from __future__ import annotations

import numpy as np

from mmext.evaluation.coco.matching import RECALL_THRESHOLDS, Matches

MIN_SCORE = 0.3


def class_curve(matches: Matches, k: int, t: int = 0) -> np.ndarray:
    """Returns (101,) precision of class ``k``, nan if it has no object.

    It is interpolated, at recall 0 to 1 and IoU threshold ``t``.
    """
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


def most_different(
    a: Matches, b: Matches, count: int = 6
) -> list[tuple[int, int]]:
    """Returns the images on which the balance of two runs differs most.

    The balance is the number of objects found at IoU 0.5 minus that of false
    positives, with scores of `MIN_SCORE` or more.

    Returns:
        (image index, balance of ``b`` minus that of ``a``), the largest
        absolute difference first.
    """
    gap = _balance(b) - _balance(a)
    order = np.argsort(-abs(gap), kind='stable')[:count]
    return [(int(i), int(gap[i])) for i in order if gap[i]]


def _balance(matches: Matches) -> np.ndarray:
    balance = np.zeros(matches.num_images, int)
    for dets in matches.classes:
        hits = (dets.hit[0] & 1).astype(int)
        counted = 1 - (dets.ignored[0] & 1).astype(int)
        value = (2 * hits - counted) * (dets.score >= MIN_SCORE)
        np.add.at(balance, dets.image, value)
    return balance
