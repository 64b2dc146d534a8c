# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Tests between training seeds.

Images answer whether other test images would agree, seeds whether another
training run would agree. A gain that is clear on the images of two
checkpoints may still depend on the seeds.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import stdtr, stdtrit

from mmext.evaluation.statistics.intervals import Estimate, no_estimate


def seed_test(
    baseline: np.ndarray, candidate: np.ndarray, level: float = 0.95
) -> Estimate:
    """Compares the means over training seeds by Welch's t-test.

    Args:
        baseline: (S,) one value a seed, at least two.
        candidate: (S',) one value a seed, at least two.
        level: Coverage of the interval. Default: 0.95.

    Returns:
        The difference between the training procedures, with nan for p and
        interval if no seed of a side differs from another.
    """
    value = float(np.mean(candidate) - np.mean(baseline))
    sides = (baseline, candidate)
    se = math.sqrt(sum(np.var(s, ddof=1) / len(s) for s in sides))
    if not se > 0:
        return no_estimate(value, level, se)
    from scipy.stats import ttest_ind  # takes 0.7 s to import

    found = ttest_ind(candidate, baseline, equal_var=False)
    low, high = map(float, found.confidence_interval(level))
    intervals = {'stretched': (low, high)}
    return Estimate(value, se, intervals, float(found.pvalue), level)


def two_level(
    image: Estimate,
    baseline: np.ndarray,
    candidate: np.ndarray,
    rng: np.random.Generator,
    level: float = 0.95,
) -> Estimate:
    """Estimates a difference with seeds and images resampled together.

    Every resample of images is evaluated on seeds drawn with replacement; the
    standard deviation of the results is the standard error. Deviations
    between seeds are multiplied by ``sqrt(S / (S - 1))``, because resamples
    of S seeds have too small a variance. The interval and the p-value are
    Student's, with the degrees of freedom of images and seeds.

    Args:
        image: The estimate over images alone.
        baseline: (S, 1 + B) values: on all images, then on each resample.
        candidate: (S', 1 + B) values.
        rng: Draws the seeds.
        level: Coverage of the interval. Default: 0.95.
    """
    resamples = baseline.shape[1] - 1
    difference = float(candidate[:, 0].mean() - baseline[:, 0].mean())
    drawn = np.zeros(resamples)
    variance, curvature = image.se**2, 0.0
    for sign, side in ((-1, baseline), (1, candidate)):
        seeds = len(side)
        pick = rng.integers(seeds, size=(seeds, resamples))
        values = np.take_along_axis(side[:, 1:], pick, 0).mean(0)
        mean = side[:, 1:].mean(0)
        scale = math.sqrt(seeds / (seeds - 1))
        drawn += sign * (mean + scale * (values - mean))
        part = float(np.var(side[:, 0], ddof=1)) / seeds
        variance += part
        curvature += part**2 / (seeds - 1)
    drawn = drawn[np.isfinite(drawn)]
    if len(drawn) < 20 or not 0 < variance < math.inf:
        return no_estimate(difference, level)
    se = max(math.sqrt(variance), float(drawn.std(ddof=1)))
    df = min(1e6, se**4 / curvature) if curvature else 1e6
    reach = float(stdtrit(df, (1 + level) / 2)) * se
    return Estimate(
        value=difference,
        se=se,
        intervals={'stretched': (difference - reach, difference + reach)},
        p=2 * float(stdtr(df, -abs(difference) / se)),
        level=level,
    )
