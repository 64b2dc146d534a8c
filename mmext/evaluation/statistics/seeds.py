# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Variation between seeds, apart from variation between images.

Images answer "would other test images agree?", seeds answer "would another
training run agree?". A gain that stands on more images of the same two
checkpoints may still be the luck of a seed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as students_t

from mmext.evaluation.statistics.intervals import Estimate


@dataclass(frozen=True)
class SeedTest:
    """Welch's t-test of two sides' seeds on one metric.

    Args:
        baseline: One value a seed.
        candidate: One value a seed.
        difference: Of the means.
        se: Standard error of the difference, nan with one seed a side.
        df: Degrees of freedom (Welch and Satterthwaite).
        interval: Of the difference between training procedures.
        p: Two-sided.
    """

    baseline: tuple[float, ...]
    candidate: tuple[float, ...]
    difference: float
    se: float
    df: float
    interval: tuple[float, float]
    p: float


def seed_test(
    baseline: np.ndarray, candidate: np.ndarray, level: float = 0.95
) -> SeedTest:
    """Tests whether training again would tell the two sides apart.

    Args:
        baseline: (S,) one value a seed, at least two.
        candidate: (S',) likewise.
        level: Of the interval. Default: 0.95.
    """
    difference = float(np.mean(candidate) - np.mean(baseline))
    parts = [
        float(np.var(side, ddof=1)) / len(side) if len(side) > 1 else math.nan
        for side in (baseline, candidate)
    ]
    se = math.sqrt(sum(parts))
    interval, p, df = (math.nan, math.nan), math.nan, math.nan
    if se > 0:
        df = sum(parts) ** 2 / sum(
            v**2 / (len(side) - 1)
            for v, side in zip(parts, (baseline, candidate), strict=True)
        )
        reach = float(students_t.ppf((1 + level) / 2, df)) * se
        interval = (difference - reach, difference + reach)
        p = 2 * float(students_t.sf(abs(difference) / se, df))
    return SeedTest(
        tuple(map(float, baseline)),
        tuple(map(float, candidate)),
        *(difference, se, df, interval, p),
    )


def two_level(
    image: Estimate,
    baseline: np.ndarray,
    candidate: np.ndarray,
    rng: np.random.Generator,
    level: float = 0.95,
) -> Estimate:
    """Resamples seeds and images together.

    Every resample of images is evaluated on seeds drawn with replacement;
    their spread is the standard error. Deviations between seeds are enlarged
    by ``sqrt(S / (S - 1))``, without which a resample of S seeds has too
    small a variance. Interval and p-value are Student's, at the degrees of
    freedom that images and seeds leave: three seeds are no normal sample.

    Args:
        image: The estimate over images alone.
        baseline: (S, 1 + B) values, all images first, then each resample.
        candidate: (S', 1 + B) likewise.
        rng: Draws the seeds.
        level: Of the interval. Default: 0.95.
    """
    count = baseline.shape[1] - 1
    centre = float(candidate[:, 0].mean() - baseline[:, 0].mean())
    drawn = np.zeros(count)
    spread, curvature = image.se**2, 0.0
    for sign, side in ((-1, baseline), (1, candidate)):
        seeds = len(side)
        pick = rng.integers(seeds, size=(seeds, count))
        values = np.take_along_axis(side[:, 1:], pick, 0).mean(0)
        mean = side[:, 1:].mean(0)
        drawn += sign * (
            mean + math.sqrt(seeds / (seeds - 1)) * (values - mean)
        )
        part = float(np.var(side[:, 0], ddof=1)) / seeds
        spread += part
        curvature += part**2 / (seeds - 1)
    drawn = drawn[np.isfinite(drawn)]
    if len(drawn) < 20 or not spread > 0 or not math.isfinite(spread):
        nothing = {'stretched': (math.nan, math.nan)}
        return Estimate(centre, math.nan, nothing, math.nan, level)
    se = max(math.sqrt(spread), float(drawn.std(ddof=1)))
    df = min(1e6, se**4 / curvature) if curvature else 1e6
    reach = float(students_t.ppf((1 + level) / 2, df)) * se
    return Estimate(
        value=centre,
        se=se,
        intervals={'stretched': (centre - reach, centre + reach)},
        p=2 * float(students_t.sf(abs(centre) / se, df)),
        level=level,
    )
