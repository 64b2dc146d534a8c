# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Precision-recall curves and the images on which two runs differ."""

from __future__ import annotations

import numpy as np

from mmext.evaluation.coco.matches import RECALL_THRESHOLDS, Matches


def class_curve(matches: Matches, k: int, t: int = 0) -> np.ndarray:
    """Interpolated precision (101,) of a class at IoU threshold number t."""
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
    """Mean of the classes' curves; classes without objects left out."""
    curves = [class_curve(matches, k, t) for k in range(len(matches.names))]
    curves = [c for c in curves if not np.isnan(c[0])]
    return np.mean(curves, axis=0) if curves else np.full(101, np.nan)


def image_balance(matches: Matches, min_score: float = 0.3) -> np.ndarray:
    """(I,) objects found at IoU 0.5 less false positives, above a score."""
    balance = np.zeros(matches.num_images, int)
    for dets in matches.classes:
        hits = (dets.hit[0] & 1).astype(int)
        counted = 1 - (dets.ignored[0] & 1).astype(int)
        sure = dets.score >= min_score
        value = (2 * hits - counted) * sure
        np.add.at(balance, dets.image, value)
    return balance


def most_different(
    a: Matches, b: Matches, count: int = 6, min_score: float = 0.3
) -> list[tuple[int, int]]:
    """(image index, balance of b less that of a), the largest gaps first.

    Args:
        a: A matched run, see :func:`image_balance`.
        b: Another on the same ground truth.
        count: Most images. Default: 6.
        min_score: Fainter detections do not count. Default: 0.3.
    """
    gap = image_balance(b, min_score) - image_balance(a, min_score)
    order = np.argsort(-abs(gap), kind='stable')[:count]
    return [(int(i), int(gap[i])) for i in order if gap[i]]
