# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Confidence intervals and p-values from resampled differences.

``percentile`` is given by the quantiles of the resampled values. ``bca``
(Efron 1987, Better bootstrap confidence intervals) corrects them for bias and
skewness. ``stretched``, the default, is the percentile interval, widened for
classes on few images; docs/comparing.md explains why and measures all three.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri, stdtr, stdtrit

METHODS = ('stretched', 'percentile', 'bca')
_TOLERANCE = 1.2  # of the jackknife's error over the bootstrap's


@dataclass(frozen=True)
class Estimate:
    """A difference and its uncertainty, in shares from -1 to 1.

    Args:
        value: The difference on all images.
        se: Its standard error.
        intervals: Method -> (low, high).
        p: Two-sided p-value of the hypothesis that there is no difference: 1
            minus the largest coverage whose interval excludes zero.
        level: Nominal coverage of the intervals. Default: 0.95.
        least: Lower bound of the difference, which covers on one side with
            probability ``level``.
        holm: ``p`` after Holm's correction for what is tested beside it; nan
            if it was not corrected.
    """

    value: float
    se: float
    intervals: dict[str, tuple[float, float]]
    p: float
    level: float = 0.95
    least: float = math.nan
    holm: float = math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """The interval of the default method."""
        return self.intervals[METHODS[0]]


def estimate(
    value: float,
    resampled: np.ndarray,
    jackknife: np.ndarray,
    level: float = 0.95,
    images: int | None = None,
) -> Estimate:
    """Computes the intervals and the p-value of a difference.

    Args:
        value: The difference on all images.
        resampled: (B,) differences on bootstrap resamples, nan if undefined.
        jackknife: (J,) differences without one of J groups of images.
        level: Nominal coverage. Default: 0.95.
        images: Number of images on which the difference depends. The
            smallest p-value of B resamples is 2 / (B + 1), which is too large
            to correct for many classes. If this number is given, smaller
            p-values, and the interval at a smaller level, are Student's with
            ``images - 1`` degrees of freedom.
            Default: None.
    """
    resampled = resampled[np.isfinite(resampled)]
    jackknife = jackknife[np.isfinite(jackknife)]
    if not math.isfinite(value) or len(resampled) < 20 or len(jackknife) < 2:
        return no_estimate(value, level)
    tails = np.array([(1 - level) / 2, (1 + level) / 2])
    spread = float(resampled.std(ddof=1))
    excess = jackknife_se(jackknife) / (_TOLERANCE * spread) if spread else 1
    # Resamples of a class on one image do not vary, so the bootstrap's error
    # is too small, the jackknife's too large; their geometric mean is right.
    stretch = max(1.0, math.sqrt(excess))
    se = stretch * spread
    moved = value + stretch * (resampled - value)
    intervals = {
        'stretched': _interval(moved, tails),
        'percentile': _interval(resampled, tails),
        'bca': _interval(resampled, _bca(value, resampled, jackknife, tails)),
    }
    p = _p_value(moved)
    least, _ = _interval(moved, np.array([1 - level, level]))
    if images and images > 1 and se > 0:
        by_student = student(value, se**2, images - 1, level)
        if p <= 2 / len(moved):
            p = min(p, by_student.p)
        if 1 - level < 2 / (len(moved) + 1):  # beyond the resamples
            intervals['stretched'] = by_student.interval
            least = by_student.least
    return Estimate(value, se, intervals, p, level, least)


def student(
    value: float, variance: float, df: float, level: float = 0.95
) -> Estimate:
    """Returns Student's interval and p-value with ``df`` degrees of freedom.

    They are nan if the variance is zero or not finite.
    """
    if not 0 < variance < math.inf:
        return no_estimate(value, level, math.sqrt(max(variance, 0)))
    se = math.sqrt(variance)
    reach, reach_below = stdtrit(df, [(1 + level) / 2, level]) * se
    return Estimate(
        value=value,
        se=se,
        intervals={METHODS[0]: (value - float(reach), value + float(reach))},
        p=2 * float(stdtr(df, -abs(value) / se)),
        level=level,
        least=value - float(reach_below),
    )


def no_estimate(
    value: float, level: float = 0.95, se: float = math.nan
) -> Estimate:
    """Returns an estimate without intervals and p-value."""
    unknown = dict.fromkeys(METHODS, (math.nan, math.nan))
    return Estimate(value, se, unknown, math.nan, level)


def jackknife_se(values: np.ndarray) -> float:
    """Returns the standard error from J leave-one-group-out values."""
    return float(np.sqrt((len(values) - 1) * np.var(values)))


def holm(p: np.ndarray) -> np.ndarray:
    """Returns p-values after Holm's step-down correction.

    nan stays nan and does not count as a test.
    """
    adjusted = np.full_like(p, np.nan)
    order = np.argsort(p)[: np.isfinite(p).sum()]  # nan is last
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.maximum.accumulate(p[order] * factors).clip(max=1)
    return adjusted


def _interval(values: np.ndarray, tails: np.ndarray) -> tuple[float, float]:
    """Two quantiles; the k-th of B values is the quantile k / (B + 1)."""
    low, high = np.quantile(values, tails, method='weibull').tolist()
    return low, high


def _p_value(resampled: np.ndarray) -> float:
    """The smallest level that excludes zero, at least 2 / (B + 1)."""
    count = len(resampled)
    shares = np.arange(1, count + 1) / (count + 1)
    ordered = np.sort(resampled)
    below = np.interp(0, ordered, shares)
    above = np.interp(0, -ordered[::-1], shares)
    return float(min(1.0, 2 * min(below, above)))


def _bca(
    value: float,
    resampled: np.ndarray,
    jackknife: np.ndarray,
    tails: np.ndarray,
) -> np.ndarray:
    """The quantiles that BCa uses instead of the nominal ones."""
    share = np.mean(resampled < value) + 0.5 * np.mean(resampled == value)
    least = 1 / (len(resampled) + 1)
    z0 = ndtri(np.clip(share, least, 1 - least))
    pull = jackknife.mean() - jackknife
    scale = float((pull**2).sum())
    skew = float((pull**3).sum()) / (6 * scale**1.5) if scale > 0 else 0.0
    z = z0 + ndtri(tails)
    return ndtr(z0 + z / (1 - skew * z))
