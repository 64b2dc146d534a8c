# Licensed under the Apache License, Version 2.0. See LICENSE.
"""COCO's summary metrics, computed from a cube of AP and AR."""

from __future__ import annotations

import numpy as np

from mmext.evaluation.coco.accumulate import Cube
from mmext.evaluation.coco.matching import AREAS, IOU_THRESHOLDS

AP_METRICS = ('AP', 'AP50', 'AP75', 'APs', 'APm', 'APl')
#: COCO's twelve metrics, in its order.
METRICS = (*AP_METRICS, 'AR1', 'AR10', 'AR100', 'ARs', 'ARm', 'ARl')
#: AP at each IoU threshold: 0.50, 0.55, ... 0.95.
IOU_METRICS = tuple(f'AP@{t:.2f}' for t in IOU_THRESHOLDS)
_AREA_NAMES = {name[0]: name for name in AREAS if name != 'all'}


def summarize(
    cube: Cube, metrics: tuple[str, ...] = METRICS
) -> dict[str, np.ndarray]:
    """Returns metric -> (B,) values from 0 to 1, nan without objects."""
    return {m: _mean(_part(cube, m), (1, 2)) for m in metrics}


def summarize_classes(cube: Cube, metric: str = 'AP') -> np.ndarray:
    """Returns (B, K) values of one metric, nan for classes without objects."""
    return _mean(_part(cube, metric), (1,))


def _part(cube: Cube, metric: str) -> np.ndarray:
    """The (B, T', K) part of the cube that a metric averages."""
    if metric.startswith('AP@'):
        t = IOU_METRICS.index(metric)
        return cube.ap[:, t : t + 1, :, 0]
    kind, which = metric[:2], metric[2:]
    if kind == 'AP' and which in ('50', '75'):
        t = int(np.argmin(abs(IOU_THRESHOLDS - int(which) / 100)))
        return cube.ap[:, t : t + 1, :, 0]
    if kind == 'AP':
        return cube.ap[..., _area(cube, which)]
    if which in ('1', '10'):
        return cube.ar[..., len(cube.areas) + ('1', '10').index(which)]
    return cube.ar[..., _area(cube, '' if which == '100' else which)]


def _area(cube: Cube, letter: str) -> int:
    return cube.areas.index(_AREA_NAMES[letter]) if letter else 0


def _mean(values: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """The mean over axes of all values but nan; nan if none is left."""
    there = ~np.isnan(values)
    total = np.where(there, values, 0).sum(axes, dtype=np.float64)
    count = there.sum(axes)
    return np.where(count, total / np.maximum(count, 1), np.nan)
