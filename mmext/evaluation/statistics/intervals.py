# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Confidence intervals and p-values from resampled differences.

There are three intervals. ``percentile`` is given by the quantiles of the
resampled values. ``bca`` (Efron 1987, Better bootstrap confidence intervals)
corrects them for bias and skewness. ``stretched``, the default, is the
percentile interval, widened around the estimate if the jackknife's standard
error exceeds the bootstrap's by more than a fifth. That happens if classes
are on few images: resamples of one image do not vary, so the bootstrap's
error is too small, while the jackknife's is too large. Their geometric mean
is about right. ``benchmarks/bootstrap_coverage.py`` measures all three.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

METHODS = ('stretched', 'percentile', 'bca')
_NORMAL = NormalDist()
_TOLERANCE = 1.2  # of the jackknife's error over the bootstrap's


@dataclass(frozen=True)
class Estimate:
    """A difference and its uncertainty, in shares from -1 to 1.

    Args:
        value: The difference on all images.
        se: Its standard error over images.
        intervals: Method -> (low, high).
        p: Two-sided p-value of the hypothesis that there is no difference.
        level: Nominal coverage of the intervals. Default: 0.95.
    """

    value: float
    se: float
    intervals: dict[str, tuple[float, float]]
    p: float
    level: float = 0.95

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
            p-values are Student's t with ``images - 1`` degrees of freedom.
            Default: None.
    """
    resampled = resampled[np.isfinite(resampled)]
    jackknife = jackknife[np.isfinite(jackknife)]
    if not math.isfinite(value) or len(resampled) < 20 or len(jackknife) < 2:
        return no_estimate(value, level)
    tails = np.array([(1 - level) / 2, (1 + level) / 2])
    spread = float(resampled.std(ddof=1))
    excess = jackknife_se(jackknife) / (_TOLERANCE * spread) if spread else 1
    se = spread * max(1.0, math.sqrt(excess))
    stretch = se / spread if spread > 0 else 1.0
    moved = value + stretch * (resampled - value)
    bca = _bca(value, resampled, jackknife, tails)
    intervals = {
        'stretched': _quantile(moved, tails),
        'percentile': _quantile(resampled, tails),
        'bca': _quantile(resampled, bca),
    }
    p = _p_value(moved)
    if images and images > 1 and p <= 2 / len(moved) and se > 0:
        from scipy.special import stdtr  # takes 0.2 s to import

        p = min(p, 2 * float(stdtr(images - 1, -abs(value) / se)))
    return Estimate(
        value=value,
        se=se,
        intervals={
            m: (float(x[0]), float(x[1])) for m, x in intervals.items()
        },
        p=p,
        level=level,
    )


def no_estimate(value: float, level: float = 0.95) -> Estimate:
    """Returns an estimate without intervals, standard error and p-value."""
    unknown = dict.fromkeys(METHODS, (math.nan, math.nan))
    return Estimate(value, math.nan, unknown, math.nan, level)


def jackknife_se(values: np.ndarray) -> float:
    """Returns the standard error from J leave-one-group-out values."""
    count = len(values)
    return float(np.sqrt((count - 1) * np.var(values)))


def holm(p: np.ndarray) -> np.ndarray:
    """Returns p-values after Holm's step-down correction.

    Args:
        p: (K,) p-values; nan stays nan and does not count as a test.
    """
    p = np.asarray(p, float)
    adjusted = np.full_like(p, np.nan)
    tested = np.flatnonzero(np.isfinite(p))
    order = tested[np.argsort(p[tested])]
    factors = np.arange(len(order), 0, -1)
    steps = np.maximum.accumulate(p[order] * factors) if len(order) else []
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted


def _quantile(values: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """The k-th of B values is the quantile k / (B + 1)."""
    return np.quantile(values, shares, method='weibull')


def _p_value(resampled: np.ndarray) -> float:
    """The smallest level whose interval does not contain zero.

    It is at least 2 / (B + 1).
    """
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
    z0 = _NORMAL.inv_cdf(float(np.clip(share, least, 1 - least)))
    pull = jackknife.mean() - jackknife
    scale = float((pull**2).sum())
    skew = float((pull**3).sum()) / (6 * scale**1.5) if scale > 0 else 0.0
    result = []
    for tail in tails:
        z = z0 + _NORMAL.inv_cdf(float(tail))
        result.append(_NORMAL.cdf(z0 + z / (1 - skew * z)))
    return np.clip(result, 0, 1)
