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

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

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
    count, num_classes = len(weights), len(matches.classes)
    flat = matches.objects.reshape(matches.num_images, -1)
    objects = weights.astype(np.float32) @ flat.astype(np.float32)
    objects = objects.astype(np.int64).reshape(
        count, num_classes, len(matches.areas)
    )
    shape = (count, len(IOU_THRESHOLDS), num_classes, len(matches.areas))
    ap = np.full(shape, np.nan, dtype)
    ar = np.full((*shape[:3], shape[3] + 2), np.nan, dtype)
    # Sums of detections, and 100 times a recall, are exact in float32 if
    # they are small.
    detections = MAX_DETS[-1] * weights.sum(1).max(initial=0)
    small = detections < 1 << 24 and objects.max(initial=0) < 1 << 14
    by_image = weights.T.astype(dtype if small else np.float64, 'C')

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
                ar[rows, :, k, a] = recall[:, 0]
                # With at most 1 and 10 detections.
                for i, values in enumerate(recall[:, :0:-1].swapaxes(0, 1)):
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
) -> tuple[np.ndarray, np.ndarray]:
    """AP (B, T) and recalls (B, 1 or 3, T) of one class and area.

    ``weights`` are (I, B) whole numbers as floats, ``objects`` (B,).
    """
    rows, bits = weights.shape[1], len(IOU_THRESHOLDS)
    places = np.flatnonzero(dets.hit[a])
    image, ignored = dets.image, dets.ignored[a]
    hit = _bits(dets.hit[a, places])
    drawn = weights.take(image[places], 0)
    # The detections before each place: those that count at all thresholds
    # are summed once, the few that count at some of them for each threshold.
    running = _sums_between(weights, image, ignored == 0, places)
    _cumulate(np.add, running)
    running += np.finfo(running.dtype).tiny  # where it is 0, 0 are found
    some = np.flatnonzero((ignored > 0) & (ignored < (1 << bits) - 1))
    counted = ~_bits(ignored[some])
    thresholds = _RecallThresholds(objects, weights.dtype)
    ap = np.zeros((rows, bits), dtype)
    limits = MAX_DETS[-2::-1] if a == 0 else ()
    recall = np.zeros((1 + len(limits), bits, rows), weights.dtype)
    for t in range(bits):
        at = np.flatnonzero(hit[t])
        if not len(at):
            continue
        best = running.take(at, 0)
        others = some[counted[t]]
        if len(others):
            before = np.zeros((len(others) + 1, rows), weights.dtype)
            _cumulate(np.add, weights.take(image[others], 0, before[1:]))
            number = np.searchsorted(others, places[at], 'right')
            best += before.take(number, 0)
        found = _cumulate(np.add, drawn.take(at, 0))
        recall[0, t] = found[-1]
        np.divide(found, best, best)
        best = best.astype(dtype, copy=False)
        _cumulate(np.maximum, best[::-1])
        reached, step = thresholds.reached(found), found
        np.subtract(reached[1:], reached[:-1], step[1:])
        # Recall 0 is a threshold too; the first detection reaches it.
        step[0] = 1 + reached[0]
        ap[:, t] = np.einsum('ib,ib->b', step, best)
    ap /= len(RECALL_THRESHOLDS)
    ap[objects == 0] = np.nan
    for i, limit in enumerate(limits, 1):
        within = hit & (dets.rank[places] < limit)
        recall[i] = csr_matrix(within, dtype=weights.dtype) @ drawn
    recall /= np.where(objects, objects, np.nan).astype(weights.dtype)
    return ap, recall.transpose(2, 0, 1)


def _bits(values: np.ndarray) -> np.ndarray:
    """(T, N) bools: the lowest bits of (N,) numbers."""
    return (values >> np.arange(len(IOU_THRESHOLDS))[:, None]) & 1 == 1


def _sums_between(
    weights: np.ndarray,
    image: np.ndarray,
    chosen: np.ndarray,
    places: np.ndarray,
) -> np.ndarray:
    """(P, B) weights of the chosen detections after a place, to the next."""
    bounds = np.append(0, np.cumsum(chosen))[np.append(0, places + 1)]
    image = image[chosen][: bounds[-1]]
    ones = np.ones(len(image), weights.dtype)
    shape = len(places), len(weights)
    return csr_matrix((ones, image, bounds), shape) @ weights


def _cumulate(operation: np.ufunc, x: np.ndarray) -> np.ndarray:
    """Replaces rows by the running sum or maximum, and returns ``x``.

    It works on blocks of rows, then adds the block before: ``accumulate``
    goes down column by column, which is slow for many columns.
    """
    side = math.isqrt(len(x))
    if x.shape[1] < 16 or side < 2:
        return operation.accumulate(x, 0, out=x)
    row, step = x.strides
    blocks = np.lib.stride_tricks.as_strided(
        x, (len(x) // side, side, x.shape[1]), (side * row, row, step)
    )
    for i in range(1, side):
        operation(blocks[:, i - 1], blocks[:, i], blocks[:, i])
    for before, block in pairwise(blocks):
        operation(before[-1], block, block)
    for i in range(blocks.shape[0] * side, len(x)):
        operation(x[i - 1], x[i], x[i])
    return x


class _RecallThresholds:
    """Counts the recall thresholds that numbers of hits reach.

    pycocotools compares ``hits / objects`` with the threshold in floating
    point, and 7 / 20 < 0.35000000000000003: such a threshold is not reached.
    """

    def __init__(self, objects: np.ndarray, dtype: np.dtype) -> None:
        # A little too much, so that rounding makes no percent too small.
        percent = (1 + 4 * np.finfo(dtype).eps) * 100 / np.maximum(objects, 1)
        self.percent = percent.astype(dtype)
        late = np.arange(101) / 100 < RECALL_THRESHOLDS
        late = np.flatnonzero(late)[:, None] * objects
        _, self.columns = np.nonzero((late % 100 == 0) & (late > 0))
        self.hits = late[(late % 100 == 0) & (late > 0)] // 100

    def reached(self, found: np.ndarray) -> np.ndarray:
        """(N, B) numbers of thresholds above 0."""
        reached = found * self.percent
        np.floor(reached, reached)
        if len(self.hits):
            row, i = np.nonzero(found.take(self.columns, 1) == self.hits)
            reached[row, self.columns[i]] -= 1
        return reached


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
