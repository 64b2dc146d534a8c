# Licensed under the Apache License, Version 2.0. See LICENSE.
"""COCO's AP and AR for many weightings of the images at once.

A bootstrap resample is a vector of weights: an image that is drawn twice has
weight 2. Detections are sorted and matched once; the AP of a resample needs
only sums of weights. Precision rises only at true positives, so the curve is
evaluated at the true positives, and the detections before each of them enter
as one running sum that all IoU thresholds share.

The result equals that of pycocotools on a data set that contains every image
as often as its weight, except for the order of equal scores.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from mmext.evaluation.coco.matching import (
    AREAS,
    IOU_THRESHOLDS,
    MAX_DETS,
    RECALL_THRESHOLDS,
    ClassMatches,
    Matches,
)

AP_METRICS = ('AP', 'AP50', 'AP75', 'APs', 'APm', 'APl')
#: COCO's twelve metrics, in its order.
METRICS = (*AP_METRICS, 'AR1', 'AR10', 'AR100', 'ARs', 'ARm', 'ARl')
#: AP at each IoU threshold: 0.50, 0.55, ... 0.95.
IOU_METRICS = tuple(f'AP@{t:.2f}' for t in IOU_THRESHOLDS)
#: Metric -> its only IoU threshold, as an index.
_THRESHOLDS = {'AP50': 0, 'AP75': 5}
_THRESHOLDS |= {name: t for t, name in enumerate(IOU_METRICS)}
_AREA_NAMES = {name[0]: name for name in AREAS if name != 'all'}
_BLOCK = 1 << 20  # numbers


@dataclass(frozen=True)
class Cube:
    """AP and AR of B weightings, from 0 to 1; nan if a class has no object."""

    ap: np.ndarray  # (B, T, K, A) mean over the 101 recall thresholds
    # (B, T, K, A + 2) with at most 100 detections in each area, then with at
    # most 1 and 10 over all areas:
    ar: np.ndarray
    areas: tuple[str, ...]  # A labels of area ranges


def accumulate_weighted(
    matches: Matches,
    weights: np.ndarray,
    threads: int = 2,
    progress: Callable[[float], None] | None = None,
    exact: bool = False,
) -> Cube:
    """Computes AP and AR for every row of (B, I) integer weights.

    With ``exact`` they are computed in float64, digit for digit as
    pycocotools does, rather than in float32. ``progress`` is called with the
    share that is done, from 0 to 1.
    """
    dtype = np.dtype(np.float64 if exact else np.float32)
    weights = np.ascontiguousarray(weights, np.int32)
    count, num_classes = len(weights), len(matches.classes)
    flat = matches.objects.reshape(matches.num_images, -1)
    objects = weights.astype(np.float32) @ flat.astype(np.float32)
    objects = objects.astype(np.int64).reshape(
        count, num_classes, len(matches.areas)
    )
    shape = (count, len(IOU_THRESHOLDS), num_classes, len(matches.areas))
    ap = np.full(shape, np.nan, dtype)
    ar = np.full((*shape[:3], shape[3] + 2), np.nan, dtype)

    def one_class(k: int) -> None:
        dets = matches.classes[k]
        # Few rows at a time, so that their arrays stay in cache.
        step = max(1, _BLOCK // max(1, len(dets.image)))
        for start in range(0, count, step):
            rows = slice(start, start + step)
            for a in range(shape[3]):
                ap[rows, :, k, a], recall = _one_area(
                    dets, a, weights[rows], objects[rows, k, a], dtype
                )
                ar[rows, :, k, a] = recall[0]
                for i, values in enumerate(recall[1:]):
                    ar[rows, :, k, shape[3] + i] = values

    # Longest class first: otherwise one thread may work on it at the end
    # while the others wait.
    work = np.array([len(dets.image) + 1 for dets in matches.classes])
    order = np.argsort(-work, kind='stable')
    shares = np.cumsum(work[order]) / work.sum()
    with ThreadPoolExecutor(threads) as pool:
        for share, _ in zip(shares, pool.map(one_class, order), strict=True):
            if progress:
                progress(float(share))
    return Cube(ap, ar, matches.areas)


def summarize(
    cube: Cube, metrics: tuple[str, ...] = METRICS
) -> dict[str, np.ndarray]:
    """Returns metric -> (B,) values from 0 to 1, nan without objects."""
    return {m: _mean(_part(cube, m), (1, 2)) for m in metrics}


def summarize_classes(cube: Cube, metric: str = 'AP') -> np.ndarray:
    """Returns (B, K) values of one metric, nan for classes without objects."""
    return _mean(_part(cube, metric), (1,))


def _one_area(
    dets: ClassMatches,
    a: int,
    weights: np.ndarray,
    objects: np.ndarray,
    dtype: np.dtype,
) -> tuple[np.ndarray, list[np.ndarray]]:
    """AP (B, T) and recalls [(B, T), ...] of one class and area."""
    rows, bits = len(weights), len(IOU_THRESHOLDS)
    limits = MAX_DETS[:2] if a == 0 else ()
    ap = np.zeros((rows, bits), dtype)
    recall = [np.zeros((rows, bits), dtype) for _ in range(1 + len(limits))]
    # All thresholds share one running sum, of the detections that count at
    # the strictest threshold. `correction` adds what differs at another.
    counted = (dets.ignored[a] >> (bits - 1)) & 1 == 0
    place = np.cumsum(counted)
    running = np.zeros((rows, np.count_nonzero(counted) + 1), np.int32)
    np.cumsum(
        np.take(weights, dets.image[counted], axis=1), 1, out=running[:, 1:]
    )
    steps = _recall_steps(objects, dtype)
    offset = (np.arange(rows) * steps.shape[1])[:, None]
    for t in range(bits):
        hits = (dets.hit[a] >> t) & 1 == 1
        counted_here = (dets.ignored[a] >> t) & 1 == 0
        correction = counted_here.astype(np.int32) - counted
        events = np.flatnonzero(hits | (correction != 0))
        w = np.take(weights, dets.image[events], axis=1)
        total = np.take(running, place[events], axis=1)
        hits, correction = hits[events], correction[events]
        if correction.any():
            total += np.cumsum(w * correction, 1, dtype=np.int32)
        if not hits.all():
            # w[:, hits] would be column-major, which is slow below.
            w, total = w.compress(hits, 1), total.compress(hits, 1)
        if not w.shape[1]:
            continue
        for i, limit in enumerate(limits, 1):
            within = dets.rank[events[hits]] < limit
            recall[i][:, t] = w[:, within].sum(1)
        found = np.cumsum(w, 1, dtype=np.int32)
        recall[0][:, t] = found[:, -1]
        best = np.divide(found, np.maximum(total, 1), dtype=dtype)
        _suffix_max(best)
        step = np.take(steps, found + offset)
        step[:, 1:] -= step[:, :-1]
        # Recall 0 is a threshold too; the first detection reaches it.
        step[:, 0] += 1
        # Rows of width 0 are skipped above: einsum of NumPy 2.2 sometimes
        # returned nan for them.
        ap[:, t] = np.einsum('bi,bi->b', step, best)
    ap /= len(RECALL_THRESHOLDS)
    ap[objects == 0] = np.nan
    for values in recall:
        values /= np.where(objects, objects, np.nan).astype(dtype)[:, None]
    return ap, recall


def _suffix_max(x: np.ndarray) -> None:
    """Sets ``x[b, i] = max(x[b, i:])`` in place.

    It works on blocks, then on their elements: ``np.maximum.accumulate`` is
    bound by latency and takes three times as long.
    """
    rows, width = x.shape
    side = math.isqrt(width)
    if side < 8:
        np.maximum.accumulate(x[:, ::-1], 1, out=x[:, ::-1])
        return
    tail = x[:, side * side :]
    np.maximum.accumulate(tail[:, ::-1], 1, out=tail[:, ::-1])
    row, step = x.strides
    blocks = np.lib.stride_tricks.as_strided(
        x, (rows, side, side), (row, side * step, step)
    )
    for i in range(side - 2, -1, -1):
        np.maximum(blocks[:, :, i], blocks[:, :, i + 1], blocks[:, :, i])
    after = blocks[:, :, 0].copy()
    if tail.shape[1]:
        np.maximum(after[:, -1], tail[:, 0], after[:, -1])
        np.maximum(blocks[:, -1], tail[:, :1], blocks[:, -1])
    for j in range(side - 2, -1, -1):
        np.maximum(after[:, j], after[:, j + 1], after[:, j])
    np.maximum(blocks[:, :-1], after[:, 1:, None], blocks[:, :-1])


def _recall_steps(objects: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """(B, max + 1) number of recall thresholds above 0 that n hits reach.

    This is a table because pycocotools compares ``hits / objects`` with the
    threshold in floating point, and 7 / 20 < 0.35000000000000003.
    """
    hits = np.arange(objects.max(initial=0) + 1)
    unique, inverse = np.unique(objects, return_inverse=True)
    recalls = hits / np.maximum(unique, 1)[:, None]
    reached = np.searchsorted(RECALL_THRESHOLDS, recalls, side='right') - 1
    return reached.astype(dtype)[inverse]


def _part(cube: Cube, metric: str) -> np.ndarray:
    """The (B, T', K) part of the cube that a metric averages."""
    if metric in _THRESHOLDS:
        t = _THRESHOLDS[metric]
        return cube.ap[:, t : t + 1, :, 0]
    kind, which = metric[:2], metric[2:]
    if which in ('1', '10'):
        return cube.ar[..., len(cube.areas) + ('1', '10').index(which)]
    area = 0
    if which in _AREA_NAMES:
        area = cube.areas.index(_AREA_NAMES[which])
    return cube.ap[..., area] if kind == 'AP' else cube.ar[..., area]


def _mean(values: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """The mean over axes of all values but nan; nan if none is left."""
    there = ~np.isnan(values)
    total = np.where(there, values, 0).sum(axes, dtype=np.float64)
    count = there.sum(axes)
    return np.where(count, total / np.maximum(count, 1), np.nan)
