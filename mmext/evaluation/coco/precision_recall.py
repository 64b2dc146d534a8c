# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Precision-recall curves, and the images on which two runs differ."""

from __future__ import annotations

import numpy as np

from mmext.evaluation.coco.matching import RECALL_THRESHOLDS, Matches


def class_curve(matches: Matches, k: int, t: int = 0) -> np.ndarray:
    """Returns the interpolated precision of a class at recall 0 to 1.

    Args:
        matches: A matched run.
        k: Index of the class.
        t: Index of the IoU threshold. Default: 0, which is IoU 0.5.

    Returns:
        (101,) precision, nan if the class has no object.
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


def image_balance(matches: Matches, min_score: float = 0.3) -> np.ndarray:
    """Returns (I,) objects found at IoU 0.5 minus false positives.

    Args:
        matches: A matched run.
        min_score: Detections with lower scores do not count. Default: 0.3.
    """
    balance = np.zeros(matches.num_images, int)
    for dets in matches.classes:
        hits = (dets.hit[0] & 1).astype(int)
        counted = 1 - (dets.ignored[0] & 1).astype(int)
        value = (2 * hits - counted) * (dets.score >= min_score)
        np.add.at(balance, dets.image, value)
    return balance


def most_different(
    a: Matches, b: Matches, count: int = 6, min_score: float = 0.3
) -> list[tuple[int, int]]:
    """Returns the images on which the balance of two runs differs most.

    Args:
        a: A matched run, see :func:`image_balance`.
        b: Another run on the same ground truth.
        count: Maximum number of images. Default: 6.
        min_score: Detections with lower scores do not count. Default: 0.3.

    Returns:
        (image index, balance of ``b`` minus that of ``a``), the largest
        absolute difference first.
    """
    gap = image_balance(b, min_score) - image_balance(a, min_score)
    order = np.argsort(-abs(gap), kind='stable')[:count]
    return [(int(i), int(gap[i])) for i in order if gap[i]]
