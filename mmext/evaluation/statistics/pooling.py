# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The mean of a difference over several studies: random effects."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from mmext.evaluation.statistics.intervals import Estimate, student


@dataclass(frozen=True)
class Pooled:
    """The mean over studies.

    Args:
        mean: The mean of the studies' true differences.
        tau: Standard deviation between these true differences.
        prediction: Where the true difference of another study is expected,
            at the level of ``mean``; nan for fewer than three studies.
    """

    mean: Estimate
    tau: float
    prediction: tuple[float, float]


def pool(
    values: Sequence[float], errors: Sequence[float], level: float = 0.95
) -> Pooled:
    """Pools independent differences by a random-effects model.

    The variance between studies is DerSimonian and Laird's (1986). The
    interval of the mean is Hartung and Knapp's (2001), Student's with k - 1
    degrees of freedom, and no shorter than without their factor: with few
    studies, a normal interval is too narrow (IntHout et al. 2014). The
    prediction interval is that of Higgins et al. (2009).

    Args:
        values: (k,) the differences, k >= 2.
        errors: (k,) their standard errors, above 0.
        level: Coverage of the intervals. Default: 0.95.
    """
    y, v = np.asarray(values, float), np.square(np.asarray(errors, float))
    k = len(y)
    fixed = 1 / v
    q = float(fixed @ np.square(y - np.average(y, weights=fixed)))
    scale = fixed.sum() - np.square(fixed).sum() / fixed.sum()
    tau2 = max(0.0, (q - (k - 1)) / float(scale))
    weights = 1 / (v + tau2)
    mean = float(np.average(y, weights=weights))
    factor = float(weights @ np.square(y - mean)) / (k - 1)
    variance = max(1.0, factor) / float(weights.sum())
    spread = (math.nan, math.nan)
    if k > 2:
        reach = float(stdtrit(k - 2, (1 + level) / 2)) * math.sqrt(
            tau2 + 1 / float(weights.sum())
        )
        spread = mean - reach, mean + reach
    return Pooled(
        student(mean, variance, k - 1, level), math.sqrt(tau2), spread
    )
