# Licensed under the Apache License, Version 2.0. See LICENSE.
"""From a cube of AP and AR to the numbers that papers print."""

from __future__ import annotations

import numpy as np

from mmext.evaluation.coco.accumulate import Cube
from mmext.evaluation.coco.matches import AREAS, IOU_THRESHOLDS

#: COCO's twelve, in its order.
METRICS = (
    *('AP', 'AP50', 'AP75', 'APs', 'APm', 'APl'),
    *('AR1', 'AR10', 'AR100', 'ARs', 'ARm', 'ARl'),
)
#: One more a threshold: AP at IoU 0.50, 0.55, ... 0.95.
IOU_METRICS = tuple(f'AP@{t:.2f}' for t in IOU_THRESHOLDS)
_AREA = {name[0]: i for i, name in enumerate(AREAS)}


def summarize(
    cube: Cube, metrics: tuple[str, ...] = METRICS
) -> dict[str, np.ndarray]:
    """Each metric of each weighting, (B,), nan where no class has objects."""
    return {m: _mean(_part(cube, m), (1, 2)) for m in metrics}


def summarize_classes(cube: Cube, metric: str = 'AP') -> np.ndarray:
    """One metric of every class, (B, K), nan for a class without objects."""
    return _mean(_part(cube, metric), (1,))


def _part(cube: Cube, metric: str) -> np.ndarray:
    """The (B, T', K) part of the cube that a metric averages."""
    if metric.startswith('AP@'):
        t = IOU_METRICS.index(metric)
        return cube.ap[:, t : t + 1, :, 0]
    kind, which = metric[:2], metric[2:]
    if kind == 'AP':
        if which in ('50', '75'):
            t = int(np.argmin(abs(IOU_THRESHOLDS - int(which) / 100)))
            return cube.ap[:, t : t + 1, :, 0]
        return cube.ap[..., _area(cube, which)]
    if which in ('1', '10'):
        return cube.ar[..., len(cube.areas) + (which == '10')]
    return cube.ar[..., 0 if which == '100' else _area(cube, which)]


def _area(cube: Cube, letter: str) -> int:
    return cube.areas.index([*AREAS][_AREA[letter]]) if letter else 0


def _mean(values: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Mean over axes of what is not nan; nan where nothing is left."""
    there = ~np.isnan(values)
    total = np.where(there, values, 0).sum(axes, dtype=np.float64)
    count = there.sum(axes)
    return np.where(count, total / np.maximum(count, 1), np.nan)
