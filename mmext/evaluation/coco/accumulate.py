# Licensed under the Apache License, Version 2.0. See LICENSE.
"""COCO's AP and AR for many weightings of the images at once.

A bootstrap resample is a vector of weights: an image that is drawn twice has
weight 2. Detections are sorted and matched once; the AP of a resample needs
only sums of weights. Precision rises only at true positives, so the curve is
evaluated at the true positives. The detections between two of them are a row
of a sparse matrix, whose product with all weightings gives their numbers.

The result equals that of pycocotools on a data set that contains every image
as often as its weight, except for the order of equal scores.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix

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
_BLOCK = 1 << 23  # numbers


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
    weights = np.asarray(weights, np.int32)
    by_image = np.ascontiguousarray(weights.T)
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
        # A large class in parts, which limits the memory.
        step = max(64, _BLOCK // max(1, np.count_nonzero(dets.hit)))
        for start in range(0, count, step):
            rows = slice(start, start + step)
            part = np.ascontiguousarray(by_image[:, rows])
            for a in range(shape[3]):
                ap[rows, :, k, a], recall = _one_area(
                    dets, a, part, objects[rows, k, a], dtype
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
    """AP (B, T) and recalls [(B, T), ...] of one class and area.

    ``weights`` are (I, B), ``objects`` (B,).
    """
    rows, bits = weights.shape[1], len(IOU_THRESHOLDS)
    hit, ignored = dets.hit[a], dets.ignored[a]
    limits = MAX_DETS[:2] if a == 0 else ()
    ap = np.zeros((rows, bits), dtype)
    recall = [np.zeros((rows, bits), dtype) for _ in range(1 + len(limits))]
    # All thresholds share one running sum, of the detections that count at
    # the strictest threshold. `correction` adds what differs at another.
    counted = _bit(ignored, bits - 1) == 0
    differs = (ignored > 0) & (ignored < (1 << bits) - 1)
    events = np.flatnonzero((hit > 0) | differs)
    before = np.searchsorted(events, np.flatnonzero(counted))
    image = dets.image[counted][before < len(events)]
    before = before[before < len(events)]
    between = csr_matrix(
        (np.ones(len(image), np.int32), (before, image)),
        shape=(len(events), len(weights)),
    )
    running = _running_sum(between @ weights)
    w = weights[dets.image[events]]
    hit, ignored, rank = hit[events], ignored[events], dets.rank[events]
    steps = _recall_steps(objects)
    for t in range(bits):
        hits = _bit(hit, t) == 1
        if not hits.any():
            continue
        correction = counted[events].astype(np.int32)
        correction = 1 - _bit(ignored, t).astype(np.int32) - correction
        total = running
        if correction.any():
            total = total + _running_sum(w * correction[:, None])
        found = w[hits]
        for i, limit in enumerate(limits, 1):
            recall[i][:, t] = found[rank[hits] < limit].sum(0)
        found = _running_sum(found)
        recall[0][:, t] = found[-1]
        best = np.divide(found, np.maximum(total[hits], 1), dtype=dtype)
        _suffix_max(best)
        reached = steps.take(found * rows + np.arange(rows))
        step = reached.copy()
        step[1:] -= reached[:-1]
        # Recall 0 is a threshold too; the first detection reaches it.
        step[0] += 1
        ap[:, t] = np.einsum('ib,ib->b', step, best)
    ap /= len(RECALL_THRESHOLDS)
    ap[objects == 0] = np.nan
    for values in recall:
        values /= np.where(objects, objects, np.nan).astype(dtype)[:, None]
    return ap, recall


def _bit(values: np.ndarray, t: int) -> np.ndarray:
    return (values >> t) & 1


def _running_sum(x: np.ndarray) -> np.ndarray:
    """Adds to each row those before it, in place.

    ``np.cumsum`` goes down each column, which takes several times as long if
    there are many.
    """
    if x.shape[1] < 16:
        return np.cumsum(x, 0, x.dtype, x)
    for i in range(1, len(x)):
        np.add(x[i], x[i - 1], x[i])
    return x


def _suffix_max(x: np.ndarray) -> None:
    """Sets ``x[i] = x[i:].max(0)`` in place."""
    if x.shape[1] < 16:
        np.maximum.accumulate(x[::-1], 0, out=x[::-1])
        return
    for i in range(len(x) - 2, -1, -1):
        np.maximum(x[i], x[i + 1], x[i])


def _recall_steps(objects: np.ndarray) -> np.ndarray:
    """(max + 1, B) number of recall thresholds above 0 that n hits reach.

    This is a table because pycocotools compares ``hits / objects`` with the
    threshold in floating point, and 7 / 20 < 0.35000000000000003.
    """
    hits = np.arange(objects.max(initial=0) + 1)
    unique, inverse = np.unique(objects, return_inverse=True)
    recalls = hits[:, None] / np.maximum(unique, 1)
    reached = np.searchsorted(RECALL_THRESHOLDS, recalls, side='right') - 1
    return reached.astype(np.uint8)[:, inverse]


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
