# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Confidence intervals and p-values from resampled differences.

Three intervals are offered. ``percentile`` reads the quantiles of the
resampled values. ``bca`` (Efron 1987, Better bootstrap confidence intervals)
corrects them for bias and skewness. ``stretched``, the default, is the
percentile interval, widened around the estimate where the jackknife's
standard error exceeds the bootstrap's by more than a fifth. That happens
where classes are on few images: a resample of one image has no spread, so
the bootstrap's error is too small there, while the jackknife's is too large;
their geometric mean is about right. ``benchmarks/bootstrap_coverage.py``
measures all three.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from scipy.stats import t as students_t

METHODS = ('stretched', 'percentile', 'bca')
_NORMAL = NormalDist()
_TOLERANCE = 1.2  # jackknife over bootstrap, where nothing is wrong


@dataclass(frozen=True)
class Estimate:
    """A difference and what is known of its uncertainty.

    Args:
        value: The difference on the images at hand.
        se: Its standard error over images.
        intervals: Method -> (low, high).
        p: Two-sided p-value of "no difference".
        level: The intervals' nominal coverage.
    """

    value: float
    se: float
    intervals: dict[str, tuple[float, float]]
    p: float
    level: float = 0.95

    @property
    def interval(self) -> tuple[float, float]:
        """The default method's interval."""
        return self.intervals[METHODS[0]]


def estimate(
    value: float,
    resampled: np.ndarray,
    jackknife: np.ndarray,
    level: float = 0.95,
    images: int | None = None,
) -> Estimate:
    """Intervals and a p-value of one difference.

    Args:
        value: On all images.
        resampled: (B,) on bootstrap resamples; nan where undefined.
        jackknife: (J,) with one of J groups of images left out.
        level: Nominal coverage. Default: 0.95.
        images: Images that tell of the difference. B resamples cannot tell
            p-values under 2 / (B + 1) apart, which is too coarse to correct
            for many classes; there, Student's t with one degree of freedom
            fewer than images takes over. Default: it does not.
    """
    resampled = resampled[np.isfinite(resampled)]
    jackknife = jackknife[np.isfinite(jackknife)]
    if not math.isfinite(value) or len(resampled) < 20 or len(jackknife) < 2:
        nothing = (math.nan, math.nan)
        return Estimate(
            value, math.nan, dict.fromkeys(METHODS, nothing), math.nan, level
        )
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
        tail = students_t.sf(abs(value) / se, images - 1)
        p = min(p, 2 * float(tail))
    return Estimate(
        value=value,
        se=se,
        intervals={
            m: (float(x[0]), float(x[1])) for m, x in intervals.items()
        },
        p=p,
        level=level,
    )


def jackknife_se(values: np.ndarray) -> float:
    """Standard error from J leave-one-group-out values."""
    count = len(values)
    return float(np.sqrt((count - 1) * np.var(values)))


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's step-down adjustment; nan stays nan and counts as no test."""
    p = np.asarray(p, float)
    adjusted = np.full_like(p, np.nan)
    tested = np.flatnonzero(np.isfinite(p))
    order = tested[np.argsort(p[tested])]
    factors = np.arange(len(order), 0, -1)
    steps = np.maximum.accumulate(p[order] * factors) if len(order) else []
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted


def _quantile(values: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Of B values the k-th is the quantile k / (B + 1)."""
    return np.quantile(values, shares, method='weibull')


def _p_value(resampled: np.ndarray) -> float:
    """The smallest level at which the interval of these leaves zero out.

    At least 2 / (B + 1).
    """
    count = len(resampled)
    shares = np.arange(1, count + 1) / (count + 1)
    ordered = np.sort(resampled)
    below = np.interp(0, ordered, shares)
    above = np.interp(0, -ordered[::-1], shares)
    return float(min(1.0, 2 * min(below, above)))


def _bca(
    value: float, resampled: np.ndarray, jackknife: np.ndarray, tails
) -> np.ndarray:
    """The quantiles that BCa reads instead of the nominal ones."""
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
